//! Which entries there are, where they lie in the journal, and the newest of them in memory. No IO.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use tally_ledger::journal::position::DurableLsn;
use tally_protocol::Lsn;

use super::record::Record;
use crate::raft::types::{Entry, LogId, Vote};

/// What one node remembers for openraft.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: BTreeMap<u64, Slot>,
    cached_len_bytes: u64,
    cache_len_bytes_max: u64,
    /// No entry below this index is in memory.
    cached_from: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

/// One entry.
#[derive(Debug)]
struct Slot {
    log_id: LogId,
    place: Place,
    cached: Option<Entry>,
}

/// Where an entry's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    pub(super) len_bytes: usize,
}

/// An entry, or where to read it.
#[derive(Debug)]
pub(super) enum Found {
    InMemory(Entry),
    OnDisk(LogId, Place),
}

/// Everything but the entries, as the manifest keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last vote.
    pub vote: Option<Vote>,
    /// Known to be committed, at least.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
}

impl Index {
    /// No entries yet; at most `cache_len_bytes_max` of the newest are to be kept in memory.
    pub(super) fn new(state: State, cache_len_bytes_max: u64) -> Self {
        let State { vote, committed, purged } = state;
        Self { vote, committed, purged, cache_len_bytes_max, ..Self::default() }
    }

