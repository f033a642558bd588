//! Writes groups with blocking calls: where io_uring is not permitted, on a simulated disk, and for a writer that
//! flushes its only record itself. Keeps the file of the segment that is written, whichever way it is written.

use std::io;
use std::sync::Arc;

use tally_protocol::Lsn;

use crate::disk::DiskFile;
use crate::flusher::GroupWriter;
use crate::log::SealedBytes;
use crate::segment::Segments;

/// See the module.
pub struct BlockingWriter {
    segments: Arc<Segments>,
    open: Option<(u64, Box<dyn DiskFile>)>,
}

impl BlockingWriter {
    /// Writes to `segments`.
    pub fn new(segments: Arc<Segments>) -> Self {
        Self { segments, open: None }
    }

    /// The file that holds `position`, and where in it.
    ///
    /// # Errors
    /// When a new segment cannot be had.
    pub(crate) fn place_of(&mut self, position: Lsn) -> io::Result<Place<'_>> {
        let number = self.segments.number_of(position);
        if self.open.as_ref().is_none_or(|&(open, _)| open != number) {
            // The last one is closed first.
            self.open = None;
            self.open = Some((number, self.segments.take(number)?));
        }
        let (_, file) = self.open.as_ref().expect("just opened");
        Ok(Place { number, file: &**file, offset: self.segments.offset_of(position) })
    }
}

/// Where a group goes.
pub(crate) struct Place<'a> {
    /// Which segment.
    pub(crate) number: u64,
    /// Its file.
    pub(crate) file: &'a dyn DiskFile,
    /// Where in it.
    pub(crate) offset: u64,
}

impl GroupWriter for BlockingWriter {
    fn write(&mut self, start: Lsn, bytes: SealedBytes) -> io::Result<()> {
        let place = self.place_of(start)?;
        bytes.read(|bytes| place.file.write_at(bytes, place.offset))
    }
}
