//! A running journal: the log, its flusher and its files, behind one handle.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tally_ledger::journal::group::{Chain, Epoch};
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::{Lsn, Timestamp};

use crate::disk::Disk;
use crate::flushing::{FlusherByHand, Flushing, Shared};
use crate::log::{Log, LogWriter, Refused};
use crate::reader::Reader;
use crate::recovery::Recovered;
use crate::scheduling;
use crate::segment::list_segments;
use crate::stats::JournalStats;
use crate::turns::{self, Turns};

/// Which system calls write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVia {
    /// io_uring where it is permitted, else blocking calls with one warning.
    Auto,
    /// io_uring, or do not start.
    Uring,
    /// Blocking calls.
    Blocking,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Where its files lie.
    pub directory: PathBuf,
    /// A power of two, 1 MiB to 4 GiB; must stay what it was.
    pub segment_len_bytes: u64,
    /// Which system calls write.
    pub write_via: WriteVia,
    /// Free space below which writes are refused.
    pub free_bytes_min: u64,
    /// Threads that will write.
    pub writers: usize,
    /// Segments that are created and filled with zeros ahead of time.
    pub segments_ahead: usize,
    /// How fast they are filled with zeros.
    pub zero_bytes_per_second_max: u64,
    /// Looks for work before the flusher sleeps; 0 where the cores are shared.
    pub spins: u32,
    /// After this long without a record the log says that the last group was durable, as it does at a stop: damage
    /// there is then refused, where without it the group passes for a torn one. `None` where more is written soon.
    pub mark_after_idle: Option<Duration>,
}

impl JournalOptions {
    /// The defaults, for `writers` threads.
    pub fn new(directory: PathBuf, writers: usize) -> Self {
        Self {
            directory,
            segment_len_bytes: 64 << 20,
            write_via: WriteVia::Auto,
            free_bytes_min: 512 << 20,
            writers,
            segments_ahead: 2,
            zero_bytes_per_second_max: 160 << 20,
            spins: 0,
            mark_after_idle: None,
        }
    }
}

/// Why the journal did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk failed.
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    /// io_uring was demanded, and the kernel does not permit it.
    #[error("io_uring is not permitted here: {0}")]
    Uring(io::Error),
    /// Not a power of two, or out of range.
    #[error("a journal segment cannot have {0} bytes")]
    SegmentLen(u64),
}

/// Called after each flush, on the flusher's thread.
pub type OnDurable = Box<dyn Fn(DurableLsn) + Send + Sync>;

/// A running journal.
pub struct Journal {
    disk: Arc<dyn Disk>,
    options: JournalOptions,
    log: Arc<Log>,
    shared: Shared,
    /// `None` where it is flushed by hand.
    turns: Option<Arc<Turns>>,
    reader: Arc<Reader>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    writers_given: Mutex<Vec<bool>>,
}

impl Journal {
    /// Goes on where `recovered` ended: starts the flusher and the thread that prepares segments. Returns
    /// once a first group, without records, is durable: from here on the disk is known to take writes.
    pub fn start(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        recovered: &Recovered,
        on_durable: OnDurable,
    ) -> Result<Self, StartError> {
        let flushing = Flushing::new(&disk, &options, recovered, on_durable)?;
        let shared = flushing.shared.clone();
        let (started, told) = mpsc::channel();
        let run = move || flushing.run(&started);
        let flusher = std::thread::Builder::new().name("journal-flusher".into()).spawn(run)?;
        let (log, turns) = match told.recv() {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return Err(error),
            Err(mpsc::RecvError) => return Err(io::Error::other("the flusher did not start").into()),
        };
        let preparer = {
            let (segments, log) = (shared.segments.clone(), log.clone());
            let work = move || segments.prepare_until_stopped(&log);
            scheduling::spawn_background("journal-segments", work)?
        };
        Self::assemble(disk, options, shared, log, Some(turns), vec![flusher, preparer])
    }

    /// As [`Journal::start`], without threads: nothing is flushed but by the [`FlusherByHand`], always with blocking calls.
    /// For a simulator.
    ///
    /// # Errors
    /// When the disk does not take writes, or the options cannot be met.
    pub fn start_by_hand(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        recovered: &Recovered,
        on_durable: OnDurable,
    ) -> Result<(Self, FlusherByHand), StartError> {
        let flushing = Flushing::new(&disk, &options, recovered, on_durable)?;
        let shared = flushing.shared.clone();
        let (log, flusher) = flushing.by_hand()?;
        Ok((Self::assemble(disk, options, shared, log, None, Vec::new())?, flusher))
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        shared: Shared,
        log: Arc<Log>,
        turns: Option<Arc<Turns>>,
        threads: Vec<JoinHandle<()>>,
    ) -> Result<Self, StartError> {
        let reader = Arc::new(Reader::open(disk.clone(), options.directory.clone(), *log.geometry())?);
        let writers_given = Mutex::new(vec![false; options.writers]);
        Ok(Self { disk, options, log, shared, turns, reader, threads: Mutex::new(threads), writers_given })
    }

