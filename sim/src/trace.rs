//! What happened in a run: the last events for people, and one number over all of them for machines.
//!
//! **Invariant:** two runs of one seed have the same hash. Whatever differs between them is a bug in the
//! simulator, or something in the server that no seed controls.

use std::collections::VecDeque;
use std::fmt;

/// Events kept for the report of a failure.
const KEPT_LEN: usize = 60;

/// See the top of the file.
#[derive(Debug)]
pub struct Trace {
    kept: VecDeque<String>,
    count: u64,
    hash: u64,
    is_verbose: bool,
}

impl Trace {
    /// An empty trace, which prints each event when `is_verbose`.
    pub fn new(is_verbose: bool) -> Self {
        Self { kept: VecDeque::with_capacity(KEPT_LEN), count: 0, hash: 0xCBF2_9CE4_8422_2325, is_verbose }
    }

    /// Adds an event.
    pub fn event(&mut self, event: fmt::Arguments<'_>) {
        let line = format!("{:>6} {event}", self.count);
        // FNV-1a: short, and good enough to tell two runs apart.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.count += 1;
        if self.is_verbose {
            println!("{line}");
        }
        if self.kept.len() == KEPT_LEN {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    /// Events so far.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// One number over all events.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The last events, one to a line.
    pub fn last_events(&self) -> String {
        self.kept.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}

/// Adds an event to a trace, with the arguments of [`format!`].
macro_rules! trace {
    ($trace:expr, $($arg:tt)*) => { $trace.event(format_args!($($arg)*)) };
}
pub(crate) use trace;
