//! The id index's directory. It is a real one, because the index does its own IO: a crash of the branch leaves it as
//! `kill -9` would, and what a torn disk does to it is for the index's own tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tally_branch_server::ids::{IdConfig, IdError, IdIndex, IdRecovery, KeeperByHand};

/// Where files live in memory, if there is such a place.
const MEMORY: &str = "/dev/shm";

/// A directory of its own for each run, removed behind it.
#[derive(Debug)]
pub(crate) struct IdsDirectory {
    path: PathBuf,
    seed: u64,
}

impl IdsDirectory {
    pub(crate) fn new(seed: u64) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let base = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
        Self { path: base.join(format!("tally-sim-{}-{number}", std::process::id())), seed }
    }

    /// Opens the index. It writes out and merges only by hand.
    pub(crate) fn open(&self) -> Result<(IdRecovery, KeeperByHand), IdError> {
        let config = IdConfig {
            generation_len_max: 1 << 12,
            shard_count: 4,
            merge_fan_in: 3,
            write_bytes_per_second: u64::MAX,
            ..IdConfig::default()
        };
        IdIndex::open_by_hand(&self.path, config, self.seed)
    }
}

impl Drop for IdsDirectory {
    fn drop(&mut self) {
        // What stays behind is in memory or a temporary directory, under a name of its own.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
