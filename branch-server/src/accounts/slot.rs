//! One account in memory: two cache lines that a transfer touches, and one that only look-ups do.
//!
//! Writers hold the account's lock (one byte; it spins briefly and then parks, because on a machine with
//! fewer cores than threads the holder may have been descheduled). Locks of several accounts are always
//! taken in rising order of account id, so two workers can never wait for each other.
//! Readers take none: they copy the words and check that the sequence
//! number was even and did not change meanwhile (a seqlock; the ordering is that of H.-J. Boehm, "Can
//! seqlocks get along with programming language memory models?", MSPC 2012, with all data words atomic,
//! so that a torn copy is possible but never undefined, and always noticed).
//!
//! **Invariant:** while the sequence number is even and unchanged, the words are one published account.

use tally_ledger::{Account, Residence, Sums};
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Timestamp};

#[cfg(not(feature = "loom"))]
use parking_lot::lock_api::RawMutex;

use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, fence, spin_loop};

// Words of a slot. The first seven share a cache line with lock, sequence number and nothing else.
const ID_LOW: usize = 0;
const ID_HIGH: usize = 1;
const DEBITS_HELD: usize = 2;
const DEBITS_POSTED: usize = 3;
const CREDITS_HELD: usize = 4;
const CREDITS_POSTED: usize = 5;
/// day (32 bits), flags (16), kind (8), status (8)
const DAY_FLAGS_KIND_STATUS: usize = 6;
const LSN: usize = 7;
const TIMESTAMP: usize = 8;
const OWNER: usize = 9;
const OVERDRAFT: usize = 10;
const DAY_LIMIT: usize = 11;
const DAY_SPENT: usize = 12;
/// user_data_32 (32 bits), currency (16), code (16)
const USER_DATA_32_CURRENCY_CODE: usize = 13;
const OPENED_AT: usize = 14;
/// Words that a transfer reads.
const HOT_WORDS: usize = 15;
/// Words that only look-ups and moves read.
const COLD_WORDS: usize = 4;

/// Where an account lies. Handed out in the order of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotNumber(u32);

impl SlotNumber {
    pub(super) const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One account's place in memory.
#[repr(C, align(64))]
pub struct Slot {
    lock: Mutex<()>,
    sequence: AtomicU32,
    words: [AtomicU64; HOT_WORDS],
    /// What no transfer changes: the client's user data (128 and 64 bits), and where the account was before.
    cold: [AtomicU64; COLD_WORDS],
}

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<Slot>() == 192);
    // SAFETY: a lock is one byte, and has no padding.
    let lock = unsafe { std::mem::transmute::<parking_lot::RawMutex, u8>(<parking_lot::RawMutex as RawMutex>::INIT) };
    assert!(lock == 0, "`Slot::empty` takes zeroed memory for open locks");
};

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({})", self.id())
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            lock: Mutex::new(()),
            sequence: AtomicU32::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            cold: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Slot {
    /// `len` slots without an account. Their memory is zeros that nobody has touched yet.
    #[cfg(not(feature = "loom"))]
    pub(super) fn empty(len: usize) -> Box<[Self]> {
        let zeroed = Box::new_zeroed_slice(len);
        // SAFETY: a slot is atomic integers and a lock that is open when its byte is zero (asserted above).
        unsafe { zeroed.assume_init() }
    }

    /// The same where atomics are loom's.
    #[cfg(feature = "loom")]
    pub(super) fn empty(len: usize) -> Box<[Self]> {
        (0..len).map(|_| Self::default()).collect()
    }

    /// The account's id, which never changes once the slot is in the index.
    #[inline]
    pub fn id(&self) -> AccountId {
        let low = self.words[ID_LOW].load(Ordering::Relaxed);
        let high = self.words[ID_HIGH].load(Ordering::Relaxed);
        AccountId::new((high as u128) << 64 | low as u128)
    }

    /// Waits for the account's lock.
    #[inline]
    pub fn lock(&self) -> Locked<'_> {
        Locked { slot: self, _guard: self.lock.lock() }
    }

    /// The account's lock, if nobody holds it.
    #[cfg(not(feature = "loom"))]
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        self.lock.try_lock().map(|guard| Locked { slot: self, _guard: guard })
    }

    /// A consistent copy, without a lock.
    pub fn read(&self) -> Account {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let mut account = self.copy_hot();
                self.copy_cold(&mut account);
                // Orders the data loads before the second look at the sequence number; pairs with the
                // release fence in `publish`.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return account.into_account();
                }
            }
            #[cfg(feature = "loom")]
            crate::sync::thread::yield_now();
            spin_loop();
        }
    }

    /// Starts to bring the slot into the cache.
    #[inline]
    pub fn prefetch(&self) {
        let start = std::ptr::from_ref(self).cast::<u8>();
        crate::prefetch::prefetch(start);
        crate::prefetch::prefetch(start.wrapping_add(64));
    }

    fn copy_hot(&self) -> Words {
        let mut words = Words([0; HOT_WORDS], [0; COLD_WORDS]);
        for (copy, word) in words.0.iter_mut().zip(&self.words) {
            *copy = word.load(Ordering::Relaxed);
        }
        words
    }

    fn copy_cold(&self, words: &mut Words) {
        for (copy, word) in words.1.iter_mut().zip(&self.cold) {
            *copy = word.load(Ordering::Relaxed);
        }
    }
}

/// An account whose lock the calling thread holds; gives it back when dropped.
pub struct Locked<'a> {
    slot: &'a Slot,
    _guard: MutexGuard<'a, ()>,
}

/// Locks two different accounts in rising order of id, whichever is the debit one.
#[inline]
pub fn lock_both<'a>(debit: &'a Slot, credit: &'a Slot) -> (Locked<'a>, Locked<'a>) {
    if debit.id() < credit.id() {
        let debit = debit.lock();
        (debit, credit.lock())
    } else {
        let credit = credit.lock();
        (debit.lock(), credit)
    }
}

