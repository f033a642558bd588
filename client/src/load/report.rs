//! What a load run says: a line each second, a text, and JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tally_protocol::Refusal;

use super::latency::{Latencies, LatencySummary};
use super::traffic::{Findings, Second};
use super::verify::{FeedCheck, Verification};
use crate::lane::LaneStats;

/// One second of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Seconds since the start.
    pub second: u64,
    /// Whether measuring has not begun.
    pub warming_up: bool,
    /// Transfers done.
    pub done: u64,
    /// Transfers refused by the ledger.
    pub refused: u64,
    /// Transfers not taken.
    pub busy: u64,
    /// Transfers whose connection was lost.
    pub lost: u64,
    /// Balances read.
    pub reads: u64,
    /// Latency points of the second.
    pub latency: LatencySummary,
}

impl Progress {
    pub(crate) fn of(second: u64, warming_up: bool, sum: &Second) -> Self {
        let counts = sum.counts;
        Self {
            second,
            warming_up,
            done: counts.done,
            refused: counts.refused,
            busy: counts.busy,
            lost: counts.lost,
            reads: counts.reads,
            latency: sum.latencies.summary(),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { second, done, latency, .. } = self;
        write!(f, "{second:>5} s {:>10}/s", Grouped(*done))?;
        write!(f, "  p50 {}  p99 {}  max {}", Micros(latency.p50_us), Micros(latency.p99_us), Micros(latency.max_us))?;
        for (name, count) in
            [("refused", self.refused), ("busy", self.busy), ("lost", self.lost), ("reads", self.reads)]
        {
            if count > 0 {
                write!(f, "  {name} {}", Grouped(count))?;
            }
        }
        if self.warming_up { f.write_str("  (warm-up)") } else { Ok(()) }
    }
}

/// What was measured between the end of the warm-up and the end of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Length of the window, in seconds.
    pub seconds: f64,
    /// Requests meant per second, if the loop was open.
    pub rate_intended: Option<u64>,
    /// Transfers done per second.
    pub transfers_per_second: f64,
    /// Transfers that got any answer of the ledger (done or refused) per second.
    pub answered_per_second: f64,
    /// Transfers done in the window.
    pub done: u64,
    /// Transfers refused by the ledger in the window.
    pub refused: u64,
    /// Transfers not taken in the window: busy, late, disk full.
    pub busy: u64,
    /// Transfers whose connection was lost in the window.
    pub lost: u64,
    /// Balances read in the window.
    pub reads: u64,
    /// Open loop: meant for the window, held back until it was over.
    pub unsent: u64,
    /// Transfers done from start to end, warm-up included.
    pub done_in_all: u64,
    /// Repeats among them.
    pub repeated: u64,
    /// Connections that were lost and opened again.
    pub reconnects: u64,
    /// The longest time within the window in which no transfer was done, in seconds; true to 5 ms.
    pub pause_max_s: f64,
    /// Refusals by name, from start to end.
    pub refusals: BTreeMap<String, u64>,
    /// Requests with transfers: from sending, or from the intended time in an open loop.
    pub latency: LatencySummary,
    /// Reads, if there were any.
    pub read_latency: Option<LatencySummary>,
    /// Transfers to the other branch, where not all of them go there; `latency` is the others' then.
    pub cross_latency: Option<LatencySummary>,
    /// All of it.
    #[serde(skip)]
    pub latencies: Latencies,
}

impl Measured {
    pub(crate) fn of(rate_intended: Option<u64>, seconds: f64, findings: &Findings, stats: LaneStats) -> Self {
        let counts = findings.counts;
        let name = |code: u16| Refusal::from_code(code).map_or_else(|| code.to_string(), |refusal| refusal.to_string());
        let reads = &findings.read_latencies;
        Self {
            seconds,
            rate_intended,
            transfers_per_second: counts.done as f64 / seconds,
            answered_per_second: (counts.done + counts.refused) as f64 / seconds,
            done: counts.done,
            refused: counts.refused,
            busy: counts.busy,
            lost: counts.lost,
            reads: counts.reads,
            unsent: findings.unsent,
            done_in_all: findings.counts_all.done,
            repeated: findings.counts_all.repeated,
            reconnects: stats.reconnects,
            pause_max_s: findings.pulse.pause_max_s(),
            refusals: findings.refusals.iter().map(|(&code, &count)| (name(code), count)).collect(),
            latency: findings.latencies.summary(),
            read_latency: (reads.count() > 0).then(|| reads.summary()),
            cross_latency: (findings.cross_latencies.count() > 0).then(|| findings.cross_latencies.summary()),
            latencies: findings.latencies.clone(),
        }
    }
}

