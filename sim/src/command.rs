//! `tally sim`: run seeds until one fails or all have passed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::bail;

use crate::world::{Options, Outcome, run_seed};

/// Runs the branch in simulation.
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
    let (from, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let options = Options { events_min: args.events, is_verbose: args.verbose, bug: None };
    say_seed_in_panics();
    let begun = Instant::now();
    let mut total = Outcome::default();
    let mut said = Instant::now();
    for seed in from..from + count {
        CURRENT_SEED.store(seed, Ordering::Relaxed);
        match run_seed(seed, &options) {
            Ok(outcome) => total.add(&outcome),
            Err(failure) => bail!("{failure}"),
        }
        if said.elapsed().as_secs() >= 10 {
            said = Instant::now();
            println!("{} of {count} seeds passed", seed - from + 1);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} seeds passed in {seconds:.1} s ({:.0} seeds/s)", count as f64 / seconds.max(0.001));
    println!("{total}");
    if args.seed.is_some() {
        println!("trace hash {:016x}", total.trace_hash);
    }
    Ok(())
}
