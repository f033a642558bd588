//! The newest part of the log, in memory.

use tally_protocol::{Lsn, Timestamp};

/// Why no space could be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFull {
    /// More was accepted than the disk has taken: come back in a few milliseconds.
    #[error("the log's buffer is full")]
    Ring,
    /// Free disk space is below the reserve.
    #[error("the disk is nearly full")]
    Disk,
}

/// A place in the log, and the time. Must be filled: everything behind it waits.
#[derive(Debug)]
#[must_use = "everything behind an unfilled reservation waits for ever"]
pub struct Reservation {
    lsn: Lsn,
    timestamp: Timestamp,
    len_bytes: u32,
}

impl Reservation {
    /// Position of its first byte: of its first record.
    pub const fn lsn(&self) -> Lsn {
        self.lsn
    }
    /// The stamp of its first record; each further record's is one nanosecond later.
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

/// A worker's end of the log.
#[derive(Debug)]
pub struct LogWriter {
    secured_len_bytes: u64,
}

impl LogWriter {
    /// Promises `len_bytes` more to this writer; call before the first lock. Whatever was secured and not
    /// reserved stays secured.
    pub fn secure(&mut self, len_bytes: u64) -> Result<(), LogFull> {
        let _ = len_bytes;
        panic!("being written")
    }

    /// Takes the next position and time, in a few tens of nanoseconds, under the account locks.
    ///
    /// # Panics
    /// When that much was not secured, or the last reservation was not filled.
    pub fn reserve(&mut self, len_bytes: u64, record_count: u32, now: Timestamp) -> Reservation {
        let _ = (len_bytes, record_count, now, self.secured_len_bytes);
        panic!("being written")
    }

    /// Lets `write` put the records into the log, outside the account locks. What the records say must
    /// have been published before: checkpoints rely on it.
    pub fn fill(&mut self, reservation: Reservation, write: impl FnOnce(&mut [u8])) {
        let _ = (reservation.len_bytes, write);
        panic!("being written")
    }
}
