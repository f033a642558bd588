//! Checkpoints: all accounts and open holds in a file, so that recovery need not replay the whole journal.
//!
//! ```text
//!  checkpoint-<number>.blocks      written, synced, read back
//!  checkpoint-<number>.manifest    then written under a temporary name, synced, renamed, directory synced
//! ```
//!
//! **Invariants:** the state is read while the branch serves, so one account may be younger than another:
//! replay from `replay_from` evens that out, and the checkpoint counts only once everything that it
//! captured is durable. A crash at any step leaves the older checkpoint as the newest. The two newest are
//! kept, so that a damaged one costs time and not the bank.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tally_journal::aligned::AlignedBuffer;
use tally_journal::{Disk, DiskFile, OpenMode};
use tally_ledger::journal::checkpoint::CheckpointDamage;
use tally_ledger::journal::checkpoint::account::{ACCOUNT_LEN_BYTES_MAX, Before};
use tally_ledger::journal::checkpoint::block::{
    BLOCK_HEADER_LEN_BYTES, BLOCK_LEN_BYTES, BlockHeader, BlockKind, PAYLOAD_LEN_BYTES_MAX, chain,
};
use tally_ledger::journal::checkpoint::hold::{self, HOLD_LEN_BYTES_MAX};
pub use tally_ledger::journal::checkpoint::manifest::Manifest as CheckpointMeta;
use tally_ledger::journal::checkpoint::manifest::{COUNTERS_MAX, MANIFEST_LEN_BYTES};
use tally_ledger::{Account, Hold};
use tally_protocol::{BranchId, Lsn};

/// Checkpoints that are kept.
pub const KEPT: usize = 2;

/// What the engine adds to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Whose it is.
    pub branch: BranchId,
    /// The id index on disk covers everything below this.
    pub ids_covered: Lsn,
    /// The engine's own counters, at most 64.
    pub counters: Vec<u64>,
    /// How fast it may be written; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
    /// Journal that is kept behind what the checkpoints need; `None` for all.
    pub retention_bytes: Option<u64>,
}

/// Why there is no new checkpoint. The last one stands.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("checkpoint: {0}")]
    Io(#[from] io::Error),
    /// More counters than fit.
    #[error("{0} counters in a checkpoint")]
    Counters(usize),
    /// What was read back is not what was written.
    #[error("block {block} of the checkpoint reads back wrong: {damage}")]
    ReadBack {
        /// Which.
        block: u64,
        /// How.
        damage: CheckpointDamage,
    },
    /// The journal stopped before what it captured was durable.
    #[error("the journal stopped before the checkpoint was complete")]
    Stopped,
}

/// The blocks of checkpoint `number`.
pub fn blocks_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("checkpoint-{number:020}.blocks"))
}

/// The manifest of checkpoint `number`.
pub fn manifest_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("checkpoint-{number:020}.manifest"))
}

/// The numbers of the files in `directory` whose names end with `suffix`, in order.
fn numbers(disk: &dyn Disk, directory: &Path, suffix: &str) -> io::Result<Vec<u64>> {
    let number = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.strip_suffix(suffix)?.parse().ok()
    };
    Ok(disk.list(directory)?.iter().filter_map(number).collect())
}

/// The numbers of the published checkpoints, in order.
pub fn list_manifests(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    numbers(disk, directory, ".manifest")
}

/// What one system call writes or reads: it takes the disk about half a millisecond, which is how long a flush may have to
/// wait behind it.
const PIECE_LEN_BYTES: usize = 128 << 10;

/// What was written, before it is published.
pub struct WrittenBlocks {
    number: u64,
    blocks: u64,
    blocks_check: u64,
    accounts: u64,
    holds: u64,
}

/// Writes the blocks of a new checkpoint and makes them durable. It does not count yet.
pub fn write_blocks(
    disk: &dyn Disk,
    directory: &Path,
    bytes_per_second_max: Option<u64>,
    accounts: &mut dyn Iterator<Item = Account>,
    holds: &mut dyn Iterator<Item = Hold>,
) -> io::Result<WrittenBlocks> {
    let taken = [numbers(disk, directory, ".blocks")?, list_manifests(disk, directory)?];
    let number = taken.iter().flatten().max().map_or(1, |&last| last + 1);
    let file = disk.open(&blocks_path(directory, number), OpenMode::Create)?;
    let mut writer = BlockWriter {
        file: &*file,
        number,
        block: AlignedBuffer::zeroed(BLOCK_LEN_BYTES),
        payload: Vec::with_capacity(PAYLOAD_LEN_BYTES_MAX),
        count: 0,
        index: 0,
        check: 0,
        pace: Pace::new(bytes_per_second_max),
    };
    let (mut account_count, mut hold_count) = (0, 0);
    let mut before = Before::default();
    for account in accounts {
        if writer.payload.len() + ACCOUNT_LEN_BYTES_MAX > PAYLOAD_LEN_BYTES_MAX {
            writer.flush(BlockKind::Accounts)?;
            before = Before::default();
        }
        before.put(&account, &mut writer.payload);
        writer.count += 1;
        account_count += 1;
    }
    writer.flush(BlockKind::Accounts)?;
    for hold in holds {
        if writer.payload.len() + HOLD_LEN_BYTES_MAX > PAYLOAD_LEN_BYTES_MAX {
            writer.flush(BlockKind::Holds)?;
        }
        hold::put(&hold, &mut writer.payload);
        writer.count += 1;
        hold_count += 1;
    }
    writer.flush(BlockKind::Holds)?;
    let (blocks, blocks_check) = (writer.index, writer.check);
    file.sync()?;
    Ok(WrittenBlocks { number, blocks, blocks_check, accounts: account_count, holds: hold_count })
}

