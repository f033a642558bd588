//! The open holds of the branch. Holds that ended are history: the id index knows where.
//!
//! **Invariant:** a hold is added or removed only while the locks of both its accounts are held, so
//! whoever holds these locks and finds it here may settle it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tally_ledger::Hold;
use tally_protocol::{Timestamp, TransferId};

/// Enough that two workers rarely meet on one.
const SHARD_COUNT: usize = 64;

type Shard = Mutex<HashMap<TransferId, Hold, RandomState>>;

/// The open holds.
pub struct Holds {
    shards: Box<[Shard]>,
    /// Those with a time-out, soonest first.
    by_expiry: Mutex<BTreeSet<(Timestamp, TransferId)>>,
    /// Open ones, and room secured for ones to come. `0 <= taken <= len_max`
    taken: AtomicUsize,
    len_max: usize,
}

impl std::fmt::Debug for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holds({})", self.taken())
    }
}

impl Holds {
    /// Room for `len_max` open holds.
    pub fn new(len_max: usize) -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            by_expiry: Mutex::default(),
            taken: AtomicUsize::new(0),
            len_max,
        }
    }

    /// Secures room for one more, before any lock is taken. `false` when there is none. Every success is
    /// followed by one [`Holds::insert`] or one [`Holds::give_room_back`].
    pub fn secure_room(&self) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        if taken >= self.len_max {
            self.give_room_back();
        }
        taken < self.len_max
    }

    /// Gives secured room back.
    pub fn give_room_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Open holds, and room secured for ones to come.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The open hold with this id.
    pub fn get(&self, id: TransferId) -> Option<Hold> {
        self.shard(id).lock().get(&id).copied()
    }

    /// Adds a hold, for which room was secured.
    pub fn insert(&self, hold: Hold) {
        if hold.expires_at != Timestamp::MAX {
            self.by_expiry.lock().insert((hold.expires_at, hold.id));
        }
        let before = self.shard(hold.id).lock().insert(hold.id, hold);
        assert!(before.is_none(), "hold {} was open already", hold.id);
    }

    /// Adds a hold that was open before a restart: there is room for it even if the limit was lowered since,
    /// and it may have been added before, by the checkpoint or by an earlier record.
    pub fn insert_recovered(&self, hold: Hold) {
        self.remove(hold.id);
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.insert(hold);
    }

    /// Removes a hold that ended.
    pub fn remove(&self, id: TransferId) -> Option<Hold> {
        let hold = self.shard(id).lock().remove(&id)?;
        if hold.expires_at != Timestamp::MAX {
            self.by_expiry.lock().remove(&(hold.expires_at, id));
        }
        self.give_room_back();
        Some(hold)
    }

    /// At most `count_max` holds whose time has run out at `now`, soonest first. They stay until removed.
    pub fn due(&self, now: Timestamp, count_max: usize) -> Vec<TransferId> {
        let by_expiry = self.by_expiry.lock();
        by_expiry.iter().take_while(|(expires_at, _)| *expires_at <= now).take(count_max).map(|&(_, id)| id).collect()
    }

    /// Every open hold, shard by shard, each shard at one instant.
    pub fn iter(&self) -> impl Iterator<Item = Hold> + '_ {
        self.shards.iter().flat_map(|shard| shard.lock().values().copied().collect::<Vec<_>>())
    }

    fn shard(&self, id: TransferId) -> &Shard {
        // The low half of a UUID is random, whatever its version; a counter spreads as well.
        &self.shards[(id.get() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> 58]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::{AccountId, Amount, Currency, Lsn};

    fn hold(id: u128, expires_at: u64) -> Hold {
        Hold {
            id: TransferId::new(id),
            debit_account_id: AccountId::new(1),
            credit_account_id: AccountId::new(2),
            amount: Amount::new(3),
            currency: Currency::EUR,
            code: 1,
            expires_at: Timestamp::from_nanos(expires_at),
            leg: tally_ledger::Leg::Whole,
            far_account_id: AccountId::NONE,
            lsn: Lsn::new(64),
            timestamp: Timestamp::from_nanos(1),
            closes: tally_ledger::Closes::NONE,
        }
    }

    #[test]
    fn due_holds_come_soonest_first_and_only_when_due() {
        let holds = Holds::new(10);
        for (id, expires_at) in [(1, 30), (2, 10), (3, 20), (4, u64::MAX)] {
            assert!(holds.secure_room());
            holds.insert(hold(id, expires_at));
        }
        let due = |now| holds.due(Timestamp::from_nanos(now), 10).iter().map(|id| id.get()).collect::<Vec<_>>();
        assert_eq!(due(9), Vec::<u128>::new());
        assert_eq!(due(20), [2, 3]);
        assert_eq!(due(u64::MAX - 1), [2, 3, 1]);
        assert_eq!(holds.remove(TransferId::new(2)).map(|hold| hold.id.get()), Some(2));
        assert_eq!(due(20), [3]);
        assert_eq!(holds.iter().count(), 3);
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let holds = Holds::new(1);
        assert!(holds.secure_room());
        assert!(!holds.secure_room());
        holds.insert(hold(1, 5));
        assert!(!holds.secure_room());
        holds.remove(TransferId::new(1));
        assert!(holds.secure_room());
    }
}
