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

/// No log reaches this position: at a gigabyte a second it would take 146 years. Positions below can be added up.
pub const POSITION_END: u64 = 1 << 62;

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

    /// Every later stamp lies behind `stamp`.
    pub fn pass(&mut self, stamp: Timestamp) {
        self.last_timestamp = self.last_timestamp.max(stamp);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Geometry = Geometry {
        segment_len_bytes: 4 * 4096,
        block_len_bytes: 4096,
        group_len_bytes_soft_max: 2 * 4096,
        reservation_len_bytes_max: 8000,
    };

    fn group(start: u64, end: u64, record_count: u32, stamp: u64) -> GroupExtent {
        let last_timestamp = Timestamp::from_nanos(stamp);
        GroupExtent { start: Lsn::new(start), end: Lsn::new(end), record_count, last_timestamp }
    }

    #[test]
    fn placements() {
        let at = Timestamp::from_nanos(100);
        // start of the log, then (length, records) -> (position, first stamp, group closed for it)
        type Case<'a> = (u64, &'a [(u64, u32, u64, u64, Option<GroupExtent>)]);
        let closed_by_soft_max = Some(group(0, 64 + 8000, 1, 100));
        let closed_by_segment_end = Some(group(12288, 12288 + 64 + 4000, 1, 100));
        let cases: [Case<'_>; 5] = [
            (0, &[(184, 1, 64, 100, None), (184, 1, 248, 101, None), (16, 2, 432, 102, None), (16, 1, 448, 104, None)]),
            // A second one would make the group larger than the soft maximum.
            (0, &[(8000, 1, 64, 100, None), (200, 1, 8192 + 64, 101, closed_by_soft_max)]),
            // It does not fit into the rest of the segment.
            (12288, &[(4000, 1, 12288 + 64, 100, None), (104, 1, 16384 + 64, 101, closed_by_segment_end)]),
            // Nor does it where nothing has been written yet.
            (12288, &[(4096, 1, 16384 + 64, 100, None)]),
            // It just fits.
            (12288, &[(4032, 1, 12288 + 64, 100, None)]),
        ];
        for (start, steps) in cases {
            let mut cursor = Cursor::new(&SMALL, Lsn::new(start), Timestamp::from_nanos(7));
            for &(len_bytes, record_count, lsn, stamp, closed) in steps {
                let expected = Placement { lsn: Lsn::new(lsn), timestamp: Timestamp::from_nanos(stamp), closed };
                assert_eq!(cursor.reserve(&SMALL, len_bytes, record_count, at), expected, "from {start}");
                assert_eq!(cursor.end(), Lsn::new(lsn + len_bytes));
            }
        }
    }

    #[test]
    fn stamps_go_on_behind_one_that_was_passed() {
        let mut cursor = Cursor::new(&SMALL, Lsn::ZERO, Timestamp::from_nanos(7));
        cursor.pass(Timestamp::from_nanos(50));
        cursor.pass(Timestamp::from_nanos(20));
        assert_eq!(cursor.end(), Lsn::ZERO);
        let placement = cursor.reserve(&SMALL, 16, 1, Timestamp::from_nanos(30));
        assert_eq!(placement.timestamp, Timestamp::from_nanos(51));
    }

    #[test]
    fn a_close_that_ends_at_the_segments_end_goes_on_in_the_next() {
        let mut cursor = Cursor::new(&SMALL, Lsn::new(12288), Timestamp::from_nanos(7));
        assert_eq!(cursor.close(&SMALL), None);
        let _ = cursor.reserve(&SMALL, 4032, 1, Timestamp::from_nanos(1));
        assert_eq!(cursor.close(&SMALL), Some(group(12288, 16384, 1, 8)));
        assert_eq!(cursor.end(), Lsn::new(16384));
        assert_eq!(cursor.close_even_empty(&SMALL), group(16384, 16384 + 64, 0, 8));
        assert_eq!(cursor.end(), Lsn::new(16384 + 4096));
    }

    #[test]
    fn sizes_that_fit_each_other() {
        for bits in 20..=32 {
            let geometry = Geometry::for_segments(1 << bits).expect("in range");
            let overhead = geometry.overhead_len_bytes_max();
            assert!(overhead + geometry.reservation_len_bytes_max <= geometry.segment_len_bytes, "2^{bits}");
        }
        for wrong in [0, 1 << 19, 1 << 33, 3 << 20] {
            assert_eq!(Geometry::for_segments(wrong), None);
        }
    }

    proptest! {
        /// Whatever is asked for: positions and stamps rise, nothing overlaps, groups tile their blocks, keep
        /// to their segment, and what is not payload stays within the overhead that is never promised.
        #[test]
        fn invariants(
            steps in proptest::collection::vec((1u64..1000, 1u32..4, 0u64..200, 0u8..4), 1..300),
            start in 0u64..8,
        ) {
            let geometry = SMALL;
            let mut cursor = Cursor::new(&geometry, Lsn::new(start * 4096), Timestamp::from_nanos(50));
            let (mut end, mut stamp, mut groups, mut payload) = (start * 4096, 50, Vec::new(), Vec::new());
            for (words, count, now, close) in steps {
                let len_bytes = words * 8;
                let placement = cursor.reserve(&geometry, len_bytes, count, Timestamp::from_nanos(now));
                prop_assert!(placement.lsn.get() >= end);
                prop_assert!(placement.timestamp.as_nanos() > stamp && placement.timestamp.as_nanos() >= now);
                end = placement.lsn.get() + len_bytes;
                stamp = placement.timestamp.as_nanos() + u64::from(count) - 1;
                payload.push((placement.lsn.get(), end));
                groups.extend(placement.closed);
                if close == 0 {
                    groups.extend(cursor.close(&geometry));
                }
            }
            groups.extend(cursor.close(&geometry));
            let mut before = start * 4096;
            for group in &groups {
                let (first, last) = (group.start.get(), group.padded_end(&geometry));
                prop_assert!(first % 4096 == 0 && last % 4096 == 0);
                // Right behind the one before, or at the start of the next segment.
                prop_assert!(first == before || first == geometry.next_segment(before));
                prop_assert_eq!(geometry.segment_of(first), geometry.segment_of(last - 1));
                before = last;
            }
            for (first, last) in payload {
                let inside = |group: &&GroupExtent| group.start.get() + 64 <= first && last <= group.end.get();
                prop_assert_eq!(groups.iter().filter(inside).count(), 1);
            }
        }
    }
}
