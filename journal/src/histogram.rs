//! A histogram of times that one thread writes and the metrics page reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, in microseconds; one more bucket is above all.
pub const BOUNDS_US: [u64; 14] =
    [50, 75, 100, 150, 200, 300, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 250_000];

/// Counts times by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Notes `count` times of `time_ns` each. Only one thread may.
    #[inline]
    pub fn note(&self, time_ns: u64, count: u64) {
        let bucket = BOUNDS_US.partition_point(|&bound_us| bound_us * 1_000 < time_ns);
        // No locked instructions: nobody else writes.
        let add = |to: &AtomicU64, value: u64| to.store(to.load(Ordering::Relaxed) + value, Ordering::Relaxed);
        add(&self.buckets[bucket], count);
        add(&self.sum_ns, time_ns * count);
    }

    /// What was noted so far.
    pub fn read(&self) -> Counts {
        Counts {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

/// A histogram's content at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// One per bound of [`BOUNDS_US`], not cumulative, and one above all.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// The sum of all times.
    pub sum_ns: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            buckets: std::array::from_fn(|index| self.buckets[index] + other.buckets[index]),
            sum_ns: self.sum_ns + other.sum_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        let cases = [
            (0, 0),
            (50_000, 0),
            (50_001, 1),
            (1_000_000, 7),
            (250_000_000, 13),
            (250_000_001, 14),
            (u64::MAX >> 8, 14),
        ];
        for (time_ns, bucket) in cases {
            let before = histogram.read().buckets;
            histogram.note(time_ns, 2);
            let after = histogram.read().buckets;
            let changed: Vec<_> = (0..after.len()).filter(|&index| after[index] != before[index]).collect();
            assert_eq!(changed, [bucket], "{time_ns} ns");
            assert_eq!(after[bucket], before[bucket] + 2);
        }
    }

    #[test]
    fn counts_add_up() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.note(60_000, 3);
        other.note(60_000, 1);
        let sum = one.read() + other.read();
        assert_eq!((sum.buckets[1], sum.sum_ns), (4, 240_000));
    }
}
