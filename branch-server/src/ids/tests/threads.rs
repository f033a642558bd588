//! Several threads at once, with generations so small that freezing, publishing and merging go on all the time.

use super::*;

const THREADS: u64 = 4;
const IDS: u64 = 3000;

#[test]
fn of_many_threads_exactly_one_uses_an_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let index = open(dir.path()).finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    let won: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let (index, journal) = (&index, &journal);
                    move || use_all(index, journal, thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    assert_eq!(won, IDS);
    journal.flush();
    let lines = journal.durable_lines();
    assert_eq!(facts_of(&lines).len() as u64, IDS, "an id has two records");

    // What is covered is on disk, without any replay.
    drop(index);
    let recovery = open(dir.path());
    let covered = recovery.covered_lsn();
    assert!(covered > Lsn::ZERO);
    let index = recovery.finish(Arc::new(Journal::default()));
    for &(lsn, line) in lines.iter().filter(|&&(lsn, _)| lsn < covered) {
        let Line::Record(id) = line else { continue };
        assert_eq!(facts(&index, id).record, Some(lsn), "{id} is below {covered}");
    }
}

/// Tries to use every id, in an order of its own; how many it got.
fn use_all(index: &IdIndex, journal: &Journal, thread: u64) -> u64 {
    let (mut won, mut dice) = (0, Dice(thread));
    // Threads follow each other closely, so that they meet at the same ids, and now and then one hurries ahead.
    for n in 0..IDS {
        let id = TransferId::new(u128::from((n + thread * 5) % IDS + 1));
        index.prefetch(id, None);
        loop {
            match reserve(index, id) {
                Reserve::New => {
                    let lsn = journal.reserve();
                    index.finish(id, lsn);
                    if dice.below(4) == 0 {
                        std::thread::yield_now();
                    }
                    journal.fill(lsn, Line::Record(id));
                    won += 1;
                    break;
                }
                Reserve::Known(facts) => {
                    assert!(facts.record.is_some());
                    break;
                }
                Reserve::InFlight => std::thread::yield_now(),
                Reserve::Full => journal.flush(),
                Reserve::MaybeOld => unreachable!("`reserve` asks the disk"),
            }
        }
        if dice.below(50) == 0 {
            journal.flush();
        }
    }
    won
}
