//! Chains between branches, from what is wanted to what is to be said: as `legs.rs`, with several members under one decision.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_ledger::two_phase::{
    Attempt, Decision, Objection, Participant, ParticipantEffect, ParticipantEvent, Participants, Vote,
};
use tally_ledger::{HoldStage, Leg};
use tally_protocol::link::CrossChain;
use tally_protocol::message;
use tally_protocol::{AccountId, BranchId, Lsn, Refusal, Timestamp, TransferId};

use super::doubts::{ChainDoubt, WaitingChain};
use super::{Doubt, Led, Said, TwoPhase, VOTES_TIMEOUT_NS};
use crate::clock;
use crate::engine::{ChainDecided, ChainLegStep, ChainStep, Done, Engine, Payee, Writer};
use crate::intake::Instruction;
use crate::lookup::{Asker, Looked, Question};

/// Whose business a chain is.
#[derive(Debug)]
pub enum ChainRoute {
    /// This branch's alone.
    Here,
    /// Several branches': for each transfer the home of its credit account, where that is another one.
    Between(Vec<Option<BranchId>>),
    /// Nobody's: each for the reason given. Nothing is recorded.
    Refused(Vec<Refusal>),
}

/// How far a chain between branches came.
#[derive(Debug)]
pub enum ChainBegun {
    /// Prepared, and begun with the registry. The client is answered when it is decided.
    InDoubt,
    /// It came to an end here: refused, with or without a trace, or it has to wait.
    Here(ChainStep),
}

impl TwoPhase {
    /// Where the payees of a chain are.
    pub fn route_chain(&self, engine: &Engine, wires: &[message::Transfer]) -> ChainRoute {
        let payees: Vec<Payee> = wires.iter().map(|wire| engine.payee(wire, |id| self.moved.get(id))).collect();
        if payees.iter().all(|payee| *payee == Payee::Here) {
            return ChainRoute::Here;
        }
        let (mut peers, mut refused) = (Vec::with_capacity(wires.len()), None);
        let mut participants = Participants::one(self.branch);
        for (index, (wire, payee)) in wires.iter().zip(payees).enumerate() {
            let home = AccountId::new(wire.credit_account_id.get()).branch();
            let peer = match payee {
                Payee::Here => None,
                Payee::At(peer) => Some(peer),
                Payee::Moving => {
                    refused = refused.or(Some((index, Refusal::AccountMoving)));
                    None
                }
            };
            // Its ids may be known at another branch, and one is asked about at a time.
            if peer.is_some_and(|peer| peer != home) {
                refused = refused.or(Some((index, Refusal::MovedAccountSinglesOnly)));
            }
            match participants.with(peer.unwrap_or(self.branch)) {
                Ok(more) => participants = more,
                Err(_) => refused = refused.or(Some((index, Refusal::CountInvalid))),
            }
            peers.push(peer);
        }
        match refused {
            None => ChainRoute::Between(peers),
            Some((at, refusal)) => {
                let told = |index| if index == at { refusal } else { Refusal::ChainBroken };
                ChainRoute::Refused((0..wires.len()).map(told).collect())
            }
        }
    }

    /// Whether a chain with payees at `peers` may begin now.
    ///
    /// # Errors
    /// As [`TwoPhase::admit`], for the first of them.
    pub fn admit_chain(&self, peers: &[Option<BranchId>]) -> Result<(), Refusal> {
        peers.iter().flatten().try_for_each(|&peer| self.admit(peer))
    }

    /// A client's chain with payees at `peers`. [`TwoPhase::admit_chain`] comes before.
    #[expect(clippy::too_many_arguments, reason = "the stages' own arguments, and where to write")]
    pub fn begin_chain(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        (wires, peers): (&[message::Transfer], &[Option<BranchId>]),
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
        led: &mut Led,
    ) -> ChainBegun {
        let prepared = engine.prepare_chain_source(writer, (wires, peers), asker, looked, now, clock::monotonic_nanos);
        let dones = match prepared {
            ChainStep::Done(dones) if dones.iter().all(|done| done.is_prepared) => dones,
            other => return ChainBegun::Here(other),
        };
        let (first, last) = (dones.first().expect("it has a member"), dones.last().expect("it has a member"));
        let stamp = last.timestamp.as_nanos();
        let members = wires
            .iter()
            .zip(peers)
            .map(|(wire, peer)| (message::Transfer { flags: 0.into(), ..*wire }, peer.unwrap_or(self.branch)));
        let times = (stamp, stamp.saturating_add(VOTES_TIMEOUT_NS));
        let chain = CrossChain::new(self.branch, members, times, asker.trace_id);
        let id = TransferId::new(chain.prefix.id.get());
        // The begin is the source's vote: it leaves once all of its records are durable.
        led.says.push((last.lsn, Said::BeginChain(chain)));
        let attempt = Attempt::of_chain(self.branch);
        self.note_chain_prepared(
            (id, attempt),
            first.timestamp,
            &dones,
            vec![WaitingChain { asker: *asker, again: None }],
        );
        self.stats.begun.fetch_add(1, Ordering::Relaxed);
        ChainBegun::InDoubt
    }

