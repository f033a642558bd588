//! Each bug that is planted in the bank is caught: else the simulator is blind to it.

use tally_sim::bank::{BankBug, BankOptions, run_bank_seed};

/// Some faults have to meet: a crash, say, between two messages.
const SEEDS_MAX: u64 = 400;
const SEEDS_TO_PASS: u64 = 20;

#[test]
fn every_planted_bug_of_the_bank_is_caught() {
    // What a planted bug makes panic is caught like everything else; its text would only be in the way.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for &bug in BankBug::ALL {
        let options = BankOptions { bug: Some(bug), ..BankOptions::default() };
        match (0..SEEDS_MAX).find_map(|seed| run_bank_seed(seed, &options).err()) {
            Some(failure) => println!("{bug:?}: seed {}, {}", failure.seed, failure.violation),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not caught in {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn seeds_of_the_bank_pass_and_move_accounts() {
    let (mut moves, mut holds, mut joined) = (0, 0, 0);
    for seed in 0..SEEDS_TO_PASS {
        let outcome = run_bank_seed(seed, &BankOptions::default()).unwrap_or_else(|failure| panic!("{failure}"));
        moves += outcome.moves;
        holds += outcome.moved_holds;
        joined += outcome.joined_holds;
    }
    assert!(moves > SEEDS_TO_PASS, "{moves} accounts moved in {SEEDS_TO_PASS} seeds");
    assert!(holds > joined && joined > 0, "{holds} holds moved with them, {joined} to their other account");
    println!("{moves} accounts moved with {holds} holds, {joined} of them to their other account");
}

#[test]
fn a_seed_of_the_bank_is_the_same_every_time() {
    let run = || run_bank_seed(7, &BankOptions::default()).expect("it passes");
    let (first, second) = (run(), run());
    assert_eq!(first, second);
}
