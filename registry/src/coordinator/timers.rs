//! When to look at which transfer again. Most are over long before; for those a timer costs one push and one look-up in
//! vain.

use std::collections::BTreeMap;

use tally_protocol::{Timestamp, TransferId};

/// Timers this close together go off together.
const GRAIN_NANOS: u64 = 1 << 25;
/// The first repetition: some round trips and flushes of a slow disk.
const PAUSE_NANOS: u64 = 500_000_000;
/// How often the pause doubles: up to 16 s.
const DOUBLINGS_MAX: u8 = 5;
/// A proposal that is lost with its leader is lost with us; only a full queue of proposals makes a second one needed.
const DECIDING_PAUSE_NANOS: u64 = 2_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<u64, Vec<TransferId>>,
}

impl Timers {
    pub(super) fn schedule(&mut self, id: TransferId, at: Timestamp) {
        // Rounded up: a timer never goes off early.
        self.due.entry(at.as_nanos() / GRAIN_NANOS + 1).or_default().push(id);
    }

    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<TransferId> {
        let mut due = Vec::new();
        while let Some(first) = self.due.first_entry()
            && *first.key() <= now.as_nanos() / GRAIN_NANOS
        {
            due.append(&mut first.remove());
        }
        due
    }
}

/// How long after it came into its state a transfer is said again for the `attempts + 1`st time: doubling, with up to a
/// quarter more, so that what stopped together does not come back together. The same for the same transfer, so that a
/// simulation can be repeated.
pub(super) fn pause(id: TransferId, attempts: u8, is_deciding: bool) -> u64 {
    let first = if is_deciding { DECIDING_PAUSE_NANOS } else { PAUSE_NANOS };
    let doublings = attempts.min(DOUBLINGS_MAX);
    // The sum of all pauses up to this one; beyond the doublings each is as long as the last.
    let longest = u64::from(attempts - doublings) * (first << DOUBLINGS_MAX);
    let sum = first * ((2 << doublings) - 1) + longest;
    sum + id.hash64(u64::from(attempts)) % ((first << doublings) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_never_shrink() {
        for raw in 1..100 {
            let id = TransferId::new(raw);
            let at: Vec<u64> = (0..=u8::MAX).map(|attempts| pause(id, attempts, false)).collect();
            assert!((PAUSE_NANOS..PAUSE_NANOS * 5 / 4).contains(&at[0]), "{}", at[0]);
            for (attempts, pair) in at.windows(2).enumerate() {
                let pause = PAUSE_NANOS << (attempts + 1).min(usize::from(DOUBLINGS_MAX));
                let range = pause * 3 / 4..=pause * 5 / 4;
                assert!(range.contains(&(pair[1] - pair[0])), "{attempts}: {}", pair[1] - pair[0]);
            }
        }
    }

    #[test]
    fn a_timer_goes_off_once_and_never_early() {
        let mut timers = Timers::default();
        for raw in 1..200u64 {
            timers.schedule(TransferId::new(u128::from(raw)), Timestamp::from_nanos(raw * 10_000_000));
        }
        let mut gone_off = 0;
        for now in (0..2_500_000_000u64).step_by(5_000_000) {
            for id in timers.take_due(Timestamp::from_nanos(now)) {
                let late = now.checked_sub(id.get() as u64 * 10_000_000).expect("not early");
                assert!(late <= 2 * GRAIN_NANOS, "{late}");
                gone_off += 1;
            }
        }
        assert_eq!(gone_off, 199);
    }
}
