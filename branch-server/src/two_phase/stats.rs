//! What two-phase commit did at this branch, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tally_ledger::two_phase::{AbortReason, Decision};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct TwoPhaseStats {
    /// Legs prepared as the source.
    pub begun: AtomicU64,
    /// Legs prepared as the destination.
    pub prepared: AtomicU64,
    /// Votes against, as the destination.
    pub refused: AtomicU64,
    /// Legs posted.
    pub committed: AtomicU64,
    /// Legs given back: refused elsewhere, timed out, presumed, resolved.
    pub aborted: [AtomicU64; 4],
    /// Questions to the registry.
    pub asked: AtomicU64,
    /// Decisions that cannot be: somebody has to look.
    pub contradictions: AtomicU64,
    /// Messages that were dropped because a queue was full or a clock too far ahead; they are said again.
    pub dropped: AtomicU64,
}

/// Labels of [`TwoPhaseStats::aborted`], in order.
pub const ABORT_REASONS: [&str; 4] = ["refused", "timed_out", "presumed", "resolved"];

impl TwoPhaseStats {
    /// Counts a leg that was ended.
    pub fn count(&self, decision: Decision) {
        let counter = match decision {
            Decision::Commit => &self.committed,
            Decision::Abort(AbortReason::Refused(..)) => &self.aborted[0],
            Decision::Abort(AbortReason::TimedOut(_)) => &self.aborted[1],
            Decision::Abort(AbortReason::Presumed) => &self.aborted[2],
            Decision::Abort(AbortReason::Resolved) => &self.aborted[3],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
