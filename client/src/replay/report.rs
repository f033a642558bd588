//! What a replay says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tally_protocol::{Currency, Refusal};

use super::book::Entry;
use crate::load::{Grouped, Micros};

/// How a replay went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Rows of the file.
    pub rows: u64,
    /// Rows posted by this replay.
    pub posted: u64,
    /// Rows refused.
    pub refused: u64,
    /// Rows that had been posted before: answered as the first time, nothing changed.
    pub repeated: u64,
    /// Customers' accounts.
    pub customers: u64,
    /// Terminals' or merchants' accounts.
    pub payees: u64,
    /// Accounts whose balance was compared with our own sum.
    pub accounts: u64,
    /// The sum of all rows that are posted, in the currency's minor unit.
    pub total_minor_units: u128,
    /// Accounts that hold something else than our own sum.
    pub mismatches: u64,
    /// How long the rows took, from the first request to the last reply.
    pub seconds: f64,
    /// Rows answered per second.
    pub rows_per_second: f64,
    /// Latency that half of all rows kept.
    pub p50_us: f64,
    /// Latency that 99 of 100 kept.
    pub p99_us: f64,
    /// Latency that 999 of 1,000 kept.
    pub p999_us: f64,
    /// Times that the branch was busy and a row was sent again.
    pub busy: u64,
    /// Connections that were lost and opened again.
    pub reconnects: u64,
    /// Three letters.
    pub currency: String,
    /// Refusals by name.
    pub refusals: BTreeMap<String, u64>,
    /// A few mismatches in words.
    pub examples: Vec<String>,
}

impl ReplayReport {
    /// Whether every balance agrees to the last minor unit.
    pub fn agrees(&self) -> bool {
        self.mismatches == 0 && self.examples.is_empty()
    }

    pub(crate) fn count(&mut self, entry: Entry, amount: u64) {
        self.rows += 1;
        match entry {
            Entry::Posted => self.posted += 1,
            Entry::Before => self.repeated += 1,
            Entry::Refused(code) => {
                self.refused += 1;
                let name =
                    Refusal::from_code(code).map_or_else(|| code.to_string(), |refusal| refusal.name().to_owned());
                *self.refusals.entry(name).or_default() += 1;
            }
            Entry::Open => unreachable!("a replay ends when every row is answered"),
        }
        if matches!(entry, Entry::Posted | Entry::Before) {
            self.total_minor_units += u128::from(amount);
        }
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("rows", self.rows),
            ("posted", self.posted),
            ("refused", self.refused),
            ("repeated", self.repeated),
            ("customers", self.customers),
            ("payees", self.payees),
        ] {
            writeln!(f, "{name:<12} {:>16}", Grouped(count))?;
        }
        for (name, count) in &self.refusals {
            writeln!(f, "  {name} {}", Grouped(*count))?;
        }
        let total = money(self.total_minor_units, &self.currency);
        writeln!(f, "{:<12} {total:>16} {}", "total", self.currency)?;
        let rate = Grouped(self.rows_per_second as u64);
        writeln!(f, "{:<12} {:>14.3} s   {rate} rows/s", "time", self.seconds)?;
        let (p50, p99, p999) = (Micros(self.p50_us), Micros(self.p99_us), Micros(self.p999_us));
        writeln!(f, "{:<12} p50 {p50}  p99 {p99}  p99.9 {p999}", "latency")?;
        if self.busy + self.reconnects > 0 {
            writeln!(f, "{:<12} busy {}  reconnects {}", "sent again", self.busy, self.reconnects)?;
        }
        let verdict = if self.agrees() { "all agree" } else { "MISMATCH" };
        writeln!(
            f,
            "{:<12} {verdict}: {} balances compared with our own sums, {} differ",
            "reconciled",
            Grouped(self.accounts),
            Grouped(self.mismatches)
        )?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// Minor units as the currency is written, exactly.
fn money(minor_units: u128, currency: &str) -> String {
    let decimals = Currency::from_code(currency).map_or(2, Currency::decimals) as usize;
    let digits = format!("{minor_units:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    if decimals == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_exactly() {
        for (minor_units, currency, text) in
            [(0, "EUR", "0.00"), (7, "EUR", "0.07"), (123_456, "EUR", "1234.56"), (5, "JPY", "5"), (12, "BHD", "0.012")]
        {
            assert_eq!(money(minor_units, currency), text);
        }
    }
}
