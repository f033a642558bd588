//! Many accounts to open, in slices.

use std::sync::atomic::Ordering;

use bytes::Bytes;
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
        let opens = <[message::AccountOpen] as zerocopy::FromBytes>::ref_from_bytes(&self.entries);
        let opens = opens.expect("the session checked the length");
        let started = self.answers.len();
        for open in opens[started..].iter().take(budget) {
            let outcome = worker.engine.open_account(&mut worker.writer, open, self.answers.asker().actor, now);
            if matches!(outcome, AccountOutcome::NotTaken(Refusal::Busy)) {
                worker.starving.store(true, Ordering::Relaxed);
                break;
            }
            let (gate, item) = outcome.item();
            self.answers.push(item, gate);
        }
        match self.answers.len() - started {
            0 => self.answers.stalled(now_ns),
            worked => worked,
        }
    }
}
