//! Making a node's log, and opening it: the manifest, then every record of the journal behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tally_journal::flusher::Step;
use tally_journal::recovery::open_directory;
use tally_journal::segment::list_segments;
use tally_journal::{
    Disk, FlusherByHand, Journal, JournalOptions, OnDurable, Recovered, RecoveryError, StartError, WriteVia,
    recover_groups,
};
use tally_ledger::journal::position::Positions;
use tally_protocol::Lsn;

use super::identity::Identity;
use super::index::{Index, Place, State};
use super::manifest::{self, Manifest, ManifestError};
use super::record::{Record, RecordError};
use super::retention::{Retention, Work};
use super::store::{LogHandle, LogStore, Shared};
use super::waiting::Waiting;

/// Entries that are kept in memory, newest first: what is applied next and what followers lack, for seconds.
const CACHE_LEN_BYTES_MAX: u64 = 64 << 20;
/// A node's log is idle for long; see [`JournalOptions::mark_after_idle`].
const MARK_AFTER_IDLE: Duration = Duration::from_secs(1);
/// A segment lasts for seconds under full load.
const SEGMENTS_AHEAD: usize = 2;

/// How a node's log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where its files lie.
    pub directory: PathBuf,
    /// A power of two, 1 MiB to 4 GiB; must stay what it was. The largest entry takes a quarter of it.
    pub segment_len_bytes: u64,
    /// Entries that are kept in memory, newest first.
    pub cache_len_bytes_max: u64,
    /// Which system calls write.
    pub write_via: WriteVia,
    /// Free space below which nothing more is written.
    pub free_bytes_min: u64,
}

impl LogOptions {
    /// The defaults.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            segment_len_bytes: 16 << 20,
            cache_len_bytes_max: CACHE_LEN_BYTES_MAX,
            write_via: WriteVia::Auto,
            free_bytes_min: 256 << 20,
        }
    }

    fn journal(&self) -> JournalOptions {
        JournalOptions {
            segment_len_bytes: self.segment_len_bytes,
            write_via: self.write_via,
            free_bytes_min: self.free_bytes_min,
            segments_ahead: SEGMENTS_AHEAD,
            mark_after_idle: Some(MARK_AFTER_IDLE),
            ..JournalOptions::new(self.directory.clone(), 1)
        }
    }
}

