//! One request at a time: from what was asked to a reply behind its gate.

use bytes::Bytes;
use tally_ledger::wire::{account_message, balance_message, item_result};
use tally_protocol::message::{self, MessageType};
use tally_protocol::request::Lookup;
use tally_protocol::{AccountId, Refusal, Timestamp, TransferId};

use super::bulk::Bulk;
use super::{Running, WAITING_LEN_MAX};
use crate::clock;
use crate::engine::{AccountOp, AccountOutcome, Cancel, ChainStep, Done, Payee, Read, Step};
use crate::intake::{Instruction, Op, Request};
use crate::lookup::{Asker, Looked, Question, Returned};
use crate::replies::ReplyBody;
use crate::two_phase::ChainRoute;

impl Running {
    pub(super) fn handle(&mut self, request: Request, now: Timestamp, now_ns: u64) {
        let (asker, op) = Asker::taken(request, now_ns);
        if asker.deadline != 0 && now_ns > asker.deadline {
            return self.refuse(asker, Refusal::DeadlinePassed, 0);
        }
        match op {
            Op::Transfer(transfer) => self.transfer(asker, transfer, None, now),
            Op::Chain(entries) => self.chain(asker, entries, None, now),
            Op::CloseAccount(id) => self.change_account(asker, id, AccountOp::Close, now),
            Op::FreezeAccount(id) => self.change_account(asker, id, AccountOp::Freeze, now),
            Op::UnfreezeAccount(id) => self.change_account(asker, id, AccountOp::Unfreeze, now),
            Op::SetLimits(limits) => {
                let id = AccountId::new(limits.id.get());
                self.change_account(asker, id, AccountOp::SetLimits(limits), now);
            }
            Op::CancelId(id) => self.ask(asker, Question::CancelId(asker, id)),
            Op::GetTransfer(id) => self.look_up(asker, Lookup::Transfer(id), now),
            Op::GetBalance(id) => self.look_up(asker, Lookup::Balance(id), now),
            Op::GetAccount(id) => self.look_up(asker, Lookup::Account(id), now),
            Op::ReadAfter(stamp, lookup) => self.read_after(asker, stamp, lookup, now, now_ns),
            Op::Batch(_) | Op::OpenAccounts(_) | Op::ReadFeed(_) => unreachable!("bulk work has a queue of its own"),
        }
    }

    pub(super) fn handle_returned(&mut self, returned: Returned, now: Timestamp, _now_ns: u64) {
        match returned {
            Returned::Transfer(asker, transfer, looked) => self.transfer(asker, transfer, Some(&looked), now),
            Returned::Chain(asker, entries, looked) => self.chain(asker, entries, Some(&looked), now),
            Returned::CancelId(asker, id, looked_up) => {
                match self.worker.engine.cancel(&mut self.worker.writer, id, &looked_up, asker.actor, now) {
                    Cancel::Done { lsn, timestamp } => {
                        self.reply(
                            asker,
                            lsn,
                            ReplyBody::Item(MessageType::CancelIdReply, item_result(None, timestamp, false)),
                        );
                    }
                    Cancel::AskAgain => self.ask(asker, Question::CancelId(asker, id)),
                    Cancel::Refused(refusal) => self.refuse(asker, refusal, 5),
                }
            }
            Returned::Prepare(cross, looked) => self.instruct(Instruction::Prepare(cross), Some(&looked), now),
            Returned::PrepareChain(chain, looked) => {
                self.instruct(Instruction::PrepareChain(chain), Some(&looked), now);
            }
            Returned::TakeIn(moving, looked) => self.instruct(Instruction::TakeIn(moving), Some(&looked), now),
            Returned::Decide(id, decision, at) => self.instruct(Instruction::Decide(id, decision, at), None, now),
            Returned::End(item) => self.instruct(Instruction::End(item), None, now),
            Returned::Heard(item) => self.say_heard(&item, now),
            Returned::Leg(id, effect) => self.say_leg(id, effect, now),
            Returned::InDoubt(asker, transfer, id) => self.attach(asker, transfer, id),
            Returned::ChainInDoubt(asker, entries, id) => self.attach_chain(asker, entries, id),
            Returned::IdTold(item) => self.tell_id(item),
            Returned::Contradiction => self.note_contradiction(),
            Returned::Nothing => {}
            Returned::BatchEntryNew(number, looked) => self.batch(number, |batch| batch.entry_is_new(looked)),
            Returned::BatchEntryKnown(number, items) => self.batch(number, |batch| batch.entry_was_known(items)),
            Returned::BatchIds(number, ids) => self.batch(number, |batch| batch.ids_are_looked_up(ids)),
        }
    }

    fn batch(&mut self, number: u64, tell: impl FnOnce(&mut super::batch::Batch)) {
        let batch = self.bulk.iter_mut().find_map(|bulk| match bulk {
            Bulk::Batch(batch) if batch.number() == number => Some(batch),
            Bulk::Batch(_) | Bulk::Opening(_) => None,
        });
        tell(batch.expect("a batch stays until its questions are answered"));
    }

