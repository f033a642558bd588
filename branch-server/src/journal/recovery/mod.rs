//! From the files to the state that was served: the newest valid checkpoint, then the journal behind it.
//!
//! Reading and checking happens on one thread, decoding and applying on another. **Invariants:** nothing that
//! was durable is passed over: damage that is not a torn end is refused by name; and before the journal
//! goes on, what was cut is overwritten and what was read is known to be on the disk.

mod load;
mod scan;
mod tail;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tally_ledger::journal::checkpoint::CheckpointDamage;
use tally_ledger::journal::cursor::{Geometry, POSITION_END};
use tally_ledger::journal::group::{Chain, Epoch};
use tally_ledger::journal::record::Record;
use tally_ledger::journal::recovery::{KnownDurable, Loss};
use tally_ledger::{Account, Hold};
use tally_protocol::{AccountId, Lsn, Timestamp};

use super::checkpoint::CheckpointMeta;
use super::disk::{Disk, OpenMode};
use super::segment::{list_segments, remove_temporary, segment_path};

/// Accounts or records that are announced together.
const BURST_LEN: usize = 32;

/// What recovery fills.
pub trait RecoveryTarget {
    /// Forget everything given so far: the checkpoint turned out to be damaged, an older one follows.
    fn restart(&mut self);
    /// The checkpoint that is being read, before its accounts and holds. Not called where there is none.
    fn checkpoint(&mut self, meta: &CheckpointMeta);
    /// These follow, each by [`Self::account`]: a chance to let their cache misses overlap.
    fn prefetch_accounts(&self, _accounts: &[Account]) {}
    /// An account of the checkpoint.
    ///
    /// # Errors
    /// When the state cannot take it.
    fn account(&mut self, account: Account) -> Result<(), Unfit>;
    /// An open hold of the checkpoint.
    fn hold(&mut self, hold: Hold);
    /// These follow, each by [`Self::record`].
    fn prefetch_records(&self, _records: &[Record]) {}
    /// A record behind the checkpoint, in order. Some are older than what the checkpoint captured: apply
    /// each side only where `record.lsn` is above the account's.
    ///
    /// # Errors
    /// When the state cannot take it.
    fn record(&mut self, record: &Record) -> Result<(), Unfit>;
}

/// Why the state cannot take what a checkpoint or a record with a good checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It names an account that was never opened.
    #[error("it names account {0}, which was never opened")]
    AccountUnknown(AccountId),
    /// The limit was lowered below what is there.
    #[error("there are more accounts than accounts.max permits, {0}")]
    TooManyAccounts(u32),
    /// The folder is another branch's.
    #[error("it holds account {0}, which is not an account of this branch: is branch.id right?")]
    OtherBranch(AccountId),
    /// Id 0 names no transfer.
    #[error("its transfer has no id")]
    NoId,
}

/// What was found at the end of the journal and cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the journal goes on.
    pub at: Lsn,
    /// From there to the end of the last block that held something.
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
    #[error("recovery: {0}")]
    Io(#[from] io::Error),
    /// Records that customers were told about cannot be read back.
    #[error("the journal is damaged at {at}: {loss}; restore the segment from a backup")]
    Lost {
        /// Where.
        at: Lsn,
        /// How.
        loss: Loss,
    },
    /// A group is whole but what it holds is no record: written by another version, or by a defect.
    #[error("the group with a good checksum holds no record at {0}")]
    Record(Lsn),
    /// The state cannot take what an account of the checkpoint or a record says.
    #[error("recovery, at {at}: {why}")]
    Unfit {
        /// The record's position, or the account's last.
        at: Lsn,
        /// Why not.
        why: Unfit,
    },
    /// A file with the name of a segment that no log reaches.
    #[error("there is a file for journal segment {0}, which no log reaches; remove it")]
    SegmentNumber(u64),
    /// The journal does not reach back to where replay must begin.
    #[error("replay must begin at {needed}, but the journal begins at {oldest}{}", damaged_text(*.damaged_checkpoints))]
    JournalBegins {
        /// Where replay must begin.
        needed: Lsn,
        /// Where the journal begins.
        oldest: Lsn,
        /// Newer checkpoints that could not be read.
        damaged_checkpoints: u32,
    },
    /// The segments have another length than configured; that cannot be changed later.
    #[error("journal segments have {found} bytes, the configuration says {expected}")]
    SegmentLen {
        /// Configured.
        expected: u64,
        /// What there is.
        found: u64,
    },
}

