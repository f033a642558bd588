//! From the files to the state that was served: the newest valid checkpoint, then the journal behind it.

use std::path::Path;
use std::sync::Arc;

use tally_ledger::journal::group::{Chain, Epoch};
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold};
use tally_protocol::{Lsn, Timestamp};

use super::checkpoint::CheckpointMeta;
use super::disk::Disk;

/// What recovery fills.
pub trait RecoveryTarget {
    /// Forget everything given so far: the checkpoint turned out to be damaged, an older one follows.
    fn restart(&mut self);
    /// The checkpoint that is being read, before its accounts and holds. Not called where there is none.
    fn checkpoint(&mut self, meta: &CheckpointMeta);
    /// An account of the checkpoint.
    fn account(&mut self, account: Account);
    /// An open hold of the checkpoint.
    fn hold(&mut self, hold: Hold);
    /// A record behind the checkpoint, in order. Some are older than what the checkpoint captured: apply
    /// each side only where `record.lsn` is above the account's.
    fn record(&mut self, record: &Record);
}

/// What was found at the end of the journal and cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the journal goes on.
    pub at: Lsn,
    /// Bytes behind it that were not zero, to the last such block.
    pub len_bytes: u64,
}

/// Where a journal goes on.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where the next group goes.
    pub next: Lsn,
    /// The oldest position that is still on disk.
    pub oldest: Lsn,
    /// The highest stamp ever handed out.
    pub last_timestamp: Timestamp,
    /// Which run wrote last.
    pub epoch: Epoch,
    /// The checksum of the last group.
    pub chain: Chain,
    /// The checkpoint that was read.
    pub checkpoint: Option<CheckpointMeta>,
    /// Accounts read from it.
    pub accounts: u64,
    /// Records replayed.
    pub records: u64,
    /// What was cut off, if anything.
    pub torn_tail: Option<TornTail>,
    /// Newer checkpoints that were damaged and passed over.
    pub damaged_checkpoints: u32,
}

/// Why a branch must not start on these files.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Reads back what `directory` holds, and cuts off a torn tail.
pub fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    segment_len_bytes: u64,
    target: &mut dyn RecoveryTarget,
) -> Result<Recovered, RecoveryError> {
    let _ = (disk, directory, segment_len_bytes, target);
    panic!("being written")
}
