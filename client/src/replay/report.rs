//! What a replay says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tally_protocol::{Currency, Refusal};

use super::book::Entry;
use super::payments::Payment;
use crate::load::{Grouped, Micros};

/// Refused rows that are told one by one.
const REFUSED_ROWS_MAX: usize = 10;

/// How a replay went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Rows of the file.
    pub rows: u64,
    /// Rows posted by this replay.
    pub posted: u64,
    /// Rows of 0: the ledger has no payment of nothing, and nothing had to move.
    pub empty: u64,
    /// Other rows, refused.
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
    /// The first rows that were refused.
    pub refused_rows: Vec<RefusedRow>,
    /// A few mismatches in words.
    pub examples: Vec<String>,
}

/// A row of the file that the branch did not post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedRow {
    /// Counted from 1, the header of a CSV file left out.
    pub row_count: u64,
    /// The file's own number of the payment.
    pub tx_id: u64,
    /// Why.
    pub refusal: String,
}

impl ReplayReport {
    /// Whether every balance agrees to the last minor unit with the rows that were posted.
    pub fn agrees(&self) -> bool {
        self.mismatches == 0 && self.examples.is_empty()
    }

    /// Whether the branch now has the whole file: each row that moves something posted, and every balance as it must be.
    pub fn is_complete(&self) -> bool {
        self.agrees() && self.refused == 0
    }

    pub(crate) fn count(&mut self, entry: Entry, payment: &Payment) {
        self.rows += 1;
        match entry {
            Entry::Posted => self.posted += 1,
            Entry::Before => self.repeated += 1,
            Entry::Refused(code) if payment.amount == 0 && code == Refusal::AmountMustNotBeZero.code() => {
                self.empty += 1;
            }
            Entry::Refused(code) => {
                self.refused += 1;
                let name =
                    Refusal::from_code(code).map_or_else(|| code.to_string(), |refusal| refusal.name().to_owned());
                if self.refused_rows.len() < REFUSED_ROWS_MAX {
                    let refusal = name.clone();
                    self.refused_rows.push(RefusedRow { row_count: self.rows, tx_id: payment.tx_id, refusal });
                }
                *self.refusals.entry(name).or_default() += 1;
            }
            Entry::Open => unreachable!("a replay ends when every row is answered"),
        }
        if matches!(entry, Entry::Posted | Entry::Before) {
            self.total_minor_units += u128::from(payment.amount);
        }
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("rows", self.rows),
            ("posted", self.posted),
            ("of nothing", self.empty),
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
        let verdict = match (self.agrees(), self.refused) {
            (false, _) => "MISMATCH".to_owned(),
            (true, 0) => "all agree".to_owned(),
            (true, refused) => format!("INCOMPLETE (rows refused: {})", Grouped(refused)),
        };
        let posted = if self.refused == 0 { "" } else { " of the other rows" };
        writeln!(
            f,
            "{:<12} {verdict}: {} balances compared with our own sums{posted}, {} differ",
            "reconciled",
            Grouped(self.accounts),
            Grouped(self.mismatches)
        )?;
        for RefusedRow { row_count, tx_id, refusal } in &self.refused_rows {
            writeln!(f, "  row {row_count} (tx_id {tx_id}) was refused: {refusal}")?;
        }
        let untold = self.refused - self.refused_rows.len() as u64;
        if untold > 0 {
            writeln!(f, "  and {} more", Grouped(untold))?;
        }
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
    fn a_row_of_nothing_is_counted_and_does_not_make_a_file_incomplete() {
        let payment = |amount| Payment { tx_id: 7, t: 0, customer_id: 1, payee_id: 2, amount };
        let zero = Refusal::AmountMustNotBeZero.code();
        let mut report = ReplayReport { currency: "EUR".to_owned(), ..ReplayReport::default() };
        report.count(Entry::Posted, &payment(5));
        report.count(Entry::Refused(zero), &payment(0));
        assert!(report.is_complete() && report.to_string().contains("all agree"), "{report}");
        assert_eq!([report.rows, report.posted, report.empty, report.refused], [2, 1, 1, 0]);
        report.count(Entry::Refused(Refusal::InsufficientFunds.code()), &payment(0));
        report.count(Entry::Refused(zero), &payment(5));
        assert_eq!((report.empty, report.refused, report.is_complete()), (1, 2, false));
    }

    #[test]
    fn money_is_written_exactly() {
        for (minor_units, currency, text) in
            [(0, "EUR", "0.00"), (7, "EUR", "0.07"), (123_456, "EUR", "1234.56"), (5, "JPY", "5"), (12, "BHD", "0.012")]
        {
            assert_eq!(money(minor_units, currency), text);
        }
    }
}
