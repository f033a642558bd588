//! One shard's part of one generation: ids and what is known of them, in memory, open addressing.
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

/// What a shard's table starts with: 32 KiB. A quiet branch stays small.
const HOME_COUNT_MIN: usize = 1024;
/// Slots behind the last home, for what is displaced beyond it; the table grows if they run out.
const SPILL_LEN: usize = 256;

/// Invariant: at most three quarters of the homes are taken; no slot between an id's home and its place is
/// empty; homes are in hash order.
pub(super) struct Table {
    slots: Vec<Slot>,
    len: usize,
    /// How many leading bits of the hash chose the shard and say nothing here.
    shard_bits: u32,
}

impl Table {
    pub(super) fn new(shard_bits: u32) -> Self {
        Self { slots: vec![EMPTY; HOME_COUNT_MIN + SPILL_LEN], len: 0, shard_bits }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn memory_len_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// Empties the table and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }

    /// Asks the CPU to fetch the slot at which a search for `hash` begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(&self.slots[self.home(hash)]).cast());
    }

    /// What is known of `id`.
    #[inline]
    pub(super) fn facts(&self, hash: u64, id: TransferId) -> Option<Facts> {
        self.slots[self.home(hash)..]
            .iter()
            .take_while(|slot| !slot.id.is_none())
            .find(|slot| slot.id == id)
            .map(|slot| Facts { record: known(slot.record), ended: known(slot.ended) })
    }

    /// Notes where the record of `id` lies.
    pub(super) fn set_record(&mut self, hasher: IdHasher, hash: u64, id: TransferId, lsn: Lsn) {
        let slot = self.slot(hasher, hash, id);
        assert!(slot.record == Lsn::ZERO || slot.record == lsn, "{id} has a record at {} and at {lsn}", slot.record);
        slot.record = lsn;
    }

    /// Notes where the record lies that ended `id`; of several, the last.
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
            cluster.sort_unstable_by_key(Entry::key);
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
    fn slot(&mut self, hasher: IdHasher, hash: u64, id: TransferId) -> &mut Slot {
        assert!(!id.is_none(), "id 0 names no transfer and marks empty slots");
        loop {
            if let Some(index) = self.find(hash, id) {
                if self.slots[index].id == id {
                    return &mut self.slots[index];
                }
                if (self.len + 1) * 4 <= self.home_count() * 3 {
                    self.len += 1;
                    self.slots[index].id = id;
                    return &mut self.slots[index];
                }
            }
            self.grow(hasher);
        }
    }

    /// The slot that holds `id`, or the empty one where it would go; `None` where the spill has run out.
    fn find(&self, hash: u64, id: TransferId) -> Option<usize> {
        let home = self.home(hash);
        let offset = self.slots[home..].iter().position(|slot| slot.id.is_none() || slot.id == id)?;
        Some(home + offset)
    }

    fn grow(&mut self, hasher: IdHasher) {
        let mut home_count = self.home_count() * 2;
        'larger: loop {
            let mut larger = Self { slots: vec![EMPTY; home_count + SPILL_LEN], len: 0, shard_bits: self.shard_bits };
            for slot in self.slots.iter().filter(|slot| !slot.id.is_none()) {
                let Some(index) = larger.find(hasher.hash(slot.id), slot.id) else {
                    home_count *= 2;
                    continue 'larger;
                };
                larger.slots[index] = *slot;
                larger.len += 1;
            }
            *self = larger;
            return;
        }
    }
}

fn known(lsn: Lsn) -> Option<Lsn> {
    (lsn != Lsn::ZERO).then_some(lsn)
}
