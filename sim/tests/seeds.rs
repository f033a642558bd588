//! The simulator on seeds: some pass, twice the same way, and with a bug planted some fail.

use tally_sim::planted::Bug;
use tally_sim::world::{Options, run_seed};

/// Seeds that every run of the tests goes through; `tally sim` runs as many as one likes.
const SEEDS: std::ops::Range<u64> = 0..50;
/// Seeds in which a planted bug must show at least once.
const SEEDS_TO_CATCH: std::ops::Range<u64> = 0..300;
/// What each seed has to have, at least.
const EVENTS_MIN: u64 = 2_000;

#[test]
fn seeds_pass() {
    for seed in SEEDS {
        let outcome = run_seed(seed, &Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(outcome.events >= EVENTS_MIN, "seed {seed} has only {} events", outcome.events);
        assert!(outcome.crashes >= 1, "seed {seed} has no crash");
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in 0..5 {
        let runs = [0, 1].map(|_| run_seed(seed, &Options::default()).unwrap_or_else(|failure| panic!("{failure}")));
        assert_eq!(runs[0].trace_hash, runs[1].trace_hash, "seed {seed}");
    }
}

#[test]
fn a_failing_seed_fails_the_same_way_each_time() {
    let options = Options { bug: Some(Bug::LostUpdate), ..Options::default() };
    let first = SEEDS_TO_CATCH.clone().find_map(|seed| run_seed(seed, &options).err()).expect("it is caught");
    let again = run_seed(first.seed, &options).expect_err("it failed before");
    assert_eq!((first.event, &first.violation), (again.event, &again.violation));
    assert_eq!(first.last_events, again.last_events);
}

#[test]
fn every_planted_bug_is_caught() {
    // A panic is one way to catch a bug; its message would only clutter the output.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for &bug in Bug::ALL {
        let options = Options { bug: Some(bug), ..Options::default() };
        match SEEDS_TO_CATCH.clone().find_map(|seed| run_seed(seed, &options).err()) {
            Some(failure) => println!("{bug:?}: seed {}, {}", failure.seed, failure.violation),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
