//! What the flusher did, in plain atomics that `/metrics` reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::Histogram;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct JournalStats {
    /// Groups made durable.
    pub flushes: AtomicU64,
    /// Records made durable.
    pub records: AtomicU64,
    /// Bytes written, padding included.
    pub written_len_bytes: AtomicU64,
    /// Size of the last group, padding included.
    pub last_group_len_bytes: AtomicU64,
    /// How long each group took to become durable.
    pub flush_times: Histogram,
    /// The longest of them since this was last taken, in nanoseconds.
    pub flush_max_ns: AtomicU64,
    /// Times that the flusher went to sleep for want of work.
    pub sleeps: AtomicU64,
    /// Segments begun that had not been prepared in time.
    pub segments_unprepared: AtomicU64,
    /// Segments begun.
    pub segments: AtomicU64,
}

impl JournalStats {
    pub(super) fn count_flush(&self, len_bytes: u64, records: u64, nanos: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.written_len_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        self.last_group_len_bytes.store(len_bytes, Ordering::Relaxed);
        self.flush_times.note(nanos, 1);
        self.flush_max_ns.fetch_max(nanos, Ordering::Relaxed);
    }
}
