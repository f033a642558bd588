//! What two-phase commit did at this branch, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tally_ledger::two_phase::{AbortReason, Decision};
use tally_ledger::{HoldEnd, HoldStage};

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
    /// Legs of holds let stand.
    pub kept: AtomicU64,
    /// Ends of holds carried out as the payee's branch: settled, voided, expired.
    pub ended: [AtomicU64; 3],
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

/// Labels of [`TwoPhaseStats::ended`], in order.
pub const HOLD_ENDS: [&str; 3] = ["settled", "voided", "expired"];

impl TwoPhaseStats {
    /// Counts a leg that was decided; `stage` is the one before.
    pub fn count(&self, decision: Decision, stage: HoldStage) {
        let counter = match decision {
            Decision::Commit if stage == HoldStage::AwaitsKeeping => &self.kept,
            Decision::Commit => &self.committed,
            Decision::Abort(AbortReason::Refused(..)) => &self.aborted[0],
            Decision::Abort(AbortReason::TimedOut(_)) => &self.aborted[1],
            Decision::Abort(AbortReason::Presumed) => &self.aborted[2],
            Decision::Abort(AbortReason::Resolved) => &self.aborted[3],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a hold that the payer's branch told.
    pub fn count_end(&self, end: HoldEnd) {
        let counter = match end {
            HoldEnd::Settled => &self.ended[0],
            HoldEnd::Voided => &self.ended[1],
            HoldEnd::Expired => &self.ended[2],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
