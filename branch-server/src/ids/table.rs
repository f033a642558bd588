//! One shard's part of one generation: ids and what is known of them, in memory, open addressing.
//!
//! Beside the slots lies one byte of hash for each, as in a Swiss table: that an id is absent, which is the common
//! answer, is read from those bytes alone, mostly from one cache line of an array 32 times smaller.
//!
//! A slot's home grows with the hash and probing only goes forward, so clusters lie in hash order and writing a
//! generation out in order costs a small sort per cluster instead of one of millions of entries.

use tally_protocol::{Lsn, TransferId};

use super::Facts;
use super::hash::{IdHasher, place};
use super::run_format::Entry;
use crate::prefetch::prefetch;

/// 32 bytes: two to a cache line, none across two. LSN 0 is before every record and stands for "not known".
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slot {
    id: TransferId,
    record: Lsn,
    ended: Lsn,
}

const _: () = assert!(size_of::<Slot>() == 32);
const EMPTY: Slot = Slot { id: TransferId::NONE, record: Lsn::ZERO, ended: Lsn::ZERO };

/// Slots behind the last home, for what is displaced beyond it; the table grows if they run out.
const SPILL_LEN: usize = 256;
/// Tags that are looked at together.
const WINDOW_LEN: usize = size_of::<u64>();

/// Invariant: at most three quarters of the homes are taken; no slot between an id's home and its place is
/// empty; homes are in hash order; `tags[i]` is 0 where `slots[i]` is empty and the tag of its id's hash elsewhere.
pub(super) struct Table {
    slots: Vec<Slot>,
    /// One for each slot, and a window of zeros.
    tags: Vec<u8>,
    len: usize,
    /// How many leading bits of the hash chose the shard and say nothing here.
    shard_bits: u32,
}

/// Where a search ended.
enum Place {
    /// The id is here.
    Taken(usize),
    /// The id is absent and would go here.
    Free(usize),
    /// The id is absent and there is no room behind its home.
    NoRoom,
}

impl Table {
    /// An empty table with `home_count` homes, not 0. It doubles when it must.
    pub(super) fn new(shard_bits: u32, home_count: usize) -> Self {
        let slot_count = home_count + SPILL_LEN;
        Self { slots: vec![EMPTY; slot_count], tags: vec![0; slot_count + WINDOW_LEN], len: 0, shard_bits }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn memory_len_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.tags.capacity()
    }

    /// Empties the table and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.tags.fill(0);
        self.len = 0;
    }

    /// Asks the CPU to fetch the line at which a search for `hash` begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(&self.tags[self.home(hash)]));
    }

    /// Asks the CPU to fetch the slot that an insertion will most likely write: without it, the unlock that follows
    /// would wait for that write.
    #[inline]
    pub(super) fn prefetch_slot(&self, hash: u64) {
        prefetch(std::ptr::from_ref(&self.slots[self.home(hash)]).cast());
    }

    /// What is known of `id`.
    #[inline]
    pub(super) fn facts(&self, hash: u64, id: TransferId) -> Option<Facts> {
        match self.find(hash, id) {
            Place::Taken(index) => {
                let slot = &self.slots[index];
                Some(Facts { record: known(slot.record), ended: known(slot.ended) })
            }
            Place::Free(_) | Place::NoRoom => None,
        }
    }

    /// Notes where the record of `id` lies.
    #[inline]
    pub(super) fn set_record(&mut self, hasher: IdHasher, hash: u64, id: TransferId, lsn: Lsn) {
        let slot = self.slot(hasher, hash, id);
        assert!(slot.record == Lsn::ZERO || slot.record == lsn, "{id} has a record at {} and at {lsn}", slot.record);
        slot.record = lsn;
    }

    /// Notes where the record lies that ended `id`; of several, the last.
    #[inline]
    pub(super) fn set_ended(&mut self, hasher: IdHasher, hash: u64, id: TransferId, lsn: Lsn) {
        let slot = self.slot(hasher, hash, id);
        slot.ended = slot.ended.max(lsn);
    }

    /// Hands out every entry in the order of a run.
    pub(super) fn for_each_in_order<E>(
        &self,
        hasher: IdHasher,
        mut f: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cluster = Vec::new();
        for slot in self.slots.iter().chain([&EMPTY]) {
            if !slot.id.is_none() {
                let hash = hasher.hash(slot.id);
                cluster.extend(known(slot.record).map(|lsn| Entry::record(hash, slot.id, lsn)));
                cluster.extend(known(slot.ended).map(|lsn| Entry::ended(hash, slot.id, lsn)));
                continue;
            }
            if cluster.len() > 1 {
                cluster.sort_unstable_by_key(Entry::key);
            }
            cluster.drain(..).try_for_each(&mut f)?;
        }
        Ok(())
    }

    const fn home_count(&self) -> usize {
        self.slots.len() - SPILL_LEN
    }

    #[inline]
    const fn home(&self, hash: u64) -> usize {
        place(hash << self.shard_bits, self.home_count())
    }

    /// The slot of `id`, taken for it if it had none.
    #[inline]
    fn slot(&mut self, hasher: IdHasher, hash: u64, id: TransferId) -> &mut Slot {
        assert!(!id.is_none(), "id 0 names no transfer and marks empty slots");
        loop {
            match self.find(hash, id) {
                Place::Taken(index) => return &mut self.slots[index],
                Place::Free(index) if (self.len + 1) * 4 <= self.home_count() * 3 => {
                    self.put(hash, index, Slot { id, ..EMPTY });
                    return &mut self.slots[index];
                }
                Place::Free(_) | Place::NoRoom => self.grow(hasher),
            }
        }
    }

    #[inline]
    fn put(&mut self, hash: u64, index: usize, slot: Slot) {
        self.slots[index] = slot;
        self.tags[index] = tag(hash);
        self.len += 1;
    }

    #[inline]
    fn find(&self, hash: u64, id: TransferId) -> Place {
        let tag = tag(hash);
        let mut start = self.home(hash);
        while let Some(window) = self.tags.get(start..).and_then(|tags| tags.first_chunk::<WINDOW_LEN>()) {
            let window = u64::from_le_bytes(*window);
            let free = zero_bytes(window);
            // Only what lies before the first free slot can be the id's.
            let before_free = free.wrapping_sub(1) & !free;
            let mut alike = zero_bytes(window ^ (BYTES_OF_1 * u64::from(tag))) & before_free;
            while alike != 0 {
                let index = start + alike.trailing_zeros() as usize / 8;
                if self.slots[index].id == id {
                    return Place::Taken(index);
                }
                alike &= alike - 1;
            }
            if free != 0 {
                let index = start + free.trailing_zeros() as usize / 8;
                return if index < self.slots.len() { Place::Free(index) } else { Place::NoRoom };
            }
            start += WINDOW_LEN;
        }
        Place::NoRoom
    }

    #[cold]
    fn grow(&mut self, hasher: IdHasher) {
        let mut home_count = self.home_count() * 2;
        'larger: loop {
            let mut larger = Self::new(self.shard_bits, home_count);
            for slot in self.slots.iter().filter(|slot| !slot.id.is_none()) {
                let hash = hasher.hash(slot.id);
                let Place::Free(index) = larger.find(hash, slot.id) else {
                    home_count *= 2;
                    continue 'larger;
                };
                larger.put(hash, index, *slot);
            }
            *self = larger;
            return;
        }
    }
}

