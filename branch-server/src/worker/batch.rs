//! A batch, worked in slices and in order: entry k is applied before entry k+1, whatever either needs.
//!
//! ```text
//!   Scanning --(no id may be old)-----------------------------------.
//!      '--> Asking about those that may --> waits for BatchIds -----+--> Working <--> waits for one entry (a known
//!                                                                          |          id, or a reference in the past)
//!                                                                          '--> done: reply
//! ```

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_ledger::wire::item_result;
use tally_ledger::{mixed, stretches};
use tally_protocol::message::{self, MessageType, RESULT_REPEATED};
use tally_protocol::{Lsn, Refusal, Timestamp, TransferId};

use super::Worker;
use super::bulk::Answers;
use super::requests::transfers_of;
use crate::clock;
use crate::engine::{ChainStep, Moved, Step};
use crate::ids::{LookedUp, OldIds};
use crate::lookup::{Asker, Job, Looked, Question};
use crate::replies::ReplySender;

/// Entries whose cache misses overlap.
const BURST_LEN: usize = 16;

enum Phase {
    /// Looking for ids that may be old, from this entry on.
    Scanning { next: usize, old_ids: OldIds, maybe_old: Vec<TransferId> },
    /// These have to be looked up on the disk, once it takes the question.
    Asking { maybe_old: Vec<TransferId> },
    /// The disk was asked.
    Waiting,
    /// Applying.
    Working,
}

/// One batch in hand.
pub(super) struct Batch {
    number: u64,
    entries: Bytes,
    phase: Phase,
    answers: Answers,
    /// What the scan found out about all entries.
    scanned: Looked,
    /// What was found out about the next entry, or chain.
    looked: Option<Looked>,
}

