//! Bulk work in hand: requests of thousands of entries, worked in slices, in turns, and in order.
//!
//! **Invariant:** every entry is answered within a bounded time: one that can get no room (in the log, or among the
//! recent ids) waits for it [`PATIENCE_NS`] at the most, then it and those behind it are `busy`.

use tally_ledger::wire::item_result;
use tally_protocol::message;
use tally_protocol::{Lsn, Refusal, Timestamp};
use zerocopy::IntoBytes;

use super::Worker;
use super::batch::Batch;
use super::opening::Opening;
use crate::lookup::Asker;
use crate::replies::{ReplyBody, ReplySender};

/// Requests that one worker has in hand at a time; each may hold a megabyte.
pub(super) const OPEN_MAX: usize = 16;
/// Entries worked in one cycle: about 100 microseconds, which a single payment may have to wait.
pub(super) const SLICE_LEN: usize = 256;
/// A flush makes room within milliseconds; a disk that makes none for seconds is in trouble.
const PATIENCE_NS: u64 = 5_000_000_000;

/// One request.
pub(super) enum Bulk {
    Batch(Box<Batch>),
    Opening(Opening),
}

impl Bulk {
    /// Works at most `budget` entries. Returns how many it worked; 0 while it waits.
    pub(super) fn work(&mut self, worker: &mut Worker, budget: usize, now: Timestamp, now_ns: u64) -> usize {
        match self {
            Self::Batch(batch) => batch.work(worker, budget, now, now_ns),
            Self::Opening(opening) => opening.work(worker, budget, now, now_ns),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.is_done(),
            Self::Opening(opening) => opening.is_done(),
        }
    }

    pub(super) fn reply(self, replies: &mut ReplySender) {
        match self {
            Self::Batch(batch) => batch.reply(replies),
            Self::Opening(opening) => opening.reply(replies),
        }
    }
}

/// The answers so far, one for each entry, in order.
pub(super) struct Answers {
    asker: Asker,
    reply_type: message::MessageType,
    /// Entries in all.
    count: usize,
    /// `results.len() / 16 <= count`
    results: Vec<u8>,
    gate: Lsn,
    /// Since when nothing could be done.
    stalled_since_ns: Option<u64>,
}

impl Answers {
    pub(super) fn new(asker: Asker, reply_type: message::MessageType, count: usize) -> Self {
        let results = Vec::with_capacity(count * message::ItemResult::LEN_BYTES);
        Self { asker, reply_type, count, results, gate: Lsn::ZERO, stalled_since_ns: None }
    }

    pub(super) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Entries answered.
    pub(super) fn len(&self) -> usize {
        self.results.len() / message::ItemResult::LEN_BYTES
    }

    pub(super) fn is_complete(&self) -> bool {
        self.len() == self.count
    }

    pub(super) fn push(&mut self, item: message::ItemResult, gate: Lsn) {
        self.results.extend_from_slice(item.as_bytes());
        self.gate = self.gate.max(gate);
        self.stalled_since_ns = None;
    }

    /// Nothing of the entry was done.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.push(item_result(Some(refusal), Timestamp::default(), false), Lsn::ZERO);
    }

    /// Nothing of a chain of `len` entries was done: the last says why.
    pub(super) fn refuse_chain(&mut self, len: usize, refusal: Refusal) {
        (1..len).for_each(|_| self.refuse(Refusal::ChainBroken));
        self.refuse(refusal);
    }

    /// Answers all that are left, if it is too late to begin them. Returns how many.
    pub(super) fn refuse_late(&mut self, now_ns: u64) -> usize {
        let is_late = self.asker.deadline != 0 && now_ns > self.asker.deadline;
        if is_late { self.refuse_rest(Refusal::DeadlinePassed) } else { 0 }
    }

    /// There is no room for the next entry. Answers all that are left, if that has been so for too long.
    pub(super) fn stalled(&mut self, now_ns: u64) -> usize {
        let since_ns = *self.stalled_since_ns.get_or_insert(now_ns);
        if now_ns - since_ns > PATIENCE_NS { self.refuse_rest(Refusal::Busy) } else { 0 }
    }

    fn refuse_rest(&mut self, refusal: Refusal) -> usize {
        let rest = self.count - self.len();
        (0..rest).for_each(|_| self.refuse(refusal));
        rest
    }

    pub(super) fn reply(self, replies: &mut ReplySender) {
        let body = ReplyBody::Items(self.reply_type, self.results.into());
        replies.push(self.gate, self.asker.reply(body));
    }
}
