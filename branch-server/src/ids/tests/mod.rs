//! What the tests of the whole index share: a small journal, and a model of what the index must know.

mod crash;
mod damage;
mod model;
mod threads;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tally_protocol::{Lsn, TransferId};

use super::{Facts, IdConfig, IdIndex, IdRecovery, LogPositions, LookedUp, OldIds, Recent, Reserve};

/// Generations of a few dozen ids, so that a short test sees many runs and merges.
fn small() -> IdConfig {
    IdConfig {
        generation_len_max: 48,
        shard_count: 4,
        filter_bits_per_id: 8,
        merge_fan_in: 3,
        write_bytes_per_second: u64::MAX,
    }
}

/// One line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Record(TransferId),
    Ended(TransferId),
}

/// A journal in memory: positions are handed out, lines filled in later, and a prefix of them is durable.
#[derive(Default)]
struct Journal(Mutex<JournalState>);

struct JournalState {
    next: u64,
    open: BTreeSet<u64>,
    durable: u64,
    lines: Vec<(Lsn, Line)>,
}

impl Default for JournalState {
    fn default() -> Self {
        Self { next: 64, open: BTreeSet::new(), durable: 0, lines: Vec::new() }
    }
}

impl JournalState {
    fn accepted(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

impl Journal {
    fn reserve(&self) -> Lsn {
        let mut state = self.0.lock().expect("no test thread panics");
        let lsn = state.next;
        state.next += 184;
        state.open.insert(lsn);
        Lsn::new(lsn)
    }

    fn fill(&self, lsn: Lsn, line: Line) {
        let mut state = self.0.lock().expect("no test thread panics");
        assert!(state.open.remove(&lsn.get()));
        state.lines.push((lsn, line));
    }

    fn flush(&self) {
        let mut state = self.0.lock().expect("no test thread panics");
        state.durable = state.accepted();
    }

    /// The lines that a crash leaves.
    fn durable_lines(&self) -> Vec<(Lsn, Line)> {
        let state = self.0.lock().expect("no test thread panics");
        let mut lines: Vec<_> = state.lines.iter().copied().filter(|(lsn, _)| lsn.get() < state.durable).collect();
        lines.sort_unstable_by_key(|&(lsn, _)| lsn);
        lines
    }
}

impl LogPositions for Journal {
    fn accepted(&self) -> Lsn {
        Lsn::new(self.0.lock().expect("no test thread panics").accepted())
    }
    fn durable(&self) -> Lsn {
        Lsn::new(self.0.lock().expect("no test thread panics").durable)
    }
}

/// What `lines` say of each id.
fn facts_of(lines: &[(Lsn, Line)]) -> HashMap<TransferId, Facts> {
    let mut facts: HashMap<TransferId, Facts> = HashMap::new();
    for &(lsn, line) in lines {
        match line {
            Line::Record(id) => facts.entry(id).or_default().record = Some(lsn),
            Line::Ended(id) => facts.entry(id).or_default().ended = Some(lsn),
        }
    }
    facts
}

fn open(dir: &Path) -> IdRecovery {
    IdIndex::open(dir, small()).expect("opens")
}

fn replay(recovery: &mut IdRecovery, lines: &[(Lsn, Line)]) {
    for &(lsn, line) in lines {
        match line {
            Line::Record(id) => recovery.record(id, lsn),
            Line::Ended(id) => recovery.ended(id, lsn),
        }
    }
}

/// Reserves as the engine does, with a look-up on disk where one is asked for.
fn reserve(index: &IdIndex, id: TransferId) -> Reserve {
    let mut answer = index.reserve(id);
    while answer == Reserve::MaybeOld {
        let looked_up: LookedUp = index.lookup_on_disk(id).expect("readable");
        answer = index.reserve_looked_up(id, &looked_up);
    }
    answer
}

/// Everything that the index knows of `id`.
fn facts(index: &IdIndex, id: TransferId) -> Facts {
    match index.facts_recent(id) {
        Recent::Known(facts) => facts,
        Recent::MaybeOld => index.lookup_on_disk(id).expect("readable").facts,
        Recent::Absent => Facts::default(),
        Recent::InFlight => panic!("{id} is in flight"),
    }
}

/// The same numbers in every run of a test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
