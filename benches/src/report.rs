//! The table and the JSON of a benchmark.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table};
use serde::{Serialize, Serializer};
use tally_client::load::{Grouped, LatencySummary, Micros};

use crate::machine::Machine;
use crate::rows::Row;
use crate::watch::Usage;

/// One row of the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RowResult {
    /// Its name.
    pub row: String,
    /// What is measured.
    pub what: String,
    /// The figure that the row is about.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Latency points, where the row has any. In JSON a figure that a row does not have is 0: its readers want numbers.
    #[serde(serialize_with = "number")]
    pub p50_us: Option<f64>,
    /// See `p50_us`.
    #[serde(serialize_with = "number")]
    pub p99_us: Option<f64>,
    /// See `p50_us`.
    #[serde(serialize_with = "number")]
    pub p999_us: Option<f64>,
    /// Processors' worth of time that the bank used.
    #[serde(serialize_with = "number")]
    pub cpu_server: Option<f64>,
    /// And the load generator.
    #[serde(serialize_with = "number")]
    pub cpu_client: Option<f64>,
    /// Flushes of the journal per second.
    #[serde(serialize_with = "number")]
    pub flushes_per_s: Option<f64>,
    /// What is to be reached, in words.
    pub reach: String,
    /// Whether it was; absent where it cannot be said, such as in a smoke run.
    pub met: Option<bool>,
    /// Circumstances, in words.
    pub notes: Vec<String>,
    /// Further figures.
    pub details: BTreeMap<String, f64>,
    /// Why there is no figure.
    pub error: Option<String>,
}

impl RowResult {
    pub(crate) fn new(row: &Row, value: f64, unit: &str) -> Self {
        Self {
            row: row.name.to_owned(),
            what: row.what.to_owned(),
            value,
            unit: unit.to_owned(),
            reach: row.reach.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn failed(row: &Row, error: &str) -> Self {
        Self { error: Some(error.to_owned()), met: Some(false), ..Self::new(row, 0.0, "") }
    }

    pub(crate) fn with_latency(self, latency: &LatencySummary) -> Self {
        Self { p50_us: Some(latency.p50_us), p99_us: Some(latency.p99_us), p999_us: Some(latency.p999_us), ..self }
    }

    pub(crate) fn with_usage(mut self, usage: &Usage) -> Self {
        self.cpu_server = Some(usage.cpu_server);
        self.cpu_client = Some(usage.cpu_client);
        self.flushes_per_s = usage.flushes_per_s;
        self.detail("checkpoints_finished", f64::from(usage.checkpoints));
        self.detail("flush_max_us", usage.flush_max_s * 1e6);
        if usage.flush_max_s > 0.0 {
            self.note(format!("the bank's longest flush took {:.1} ms", usage.flush_max_s * 1e3));
        }
        self.detail("resident_max_bytes", usage.resident_max as f64);
        self
    }

    pub(crate) fn detail(&mut self, name: &str, value: f64) {
        self.details.insert(name.to_owned(), value);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The row in one line, for whoever watches.
    pub fn line(&self) -> String {
        match &self.error {
            Some(error) => format!("  failed: {error}"),
            None => {
                let notes = self.notes.iter().map(|note| format!("\n  {note}")).collect::<String>();
                let verdict = verdict(self.met);
                format!("  {} {}  p99 {}  {verdict}{notes}", figure(self.value), self.unit, micros(self.p99_us))
            }
        }
    }
}

/// A whole benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BenchReport {
    /// Where it ran.
    pub machine: Machine,
    /// In the order in which they ran.
    pub rows: Vec<RowResult>,
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        let header =
            ["row", "figure", "unit", "p50", "p99", "p99.9", "cpu server", "cpu client", "flushes/s", "reach", "met"];
        table.set_header(header);
        for index in [1, 3, 4, 5, 6, 7, 8] {
            let column = table.column_mut(index).expect("the header has eleven");
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let value = match row.error {
                Some(_) => "failed".to_owned(),
                None => figure(row.value),
            };
            let cores = |cpu: Option<f64>| cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
            table.add_row([
                row.row.clone(),
                value,
                row.unit.clone(),
                micros(row.p50_us),
                micros(row.p99_us),
                micros(row.p999_us),
                cores(row.cpu_server),
                cores(row.cpu_client),
                row.flushes_per_s.map_or_else(|| "-".to_owned(), |rate| Grouped(rate.round() as u64).to_string()),
                row.reach.clone(),
                verdict(row.met).to_owned(),
            ]);
        }
        writeln!(f, "{}\n\n{table}", self.machine)?;
        for row in &self.rows {
            for note in &row.notes {
                writeln!(f, "{}: {note}", row.row)?;
            }
            if let Some(error) = &row.error {
                writeln!(f, "{}: failed: {error}", row.row)?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
fn number<S: Serializer>(figure: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(figure.unwrap_or_default())
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    }
}

fn micros(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| Micros(us).to_string())
}

/// Large figures in whole numbers, small ones with two digits behind the point.
fn figure(value: f64) -> String {
    if value >= 1_000.0 { Grouped(value.round() as u64).to_string() } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn a_dry_run_prints_every_row_and_has_the_agreed_json() {
        let latency = LatencySummary { p50_us: 400.0, p99_us: 2_500.0, p999_us: 9_000.0, ..LatencySummary::default() };
        let mut report = BenchReport::default();
        for (index, row) in ROWS.iter().enumerate() {
            let mut result =
                RowResult::new(row, 412_345.6, "transfers/s").with_latency(&latency).with_usage(&Usage::default());
            result.met = [Some(true), Some(false), None][index % 3];
            report.rows.push(result);
        }
        report.rows.push(RowResult::failed(&ROWS[0], "no disk"));
        let text = report.to_string();
        for row in ROWS {
            assert!(text.contains(&format!("| {} ", row.name)), "{text}");
        }
        assert!(text.contains("412,346") && text.contains("2.50 ms") && text.contains("no disk"), "{text}");

        let json = serde_json::to_value(&report).expect("plain data");
        assert!(json.pointer("/machine/disk_flush_p99_us").is_some_and(serde_json::Value::is_number));
        for field in [
            "row",
            "value",
            "unit",
            "p50_us",
            "p99_us",
            "p999_us",
            "cpu_server",
            "cpu_client",
            "flushes_per_s",
            "reach",
            "met",
        ] {
            assert!(json.pointer(&format!("/rows/0/{field}")).is_some(), "{field} in {json}");
        }
        let failed = &json["rows"][ROWS.len()];
        for field in ["value", "p50_us", "p99_us", "p999_us"] {
            assert!(failed[field].is_number(), "{field} in {failed}");
        }
    }
}
