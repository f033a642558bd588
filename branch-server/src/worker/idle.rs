//! What a worker does when it has nothing to do: spin, then yield, then sleep.
//!
//! On a machine with more cores than threads, spinning saves the wake-up of a sleeping thread; on one with
//! fewer it takes the core from the thread that would bring work. Hence the defaults, and hence the choice.

use std::time::Duration;

/// How long a worker stays awake without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleConfig {
    /// Empty looks at the queues with a pause instruction between them.
    pub spins: u32,
    /// Empty looks after that with the core offered to others between them.
    pub yields: u32,
    /// The longest sleep: timers (hold expiry) are looked at as often.
    pub sleep_max: Duration,
}

impl IdleConfig {
    /// Sensible for `cores` cores that `threads` busy threads share.
    pub fn for_machine(cores: usize, threads: usize) -> Self {
        let sleep_max = Duration::from_millis(10);
        if cores > threads {
            Self { spins: 2_000, yields: 50, sleep_max }
        } else {
            Self { spins: 0, yields: 0, sleep_max }
        }
    }
}

/// Counts empty looks since the last work.
#[derive(Debug)]
pub(super) struct Idle {
    config: IdleConfig,
    empty_looks: u32,
}

impl Idle {
    /// Awake.
    pub(super) const fn new(config: IdleConfig) -> Self {
        Self { config, empty_looks: 0 }
    }

    /// There was work.
    pub(super) fn worked(&mut self) {
        self.empty_looks = 0;
    }

    /// There was none. Returns how long the worker should sleep, if it should.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        self.empty_looks = self.empty_looks.saturating_add(1);
        if self.empty_looks <= self.config.spins {
            std::hint::spin_loop();
            None
        } else if self.empty_looks <= self.config.spins.saturating_add(self.config.yields) {
            std::thread::yield_now();
            None
        } else {
            Some(self.config.sleep_max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_then_yields_then_sleeps_and_starts_over_after_work() {
        let sleep_max = Duration::from_millis(3);
        let mut idle = Idle::new(IdleConfig { spins: 2, yields: 1, sleep_max });
        for _ in 0..2 {
            assert_eq!([idle.rest(), idle.rest(), idle.rest(), idle.rest()], [None, None, None, Some(sleep_max)]);
            idle.worked();
        }
    }
}
