//! Which transfer ids were ever used, where their records lie in the journal, and where those ended that did
//! (a hold settled, voided or expired; a transfer reversed). For the ledger's life, in bounded memory.
//!
//! ```text
//!  reserve --> in flight --finish--> recent table (memory) --keeper--> runs (disk) --merge--> larger runs
//!                                         ^ replay of the journal above covered_lsn
//! ```
//!
//! **Invariant:** an id that was used is never taken for new: it is in flight, in the recent table or in a run at
//! every moment, and what cannot be read is an error. **Invariant:** everything that the journal holds below
//! [`IdIndex::covered_lsn`] is in durable runs, so replay from there brings back the rest. It rests on the order that
//! callers keep: [`IdIndex::finish`] and [`IdIndex::note_ended`] of a record come before the record is filled into
//! the journal.
//!
//! A worker calls [`IdIndex::prefetch`] for each request of a burst, then [`IdIndex::reserve`]; nothing on that path
//! touches the disk. What answers [`Reserve::MaybeOld`] goes to a helper thread, which calls
//! [`IdIndex::lookup_on_disk`] and brings the answer back for [`IdIndex::reserve_looked_up`]. A batch asks the filters
//! of all its ids first ([`OldIds`]), so that one such errand serves all, and reserves with what that told.

mod by_hand;
mod config;
mod dir;
mod error;
mod filter;
mod hash;
mod in_flight;
mod keeper;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
mod manifest;
mod merge;
mod recovery;
mod run;
mod run_format;
mod run_writer;
mod shard;
mod shared;
mod table;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tally_protocol::{Lsn, TransferId};

pub use self::by_hand::KeeperByHand;
pub use self::config::IdConfig;
use self::dir::Dir;
pub use self::error::IdError;
use self::hash::IdHasher;
use self::keeper::Keeper;
use self::manifest::Manifest;
pub use self::recovery::IdRecovery;
use self::run::{Run, RunSet};
use self::shared::Shared;
use crate::scheduling;
use crate::sync::Ordering;

/// What is known of an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where the record lies that used the id: a transfer, posted or refused, or a cancelled id. `None`: never used.
    pub record: Option<Lsn>,
    /// Where the record lies that settled, voided, expired or reversed it; of several, the last.
    pub ended: Option<Lsn>,
}

impl Facts {
    /// What both say together.
    fn and(self, other: Self) -> Self {
        Self { record: self.record.max(other.record), ended: self.ended.max(other.ended) }
    }
}

/// What became of the attempt to reserve an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reserved id stays in flight until it is finished or released"]
pub enum Reserve {
    /// Never used, and the caller's: it owes a [`IdIndex::finish`] or [`IdIndex::release`].
    New,
    /// Somebody has reserved it and is not done: try again in the next cycle.
    InFlight,
    /// Used before; all that is known of it.
    Known(Facts),
    /// Perhaps used long ago: ask the disk on a helper thread, then [`IdIndex::reserve_looked_up`]. Not reserved.
    MaybeOld,
    /// The disk has fallen too far behind for new ids: answer `Busy`. Not reserved.
    Full,
}

/// What is known of an id without the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recent {
    /// Reserved at this moment.
    InFlight,
    /// All that is known of it.
    Known(Facts),
    /// The disk may know more.
    MaybeOld,
    /// Certainly never used.
    Absent,
}

/// What the disk said of an id, and as of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// What the runs, and the recent table just before them, say.
    pub facts: Facts,
    /// Runs numbered from here on were not looked at.
    runs_below: u64,
}

impl LookedUp {
    /// As if nobody had looked.
    pub const NOTHING: Self = Self { facts: Facts { record: None, ended: None }, runs_below: 0 };
}

/// The disk's ids at one moment, as far as memory knows them: tells of most ids that they are not old, without
/// taking a lock for each.
#[derive(Clone)]
pub struct OldIds {
    hasher: IdHasher,
    runs: Arc<RunSet>,
}

impl OldIds {
    /// Starts the cache misses of a [`Self::may_hold`] that follows soon.
    #[inline]
    pub fn prefetch(&self, id: TransferId) {
        self.runs.prefetch(self.hasher.hash(id));
    }

    /// `false`: `id` is certainly in no run, which is as good as [`Self::absent`].
    #[inline]
    pub fn may_hold(&self, id: TransferId) -> bool {
        self.runs.may_hold(self.hasher.hash(id))
    }

    /// What [`IdIndex::lookup_on_disk`] would have said of the ids that these runs do not hold. Those used lately are
    /// in the recent table, or in a run that came since: [`IdIndex::reserve_looked_up`] looks at both.
    pub fn absent(&self) -> LookedUp {
        LookedUp { runs_below: self.runs.runs_below(), ..LookedUp::NOTHING }
    }
}

impl std::fmt::Debug for OldIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OldIds({} runs)", self.runs.runs.len())
    }
}

