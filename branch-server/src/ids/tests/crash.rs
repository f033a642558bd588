//! The directory as a crash would leave it after each single change, opened again.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::super::dir::{Dir, Effect};
use super::super::manifest::{MANIFEST_FILE_NAME, Manifest};
use super::*;

/// What a crash at one moment leaves: a copy of the directory, and the durable journal.
struct Wreck {
    dir: tempfile::TempDir,
    after: Effect,
    durable: Lsn,
    lines: Vec<(Lsn, Line)>,
}

/// Copies `dir`, but of files that were never synced only the first half: the disk had not got to the rest.
fn copy(dir: &Path, synced: &HashSet<PathBuf>) -> tempfile::TempDir {
    let target = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(dir).expect("is there") {
        let path = entry.expect("is there").path();
        let mut bytes = fs::read(&path).expect("is there");
        let name = path.file_name().expect("has a name");
        if path.extension().is_some_and(|extension| extension == "ids") && !synced.contains(&path) {
            bytes.truncate(bytes.len() / 2);
        }
        fs::write(target.path().join(name), bytes).expect("is written");
    }
    target
}

/// Every wreck of a run through `count` ids, every third of which ends later.
fn wrecks(count: u64) -> Vec<Wreck> {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let wrecks = Arc::new(Mutex::new(Vec::new()));
    let mut watched = Dir::create(dir.path()).expect("is made");
    let hook = (Arc::clone(&journal), Arc::clone(&wrecks), dir.path().to_owned(), Mutex::new(HashSet::new()));
    watched.after_step = Some(Box::new(move |effect, path| {
        let (journal, wrecks, dir, synced) = &hook;
        let mut synced = synced.lock().expect("no test thread panics");
        if effect == Effect::RunSynced {
            synced.insert(path.to_owned());
        }
        // The durable position first: the directory must never be ahead of it.
        let (durable, lines) = (journal.durable(), journal.durable_lines());
        let wreck = Wreck { dir: copy(dir, &synced), after: effect, durable, lines };
        wrecks.lock().expect("no test thread panics").push(wreck);
    }));
    let index = IdIndex::open_dir(watched, small()).expect("opens");
    let index = index.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    let mut dice = Dice(count);
    let mut n = 0;
    // A thread that gets little time writes fewer and larger runs: go on until there was something to merge.
    while n < count || index.stats().merges == 0 {
        n += 1;
        let id = TransferId::new(n.into());
        while reserve(&index, id) != Reserve::New {
            journal.flush();
        }
        let lsn = journal.reserve();
        index.finish(id, lsn);
        journal.fill(lsn, Line::Record(id));
        if n % 3 == 0 {
            let (earlier, lsn) = (TransferId::new((n / 3).into()), journal.reserve());
            index.note_ended(earlier, lsn);
            journal.fill(lsn, Line::Ended(earlier));
        }
        if dice.below(20) == 0 {
            journal.flush();
        }
        if dice.below(if n < count { 100 } else { 10 }) == 0 {
            // Lets the thread catch up, and sometimes an all but empty generation.
            journal.flush();
            index.persist_until(journal.durable()).expect("is written");
        }
    }
    drop(index);
    Arc::into_inner(wrecks).expect("the index has dropped its hook").into_inner().expect("no test thread panics")
}

#[test]
fn a_crash_after_any_step_loses_and_invents_nothing() {
    let wrecks = wrecks(600);
    let seen: HashSet<_> = wrecks.iter().map(|wreck| format!("{:?}", wreck.after)).collect();
    assert_eq!(seen.len(), 7, "every effect was met: {seen:?}");
    for Wreck { dir, after, durable, lines } in &wrecks {
        if !dir.path().join(MANIFEST_FILE_NAME).exists() {
            // Before the very first manifest there is nothing to lose.
            assert_eq!(*after, Effect::ManifestPrepared);
            continue;
        }
        let mut recovery = open(dir.path());
        let covered = recovery.covered_lsn();
        assert!(covered <= *durable, "after {after:?}: covered {covered}, durable {durable}");
        assert!(recovery.highest_lsn() <= *durable, "after {after:?}: ids that the journal does not hold");
        let above: Vec<_> = lines.iter().copied().filter(|&(lsn, _)| lsn >= covered).collect();
        replay(&mut recovery, &above);
        let index = recovery.finish(Arc::new(Journal::default()));
        let expected = facts_of(lines);
        for n in 1..=600u128 {
            let id = TransferId::new(n);
            let known = expected.get(&id).copied().unwrap_or_default();
            assert_eq!(facts(&index, id), known, "after {after:?}: {id}, covered {covered}");
        }
    }
}

#[test]
fn a_manifest_names_only_runs_that_are_whole_and_durable() {
    for Wreck { dir, after, .. } in wrecks(600).iter().filter(|wreck| wreck.after == Effect::ManifestPublished) {
        let manifest = Manifest::read(dir.path()).expect("readable").expect("was just published");
        // Opening reads header, index and filter of each; half a file would not do.
        let recovery = open(dir.path());
        assert_eq!(recovery.covered_lsn(), manifest.covered, "after {after:?}");
    }
}

#[test]
fn nothing_is_published_before_the_journal_is_durable_so_far() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let written = Arc::new(Mutex::new(false));
    let mut watched = Dir::create(dir.path()).expect("is made");
    let hook = Arc::clone(&written);
    watched.after_step = Some(Box::new(move |effect, _| {
        *hook.lock().expect("no test thread panics") |= effect == Effect::RunSynced;
    }));
    let index = IdIndex::open_dir(watched, small()).expect("opens");
    let index = index.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    let [first, second] = [1, 2].map(|n| {
        let (id, lsn) = (TransferId::new(n), journal.reserve());
        assert_eq!(index.reserve(id), Reserve::New);
        index.finish(id, lsn);
        lsn
    });
    // The second record is finished here but not filled in yet: the run will hold it, and not cover it.
    journal.fill(first, Line::Record(TransferId::new(1)));
    index.rotate_now();
    while !*written.lock().expect("no test thread panics") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let published_with = |durable: Lsn| {
        journal.0.lock().expect("no test thread panics").durable = durable.get();
        std::thread::sleep(std::time::Duration::from_millis(40));
        (index.stats().run_count, index.covered_lsn())
    };
    assert_eq!(published_with(Lsn::ZERO), (0, Lsn::ZERO));
    assert_eq!(published_with(first), (0, Lsn::ZERO));
    // All that is covered is durable, but the second record could still be lost, and its position used again.
    assert_eq!(published_with(second), (0, Lsn::ZERO));

    journal.fill(second, Line::Record(TransferId::new(2)));
    journal.flush();
    index.persist_until(second).expect("is written");
    assert_eq!(index.covered_lsn(), second);
}
