//! Many accounts to open, in slices; a chain is opened in one go, whatever is left of the slice.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_ledger::{mixed, stretches};
use tally_protocol::message::{self, MessageType};
use tally_protocol::{Refusal, Timestamp};

use super::Worker;
use super::bulk::Answers;
use crate::engine::AccountOutcome;
use crate::lookup::Asker;
use crate::replies::ReplySender;

/// One request in hand.
pub(super) struct Opening {
    entries: Bytes,
    answers: Answers,
}

impl Opening {
    pub(super) fn new(asker: Asker, entries: Bytes) -> Self {
        let count = entries.len() / message::AccountOpen::LEN_BYTES;
        Self { entries, answers: Answers::new(asker, MessageType::OpenAccountsReply, count) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.answers.is_complete()
    }

    pub(super) fn reply(self, replies: &mut ReplySender) {
        self.answers.reply(replies);
    }

    /// Opens at most `budget` accounts. Returns how many entries it answered.
    pub(super) fn work(&mut self, worker: &mut Worker, budget: usize, now: Timestamp, now_ns: u64) -> usize {
        let late = self.answers.refuse_late(now_ns);
        if late > 0 {
            return late;
        }
        let entries = self.entries.clone();
        let opens = <[message::AccountOpen] as zerocopy::FromBytes>::ref_from_bytes(&entries);
        let opens = opens.expect("the session checked the length");
        let started = self.answers.len();
        while self.answers.len() < opens.len() && self.answers.len() - started < budget {
            if !self.open_next(worker, opens, now) {
                worker.starving.store(true, Ordering::Relaxed);
                break;
            }
        }
        match self.answers.len() - started {
            0 => self.answers.stalled(now_ns),
            worked => worked,
        }
    }

    /// The next account, or the whole chain that starts there. `false` when the log has no room for it just now.
    fn open_next(&mut self, worker: &mut Worker, opens: &[message::AccountOpen], now: Timestamp) -> bool {
        let rest = &opens[self.answers.len()..];
        let stretch = stretches(rest).next().expect("there is an account left");
        let chain = &rest[stretch.range];
        if let Some(refusal) = stretch.refusal {
            self.answers.refuse_chain(chain.len(), refusal);
            return true;
        }
        if let Some(refusals) = mixed(&opens[0], chain) {
            refusals.into_iter().for_each(|refusal| self.answers.refuse(refusal));
            return true;
        }
        let actor = self.answers.asker().actor;
        if let [single] = chain {
            let outcome = worker.engine.open_account(&mut worker.writer, single, actor, now);
            if matches!(outcome, AccountOutcome::NotTaken(Refusal::Busy)) {
                return false;
            }
            self.answer(outcome);
            return true;
        }
        match worker.engine.open_chain(&mut worker.writer, chain, actor, now) {
            Err(Refusal::Busy) => return false,
            Err(refusal) => chain.iter().for_each(|_| self.answers.refuse(refusal)),
            Ok(outcomes) => outcomes.into_iter().for_each(|outcome| self.answer(outcome)),
        }
        true
    }

    fn answer(&mut self, outcome: AccountOutcome) {
        let (gate, item) = outcome.item();
        self.answers.push(item, gate);
    }
}