/// A whole run, as JSON and as text.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Connections.
    pub connections: usize,
    /// Requests outstanding on each (closed loop).
    pub in_flight: usize,
    /// Accounts.
    pub accounts: u64,
    /// Which accounts.
    pub choice: String,
    /// Transfers per request; 0 for single ones.
    pub batch: usize,
    /// What was measured.
    pub measured: Measured,
    /// What was checked afterwards.
    pub verification: Verification,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measured, verification, .. } = self;
        let latency = &measured.latency;
        writeln!(f, "transfers      {:>14}/s", Grouped(measured.transfers_per_second.round() as u64))?;
        writeln!(f, "done           {:>14} in {} s", Grouped(measured.done), measured.seconds)?;
        for (name, count) in [
            ("refused", measured.refused),
            ("busy", measured.busy),
            ("lost", measured.lost),
            ("reads", measured.reads),
            ("never sent", measured.unsent),
            ("reconnects", measured.reconnects),
        ] {
            if count > 0 {
                writeln!(f, "{name:<14} {:>14}", Grouped(count))?;
            }
        }
        for (name, count) in &measured.refusals {
            writeln!(f, "  {name:<12} {:>14}", Grouped(*count))?;
        }
        let from = if measured.rate_intended.is_some() { "from the intended time" } else { "from sending to reply" };
        writeln!(f, "latency ({from})")?;
        for (name, us) in [
            ("p50", latency.p50_us),
            ("p90", latency.p90_us),
            ("p99", latency.p99_us),
            ("p99.9", latency.p999_us),
            ("p99.99", latency.p9999_us),
            ("max", latency.max_us),
        ] {
            writeln!(f, "  {name:<12} {:>14}", Micros(us).to_string())?;
        }
        write!(f, "{verification}")
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds { "holds" } else { "VIOLATED" };
        writeln!(
            f,
            "verification   {verdict}: {} balances compared, {} wrong; {} transfers looked up, {} wrong",
            Grouped(self.accounts_compared),
            self.balances_wrong,
            Grouped(self.transfers_looked_up),
            self.transfers_wrong,
        )?;
        if let Some(feed) = &self.feed {
            let [acknowledged, found] = [feed.acknowledged, feed.found].map(Grouped);
            let FeedCheck { missing, surplus, seconds, .. } = feed;
            write!(f, "  {acknowledged} transfers acknowledged, {found} of them in the feed, {missing} missing, ")?;
            writeln!(f, "{surplus} not acknowledged ({seconds:.1} s)")?;
        }
        if let Some(sum) = self.sum_of_balances {
            writeln!(f, "  sum of balances {sum}, paid in {}", self.sum_expected)?;
        }
        let unknown = self.unknown_done + self.unknown_refused + self.unknown_cancelled;
        if unknown > 0 {
            writeln!(
                f,
                "  {unknown} unknown outcomes made final: {} done, {} refused, {} cancelled",
                self.unknown_done, self.unknown_refused, self.unknown_cancelled
            )?;
        }
        writeln!(f, "  checked in {:.1} s", self.seconds)?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// A number with its thousands set apart.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// Microseconds in the unit that reads best.
#[derive(Clone, Copy, Debug)]
pub struct Micros(pub f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            us if us < 1e3 => format!("{us:.0} us"),
            us if us < 1e6 => format!("{:.2} ms", us / 1e3),
            us => format!("{:.2} s", us / 1e6),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let grouped = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")];
        for (number, text) in grouped {
            assert_eq!(Grouped(number).to_string(), text);
        }
        for (us, text) in [(0.4, "0 us"), (999.0, "999 us"), (1_500.0, "1.50 ms"), (2_500_000.0, "2.50 s")] {
            assert_eq!(Micros(us).to_string(), text);
        }
    }
}
