//! The real server under torture: killed at random instants, and run on a disk that loses power or fails.
//!
//! ```text
//!  plan: what is asked --> load --> real server --> kill, power cut, EIO --> the same folder again
//!                           |                                                  |
//!                           '--> book: what was acknowledged <---- audit ------'
//! ```
//!
//! The simulator explores interleavings with a seed; this shows that the real threads, files and sockets keep
//! the same promises: nothing acknowledged is lost, nothing is applied twice, money is conserved.

#![allow(
    clippy::result_large_err,
    clippy::single_range_in_vec_init,
    reason = "a violation ends the run and carries all that is known of it; a range is an element here"
)]

mod ask;
mod audit;
mod book;
mod disk;
mod faults;
mod load;
mod plan;
mod round;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use disk::MountedDisk;
use round::{Blow, Torture, Totals, Until};

/// Rounds when nothing else is said.
const ROUNDS: u64 = 20;

/// What to do to a server.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Args {
    /// Kill the server with SIGKILL under load, again and again, and check what is left
    Kill9(Common),
    /// Run the server on a disk that loses what was not flushed, or whose flush fails (needs root and FUSE)
    Disk {
        /// What the disk does
        #[arg(long, value_enum)]
        mode: Mode,
        /// How long, how random, where
        #[command(flatten)]
        common: Common,
    },
    /// Kill, stop and cut off the processes of a whole bank under load, each in a network of its own (needs root, ip, nft)
    Bank(faults::Args),
}

/// What the disk does.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Mode {
    /// Loses power under load: what was not flushed is gone
    Drop,
    /// Answers a flush of the journal with EIO: the server must stop, and acknowledge nothing more
    Eio,
}

/// How long, how random, where.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop after this many rounds [default: 20, or as many as fit into --seconds]
    #[arg(long)]
    rounds: Option<u64>,
    /// Draws requests and instants; a new one each time by default
    #[arg(long)]
    seed: Option<u64>,
    /// Folder to work in; by default one that is removed at the end, unless something is wrong
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs a torture; the exit code says whether the server withstood it.
///
/// # Errors
/// What was lost, changed or applied twice; or what kept the torture from running.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (name, common, mode) = match args {
        Args::Kill9(common) => ("kill9", common, None),
        Args::Disk { mode, common } => ("disk", common, Some(mode)),
        Args::Bank(args) => return faults::run(&args),
    };
    let seed = common.seed.unwrap_or_else(rand::random);
    let dir = common.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("tally-torture-{seed:016x}")));
    std::fs::create_dir_all(&dir)?;
    // What a run leaves there that was itself killed.
    disk::unmount_left_behind(&mount_point(&dir));
    let is_new = std::fs::read_dir(&dir)?.next().is_none();
    anyhow::ensure!(is_new, "{} is not empty: a torture begins with a new bank", dir.display());
    println!("{name}: seed {seed}, folder {}", dir.display());
    let until = Until {
        rounds: common.rounds.unwrap_or(if common.seconds.is_some() { u64::MAX } else { ROUNDS }),
        time: common.seconds.map_or(Duration::MAX, Duration::from_secs),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = torture(&dir, mode, seed, until) => result,
            signal = stopped() => Err(anyhow::anyhow!("stopped by {}", signal?)),
        }
    });
    match result {
        Ok(totals) => {
            println!(
                "{name}: {} rounds, {} acknowledged transfers, 0 lost, 0 duplicated ({} unknown outcomes made final)",
                totals.rounds, totals.acknowledged, totals.unknown
            );
            if common.dir.is_none() {
                std::fs::remove_dir_all(&dir)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{name}: FAILED with seed {seed}; {} is left to be looked at\n{error:#}", dir.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn torture(dir: &Path, mode: Option<Mode>, seed: u64, until: Until) -> anyhow::Result<Totals> {
    let mount = || {
        let (at, platter) = (mount_point(dir), dir.join("platter"));
        MountedDisk::mount(&at, &platter).with_context(|| format!("mount a disk at {} (needs root)", at.display()))
    };
    let (data, blow) = match mode {
        None => (dir.join("bank"), Blow::Kill),
        Some(mode) => {
            let disk = mount()?;
            let data = disk.path().join("bank");
            let blow = match mode {
                Mode::Drop => Blow::PowerCut(disk),
                Mode::Eio => Blow::FlushFails(disk),
            };
            (data, blow)
        }
    };
    let mut torture = Torture::begin(&data, &dir.join("server.log"), blow, seed).await?;
    let result = torture.run(until).await;
    if result.is_err() {
        torture.export(&dir.join("after"))?;
    }
    result
}

fn mount_point(dir: &Path) -> PathBuf {
    dir.join("mount")
}

/// Waits for a signal that asks us to stop, so that the server is killed and the disk unmounted.
async fn stopped() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
