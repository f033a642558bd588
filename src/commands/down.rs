//! `tally down`: stops the development bank of a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tally_branch_server::server::{FolderLock, RunFile};

/// Stops the bank of a folder: it finishes what is in flight, and ends
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Data folder
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
    /// Seconds to wait for the end
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.dir.is_dir(), "{} is not a folder", args.dir.display());
    if stop(&args.dir, Duration::from_secs(args.timeout_s))? {
        println!("stopped");
    } else {
        println!("not running");
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the folder's server to stop and waits until it has. Returns whether there was one.
pub(crate) fn stop(dir: &Path, timeout: Duration) -> anyhow::Result<bool> {
    // The lock says whether a server runs; a process id alone may be somebody else's by now.
    if is_free(dir)? {
        return Ok(false);
    }
    let run_file = RunFile::read(dir)?.context("a server is starting or stopping in this folder; try again")?;
    let pid = i32::try_from(run_file.pid).ok().and_then(Pid::from_raw).context("server.json names no process")?;
    kill_process(pid, Signal::TERM).with_context(|| format!("stopping process {}", run_file.pid))?;
    let begun = Instant::now();
    while !is_free(dir)? {
        anyhow::ensure!(begun.elapsed() < timeout, "process {} has not ended after {timeout:?}", run_file.pid);
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(true)
}

fn is_free(dir: &Path) -> anyhow::Result<bool> {
    Ok(FolderLock::try_take(dir).with_context(|| format!("{}", dir.display()))?.is_some())
}
