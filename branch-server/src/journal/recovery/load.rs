//! Reads the newest checkpoint that is whole.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};

use tally_journal::aligned::AlignedBuffer;
use tally_journal::{Disk, OpenMode};
use tally_ledger::journal::checkpoint::CheckpointDamage;
use tally_ledger::journal::checkpoint::account::Before;
use tally_ledger::journal::checkpoint::block::{
    BLOCK_HEADER_LEN_BYTES, BLOCK_LEN_BYTES, BlockHeader, BlockKind, chain,
};
use tally_ledger::journal::checkpoint::hold;

use super::{BURST_LEN, RecoveryError, RecoveryTarget, Unusable};
use crate::journal::checkpoint::{CheckpointMeta, blocks_path, list_manifests, read_manifest};

/// Blocks that are read ahead of the one that is being decoded.
const READ_AHEAD: usize = 4;

pub(super) struct Loaded {
    pub(super) meta: Option<CheckpointMeta>,
    pub(super) damaged: u32,
}

/// Tries the checkpoints, newest first.
pub(super) fn newest_checkpoint(
    disk: &dyn Disk,
    directory: &Path,
    target: &mut dyn RecoveryTarget,
) -> Result<Loaded, RecoveryError> {
    let mut damaged = 0;
    for &number in list_manifests(disk, directory)?.iter().rev() {
        match load(disk, directory, number, target) {
            Ok(meta) => return Ok(Loaded { meta: Some(meta), damaged }),
            Err(Unusable::Unfit { at, why }) => return Err(RecoveryError::Unfit { at, why }),
            Err(error) => {
                tracing::error!(stage = "recovery", number, %error, "checkpoint cannot be used: trying the one before");
                damaged += 1;
                target.restart();
            }
        }
    }
    Ok(Loaded { meta: None, damaged })
}

/// Gives `target` what checkpoint `number` holds.
pub(crate) fn load(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
    target: &mut dyn RecoveryTarget,
) -> Result<CheckpointMeta, Unusable> {
    let meta = read_manifest(disk, directory, number)??;
    target.checkpoint(&meta);
    std::thread::scope(|scope| {
        let (full_sender, full) = mpsc::sync_channel(READ_AHEAD);
        let (empty_sender, empty) = mpsc::channel();
        for _ in 0..READ_AHEAD {
            empty_sender.send(AlignedBuffer::zeroed(BLOCK_LEN_BYTES)).expect("its receiver is right here");
        }
        let (meta, blocks) = (&meta, blocks_path(directory, number));
        let reader = scope.spawn(move || read_blocks(disk, &blocks, meta, &empty, &full_sender));
        let decoded = decode_blocks(meta, &full, &empty_sender, target);
        // Tells the reader, should it still be reading, or waiting for a buffer.
        drop((full, empty_sender));
        reader.join().expect("the reading thread does not panic")?;
        decoded
    })?;
    Ok(meta)
}

type Full = (BlockHeader, AlignedBuffer);

fn read_blocks(
    disk: &dyn Disk,
    path: &Path,
    meta: &CheckpointMeta,
    empty: &Receiver<AlignedBuffer>,
    full: &SyncSender<Full>,
) -> Result<(), Unusable> {
    let file = disk.open(path, OpenMode::ReadDirect)?;
    let mut check = 0;
    for index in 0..meta.blocks {
        let Ok(mut buffer) = empty.recv() else { return Ok(()) };
        let len_bytes = file.read_at(&mut buffer, index * BLOCK_LEN_BYTES as u64)?;
        let (header, _, own) = BlockHeader::open(&buffer[..len_bytes], meta.number, index)?;
        check = chain(check, own);
        if full.send((header, buffer)).is_err() {
            return Ok(());
        }
    }
    if check == meta.blocks_check { Ok(()) } else { Err(CheckpointDamage::Manifest.into()) }
}

fn decode_blocks(
    meta: &CheckpointMeta,
    full: &Receiver<Full>,
    empty: &mpsc::Sender<AlignedBuffer>,
    target: &mut dyn RecoveryTarget,
) -> Result<(), Unusable> {
    let (mut accounts, mut holds) = (0, 0);
    let mut burst = Vec::with_capacity(BURST_LEN);
    for (header, buffer) in full {
        let mut bytes = &buffer[BLOCK_HEADER_LEN_BYTES..][..header.payload_len_bytes as usize];
        match header.kind {
            BlockKind::Accounts => {
                let mut before = Before::default();
                let mut left = header.count as usize;
                while left > 0 {
                    for _ in 0..left.min(BURST_LEN) {
                        burst.push(before.take(&mut bytes)?);
                    }
                    left -= burst.len();
                    target.prefetch_accounts(&burst);
                    for account in burst.drain(..) {
                        let at = account.lsn;
                        target.account(account).map_err(|why| Unusable::Unfit { at, why })?;
                    }
                }
                accounts += u64::from(header.count);
            }
            BlockKind::Holds => {
                for _ in 0..header.count {
                    target.hold(hold::take(&mut bytes)?);
                }
                holds += u64::from(header.count);
            }
        }
        // The reader may be through.
        let _ = empty.send(buffer);
    }
    // Where the reader stopped early it says why, and that is what counts.
    if (accounts, holds) == (meta.accounts, meta.holds) { Ok(()) } else { Err(CheckpointDamage::Manifest.into()) }
}
