//! What the workers, the keeper and the look-ups share: the shards, the wish list of the keeper, and the positions.

use std::sync::{Arc, Condvar, OnceLock, PoisonError};
use std::time::Duration;

use tally_protocol::{Lsn, TransferId};

use super::config::IdConfig;
use super::hash::{IdHasher, place};
use super::run::RunSet;
use super::shard::Shard;
use super::table::Table;
use super::{IdError, LogPositions};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

/// Each shard on cache lines of its own: a lock taken on one core does not slow its neighbour.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// See the top of the file.
pub(super) struct Shared {
    pub(super) config: IdConfig,
    pub(super) hasher: IdHasher,
    shards: Box<[Padded]>,
    pub(super) signal: Signal,
    /// Where the live journal stands; not set while it is replayed.
    pub(super) positions: OnceLock<Arc<dyn LogPositions>>,
    /// The highest LSN replayed.
    pub(super) replayed: AtomicU64,
    pub(super) covered: AtomicU64,
    pub(super) counters: Counters,
}

/// What the keeper and the look-ups have done.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) generations_written: AtomicU64,
    pub(super) merges: AtomicU64,
    pub(super) written_len_bytes: AtomicU64,
    pub(super) look_ups: AtomicU64,
    pub(super) look_ups_in_vain: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: IdConfig, hasher: IdHasher, runs: &Arc<RunSet>, covered: Lsn) -> Self {
        let table = || Table::new(config.shard_bits(), config.shard_home_count());
        let shard = |_| Padded(Mutex::new(Shard::new(hasher, table(), Arc::clone(runs))));
        Self {
            shards: (0..config.shard_count).map(shard).collect(),
            config,
            hasher,
            signal: Signal::default(),
            positions: OnceLock::new(),
            replayed: AtomicU64::new(0),
            covered: AtomicU64::new(covered.get()),
            counters: Counters::default(),
        }
    }

    /// The hash of `id` and its locked shard.
    #[inline]
    pub(super) fn shard_of(&self, id: TransferId) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash(id);
        (hash, self.shards[place(hash, self.shards.len())].0.lock())
    }

    /// Every shard, in hash order.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.0.lock())
    }

    /// The runs that count at this moment.
    pub(super) fn runs(&self) -> Arc<RunSet> {
        self.shards[0].0.lock().runs()
    }

    /// Asks for the generation to be written out when a shard, with `shard_len` entries, has its share.
    #[inline]
    pub(super) fn note_len(&self, shard_len: usize) {
        if shard_len >= self.config.shard_len_max() && !self.signal.rotation_wanted() {
            self.signal.want_rotation();
        }
    }

    /// Every record below this has been finished here.
    ///
    /// **Invariant:** `finish` and `note_ended` of a record are called before the record is filled into the
    /// journal, and the journal's `accepted` is never above a record that is not filled; the replayed records
    /// come in order.
    pub(super) fn accepted(&self) -> Lsn {
        match self.positions.get() {
            Some(positions) => positions.accepted(),
            // Pairs with the release store after each replayed record.
            None => Lsn::new(self.replayed.load(Ordering::Acquire)),
        }
    }

    /// Every record below this survives a crash. What is replayed did.
    pub(super) fn durable(&self) -> Lsn {
        self.positions.get().map_or(Lsn::new(u64::MAX), |positions| positions.durable())
    }

    pub(super) fn covered(&self) -> Lsn {
        // Pairs with the release store of a publication.
        Lsn::new(self.covered.load(Ordering::Acquire))
    }
}

/// What is asked of the keeper.
#[derive(Default)]
pub(super) struct Signal {
    rotate: AtomicBool,
    state: std::sync::Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(super) struct SignalState {
    /// The index is being closed.
    pub(super) stop: bool,
    /// The keeper has ended; `true` after a failed publication as well.
    pub(super) ended: bool,
    /// How often something was published.
    pub(super) published_count: u64,
}

impl Signal {
    #[inline]
    pub(super) fn rotation_wanted(&self) -> bool {
        // Only a hint here: the swap in `want_rotation` decides.
        self.rotate.load(Ordering::Relaxed)
    }

    pub(super) fn want_rotation(&self) {
        if !self.rotate.swap(true, Ordering::AcqRel) {
            // Under the lock, so that the keeper is either before its check or already waiting.
            drop(self.lock());
            self.changed.notify_all();
        }
    }

    /// Takes the wish for a rotation, which is then served.
    pub(super) fn take_rotation(&self) -> bool {
        self.rotate.swap(false, Ordering::AcqRel)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut SignalState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn state(&self) -> SignalState {
        *self.lock()
    }

    /// Waits until `done` or for `timeout`; the state then.
    pub(super) fn wait(&self, timeout: Duration, done: impl Fn(&SignalState) -> bool) -> SignalState {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |state| !done(state));
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SignalState> {
        // Each change is one assignment: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the runs cover everything below `lsn`.
pub(super) fn persist_until(shared: &Shared, lsn: Lsn) -> Result<Lsn, IdError> {
    loop {
        let state = shared.signal.state();
        let covered = shared.covered();
        if covered >= lsn {
            return Ok(covered);
        }
        if state.ended || state.stop {
            return Err(IdError::Stopped);
        }
        if shared.accepted() >= lsn {
            shared.signal.want_rotation();
            shared.signal.wait(Duration::from_secs(1), |now| {
                now.published_count != state.published_count || now.ended || now.stop
            });
        } else {
            // The position that was asked for has not been reached: a rotation could not cover it.
            shared.signal.wait(Duration::from_millis(1), |now| now.ended || now.stop);
        }
    }
}
