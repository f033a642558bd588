//! What is kept, what is given up, and what is refused.

use tally_journal::RecoveryError;
use tally_journal::segment::segment_path;
use tally_protocol::Lsn;

use super::*;

/// Appends about `len_bytes` and purges all but the last entry.
async fn fill_and_purge(store: &mut LogStore, len_bytes: u64) {
    let state = store.get_log_state().await.expect("is known");
    let first = state.last_log_id.map_or(0, |last| last.index + 1);
    let count = len_bytes / 100_000;
    for index in first..first + count {
        store.blocking_append([entry(1, index, 100_000)]).await.expect("is written");
    }
    store.purge(log_id(1, first + count - 2)).await.expect("is written");
}

fn wait_until(what: &str, enough: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !enough() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn purged_segments_are_given_up_and_the_vote_outlives_them() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle) = open_on(&disk).expect("opens");
    block_on(store.save_vote(&vote(5))).expect("is written");
    let mut oldest = handle.oldest();
    for _ in 0..4 {
        block_on(fill_and_purge(&mut store, 2 * SEGMENT_LEN_BYTES));
        wait_until("old segments stay", || handle.oldest() > oldest);
        oldest = handle.oldest();
    }
    wait_until("the first segment's file stays", || disk.bytes(&segment_path(directory(), 0)).is_none());
    let before = block_on(said(&mut store));
    assert_eq!((before.vote, before.entries.len()), (Some(vote(5)), 1));
    drop(store);
    let (mut store, handle) = open_on(&disk).expect("opens again");
    assert_eq!(block_on(said(&mut store)), before);
    assert_eq!(handle.identity(), IDENTITY);
    assert!(handle.oldest() >= oldest);
}

#[test]
fn what_a_purge_takes_while_it_is_read_is_absent_and_no_error() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle) = open_on(&disk).expect("opens");
    block_on(async {
        for index in 0..30 {
            store.blocking_append([entry(1, index, 100_000)]).await.expect("is written");
        }
        let reader = store.get_log_reader().await;
        let reading = std::thread::spawn(move || {
            let mut reader = reader;
            loop {
                let entries = block_on(reader.try_get_log_entries(0..10)).expect("absent ones are skipped");
                for found in &entries {
                    assert_eq!(found, &entry(1, found.log_id.index, 100_000));
                }
                if entries.is_empty() {
                    return;
                }
            }
        });
        store.purge(log_id(1, 25)).await.expect("is written");
        wait_until("old segments stay", || handle.oldest() > Lsn::ZERO);
        reading.join().expect("reads on");
    });
}

#[test]
fn a_log_is_made_once_and_told_from_another() {
    let disk = created(MemoryDisk::default());
    assert_eq!(identity_of(&disk, directory()).expect("is known"), Some(IDENTITY));
    let error = create(&disk, &options(directory()), Identity { node_id: 2, ..IDENTITY }).expect_err("there is one");
    assert!(matches!(error, OpenError::Exists(_)), "{error}");
    let empty = MemoryDisk::default();
    assert_eq!(identity_of(&empty, directory()).expect("is known"), None);
    assert!(matches!(open_on(&empty), Err(OpenError::Missing(_))));
}

#[test]
fn a_folder_that_lost_a_file_is_refused() {
    let manifest = directory().join("raft.manifest");
    let disk = created(MemoryDisk::default());
    let (mut store, _) = open_on(&disk).expect("opens");
    block_on(async {
        store.save_vote(&vote(3)).await.expect("is written");
        store.blocking_append([entry(3, 0, 10)]).await.expect("is written");
    });
    drop(store);
    let without = |path: &Path| {
        let disk = disk.after_crash(tally_journal::testing::Unsynced::Kept);
        disk.remove(path).expect("is there");
        disk
    };
    let error = open_on(&without(&manifest)).err().expect("whose log is it?");
    assert!(matches!(error, OpenError::ManifestMissing(_)), "{error}");
    // With its journal gone the node would have forgotten its vote.
    let lost = without(&segment_path(directory(), 0));
    let error = open_on(&lost).err().expect("its votes are lost");
    assert!(matches!(error, OpenError::Recovery(_)), "{error}");
    for number in 1..4 {
        let _ = lost.remove(&segment_path(directory(), number));
    }
    let error = open_on(&lost).err().expect("its votes are lost");
    assert!(matches!(error, OpenError::Recovery(RecoveryError::Lost { .. })), "{error}");
    disk.tamper(&manifest, |bytes| bytes[30] ^= 1);
    let error = open_on(&disk).err().expect("damaged");
    assert!(matches!(error, OpenError::Manifest(ManifestError::Damaged(_))), "{error}");
}

#[test]
fn segments_of_another_length_are_refused() {
    let disk: Arc<dyn Disk> = Arc::new(created(MemoryDisk::default()));
    let options = LogOptions { segment_len_bytes: 2 * SEGMENT_LEN_BYTES, ..options(directory()) };
    let error = open(disk, &options).err().expect("refuses");
    assert!(
        matches!(error, OpenError::Recovery(RecoveryError::SegmentLen { expected, found }) if expected == 2 * found),
        "{error}"
    );
}

#[test]
fn an_entry_that_no_group_can_hold_is_an_error_and_the_largest_is_not() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle) = open_on(&disk).expect("opens");
    block_on(async {
        let most = handle.batch_len_bytes_max();
        // More than the ring holds at once.
        for index in 0..12 {
            store.blocking_append([entry(1, index, most)]).await.expect("fits");
        }
        let entries: Vec<_> = (12..24).map(|index| entry(1, index, most)).collect();
        store.blocking_append(entries).await.expect("fits, one after the other");
        let error = store.blocking_append([entry(1, 24, most + 8)]).await.expect_err("too large");
        assert!(error.to_string().contains("can be stored"), "{error}");
    });
    drop(store);
    let (mut store, _) = open_on(&disk).expect("opens again");
    assert_eq!(block_on(said(&mut store)).entries.len(), 24);
}
