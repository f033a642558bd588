//! Holds between branches that this branch has ended, and of which the payee's branch has not said that it knows.
//!
//! Each follows from a record of the journal, or lies in a checkpoint, so that a restart finds it again.
//!
//! **Invariant:** an end is told until it was heard, and not before its record is durable: what is handed out here carries
//! its position, which is the gate that it waits behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tally_ledger::Ending;
use tally_protocol::{Timestamp, TransferId};

/// Seconds until an end is told again for the first time; the pause doubles each time.
const PAUSE_S: u32 = 1;
/// The longest pause, in seconds.
const PAUSE_S_MAX: u32 = 32;

#[derive(Clone, Copy, Debug)]
struct Untold {
    ending: Ending,
    tell_at: Timestamp,
    pause_s: u32,
}

#[derive(Debug, Default)]
struct Table {
    all: BTreeMap<TransferId, Untold>,
    /// Not told once.
    fresh: Vec<TransferId>,
}

/// See the top of the file.
#[derive(Debug, Default)]
pub struct Endings {
    table: Mutex<Table>,
    has_fresh: AtomicBool,
}

impl Endings {
    /// A hold was ended just now. Says whether that is new.
    pub(crate) fn insert(&self, ending: Ending) -> bool {
        let tell_at = ending.timestamp.checked_add_seconds(PAUSE_S).unwrap_or(Timestamp::MAX);
        let mut table = self.table.lock();
        table.fresh.push(ending.hold_id);
        let is_new = table.all.insert(ending.hold_id, Untold { ending, tell_at, pause_s: 2 * PAUSE_S }).is_none();
        self.has_fresh.store(true, Ordering::Release);
        is_new
    }

    /// A hold was ended before a restart: it is told at the next tick.
    pub(crate) fn insert_recovered(&self, ending: Ending) -> bool {
        let untold = Untold { ending, tell_at: Timestamp::default(), pause_s: PAUSE_S };
        self.table.lock().all.insert(ending.hold_id, untold).is_none()
    }

    /// The other branch knows. Says whether that is new.
    pub(crate) fn remove(&self, hold_id: TransferId) -> bool {
        self.table.lock().all.remove(&hold_id).is_some()
    }

    /// Whether [`Endings::tell_fresh`] would find something; one load.
    pub fn has_fresh(&self) -> bool {
        self.has_fresh.load(Ordering::Acquire)
    }

    /// Those that were not told yet.
    pub fn tell_fresh(&self, mut tell: impl FnMut(&Ending)) {
        if !self.has_fresh.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut table = self.table.lock();
        for id in std::mem::take(&mut table.fresh) {
            if let Some(untold) = table.all.get(&id) {
                tell(&untold.ending);
            }
        }
    }

    /// Those that have to be told again at `now`, in order of id.
    pub fn tell_due(&self, now: Timestamp, mut tell: impl FnMut(&Ending)) {
        for untold in self.table.lock().all.values_mut().filter(|untold| untold.tell_at <= now) {
            untold.tell_at = now.checked_add_seconds(untold.pause_s).unwrap_or(Timestamp::MAX);
            untold.pause_s = (2 * untold.pause_s).min(PAUSE_S_MAX);
            tell(&untold.ending);
        }
    }

    /// The end of this hold, if the other branch has not said that it knows.
    pub fn get(&self, hold_id: TransferId) -> Option<Ending> {
        self.table.lock().all.get(&hold_id).map(|untold| untold.ending)
    }

    /// All of them, at one instant, in order of id.
    pub fn all(&self) -> Vec<Ending> {
        self.table.lock().all.values().map(|untold| untold.ending).collect()
    }

    /// How many, and since when the oldest.
    pub fn summary(&self) -> (usize, Option<Timestamp>) {
        let table = self.table.lock();
        (table.all.len(), table.all.values().map(|untold| untold.ending.timestamp).min())
    }
}

#[cfg(test)]
mod tests {
    use tally_ledger::HoldEnd;
    use tally_protocol::{Amount, BranchId, Currency, Lsn};

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn ending(id: u128) -> Ending {
        Ending {
            hold_id: TransferId::new(id),
            end: HoldEnd::Settled,
            posted: Amount::new(3),
            currency: Currency::EUR,
            peer: BranchId::new(2),
            lsn: Lsn::new(64),
            timestamp: at(10),
        }
    }

    #[test]
    fn an_end_is_told_at_once_and_again_until_it_was_heard() {
        let endings = Endings::default();
        let fresh = || {
            let mut told = 0;
            endings.tell_fresh(|_| told += 1);
            told
        };
        assert!(endings.insert(ending(1)) && endings.has_fresh());
        assert_eq!([fresh(), fresh()], [1, 0]);
        let due = |seconds| {
            let mut told = Vec::new();
            endings.tell_due(at(seconds), |ending| told.push(ending.hold_id.get()));
            told
        };
        assert_eq!([due(10), due(11), due(12), due(13), due(16), due(17)].map(|told| told.len()), [0, 1, 0, 1, 0, 1]);
        assert!(endings.insert_recovered(ending(2)));
        assert_eq!(due(18), [2], "what a restart finds is told at the next tick");
        assert_eq!(endings.summary(), (2, Some(at(10))));
        assert!(endings.remove(TransferId::new(1)) && !endings.remove(TransferId::new(1)));
        assert_eq!(due(1_000), [2]);
        // Heard before it was told once more.
        endings.insert(ending(3));
        endings.remove(TransferId::new(3));
        assert_eq!(fresh(), 0);
    }
}
