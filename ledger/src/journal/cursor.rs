//! Where the next record goes: arithmetic on positions, nothing else.
//!
//! ```text
//!  segment n                                             segment n + 1
//!  | header | records ... | 0 | header | records ... | 0 (rest unused) | header | records ...
//!  ^ group_start, a multiple of the block                              ^ a reservation that did not fit
//! ```
//!
//! **Invariants:** a reservation lies in one group, a group in one segment; a group starts on a block's
//! boundary, so that a durable block is never written again; positions and time stamps strictly increase.

use tally_protocol::{Lsn, Timestamp};

use super::group::GROUP_HEADER_LEN_BYTES;

/// The sizes that positions are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of a segment file, and of the ring that holds the newest part of the log; a multiple of the block.
    pub segment_len_bytes: u64,
    /// What is written at once, at least: the disk's block.
    pub block_len_bytes: u64,
    /// A group that holds a record is closed rather than made larger than this.
    pub group_len_bytes_soft_max: u64,
    /// The largest reservation (a linked chain, or the records of one request).
    pub reservation_len_bytes_max: u64,
}

/// The block of every disk that we write to directly.
pub const BLOCK_LEN_BYTES: u64 = 4096;
/// One flush of this size takes about 3 ms: more in one group would make single payments wait too long.
pub const GROUP_LEN_BYTES_SOFT_MAX: u64 = 1 << 20;
/// A chain of 8,190 transfers with extensions takes 1.9 MB.
pub const RESERVATION_LEN_BYTES_MAX: u64 = 4 << 20;
/// The smallest segment: room for several of the largest reservations that it allows.
pub const SEGMENT_LEN_BYTES_MIN: u64 = 1 << 20;

const _: () = assert!(8_190 * 232 < RESERVATION_LEN_BYTES_MAX);
const _: () = assert!(GROUP_HEADER_LEN_BYTES as u64 <= BLOCK_LEN_BYTES);

impl Geometry {
    /// The sizes that go with segments of `segment_len_bytes`; `None` unless that is a power of two from
    /// [`SEGMENT_LEN_BYTES_MIN`] to 2^32.
    pub const fn for_segments(segment_len_bytes: u64) -> Option<Self> {
        if !segment_len_bytes.is_power_of_two()
            || segment_len_bytes < SEGMENT_LEN_BYTES_MIN
            || segment_len_bytes > 1 << 32
        {
            return None;
        }
        // A quarter: the ring must take a reservation, the end of a segment that it skipped and a group
        // that is still being written, all at once.
        let reservation_len_bytes_max = if segment_len_bytes / 4 < RESERVATION_LEN_BYTES_MAX {
            segment_len_bytes / 4
        } else {
            RESERVATION_LEN_BYTES_MAX
        };
        let group_len_bytes_soft_max = if segment_len_bytes / 8 < GROUP_LEN_BYTES_SOFT_MAX {
            segment_len_bytes / 8
        } else {
            GROUP_LEN_BYTES_SOFT_MAX
        };
        Some(Self {
            segment_len_bytes,
            block_len_bytes: BLOCK_LEN_BYTES,
            group_len_bytes_soft_max,
            reservation_len_bytes_max,
        })
    }

    /// `position`, rounded up to a block.
    pub const fn block_end(&self, position: u64) -> u64 {
        position.next_multiple_of(self.block_len_bytes)
    }

    /// The start of the segment after the one that holds `position`.
    pub const fn next_segment(&self, position: u64) -> u64 {
        (position / self.segment_len_bytes + 1) * self.segment_len_bytes
    }

    /// The number of the segment that holds `position`.
    pub const fn segment_of(&self, position: u64) -> u64 {
        position / self.segment_len_bytes
    }

    /// Where in its segment, and in the ring, `position` lies.
    pub const fn offset_of(&self, position: u64) -> u64 {
        position % self.segment_len_bytes
    }

    /// Bytes of the ring that may go to padding, headers and one skipped end of a segment between the
    /// end of what is durable and the cursor. They are never promised to a writer.
    ///
    /// Closed by the soft maximum: at most two groups for each `group_len_bytes_soft_max` of the ring (two
    /// neighbours together are larger than it); closed by the flusher: the one in flight and the next.
    pub const fn overhead_len_bytes_max(&self) -> u64 {
        let groups = 2 * (self.segment_len_bytes / self.group_len_bytes_soft_max) + 4;
        let skipped = self.reservation_len_bytes_max + self.block_len_bytes;
        groups * (self.block_len_bytes + GROUP_HEADER_LEN_BYTES as u64) + skipped
    }
}