fn damaged_text(damaged_checkpoints: u32) -> String {
    match damaged_checkpoints {
        0 => String::new(),
        count => format!(" ({count} newer checkpoints are damaged)"),
    }
}

/// Reads back what `directory` holds into `target`, and cuts off a torn tail.
pub fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    segment_len_bytes: u64,
    target: &mut dyn RecoveryTarget,
) -> Result<Recovered, RecoveryError> {
    let disk = &**disk;
    let geometry = Geometry::for_segments(segment_len_bytes)
        .ok_or(RecoveryError::SegmentLen { expected: segment_len_bytes, found: 0 })?;
    disk.create_directory(directory)?;
    remove_temporary(disk, directory)?;
    let loaded = load::newest_checkpoint(disk, directory, target)?;
    let segments = list_segments(disk, directory)?;
    if let Some(&last) = segments.last().filter(|&&last| last >= POSITION_END / segment_len_bytes) {
        return Err(RecoveryError::SegmentNumber(last));
    }
    check_lengths(disk, directory, &geometry, &segments, loaded.meta.as_ref())?;
    let oldest = segments.first().map_or(0, |&first| first * segment_len_bytes);
    let from = loaded.meta.as_ref().map_or(0, |meta| meta.replay_from.get());
    if oldest > from {
        return Err(RecoveryError::JournalBegins {
            needed: Lsn::new(from),
            oldest: Lsn::new(oldest),
            damaged_checkpoints: loaded.damaged,
        });
    }
    let mut scan = scan::Scan {
        disk,
        directory,
        geometry,
        at: from,
        chain: loaded.meta.is_none().then_some(Chain::START),
        epoch: loaded.meta.as_ref().map_or(Epoch::NONE, |meta| meta.epoch),
        last_timestamp: loaded.meta.as_ref().map_or(Timestamp::default(), |meta| meta.last_timestamp),
        known: KnownDurable::from_checkpoint(loaded.meta.as_ref().map_or(Lsn::ZERO, |meta| meta.durable)),
        anchor: loaded.meta.as_ref().map(|meta| (meta.durable, meta.chain)),
    };
    let (records, found) = scan.replay(target)?;
    let tail = tail::survey(&mut scan, &segments)?;
    let torn_tail = tail.judge(&scan, found)?;
    if let Some(torn) = torn_tail {
        tracing::warn!(stage = "recovery", at = %torn.at, len_bytes = torn.len_bytes, "cutting off what was never durable at the journal's end");
    }
    tail.repair(&scan)?;
    Ok(Recovered {
        next: Lsn::new(scan.at),
        oldest: Lsn::new(oldest),
        last_timestamp: scan.last_timestamp,
        epoch: scan.epoch,
        // Nothing was replayed and nothing had been written: the first group follows nothing.
        chain: scan.chain.unwrap_or(Chain::START),
        accounts: loaded.meta.as_ref().map_or(0, |meta| meta.accounts),
        checkpoint: loaded.meta,
        records,
        torn_tail,
        damaged_checkpoints: loaded.damaged,
    })
}

fn check_lengths(
    disk: &dyn Disk,
    directory: &Path,
    geometry: &Geometry,
    segments: &[u64],
    meta: Option<&CheckpointMeta>,
) -> Result<(), RecoveryError> {
    let expected = geometry.segment_len_bytes;
    if let Some(found) = meta.map(|meta| meta.segment_len_bytes).filter(|&found| found != expected) {
        return Err(RecoveryError::SegmentLen { expected, found });
    }
    for &number in segments {
        let found = disk.open(&segment_path(directory, number), OpenMode::Read)?.len_bytes()?;
        if found != expected {
            return Err(RecoveryError::SegmentLen { expected, found });
        }
    }
    Ok(())
}

/// What went wrong with a checkpoint: for the log, unless an older one would not help.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("at {at}: {why}")]
    Unfit { at: Lsn, why: Unfit },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damage(#[from] CheckpointDamage),
}