impl Batch {
    pub(super) fn new(number: u64, asker: Asker, entries: Bytes, old_ids: OldIds) -> Self {
        let count = entries.len() / message::Transfer::LEN_BYTES;
        Self {
            number,
            entries,
            phase: Phase::Scanning { next: 0, old_ids, maybe_old: Vec::new() },
            answers: Answers::new(asker, MessageType::BatchReply, count),
            scanned: Looked::default(),
            looked: None,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_done(&self) -> bool {
        self.answers.is_complete()
    }

    /// Works at most `budget` entries. Returns how many it worked; 0 while it waits for the disk.
    pub(super) fn work(&mut self, worker: &mut Worker, budget: usize, now: Timestamp, now_ns: u64) -> usize {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Waiting => 0,
            Phase::Scanning { next, old_ids, maybe_old } => self.scan(worker, next, old_ids, maybe_old, budget),
            Phase::Asking { maybe_old } => {
                self.ask(worker, Question::BatchIds { batch: self.number, ids: maybe_old });
                0
            }
            Phase::Working => {
                self.phase = Phase::Working;
                self.apply(worker, budget, now, now_ns)
            }
        }
    }

    fn scan(
        &mut self,
        worker: &mut Worker,
        next: usize,
        old_ids: OldIds,
        mut maybe_old: Vec<TransferId>,
        budget: usize,
    ) -> usize {
        let entries = self.entries.clone();
        let transfers = transfers_of(&entries).expect("the session checked the length");
        let slice = &transfers[next..transfers.len().min(next + budget)];
        for burst in slice.chunks(BURST_LEN) {
            let ids = || burst.iter().map(|transfer| TransferId::new(transfer.id.get()));
            ids().for_each(|id| old_ids.prefetch(id));
            maybe_old.extend(ids().filter(|&id| old_ids.may_hold(id)));
        }
        let next = next + slice.len();
        if next < transfers.len() {
            self.phase = Phase::Scanning { next, old_ids, maybe_old };
            return slice.len();
        }
        self.scanned.other_ids = Some(old_ids.absent());
        if maybe_old.is_empty() {
            self.phase = Phase::Working;
        } else {
            self.ask(worker, Question::BatchIds { batch: self.number, ids: maybe_old });
        }
        slice.len()
    }

    fn apply(&mut self, worker: &mut Worker, budget: usize, now: Timestamp, now_ns: u64) -> usize {
        let late = self.answers.refuse_late(now_ns);
        if late > 0 {
            return late;
        }
        let entries = self.entries.clone();
        let transfers = transfers_of(&entries).expect("the session checked the length");
        let started = self.answers.len();
        let mut prefetched = started;
        while self.answers.len() < transfers.len() && self.answers.len() - started < budget {
            if prefetched <= self.answers.len() {
                let burst = &transfers[self.answers.len()..transfers.len().min(self.answers.len() + BURST_LEN)];
                worker.engine.prefetch(|| burst.iter(), self.scanned.other_ids.as_ref());
                prefetched = self.answers.len() + burst.len();
            }
            if !self.apply_next(worker, transfers, now) {
                break;
            }
        }
        match self.answers.len() - started {
            // Waiting for the disk is no work: the caller may rest.
            0 if matches!(self.phase, Phase::Working) => self.answers.stalled(now_ns),
            worked => worked,
        }
    }

    /// The next entry, or the whole chain that starts there. `false` when it has to wait.
    fn apply_next(&mut self, worker: &mut Worker, transfers: &[message::Transfer], now: Timestamp) -> bool {
        let rest = &transfers[self.answers.len()..];
        let stretch = stretches(rest).next().expect("there is an entry left");
        let chain = &rest[stretch.range];
        if let Some(refusal) = stretch.refusal {
            self.answers.refuse_chain(chain.len(), refusal);
            return true;
        }
        if let Some(refusals) = mixed(&transfers[0], chain) {
            refusals.into_iter().for_each(|refusal| self.answers.refuse(refusal));
            return true;
        }
        match chain {
            [single] => self.apply_single(worker, single, now),
            chain => self.apply_chain(worker, chain, now),
        }
    }

    fn apply_single(&mut self, worker: &mut Worker, transfer: &message::Transfer, now: Timestamp) -> bool {
        let looked = self.looked.take();
        let looked = looked.as_ref().unwrap_or(&self.scanned);
        match worker.engine.transfer(&mut worker.writer, transfer, self.answers.asker(), Some(looked), now) {
            Step::Done(done) => {
                worker.count(&done);
                self.answers.push(item_result(done.refusal, done.timestamp, false), done.lsn);
                true
            }
            Step::NotRecorded(Refusal::Busy) => {
                worker.starving.store(true, Ordering::Relaxed);
                false
            }
            Step::NotRecorded(refusal) => {
                self.answers.refuse(refusal);
                true
            }
            Step::InFlight => false,
            Step::Lookup => self.ask_about(worker, std::slice::from_ref(transfer)),
            Step::Moved(Moved::Away(_)) => {
                self.answers.refuse(Refusal::AccountMoved);
                true
            }
            Step::Moved(Moved::PayeeAway(_)) => {
                self.answers.refuse(Refusal::WrongBranch);
                true
            }
            Step::Moved(Moved::Here(_) | Moved::HereAlone(_)) => {
                self.answers.refuse(Refusal::MovedAccountSinglesOnly);
                true
            }
        }
    }

    fn apply_chain(&mut self, worker: &mut Worker, chain: &[message::Transfer], now: Timestamp) -> bool {
        let looked = self.looked.take();
        let looked = looked.as_ref().unwrap_or(&self.scanned);
        match worker.engine.chain(
            &mut worker.writer,
            chain,
            self.answers.asker(),
            Some(looked),
            now,
            clock::monotonic_nanos,
        ) {
            ChainStep::Done(dones) => {
                for done in &dones {
                    worker.count(done);
                    self.answers.push(item_result(done.refusal, done.timestamp, false), done.lsn);
                }
                true
            }
            ChainStep::Refused(Refusal::Busy) => {
                worker.starving.store(true, Ordering::Relaxed);
                false
            }
            ChainStep::InFlight => false,
            ChainStep::Refused(refusal) => {
                chain.iter().for_each(|_| self.answers.refuse(refusal));
                true
            }
            ChainStep::NotRecorded(refusals) => {
                for refusal in refusals {
                    self.answers.refuse(refusal);
                }
                true
            }
            ChainStep::Lookup => self.ask_about(worker, chain),
        }
    }

    fn ask_about(&mut self, worker: &mut Worker, transfers: &[message::Transfer]) -> bool {
        self.ask(worker, Question::BatchEntry { batch: self.number, transfers: transfers.to_vec() });
        false
    }

    fn ask(&mut self, worker: &mut Worker, question: Question) {
        self.phase = Phase::Waiting;
        if let Err(job) = worker.lookups.ask(Job { worker: worker.number, question }) {
            // Too many are out: the batch goes on by itself in a later cycle.
            self.phase = match job.question {
                Question::BatchIds { ids, .. } => Phase::Asking { maybe_old: ids },
                _ => Phase::Working,
            };
        }
    }

    pub(super) fn ids_are_looked_up(&mut self, ids: Vec<(TransferId, LookedUp)>) {
        self.scanned.ids = ids;
        self.phase = Phase::Working;
    }

    pub(super) fn entry_is_new(&mut self, looked: Looked) {
        self.looked = Some(looked);
        self.phase = Phase::Working;
    }

    pub(super) fn entry_was_known(&mut self, items: Vec<message::ItemResult>) {
        for item in items {
            debug_assert!(item.refusal.get() != 0 || item.flags.get() & RESULT_REPEATED != 0);
            // The look-up waited until the record was durable.
            self.answers.push(item, Lsn::ZERO);
        }
        self.phase = Phase::Working;
    }

    pub(super) fn reply(self, replies: &mut ReplySender) {
        self.answers.reply(replies);
    }
}
