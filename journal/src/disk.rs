//! The disk, as much of it as the journal needs: behind a trait, so that the simulator can tear it.
//!
//! **Invariant:** nothing is promised about bytes that were written but not synced, nor about a name that
//! was created or renamed but whose directory was not: a crash may keep either state, or for bytes any
//! mix of old and new sectors.

use std::io;
use std::path::{Path, PathBuf};

pub use crate::real_disk::RealDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading through the page cache at random places.
    Read,
    /// An existing file, for reading past the page cache: aligned, large.
    ReadDirect,
    /// An existing file, for reading and writing past the page cache; each write is durable when it returns.
    WriteDurable,
    /// A new, empty file (an older one of that name is emptied), for writing past the page cache, made
    /// durable by [`DiskFile::sync`].
    Create,
}

/// A disk with directories. All calls block.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name; a file that had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The files of a directory, in order of their names.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a directory, and those above it; none where it exists.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Free space where `directory` lies.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
}

/// An open file. Buffers, lengths and offsets of the direct modes are multiples of 4096 (see
/// [`crate::aligned::AlignedBuffer`]).
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buffer` is full or the file ends; returns how much.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything that was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Sets the file's length and asks for the blocks, so that later writes find room.
    fn allocate(&self, len_bytes: u64) -> io::Result<()>;
    /// The file's length.
    fn len_bytes(&self) -> io::Result<u64>;
    /// The operating system's file, if it is one: io_uring needs it.
    fn as_std(&self) -> Option<&std::fs::File>;
}
