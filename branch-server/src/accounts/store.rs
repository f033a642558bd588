//! All accounts of the branch: chunks of slots that never move, and the index in front of them.

use crossbeam::epoch::{self, Guard};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tally_ledger::Account;
use tally_protocol::AccountId;

use super::index::{IdHash, Index};
use super::slot::{Slot, SlotNumber};

/// Slots are allocated by the chunk, so that none ever moves: 12 MiB each, of which the kernel clears a page when the
/// first of its accounts is opened.
const CHUNK_LEN: usize = 1 << 16;

type Chunk = OnceLock<Box<[Slot]>>;

/// The branch holds as many accounts as its configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the branch holds as many accounts as its configuration allows")]
pub struct AccountsFull;

/// The accounts of a branch.
pub struct Accounts {
    chunks: Arc<[Chunk]>,
    index: Index,
    len: AtomicU32,
    len_max: u32,
    opening: Mutex<()>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accounts({})", self.len())
    }
}

/// The right to open accounts; one caller at a time.
#[derive(Debug)]
pub struct Opening<'a> {
    accounts: &'a Accounts,
    _lock: MutexGuard<'a, ()>,
}

impl Accounts {
    /// Room for `len_max` accounts; memory is taken as they are opened. `seed` keeps clients from
    /// choosing ids that collide.
    pub fn new(len_max: u32, seed: u64) -> Self {
        let chunk_count = (len_max as usize).div_ceil(CHUNK_LEN);
        Self {
            chunks: (0..chunk_count).map(|_| Chunk::new()).collect(),
            index: Index::new(seed),
            len: AtomicU32::new(0),
            len_max,
            opening: Mutex::new(()),
        }
    }

    /// Makes room for `count` accounts that are about to be recovered: the index at once, so that it need not grow,
    /// and their slots ahead of need on a thread of their own, because the kernel takes its time to clear the pages.
    pub(crate) fn make_room(&mut self, count: u64) {
        let count = count.min(u64::from(self.len_max)) as usize;
        self.index.reserve(count);
        let chunk_count = count / CHUNK_LEN;
        let (chunks, len_max) = (Arc::clone(&self.chunks), self.len_max);
        if chunk_count > 1 {
            let fill = move || chunks[..chunk_count].iter().for_each(|chunk| populate(make(chunk, len_max)));
            // Without the thread the pages are cleared one by one, as they are needed.
            let _ = std::thread::Builder::new().name("accounts-room".into()).spawn(fill);
        }
    }

    /// Accounts opened so far, closed ones included.
    pub fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash under which the index knows `id`.
    #[inline]
    pub(crate) fn hash(&self, id: AccountId) -> IdHash {
        self.index.hash(id)
    }

    /// First half of a look-up: starts the cache miss in the index.
    #[inline]
    pub(crate) fn prefetch_index(&self, hash: IdHash, guard: &Guard) {
        self.index.prefetch(hash, guard);
    }

    /// Second half: starts the cache misses in the slot that is most likely the right one.
    #[inline]
    pub(crate) fn prefetch_slot(&self, hash: IdHash, guard: &Guard) {
        if let Some(number) = self.index.find(hash, guard, |_| true) {
            self.slot(number).prefetch();
        }
    }

    /// The account's slot.
    pub fn find(&self, id: AccountId) -> Option<&Slot> {
        self.find_pinned(id, &epoch::pin())
    }

    /// The account's slot, under the caller's guard: slots outlive it.
    #[inline]
    pub fn find_pinned(&self, id: AccountId, guard: &Guard) -> Option<&Slot> {
        let number = self.index.find(self.hash(id), guard, |number| self.slot(number).id() == id)?;
        Some(self.slot(number))
    }

    /// Waits for the right to open accounts.
    pub fn opening(&self) -> Opening<'_> {
        Opening { accounts: self, _lock: self.opening.lock() }
    }

    /// The right to open accounts, if nobody has it.
    pub fn try_opening(&self) -> Option<Opening<'_>> {
        self.opening.try_lock().map(|lock| Opening { accounts: self, _lock: lock })
    }

    /// Every account, in order of opening, each a consistent copy of its own instant.
    pub fn iter(&self) -> impl Iterator<Item = Account> + '_ {
        (0..self.len()).map(|number| self.slot(SlotNumber::new(number)).read())
    }

    #[inline]
    fn slot(&self, number: SlotNumber) -> &Slot {
        let number = number.get() as usize;
        let chunk = self.chunks[number / CHUNK_LEN].get().expect("a numbered slot's chunk exists");
        &chunk[number % CHUNK_LEN]
    }
}

/// Makes a chunk's slots, unless they are there.
fn make(chunk: &Chunk, len_max: u32) -> &[Slot] {
    chunk.get_or_init(|| Slot::empty(CHUNK_LEN.min(len_max as usize)))
}

