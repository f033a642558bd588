//! `tally load`: puts load on a branch, measures it, and checks afterwards that nothing acknowledged is missing.
//!
//! **Invariant:** a run says that it holds only if every account holds exactly what the acknowledged transfers
//! say, after every unknown outcome was made final, and if each of them is in the branch's durable feed, once and
//! with the outcome that was acknowledged.

mod accounts;
mod acknowledged;
mod args;
mod choose;
mod feed;
mod ids;
mod latency;
mod pulse;
mod repeats;
mod report;
mod run;
mod samples;
mod schedule;
mod traffic;
mod verify;
mod zipf;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

pub use args::{Choice, IdChoice, LoadArgs, VerifyChoice};
pub use latency::{Latencies, LatencySummary};
pub use report::{Grouped, LoadReport, Measured, Micros, Progress};
pub use run::{Load, Observer};
pub use verify::{FeedCheck, Verification};

use crate::cli::OutputFile;

/// Prints a line each second.
struct Printer;

impl Observer for Printer {
    fn second(&mut self, progress: &Progress) {
        eprintln!("{progress}");
    }
}

/// Runs `tally load` to the end. The exit code is 0 only when every check held.
///
/// Blocks, and makes runtimes of its own: not to be called inside one.
pub fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let mut observer: Box<dyn Observer> = if args.quiet { Box::new(()) } else { Box::new(Printer) };
    let json = args.json.as_deref().map(OutputFile::open).transpose()?;
    let hgrm = args.hgrm.as_deref().map(OutputFile::open).transpose()?;
    let report = execute(args, &mut *observer)?;
    if let Some(mut json) = json {
        json.write_json(&report)?;
    }
    if let Some(mut hgrm) = hgrm {
        hgrm.write(|out| report.measured.latencies.write_hgrm(out))?;
    }
    print!("{report}");
    Ok(if report.verification.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prepares, measures and verifies, and returns what came out.
pub fn execute(args: &LoadArgs, observer: &mut dyn Observer) -> anyhow::Result<LoadReport> {
    let mut load = Load::prepare(args)?;
    let measured = load.measure(args, observer)?;
    let verification = load.verify()?;
    Ok(LoadReport {
        connections: args.connections,
        in_flight: args.in_flight,
        accounts: args.accounts,
        choice: args.choice.to_string(),
        batch: args.batch,
        measured,
        verification,
    })
}
