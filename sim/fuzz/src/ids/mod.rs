//! The folder of an id index: filled and written out by the index itself, damaged, opened again.

mod refit;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tally_branch_server::ids::{Facts, IdConfig, IdError, IdIndex, KeeperByHand, LogPositions, Recent, Reserve};
use tally_protocol::{Lsn, TransferId};

use crate::change::{Change, File};

/// Some more than a run's page holds twice.
const GENERATION_LEN_MAX: u16 = 400;
/// Enough for two merges.
const GENERATIONS_MAX: usize = 7;
/// From one record to the next.
const RECORD_LEN_BYTES: u64 = 184;

/// Ids that are used and then written out.
#[derive(Clone, Debug, Arbitrary)]
pub struct Generation {
    first: u128,
    /// From one id to the next.
    step: u128,
    count: u16,
    /// Each of so many ends, in this generation or, where it is reserved again, in a later one.
    ended_every: u8,
}

/// An open index, and all that it must know.
pub struct OpenIds {
    index: IdIndex,
    keeper: KeeperByHand,
    journal: Arc<Journal>,
}

/// What is known of each id.
pub type Known = BTreeMap<TransferId, Facts>;

/// Everything that was handed out is durable.
struct Journal {
    next: AtomicU64,
}

impl LogPositions for Journal {
    fn accepted(&self) -> Lsn {
        Lsn::new(self.next.load(Ordering::Relaxed))
    }
    fn durable(&self) -> Lsn {
        self.accepted()
    }
}

impl Journal {
    fn append(&self) -> Lsn {
        Lsn::new(self.next.fetch_add(RECORD_LEN_BYTES, Ordering::Relaxed))
    }
}

/// Small generations, so that a few hundred ids make several runs and a merge.
fn config() -> IdConfig {
    IdConfig {
        generation_len_max: 512,
        shard_count: 2,
        filter_bits_per_id: 8,
        merge_fan_in: 3,
        write_bytes_per_second: u64::MAX,
    }
}

impl OpenIds {
    /// Opens the index in `directory`, whose journal goes on at `next`.
    ///
    /// # Errors
    /// As [`IdIndex::open`].
    pub fn open(directory: &Path, next: Lsn) -> Result<Self, IdError> {
        let (recovery, keeper) = IdIndex::open_by_hand(directory, config(), 0)?;
        let journal = Arc::new(Journal { next: AtomicU64::new(next.get()) });
        Ok(Self { index: recovery.finish(journal.clone()), keeper, journal })
    }

    /// Where the journal goes on.
    pub fn next(&self) -> Lsn {
        self.journal.accepted()
    }

    /// Uses the ids of `generation` as the engine would, and writes them out.
    pub fn fill(&mut self, generation: &Generation, known: &mut Known) {
        let Generation { first, step, count, ended_every } = *generation;
        for n in 0..count % (GENERATION_LEN_MAX + 1) {
            let id = TransferId::new(first.wrapping_add(step.wrapping_mul(n.into())));
            // Never asked for: the wire refuses it.
            if id.is_none() {
                continue;
            }
            match self.reserve(id) {
                Reserve::New => {
                    let lsn = self.journal.append();
                    self.index.finish(id, lsn);
                    let before = known.insert(id, Facts { record: Some(lsn), ended: None });
                    assert_eq!(before, None, "{id} is taken for new");
                }
                Reserve::Known(facts) => assert_eq!(known.get(&id), Some(&facts), "{id}"),
                Reserve::InFlight | Reserve::MaybeOld | Reserve::Full => panic!("{id} is neither new nor known"),
            }
            if n % (u16::from(ended_every) + 1) == 1 {
                let lsn = self.journal.append();
                self.index.note_ended(id, lsn);
                known.entry(id).or_default().ended = Some(lsn);
            }
        }
        self.write_out();
    }

    /// Writes out and merges.
    pub fn write_out(&mut self) {
        assert!(self.keeper.rotate_and_merge(), "the file system takes what it is given");
    }

    /// All that is known of `id`.
    ///
    /// # Errors
    /// As [`IdIndex::lookup_on_disk`].
    pub fn facts(&self, id: TransferId) -> Result<Facts, IdError> {
        match self.index.facts_recent(id) {
            Recent::Known(facts) => Ok(facts),
            Recent::MaybeOld => self.index.lookup_on_disk(id).map(|looked_up| looked_up.facts),
            Recent::Absent => Ok(Facts::default()),
            Recent::InFlight => panic!("{id} is in flight"),
        }
    }

    fn reserve(&self, id: TransferId) -> Reserve {
        match self.index.reserve(id) {
            Reserve::MaybeOld => {
                let looked_up = self.index.lookup_on_disk(id).expect("nothing is damaged yet");
                self.index.reserve_looked_up(id, &looked_up)
            }
            other => other,
        }
    }
}

/// Writes an index of `generations` into `directory`; where its journal ends, and what it must know.
pub fn write(directory: &Path, generations: &[Generation]) -> (Lsn, Known) {
    let mut known = Known::new();
    let mut ids = OpenIds::open(directory, Lsn::new(RECORD_LEN_BYTES)).expect("an empty directory");
    for generation in generations.iter().take(GENERATIONS_MAX) {
        ids.fill(generation, &mut known);
    }
    (ids.next(), known)
}

/// Does `changes` to the files in `directory`, with the checksums over them made to fit if `is_refitted`. `false`
/// where nothing is left: such a folder looks like a new one.
pub fn damage(directory: &Path, changes: &[Change], is_refitted: bool) -> bool {
    let before = files_of(directory);
    let mut files = before.clone();
    changes.iter().for_each(|change| change.apply(&mut files, renumbered));
    if is_refitted {
        files.iter_mut().for_each(refit::refit);
    }
    before.iter().for_each(|file| fs::remove_file(&file.path).expect("it was there"));
    files.iter().for_each(|file| fs::write(&file.path, &file.bytes).expect("there is room"));
    !files.is_empty()
}

fn files_of(directory: &Path) -> Vec<File> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("the directory can be read").path());
    let mut files: Vec<File> = paths.map(|path| File { bytes: fs::read(&path).expect("it was there"), path }).collect();
    // A directory has its own order; an input must do the same each time.
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// A run's path with another number.
fn renumbered(file: &File, number: u64) -> Option<PathBuf> {
    run_number(file)?;
    Some(file.path.with_file_name(format!("run-{number:010}.ids")))
}

fn run_number(file: &File) -> Option<u64> {
    file.path.file_name()?.to_str()?.strip_prefix("run-")?.strip_suffix(".ids")?.parse().ok()
}
