//! Whatever the files of an id index hold, it is opened or refused, and says of an id what is true or that it
//! cannot say: never a panic, a hang or memory without end, and never "absent" of an id that was used.
//!
//! Where checksums were refitted the files say what was never written, and only the first half can be asked.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tally_protocol::TransferId;
use tally_sim_fuzz::change::Change;
use tally_sim_fuzz::ids::{Generation, Known, OpenIds, damage, write};
use tally_sim_fuzz::scratch::Scratch;

#[derive(Debug, Arbitrary)]
struct Input {
    generations: Vec<Generation>,
    /// Mostly never used.
    strangers: Vec<u128>,
    is_refitted: bool,
    changes: Vec<Change>,
}

/// Looks every id up. `false` when one could not be.
fn check(ids: &OpenIds, known: &Known, strangers: &[u128], is_true: bool) -> bool {
    let mut all_answered = true;
    for id in known.keys().copied().chain(strangers.iter().map(|&raw| TransferId::new(raw))) {
        match ids.facts(id) {
            Ok(facts) if is_true => assert_eq!(facts, known.get(&id).copied().unwrap_or_default(), "{id}"),
            Ok(_) => {}
            Err(_) => all_answered = false,
        }
    }
    all_answered
}

fuzz_target!(|input: Input| {
    let Input { generations, mut strangers, is_refitted, changes } = input;
    // Id 0 names no transfer; the index marks empty places with it.
    strangers.retain(|&raw| raw != 0);
    let scratch = Scratch::new();
    let (next, known) = write(scratch.path(), &generations);
    let undamaged = OpenIds::open(scratch.path(), next).expect("an undamaged index opens");
    assert!(check(&undamaged, &known, &strangers, true), "an undamaged index cannot say");
    drop(undamaged);

    if !damage(scratch.path(), &changes, is_refitted) {
        return;
    }
    let Ok(mut ids) = OpenIds::open(scratch.path(), next) else { return };
    check(&ids, &known, &strangers, !is_refitted);
    // Merging reads every page, and gives up where one is damaged. Of a whole page it takes for granted that its entries
    // are in order, and asserts it: an index that lost its order must not be carried on.
    if !is_refitted {
        ids.write_out();
        check(&ids, &known, &strangers, true);
    }
});
