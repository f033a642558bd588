//! A hybrid logical clock (Kulkarni et al.: Logical Physical Clocks, 2014), as one number: nanoseconds since 1970 that
//! strictly rise. The logical part is folded in: where the wall clock stands still or lies behind, the next stamp is the
//! last one plus 1 ns.
//!
//! **Invariant:** what is stamped after something was heard has a later stamp than what was heard.

use std::time::{SystemTime, UNIX_EPOCH};

use tally_protocol::Timestamp;

/// How far ahead of our wall clock a stamp may be. Beyond that somebody's clock is wrong, and must not move ours.
pub const AHEAD_NANOS_MAX: u64 = 500_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Timestamp,
}

/// A stamp that is too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a clock is {ahead_nanos} ns ahead of ours")]
pub struct ClockAhead {
    /// By how much.
    pub ahead_nanos: u64,
}

impl Clock {
    /// The next stamp, when the wall clock shows `wall`.
    pub fn next(&mut self, wall: Timestamp) -> Timestamp {
        self.last = wall.max(Timestamp::from_nanos(self.last.as_nanos() + 1));
        self.last
    }

    /// Something stamped `heard` has come.
    ///
    /// # Errors
    /// When it is too far ahead; the clock stays.
    pub fn observe(&mut self, heard: Timestamp, wall: Timestamp) -> Result<(), ClockAhead> {
        let ahead_nanos = heard.as_nanos().saturating_sub(wall.as_nanos());
        if ahead_nanos > AHEAD_NANOS_MAX {
            return Err(ClockAhead { ahead_nanos });
        }
        self.last = self.last.max(heard);
        Ok(())
    }

    /// A stamp out of our own log: the clock follows it however far it is.
    pub fn follow(&mut self, stamp: Timestamp) {
        self.last = self.last.max(stamp);
    }
}

/// The wall clock.
pub fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set after 1970");
    Timestamp::from_nanos(since_epoch.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_and_follow_what_was_heard_unless_it_is_too_far_ahead() {
        let at = Timestamp::from_nanos;
        let mut clock = Clock::default();
        assert_eq!(clock.next(at(100)), at(100));
        assert_eq!(clock.next(at(90)), at(101), "the wall clock went back");
        assert_eq!(clock.observe(at(200), at(100)), Ok(()));
        assert_eq!(clock.next(at(100)), at(201));
        assert_eq!(clock.observe(at(50), at(100)), Ok(()));
        assert_eq!(clock.next(at(100)), at(202));
        let ahead_nanos = AHEAD_NANOS_MAX + 1;
        assert_eq!(clock.observe(at(100 + ahead_nanos), at(100)), Err(ClockAhead { ahead_nanos }));
        assert_eq!(clock.next(at(100)), at(203));
        clock.follow(at(10 * ahead_nanos));
        assert_eq!(clock.next(at(100)), at(10 * ahead_nanos + 1));
    }
}
