//! The running journal on the real disk, with both ways of writing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::journal::{Journal, JournalOptions, RealDisk, StartError, WriteVia};

/// A journal in a fresh directory; `None`, said aloud, where the kernel does not permit `via`.
fn start(directory: &Path, via: WriteVia, writers: usize, seen: Arc<AtomicU64>) -> Option<(Arc<Journal>, Collected)> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let mut collected = Collected::default();
    let options = JournalOptions {
        segment_len_bytes: SEGMENT,
        write_via: via,
        free_bytes_min: 0,
        ..JournalOptions::new(directory.to_owned(), writers)
    };
    let recovered = recover(&disk, directory, SEGMENT, &mut collected).expect("recovers");
    let on_durable = move |durable: tally_ledger::journal::position::DurableLsn| {
        let before = seen.swap(durable.end().get(), Ordering::SeqCst);
        assert!(before < durable.end().get(), "durable rises");
    };
    match Journal::start(disk, options, &recovered, Box::new(on_durable)) {
        Ok(journal) => Some((journal, collected)),
        Err(StartError::Uring(error)) => {
            println!("skipped: io_uring is not permitted here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_threads_wrote_comes_back_in_order_and_is_durable_when_it_says_so() {
    for via in [WriteVia::Blocking, WriteVia::Uring, WriteVia::Auto] {
        let place = tempfile::tempdir().expect("a directory");
        let mut expected = Vec::new();
        for run in 0..2 {
            let seen = Arc::new(AtomicU64::new(0));
            let Some((journal, collected)) = start(place.path(), via, 3, seen.clone()) else { break };
            assert_eq!(collected.records, expected, "{via:?}, run {run}");
            let threads: Vec<_> = (0..3)
                .map(|index| {
                    let (journal, mut writer) = (journal.clone(), journal.writer(index));
                    std::thread::spawn(move || {
                        let mut written = Vec::new();
                        for round in 0..400_u128 {
                            let id = (index as u128 + 1) << 64 | round;
                            let bodies = vec![body(id, round % 5 == 0); 1 + (round % 7) as usize];
                            while writer.secure(bodies.len() as u64 * 232).is_err() {
                                std::thread::yield_now();
                            }
                            written.extend(append(&mut writer, &bodies, 0));
                            if round % 100 == 0 {
                                let last = written.last().expect("just written").clone();
                                assert!(journal.wait_durable(last.lsn));
                                assert_eq!(journal.read_record(last.lsn).expect("is durable"), last);
                            }
                        }
                        written
                    })
                })
                .collect();
            let mut written: Vec<_> =
                threads.into_iter().flat_map(|thread| thread.join().expect("does not panic")).collect();
            written.sort_by_key(|record| record.lsn);
            let end = journal.end();
            assert!(journal.wait_durable_end(end) && journal.durable().end() >= end);
            assert!(written.is_sorted_by(|a, b| a.timestamp < b.timestamp), "stamps rise with positions");
            expected.append(&mut written);
            journal.stop();
            assert!(seen.load(Ordering::SeqCst) > end.get(), "the stop is marked in the log");
            assert!(!journal.wait_durable_end(Lsn::new(u64::MAX)), "a stopped journal keeps nobody waiting");
        }
    }
}

#[test]
fn a_single_record_becomes_durable_without_company() {
    for via in [WriteVia::Blocking, WriteVia::Uring] {
        let place = tempfile::tempdir().expect("a directory");
        let Some((journal, _)) = start(place.path(), via, 1, Arc::default()) else { continue };
        let mut writer = journal.writer(0);
        for id in 1..50 {
            let record = append(&mut writer, &[body(id, false)], 0).remove(0);
            assert!(journal.wait_durable(record.lsn), "the flusher was woken");
        }
        let stats = journal.stats();
        assert_eq!(stats.records.load(Ordering::Relaxed), 49);
        assert_eq!(stats.flushes.load(Ordering::Relaxed), 50, "one each, and the mark at the start");
        let buckets: u64 = stats.flush_buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        assert_eq!(buckets, 50);
    }
}
