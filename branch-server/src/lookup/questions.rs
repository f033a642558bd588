//! One question, answered: the same function for the look-up threads and the simulator.

use tally_ledger::cancel_id;
use tally_ledger::journal::record::RecordBody;
use tally_ledger::wire::item_result;
use tally_protocol::message::{self, MessageType};
use tally_protocol::{BranchId, Refusal, Timestamp, TransferId};
use zerocopy::IntoBytes;

use super::answer;
use super::legs;
use super::resolve::{RecordReader, Recorded, ResolveError, Resolver};
use super::{Asker, Looked, Question, Returned};
use crate::engine::Engine;
use crate::ids::{LookedUp, Recent};
use crate::replies::ReplyBody;

/// What a question led to.
#[derive(Debug)]
pub enum Answer {
    /// The asker can be told. Everything in it was durable before it was read.
    Reply(Asker, ReplyBody),
    /// The worker goes on with it.
    Return(Returned),
}

/// Answers a question from what `reader` reads. Blocking.
pub fn resolve<R: RecordReader>(engine: &Engine, reader: &R, question: Question) -> Answer {
    Reading { engine, resolver: Resolver { engine, reader } }.resolve(question)
}

struct Reading<'a, R> {
    engine: &'a Engine,
    resolver: Resolver<'a, R>,
}

enum Found {
    /// None of them is known. The branch that ends the hold which the last of them names, where that is another one.
    New(Looked, Option<BranchId>),
    /// What is known of each that is.
    Known(Vec<Option<Recorded>>),
}

