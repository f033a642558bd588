//! How fast batches go beside single payments.
//!
//! A flush takes as long as its group is large, and a payment waits for the flush under way and for its own. At full
//! speed batches fill the log faster than the disk takes it, so that groups, and with them every payment's latency,
//! grow to many milliseconds. While single payments come in, batches therefore leave only so much unflushed.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::journal::Journal;

/// What batches leave unflushed beside single payments, in bytes: a few small writes, and the
/// disk is never without a next group while it writes one.
const UNFLUSHED_LEN_MAX: u64 = 64 << 10;
/// How long after a single payment the next is expected, in nanoseconds.
const SINGLES_EXPECTED_NS: u64 = 20_000_000;

/// When a worker saw its last single payment.
#[derive(Debug, Default)]
pub(super) struct Pace {
    singles_until_ns: u64,
}

impl Pace {
    /// Single payments came in.
    pub(super) const fn note_singles(&mut self, now_ns: u64) {
        self.singles_until_ns = now_ns + SINGLES_EXPECTED_NS;
    }

    /// Whether bulk work may be done now. If not, the flush that changes it rings.
    pub(super) fn admits_bulk(&self, now_ns: u64, journal: &Journal, starving: &AtomicBool) -> bool {
        if now_ns >= self.singles_until_ns || is_short(journal) {
            return true;
        }
        starving.store(true, Ordering::Relaxed);
        // Pairs with the fence in `branch::on_durable`: either the flusher sees the wish, or the second look sees
        // its flush.
        fence(Ordering::SeqCst);
        is_short(journal)
    }
}

fn is_short(journal: &Journal) -> bool {
    // In this order: a flush that ends in between may reach beyond an end that was read before it, by its padding.
    let durable = journal.durable().end();
    journal.end().get() - durable.get() < UNFLUSHED_LEN_MAX
}
