//! The ids that somebody has reserved and neither finished nor released: a small open-addressing set that stays
//! in the cache, apart from the table of finished ids, so that freezing that table need not look for them.

use tally_protocol::TransferId;

#[derive(Clone, Copy)]
struct Slot {
    id: TransferId,
    hash: u64,
}

/// A set of ids. Invariant: at most half of the slots are taken; no slot between an id's home and its
/// place is empty.
pub(super) struct InFlight {
    slots: Vec<Slot>,
    len: usize,
}

const EMPTY: Slot = Slot { id: TransferId::NONE, hash: 0 };
const SLOT_COUNT_MIN: usize = 16;

impl InFlight {
    pub(super) fn new() -> Self {
        Self { slots: vec![EMPTY; SLOT_COUNT_MIN], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, hash: u64, id: TransferId) -> bool {
        self.slots[self.find(hash, id)].id == id
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: TransferId) {
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let index = self.find(hash, id);
        debug_assert!(self.slots[index].id.is_none());
        self.slots[index] = Slot { id, hash };
        self.len += 1;
    }

    /// Takes an id out; whether it was there.
    pub(super) fn remove(&mut self, hash: u64, id: TransferId) -> bool {
        let mut hole = self.find(hash, id);
        if self.slots[hole].id.is_none() {
            return false;
        }
        // Close the gap: move back whatever would no longer be reached from its home.
        let mask = self.slots.len() - 1;
        let mut index = hole;
        loop {
            index = (index + 1) & mask;
            let slot = self.slots[index];
            if slot.id.is_none() {
                break;
            }
            let from_home = index.wrapping_sub(slot.hash as usize) & mask;
            let from_hole = index.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.slots[hole] = slot;
                hole = index;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        true
    }

    /// The slot that holds `id`, or the empty one where it would go.
    fn find(&self, hash: u64, id: TransferId) -> usize {
        let mask = self.slots.len() - 1;
        let mut index = hash as usize & mask;
        while !self.slots[index].id.is_none() && self.slots[index].id != id {
            index = (index + 1) & mask;
        }
        index
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if !slot.id.is_none() {
                let index = self.find(slot.hash, slot.id);
                self.slots[index] = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn behaves_as_a_set_under_colliding_hashes() {
        let mut set = InFlight::new();
        let mut model = HashSet::new();
        let mut state = 7u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let raw = (state >> 40) % 200 + 1;
            let (id, hash) = (TransferId::new(raw.into()), raw % 23);
            if (state >> 33).is_multiple_of(2) {
                assert_eq!(set.remove(hash, id), model.remove(&raw));
            } else if model.insert(raw) {
                set.insert(hash, id);
            }
            assert_eq!(set.len(), model.len());
            assert_eq!(set.contains(hash, id), model.contains(&raw));
        }
        for raw in 1..=200u64 {
            assert_eq!(set.contains(raw % 23, TransferId::new(raw.into())), model.contains(&raw), "id {raw}");
        }
    }
}
