//! A bounded, even sample of the acknowledged transfers, to be looked up afterwards.
//!
//! Invariant: the sample holds every `step`-th of the transfers offered so far, and `step` doubles whenever it is
//! full; so it is spread over the whole run, however long.

use super::traffic::Sent;

/// The most that are kept.
const COUNT_MAX: usize = 8_192;

/// An acknowledged transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) sent: Sent,
    /// Where the branch said that its record stands; 0 where it did not say.
    pub(crate) lsn: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Samples {
    kept: Vec<Sample>,
    step: u64,
    until_next: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { kept: Vec::new(), step: 1, until_next: 1 }
    }
}

impl Samples {
    #[inline]
    pub(crate) fn offer(&mut self, sent: Sent, lsn: u64) {
        self.until_next -= 1;
        if self.until_next == 0 {
            self.keep(Sample { sent, lsn });
        }
    }

    /// Takes another thread's as well.
    pub(crate) fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
    }

    pub(crate) fn into_kept(self) -> Vec<Sample> {
        self.kept
    }

    #[cold]
    fn keep(&mut self, sample: Sample) {
        self.kept.push(sample);
        if self.kept.len() == COUNT_MAX {
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.step *= 2;
        }
        self.until_next = self.step;
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::TransferId;

    use super::super::choose::Pair;
    use super::*;

    #[test]
    fn the_sample_is_bounded_and_even() {
        let mut samples = Samples::default();
        for number in 0..1_000_000u64 {
            let sent = Sent { id: TransferId::new(1), pair: Pair { debit: 0, credit: 1 }, amount: 1 };
            samples.offer(sent, number);
        }
        let lsns: Vec<u64> = samples.into_kept().iter().map(|sample| sample.lsn).collect();
        assert!((COUNT_MAX / 2..COUNT_MAX).contains(&lsns.len()), "{}", lsns.len());
        let in_first_half = lsns.iter().filter(|&&lsn| lsn < 500_000).count();
        assert!((in_first_half as f64 / lsns.len() as f64 - 0.5).abs() < 0.05);
        let tail = lsns.iter().filter(|&&lsn| lsn >= 990_000).count();
        assert!(tail > lsns.len() / 200, "the end of the run is in it too");
    }
}
