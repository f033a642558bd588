//! Filling the index from the journal at start, before anybody asks it anything.

use std::sync::Arc;
use std::time::Duration;

use tally_protocol::{Lsn, TransferId};

use super::shared::Shared;
use super::{IdIndex, LogPositions};
use crate::sync::Ordering;

/// How many facts are under way at a time, so that their cache misses overlap.
const BATCH_LEN: usize = 32;

/// An index that is open but has not yet heard of what the journal holds above [`Self::covered_lsn`]. Only
/// [`Self::finish`] hands out the index itself.
pub struct IdRecovery {
    index: IdIndex,
    batch: Vec<Fact>,
}

#[derive(Clone, Copy)]
enum Fact {
    Record(TransferId, Lsn),
    Ended(TransferId, Lsn),
}

impl IdRecovery {
    pub(super) fn new(index: IdIndex) -> Self {
        Self { index, batch: Vec::with_capacity(BATCH_LEN) }
    }

    /// Everything below is on disk: replay the ids of every record at or above it.
    pub fn covered_lsn(&self) -> Lsn {
        self.index.covered_lsn()
    }

    /// The highest LSN that the index knows from its own files. A journal that ends at or below it has lost records
    /// that were durable, and must be refused.
    pub fn highest_lsn(&self) -> Lsn {
        self.index.shared.runs().highest_lsn()
    }

    /// The record of `id` lies at `lsn`. Records come in the order of the journal; those below
    /// [`Self::covered_lsn`] are passed over.
    pub fn record(&mut self, id: TransferId, lsn: Lsn) {
        self.push(Fact::Record(id, lsn), lsn);
    }

    /// The record at `lsn` settled, voided, expired or reversed `id`.
    pub fn ended(&mut self, id: TransferId, lsn: Lsn) {
        self.push(Fact::Ended(id, lsn), lsn);
    }

    /// All is replayed and the journal is live: `positions` tells from here on how far it is.
    pub fn finish(mut self, positions: Arc<dyn LogPositions>) -> IdIndex {
        self.apply();
        let set = self.index.shared.positions.set(positions);
        assert!(set.is_ok(), "a recovery is finished once");
        self.index
    }

    fn push(&mut self, fact: Fact, lsn: Lsn) {
        if lsn < self.index.covered_at_open {
            return;
        }
        let (Fact::Record(id, _) | Fact::Ended(id, _)) = fact;
        self.index.prefetch(id, None);
        self.batch.push(fact);
        if self.batch.len() == BATCH_LEN {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let shared = Arc::clone(&self.index.shared);
        for fact in self.batch.drain(..) {
            let (Fact::Record(id, lsn) | Fact::Ended(id, lsn)) = fact;
            let (hash, mut shard) = shared.shard_of(id);
            let len = match fact {
                Fact::Record(..) => shard.set_record(hash, id, lsn),
                Fact::Ended(..) => shard.set_ended(hash, id, lsn),
            };
            drop(shard);
            shared.note_len(len);
            // Pairs with the acquire load in `accepted`: what is below was noted before.
            shared.replayed.store(lsn.get(), Ordering::Release);
            if len >= shared.config.shard_len_full() {
                wait_for_room(&shared, id);
            }
        }
    }
}

/// Waits until the shard of `id` has room because a generation was frozen. Where nothing is written any more, the
/// table grows instead.
fn wait_for_room(shared: &Shared, id: TransferId) {
    while shared.shard_of(id).1.active_len() >= shared.config.shard_len_full() && !shared.signal.state().ended {
        shared.signal.wait(Duration::from_millis(1), |state| state.ended);
    }
}
