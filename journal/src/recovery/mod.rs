//! From the files to the groups that were durable, in order, and to the place where the journal goes on.
//!
//! Reading and checking happens on one thread, applying on the caller's. **Invariants:** nothing that was durable is
//! passed over: damage that is not a torn end is refused by name; and before the journal goes on, what was cut is
//! overwritten and what was read is known to be on the disk.

mod scan;
mod tail;

use std::io;
use std::path::Path;

use tally_ledger::journal::cursor::{Geometry, POSITION_END};
use tally_ledger::journal::group::{Chain, Epoch};
use tally_ledger::journal::recovery::{Found, KnownDurable, Loss};
use tally_protocol::{Lsn, Timestamp};

use crate::disk::{Disk, OpenMode};
use crate::segment::{list_segments, remove_temporary, segment_path};
use scan::Scan;

/// What a checkpoint says of the journal: from where to read it, and what it must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The start of a group: from here on the records are wanted.
    pub replay_from: Lsn,
    /// Everything below was durable when the checkpoint was made.
    pub durable: Lsn,
    /// The checksum of the group that ends there.
    pub chain: Chain,
    /// No group from `replay_from` on is of an older run.
    pub epoch: Epoch,
    /// A stamp that is not below any handed out before.
    pub last_timestamp: Timestamp,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What was cut off, if anything.
    pub torn_tail: Option<TornTail>,
}

/// Why nobody must go on with these files.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("recovery: {0}")]
    Io(#[from] io::Error),
    /// Records that others were told about cannot be read back.
    #[error("the journal is damaged at {at}: {loss}; restore the segment from a backup")]
    Lost {
        /// Where.
        at: Lsn,
        /// How.
        loss: Loss,
    },
    /// A file with the name of a segment that no log reaches.
    #[error("there is a file for journal segment {0}, which no log reaches; remove it")]
    SegmentNumber(u64),
    /// The journal does not reach back to where replay must begin.
    #[error("replay must begin at {needed}, but the journal begins at {oldest}")]
    JournalBegins {
        /// Where replay must begin.
        needed: Lsn,
        /// Where the journal begins.
        oldest: Lsn,
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

/// The journal's sizes, and its directory without what a crash left half made. Before anything is read there.
///
/// # Errors
/// When no journal has segments of that length, or the disk fails.
pub fn open_directory(disk: &dyn Disk, directory: &Path, segment_len_bytes: u64) -> Result<Geometry, RecoveryError> {
    let geometry = Geometry::for_segments(segment_len_bytes)
        .ok_or(RecoveryError::SegmentLen { expected: segment_len_bytes, found: 0 })?;
    disk.create_directory(directory)?;
    remove_temporary(disk, directory)?;
    Ok(geometry)
}

/// Passes every durable group from the anchor on, or from the very beginning, to `apply`: the position of its first
/// record, how many there are, and their bytes. Cuts off a torn tail.
///
/// # Errors
/// When the files cannot be trusted, or `apply` says so.
pub fn recover_groups<E: From<RecoveryError>>(
    disk: &dyn Disk,
    directory: &Path,
    geometry: Geometry,
    anchor: Option<&Anchor>,
    apply: &mut dyn FnMut(Lsn, u32, &[u8]) -> Result<(), E>,
) -> Result<Recovered, E> {
    let segments = check_segments(disk, directory, &geometry)?;
    let oldest = segments.first().map_or(0, |&first| first * geometry.segment_len_bytes);
    let from = anchor.map_or(Lsn::ZERO, |anchor| anchor.replay_from);
    if oldest > from.get() {
        return Err(RecoveryError::JournalBegins { needed: from, oldest: Lsn::new(oldest) }.into());
    }
    let mut scan = Scan {
        disk,
        directory,
        geometry,
        at: from.get(),
        chain: anchor.is_none().then_some(Chain::START),
        epoch: anchor.map_or(Epoch::NONE, |anchor| anchor.epoch),
        last_timestamp: anchor.map_or(Timestamp::default(), |anchor| anchor.last_timestamp),
        known: KnownDurable::from_checkpoint(anchor.map_or(Lsn::ZERO, |anchor| anchor.durable)),
        anchor: anchor.map(|anchor| (anchor.durable, anchor.chain)),
    };
    let found = scan.replay(apply)?;
    let torn_tail = scan.finish(&segments, found)?;
    Ok(Recovered {
        next: Lsn::new(scan.at),
        oldest: Lsn::new(oldest),
        last_timestamp: scan.last_timestamp,
        epoch: scan.epoch,
        // Nothing was replayed and nothing had been written: the first group follows nothing.
        chain: scan.chain.unwrap_or(Chain::START),
        torn_tail,
    })
}

impl Scan<'_> {
    /// What lies behind the last group that follows: tells, and cuts it off.
    fn finish(&mut self, segments: &[u64], found: Found) -> Result<Option<TornTail>, RecoveryError> {
        let tail = tail::survey(self, segments)?;
        let torn_tail = tail.judge(self, found)?;
        if let Some(torn) = torn_tail {
            tracing::warn!(stage = "recovery", at = %torn.at, len_bytes = torn.len_bytes, "cutting off what was never durable at the journal's end");
        }
        tail.repair(self)?;
        Ok(torn_tail)
    }
}

/// The numbers of the segments, which all have the configured length.
fn check_segments(disk: &dyn Disk, directory: &Path, geometry: &Geometry) -> Result<Vec<u64>, RecoveryError> {
    let expected = geometry.segment_len_bytes;
    let segments = list_segments(disk, directory)?;
    if let Some(&last) = segments.last().filter(|&&last| last >= POSITION_END / expected) {
        return Err(RecoveryError::SegmentNumber(last));
    }
    for &number in &segments {
        let found = disk.open(&segment_path(directory, number), OpenMode::Read)?.len_bytes()?;
        if found != expected {
            return Err(RecoveryError::SegmentLen { expected, found });
        }
    }
    Ok(segments)
}
