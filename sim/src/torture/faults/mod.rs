//! A whole bank of real processes, each in a network of its own, while processes and links fail at random.
//!
//! ```text
//!  load: random payments, within and across --> three branches --> three nodes of the registry
//!     |                                            ^  kill -9, SIGSTOP, links cut and lossy, rolling restarts
//!     '--> book: what was answered                 |  (schedule, from the seed)
//!            ^                                 everything heals, the load stops, nothing is in doubt
//!            '-- check: feeds, balances, what branches owe each other <--'
//! ```
//!
//! The simulator explores orders of events with a seed; this shows that real threads, sockets, disks and Raft keep the same
//! promises.

mod bank;
mod book;
mod check;
mod feeds;
mod load;
mod net;
mod operator;
mod process;
mod schedule;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use bank::World;
use book::Book;
use check::Checker;
use load::{Load, SharedBook};

/// How long things go wrong before everything heals and is checked, in seconds.
const ROUND_S: std::ops::Range<u64> = 8..25;

/// How long, how random, where.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Stop after this many minutes; a round that was begun is finished
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Draws payments, faults and instants; a new one each time by default
    #[arg(long)]
    seed: Option<u64>,
    /// Folder to work in; by default one that is removed at the end, unless something is wrong
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What was done in all.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    rounds: u64,
    faults: u64,
    unknown: usize,
    moves: u64,
    audits: u64,
    serving_max: Duration,
    drained_max: Duration,
}

/// Runs the torture; the exit code says whether the bank withstood it.
///
/// # Errors
/// What kept it from running.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.minutes.is_finite() && args.minutes > 0.0, "--minutes must be above 0");
    anyhow::ensure!(rustix::process::geteuid().is_root(), "needs root: every process gets a network of its own");
    let seed = args.seed.unwrap_or_else(rand::random);
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("tally-faults-{seed:016x}")));
    std::fs::create_dir_all(&dir)?;
    let is_new = std::fs::read_dir(&dir)?.next().is_none();
    anyhow::ensure!(is_new, "{} is not empty: a torture begins with a new bank", dir.display());
    println!("bank: seed {seed}, folder {}", dir.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let book: SharedBook = Rc::new(RefCell::new(Book::default()));
    let result = runtime.block_on(async {
        tokio::select! {
            result = torture(&dir, &book, seed, Duration::from_secs_f64(args.minutes * 60.0)) => result,
            signal = super::stopped() => Err(anyhow::anyhow!("stopped by {}", signal?)),
        }
    });
    match result {
        Ok(totals) => {
            let book = book.borrow();
            println!(
                "bank: {} rounds, {} faults, {} answers ({} payments between branches, {} holds ended), {} accounts moved; \
                 0 lost, 0 doubled, books exact in {} audits; {} unknown outcomes made final; at most {:.1} s until all served again, {:.1} s until nothing was in doubt",
                totals.rounds,
                totals.faults,
                book.answers,
                book.done_across,
                book.holds_ended,
                totals.moves,
                totals.audits,
                totals.unknown,
                totals.serving_max.as_secs_f64(),
                totals.drained_max.as_secs_f64()
            );
            if args.dir.is_none() {
                std::fs::remove_dir_all(&dir)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("bank: FAILED with seed {seed}; {} is left to be looked at\n{error:#}", dir.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn torture(dir: &Path, book: &SharedBook, seed: u64, time: Duration) -> anyhow::Result<Totals> {
    let begun = Instant::now();
    let mut world = World::create(dir).await?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut checker = Checker::default();
    load::prepare(&world.bank, book).await?;
    checker.begin(&world).await?;
    let mut totals = Totals::default();
    while begun.elapsed() < time {
        totals.rounds += 1;
        let round = totals.rounds;
        round_of(&mut world, book, &mut random, &mut checker, &mut totals)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    Ok(totals)
}

async fn round_of(
    world: &mut World,
    book: &SharedBook,
    random: &mut ChaCha8Rng,
    checker: &mut Checker,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let (answers, across) = (book.borrow().answers, book.borrow().done_across);
    let time = Duration::from_secs(random.random_range(ROUND_S));
    let ended = book.borrow().holds_ended;
    let load = Load::new(&world.bank, &world.operator, book, random.random());
    let faults = load.beside(schedule::run(world, random, time)).await?;
    world.heal()?;
    // Connections that were cut may be silent for long: a client that opens new ones is served at once.
    world.bank.close();
    let serving = load.beside(world.wait_until_serving()).await?;
    let done = load.stop().await?;
    let drained = check::drain(world).await?;
    let unknown = load::make_final(&world.bank, book).await?;
    checker.check(world, book).await?;
    totals.faults += faults;
    totals.unknown += unknown;
    totals.moves += done.moves;
    // And the one when all had healed.
    totals.audits += done.audits + 1;
    totals.serving_max = totals.serving_max.max(serving);
    totals.drained_max = totals.drained_max.max(drained);
    println!(
        "round {}: {faults} faults in {} s, {} answers ({} payments between branches, {} holds ended), {} accounts moved, {} \
         audits exact; all served again after {:.1} s, nothing in doubt {:.1} s later; {unknown} unknown made final; feeds and \
         balances agree",
        totals.rounds,
        time.as_secs(),
        book.borrow().answers - answers,
        book.borrow().done_across - across,
        book.borrow().holds_ended - ended,
        done.moves,
        done.audits,
        serving.as_secs_f64(),
        drained.as_secs_f64()
    );
    Ok(())
}
