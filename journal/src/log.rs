//! The newest part of the log, in memory: writers reserve and fill, the flusher closes and writes.
//!
//! ```text
//!            released          closed groups           open group
//!  ... free | being written | waiting | waiting | header, records ... | secured | free ...
//!           ^ start of the first group that is not durable            ^ cursor
//! ```
//!
//! **Invariants:** `cursor - released + secured + overhead <= ring`, so that a reservation cannot fail and
//! never lands on bytes that are not durable; a closed group is written only after every writer has said
//! that nothing of it is unfilled.

use std::collections::VecDeque;

use crossbeam::utils::CachePadded;
use tally_ledger::journal::cursor::{Cursor, Geometry, GroupExtent};
use tally_ledger::journal::group::{Chain, Epoch, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::{Lsn, Timestamp};

use crate::bell::Bell;
use crate::ring::Ring;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};

/// What a writer asks for at once, so that most calls of [`LogWriter::secure`] only compare.
const SECURE_LEN_BYTES: u64 = 64 << 10;
/// In place of a position: this writer has nothing unfilled.
const FILLED: u64 = u64::MAX;

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

/// The log in memory.
#[derive(Debug)]
pub struct Log {
    geometry: Geometry,
    ring: Ring,
    state: Mutex<State>,
    /// Per writer: its lowest unfilled position. Stored with Release by the writer, loaded with Acquire by
    /// the flusher, who thereby sees the bytes.
    fillings: Box<[CachePadded<AtomicU64>]>,
    /// The start of the first group that is not durable. Stored with Release once the disk has taken the
    /// bytes below, loaded with Acquire by a writer that is about to reuse them.
    released: CachePadded<AtomicU64>,
    writable: AtomicBool,
    refused: Refused,
    bell: Bell,
}

/// How often there was no room for a writer, by what was full. For the metrics: nothing depends on them.
#[derive(Debug, Default)]
pub struct Refused {
    /// The ring: the disk is behind.
    pub ring: std::sync::atomic::AtomicU64,
    /// The disk.
    pub disk: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct State {
    cursor: Cursor,
    closed: VecDeque<GroupExtent>,
    /// Promised to writers and not yet reserved.
    secured_len_bytes: u64,
}

impl Log {
    /// A log that goes on at `start` with stamps after `last_timestamp`, for `writers` threads. `bell` wakes
    /// the flusher.
    pub fn new(geometry: Geometry, start: Lsn, last_timestamp: Timestamp, writers: usize, bell: Bell) -> Self {
        let ring_len = usize::try_from(geometry.segment_len_bytes).expect("a segment's length fits in memory");
        let groups_max = 2 * geometry.segment_len_bytes / geometry.group_len_bytes_soft_max + 4;
        Self {
            geometry,
            ring: Ring::new(ring_len),
            state: Mutex::new(State {
                cursor: Cursor::new(&geometry, start, last_timestamp),
                closed: VecDeque::with_capacity(groups_max as usize),
                secured_len_bytes: 0,
            }),
            fillings: (0..writers).map(|_| CachePadded::new(AtomicU64::new(FILLED))).collect(),
            released: CachePadded::new(AtomicU64::new(start.get())),
            writable: AtomicBool::new(true),
            refused: Refused::default(),
            bell,
        }
    }

    /// How often there was no room.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The sizes it is made of.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Wakes the flusher.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Every record so far begins below this.
    pub fn end(&self) -> Lsn {
        self.state.lock().cursor.end()
    }

    /// The highest position without a gap: every record that begins below it has been filled.
    pub fn accepted(&self) -> Lsn {
        let end = self.end();
        self.fillings.iter().fold(end, |lowest, filling| lowest.min(Lsn::new(filling.load(Ordering::Acquire))))
    }

    /// The highest stamp handed out.
    pub fn last_timestamp(&self) -> Timestamp {
        self.state.lock().cursor.last_timestamp()
    }

    /// Makes every later stamp lie behind `stamp`. Returns where the log ended then: every record below may be older,
    /// every one from there on is younger.
    pub fn pass(&self, stamp: Timestamp) -> Lsn {
        let mut state = self.state.lock();
        state.cursor.pass(stamp);
        state.cursor.end()
    }

    /// Whether writers are promised space at all.
    #[inline]
    pub fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Stops or resumes promising space; what was promised stands.
    pub fn set_writable(&self, writable: bool) {
        self.writable.store(writable, Ordering::Relaxed);
    }