/// How far the journal is. Both only grow.
pub trait LogPositions: Send + Sync {
    /// Every record that lies below this has been filled in.
    fn accepted(&self) -> Lsn;
    /// Every record that lies below this survives a crash.
    fn durable(&self) -> Lsn;
}

/// Figures for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdStats {
    /// Ids in memory, in the generation being filled and the one being written out.
    pub recent_count: u64,
    /// Facts on disk: an id that ended counts twice.
    pub disk_entry_count: u64,
    /// Run files.
    pub run_count: u64,
    /// Memory of the recent table's two generations, in bytes.
    pub recent_len_bytes: u64,
    /// Memory of the runs' filters and indexes, in bytes.
    pub filter_len_bytes: u64,
    /// Everything below is on disk.
    pub covered_lsn: Lsn,
    /// Generations written out since the start.
    pub generations_written: u64,
    /// Merges of runs since the start.
    pub merges: u64,
    /// Bytes written to runs since the start, headers not counted.
    pub written_len_bytes: u64,
    /// Look-ups on disk since the start.
    pub look_ups: u64,
    /// Of these, those that found nothing: mostly a filter's mistake.
    pub look_ups_in_vain: u64,
    /// Failures of the disk while writing or looking up, and damage met.
    pub errors: u64,
    /// Nothing is written out any more, and soon no new id is taken: the branch must be restarted.
    pub stopped: bool,
}

/// See the top of the module.
pub struct IdIndex {
    shared: Arc<Shared>,
    covered_at_open: Lsn,
    keeper: Option<JoinHandle<()>>,
}

impl IdIndex {
    /// Opens the index in `dir`, making it if it is not there, and starts its thread.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is damaged. Entries are not read here: damage among them is met, and
    /// named, by the look-up that needs them.
    pub fn open(dir: &Path, config: IdConfig) -> Result<IdRecovery, IdError> {
        Self::open_dir(Dir::create(dir)?, config)
    }

