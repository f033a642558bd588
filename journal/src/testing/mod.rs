//! For the tests of everything that keeps a journal: a disk in memory that crashes anywhere, and a journal without
//! threads that is flushed by hand.

mod by_hand;
mod memory_disk;
mod records;

use std::path::Path;

pub use by_hand::Manual;
pub use memory_disk::{MemoryDisk, Unsynced};
pub use records::{append, body, decode_group};

/// The smallest segment that the journal allows, so that a test crosses several.
pub const SEGMENT_LEN_BYTES: u64 = 1 << 20;

/// Where a journal on a [`MemoryDisk`] lies.
pub fn directory() -> &'static Path {
    Path::new("/journal")
}
