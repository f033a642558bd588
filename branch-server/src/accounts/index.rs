//! From account id to slot number: open addressing with linear probing, read without a lock.
//!
//! An entry is one word: 32 bits of the id's hash, and the slot number plus one. The table only grows; a
//! grown copy replaces the old one, which readers may still hold until their epoch ends (crossbeam-epoch).
//!
//! **Invariant:** an entry is stored only after its slot holds the account, and never changes afterwards.

use crossbeam::epoch::{self, Atomic, Guard, Owned};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tally_protocol::AccountId;
use zerocopy::FromZeros;

use super::slot::SlotNumber;

/// A table is replaced by one of twice the size when it is this full: 5/8.
const LOAD_MAX_EIGHTHS: usize = 5;

pub(super) struct Index {
    table: Atomic<Table>,
    seed: u64,
}

struct Table {
    mask: usize,
    /// Only the one inserting caller reads and writes it; it lies here so that it grows with the table.
    len: AtomicUsize,
    entries: Box<[AtomicU64]>,
}

/// A hash of the id that clients cannot aim at, because of the seed.
#[derive(Clone, Copy)]
pub(crate) struct IdHash(u64);

impl Index {
    pub(super) fn new(seed: u64) -> Self {
        Self { table: Atomic::new(Table::with_capacity(1 << 12)), seed }
    }

    /// Replaces the table, which must be empty, by one that need not grow before it has `count` entries.
    pub(super) fn reserve(&mut self, count: usize) {
        let capacity = (count * 8 / LOAD_MAX_EIGHTHS + 1).next_power_of_two();
        let guard = epoch::pin();
        let table = self.current(&guard);
        assert!(table.len.load(Ordering::Relaxed) == 0, "room is made before the first account");
        if capacity > table.mask + 1 {
            *self = Self { table: Atomic::new(Table::with_capacity(capacity)), seed: self.seed };
        }
    }

    /// Folded multiplication of both halves, as in wyhash and foldhash.
    #[inline]
    pub(super) fn hash(&self, id: AccountId) -> IdHash {
        let low = id.get() as u64 ^ self.seed;
        let high = (id.get() >> 64) as u64 ^ 0x9E37_79B9_7F4A_7C15;
        let first = low as u128 * (high | 1) as u128;
        let mixed = (first as u64 ^ (first >> 64) as u64) ^ low.rotate_left(32);
        let second = mixed as u128 * 0xD6E8_FEB8_6659_FD93;
        IdHash(second as u64 ^ (second >> 64) as u64)
    }

    #[inline]
    pub(super) fn prefetch(&self, hash: IdHash, guard: &Guard) {
        let table = self.current(guard);
        crate::prefetch::prefetch(std::ptr::from_ref(&table.entries[hash.home(table.mask)]).cast());
    }

    /// The first slot whose entry has the hash and that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: IdHash, guard: &Guard, is_it: impl Fn(SlotNumber) -> bool) -> Option<SlotNumber> {
        let table = self.current(guard);
        let mut at = hash.home(table.mask);
        loop {
            // Pairs with the release store in `insert`: what the slot holds is visible.
            let entry = table.entries[at].load(Ordering::Acquire);
            if entry == 0 {
                return None;
            }
            if entry >> 32 == hash.tag() {
                let slot = SlotNumber::new(entry as u32 - 1);
                if is_it(slot) {
                    return Some(slot);
                }
            }
            at = (at + 1) & table.mask;
        }
    }

    /// Adds an entry. One caller at a time: the store's opening lock is held.
    pub(super) fn insert(&self, hash: IdHash, slot: SlotNumber, hash_of: impl Fn(SlotNumber) -> IdHash) {
        let guard = epoch::pin();
        let table = self.current(&guard);
        let len = table.len.load(Ordering::Relaxed);
        if (len + 1) * 8 > (table.mask + 1) * LOAD_MAX_EIGHTHS {
            let mut grown = Table::with_capacity((table.mask + 1) * 2);
            for entry in &table.entries {
                let entry = entry.load(Ordering::Relaxed);
                if entry != 0 {
                    grown.add(hash_of(SlotNumber::new(entry as u32 - 1)), entry);
                }
            }
            grown.add(hash, hash.entry(slot));
            let old = self.table.swap(Owned::new(grown), Ordering::AcqRel, &guard);
            // SAFETY: `old` is out of reach for readers that pin from here on, and it is retired once.
            unsafe { guard.defer_destroy(old) };
            guard.flush();
            return;
        }
        let at = table.free_place(hash);
        table.entries[at].store(hash.entry(slot), Ordering::Release);
        table.len.store(len + 1, Ordering::Relaxed);
    }

    #[inline]
    fn current<'g>(&self, guard: &'g Guard) -> &'g Table {
        let table = self.table.load(Ordering::Acquire, guard);
        // SAFETY: the pointer is never null, and the guard keeps the table from being freed.
        unsafe { table.deref() }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let table = std::mem::replace(&mut self.table, Atomic::null());
        // SAFETY: `&mut self` means that no reader is left, and the pointer came from an `Owned`.
        drop(unsafe { table.try_into_owned() });
    }
}

impl Table {
    fn with_capacity(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two(), "capacity {capacity}");
        let entries = <[AtomicU64]>::new_box_zeroed_with_elems(capacity).expect("memory for the index of the accounts");
        Self { mask: capacity - 1, len: AtomicUsize::new(0), entries }
    }

    fn free_place(&self, hash: IdHash) -> usize {
        let mut at = hash.home(self.mask);
        while self.entries[at].load(Ordering::Relaxed) != 0 {
            at = (at + 1) & self.mask;
        }
        at
    }

    fn add(&mut self, hash: IdHash, entry: u64) {
        let at = self.free_place(hash);
        *self.entries[at].get_mut() = entry;
        *self.len.get_mut() += 1;
    }
}

impl IdHash {
    #[inline]
    fn home(self, mask: usize) -> usize {
        self.0 as usize & mask
    }
    /// The half of the hash that a small table does not use for the place.
    #[inline]
    fn tag(self) -> u64 {
        self.0 >> 32
    }
    fn entry(self, slot: SlotNumber) -> u64 {
        self.tag() << 32 | (slot.get() as u64 + 1)
    }
}
