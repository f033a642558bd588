//! A journal without threads: the test says when to flush.

use std::io;
use std::sync::Arc;

use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::record::Record;

use super::memory_disk::MemoryDisk;
use super::records::{append, body};
use super::{SEGMENT_LEN_BYTES, directory};
use crate::bell::Bell;
use crate::blocking::BlockingWriter;
use crate::disk::Disk;
use crate::flusher::{Flusher, Step};
use crate::log::{Log, LogWriter};
use crate::recovery::Recovered;
use crate::segment::{SegmentOptions, Segments};
use crate::stats::JournalStats;

/// See the module.
pub struct Manual {
    /// The log in memory.
    pub log: Arc<Log>,
    /// Writes it when it is told to.
    pub flusher: Flusher<BlockingWriter>,
    /// As many as were asked for.
    pub writers: Vec<LogWriter>,
    /// Its files.
    pub segments: Arc<Segments>,
    /// What [`Manual::write`] appended.
    pub written: Vec<Record>,
    next_id: u128,
}

impl Manual {
    /// Goes on where `recovered` ended, behind a first mark.
    ///
    /// # Errors
    /// When the disk has stopped.
    ///
    /// # Panics
    /// Never: the length of a segment is one that the journal allows.
    pub fn start(disk: &MemoryDisk, recovered: &Recovered, writers: usize) -> io::Result<Self> {
        let geometry = Geometry::for_segments(SEGMENT_LEN_BYTES).expect("in range");
        let stats = Arc::new(JournalStats::default());
        let options = SegmentOptions { ahead: 1, zero_bytes_per_second_max: u64::MAX, free_bytes_min: 0 };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let segments = Arc::new(Segments::open(disk, directory(), geometry, options, recovered.next, stats.clone())?);
        let bell = Bell::new(|| {});
        let log = Arc::new(Log::new(geometry, recovered.next, recovered.last_timestamp, writers, bell));
        let mut flusher = Flusher::new(
            log.clone(),
            BlockingWriter::new(segments.clone()),
            stats,
            recovered.next,
            recovered.epoch.next(),
            recovered.chain,
        );
        flusher.mark()?;
        let writers = (0..writers).map(|index| LogWriter::new(log.clone(), index)).collect();
        Ok(Self { log, flusher, writers, segments, written: Vec::new(), next_id: 1 })
    }

    /// Appends `count` records and flushes them as one group or more.
    ///
    /// # Errors
    /// When the disk has stopped.
    pub fn write(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let body = body(self.next_id, self.next_id.is_multiple_of(3));
            self.next_id += 1;
            let index = self.next_id as usize % self.writers.len();
            self.written.extend(append(&mut self.writers[index], &[body], 1_000));
        }
        self.flush()
    }

    /// The end of the log.
    pub fn end(&self) -> u64 {
        self.log.end().get()
    }

    /// Flushes what was appended.
    ///
    /// # Errors
    /// When the disk has stopped.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.flusher.step()? != Step::Idle {}
        Ok(())
    }
}