    /// The registry wants this branch's part of a chain prepared.
    pub fn prepare_chain(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        chain: &CrossChain,
        looked: Option<&Looked>,
        now: Timestamp,
        led: &mut Led,
    ) {
        let (id, attempt) = (TransferId::new(chain.prefix.id.get()), Attempt::of_chain(chain.source()));
        // Causes come before effects: this part is stamped behind the source's.
        let now = now.max(Timestamp::from_nanos(chain.prefix.stamp.get().saturating_add(1)));
        match engine.prepare_chain_destination(writer, chain, looked, now) {
            ChainLegStep::Prepared(dones) => {
                let (first, last) = (dones.first().expect("it has a member"), dones.last().expect("it has a member"));
                self.note_chain_prepared((id, attempt), first.timestamp, &dones, Vec::new());
                led.say(id, last.lsn, ParticipantEffect::Vote(Vote::Yes(attempt)), last.timestamp);
                self.stats.prepared.fetch_add(1, Ordering::Relaxed);
            }
            ChainLegStep::Refused(last, why) => {
                let event = ParticipantEvent::Prepare { ruling: Err(why), now: last.timestamp, attempt };
                self.handle(id, last.lsn, Participant::Absent, event, (last.timestamp, led));
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
            }
            ChainLegStep::Held(lsn) => led.say(id, lsn, ParticipantEffect::Vote(Vote::Yes(attempt)), now),
            ChainLegStep::NotRecorded(why) => self.object(id, why, now, led),
            ChainLegStep::InFlight => led.again = Some(Instruction::PrepareChain(chain.clone())),
            ChainLegStep::Lookup => led.question = Some(Question::PrepareChain(chain.clone())),
        }
    }

    /// A vote against a chain, or a transfer, that leaves no trace here.
    pub fn object(&self, id: TransferId, why: Objection, now: Timestamp, led: &mut Led) {
        led.say(id, Lsn::ZERO, ParticipantEffect::Vote(Vote::No(why)), now);
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The registry has decided a chain. `false` when no member of one with this id is open here.
    pub(super) fn decide_chain(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        id: TransferId,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
        led: &mut Led,
    ) -> bool {
        let ended = match engine.decide_chain(writer, id, (decision, decided_at), now) {
            ChainDecided::Now(ended) => ended,
            ChainDecided::NotOpen => return false,
            ChainDecided::NoRoom => {
                led.again = Some(Instruction::Decide(id, decision, decided_at));
                return true;
            }
        };
        let (last, hold) = ended.last().expect("a member was open");
        let doubt = self.doubts.remove(id);
        let prepared = Participant::Prepared { ask_at: hold.timestamp, pause_s: 1, attempt: hold.attempt };
        let state = doubt.as_ref().map_or(prepared, |doubt| doubt.state);
        self.handle(id, last.lsn, state, ParticipantEvent::Told(decision), (last.timestamp, led));
        ended.iter().for_each(|(_, hold)| self.stats.count(decision, hold.stage));
        let is_source = ended.iter().any(|(_, hold)| matches!(hold.leg, Leg::Source | Leg::Inner));
        // A hold's answer is the record that made it, as without a chain.
        let answer_of = |&(done, hold): &(Done, tally_ledger::Hold)| match hold.stage {
            HoldStage::AwaitsKeeping if decision == Decision::Commit => super::legs::as_held(done, &hold),
            HoldStage::AwaitsKeeping
            | HoldStage::AwaitsPosting
            | HoldStage::Open
            | HoldStage::Joining(_)
            | HoldStage::Ended(_) => done,
        };
        let answers: Vec<Done> = ended.iter().map(answer_of).collect();
        let gate = last.lsn;
        if is_source {
            led.decided.extend(answers.iter().copied());
        }
        let Some(doubt) = doubt else { return true };
        for waiting in doubt.waiting {
            let asked = ended.iter().position(|(_, hold)| hold.id == waiting.member);
            led.answers.extend(asked.map(|at| (gate, waiting, answers[at])));
        }
        for WaitingChain { asker, again } in doubt.chain.into_iter().flat_map(|chain| chain.waiting) {
            match again {
                None => led.chain_answers.push((gate, asker, answers.clone())),
                Some(entries) => led.asked_again.push((asker, entries)),
            }
        }
        true
    }

    /// A chain that came again while it is in doubt: it is looked up once that is decided. `Ok(false)` when too many wait.
    ///
    /// # Errors
    /// Gives it back when nothing is in doubt under this id.
    pub fn attach_chain(&self, id: TransferId, asker: Asker, entries: Bytes) -> Result<bool, (Asker, Bytes)> {
        let waiting = WaitingChain { asker, again: Some(entries) };
        self.doubts
            .attach_chain(id, waiting)
            .map_err(|WaitingChain { asker, again }| (asker, again.expect("it was just put there")))
    }

    /// The members of a chain were prepared: all of them are in doubt from here on.
    fn note_chain_prepared(
        &self,
        (id, attempt): (TransferId, Attempt),
        since: Timestamp,
        dones: &[Done],
        waiting: Vec<WaitingChain>,
    ) {
        let last = dones.last().expect("it has a member");
        let event = ParticipantEvent::Prepare { ruling: Ok(()), now: last.timestamp, attempt };
        let state = Participant::Absent.handle(self.branch, event, &mut Vec::with_capacity(2));
        let state = state.expect("a new chain contradicts nothing");
        let accounts = [last.debit_account_id, last.credit_account_id];
        let all = dones.iter().flat_map(|done| [done.debit_account_id, done.credit_account_id]).collect();
        let chain = Some(Box::new(ChainDoubt { accounts: all, waiting }));
        self.doubts.insert(id, Doubt { state, accounts, lsn: last.lsn, since, waiting: Vec::new(), chain });
    }
}
