//! Latencies as HDR histograms: recorded in nanoseconds, reported in microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::lane::Nanos;

/// The smallest difference that is kept apart.
const NANOS_MIN: Nanos = 100;
/// Anything longer counts as this.
const NANOS_MAX: Nanos = 600_000_000_000;
/// Three digits: an error of at most 0.1 %.
const DIGITS: u8 = 3;

/// See the module. About 400 KiB, of which a run touches a few pages.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// A few points of a distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many there are.
    pub count: u64,
    /// The shortest.
    pub min_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// Half of all take at most this.
    pub p50_us: f64,
    /// 9 of 10.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// 9,999 of 10,000.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS).expect("the bounds are within HdrHistogram's");
        Self { histogram }
    }
}

impl Latencies {
    /// Records one.
    #[inline]
    pub fn record(&mut self, nanos: Nanos) {
        self.histogram.saturating_record(nanos);
    }

    /// Records `count` of the same length.
    pub fn record_n(&mut self, nanos: Nanos, count: u64) {
        self.histogram.saturating_record_n(nanos, count);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that `quantile` (0 to 1) of all keep, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        micros(self.histogram.value_at_quantile(quantile))
    }

    /// The usual points.
    pub fn summary(&self) -> LatencySummary {
        if self.count() == 0 {
            return LatencySummary::default();
        }
        LatencySummary {
            count: self.count(),
            min_us: micros(self.histogram.min()),
            mean_us: self.histogram.mean() / 1e3,
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p999_us: self.quantile_us(0.999),
            p9999_us: self.quantile_us(0.9999),
            max_us: micros(self.histogram.max()),
        }
    }

    /// Writes the percentile distribution in the text form that HdrHistogram's plotters read, in microseconds.
    pub fn write_hgrm(&self, out: &mut impl Write) -> io::Result<()> {
        /// Points between each halving of the distance to 100 %.
        const TICKS_PER_HALF: u32 = 5;
        writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
        let mut total = 0;
        for step in self.histogram.iter_quantiles(TICKS_PER_HALF) {
            total += step.count_since_last_iteration();
            let value = micros(step.value_iterated_to());
            let quantile = step.quantile_iterated_to();
            if quantile < 1.0 {
                writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10} {:>14.2}", 1.0 / (1.0 - quantile))?;
            } else {
                writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
            }
        }
        let (mean, deviation) = (self.histogram.mean() / 1e3, self.histogram.stdev() / 1e3);
        writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        writeln!(out, "#[Max     = {:>12.3}, Total count    = {:>12}]", micros(self.histogram.max()), self.count())?;
        writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", self.histogram.buckets(), 2048)
    }
}

fn micros(nanos: Nanos) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_within_a_thousandth_and_the_text_has_all() {
        let mut latencies = Latencies::default();
        for us in 1..=10_000 {
            latencies.record(us * 1_000);
        }
        let summary = latencies.summary();
        for (got, expected) in [
            (summary.p50_us, 5_000.0),
            (summary.p99_us, 9_900.0),
            (summary.p999_us, 9_990.0),
            (summary.max_us, 10_000.0),
        ] {
            assert!((got - expected).abs() <= expected / 1_000.0, "{got} instead of {expected}");
        }
        let mut text = Vec::new();
        latencies.write_hgrm(&mut text).expect("memory does not fail");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("1.000000000000      10000\n"), "{text}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }

    #[test]
    fn an_empty_histogram_says_nothing() {
        assert_eq!(Latencies::default().summary(), LatencySummary::default());
    }
}