/// Has the kernel clear the pages of `slots` now. They may be in use already.
#[cfg(not(feature = "loom"))]
fn populate(slots: &[Slot]) {
    const PAGE_LEN_BYTES: usize = 4096;
    let start = std::ptr::from_ref(slots).cast::<u8>();
    let skipped = start.align_offset(PAGE_LEN_BYTES);
    let len_bytes = size_of_val(slots).saturating_sub(skipped) / PAGE_LEN_BYTES * PAGE_LEN_BYTES;
    let pages = start.wrapping_add(skipped).cast_mut().cast();
    // SAFETY: the pages lie within the slots, and populating them changes no byte of them.
    let populated = unsafe { rustix::mm::madvise(pages, len_bytes, rustix::mm::Advice::LinuxPopulateWrite) };
    if let Err(error) = populated {
        tracing::debug!(stage = "accounts", %error, "memory for accounts cannot be populated ahead of need");
    }
}

#[cfg(feature = "loom")]
fn populate(_: &[Slot]) {}

impl<'a> Opening<'a> {
    /// Makes sure that the next `count` [`Opening::open`] find room.
    pub fn secure(&self, count: usize) -> Result<(), AccountsFull> {
        let (accounts, first) = (self.accounts, self.accounts.len.load(Ordering::Relaxed) as usize);
        let end = first + count;
        if end > accounts.len_max as usize {
            return Err(AccountsFull);
        }
        for chunk in &accounts.chunks[first / CHUNK_LEN..end.div_ceil(CHUNK_LEN)] {
            make(chunk, accounts.len_max);
        }
        Ok(())
    }

    /// Puts an account that the index does not know yet into a slot and makes it findable.
    ///
    /// # Panics
    /// When [`Opening::secure`] was not asked before.
    pub fn open(&self, account: &Account) -> &'a Slot {
        let accounts = self.accounts;
        let number = SlotNumber::new(accounts.len.load(Ordering::Relaxed));
        let slot = accounts.slot(number);
        slot.lock().publish_all(account);
        accounts.index.insert(accounts.hash(account.id), number, |number| accounts.hash(accounts.slot(number).id()));
        // Pairs with the acquire load in `len`: whoever iterates finds the slot filled.
        accounts.len.store(number.get() + 1, Ordering::Release);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::{Amount, BranchId, Lsn};

    fn account(local: u128) -> Account {
        Account {
            id: AccountId::of_branch(BranchId::new(1), local),
            owner: tally_protocol::CustomerId::new(local as u64),
            user_data_128: local << 64,
            user_data_64: 7,
            user_data_32: 8,
            currency: tally_protocol::Currency::EUR,
            code: 1,
            flags: 1,
            kind: tally_protocol::AccountKind::Customer,
            status: tally_protocol::AccountStatus::Open,
            overdraft: Amount::new(5),
            day_limit: Amount::MAX,
            day_spent: Amount::ZERO,
            day: 3,
            sums: tally_ledger::Sums { debits_posted: Amount::new(9), ..Default::default() },
            opened_at: tally_protocol::Timestamp::from_nanos(11),
            lsn: Lsn::new(64),
            timestamp: tally_protocol::Timestamp::from_nanos(12),
            residence: tally_ledger::Residence::default(),
        }
    }

    #[test]
    fn finds_each_account_while_the_index_grows() {
        let accounts = Accounts::new(200_000, 42);
        for local in 1..=100_000 {
            let opening = accounts.opening();
            opening.secure(1).expect("room");
            opening.open(&account(local));
        }
        for local in (1..=100_000).step_by(97) {
            let slot = accounts.find(account(local).id).expect("opened");
            assert_eq!(slot.read(), account(local));
        }
        assert!(accounts.find(account(100_001).id).is_none());
        assert_eq!(accounts.iter().count(), 100_000);
    }

    #[test]
    fn refuses_more_than_it_was_made_for() {
        let accounts = Accounts::new(1, 0);
        let opening = accounts.opening();
        assert_eq!(opening.secure(2), Err(AccountsFull));
        opening.secure(1).expect("room for one");
        opening.open(&account(1));
        assert_eq!(opening.secure(1), Err(AccountsFull));
    }

    #[test]
    fn room_for_several_is_made_across_chunks() {
        let accounts = Accounts::new(CHUNK_LEN as u32 + 5, 0);
        let opening = accounts.opening();
        for local in 1..CHUNK_LEN as u128 {
            opening.secure(1).expect("room");
            opening.open(&account(local));
        }
        opening.secure(6).expect("one slot in this chunk, five in the next");
        for local in 0..6 {
            opening.open(&account(CHUNK_LEN as u128 + local));
        }
        assert_eq!(opening.secure(1), Err(AccountsFull));
    }

    #[test]
    fn readers_never_see_half_a_transfer() {
        let accounts = Accounts::new(10, 0);
        accounts.opening().secure(1).expect("room");
        let slot = accounts.opening().open(&account(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=200_000u64 {
                    let locked = slot.lock();
                    let mut account = locked.load();
                    account.sums.debits_held = Amount::new(round);
                    account.sums.credits_posted = Amount::new(round * 3);
                    account.lsn = Lsn::new(round * 8);
                    locked.publish_sums(&account);
                }
            });
            for _ in 0..100_000 {
                let seen = slot.read();
                let round = seen.sums.debits_held.get();
                assert_eq!(seen.sums.credits_posted.get(), round * 3);
                assert!(round == 0 || seen.lsn.get() == round * 8);
            }
        });
    }
}
