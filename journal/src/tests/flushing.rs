//! The running journal on the real disk, with both ways of writing.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::segment::list_segments;
use crate::{DiskFile, Journal, JournalOptions, OpenMode, ReadError, RealDisk, StartError, WriteVia};

/// A journal in a fresh directory; `None`, said aloud, where the kernel does not permit `via`.
fn start(directory: &Path, via: WriteVia, writers: usize, seen: Arc<AtomicU64>) -> Option<(Arc<Journal>, Vec<Record>)> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let options = JournalOptions {
        segment_len_bytes: SEGMENT,
        write_via: via,
        free_bytes_min: 0,
        ..JournalOptions::new(directory.to_owned(), writers)
    };
    let (recovered, collected) = recover(&*disk, directory, SEGMENT).expect("recovers");
    let on_durable = move |durable: tally_ledger::journal::position::DurableLsn| {
        let before = seen.swap(durable.end().get(), Ordering::SeqCst);
        assert!(before < durable.end().get(), "durable rises");
    };
    match Journal::start(disk, options, &recovered, Box::new(on_durable)) {
        Ok(journal) => Some((Arc::new(journal), collected)),
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
            assert_eq!(collected, expected, "{via:?}, run {run}");
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
                            // Every third record is flushed by whoever wrote it, if nobody else has the turn.
                            if round % 3 == 0 {
                                writer.hush();
                            }
                            written.extend(append(&mut writer, &bodies, 0));
                            if writer.unhush() {
                                journal.flush_here();
                            }
                            if round % 100 == 0 {
                                let last = written.last().expect("just written").clone();
                                assert!(journal.wait_durable(last.lsn));
                                let bytes = journal.reader().bytes(last.lsn, last.body.len_bytes(), journal.durable());
                                assert_eq!(Record::decode(&bytes.expect("is durable")).expect("a record"), last);
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
        let buckets: u64 = stats.flush_times.read().buckets.iter().sum();
        assert_eq!(buckets, 50);
    }
}

#[test]
fn a_writer_flushes_its_only_record_itself() {
    for via in [WriteVia::Blocking, WriteVia::Uring] {
        let place = tempfile::tempdir().expect("a directory");
        let Some((journal, _)) = start(place.path(), via, 1, Arc::default()) else { continue };
        let mut writer = journal.writer(0);
        let sleeps = || journal.stats().sleeps.load(Ordering::Relaxed);
        let mut here = 0;
        // Over several segments: both ways of writing find the file that is next.
        for id in 1..200 {
            let woken = sleeps();
            writer.hush();
            let records = append(&mut writer, &vec![body(id, true); 100], 0);
            assert!(writer.unhush(), "the flusher was not woken");
            assert!(!writer.unhush(), "once");
            journal.flush_here();
            let last = records.last().expect("just written").lsn;
            here += u64::from(journal.durable().covers(last) && sleeps() == woken);
            assert!(journal.wait_durable(last));
            if id % 10 == 0 {
                let record = append(&mut writer, &[body(1_000 + id, false)], 0).remove(0);
                assert!(journal.wait_durable(record.lsn), "the flusher goes on in the same files");
            }
        }
        assert!(here > 0, "no flush was done here: the disk took over half a millisecond for each?");
        journal.stop();
        drop(journal);
        let (_, records) = recover(&RealDisk::new(true), place.path(), SEGMENT).expect("recovers");
        assert_eq!(records.len(), 199 * 100 + 19);
    }
}

/// A mark follows the last group of a journal that has nothing to do, once.
#[test]
fn an_idle_journal_says_that_its_last_group_was_durable() {
    let place = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let (recovered, _) = recover(&*disk, place.path(), SEGMENT).expect("an empty directory");
    let idle = std::time::Duration::from_millis(50);
    let options = JournalOptions {
        segment_len_bytes: SEGMENT,
        write_via: WriteVia::Blocking,
        free_bytes_min: 0,
        mark_after_idle: Some(idle),
        ..JournalOptions::new(place.path().to_owned(), 1)
    };
    let journal = Journal::start(disk.clone(), options, &recovered, Box::new(|_| {})).expect("starts");
    let mut writer = journal.writer(0);
    let record = append(&mut writer, &[body(1, false)], 0).remove(0);
    assert!(journal.wait_durable(record.lsn));
    let marked = Lsn::new(journal.durable().end().get() + 1);
    assert!(journal.wait_durable_end(marked), "the mark came");
    std::thread::sleep(3 * idle);
    assert_eq!(journal.stats().flushes.load(Ordering::Relaxed), 3, "the mark at the start, the record, one mark");
    // The record's block, as if it had rotted: without the mark it would be cut off.
    let path = crate::segment::segment_path(place.path(), 0);
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[record.lsn.get() as usize + 20] ^= 1;
    journal.stop();
    std::fs::write(&path, bytes).expect("writes");
    let error = recover(&*disk, place.path(), SEGMENT).expect_err("refuses");
    assert!(matches!(error, RecoveryError::Lost { .. }), "{error}");
}