impl<R: RecordReader> Reading<'_, R> {
    fn resolve(&self, question: Question) -> Answer {
        match question {
            Question::Transfer(asker, transfer) => match self.look_up(std::slice::from_ref(&transfer)) {
                Ok(Found::New(_, Some(branch))) => {
                    let refusal = Refusal::HoldElsewhere;
                    let retry_after_ms = u32::from(branch.get());
                    Answer::Reply(asker, ReplyBody::Refused { refusal, retry_after_ms, text: None })
                }
                Ok(Found::New(looked, None)) => Answer::Return(Returned::Transfer(asker, transfer, looked)),
                Ok(Found::Known(records)) => {
                    let known = records.into_iter().flatten().next().expect("the one that was asked for is known");
                    let decided_under = decision_id(&known).unwrap_or(TransferId::new(transfer.id.get()));
                    match answer::repeated(self.engine, &asker, &transfer, &known) {
                        Some(body) => Answer::Reply(asker, body),
                        None => Answer::Return(Returned::InDoubt(asker, transfer, decided_under)),
                    }
                }
                Err(error) => failed(asker, &error),
            },
            Question::Chain(asker, entries) => {
                let transfers = crate::worker::transfers_of(&entries).expect("the worker checked the length");
                match self.look_up(transfers) {
                    Ok(Found::New(looked, _)) => Answer::Return(Returned::Chain(asker, entries, looked)),
                    Ok(Found::Known(records)) => match self.chain_items(transfers, &records) {
                        Ok(items) => {
                            let items = items.as_bytes().to_vec();
                            Answer::Reply(asker, ReplyBody::Items(MessageType::ChainReply, items.into()))
                        }
                        Err(id) => Answer::Return(Returned::ChainInDoubt(asker, entries, id)),
                    },
                    Err(error) => failed(asker, &error),
                }
            }
            Question::BatchEntry { batch, transfers } => Answer::Return(match self.look_up(&transfers) {
                Ok(Found::New(looked, _)) => Returned::BatchEntryNew(batch, looked),
                Ok(Found::Known(records)) => {
                    // No batch holds what is decided elsewhere, and that has no answer yet.
                    let in_doubt = |_| transfers.iter().map(|_| answer::refused_item(Refusal::IdAlreadyUsed)).collect();
                    let items = self.chain_items(&transfers, &records).unwrap_or_else(in_doubt);
                    Returned::BatchEntryKnown(batch, items)
                }
                Err(error) => {
                    log(&error);
                    let items = transfers.iter().map(|_| answer::refused_item(Refusal::Busy)).collect();
                    Returned::BatchEntryKnown(batch, items)
                }
            }),
            Question::BatchIds { batch, mut ids } => {
                ids.sort_unstable();
                ids.dedup();
                // What cannot be read now is asked about again when the entry's turn comes, and named then.
                let look_up = |id| self.engine.ids.lookup_on_disk(id).unwrap_or(LookedUp::NOTHING);
                Answer::Return(Returned::BatchIds(batch, ids.into_iter().map(|id| (id, look_up(id))).collect()))
            }
            Question::Prepare(cross) => Answer::Return(legs::prepare(self.engine, &self.resolver, cross)),
            Question::Decide(id, decision, at) => {
                Answer::Return(legs::decide(self.engine, &self.resolver, id, decision, at))
            }
            Question::PrepareChain(chain) => Answer::Return(legs::prepare_chain(self.engine, &self.resolver, chain)),
            Question::TakeIn(moving) => Answer::Return(legs::take_in(self.engine, &self.resolver, moving)),
            Question::End(item) => Answer::Return(legs::end(self.engine, &self.resolver, item)),
            Question::IdUsed(item) => Answer::Return(legs::id_used(&self.resolver, item)),
            // Looked at first: what is done by the time of the second look is found by it.
            Question::GetTransfer(asker, id) if self.engine.ids.facts_recent(id) == Recent::InFlight => {
                Answer::Reply(asker, answer::in_flight(id))
            }
            Question::GetTransfer(asker, id) => match self.resolver.known(id) {
                Ok(known) => Answer::Reply(asker, answer::found(self.engine, &asker, &known)),
                Err(error) => failed(asker, &error),
            },
            Question::CancelId(asker, id) => self.cancel_id(asker, id),
        }
    }

    fn cancel_id(&self, asker: Asker, id: TransferId) -> Answer {
        let known = match self.resolver.known(id) {
            Ok(known) => known,
            Err(error) => return failed(asker, &error),
        };
        let item = match cancel_id(known.record.as_ref().map(|record| &record.body)) {
            Ok(true) => return Answer::Return(Returned::CancelId(asker, id, known.looked_up)),
            Ok(false) => {
                let timestamp = known.record.map_or(Timestamp::default(), |record| record.timestamp);
                item_result(None, timestamp, true)
            }
            Err(refusal) => answer::refused_item(refusal),
        };
        Answer::Reply(asker, ReplyBody::Item(MessageType::CancelIdReply, item))
    }

    /// Whether more of a chain is known by now than `records`, or about to be. Its ids become known one after the
    /// other: where only some are, the same chain may have been sent twice, and be applied at this moment.
    fn is_under_way(
        &self,
        transfers: &[message::Transfer],
        records: &[Option<Recorded>],
    ) -> Result<bool, ResolveError> {
        let is_in_flight = |transfer: &message::Transfer| {
            self.engine.ids.facts_recent(TransferId::new(transfer.id.get())) == Recent::InFlight
        };
        // In this order: what was in flight before and is not any more is known at the second look.
        Ok(transfers.iter().any(is_in_flight)
            || self.look_up_ids(transfers)?.1.iter().flatten().count() > records.iter().flatten().count())
    }

    fn look_up_ids(&self, transfers: &[message::Transfer]) -> Result<(Looked, Vec<Option<Recorded>>), ResolveError> {
        let mut looked = Looked::default();
        let mut records = Vec::with_capacity(transfers.len());
        for transfer in transfers {
            let id = TransferId::new(transfer.id.get());
            let known = self.resolver.known(id)?;
            looked.ids.push((id, known.looked_up));
            records.push(known.record.map(|record| Recorded { record, ended: known.ended, is_kept: known.is_kept }));
        }
        looked.ids.sort_unstable_by_key(|(id, _)| *id);
        Ok((looked, records))
    }

    /// Whether any of the transfers' ids is known; if none is, what they refer to.
    fn look_up(&self, transfers: &[message::Transfer]) -> Result<Found, ResolveError> {
        let resolver = &self.resolver;
        let (mut looked, records) = self.look_up_ids(transfers)?;
        if records.iter().any(Option::is_some)
            && records.iter().any(Option::is_none)
            && self.is_under_way(transfers, &records)?
        {
            // Nothing is said of any id: the worker asks again, behind what it has in hand.
            return Ok(Found::New(Looked::default(), None));
        }
        if records.iter().any(Option::is_some) {
            return Ok(Found::Known(records));
        }
        let mut ender = None;
        for (index, transfer) in transfers.iter().enumerate() {
            let reference = TransferId::new(transfer.reference.get());
            // What a later link will make is not there yet.
            let in_chain = transfers[..index].iter().any(|earlier| earlier.id.get() == reference.get());
            if !reference.is_none() && !in_chain {
                let (found, looked_up, branch) = resolver.reference(reference)?;
                ender = branch;
                looked.references.push((reference, found, looked_up));
            }
        }
        Ok(Found::New(looked, ender))
    }

    /// A chain, some of which is known: the first answers again if all of it is, unchanged; else nothing
    /// is done and each says why.
    ///
    /// # Errors
    /// When all of it is known and unchanged, and the registry has not decided: the id that it decides under.
    fn chain_items(
        &self,
        transfers: &[message::Transfer],
        records: &[Option<Recorded>],
    ) -> Result<Vec<message::ItemResult>, TransferId> {
        let mut in_doubt = None;
        let mut item = |(transfer, known): (&message::Transfer, &Option<Recorded>)| match known {
            Some(known) => answer::repeated_item(self.engine, transfer, known).unwrap_or_else(|| {
                in_doubt = in_doubt.or(decision_id(known));
                // As it would look if it were decided.
                message::ItemResult {
                    flags: message::RESULT_REPEATED.into(),
                    ..answer::refused_item(Refusal::IdAlreadyUsed)
                }
            }),
            None => answer::refused_item(Refusal::ChainBroken),
        };
        let mut items: Vec<_> = transfers.iter().zip(records).map(&mut item).collect();
        let is_repeat = |item: &message::ItemResult| item.flags.get() & message::RESULT_REPEATED != 0;
        if !items.iter().all(is_repeat) {
            for item in items.iter_mut().filter(|item| is_repeat(item)) {
                *item = answer::refused_item(Refusal::IdAlreadyUsed);
            }
            return Ok(items);
        }
        in_doubt.map_or(Ok(items), Err)
    }
}

/// What the registry decides the transfer under: its chain's id, or its own.
fn decision_id(known: &Recorded) -> Option<TransferId> {
    match &known.record.body {
        RecordBody::Transfer(transfer) => Some(transfer.chain.map_or(transfer.id, |place| place.id)),
        _ => None,
    }
}

fn failed(asker: Asker, error: &ResolveError) -> Answer {
    log(error);
    let text = Some("the past could not be read from disk; see the branch's log".into());
    Answer::Reply(asker, ReplyBody::Refused { refusal: Refusal::Busy, retry_after_ms: 1_000, text })
}

pub(super) fn log(error: &ResolveError) {
    tracing::error!(stage = "lookup", %error, "the past could not be read");
}
