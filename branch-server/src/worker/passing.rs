//! Look-ups that are to show everything up to a stamp, of this branch or another one.
//!
//! What was stamped by then and concerns this branch is in its memory, but for one thing: a transfer between branches that
//! the registry has decided and of which this branch has not heard. Its part was prepared here before it was decided,
//! so it is in doubt here; the look-up waits until no part that is as old as the stamp is in doubt on the account, or
//! of the transfer, that it is about. Normally that takes as long as a message from the registry.
//!
//! **Invariant:** a client's stamp moves no clock.

use tally_protocol::request::Lookup;
use tally_protocol::{AccountId, Refusal, Timestamp, TransferId};

use super::Running;
use crate::lookup::Asker;
use crate::two_phase::CLOCK_AHEAD_NS_MAX;

/// Look-ups that may wait for one worker.
const WAITING_MAX: usize = 1_024;
/// How long one may wait, in nanoseconds: as long as the registry gathers votes.
const PATIENCE_NS: u64 = 5_000_000_000;

/// A look-up that waits.
#[derive(Debug)]
pub(super) struct Passing {
    asker: Asker,
    stamp: Timestamp,
    lookup: Lookup,
    /// By the monotonic clock.
    until_ns: u64,
}

impl Running {
    /// Answers `lookup` once everything up to `stamp` can be shown.
    pub(super) fn read_after(&mut self, asker: Asker, stamp: Timestamp, lookup: Lookup, now: Timestamp, now_ns: u64) {
        if stamp.as_nanos() > now.as_nanos().saturating_add(CLOCK_AHEAD_NS_MAX) {
            return self.refuse(asker, Refusal::StampAhead, 0);
        }
        if self.has_passed(stamp, lookup, now) {
            return self.look_up(asker, lookup, now);
        }
        if self.passing.len() >= WAITING_MAX {
            return self.refuse(asker, Refusal::Busy, 5);
        }
        let patience = now_ns.saturating_add(PATIENCE_NS);
        let until_ns = if asker.deadline == 0 { patience } else { patience.min(asker.deadline) };
        self.passing.push(Passing { asker, stamp, lookup, until_ns });
    }

    /// Answers those whose time has come. Says whether there were any.
    pub(super) fn take_passing(&mut self, now: Timestamp, now_ns: u64) -> bool {
        if self.passing.is_empty() {
            return false;
        }
        let is_stopping = self.worker.stop.load(std::sync::atomic::Ordering::Acquire);
        let before = self.passing.len();
        for waiting in std::mem::take(&mut self.passing) {
            let Passing { asker, stamp, lookup, until_ns } = waiting;
            if self.has_passed(stamp, lookup, now) {
                self.look_up(asker, lookup, now);
            } else if is_stopping || now_ns >= until_ns {
                self.refuse(asker, Refusal::StampNotReached, 0);
            } else {
                self.passing.push(waiting);
            }
        }
        self.passing.len() < before
    }

    fn has_passed(&self, stamp: Timestamp, lookup: Lookup, now: Timestamp) -> bool {
        let is_in_doubt = |between: &super::Between| match lookup {
            Lookup::Balance(id) | Lookup::Account(id) => {
                self.holds_something(id) && between.shared.doubts.concern_account(id, stamp)
            }
            Lookup::Transfer(id) => {
                // What is not open here is not in doubt.
                let hold = self.worker.engine.holds.get(TransferId::new(id.get()));
                hold.is_some_and(|hold| between.shared.doubts.concern_transfer(hold.decision_id(), stamp))
            }
        };
        now >= stamp && !self.worker.between.as_ref().is_some_and(is_in_doubt)
    }

    /// An account on which nothing is held takes part in nothing that is in doubt.
    fn holds_something(&self, id: AccountId) -> bool {
        self.worker.engine.accounts.find(id).is_some_and(|slot| {
            let sums = slot.read().sums;
            !sums.debits_held.is_zero() || !sums.credits_held.is_zero()
        })
    }
}
