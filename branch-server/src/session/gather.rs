//! Unread bytes of a connection: the end of the last read that is not a whole frame yet, or that was left
//! because the session is held back; and large frames, gathered in a buffer of their own that goes to the
//! worker without another copy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Shared;

/// Bytes that were read and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    start: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// What is held.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Keeps `rest` for later. Nothing may be held already.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        debug_assert!(self.is_empty(), "what was held is taken first");
        self.bytes.clear();
        self.start = 0;
        self.bytes.extend_from_slice(rest);
    }

    /// Forgets the first `count` bytes.
    pub(super) fn take(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.bytes.len(), "no more is taken than held");
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything; gives a large buffer back.
    pub(super) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > crate::limits::LARGE_FRAME_LEN_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

/// A large frame on its way in.
pub(super) struct Gathering {
    bytes: Vec<u8>,
    filled: usize,
    shared: Arc<Shared>,
}

impl Gathering {
    /// Begins a frame of `len_bytes` with the bytes that are there. `None` while too much is being
    /// gathered by all sessions together.
    pub(super) fn begin(shared: &Arc<Shared>, len_bytes: usize, begun: &[u8]) -> Option<Self> {
        debug_assert!(begun.len() < len_bytes, "a whole frame needs no gathering");
        let before = shared.gathering.fetch_add(len_bytes, Ordering::Relaxed);
        // The first is always let in, or a limit below one frame would hold everybody back for ever.
        if before > 0 && before + len_bytes > shared.limits.large_frames_len_bytes_max {
            shared.gathering.fetch_sub(len_bytes, Ordering::Relaxed);
            return None;
        }
        let mut bytes = vec![0; len_bytes];
        bytes[..begun.len()].copy_from_slice(begun);
        Some(Self { bytes, filled: begun.len(), shared: shared.clone() })
    }

    /// Where the next bytes go.
    pub(super) fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Counts bytes that were put into [`Self::rest`].
    pub(super) fn advance(&mut self, count: usize) {
        self.filled += count;
        assert!(self.filled <= self.bytes.len(), "no more is read than there was room for");
    }

    pub(super) fn is_complete(&self) -> bool {
        self.filled == self.bytes.len()
    }

    /// The whole frame.
    pub(super) fn into_frame(mut self) -> Bytes {
        debug_assert!(self.is_complete());
        let bytes = std::mem::take(&mut self.bytes);
        self.shared.gathering.fetch_sub(bytes.len(), Ordering::Relaxed);
        Bytes::from(bytes)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.shared.gathering.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