    /// What the record at `place` says, in replay.
    pub(super) fn apply(&mut self, record: Record, place: Place, durable: DurableLsn) {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => self.append(entry, place, durable),
            Record::Truncate { since } => self.truncate(since),
            Record::Purge(log_id) => self.purge(log_id),
            Record::Committed(log_id) => self.commit(log_id),
        }
    }

    /// Adds an entry; what was at its index and behind it is gone. `durable` is what of the journal can be read back.
    pub(super) fn append(&mut self, entry: Entry, place: Place, durable: DurableLsn) {
        let (log_id, index) = (entry.log_id, entry.log_id.index);
        // An old segment that is still there may begin with entries that were purged since.
        if self.purged.is_some_and(|purged| index <= purged.index) {
            return;
        }
        self.truncate(index);
        self.cached_len_bytes += place.len_bytes as u64;
        self.cached_from = self.cached_from.min(index);
        self.slots.insert(index, Slot { log_id, place, cached: Some(entry) });
        self.evict(durable);
    }

    /// Removes the entries from `since` on.
    pub(super) fn truncate(&mut self, since: u64) {
        let removed = self.slots.split_off(&since);
        self.forget(removed);
    }

    /// Removes the entries up to `log_id`, which may lie beyond the last.
    pub(super) fn purge(&mut self, log_id: LogId) {
        let kept = match log_id.index.checked_add(1) {
            Some(first) => self.slots.split_off(&first),
            None => BTreeMap::new(),
        };
        let removed = std::mem::replace(&mut self.slots, kept);
        self.forget(removed);
        self.purged = self.purged.max(Some(log_id));
    }

    pub(super) fn commit(&mut self, log_id: LogId) {
        self.committed = self.committed.max(Some(log_id));
    }

    pub(super) fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    pub(super) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    pub(super) fn state(&self) -> State {
        State { vote: self.vote, committed: self.committed, purged: self.purged }
    }

    /// The last entry, or the last that was purged.
    pub(super) fn last(&self) -> Option<LogId> {
        self.slots.last_key_value().map(|(_, slot)| slot.log_id).or(self.purged)
    }

    /// Whether entries from `since` on exist.
    pub(super) fn reaches(&self, since: u64) -> bool {
        self.slots.last_key_value().is_some_and(|(&last, _)| last >= since)
    }

    /// Where the lowest record lies that is needed.
    pub(super) fn first_lsn(&self) -> Option<Lsn> {
        self.slots.first_key_value().map(|(_, slot)| slot.place.lsn)
    }

    /// The first two neighbours that do not follow each other.
    pub(super) fn gap(&self) -> Option<(Option<u64>, u64)> {
        let mut before = self.purged.map(|purged| purged.index);
        for &index in self.slots.keys() {
            if index != before.map_or(0, |before| before + 1) {
                return Some((before, index));
            }
            before = Some(index);
        }
        None
    }

    /// The entries of `range`, as many as take `len_bytes_max`, but one at least.
    pub(super) fn find(&self, range: impl RangeBounds<u64>, len_bytes_max: usize) -> Vec<Found> {
        let mut len_bytes = 0;
        let fits = |slot: &&Slot| {
            let is_first = len_bytes == 0;
            len_bytes += slot.place.len_bytes;
            is_first || len_bytes <= len_bytes_max
        };
        let slots = self.slots.range(range).map(|(_, slot)| slot).take_while(fits);
        slots
            .map(|slot| match &slot.cached {
                Some(entry) => Found::InMemory(entry.clone()),
                None => Found::OnDisk(slot.log_id, slot.place),
            })
            .collect()
    }

    /// Drops the oldest entries from memory, as long as there are too many and they can be read back.
    fn evict(&mut self, durable: DurableLsn) {
        while self.cached_len_bytes > self.cache_len_bytes_max {
            let Some((&index, slot)) = self.slots.range_mut(self.cached_from..).next() else { return };
            let end = slot.place.lsn.get() + slot.place.len_bytes as u64;
            if !durable.reaches(Lsn::new(end)) {
                return;
            }
            if slot.cached.take().is_some() {
                self.cached_len_bytes -= slot.place.len_bytes as u64;
            }
            self.cached_from = index + 1;
        }
    }

    fn forget(&mut self, removed: BTreeMap<u64, Slot>) {
        let cached = removed.values().filter(|slot| slot.cached.is_some());
        self.cached_len_bytes -= cached.map(|slot| slot.place.len_bytes as u64).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, LeaderId};
    use tally_ledger::journal::position::Positions;

    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId::new(1, 1), index)
    }

    fn durable(end: u64) -> DurableLsn {
        Positions::recovered(Lsn::new(end)).durable()
    }

    /// Entries of 100 bytes each, of which 500 bytes stay in memory.
    fn append(index: &mut Index, at: u64, lsn: u64, durable_end: u64) {
        let entry = Entry { log_id: log_id(at), payload: EntryPayload::Blank };
        index.append(entry, Place { lsn: Lsn::new(lsn), len_bytes: 100 }, durable(durable_end));
    }

    fn in_memory(index: &Index) -> Vec<u64> {
        let found = index.find(.., usize::MAX);
        let entries = found.iter().filter_map(|found| match found {
            Found::InMemory(entry) => Some(entry.log_id.index),
            Found::OnDisk(..) => None,
        });
        entries.collect()
    }

    #[test]
    fn the_newest_stay_in_memory_and_so_does_what_is_not_durable() {
        let mut index = Index::new(State::default(), 500);
        for at in 0..8 {
            append(&mut index, at, 64 + at * 100, 364);
        }
        assert_eq!(in_memory(&index), [3, 4, 5, 6, 7], "three are durable and not needed");
        for at in 8..10 {
            append(&mut index, at, 64 + at * 100, 364);
        }
        assert_eq!(in_memory(&index), [3, 4, 5, 6, 7, 8, 9], "more than may be, but nowhere else");
        append(&mut index, 10, 1064, 1064);
        assert_eq!(in_memory(&index), [6, 7, 8, 9, 10]);
        // Overwritten from below what is in memory.
        append(&mut index, 4, 1164, 1064);
        append(&mut index, 5, 1264, 1064);
        assert_eq!(in_memory(&index), [4, 5]);
        assert_eq!(index.cached_len_bytes, 200);
        index.purge(log_id(4));
        assert_eq!((index.cached_len_bytes, index.first_lsn()), (100, Some(Lsn::new(1264))));
        index.purge(log_id(40));
        assert_eq!((index.cached_len_bytes, index.last()), (0, Some(log_id(40))));
    }

    #[test]
    fn a_limit_gives_one_entry_at_least() {
        let mut index = Index::new(State::default(), 1000);
        (0..5).for_each(|at| append(&mut index, at, 64 + at * 100, 0));
        for (len_bytes_max, count) in [(0, 1), (100, 1), (199, 1), (200, 2), (1000, 5)] {
            assert_eq!(index.find(0..9, len_bytes_max).len(), count, "{len_bytes_max} bytes");
        }
        assert!(index.find(7..9, 1000).is_empty());
    }

    #[test]
    fn gaps_are_seen() {
        let mut index = Index::new(State::default(), 1000);
        append(&mut index, 0, 64, 0);
        append(&mut index, 1, 164, 0);
        assert_eq!(index.gap(), None);
        append(&mut index, 3, 264, 0);
        assert_eq!(index.gap(), Some((Some(1), 3)));
        index.purge(log_id(2));
        assert_eq!(index.gap(), None);
        index.purge(log_id(9));
        append(&mut index, 11, 364, 0);
        assert_eq!(index.gap(), Some((Some(9), 11)));
        let mut other = Index::new(State::default(), 1000);
        append(&mut other, 1, 64, 0);
        assert_eq!(other.gap(), Some((None, 1)));
    }
}
