//! Virtual time: a wall clock, which jumps now and then, and a monotonic one, which does not.

use tally_protocol::Timestamp;

use crate::random::Random;

/// November 2026, an hour before midnight UTC, so that days change within a run.
pub const BEGIN_NS: u64 = 1_795_217_000_000_000_000 / DAY_NS * DAY_NS + 23 * 3_600 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: u64 = 24 * 3_600 * SECOND_NS;
/// The longest that one step takes.
const STEP_NS_MAX: u64 = 100_000;

/// See the top of the file.
#[derive(Debug)]
pub struct Clock {
    wall_ns: u64,
    monotonic_ns: u64,
}

/// How the wall clock was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// On, by seconds: holds run out.
    Seconds(u64),
    /// Back, by seconds: somebody has set the clock.
    Back(u64),
    /// To another day.
    Day,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// The beginning of a run.
    pub const fn new() -> Self {
        Self { wall_ns: BEGIN_NS, monotonic_ns: 1 }
    }

    /// The wall clock.
    pub const fn wall(&self) -> Timestamp {
        Timestamp::from_nanos(self.wall_ns)
    }

    /// Nanoseconds since the beginning of the run; not 0.
    pub const fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns
    }

    /// A step was taken. How the wall clock jumped, if it did.
    pub fn step(&mut self, random: &mut Random) -> Option<Jump> {
        let step_ns = random.below(STEP_NS_MAX);
        self.monotonic_ns += step_ns;
        self.wall_ns += step_ns;
        let jump = match random.below(1_000) {
            0..6 => Jump::Seconds(random.between(1, 20)),
            6..8 => Jump::Back(random.between(1, 5)),
            8 => Jump::Day,
            _ => return None,
        };
        self.wall_ns = match jump {
            Jump::Seconds(seconds) => self.wall_ns + seconds * SECOND_NS,
            Jump::Back(seconds) => self.wall_ns - seconds * SECOND_NS,
            Jump::Day => (self.wall_ns / DAY_NS + 1) * DAY_NS,
        };
        Some(jump)
    }
}