/// Why there is no log to work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("raft log: {0}")]
    Io(#[from] io::Error),
    /// A log is to be made where one is.
    #[error("{0} already holds a raft log")]
    Exists(PathBuf),
    /// A log is to be opened where none is.
    #[error("{0} holds no raft log")]
    Missing(PathBuf),
    /// There are segments, but nothing says whose.
    #[error(
        "{0} holds journal segments, but no raft.manifest: restore it, or let the node join anew with an empty folder"
    )]
    ManifestMissing(PathBuf),
    /// The manifest cannot be used.
    #[error("raft.manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// The journal cannot be read to its end.
    #[error("raft log: {0}")]
    Recovery(#[from] RecoveryError),
    /// A group is whole but what it holds is no record: written by another version, or by a defect.
    #[error("the group with a good checksum holds no record at {at}: {why}")]
    Record {
        /// Where.
        at: Lsn,
        /// Why not.
        why: RecordError,
    },
    /// Entries are missing in the middle.
    #[error("entry {found} of the raft log follows {}", before.map_or("nothing".to_owned(), |before| before.to_string()))]
    Gap {
        /// The entry before the gap, or the last that was purged.
        before: Option<u64>,
        /// The one behind it.
        found: u64,
    },
    /// The journal cannot be written.
    #[error("raft log: {0}")]
    Start(#[from] StartError),
}

/// Whose log `directory` holds; `None` where there is none. Changes nothing.
///
/// # Errors
/// When there is one, and it cannot be said whose.
pub fn identity_of(disk: &dyn Disk, directory: &Path) -> Result<Option<Identity>, OpenError> {
    if let Some(manifest) = manifest::read(disk, directory)? {
        return Ok(Some(manifest?.identity));
    }
    match list_segments(disk, directory) {
        Ok(segments) if segments.is_empty() => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(_) => Err(OpenError::ManifestMissing(directory.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Makes the empty log of a new node.
///
/// # Errors
/// When the directory holds one, or the disk fails.
pub fn create(disk: &dyn Disk, options: &LogOptions, identity: Identity) -> Result<(), OpenError> {
    let LogOptions { directory, segment_len_bytes, .. } = options;
    if identity_of(disk, directory)?.is_some() {
        return Err(OpenError::Exists(directory.clone()));
    }
    open_directory(disk, directory, *segment_len_bytes)?;
    let (segment_len_bytes, state) = (*segment_len_bytes, State::default());
    let manifest = Manifest { identity, segment_len_bytes, anchor: None, state };
    Ok(manifest::publish(disk, directory, &manifest)?)
}

/// Reads a node's log back and goes on with it. Blocks for as long as the journal takes to read.
///
/// # Errors
/// When there is none, or its files cannot be trusted.
pub fn open(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<(LogStore, LogHandle), OpenError> {
    let Replayed { manifest, index, recovered, waiting } = replay(&*disk, options)?;
    let journal = Journal::start(disk, options.journal(), &recovered, on_durable(&waiting))?;
    let writer = journal.writer(0);
    let shared = Arc::new(Shared::new(index, journal, waiting));
    let retention = Retention::start(shared.clone(), manifest)?;
    let handle = LogHandle::new(shared.clone(), Some(Arc::new(retention)), manifest.identity);
    Ok((LogStore::new(shared, writer, handle.clone()), handle))
}

/// As [`open`], without threads: nothing is flushed or given up but by hand. For a simulator.
///
/// # Errors
/// When there is none, or its files cannot be trusted.
pub fn open_by_hand(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<(LogStore, LogHandle, LogByHand), OpenError> {
    let Replayed { manifest, index, recovered, waiting } = replay(&*disk, options)?;
    let told = on_durable(&waiting);
    let (journal, flusher) = Journal::start_by_hand(disk, options.journal(), &recovered, told)?;
    let writer = journal.writer(0);
    let shared = Arc::new(Shared::new(index, journal, waiting));
    let retention = Work::begin(shared.clone(), manifest)?;
    let handle = LogHandle::new(shared.clone(), None, manifest.identity);
    Ok((LogStore::new(shared, writer, handle.clone()), handle, LogByHand { flusher, retention }))
}

/// What the threads of an opened log do, one step at a time.
pub struct LogByHand {
    flusher: FlusherByHand,
    retention: Work,
}

impl LogByHand {
    /// Makes the next group durable, and tells openraft; false when there was none.
    ///
    /// # Errors
    /// When the disk failed: the log must not be used any more.
    pub fn flush(&mut self) -> io::Result<bool> {
        Ok(matches!(self.flusher.step()?, Step::Flushed { .. }))
    }

    /// Gives up segments that purges have freed, if everything is durable; false if not.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn retire(&mut self) -> io::Result<bool> {
        let is_done = self.retention.retire_if_flushed()?;
        self.flusher.remove_retired()?;
        Ok(is_done)
    }
}

fn on_durable(waiting: &Arc<Waiting>) -> OnDurable {
    let told = waiting.clone();
    Box::new(move |durable| told.handle_durable(durable))
}

/// What a log goes on with.
struct Replayed {
    manifest: Manifest,
    index: Index,
    recovered: Recovered,
    waiting: Arc<Waiting>,
}

/// What the manifest and the journal behind it say.
fn replay(disk: &dyn Disk, options: &LogOptions) -> Result<Replayed, OpenError> {
    let Some(manifest) = manifest::read(disk, &options.directory)? else {
        return Err(match identity_of(disk, &options.directory) {
            Ok(_) => OpenError::Missing(options.directory.clone()),
            Err(error) => error,
        });
    };
    let manifest = manifest?;
    let (expected, found) = (options.segment_len_bytes, manifest.segment_len_bytes);
    if expected != found {
        return Err(RecoveryError::SegmentLen { expected, found }.into());
    }
    let geometry = open_directory(disk, &options.directory, expected)?;
    let mut index = Index::new(manifest.state, options.cache_len_bytes_max);
    let anchor = manifest.anchor.as_ref();
    let recovered = recover_groups(disk, &options.directory, geometry, anchor, &mut |first, count, bytes| {
        apply_group(&mut index, first, count, bytes)
    })?;
    if let Some((before, found)) = index.gap() {
        return Err(OpenError::Gap { before, found });
    }
    tracing::info!(
        stage = "raft-log",
        node_id = manifest.identity.node_id,
        next = %recovered.next,
        last = ?index.last(),
        torn_tail_bytes = recovered.torn_tail.map_or(0, |tail| tail.len_bytes),
        "the log is in memory"
    );
    Ok(Replayed { manifest, index, recovered, waiting: Arc::default() })
}

fn apply_group(index: &mut Index, first: Lsn, count: u32, mut bytes: &[u8]) -> Result<(), OpenError> {
    let mut lsn = first;
    // The group was read from the disk, so all of it can be read again.
    let durable = Positions::recovered(Lsn::new(first.get() + bytes.len() as u64)).durable();
    for _ in 0..count {
        let (record, len_bytes) = Record::decode(bytes).map_err(|why| OpenError::Record { at: lsn, why })?;
        index.apply(record, Place { lsn, len_bytes }, durable);
        bytes = &bytes[len_bytes..];
        lsn = Lsn::new(lsn.get() + len_bytes as u64);
    }
    if bytes.is_empty() { Ok(()) } else { Err(OpenError::Record { at: lsn, why: RecordError::Short }) }
}
