//! When requests are meant to be sent, in an open loop.
//!
//! Request `i` of all is meant for `start + i / rate`, whatever the branch does meanwhile, and goes to the lane
//! whose turn it is: `run_len` requests in a row to one lane, then the next. A lane that falls behind keeps its
//! place and catches up; nothing is skipped. Latency counts from the intended time, which is what corrects for
//! coordinated omission: a branch that stops for a second is charged for all who would have waited.

use crate::lane::Nanos;

/// The intended times of all requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    start: Nanos,
    end: Nanos,
    nanos_per_request: f64,
    lane_count: u64,
    run_len: u64,
}

/// A lane's place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    run: u64,
    place: u64,
}

impl Schedule {
    /// `rate` per second over all lanes, from `start` until `end`.
    pub(crate) fn new(rate: u64, lane_count: usize, run_len: u32, start: Nanos, end: Nanos) -> Self {
        Self {
            start,
            end,
            nanos_per_request: 1e9 / rate as f64,
            lane_count: lane_count as u64,
            run_len: run_len.into(),
        }
    }

    /// Where lane `lane_index` begins.
    pub(crate) fn cursor(&self, lane_index: usize) -> Cursor {
        Cursor { run: lane_index as u64, place: 0 }
    }

    /// When the request at `cursor` is meant to be sent; `None` after the end.
    #[inline]
    pub(crate) fn intended(&self, cursor: Cursor) -> Option<Nanos> {
        let index = cursor.run * self.run_len + cursor.place;
        let at = self.start + (index as f64 * self.nanos_per_request) as Nanos;
        (at < self.end).then_some(at)
    }

    /// The lane's next request after `cursor`.
    #[inline]
    pub(crate) fn after(&self, cursor: Cursor) -> Cursor {
        if cursor.place + 1 < self.run_len {
            Cursor { place: cursor.place + 1, ..cursor }
        } else {
            Cursor { run: cursor.run + self.lane_count, place: 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_all_requests_in_turn() {
        let schedule = Schedule::new(1_000, 3, 4, 500, 500 + 30_000_000);
        let mut times = Vec::new();
        for lane_index in 0..3 {
            let mut cursor = schedule.cursor(lane_index);
            while let Some(at) = schedule.intended(cursor) {
                times.push((at, lane_index));
                cursor = schedule.after(cursor);
            }
        }
        times.sort_unstable();
        assert_eq!(times.len(), 30, "30 ms at 1,000/s");
        for (index, &(at, lane_index)) in times.iter().enumerate() {
            assert_eq!(at, 500 + index as u64 * 1_000_000);
            assert_eq!(lane_index, index / 4 % 3);
        }
    }
}