    /// Promises at least `need` bytes, rather `want`, if the ring has them.
    fn secure(&self, need: u64, want: u64) -> Option<u64> {
        let mut state = self.state.lock();
        // Pairs with the store in `release`.
        let used = state.cursor.end().get() - self.released.load(Ordering::Acquire);
        let taken = used + state.secured_len_bytes + self.geometry.overhead_len_bytes_max();
        let free = self.geometry.segment_len_bytes.saturating_sub(taken);
        let granted = if free >= want { want } else { need };
        if granted > free {
            return None;
        }
        state.secured_len_bytes += granted;
        Some(granted)
    }

    /// Closes the next group that is to be written; `None` when there is no record in the log.
    pub fn close(&self) -> Option<GroupExtent> {
        let mut state = self.state.lock();
        state.closed.pop_front().or_else(|| state.cursor.close(&self.geometry))
    }

    /// Closes the open group though it may have no record. Only with idle writers and nothing closed.
    pub fn close_even_empty(&self) -> GroupExtent {
        let mut state = self.state.lock();
        assert!(state.closed.is_empty(), "{} groups are waiting before the mark", state.closed.len());
        state.cursor.close_even_empty(&self.geometry)
    }

    /// The next group that is to be written, or one without records where there is none.
    pub fn close_or_mark(&self) -> GroupExtent {
        let mut state = self.state.lock();
        match state.closed.pop_front() {
            Some(extent) => extent,
            None => state.cursor.close_even_empty(&self.geometry),
        }
    }

    /// Whether [`close`](Self::close) would find a group.
    pub fn has_records(&self) -> bool {
        let state = self.state.lock();
        !state.closed.is_empty() || state.cursor.has_records()
    }

    /// Whether everything below `end` has been filled, for an `end` that [`close`](Self::close) returned:
    /// no reservation below it can be made any more.
    pub fn is_filled(&self, end: Lsn) -> bool {
        // Pairs with the stores in `reserve` and `fill`.
        self.fillings.iter().all(|filling| filling.load(Ordering::Acquire) >= end.get())
    }

    /// Writes the header in front of a closed and filled group, and zeros behind it.
    pub fn seal(&self, extent: &GroupExtent, epoch: Epoch, previous: Chain, durable: DurableLsn) -> Chain {
        let payload_len_bytes = extent.end.get() - extent.start.get() - GROUP_HEADER_LEN_BYTES as u64;
        let header = GroupHeader {
            epoch,
            start: extent.start,
            payload_len_bytes: u32::try_from(payload_len_bytes).expect("a group is at most a reservation long"),
            record_count: extent.record_count,
            previous,
            durable: durable.end(),
            last_timestamp: extent.last_timestamp,
        };
        let offset = self.geometry.offset_of(extent.start.get()) as usize;
        let padded_len_bytes = extent.padded_len_bytes(&self.geometry) as usize;
        // SAFETY: the group is closed and filled, so no writer has a reservation in it, and its bytes are
        // not reused before they are released, which is this thread's to do.
        unsafe {
            self.ring.write(offset, padded_len_bytes, |bytes| {
                let (head, rest) = bytes.split_at_mut(GROUP_HEADER_LEN_BYTES);
                let (payload, padding) = rest.split_at_mut(payload_len_bytes as usize);
                padding.fill(0);
                header.seal(head.try_into().expect("split at its length"), payload)
            })
        }
    }

    /// A sealed group's bytes, padding included.
    pub fn sealed(log: &Arc<Self>, extent: &GroupExtent) -> SealedBytes {
        SealedBytes {
            log: log.clone(),
            offset: log.geometry.offset_of(extent.start.get()) as usize,
            len_bytes: extent.padded_len_bytes(&log.geometry) as usize,
        }
    }

    /// Everything below `end` is durable: its bytes may be used again.
    pub fn release(&self, durable: DurableLsn) {
        self.released.store(durable.end().get(), Ordering::Release);
    }
}

/// The bytes of a sealed group, on their way to the disk. Exists only between seal and release.
#[derive(Debug)]
pub struct SealedBytes {
    log: Arc<Log>,
    offset: usize,
    len_bytes: usize,
}

impl SealedBytes {
    /// Size, padding included.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Lets `read` see the bytes.
    pub fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: sealed bytes are not written before they are released.
        unsafe { self.log.ring.read(self.offset, self.len_bytes, read) }
    }

    /// Where they lie, for a system call.
    #[cfg(not(feature = "loom"))]
    pub(super) fn address(&self) -> *const u8 {
        self.log.ring.address(self.offset, self.len_bytes)
    }
}

/// A place in the log, and the time. Must be filled: everything behind it waits.
#[derive(Debug)]
#[must_use = "everything behind an unfilled reservation waits for ever"]
pub struct Reservation {
    lsn: Lsn,
    timestamp: Timestamp,
    len_bytes: u64,
}

