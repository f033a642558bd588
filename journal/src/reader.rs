//! Reads durable bytes back by their position. What they mean is the reader's of the records.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::Lsn;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::segment::{list_segments, segment_path};

/// Segments whose files are kept open for reading. Each costs a descriptor.
const OPEN_FILES_MAX: usize = 512;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    /// Nothing there is durable yet.
    #[error("{0} is beyond the durable end of the journal")]
    NotDurable(Lsn),
    /// No record begins there.
    #[error("no record begins at {0}")]
    NoRecord(Lsn),
    /// Removed by retention.
    #[error("{at} was removed; the journal begins at {oldest}")]
    Retired {
        /// What was asked for.
        at: Lsn,
        /// What there is.
        oldest: Lsn,
    },
    /// A durable part of the journal cannot be read back.
    #[error("the journal is damaged at {0}")]
    Damaged(Lsn),
}

/// See the module.
pub struct Reader {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    geometry: Geometry,
    files: RwLock<HashMap<u64, Arc<dyn DiskFile>>>,
    /// Where the oldest segment that is kept begins.
    oldest: AtomicU64,
}

impl Reader {
    /// Reads the segments in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn open(disk: Arc<dyn Disk>, directory: PathBuf, geometry: Geometry) -> io::Result<Self> {
        let oldest = list_segments(&*disk, &directory)?.first().map_or(0, |first| first * geometry.segment_len_bytes);
        Ok(Self { disk, directory, geometry, files: RwLock::new(HashMap::new()), oldest: AtomicU64::new(oldest) })
    }

    /// The sizes the journal is made of.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the oldest segment begins.
    pub fn oldest(&self) -> Lsn {
        Lsn::new(self.oldest.load(Ordering::Relaxed))
    }

    /// Forgets everything below `oldest`, the start of a segment, before it is removed.
    pub fn forget_below(&self, oldest: Lsn) {
        self.oldest.store(oldest.get(), Ordering::Relaxed);
        self.files.write().retain(|&number, _| number >= self.geometry.segment_of(oldest.get()));
    }

    /// Reads at a position, not beyond its segment's end; returns how much. Does not look whether it is durable.
    ///
    /// # Errors
    /// When it was removed, or the disk fails.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let oldest = self.oldest();
        if at < oldest.get() {
            return Err(ReadError::Retired { at: Lsn::new(at), oldest });
        }
        let offset = self.geometry.offset_of(at);
        let len_bytes = buffer.len().min((self.geometry.segment_len_bytes - offset) as usize);
        Ok(self.file(self.geometry.segment_of(at))?.read_at(&mut buffer[..len_bytes], offset)?)
    }

    /// The `len_bytes` durable bytes of one reservation, from `lsn` on.
    ///
    /// # Errors
    /// When they are not durable, were removed, or are not all there.
    pub fn bytes(&self, lsn: Lsn, len_bytes: usize, durable: DurableLsn) -> Result<Vec<u8>, ReadError> {
        if lsn == Lsn::ZERO || !durable.reaches(Lsn::new(lsn.get().saturating_add(len_bytes as u64))) {
            return Err(ReadError::NotDurable(lsn));
        }
        let mut bytes = vec![0; len_bytes];
        if self.read(lsn.get(), &mut bytes)? < len_bytes {
            return Err(ReadError::Damaged(lsn));
        }
        Ok(bytes)
    }

    fn file(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.read().get(&number) {
            return Ok(file.clone());
        }
        let file: Arc<dyn DiskFile> = self.disk.open(&segment_path(&self.directory, number), OpenMode::Read)?.into();
        let mut files = self.files.write();
        if files.len() >= OPEN_FILES_MAX {
            // Any other: look-ups of old ids are spread evenly, so no choice is better for long.
            let victim = files.keys().next().copied();
            victim.map(|victim| files.remove(&victim));
        }
        files.insert(number, file.clone());
        Ok(file)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("directory", &self.directory)
            .field("oldest", &self.oldest())
            .finish_non_exhaustive()
    }
}