/// What lies wholly below is given up and recycled; what is above stays readable.
#[test]
fn segments_below_a_position_are_given_up() {
    let place = tempfile::tempdir().expect("a directory");
    let (journal, _) =
        start(place.path(), WriteVia::Blocking, 1, Arc::default()).expect("blocking calls are permitted");
    let mut writer = journal.writer(0);
    let mut written = Vec::new();
    while journal.end().get() < 3 * SEGMENT + SEGMENT / 2 {
        while writer.secure(100 * 184).is_err() {
            std::thread::yield_now();
        }
        written.extend(append(&mut writer, &vec![body(1, false); 100], 0));
    }
    assert!(journal.wait_durable_end(journal.end()));
    journal.retire_below(Lsn::new(2 * SEGMENT + SEGMENT / 2)).expect("lists");
    assert_eq!(journal.reader().oldest(), Lsn::new(2 * SEGMENT));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while list_segments(&**journal.disk(), place.path()).expect("lists")[0] < 2 {
        assert!(std::time::Instant::now() < deadline, "old segments stay");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let read = |record: &Record| journal.reader().bytes(record.lsn, record.body.len_bytes(), journal.durable());
    for record in &written {
        match read(record) {
            Ok(bytes) => assert_eq!(&Record::decode(&bytes).expect("a record"), record),
            Err(ReadError::Retired { at, oldest }) => assert!(at == record.lsn && at < oldest),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(read(&written[0]), Err(ReadError::Retired { .. })));
    assert!(read(written.last().expect("some")).is_ok());
    let beyond = journal.reader().bytes(Lsn::new(journal.end().get() + SEGMENT), 8, journal.durable());
    assert!(matches!(beyond, Err(ReadError::NotDurable(_))));
}

/// The real disk, until its group writes begin to fail.
struct FailingDisk(RealDisk);
struct FailingFile(Box<dyn DiskFile>, AtomicU64);

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        Ok(if mode == OpenMode::WriteDurable { Box::new(FailingFile(file, AtomicU64::new(0))) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
        self.0.list(directory)
    }
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.0.create_directory(directory)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_directory(directory)
    }
    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        self.0.free_bytes(directory)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The mark at the start, and one group.
        match self.1.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => self.0.write_at(bytes, offset),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.0.allocate(len_bytes)
    }
    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }
    fn as_std(&self) -> Option<&std::fs::File> {
        None
    }
}

/// The test runs itself again as a process of its own, which must die and not answer.
#[test]
fn a_failed_flush_stops_the_process() {
    const CHILD: &str = "TALLY_TEST_FAILING_DISK";
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = std::path::PathBuf::from(directory);
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk(RealDisk::new(true)));
        let options = JournalOptions {
            segment_len_bytes: SEGMENT,
            write_via: WriteVia::Blocking,
            free_bytes_min: 0,
            ..JournalOptions::new(directory.clone(), 1)
        };
        let (recovered, _) = recover(&*disk, &directory, SEGMENT).expect("an empty directory");
        let journal = Journal::start(disk, options, &recovered, Box::new(|_| {})).expect("starts");
        let mut writer = journal.writer(0);
        for id in 1..=2 {
            let record = append(&mut writer, &[body(id, false)], 0).remove(0);
            assert!(journal.wait_durable(record.lsn));
            println!("durable {id}");
        }
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let child = std::process::Command::new(std::env::current_exe().expect("runs from a file"))
        .args(["--exact", "--nocapture", "tests::flushing::a_failed_flush_stops_the_process"])
        .env(CHILD, place.path())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(said.contains("durable 1") && !said.contains("durable 2"), "{said}");
}
