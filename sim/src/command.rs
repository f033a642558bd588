//! `tally sim`: run seeds until one fails or all have passed.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::bail;

use crate::bank::{BankOptions, BankOutcome, run_bank_seed};
use crate::world::{Options, Outcome, run_seed};

/// Runs a branch, or the whole bank, in simulation.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub seed: Option<u64>,
    /// Events of each seed, at least.
    #[arg(long, default_value_t = 2_500)]
    pub events: u64,
    /// The whole bank: branches, registry, network.
    #[arg(long)]
    pub bank: bool,
    /// Print each event as it happens.
    #[arg(long)]
    pub verbose: bool,
}

/// For the message of a panic, which in a release build ends the process at once.
static CURRENT_SEED: AtomicU64 = AtomicU64::new(0);

fn say_seed_in_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let seed = CURRENT_SEED.load(Ordering::Relaxed);
        eprintln!("a panic in seed {seed}; run it again: tally sim --seed {seed} --verbose");
        before(info);
    }));
}

/// Runs the seeds and prints what was done.
///
/// # Errors
/// When a seed violates an invariant: the error names the seed, the event and the last events before it.
pub fn run(args: &SimArgs) -> anyhow::Result<()> {
    say_seed_in_panics();
    let trace_hash = if args.bank {
        let options = BankOptions { events_min: args.events, is_verbose: args.verbose, bug: None };
        let mut total = BankOutcome::default();
        run_seeds(args, |seed| run_bank_seed(seed, &options).map(|outcome| total.add(&outcome)))?;
        println!("{total}");
        total.trace_hash
    } else {
        let options = Options { events_min: args.events, is_verbose: args.verbose, bug: None };
        let mut total = Outcome::default();
        run_seeds(args, |seed| run_seed(seed, &options).map(|outcome| total.add(&outcome)))?;
        println!("{total}");
        total.trace_hash
    };
    if args.seed.is_some() {
        println!("trace hash {trace_hash:016x}");
    }
    Ok(())
}

fn run_seeds<F: Display>(args: &SimArgs, mut run_seed: impl FnMut(u64) -> Result<(), Box<F>>) -> anyhow::Result<()> {
    let (from, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let begun = Instant::now();
    let mut said = Instant::now();
    for seed in from..from + count {
        CURRENT_SEED.store(seed, Ordering::Relaxed);
        if let Err(failure) = run_seed(seed) {
            bail!("{failure}");
        }
        if said.elapsed().as_secs() >= 10 {
            said = Instant::now();
            println!("{} of {count} seeds passed", seed - from + 1);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} seeds passed in {seconds:.1} s ({:.0} seeds/s)", count as f64 / seconds.max(0.001));
    Ok(())
}
