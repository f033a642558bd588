//! Memory for direct IO: zeroed, on a block's boundary, a whole number of blocks long.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use tally_ledger::journal::cursor::BLOCK_LEN_BYTES;

/// Blocks of bytes that a disk can read and write directly.
#[derive(Debug)]
pub struct AlignedBuffer {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes, as a `Vec` does.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared, it can only be read.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// At least `len_bytes` zeros, rounded up to whole blocks, and at least one.
    pub fn zeroed(len_bytes: usize) -> Self {
        let block = BLOCK_LEN_BYTES as usize;
        let layout = Layout::from_size_align(len_bytes.max(1).next_multiple_of(block), block)
            .expect("a buffer's length fits in memory");
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, layout }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with this length and always initialised.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this length, always initialised, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_zeroed_blocks_on_a_boundary() {
        for (asked, given) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)] {
            let buffer = AlignedBuffer::zeroed(asked);
            assert_eq!(buffer.len(), given);
            assert!(buffer.as_ptr().addr().is_multiple_of(4096) && buffer.iter().all(|&byte| byte == 0));
        }
    }
}