    /// The end of the log for writer `index`.
    ///
    /// # Panics
    /// When there is no such writer, or it has been given its end before.
    pub fn writer(&self, index: usize) -> LogWriter {
        let given = std::mem::replace(&mut self.writers_given.lock()[index], true);
        assert!(!given, "writer {index} was given out before");
        LogWriter::new(self.log.clone(), index)
    }

    /// Flushes on the calling thread what was accepted, if the flusher is at rest and the disk is quick; else wakes the
    /// flusher. For a writer that [hushed](LogWriter::hush) its record and has nothing else to do than wait for it.
    pub fn flush_here(&self) {
        let flushed = self.turns.as_ref().map_or(Ok(false), |turns| turns.take_if_quick());
        if !flushed.unwrap_or_else(|error| turns::give_up(&error)) {
            self.log.bell().ring();
        }
    }

    /// What survives a crash.
    #[inline]
    pub fn durable(&self) -> DurableLsn {
        self.shared.published.durable()
    }

    /// Every record so far begins below this.
    #[inline]
    pub fn end(&self) -> Lsn {
        self.log.end()
    }

    /// The highest position without an unfilled record below it.
    pub fn accepted(&self) -> Lsn {
        self.log.accepted()
    }

    /// The highest stamp handed out.
    pub fn last_timestamp(&self) -> Timestamp {
        self.log.last_timestamp()
    }

    /// Makes every record to come younger than `stamp`. Returns the end of the log as it was then: what is older lies
    /// below it.
    pub fn pass(&self, stamp: Timestamp) -> Lsn {
        self.log.pass(stamp)
    }

    /// Waits until the record at `lsn` is durable. For helper threads; false when the journal stopped.
    pub fn wait_durable(&self, lsn: Lsn) -> bool {
        self.shared.published.wait(|durable| durable.covers(lsn))
    }

    /// Waits until everything below `end` is durable; false when the journal stopped.
    pub fn wait_durable_end(&self, end: Lsn) -> bool {
        self.shared.published.wait(|durable| durable.reaches(end))
    }

    /// The oldest position that is still on disk.
    pub fn oldest(&self) -> Lsn {
        self.reader.oldest()
    }

    /// Reads durable bytes back.
    pub const fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// What is durable, and the checksum of the group before its end: what a checkpoint has to know.
    pub fn anchor(&self) -> (DurableLsn, Chain) {
        self.shared.published.anchor()
    }

    /// Which run this is.
    pub const fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// How it is kept.
    pub const fn options(&self) -> &JournalOptions {
        &self.options
    }

    /// Where its files lie.
    pub const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Gives up the segments that lie wholly below `keep_from`: their blocks become new segments. What says that they
    /// are not needed must be durable.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn retire_below(&self, keep_from: Lsn) -> io::Result<()> {
        let geometry = self.reader.geometry();
        let first_kept = geometry.segment_of(keep_from.get());
        let segments = list_segments(&*self.disk, &self.options.directory)?;
        let retired: Vec<_> = segments.into_iter().filter(|&number| number < first_kept).collect();
        if !retired.is_empty() {
            self.reader.forget_below(Lsn::new(first_kept * geometry.segment_len_bytes));
            self.shared.segments.retire(&retired);
        }
        Ok(())
    }

    /// Counters.
    pub fn stats(&self) -> &JournalStats {
        &self.shared.stats
    }

    /// How often there was no room for a record.
    pub fn refused(&self) -> &Refused {
        self.log.refused()
    }

    /// Whether there is disk space for writes.
    #[inline]
    pub fn writable(&self) -> bool {
        self.log.writable()
    }

    /// Flushes what was accepted, says in the log that it is durable, and ends the threads. All writers
    /// must be idle.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.log.bell().ring();
        self.shared.segments.stop();
        for thread in self.threads.lock().drain(..) {
            // A panic there has been reported, and has stopped the process in a release build.
            let _ = thread.join();
        }
        self.shared.published.stop();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("options", &self.options).field("durable", &self.durable()).finish()
    }
}
