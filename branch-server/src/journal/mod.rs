//! The journal's hands: the log in memory, the thread that writes it, segments, checkpoints, recovery.
//!
//! ```text
//!  workers --secure, reserve, fill--> ring --seal--> flusher --O_DIRECT|O_DSYNC--> segment files
//!                                                       '--> durable position --> session threads
//! ```

pub mod checkpoint;
pub mod disk;
pub mod log;
pub mod recovery;
pub mod stats;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold};
use tally_protocol::Lsn;

pub use checkpoint::{CheckpointError, CheckpointMeta, CheckpointRequest};
pub use disk::Disk;
pub use log::{LogFull, LogWriter, Reservation};
pub use recovery::{Recovered, RecoveryError, RecoveryTarget, recover};
pub use stats::JournalStats;

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
    /// Journal kept behind the newest checkpoint; `None` for all.
    pub retention_bytes: Option<u64>,
    /// Workers that will write.
    pub writers: usize,
    /// Segments that are created and filled with zeros ahead of time.
    pub segments_ahead: usize,
    /// How fast they are filled with zeros.
    pub zero_bytes_per_second_max: u64,
    /// Looks for work before the flusher sleeps; 0 where the cores are shared.
    pub spins: u32,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing there is durable yet.
    #[error("{0} is beyond the durable end of the journal")]
    NotDurable(Lsn),
    /// No record begins there.
    #[error("no record begins at {0}")]
    NoRecord(Lsn),
    /// Removed by retention.
    #[error("{at} was removed; the journal begins at {oldest}")]
    Retired {
        /// What was asked for.
        at: Lsn,
        /// What there is.
        oldest: Lsn,
    },
    /// A durable part of the journal cannot be read back.
    #[error("the journal is damaged at {0}")]
    Damaged(Lsn),
}

/// Why the journal did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// io_uring was demanded, and the kernel does not permit it.
    #[error("io_uring is not permitted here: {0}")]
    Uring(std::io::Error),
    /// Not a power of two, or out of range.
    #[error("a segment of {0} bytes")]
    SegmentLen(u64),
}

/// Called after each flush, on the flusher's thread.
pub type OnDurable = Box<dyn Fn(DurableLsn) + Send + Sync>;

/// A running journal.
pub struct Journal {
    stats: JournalStats,
}

impl Journal {
    /// Goes on where `recovered` ended: starts the flusher and the thread that prepares segments.
    pub fn start(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        recovered: &Recovered,
        on_durable: OnDurable,
    ) -> Result<Arc<Self>, StartError> {
        let _ = (disk, options, recovered, on_durable);
        panic!("being written")
    }

    /// The end of the log for worker `index`, once for each below [`JournalOptions::writers`].
    pub fn writer(&self, index: usize) -> LogWriter {
        let _ = index;
        panic!("being written")
    }

    /// What survives a crash.
    pub fn durable(&self) -> DurableLsn {
        panic!("being written")
    }

    /// Every record so far begins below this.
    pub fn end(&self) -> Lsn {
        panic!("being written")
    }

    /// Waits until the record at `lsn` is durable. For helper threads; returns false when the journal stopped.
    pub fn wait_durable(&self, lsn: Lsn) -> bool {
        let _ = lsn;
        panic!("being written")
    }

    /// Waits until everything below `end` is durable; false when the journal stopped.
    pub fn wait_durable_end(&self, end: Lsn) -> bool {
        let _ = end;
        panic!("being written")
    }

    /// The durable record at `lsn`.
    pub fn read_record(&self, lsn: Lsn) -> Result<Record, ReadError> {
        Err(ReadError::NotDurable(lsn))
    }

    /// Passes the durable records from `from` on to `visit`, in order, until it breaks or they end.
    /// Returns where to go on: behind the last record visited.
    pub fn scan(&self, from: Lsn, visit: &mut dyn FnMut(&Record) -> ControlFlow<()>) -> Result<Lsn, ReadError> {
        let _ = visit;
        Err(ReadError::NotDurable(from))
    }

    /// Writes a checkpoint while the branch serves. `replay_from` is [`Journal::durable`], taken before the
    /// first account is read. Blocks for seconds: for a helper thread.
    pub fn write_checkpoint(
        &self,
        request: CheckpointRequest,
        replay_from: DurableLsn,
        accounts: &mut dyn Iterator<Item = Account>,
        holds: &mut dyn Iterator<Item = Hold>,
    ) -> Result<CheckpointMeta, CheckpointError> {
        let _ = (request, replay_from, accounts, holds);
        panic!("being written")
    }

    /// Counters.
    pub fn stats(&self) -> &JournalStats {
        &self.stats
    }

    /// Whether there is disk space for writes.
    pub fn writable(&self) -> bool {
        true
    }

    /// Flushes what was accepted, says so in the log, and ends the threads. All writers must be idle.
    pub fn stop(&self) {}
}