impl Reservation {
    /// Position of its first byte: of its first record.
    #[inline]
    pub const fn lsn(&self) -> Lsn {
        self.lsn
    }
    /// The stamp of its first record; each further record's is one nanosecond later.
    #[inline]
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

/// A writing thread's end of the log.
#[derive(Debug)]
pub struct LogWriter {
    log: Arc<Log>,
    index: usize,
    secured_len_bytes: u64,
    /// Whether a fill rings; and if not, whether one would have.
    is_hushed: bool,
    owes_ring: bool,
}

impl LogWriter {
    /// The end for writer `index`; there must be no other one for it.
    pub fn new(log: Arc<Log>, index: usize) -> Self {
        assert!(index < log.fillings.len(), "writer {index} of {}", log.fillings.len());
        Self { log, index, secured_len_bytes: 0, is_hushed: false, owes_ring: false }
    }

    /// Makes sure that `len_bytes` can be reserved; call before the first lock. What was secured and not
    /// reserved stays secured.
    #[inline]
    pub fn secure(&mut self, len_bytes: u64) -> Result<(), LogFull> {
        if !self.log.writable() {
            self.log.refused.disk.fetch_add(1, Ordering::Relaxed);
            return Err(LogFull::Disk);
        }
        if self.secured_len_bytes < len_bytes {
            let need = len_bytes - self.secured_len_bytes;
            let chunk = SECURE_LEN_BYTES.min(self.log.geometry.segment_len_bytes / 64);
            let Some(granted) = self.log.secure(need, need.max(chunk)) else {
                self.log.refused.ring.fetch_add(1, Ordering::Relaxed);
                return Err(LogFull::Ring);
            };
            self.secured_len_bytes += granted;
        }
        Ok(())
    }

    /// Takes the next position and time, in a few tens of nanoseconds, under the account locks.
    ///
    /// # Panics
    /// When that much was not secured, or the last reservation was not filled.
    #[inline]
    pub fn reserve(&mut self, len_bytes: u64, record_count: u32, now: Timestamp) -> Reservation {
        let secured = self.secured_len_bytes;
        assert!(len_bytes <= secured, "reservation of {len_bytes} bytes with {secured} secured");
        self.secured_len_bytes -= len_bytes;
        let filling = &self.log.fillings[self.index];
        // Only this thread stores to it.
        assert!(filling.load(Ordering::Relaxed) == FILLED, "a reservation before this one was not filled");
        let mut state = self.log.state.lock();
        let placement = state.cursor.reserve(&self.log.geometry, len_bytes, record_count, now);
        state.closed.extend(placement.closed);
        state.secured_len_bytes -= len_bytes;
        // Under the lock, so that whoever closes the group sees it. Release: it may replace the `FILLED` by
        // which the flusher would have seen the bytes of the reservation before.
        filling.store(placement.lsn.get(), Ordering::Release);
        drop(state);
        let released = self.log.released.load(Ordering::Acquire);
        let end = placement.lsn.get() + len_bytes;
        assert!(
            end - released <= self.log.geometry.segment_len_bytes,
            "the log reached {end} over {released}, which is not durable"
        );
        Reservation { lsn: placement.lsn, timestamp: placement.timestamp, len_bytes }
    }

    /// Lets `write` put the records into the log, outside the account locks, and wakes the flusher if it
    /// sleeps. What the records say must have been published before: checkpoints rely on it.
    #[inline]
    pub fn fill(&mut self, reservation: Reservation, write: impl FnOnce(&mut [u8])) {
        let offset = self.log.geometry.offset_of(reservation.lsn.get()) as usize;
        // SAFETY: the range was reserved by this writer, nobody else has it until the store below says
        // that it is filled, and `reserve` made sure that its former content is durable.
        unsafe { self.log.ring.write(offset, reservation.len_bytes as usize, write) };
        // Pairs with the load in `is_filled`.
        self.log.fillings[self.index].store(FILLED, Ordering::Release);
        if self.is_hushed {
            self.owes_ring = true;
        } else {
            self.log.bell.ring();
        }
    }

    /// From here on a fill does not wake the flusher: whoever calls this also calls [`Self::unhush`], soon.
    #[inline]
    pub fn hush(&mut self) {
        self.is_hushed = true;
    }

    /// Ends [`Self::hush`]. Returns whether there is something that the flusher was not woken for, and must be.
    #[inline]
    #[must_use = "the flusher sleeps until it is woken"]
    pub fn unhush(&mut self) -> bool {
        self.is_hushed = false;
        std::mem::take(&mut self.owes_ring)
    }
}
