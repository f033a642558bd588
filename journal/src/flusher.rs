//! The flusher: closes what was accepted, writes it, says that it is durable. While one group is being
//! written the next gathers, so that the disk sets the pace and group commit needs no timer.
//!
//! **Invariants:** one group is in flight at a time, and groups are written in order, so that a whole group
//! proves that everything before it was durable; a write that failed is never tried again.

use std::io;
use std::time::{Duration, Instant};

use tally_ledger::journal::cursor::GroupExtent;
use tally_ledger::journal::group::{Chain, Epoch};
use tally_ledger::journal::position::{DurableLsn, Positions};
use tally_protocol::Lsn;

use crate::log::{Log, SealedBytes};
use crate::stats::JournalStats;
use crate::sync::Arc;

/// Puts a group where it belongs; it is durable when this returns.
pub trait GroupWriter {
    /// Writes `bytes` at `start` of the log.
    fn write(&mut self, start: Lsn, bytes: SealedBytes) -> io::Result<()>;
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was no record.
    Idle,
    /// The next group is closed, but some writer has not filled its part yet.
    Filling,
    /// A group was written.
    Flushed {
        /// Everything below is durable.
        durable: DurableLsn,
        /// The group's checksum.
        chain: Chain,
    },
}

/// One step at a time: the thread that runs it, or a simulator, decides when.
#[derive(Debug)]
pub struct Flusher<W> {
    log: Arc<Log>,
    writer: W,
    stats: std::sync::Arc<JournalStats>,
    positions: Positions,
    epoch: Epoch,
    chain: Chain,
    closed: Option<GroupExtent>,
    last_took: Duration,
}

impl<W: GroupWriter> Flusher<W> {
    /// Goes on at `start`, the end of what was recovered, behind a group with checksum `chain`.
    pub fn new(
        log: Arc<Log>,
        writer: W,
        stats: std::sync::Arc<JournalStats>,
        start: Lsn,
        epoch: Epoch,
        chain: Chain,
    ) -> Self {
        Self {
            log,
            writer,
            stats,
            positions: Positions::recovered(start),
            epoch,
            chain,
            closed: None,
            last_took: Duration::ZERO,
        }
    }

    /// Writes the next group, if there is one and all of it has been filled.
    ///
    /// # Errors
    /// When the disk failed: what it has kept is unknown.
    pub fn step(&mut self) -> io::Result<Step> {
        self.step_with(W::write)
    }

    /// As [`Self::step`], where the calling thread has its own way of writing to the writer's files.
    ///
    /// # Errors
    /// When the disk failed: what it has kept is unknown.
    pub fn step_with(&mut self, write: impl FnOnce(&mut W, Lsn, SealedBytes) -> io::Result<()>) -> io::Result<Step> {
        let Some(extent) = self.closed.take().or_else(|| self.log.close()) else { return Ok(Step::Idle) };
        if !self.log.is_filled(extent.end) {
            self.closed = Some(extent);
            return Ok(Step::Filling);
        }
        self.flush(&extent, write)
    }

    /// The checksum of the last group.
    pub const fn chain(&self) -> Chain {
        self.chain
    }

    /// How long the disk took for the last group.
    pub const fn last_took(&self) -> Duration {
        self.last_took
    }

    /// Whether the next step may get further than the last.
    pub fn is_ready(&self) -> bool {
        match &self.closed {
            Some(extent) => self.log.is_filled(extent.end),
            None => self.log.has_records(),
        }
    }

    /// Writes a group without records, which says in the log that everything before it is durable: damage
    /// there will be refused, where without it the last group would pass for a torn one.
    pub fn mark(&mut self) -> io::Result<Step> {
        let extent = self.log.close_even_empty();
        self.flush(&extent, W::write)
    }

    /// As [`Self::mark`], while others may write: a group that is not empty goes first.
    ///
    /// # Errors
    /// When the disk failed: what it has kept is unknown.
    pub fn mark_if_idle(&mut self) -> io::Result<Step> {
        let extent = self.closed.take().unwrap_or_else(|| self.log.close_or_mark());
        if !self.log.is_filled(extent.end) {
            self.closed = Some(extent);
            return Ok(Step::Filling);
        }
        self.flush(&extent, W::write)
    }

    fn flush(
        &mut self,
        extent: &GroupExtent,
        write: impl FnOnce(&mut W, Lsn, SealedBytes) -> io::Result<()>,
    ) -> io::Result<Step> {
        let padded_end = Lsn::new(extent.padded_end(self.log.geometry()));
        self.positions.handle_accepted(padded_end);
        self.chain = self.log.seal(extent, self.epoch, self.chain, self.positions.durable());
        self.positions.handle_submitted(padded_end);
        let begun = Instant::now();
        write(&mut self.writer, extent.start, Log::sealed(&self.log, extent))?;
        let len_bytes = extent.padded_len_bytes(self.log.geometry());
        self.last_took = begun.elapsed();
        self.stats.count_flush(len_bytes, u64::from(extent.record_count), self.last_took.as_nanos() as u64);
        let durable = self.positions.handle_flushed(padded_end);
        self.log.release(durable);
        Ok(Step::Flushed { durable, chain: self.chain })
    }
}