const BYTES_OF_1: u64 = u64::MAX / 255;

/// The byte kept for a slot: the hash's lowest, which has no part in choosing its home, and never 0.
#[inline]
const fn tag(hash: u64) -> u8 {
    let low = hash as u8;
    if low == 0 { 1 } else { low }
}

/// Bit 7 of each byte of `word` that is 0. Above the lowest such byte, a byte of 1 may be taken for 0 too.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(BYTES_OF_1) & !word & (BYTES_OF_1 << 7)
}

#[inline]
fn known(lsn: Lsn) -> Option<Lsn> {
    (lsn != Lsn::ZERO).then_some(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const HASHER: IdHasher = IdHasher::new(3);

    fn check(hash_of: impl Fn(u64) -> u64, ids: u64) {
        let mut table = Table::new(2, 16);
        let mut model: BTreeMap<u64, Facts> = BTreeMap::new();
        for step in 1..4 * ids {
            let raw = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ids + 1;
            let (hash, id, lsn) = (hash_of(raw), TransferId::new(raw.into()), Lsn::new(step));
            let facts = model.entry(raw).or_default();
            if facts.record.is_none() {
                table.set_record(HASHER, hash, id, lsn);
                facts.record = Some(lsn);
            } else {
                table.set_ended(HASHER, hash, id, lsn);
                facts.ended = facts.ended.max(Some(lsn));
            }
            assert_eq!(table.len(), model.len());
        }
        for raw in 1..=2 * ids {
            let found = table.facts(hash_of(raw), TransferId::new(raw.into()));
            assert_eq!(found.as_ref(), model.get(&raw), "id {raw}");
        }
    }

    #[test]
    fn behaves_as_a_map_while_it_grows() {
        check(|raw| HASHER.hash(TransferId::new(raw.into())), 10_000);
    }

    #[test]
    fn hands_out_entries_in_order() {
        let mut table = Table::new(0, 16);
        let ids = (1..3000u128).map(TransferId::new);
        for (n, id) in ids.clone().enumerate() {
            table.set_record(HASHER, HASHER.hash(id), id, Lsn::new(n as u64 + 1));
            if n % 3 == 0 {
                table.set_ended(HASHER, HASHER.hash(id), id, Lsn::new(n as u64 + 5000));
            }
        }
        let mut expected: Vec<_> = ids.clone().map(|id| (HASHER.hash(id), id, false)).collect();
        expected.extend(ids.step_by(3).map(|id| (HASHER.hash(id), id, true)));
        expected.sort_unstable();
        let mut entries = Vec::new();
        let collected = table.for_each_in_order(HASHER, |entry| {
            entries.push(entry.key());
            Ok::<_, ()>(())
        });
        assert_eq!(collected, Ok(()));
        assert_eq!(entries, expected);
        table.clear();
        assert_eq!((table.len(), table.facts(HASHER.hash(TransferId::new(1)), TransferId::new(1))), (0, None));
    }

    #[test]
    fn finds_free_and_equal_tags_in_every_place_of_a_window() {
        for place in 0..WINDOW_LEN {
            let mut bytes = [7u8; WINDOW_LEN];
            bytes[place] = 0;
            assert_eq!(zero_bytes(u64::from_le_bytes(bytes)).trailing_zeros() as usize / 8, place);
        }
        assert_eq!(zero_bytes(u64::from_le_bytes([1; 8])), 0);
    }
}
