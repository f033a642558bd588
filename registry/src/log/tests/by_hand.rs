//! Without threads: the caller decides when to flush, and sees what is promised only then.

use std::cell::Cell;

use tally_journal::testing::Unsynced;
use tokio::sync::oneshot;

use super::*;
use crate::log::waiting::Done;

fn open_by_hand_on(disk: &MemoryDisk) -> (LogStore, LogHandle, LogByHand) {
    open_by_hand(Arc::new(disk.clone()), &options(directory())).expect("opens")
}

/// Asks for an append, and does not wait.
fn append(store: &mut LogStore, entries: Vec<Entry>) -> oneshot::Receiver<()> {
    let (sender, told) = oneshot::channel();
    block_on(store.append_with(entries, Done::Wake(sender))).expect("there is room");
    told
}

#[test]
fn nothing_is_promised_before_a_flush_and_all_of_it_after_one() {
    let disk = created(MemoryDisk::default());
    let (mut store, _, mut hand) = open_by_hand_on(&disk);
    let mut first = append(&mut store, vec![entry(1, 0, 100), entry(1, 1, 100)]);
    let mut second = append(&mut store, vec![entry(1, 2, 100)]);
    let read = block_on(store.try_get_log_entries(..)).expect("can be read");
    assert_eq!(read.len(), 3, "readable at once");
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "nothing is durable");
    let crashed = disk.after_crash(Unsynced::Kept);
    assert_eq!(block_on(said(&mut open_on(&crashed).expect("opens").0)), Model::default());
    assert!(hand.flush().expect("writes"));
    assert!(first.try_recv().is_ok() && second.try_recv().is_ok(), "one flush for both");
    assert!(!hand.flush().expect("nothing to write"));
    let crashed = disk.after_crash(Unsynced::Lost);
    assert_eq!(block_on(said(&mut open_on(&crashed).expect("opens").0)).entries.len(), 3);
}

#[test]
fn a_vote_is_not_given_before_it_is_durable() {
    let disk = created(MemoryDisk::default());
    let (mut store, _, mut hand) = open_by_hand_on(&disk);
    let is_given = Cell::new(false);
    block_on(async {
        let give = async {
            store.save_vote(&vote(7)).await.expect("is written");
            is_given.set(true);
        };
        let flush = async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
                assert!(!is_given.get());
            }
            assert!(hand.flush().expect("writes"));
        };
        tokio::join!(give, flush);
    });
    assert!(is_given.get());
    let crashed = disk.after_crash(Unsynced::Lost);
    assert_eq!(block_on(said(&mut open_on(&crashed).expect("opens").0)).vote, Some(vote(7)));
}

#[test]
fn fifty_entries_are_one_flush_and_what_is_committed_is_none() {
    let disk = created(MemoryDisk::default());
    let (mut store, _, mut hand) = open_by_hand_on(&disk);
    let mut flushes = || std::iter::from_fn(|| hand.flush().expect("writes").then_some(())).count();
    drop(append(&mut store, (0..50).map(|index| entry(1, index, 100)).collect()));
    assert_eq!(flushes(), 1);
    block_on(store.save_committed(Some(log_id(1, 40)))).expect("is remembered");
    assert_eq!(block_on(store.read_committed()).expect("is known"), Some(log_id(1, 40)));
    assert_eq!(flushes(), 0);
    drop(append(&mut store, vec![entry(1, 50, 100)]));
    assert_eq!(flushes(), 1, "with the next entry");
    let crashed = disk.after_crash(Unsynced::Lost);
    assert_eq!(block_on(said(&mut open_on(&crashed).expect("opens").0)).committed, Some(log_id(1, 40)));
}

#[test]
fn an_append_waits_for_room_in_the_ring() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle, mut hand) = open_by_hand_on(&disk);
    let (most, is_written) = (handle.batch_len_bytes_max(), Cell::new(false));
    block_on(async {
        let append = async {
            store.append_with((0..8).map(|index| entry(1, index, most)), never()).await.expect("is written");
            is_written.set(true);
        };
        let flush = async {
            tokio::task::yield_now().await;
            assert!(!is_written.get(), "two rings full");
            let mut flushes = 0;
            while !is_written.get() {
                flushes += 1;
                assert!(flushes < 100, "flushes make room");
                hand.flush().expect("writes");
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(append, flush);
    });
    let entries = block_on(store.try_get_log_entries(..)).expect("can be read");
    assert_eq!(entries, (0..8).map(|index| entry(1, index, most)).collect::<Vec<_>>());
}

fn never() -> Done {
    Done::Wake(oneshot::channel().0)
}

#[test]
fn a_purge_frees_segments_once_all_is_durable() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle, mut hand) = open_by_hand_on(&disk);
    for index in 0..30 {
        drop(append(&mut store, vec![entry(1, index, 100_000)]));
        assert!(hand.flush().expect("writes"));
    }
    block_on(store.purge(log_id(1, 28))).expect("is written");
    assert!(!hand.retire().expect("looks"), "the purge is not durable");
    assert_eq!(handle.oldest(), tally_protocol::Lsn::ZERO);
    assert!(hand.flush().expect("writes"));
    assert!(hand.retire().expect("writes"));
    assert!(handle.oldest() > tally_protocol::Lsn::ZERO);
    assert!(disk.bytes(&tally_journal::segment::segment_path(directory(), 0)).is_none());
    let before = block_on(said(&mut store));
    for unsynced in [Unsynced::Kept, Unsynced::Lost] {
        let crashed = disk.after_crash(unsynced);
        assert_eq!(block_on(said(&mut open_on(&crashed).expect("opens").0)), before);
    }
}

/// With nothing left of the log, and nothing yet in the segment where it goes on.
#[test]
fn a_log_that_ends_with_its_segment_goes_on() {
    let disk = created(MemoryDisk::default());
    let (mut store, handle, mut hand) = open_by_hand_on(&disk);
    drop(append(&mut store, vec![entry(1, 0, 100), entry(1, 1, 100)]));
    assert!(hand.flush().expect("writes"));
    while handle.durable().end().get() + 4096 < SEGMENT_LEN_BYTES {
        drop(append(&mut store, vec![entry(2, 1, 100)]));
        assert!(hand.flush().expect("writes"));
    }
    block_on(store.purge(log_id(2, 1))).expect("is written");
    assert!(hand.flush().expect("writes"));
    assert_eq!(handle.durable().end().get(), SEGMENT_LEN_BYTES);
    assert!(hand.retire().expect("writes"));
    assert_eq!(handle.oldest().get(), SEGMENT_LEN_BYTES);
    for unsynced in [Unsynced::Kept, Unsynced::Lost] {
        let crashed = disk.after_crash(unsynced);
        for _ in 0..2 {
            let (mut store, _) = open_on(&crashed).expect("opens");
            let said = block_on(said(&mut store));
            assert!(said.entries.len() < 3 && said.purged == Some(log_id(2, 1)), "{said:?}");
            block_on(store.blocking_append([entry(3, said.next_index(), 100)])).expect("is written");
        }
    }
}

#[test]
fn the_same_steps_leave_the_same_bytes() {
    let run = || {
        let disk = created(MemoryDisk::default());
        let (mut store, _, mut hand) = open_by_hand_on(&disk);
        for round in 0..20 {
            drop(append(&mut store, (0..5).map(|at| entry(1, round * 5 + at, 10_000)).collect()));
            if round % 3 == 0 {
                assert!(hand.flush().expect("writes"));
            }
        }
        (disk.steps(), disk.bytes(&tally_journal::segment::segment_path(directory(), 0)))
    };
    assert_eq!(run(), run());
}
