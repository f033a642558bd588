//! What the flusher did, in plain atomics that `/metrics` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of [`JournalStats::flush_seconds`]'s buckets, in microseconds; the last bucket is above all.
pub const FLUSH_BUCKETS_US: [u64; 12] = [50, 75, 100, 150, 200, 300, 500, 1_000, 2_500, 5_000, 10_000, 50_000];

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
    /// Nanoseconds spent in writes.
    pub flush_nanos: AtomicU64,
    /// Writes by how long they took: one bucket per bound of [`FLUSH_BUCKETS_US`], and one above.
    pub flush_buckets: [AtomicU64; FLUSH_BUCKETS_US.len() + 1],
    /// Times that the flusher went to sleep for want of work.
    pub sleeps: AtomicU64,
    /// Segments begun that had not been prepared in time.
    pub segments_unprepared: AtomicU64,
    /// Segments begun.
    pub segments: AtomicU64,
    /// `secure` answered that the ring is full.
    pub refused_ring_full: AtomicU64,
    /// `secure` answered that the disk is full.
    pub refused_disk_full: AtomicU64,
}

impl JournalStats {
    pub(super) fn count_flush(&self, len_bytes: u64, records: u64, nanos: u64) {
        let us = nanos / 1_000;
        let bucket = FLUSH_BUCKETS_US.iter().position(|&bound| us <= bound).unwrap_or(FLUSH_BUCKETS_US.len());
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.written_len_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        self.last_group_len_bytes.store(len_bytes, Ordering::Relaxed);
        self.flush_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.flush_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }
}
