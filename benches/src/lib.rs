//! `tally bench`: the canonical benchmark, of one branch and of a bank of two.
//!
//! Every row starts a fresh bank as a real process, puts load on it over TLS from this process, measures from
//! outside (latency at the client, processor time from `/proc`, flushes from the bank's own metrics), verifies
//! every balance afterwards, and stops the bank.
//!
//! **Invariant:** a figure is reported only from a run whose verification held.

mod bank;
mod disk;
mod limit;
mod machine;
mod metrics;
mod process;
mod report;
mod rows;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tally_client::cli::{OutputFile, parse_count, parse_duration};

pub use report::{BenchReport, RowResult};
pub use rows::{ROWS, Row};

/// Runs the canonical benchmark: each row starts a fresh bank, loads it, verifies it, and stops it.
///
/// Without rows, all of them. What a row is compared with, `single` or `cross`, runs first.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Rows to run: single, steady, one, batch, batch_beside, old_ids, hot, zipf, refused, memory, recovery,
    /// overload, cross, cross_steady, cross_one, mixed, cross_hot, cross_raft3, failover, in_doubt
    pub rows: Vec<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Each row for a second or two with small numbers: shows that it runs, not how fast the bank is
    #[arg(long)]
    pub smoke: bool,
    /// How long each row is measured, instead of its own default
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub seconds: Option<Duration>,
    /// Where the banks' data folders are made: a folder on the disk that is to be measured, made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Transfers that old_ids puts in before it measures
    #[arg(long, value_name = "N", default_value = "100M", value_parser = parse_count)]
    pub old_ids: u64,
    /// Leave the data folders behind
    #[arg(long)]
    pub keep: bool,
    /// Overrides one configuration key of every bank
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// The program whose banks are measured; by default this one
    #[arg(long, value_name = "FILE", hide = true)]
    pub program: Option<PathBuf>,
    /// Print a line each second
    #[arg(long)]
    pub progress: bool,
}

/// Runs `tally bench` to the end. The exit code is 0 if every row ran and verified; a figure that was not reached
/// does not change it.
///
/// Blocks, and makes runtimes of its own: not to be called inside one.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let rows = rows::select(&args.rows)?;
    let mut json = args.json.as_deref().map(OutputFile::open).transpose()?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let machine = machine::describe(&args.dir)?;
    eprintln!("{machine}");
    let context = rows::Context::new(args)?;
    let mut report = BenchReport { machine, rows: Vec::new() };
    let mut failed = false;
    for row in rows {
        eprintln!("{}: {}", row.name, row.what);
        let result = match (row.run)(&context, &report.rows) {
            Ok(result) => result,
            Err(error) => {
                failed = true;
                RowResult::failed(row, &format!("{error:#}"))
            }
        };
        eprintln!("{}", result.line());
        report.rows.push(result);
        // After each row, so that an interrupted run leaves what it has.
        if let Some(json) = &mut json {
            json.write_json(&report)?;
        }
    }
    print!("{report}");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
