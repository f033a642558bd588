//! One shard of the recent table: what is in flight, what was finished lately, and which runs hold the rest.
//!
//! ```text
//! reserve          finish             freeze            publish
//!    |                |                  |                  |
//! in flight ------> active ----------> frozen ----------> runs (on disk)
//! ```
//!
//! **Invariant:** at any moment under the shard's lock, every id ever used is in one of the four. `publish` takes
//! the frozen table away and brings the run that holds it in one step, so nobody sees neither.

use std::sync::Arc;

use tally_protocol::{Lsn, TransferId};

use super::hash::IdHasher;
use super::in_flight::InFlight;
use super::run::RunSet;
use super::table::Table;
use super::{Facts, LookedUp, Recent, Reserve};

/// See the top of the file.
pub(super) struct Shard {
    hasher: IdHasher,
    in_flight: InFlight,
    active: Table,
    frozen: Option<Arc<Table>>,
    runs: Arc<RunSet>,
}

impl Shard {
    pub(super) fn new(hasher: IdHasher, active: Table, runs: Arc<RunSet>) -> Self {
        Self { hasher, in_flight: InFlight::new(), active, frozen: None, runs }
    }

    /// Asks the CPU to fetch what [`Self::reserve`] will read, where the runs below number `runs_from` need not be
    /// asked.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64, runs_from: u64) {
        self.active.prefetch(hash);
        self.active.prefetch_slot(hash);
        if let Some(frozen) = &self.frozen {
            frozen.prefetch(hash);
        }
        self.runs.prefetch_since(runs_from, hash);
    }

    /// Reserves `id` for the caller when it is certainly new and at most `len_max` others are here.
    #[inline]
    pub(super) fn reserve(&mut self, hash: u64, id: TransferId, len_max: usize) -> Reserve {
        match self.recent(hash, id) {
            Recent::InFlight => Reserve::InFlight,
            Recent::Known(facts) => Reserve::Known(facts),
            Recent::MaybeOld => Reserve::MaybeOld,
            Recent::Absent => self.reserve_absent(hash, id, len_max),
        }
    }

    /// Reserves `id` after its look-up on disk, whose answer is only good if no run has come since that may hold
    /// it: it could have been used, frozen and published in between.
    #[inline]
    pub(super) fn reserve_looked_up(
        &mut self,
        hash: u64,
        id: TransferId,
        looked_up: &LookedUp,
        len_max: usize,
    ) -> Reserve {
        if self.in_flight.contains(hash, id) {
            return Reserve::InFlight;
        }
        if self.runs.may_hold_since(looked_up.runs_below, hash) {
            return Reserve::MaybeOld;
        }
        let facts = looked_up.facts.and(self.facts(hash, id));
        if facts.record.is_some() { Reserve::Known(facts) } else { self.reserve_absent(hash, id, len_max) }
    }

    /// What is known of `id` without the disk.
    #[inline]
    pub(super) fn recent(&self, hash: u64, id: TransferId) -> Recent {
        if self.in_flight.contains(hash, id) {
            return Recent::InFlight;
        }
        // An end comes after its record, so where the record is still here, the end is too.
        let facts = self.facts(hash, id);
        match (facts.record, facts.ended) {
            (Some(_), _) => Recent::Known(facts),
            (None, Some(_)) => Recent::MaybeOld,
            (None, None) if self.runs.may_hold(hash) => Recent::MaybeOld,
            (None, None) => Recent::Absent,
        }
    }

    /// What the two recent tables say.
    #[inline]
    pub(super) fn facts(&self, hash: u64, id: TransferId) -> Facts {
        let active = self.active.facts(hash, id).unwrap_or_default();
        match &self.frozen {
            Some(frozen) => active.and(frozen.facts(hash, id).unwrap_or_default()),
            None => active,
        }
    }

    /// Turns a reservation into an entry. How many entries the active table has then.
    pub(super) fn finish(&mut self, hash: u64, id: TransferId, lsn: Lsn) -> usize {
        assert!(self.in_flight.remove(hash, id), "{id} was finished without having been reserved");
        self.set_record(hash, id, lsn)
    }

    /// Drops a reservation.
    pub(super) fn release(&mut self, hash: u64, id: TransferId) {
        assert!(self.in_flight.remove(hash, id), "{id} was released without having been reserved");
    }

    /// Notes a record, reserved or replayed. How many entries the active table has then.
    pub(super) fn set_record(&mut self, hash: u64, id: TransferId, lsn: Lsn) -> usize {
        self.active.set_record(self.hasher, hash, id, lsn);
        self.active.len()
    }

    /// Notes an end. How many entries the active table has then.
    pub(super) fn set_ended(&mut self, hash: u64, id: TransferId, lsn: Lsn) -> usize {
        self.active.set_ended(self.hasher, hash, id, lsn);
        self.active.len()
    }

    pub(super) fn active_len(&self) -> usize {
        self.active.len()
    }

    pub(super) fn frozen_len(&self) -> usize {
        self.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    pub(super) fn memory_len_bytes(&self) -> usize {
        self.active.memory_len_bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.memory_len_bytes())
    }

    pub(super) fn runs(&self) -> Arc<RunSet> {
        Arc::clone(&self.runs)
    }

    /// Puts `fresh` in the active table's place and hands out the old one, which is still searched.
    pub(super) fn freeze(&mut self, fresh: Table) -> Arc<Table> {
        assert!(self.frozen.is_none(), "one generation is written out at a time");
        let frozen = Arc::new(std::mem::replace(&mut self.active, fresh));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// `runs` hold the frozen table too: forgets it.
    pub(super) fn publish_frozen(&mut self, runs: Arc<RunSet>) {
        self.runs = runs;
        self.frozen = None;
    }

    /// `runs` hold what the former runs held, differently arranged.
    pub(super) fn publish_merged(&mut self, runs: Arc<RunSet>) {
        self.runs = runs;
    }

    fn reserve_absent(&mut self, hash: u64, id: TransferId, len_max: usize) -> Reserve {
        if self.active.len() + self.in_flight.len() >= len_max {
            return Reserve::Full;
        }
        self.in_flight.insert(hash, id);
        Reserve::New
    }
}
