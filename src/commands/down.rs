//! `tally down`: stops the development bank of a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tally_branch_server::server::RunFile;

use super::bank::Layout;
use super::bank::running::is_running;

/// Stops the bank of a folder: it finishes what is in flight, and ends
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Data folder
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
    /// Seconds to wait for the end of each process
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.dir.is_dir(), "{} is not a folder", args.dir.display());
    let layout = Layout::find(&args.dir)?.unwrap_or(Layout::Single(args.dir.clone()));
    let timeout = Duration::from_secs(args.timeout_s);
    let branches: Vec<_> = layout.members().into_iter().map(|member| member.dir).collect();
    // The registry last: until the branches have ended it can still tell them how their transfers ended.
    let were_running = [stop(&branches, timeout)?, stop(&layout.registry_dirs(), timeout)?];
    println!("{}", if were_running.contains(&true) { "stopped" } else { "not running" });
    Ok(ExitCode::SUCCESS)
}

/// Tells the servers of these folders to stop and waits until they have. Returns whether there were any.
fn stop(dirs: &[PathBuf], timeout: Duration) -> anyhow::Result<bool> {
    let mut told = Vec::new();
    for dir in dirs {
        if dir.is_dir() && is_running(dir)? {
            told.push((dir, tell(dir)?));
        }
    }
    let begun = Instant::now();
    for (dir, pid) in &told {
        while is_running(dir)? {
            anyhow::ensure!(begun.elapsed() < timeout, "process {pid} has not ended after {timeout:?}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(!told.is_empty())
}

fn tell(dir: &Path) -> anyhow::Result<u32> {
    let run_file = RunFile::read(dir)?
        .with_context(|| format!("a server is starting or stopping in {}; try again", dir.display()))?;
    let pid = i32::try_from(run_file.pid).ok().and_then(Pid::from_raw).context("server.json names no process")?;
    kill_process(pid, Signal::TERM).with_context(|| format!("stopping process {}", run_file.pid))?;
    Ok(run_file.pid)
}