impl Locked<'_> {
    /// The account as the rules see it. The client's user data and the residence, which no rule reads and no transfer
    /// changes, are left zero: they lie on another cache line.
    #[inline]
    pub fn load(&self) -> Account {
        self.slot.copy_hot().into_account()
    }

    /// The whole account.
    pub fn load_all(&self) -> Account {
        let mut words = self.slot.copy_hot();
        self.slot.copy_cold(&mut words);
        words.into_account()
    }

    /// Publishes what a transfer changes: the sums, what was spent on which day, and the position.
    #[inline]
    pub fn publish_sums(&self, account: &Account) {
        self.publish(|slot| {
            let store = |word: usize, value: u64| slot.words[word].store(value, Ordering::Relaxed);
            store(DEBITS_HELD, account.sums.debits_held.get());
            store(DEBITS_POSTED, account.sums.debits_posted.get());
            store(CREDITS_HELD, account.sums.credits_held.get());
            store(CREDITS_POSTED, account.sums.credits_posted.get());
            store(DAY_FLAGS_KIND_STATUS, pack_state(account));
            store(DAY_SPENT, account.day_spent.get());
            store(LSN, account.lsn.get());
            store(TIMESTAMP, account.timestamp.as_nanos());
        });
    }

    /// Publishes the whole account.
    pub fn publish_all(&self, account: &Account) {
        self.publish(|slot| {
            for (word, value) in slot.words.iter().zip(Words::hot_of(account)) {
                word.store(value, Ordering::Relaxed);
            }
            for (word, value) in slot.cold.iter().zip(Words::cold_of(account)) {
                word.store(value, Ordering::Relaxed);
            }
        });
    }

    #[inline]
    fn publish(&self, write: impl FnOnce(&Slot)) {
        let sequence = self.slot.sequence.load(Ordering::Relaxed);
        self.slot.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Orders the odd number before the data; pairs with the acquire fence in `read`.
        fence(Ordering::Release);
        write(self.slot);
        self.slot.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
}

/// A copy of the words of a slot.
struct Words([u64; HOT_WORDS], [u64; COLD_WORDS]);

fn pack_state(account: &Account) -> u64 {
    (account.day as u64) << 32 | (account.flags as u64) << 16 | (account.kind as u64) << 8 | account.status as u64
}

impl Words {
    fn hot_of(account: &Account) -> [u64; HOT_WORDS] {
        let mut words = [0; HOT_WORDS];
        words[ID_LOW] = account.id.get() as u64;
        words[ID_HIGH] = (account.id.get() >> 64) as u64;
        words[DEBITS_HELD] = account.sums.debits_held.get();
        words[DEBITS_POSTED] = account.sums.debits_posted.get();
        words[CREDITS_HELD] = account.sums.credits_held.get();
        words[CREDITS_POSTED] = account.sums.credits_posted.get();
        words[DAY_FLAGS_KIND_STATUS] = pack_state(account);
        words[LSN] = account.lsn.get();
        words[TIMESTAMP] = account.timestamp.as_nanos();
        words[OWNER] = account.owner.get();
        words[OVERDRAFT] = account.overdraft.get();
        words[DAY_LIMIT] = account.day_limit.get();
        words[DAY_SPENT] = account.day_spent.get();
        words[USER_DATA_32_CURRENCY_CODE] =
            (account.user_data_32 as u64) << 32 | (account.currency.get() as u64) << 16 | account.code as u64;
        words[OPENED_AT] = account.opened_at.as_nanos();
        words
    }

    fn cold_of(account: &Account) -> [u64; COLD_WORDS] {
        let (low, high) = (account.user_data_128 as u64, (account.user_data_128 >> 64) as u64);
        [low, high, account.user_data_64, account.residence.to_word()]
    }

    /// A torn copy may hold bits that no account has; they are replaced by defaults here, because the
    /// copy is thrown away when the sequence number shows it.
    #[inline]
    fn into_account(self) -> Account {
        let Self(words, cold) = self;
        let state = words[DAY_FLAGS_KIND_STATUS];
        let mixed = words[USER_DATA_32_CURRENCY_CODE];
        Account {
            id: AccountId::new((words[ID_HIGH] as u128) << 64 | words[ID_LOW] as u128),
            owner: CustomerId::new(words[OWNER]),
            user_data_128: (cold[1] as u128) << 64 | cold[0] as u128,
            user_data_64: cold[2],
            user_data_32: (mixed >> 32) as u32,
            currency: Currency::new((mixed >> 16) as u16).unwrap_or_default(),
            code: mixed as u16,
            flags: (state >> 16) as u16,
            kind: AccountKind::from_wire((state >> 8) as u8).unwrap_or_default(),
            status: AccountStatus::from_wire(state as u8).unwrap_or_default(),
            overdraft: Amount::new(words[OVERDRAFT]),
            day_limit: Amount::new(words[DAY_LIMIT]),
            day_spent: Amount::new(words[DAY_SPENT]),
            day: (state >> 32) as u32,
            sums: Sums {
                debits_held: Amount::new(words[DEBITS_HELD]),
                debits_posted: Amount::new(words[DEBITS_POSTED]),
                credits_held: Amount::new(words[CREDITS_HELD]),
                credits_posted: Amount::new(words[CREDITS_POSTED]),
            },
            opened_at: Timestamp::from_nanos(words[OPENED_AT]),
            lsn: Lsn::new(words[LSN]),
            timestamp: Timestamp::from_nanos(words[TIMESTAMP]),
            residence: Residence::of_word(cold[3]),
        }
    }
}
