//! Writes groups with blocking calls: where io_uring is not permitted, and on a simulated disk.

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
}

impl GroupWriter for BlockingWriter {
    fn write(&mut self, start: Lsn, bytes: SealedBytes) -> io::Result<()> {
        let number = self.segments.number_of(start);
        let file = match self.open.take() {
            Some((open, file)) if open == number => file,
            Some(_) | None => self.segments.take(number)?,
        };
        bytes.read(|bytes| file.write_at(bytes, self.segments.offset_of(start)))?;
        self.open = Some((number, file));
        Ok(())
    }
}
