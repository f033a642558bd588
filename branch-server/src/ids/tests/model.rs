//! The index against a map, over random operations, with restarts in between.

use super::*;

/// As a worker does for one of many: what the filters said earlier is taken for what it was worth then.
fn reserve_with(index: &IdIndex, old_ids: &OldIds, id: TransferId, is_one_of_many: bool) -> Reserve {
    if !is_one_of_many || old_ids.may_hold(id) {
        return reserve(index, id);
    }
    match index.reserve_looked_up(id, &old_ids.absent()) {
        Reserve::MaybeOld => reserve(index, id),
        answer => answer,
    }
}

/// Uses, ends, asks, rotates, merges and restarts at random; the index and a map must agree throughout.
fn check(seed: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut dice = Dice(seed);
    let journal = Arc::new(Journal::default());
    let mut index = open(dir.path()).finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    let mut model: HashMap<TransferId, Facts> = HashMap::new();
    let mut old_ids = index.old_ids();
    for _ in 0..4000 {
        let id = TransferId::new(u128::from(dice.below(1500) + 1));
        let known = model.entry(id).or_default();
        if dice.below(40) == 0 {
            old_ids = index.old_ids();
        }
        match dice.below(100) {
            0..60 => match reserve_with(&index, &old_ids, id, dice.below(2) == 0) {
                Reserve::New if dice.below(10) == 0 => {
                    assert_eq!(index.reserve(id), Reserve::InFlight, "seed {seed}");
                    index.release(id);
                }
                Reserve::New => {
                    assert_eq!(*known, Facts::default(), "seed {seed}: {id} was used");
                    let lsn = journal.reserve();
                    index.finish(id, lsn);
                    journal.fill(lsn, Line::Record(id));
                    known.record = Some(lsn);
                }
                Reserve::Known(facts) => assert_eq!(facts, *known, "seed {seed}: {id}"),
                Reserve::Full => journal.flush(),
                Reserve::InFlight | Reserve::MaybeOld => panic!("seed {seed}: nobody else is here"),
            },
            60..75 if known.record.is_some() => {
                let lsn = journal.reserve();
                index.note_ended(id, lsn);
                journal.fill(lsn, Line::Ended(id));
                known.ended = Some(lsn);
            }
            60..90 => assert_eq!(facts(&index, id), *known, "seed {seed}: {id}"),
            90..97 => journal.flush(),
            97 => index.rotate_now(),
            98 => {
                journal.flush();
                let durable = journal.durable();
                assert!(index.persist_until(durable).expect("is written") >= durable);
            }
            _ => {
                journal.flush();
                drop(index);
                let mut recovery = open(dir.path());
                assert!(recovery.covered_lsn() <= journal.durable());
                assert!(recovery.highest_lsn() < journal.durable());
                replay(&mut recovery, &journal.durable_lines());
                index = recovery.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
                old_ids = index.old_ids();
            }
        }
    }
    for (&id, known) in &model {
        assert_eq!(facts(&index, id), *known, "seed {seed}: {id}");
    }
}

#[test]
fn agrees_with_a_map() {
    (0..6).for_each(check);
}

#[test]
fn merges_keep_runs_few_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let index = open(dir.path()).finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    for n in 1..=6000u128 {
        let id = TransferId::new(n);
        while reserve(&index, id) != Reserve::New {
            journal.flush();
        }
        let lsn = journal.reserve();
        index.finish(id, lsn);
        journal.fill(lsn, Line::Record(id));
        if n % 100 == 0 {
            journal.flush();
            index.persist_until(journal.durable()).expect("is written");
        }
    }
    // Sixty rotations and more; the thread merges whenever it has nothing to write.
    while index.stats().run_count > 12 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(index.stats().merges > 5, "{:?}", index.stats());
    for (id, known) in facts_of(&journal.durable_lines()) {
        assert_eq!(facts(&index, id), known, "{id}");
    }
    let named = index.stats().run_count;
    drop(index);
    let _opened = open(dir.path());
    let files = std::fs::read_dir(dir.path()).expect("is there").count() as u64;
    assert!(files <= named + 1, "{files} files for {named} runs: what was merged is removed");
}

#[test]
fn a_look_up_that_was_overtaken_is_repeated() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let index = open(dir.path()).finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    let id = TransferId::new(77);
    let before = index.lookup_on_disk(id).expect("readable");
    assert_eq!(before.facts, Facts::default());

    // Somebody else uses the id, and it leaves memory before the answer is used.
    assert_eq!(index.reserve(id), Reserve::New);
    let lsn = journal.reserve();
    index.finish(id, lsn);
    journal.fill(lsn, Line::Record(id));
    journal.flush();
    index.persist_until(journal.durable()).expect("is written");
    assert_eq!(index.stats().recent_count, 0);

    assert_eq!(index.reserve_looked_up(id, &before), Reserve::MaybeOld);
    assert_eq!(reserve(&index, id), Reserve::Known(Facts { record: Some(lsn), ended: None }));
}

#[test]
fn refuses_new_ids_while_the_disk_is_far_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let index = open(dir.path()).finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    // Nothing becomes durable, so nothing may be published.
    let mut used = 0u64;
    let full = (1..10_000u128).map(TransferId::new).find(|&id| match reserve(&index, id) {
        Reserve::New => {
            let lsn = journal.reserve();
            index.finish(id, lsn);
            journal.fill(lsn, Line::Record(id));
            used += 1;
            false
        }
        answer => answer == Reserve::Full,
    });
    assert!(full.is_some() && used < 48 * 5, "{used} ids in memory");
    assert_eq!(index.covered_lsn(), Lsn::ZERO);
    assert_eq!(index.reserve(TransferId::new(1)), Reserve::Known(facts(&index, TransferId::new(1))));

    journal.flush();
    index.persist_until(journal.durable()).expect("is written");
    let id = full.expect("found above");
    assert_eq!(reserve(&index, id), Reserve::New);
    index.release(id);
}

#[test]
fn replay_writes_out_generations_as_it_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines: Vec<_> = (1..=5000u64).map(|n| (Lsn::new(n * 200), Line::Record(TransferId::new(n.into())))).collect();
    let mut recovery = open(dir.path());
    replay(&mut recovery, &lines);
    let journal = Journal::default();
    let index = recovery.finish(Arc::new(journal));
    assert!(index.stats().recent_count < 48 * 6, "{:?}", index.stats());
    assert!(index.covered_lsn() > Lsn::ZERO);
    for (id, known) in facts_of(&lines) {
        assert_eq!(facts(&index, id), known, "{id}");
    }
}
