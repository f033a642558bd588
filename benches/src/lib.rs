//! `tally bench`: the canonical benchmark.

use std::path::PathBuf;

/// Runs the canonical benchmark: each row starts a fresh bank, loads it, and stops it.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// Rows to run; all by default
    pub rows: Vec<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs it to the end. Blocks; not inside a runtime.
pub fn run(_args: &BenchArgs) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("unfinished")
}
