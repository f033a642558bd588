//! Writes groups through tokio-uring, straight from the ring's memory.
//!
//! The flusher has one write in flight and nothing else to do meanwhile, so it drives the runtime one write
//! at a time and sleeps outside of it: waking it is one `unpark`, whatever writes.

use std::io;

use tally_protocol::Lsn;
use tokio_uring::buf::{BoundedBuf, IoBuf, Slice};

use crate::blocking::BlockingWriter;
use crate::log::SealedBytes;

// SAFETY: the bytes lie in the ring, which the value keeps alive and never moves, and which nobody writes
// to between seal and release.
unsafe impl IoBuf for SealedBytes {
    fn stable_ptr(&self) -> *const u8 {
        self.address()
    }
    fn bytes_init(&self) -> usize {
        self.len_bytes()
    }
    fn bytes_total(&self) -> usize {
        self.len_bytes()
    }
}

/// See the module. Lives and dies on the flusher's thread.
pub(super) struct Uring {
    // Before the runtime, so that it is closed first.
    open: Option<(u64, tokio_uring::fs::File)>,
    runtime: tokio_uring::Runtime,
}

impl Uring {
    /// Fails where the kernel does not permit io_uring.
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(8))?;
        Ok(Self { open: None, runtime })
    }

    /// Writes `bytes` at `start` of the log, to the file that `files` has open for it.
    pub(super) fn write(&mut self, files: &mut BlockingWriter, start: Lsn, bytes: SealedBytes) -> io::Result<()> {
        let place = files.place_of(start)?;
        let file = match self.open.take() {
            Some((open, file)) if open == place.number => file,
            Some(_) | None => {
                let file = place.file.as_std().ok_or_else(|| {
                    io::Error::new(io::ErrorKind::Unsupported, "io_uring needs a file of the operating system")
                })?;
                tokio_uring::fs::File::from_std(file.try_clone()?)
            }
        };
        let written = self.runtime.block_on(write_all(&file, bytes, place.offset));
        self.open = Some((place.number, file));
        written
    }
}

async fn write_all(file: &tokio_uring::fs::File, bytes: SealedBytes, offset: u64) -> io::Result<()> {
    let len_bytes = bytes.len_bytes();
    let mut rest: Slice<SealedBytes> = bytes.slice_full();
    let mut done = 0;
    loop {
        let (result, back) = file.write_at(rest, offset + done as u64).submit().await;
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if done == len_bytes {
            return Ok(());
        }
        rest = back.into_inner().slice(done..);
    }
}
