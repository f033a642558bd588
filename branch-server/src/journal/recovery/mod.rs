//! From the files to the state that was served: the newest valid checkpoint, then the journal behind it.
//!
//! Reading and checking happens on one thread, decoding and applying on another. **Invariant:** nothing that was
//! durable is passed over: a damaged checkpoint leads to the one before it, and damage in the journal is refused.

pub(crate) mod load;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tally_journal::recovery::open_directory;
use tally_journal::{Anchor, Disk, recover_groups};
use tally_ledger::journal::checkpoint::CheckpointDamage;
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold};
use tally_protocol::{AccountId, Lsn};

use super::checkpoint::CheckpointMeta;

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

/// Where a branch goes on.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where its journal goes on.
    pub journal: tally_journal::Recovered,
    /// The checkpoint that was read.
    pub checkpoint: Option<CheckpointMeta>,
    /// Accounts read from it.
    pub accounts: u64,
    /// Records replayed.
    pub records: u64,
    /// Newer checkpoints that were damaged and passed over.
    pub damaged_checkpoints: u32,
}

/// Why a branch must not start on these files.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("recovery: {0}")]
    Io(#[from] io::Error),
    /// The journal cannot be read to its end.
    #[error(transparent)]
    Journal(#[from] tally_journal::RecoveryError),
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
}

impl RecoveryError {
    /// With fewer damaged checkpoints the journal might have reached back far enough.
    fn with_damaged_checkpoints(self, damaged_checkpoints: u32) -> Self {
        match self {
            Self::Journal(tally_journal::RecoveryError::JournalBegins { needed, oldest }) => {
                Self::JournalBegins { needed, oldest, damaged_checkpoints }
            }
            other => other,
        }
    }
}

fn damaged_text(damaged_checkpoints: u32) -> String {
    match damaged_checkpoints {
        0 => String::new(),
        count => format!(" ({count} newer checkpoints are damaged)"),
    }
}

/// Reads back what `directory` holds into `target`, and cuts off a torn tail.
///
/// # Errors
/// When the files cannot be trusted, or `target` cannot take what they say.
pub fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    segment_len_bytes: u64,
    target: &mut dyn RecoveryTarget,
) -> Result<Recovered, RecoveryError> {
    let disk = &**disk;
    let geometry = open_directory(disk, directory, segment_len_bytes)?;
    let loaded = load::newest_checkpoint(disk, directory, target)?;
    let anchor = loaded.meta.as_ref().map(|meta| anchor(meta, segment_len_bytes)).transpose()?;
    let mut replay = Replay { target, burst: Vec::with_capacity(BURST_LEN), records: 0 };
    let mut apply = |first, count, bytes: &[u8]| replay.group(first, count, bytes);
    let recovered = recover_groups(disk, directory, geometry, anchor.as_ref(), &mut apply);
    let journal = recovered.map_err(|error| error.with_damaged_checkpoints(loaded.damaged))?;
    Ok(Recovered {
        journal,
        accounts: loaded.meta.as_ref().map_or(0, |meta| meta.accounts),
        checkpoint: loaded.meta,
        records: replay.records,
        damaged_checkpoints: loaded.damaged,
    })
}

/// What a checkpoint says of the journal behind it.
fn anchor(meta: &CheckpointMeta, segment_len_bytes: u64) -> Result<Anchor, RecoveryError> {
    if meta.segment_len_bytes != segment_len_bytes {
        let (expected, found) = (segment_len_bytes, meta.segment_len_bytes);
        return Err(tally_journal::RecoveryError::SegmentLen { expected, found }.into());
    }
    Ok(Anchor {
        replay_from: meta.replay_from,
        durable: meta.durable,
        chain: meta.chain,
        epoch: meta.epoch,
        last_timestamp: meta.last_timestamp,
    })
}

/// Takes the records out of the journal's groups.
struct Replay<'a> {
    target: &'a mut dyn RecoveryTarget,
    burst: Vec<Record>,
    records: u64,
}

impl Replay<'_> {
    fn group(&mut self, first: Lsn, count: u32, mut bytes: &[u8]) -> Result<(), RecoveryError> {
        let mut at = first.get();
        for _ in 0..count {
            let record = Record::decode(bytes)
                .ok()
                .filter(|record| record.lsn.get() == at)
                .ok_or(RecoveryError::Record(Lsn::new(at)))?;
            let len_bytes = record.body.len_bytes();
            bytes = &bytes[len_bytes..];
            at += len_bytes as u64;
            self.burst.push(record);
            if self.burst.len() == BURST_LEN {
                self.apply_burst()?;
            }
        }
        self.apply_burst()?;
        if !bytes.is_empty() {
            return Err(RecoveryError::Record(Lsn::new(at)));
        }
        self.records += u64::from(count);
        Ok(())
    }

    fn apply_burst(&mut self) -> Result<(), RecoveryError> {
        self.target.prefetch_records(&self.burst);
        for record in self.burst.drain(..) {
            self.target.record(&record).map_err(|why| RecoveryError::Unfit { at: record.lsn, why })?;
        }
        Ok(())
    }
}

/// What went wrong with a checkpoint: for the log, unless an older one would not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("at {at}: {why}")]
    Unfit { at: Lsn, why: Unfit },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damage(#[from] CheckpointDamage),
}