    pub(super) fn transfer(
        &mut self,
        asker: Asker,
        transfer: message::Transfer,
        looked: Option<&Looked>,
        now: Timestamp,
    ) {
        if let Some(between) = &self.worker.between {
            match self.worker.engine.payee(&transfer, |id| between.shared.moved.get(id)) {
                Payee::Here => {}
                Payee::At(peer) => return self.payment_between(asker, transfer, peer, looked, now),
                Payee::Moving => {
                    return self.refuse(asker, Refusal::AccountMoving, retry_hint_ms(Refusal::AccountMoving));
                }
            }
        }
        let worker = &mut self.worker;
        match worker.engine.transfer(&mut worker.writer, &transfer, &asker, looked, now) {
            Step::Done(done) => {
                worker.count(&done);
                let body = worker.engine.transfer_body(&transfer, &done, &asker);
                self.reply(asker, done.lsn, body);
            }
            Step::NotRecorded(refusal @ Refusal::HoldElsewhere) => {
                let branch = self.worker.engine.ender_of(TransferId::new(transfer.reference.get()));
                self.refuse(asker, refusal, u32::from(branch.unwrap_or_default().get()));
            }
            Step::NotRecorded(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            Step::InFlight => self.wait(asker, Op::Transfer(transfer)),
            Step::Lookup => self.ask(asker, Question::Transfer(asker, transfer)),
            Step::Moved(moved) => self.transfer_of_moved(asker, transfer, moved, looked, now),
        }
    }

    fn chain(&mut self, asker: Asker, entries: Bytes, looked: Option<&Looked>, now: Timestamp) {
        let worker = &mut self.worker;
        let Some(transfers) = transfers_of(&entries) else {
            return self.refuse(asker, Refusal::BodyLenInvalid, 0);
        };
        if let Some(between) = &worker.between {
            match between.shared.route_chain(&worker.engine, transfers) {
                ChainRoute::Here => {}
                ChainRoute::Between(peers) => return self.chain_between(asker, entries, &peers, looked, now),
                ChainRoute::Refused(refusals) => {
                    return self.chain_step(asker, entries, ChainStep::NotRecorded(refusals), looked);
                }
            }
        }
        let step = worker.engine.chain(&mut worker.writer, transfers, &asker, looked, now, clock::monotonic_nanos);
        self.chain_step(asker, entries, step, looked);
    }

    /// A chain that ended here, or has to wait.
    pub(super) fn chain_step(&mut self, asker: Asker, entries: Bytes, step: ChainStep, looked: Option<&Looked>) {
        match step {
            ChainStep::Done(dones) => {
                dones.iter().for_each(|done| self.worker.count(done));
                let gate = dones.iter().map(|done| done.lsn).max().unwrap_or_default();
                self.tell_chain(gate, asker, &dones);
            }
            // Where an account has moved since, the chain may be known all the same.
            ChainStep::NotRecorded(refusals)
                if looked.is_none() && refusals.contains(&Refusal::MovedAccountSinglesOnly) =>
            {
                self.ask(asker, Question::Chain(asker, entries));
            }
            ChainStep::NotRecorded(refusals) => self.tell_refused(asker, &refusals),
            ChainStep::Refused(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            ChainStep::InFlight => self.wait(asker, Op::Chain(entries)),
            ChainStep::Lookup => self.ask(asker, Question::Chain(asker, entries)),
        }
    }

    /// Another worker has the id in hand: the request is tried again in the next cycle.
    pub(super) fn wait(&mut self, asker: Asker, op: Op) {
        if self.waiting.len() >= WAITING_LEN_MAX {
            return self.refuse(asker, Refusal::Busy, 1);
        }
        self.waiting.push_back(asker.request(op));
    }

    fn change_account(&mut self, asker: Asker, id: AccountId, op: AccountOp, now: Timestamp) {
        let reply_type = op.reply_type();
        let worker = &mut self.worker;
        match worker.engine.change_account(&mut worker.writer, id, op, asker.actor, now) {
            AccountOutcome::NotTaken(Refusal::AccountMoved) => self.refuse_moved(asker, id),
            AccountOutcome::NotTaken(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            outcome => {
                let (gate, item) = outcome.item();
                self.reply(asker, gate, ReplyBody::Item(reply_type, item));
            }
        }
    }

    pub(super) fn look_up(&mut self, asker: Asker, lookup: Lookup, now: Timestamp) {
        match lookup {
            Lookup::Transfer(id) => self.ask(asker, Question::GetTransfer(asker, id)),
            Lookup::Balance(id) => self.read(asker, id, |account| ReplyBody::Balance(balance_message(account, now))),
            Lookup::Account(id) => {
                self.read(asker, id, |account| ReplyBody::Account(Box::new(account_message(account))))
            }
        }
    }

    fn read(&mut self, asker: Asker, id: AccountId, body: impl FnOnce(&tally_ledger::Account) -> ReplyBody) {
        match self.worker.engine.read(id, asker.actor) {
            Read::Found(account) => self.reply(asker, account.lsn, body(&account)),
            Read::Refused(Refusal::AccountMoved) => self.refuse_moved(asker, id),
            Read::Refused(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
        }
    }
}

impl super::Worker {
    pub(super) fn count(&self, done: &Done) {
        use std::sync::atomic::Ordering;
        let counter = if done.refusal.is_none() { &self.stats.posted } else { &self.stats.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whole transfers, in place.
pub(crate) fn transfers_of(entries: &[u8]) -> Option<&[message::Transfer]> {
    <[message::Transfer] as zerocopy::FromBytes>::ref_from_bytes(entries).ok()
}

/// When it makes sense to try again, in milliseconds.
pub(super) fn retry_hint_ms(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Busy | Refusal::AccountMoving => 5,
        Refusal::RegistryUnreachable | Refusal::FormerBranchUnreachable => 250,
        Refusal::DiskFull => 1_000,
        _ => 0,
    }
}
