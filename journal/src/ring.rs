//! The memory of the log: one segment's length, so that a position lies at the same offset here and in its
//! segment file, and a group goes to the disk from where the writers wrote it.
//!
//! **Invariant:** the ring itself guards nothing. Who may touch which bytes follows from the log's rules: a
//! writer owns its reservation until it says that it is filled, the flusher owns a closed group once all of
//! it is filled, and nobody reuses bytes before they are durable.

#[cfg(not(feature = "loom"))]
mod real {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    /// Huge pages: direct writes pin whole pages, and pinning 512 small ones costs more than the write.
    const ALIGN: usize = 2 << 20;

    /// See the module.
    #[derive(Debug)]
    pub struct Ring {
        base: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: plain bytes; who may touch which is the caller's promise at each access.
    unsafe impl Send for Ring {}
    // SAFETY: as above.
    unsafe impl Sync for Ring {}

    impl Ring {
        /// `len_bytes` zeros.
        pub fn new(len_bytes: usize) -> Self {
            let layout = Layout::from_size_align(len_bytes, ALIGN).expect("a segment's length fits in memory");
            assert!(len_bytes > 0, "an empty ring");
            // SAFETY: the layout is not empty.
            let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
            // SAFETY: the range was just allocated, and the advice changes nothing but its page size.
            let advised =
                unsafe { rustix::mm::madvise(base.as_ptr().cast(), len_bytes, rustix::mm::Advice::LinuxHugepage) };
            if let Err(error) = advised {
                tracing::debug!(stage = "journal", %error, "no huge pages for the log's buffer");
            }
            Self { base, layout }
        }

        /// The ring's length.
        pub fn len_bytes(&self) -> usize {
            self.layout.size()
        }

        #[inline]
        fn at(&self, offset: usize, len_bytes: usize) -> *mut u8 {
            assert!(
                offset.checked_add(len_bytes).is_some_and(|end| end <= self.layout.size()),
                "{len_bytes} bytes at {offset} of a ring of {}",
                self.layout.size()
            );
            // SAFETY: the offset lies within the allocation.
            unsafe { self.base.as_ptr().add(offset) }
        }

        /// Lets `write` have the bytes.
        ///
        /// # Safety
        /// Nobody else touches them meanwhile.
        pub unsafe fn write<R>(&self, offset: usize, len_bytes: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
            let start = self.at(offset, len_bytes);
            // SAFETY: within the allocation, always initialised, and the caller promises to be alone.
            write(unsafe { std::slice::from_raw_parts_mut(start, len_bytes) })
        }

        /// Lets `read` see the bytes.
        ///
        /// # Safety
        /// Nobody writes them meanwhile.
        pub unsafe fn read<R>(&self, offset: usize, len_bytes: usize, read: impl FnOnce(&[u8]) -> R) -> R {
            let start = self.at(offset, len_bytes);
            // SAFETY: within the allocation, always initialised, and the caller promises that none writes.
            read(unsafe { std::slice::from_raw_parts(start, len_bytes) })
        }

        /// Where the bytes lie, for a system call that reads them.
        pub(crate) fn address(&self, offset: usize, len_bytes: usize) -> *const u8 {
            self.at(offset, len_bytes)
        }
    }

    impl Drop for Ring {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}

#[cfg(feature = "loom")]
mod modelled {
    use loom::cell::UnsafeCell;

    /// The ring in words that loom watches: two threads on one word are found out.
    #[derive(Debug)]
    pub struct Ring {
        words: Vec<UnsafeCell<[u8; 8]>>,
    }

    // SAFETY: loom checks each access.
    unsafe impl Send for Ring {}
    // SAFETY: loom checks each access.
    unsafe impl Sync for Ring {}

    impl Ring {
        /// `len_bytes` zeros.
        pub fn new(len_bytes: usize) -> Self {
            Self { words: (0..len_bytes / 8).map(|_| UnsafeCell::new([0; 8])).collect() }
        }

        /// The ring's length.
        pub fn len_bytes(&self) -> usize {
            self.words.len() * 8
        }

        /// Lets `write` have the bytes.
        ///
        /// # Safety
        /// Nobody else touches them meanwhile; loom checks it.
        pub unsafe fn write<R>(&self, offset: usize, len_bytes: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
            let words = &self.words[offset / 8..(offset + len_bytes) / 8];
            let mut bytes = Vec::with_capacity(len_bytes);
            for word in words {
                // SAFETY: the pointer is loom's own, for the length of the closure.
                bytes.extend_from_slice(&word.with_mut(|word| unsafe { *word }));
            }
            let result = write(&mut bytes);
            for (word, value) in words.iter().zip(bytes.chunks_exact(8)) {
                // SAFETY: the pointer is loom's own, for the length of the closure.
                word.with_mut(|word| unsafe { (*word).copy_from_slice(value) });
            }
            result
        }

        /// Lets `read` see the bytes.
        ///
        /// # Safety
        /// Nobody writes them meanwhile; loom checks it.
        pub unsafe fn read<R>(&self, offset: usize, len_bytes: usize, read: impl FnOnce(&[u8]) -> R) -> R {
            let mut bytes = Vec::with_capacity(len_bytes);
            for word in &self.words[offset / 8..(offset + len_bytes) / 8] {
                // SAFETY: the pointer is loom's own, for the length of the closure.
                bytes.extend_from_slice(&word.with(|word| unsafe { *word }));
            }
            read(&bytes)
        }
    }
}

#[cfg(feature = "loom")]
pub use modelled::Ring;
#[cfg(not(feature = "loom"))]
pub use real::Ring;