struct BlockWriter<'a> {
    file: &'a dyn DiskFile,
    number: u64,
    block: AlignedBuffer,
    payload: Vec<u8>,
    count: u32,
    index: u64,
    check: u64,
    pace: Pace,
}

impl BlockWriter<'_> {
    fn flush(&mut self, kind: BlockKind) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let header = BlockHeader {
            kind,
            checkpoint: self.number,
            index: self.index,
            count: self.count,
            payload_len_bytes: self.payload.len() as u32,
        };
        let (payload, padding) = self.block[BLOCK_HEADER_LEN_BYTES..].split_at_mut(self.payload.len());
        payload.copy_from_slice(&self.payload);
        padding.fill(0);
        self.check = chain(self.check, header.seal(&mut self.block));
        let mut at = self.index * BLOCK_LEN_BYTES as u64;
        for piece in self.block.chunks(PIECE_LEN_BYTES) {
            self.file.write_at(piece, at)?;
            self.pace.wait(piece.len() as u64);
            at += piece.len() as u64;
        }
        self.index += 1;
        self.payload.clear();
        self.count = 0;
        Ok(())
    }
}

/// Keeps a rate, so that the flusher's small writes find the disk free in between.
struct Pace {
    bytes_per_second_max: Option<u64>,
    begun: Instant,
    len_bytes: u64,
}

impl Pace {
    fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self { bytes_per_second_max, begun: Instant::now(), len_bytes: 0 }
    }

    fn wait(&mut self, len_bytes: u64) {
        self.len_bytes += len_bytes;
        if let Some(rate) = self.bytes_per_second_max {
            let due = Duration::from_secs_f64(self.len_bytes as f64 / rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }
}

/// Reads the blocks back, past the page cache, and compares them with what was written.
pub fn verify(
    disk: &dyn Disk,
    directory: &Path,
    written: &WrittenBlocks,
    bytes_per_second_max: Option<u64>,
) -> Result<(), CheckpointError> {
    let mut pace = Pace::new(bytes_per_second_max);
    let mut check = 0;
    let mut buffer = AlignedBuffer::zeroed(BLOCK_LEN_BYTES);
    let file = disk.open(&blocks_path(directory, written.number), OpenMode::ReadDirect)?;
    for block in 0..written.blocks {
        let mut len_bytes = 0;
        for piece in buffer.chunks_mut(PIECE_LEN_BYTES) {
            len_bytes += file.read_at(piece, block * BLOCK_LEN_BYTES as u64 + len_bytes as u64)?;
            pace.wait(piece.len() as u64);
        }
        let (_, _, own) = BlockHeader::open(&buffer[..len_bytes], written.number, block)
            .map_err(|damage| CheckpointError::ReadBack { block, damage })?;
        check = chain(check, own);
    }
    if check != written.blocks_check {
        return Err(CheckpointError::ReadBack { block: written.blocks, damage: CheckpointDamage::Manifest });
    }
    Ok(())
}

/// Completes `meta` with what was written.
pub fn complete(meta: CheckpointMeta, written: &WrittenBlocks) -> Result<CheckpointMeta, CheckpointError> {
    if meta.counters.len() > COUNTERS_MAX {
        return Err(CheckpointError::Counters(meta.counters.len()));
    }
    assert!(meta.replay_from <= meta.complete_at, "replay from {} of {}", meta.replay_from, meta.complete_at);
    assert!(meta.complete_at <= meta.durable, "complete at {} with {} durable", meta.complete_at, meta.durable);
    Ok(CheckpointMeta {
        number: written.number,
        blocks: written.blocks,
        blocks_check: written.blocks_check,
        accounts: written.accounts,
        holds: written.holds,
        ..meta
    })
}

/// Makes a checkpoint count.
pub fn publish(disk: &dyn Disk, directory: &Path, meta: &CheckpointMeta) -> io::Result<()> {
    let temporary = directory.join("manifest.tmp");
    let file = disk.open(&temporary, OpenMode::Create)?;
    let mut bytes = AlignedBuffer::zeroed(MANIFEST_LEN_BYTES);
    bytes[..MANIFEST_LEN_BYTES].copy_from_slice(&meta.encode());
    file.write_at(&bytes, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, &manifest_path(directory, meta.number))?;
    disk.sync_directory(directory)
}

/// Reads the manifest of checkpoint `number`.
pub fn read_manifest(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
) -> io::Result<Result<CheckpointMeta, CheckpointDamage>> {
    let mut bytes = [0; MANIFEST_LEN_BYTES];
    let file = disk.open(&manifest_path(directory, number), OpenMode::Read)?;
    let len_bytes = file.read_at(&mut bytes, 0)?;
    Ok(CheckpointMeta::decode(&bytes[..len_bytes]).and_then(|meta| match meta.number {
        found if found == number => Ok(meta),
        found => Err(CheckpointDamage::Order { expected: number, found }),
    }))
}

/// Removes all but the newest [`KEPT`] checkpoints and what a crash left of unpublished ones; returns the
/// oldest that is kept.
pub fn remove_older(disk: &dyn Disk, directory: &Path) -> io::Result<Option<u64>> {
    let manifests = list_manifests(disk, directory)?;
    let first_kept = manifests.len().saturating_sub(KEPT);
    // Manifests first, and for good: one without its blocks would pass for a damaged checkpoint.
    for &number in &manifests[..first_kept] {
        disk.remove(&manifest_path(directory, number))?;
    }
    if first_kept > 0 {
        disk.sync_directory(directory)?;
    }
    for number in numbers(disk, directory, ".blocks")? {
        if !manifests[first_kept..].contains(&number) {
            disk.remove(&blocks_path(directory, number))?;
        }
    }
    Ok(manifests.get(first_kept).copied())
}