    /// Opens the index without its thread: nothing is written out but by the [`KeeperByHand`]. For the simulator, in
    /// which everything follows from one `seed`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_by_hand(dir: &Path, config: IdConfig, seed: u64) -> Result<(IdRecovery, KeeperByHand), IdError> {
        let (index, keeper) = Self::open_parts(Dir::create(dir)?, config, |_| Ok(seed))?;
        Ok((IdRecovery::new(index), KeeperByHand::new(keeper)))
    }

    fn open_dir(dir: Dir, config: IdConfig) -> Result<IdRecovery, IdError> {
        let path = dir.path().to_owned();
        let (mut index, keeper) = Self::open_parts(dir, config, random_seed)?;
        let keeper = scheduling::spawn_background("ids", move || keeper.run());
        index.keeper = Some(keeper.map_err(IdError::io(&path))?);
        Ok(IdRecovery::new(index))
    }

    fn open_parts(
        dir: Dir,
        config: IdConfig,
        seed: impl FnOnce(&Dir) -> Result<u64, IdError>,
    ) -> Result<(Self, Keeper), IdError> {
        let found = Manifest::read(dir.path())?;
        dir.remove_left_overs(found.as_ref())?;
        let manifest = match found {
            Some(manifest) => manifest,
            None => first_manifest(&dir, seed(&dir)?)?,
        };
        let hasher = IdHasher::new(manifest.seed);
        let runs = manifest.runs.iter().map(|&number| Run::open(dir.path(), number, hasher).map(Arc::new));
        let runs = Arc::new(RunSet { runs: runs.collect::<Result<_, _>>()? });
        let covered = manifest.covered;
        let shared = Arc::new(Shared::new(config, hasher, &runs, covered));
        let keeper = Keeper::new(Arc::clone(&shared), Arc::new(dir), manifest, runs);
        Ok((Self { shared, covered_at_open: covered, keeper: None }, keeper))
    }

    /// Starts the cache misses of a [`Self::reserve`] that follows soon, or of a [`Self::reserve_looked_up`].
    #[inline]
    pub fn prefetch(&self, id: TransferId, looked_up: Option<&LookedUp>) {
        let (hash, shard) = self.shared.shard_of(id);
        shard.prefetch(hash, looked_up.unwrap_or(&LookedUp::NOTHING).runs_below);
    }

    /// What the disk holds at this moment, for many questions in a row.
    pub fn old_ids(&self) -> OldIds {
        OldIds { hasher: self.shared.hasher, runs: self.shared.runs() }
    }

    /// Reserves `id` for the caller if it was never used. Of any number of threads that try at once, one hears
    /// [`Reserve::New`].
    #[inline]
    pub fn reserve(&self, id: TransferId) -> Reserve {
        let (hash, mut shard) = self.shared.shard_of(id);
        shard.reserve(hash, id, self.shared.config.shard_len_full())
    }

    /// Reserves `id` after [`Self::lookup_on_disk`]. [`Reserve::MaybeOld`] asks for another look-up: a run has come
    /// since.
    pub fn reserve_looked_up(&self, id: TransferId, looked_up: &LookedUp) -> Reserve {
        let (hash, mut shard) = self.shared.shard_of(id);
        shard.reserve_looked_up(hash, id, looked_up, self.shared.config.shard_len_full())
    }

    /// The record of the reserved `id` lies at `lsn`. Called before that record is filled into the journal.
    ///
    /// # Panics
    /// When `id` is not reserved.
    #[inline]
    pub fn finish(&self, id: TransferId, lsn: Lsn) {
        let (hash, mut shard) = self.shared.shard_of(id);
        let len = shard.finish(hash, id, lsn);
        drop(shard);
        self.shared.note_len(len);
    }

    /// Gives the reserved `id` back unused.
    ///
    /// # Panics
    /// When `id` is not reserved.
    pub fn release(&self, id: TransferId) {
        let (hash, mut shard) = self.shared.shard_of(id);
        shard.release(hash, id);
    }

    /// The record at `lsn` settled, voided, expired or reversed `id`. Called before that record is filled into
    /// the journal.
    pub fn note_ended(&self, id: TransferId, lsn: Lsn) {
        let (hash, mut shard) = self.shared.shard_of(id);
        let len = shard.set_ended(hash, id, lsn);
        drop(shard);
        self.shared.note_len(len);
    }

    /// What is known of `id` without the disk and without reserving it.
    pub fn facts_recent(&self, id: TransferId) -> Recent {
        let (hash, shard) = self.shared.shard_of(id);
        shard.recent(hash, id)
    }

    /// All that is known of `id`. Reads the disk: one page for each run that may hold it, nearly always one.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged. The id must then be taken for neither new nor known.
    pub fn lookup_on_disk(&self, id: TransferId) -> Result<LookedUp, IdError> {
        let (hash, shard) = self.shared.shard_of(id);
        let (recent, runs) = (shard.facts(hash, id), shard.runs());
        drop(shard);
        let found = runs.look_up(hash, id);
        let counters = &self.shared.counters;
        counters.look_ups.fetch_add(1, Ordering::Relaxed);
        match &found {
            Ok(facts) if *facts == Facts::default() => counters.look_ups_in_vain.fetch_add(1, Ordering::Relaxed),
            Ok(_) => 0,
            Err(_) => counters.errors.fetch_add(1, Ordering::Relaxed),
        };
        Ok(LookedUp { facts: recent.and(found?), runs_below: runs.runs_below() })
    }

    /// Everything that the journal holds below this is in durable runs; replay needs nothing older for the ids.
    pub fn covered_lsn(&self) -> Lsn {
        self.shared.covered()
    }

    /// Asks for the recent table to be written out now, in the background.
    pub fn rotate_now(&self) {
        self.shared.signal.want_rotation();
    }

    /// Blocks until everything below `lsn` is in durable runs, and says how far they reach then. For the
    /// checkpointer.
    ///
    /// # Errors
    /// [`IdError::Stopped`] when nothing is written any more.
    pub fn persist_until(&self, lsn: Lsn) -> Result<Lsn, IdError> {
        shared::persist_until(&self.shared, lsn)
    }

    /// Figures for the metrics page.
    pub fn stats(&self) -> IdStats {
        let runs = self.shared.runs();
        let count = |counter: &crate::sync::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        let mut stats = IdStats {
            run_count: runs.runs.len() as u64,
            covered_lsn: self.covered_lsn(),
            generations_written: count(&counters.generations_written),
            merges: count(&counters.merges),
            written_len_bytes: count(&counters.written_len_bytes),
            look_ups: count(&counters.look_ups),
            look_ups_in_vain: count(&counters.look_ups_in_vain),
            errors: count(&counters.errors),
            stopped: self.shared.signal.state().ended,
            ..IdStats::default()
        };
        for run in &runs.runs {
            stats.disk_entry_count += run.header.entry_count;
            stats.filter_len_bytes += (run.filter_len_bytes() + run.index_len_bytes()) as u64;
        }
        for shard in self.shared.shards() {
            stats.recent_count += (shard.active_len() + shard.frozen_len()) as u64;
            stats.recent_len_bytes += shard.memory_len_bytes() as u64;
        }
        stats
    }
}

impl Drop for IdIndex {
    /// Ends the thread. What is not on disk yet comes back from the journal.
    fn drop(&mut self) {
        self.shared.signal.update(|state| state.stop = true);
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!(stage = "ids", "the id index's thread has panicked");
        }
    }
}

/// Begins the life of a ledger: no run yet, and the seed that its hash keeps for ever.
fn first_manifest(dir: &Dir, seed: u64) -> Result<Manifest, IdError> {
    let manifest = Manifest { seed, covered: Lsn::ZERO, next_run: 1, runs: Vec::new() };
    dir.prepare_manifest(&manifest)?;
    dir.publish_manifest()?;
    Ok(manifest)
}

fn random_seed(dir: &Dir) -> Result<u64, IdError> {
    getrandom::u64().map_err(|error| IdError::io(dir.path())(std::io::Error::other(error)))
}