/// A group that takes no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupExtent {
    /// Where its header lies.
    pub start: Lsn,
    /// The end of its last record.
    pub end: Lsn,
    /// How many records it holds.
    pub record_count: u32,
    /// The stamp of its last record, or of the last before it.
    pub last_timestamp: Timestamp,
}

impl GroupExtent {
    /// Header, records and padding.
    pub const fn padded_len_bytes(&self, geometry: &Geometry) -> u64 {
        self.padded_end(geometry) - self.start.get()
    }
    /// Where its padding ends.
    pub const fn padded_end(&self, geometry: &Geometry) -> u64 {
        geometry.block_end(self.end.get())
    }
}

/// Where a reservation was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its first byte.
    pub lsn: Lsn,
    /// The stamp of its first record; each further record's is one nanosecond later.
    pub timestamp: Timestamp,
    /// The group that had to be closed for it.
    pub closed: Option<GroupExtent>,
}

/// The end of the log, and the group that is open there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    group_start: u64,
    next: u64,
    record_count: u32,
    last_timestamp: Timestamp,
}

impl Cursor {
    /// A log that goes on at `start`, with stamps after `last_timestamp`.
    ///
    /// # Panics
    /// When `start` is not on a block's boundary.
    pub fn new(geometry: &Geometry, start: Lsn, last_timestamp: Timestamp) -> Self {
        assert!(start.get().is_multiple_of(geometry.block_len_bytes), "log goes on at {start}, inside a block");
        Self {
            group_start: start.get(),
            next: start.get() + GROUP_HEADER_LEN_BYTES as u64,
            record_count: 0,
            last_timestamp,
        }
    }

    /// The end of what was reserved: every record so far begins below it.
    pub const fn end(&self) -> Lsn {
        Lsn::new(if self.record_count == 0 { self.group_start } else { self.next })
    }

    /// Whether the open group holds a record.
    pub const fn has_records(&self) -> bool {
        self.record_count > 0
    }

    /// The stamp of the last record.
    pub const fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Reserves `len_bytes` for `record_count` records at `now`, or just after the last stamp if that is later.
    ///
    /// # Panics
    /// When the length is 0, not a multiple of 8 or above the maximum: the caller secured something else.
    pub fn reserve(&mut self, geometry: &Geometry, len_bytes: u64, record_count: u32, now: Timestamp) -> Placement {
        assert!(
            len_bytes > 0 && len_bytes.is_multiple_of(8) && len_bytes <= geometry.reservation_len_bytes_max,
            "reservation of {len_bytes} bytes"
        );
        assert!(record_count > 0, "reservation for no record");
        let mut closed = None;
        let over_soft_max = self.next + len_bytes - self.group_start > geometry.group_len_bytes_soft_max;
        if over_soft_max && self.record_count > 0 {
            closed = self.close(geometry);
        }
        if self.next + len_bytes > geometry.next_segment(self.group_start) {
            closed = closed.or_else(|| self.close(geometry));
            if geometry.offset_of(self.group_start) != 0 {
                self.open_group(geometry.next_segment(self.group_start));
            }
        }
        let lsn = Lsn::new(self.next);
        let first = self.last_timestamp.as_nanos().saturating_add(1).max(now.as_nanos());
        let last = first.checked_add(u64::from(record_count) - 1).expect("stamps run out in the year 2554");
        self.next += len_bytes;
        self.record_count += record_count;
        self.last_timestamp = Timestamp::from_nanos(last);
        Placement { lsn, timestamp: Timestamp::from_nanos(first), closed }
    }

    /// Closes the open group and opens the next behind it; `None` if there is no record in it.
    pub fn close(&mut self, geometry: &Geometry) -> Option<GroupExtent> {
        (self.record_count > 0).then(|| self.close_even_empty(geometry))
    }

    /// Closes the open group, record or not: a group without records carries the durable position alone.
    pub fn close_even_empty(&mut self, geometry: &Geometry) -> GroupExtent {
        let extent = GroupExtent {
            start: Lsn::new(self.group_start),
            end: Lsn::new(self.next),
            record_count: self.record_count,
            last_timestamp: self.last_timestamp,
        };
        self.open_group(geometry.block_end(self.next));
        extent
    }

    fn open_group(&mut self, start: u64) {
        self.group_start = start;
        self.next = start + GROUP_HEADER_LEN_BYTES as u64;
        self.record_count = 0;
    }
}
