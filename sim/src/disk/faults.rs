//! What goes wrong with the disk, and when.

use crate::random::Random;

/// What befalls one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is answered by an error.
    Error,
    /// Power fails in the middle of it.
    PowerOff,
}

/// A plan of misfortune, counted in operations that change something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Power fails in the operation after so many others.
    pub power_off_after: Option<u64>,
    /// An error comes instead of the operation after so many others.
    pub error_after: Option<u64>,
}

impl Faults {
    pub(super) fn next(&mut self) -> Option<Fault> {
        let is_error = strike(&mut self.error_after);
        if strike(&mut self.power_off_after) {
            return Some(Fault::PowerOff);
        }
        is_error.then_some(Fault::Error)
    }
}

fn strike(after: &mut Option<u64>) -> bool {
    match after {
        None => false,
        Some(0) => {
            *after = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

/// How a crash treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    LoseAll,
    /// All of it is there.
    KeepAll,
    /// Each sector, and each name, by itself: this many percent are as they were last written.
    Mixed(u64),
}

impl Fate {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.weighted(&[3, 2, 5]) {
            0 => Self::LoseAll,
            1 => Self::KeepAll,
            _ => Self::Mixed(random.between(1, 99)),
        }
    }

    /// Which of `versions` (the first is the durable one, the last the newest) a sector shows after the crash.
    pub(super) fn version(self, random: &mut Random, versions: usize) -> usize {
        match self {
            Self::LoseAll => 0,
            Self::KeepAll => versions - 1,
            Self::Mixed(percent) if random.percent(percent) => versions - 1,
            Self::Mixed(_) => random.index(versions),
        }
    }
}
