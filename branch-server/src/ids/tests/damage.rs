//! What a damaged disk shows: an error that names the place, never "absent".

use std::fs;
use std::path::PathBuf;

use super::super::IdError;
use super::super::manifest::MANIFEST_FILE_NAME;
use super::*;

const COUNT: u64 = 1000;

/// A directory with one run of [`COUNT`] ids, and the path of the run.
fn one_run() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Arc::new(Journal::default());
    let config = IdConfig { generation_len_max: 1 << 20, ..small() };
    let recovery = IdIndex::open(dir.path(), config).expect("opens");
    let index = recovery.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    for n in 1..=COUNT {
        let id = TransferId::new(n.into());
        assert_eq!(index.reserve(id), Reserve::New);
        let lsn = journal.reserve();
        index.finish(id, lsn);
        journal.fill(lsn, Line::Record(id));
    }
    journal.flush();
    index.persist_until(journal.durable()).expect("is written");
    drop(index);
    let run = dir.path().join("run-0000000001.ids");
    assert!(run.exists());
    (dir, run)
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("is there");
    bytes[offset] ^= 4;
    fs::write(path, bytes).expect("is written");
}

#[test]
fn a_damaged_entry_page_is_an_error_for_exactly_its_ids() {
    let (dir, run) = one_run();
    // Entry pages are 1 to 6; the second of them is hit.
    flip(&run, 2 * 4096 + 1234);
    let index = open(dir.path()).finish(Arc::new(Journal::default()));
    let mut damaged = 0;
    for n in 1..=COUNT {
        let id = TransferId::new(n.into());
        assert_eq!(index.reserve(id), Reserve::MaybeOld, "{id}");
        match index.lookup_on_disk(id) {
            Ok(found) => assert!(found.facts.record.is_some(), "{id} is taken for absent"),
            Err(IdError::PageDamaged { run: 1, page: 2, what: "entries" }) => damaged += 1,
            Err(error) => panic!("{id}: {error}"),
        }
    }
    // An id with the first hash of a page may have its record at the end of the page before.
    assert_eq!(damaged, 170 + 1, "the ids of the page and the first of the next");
    assert_eq!(index.stats().errors, 171);
}

#[test]
fn damage_elsewhere_is_refused_at_the_start() {
    // 1000 entries: header page 0, entry pages 1..=6, index page 7, filter page 8.
    for (page, what) in [(0, "header"), (7, "index"), (8, "filter")] {
        let (dir, run) = one_run();
        flip(&run, page * 4096 + 100);
        let error = IdIndex::open(dir.path(), small()).err().expect("is refused").to_string();
        assert_eq!(error, format!("id index: run 1, page {page} ({what}) is damaged"));
    }
}

#[test]
fn a_run_that_was_cut_short_or_is_gone_is_refused() {
    let (dir, run) = one_run();
    let bytes = fs::read(&run).expect("is there");
    assert_eq!(bytes.len(), 9 * 4096);
    fs::write(&run, &bytes[..8 * 4096]).expect("is written");
    assert!(matches!(IdIndex::open(dir.path(), small()), Err(IdError::PageDamaged { run: 1, page: 8, .. })));
    fs::remove_file(&run).expect("is there");
    assert!(matches!(IdIndex::open(dir.path(), small()), Err(IdError::Io { .. })));
}

#[test]
fn a_damaged_or_missing_manifest_is_refused() {
    let (dir, run) = one_run();
    let manifest = dir.path().join(MANIFEST_FILE_NAME);
    let text = fs::read_to_string(&manifest).expect("is text");
    fs::write(&manifest, text.replace("covered", "uncovered")).expect("is written");
    assert!(matches!(IdIndex::open(dir.path(), small()), Err(IdError::ManifestDamaged { .. })));
    fs::remove_file(&manifest).expect("is there");
    assert!(matches!(IdIndex::open(dir.path(), small()), Err(IdError::ManifestMissing { .. })));
    assert!(run.exists(), "nothing is removed that a restored manifest may name");
}

#[test]
fn a_damaged_run_is_not_merged_and_stays() {
    let (dir, run) = one_run();
    flip(&run, 3 * 4096 + 77);
    let journal = Arc::new(Journal::default());
    let config = IdConfig { generation_len_max: 1 << 20, merge_fan_in: 2, ..small() };
    let index = IdIndex::open(dir.path(), config).expect("opens");
    let index = index.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    while journal.reserve() < Lsn::new(COUNT * 200) {}
    journal.0.lock().expect("no test thread panics").open.clear();
    let id = TransferId::new(u128::MAX / 5);
    assert_eq!(reserve(&index, id), Reserve::New);
    let lsn = journal.reserve();
    index.finish(id, lsn);
    journal.fill(lsn, Line::Record(id));
    journal.flush();
    index.persist_until(journal.durable()).expect("is written");
    while index.stats().errors == 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!((index.stats().run_count, index.stats().merges), (2, 0));
    assert!(run.exists());
    assert_eq!(facts(&index, id).record, Some(lsn));
}
