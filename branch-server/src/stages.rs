//! How long requests take from stage to stage: measured for every one of them, as `tally_stage_seconds`, and told of
//! a slow one in the log, with the ids by which its client knows it.
//!
//! ```text
//!   read from the socket --intake--> taken by a worker --journal--> durable, reply handed to its session
//!                        '--------------------- whole ---------------------'
//! ```
//!
//! The clocks are read once per read, duty cycle and round of replies, not per request.

use std::time::Duration;

use crate::histogram::{Counts, Histogram};
use crate::intake::Passage;
use crate::replies::Reply;

/// Slow requests that one session thread may log in a second: when everything is slow, the log must not be, too.
const SLOW_LINES_PER_S: u32 = 10;
const SECOND_NS: u64 = 1_000_000_000;

/// What one session thread measured.
#[derive(Debug, Default)]
pub struct StageTimes {
    intake: Histogram,
    journal: Histogram,
    whole: Histogram,
}

impl StageTimes {
    /// Each stage with its name in metrics and logs.
    pub fn read(&self) -> [(&'static str, Counts); 3] {
        [("intake", self.intake.read()), ("journal", self.journal.read()), ("whole", self.whole.read())]
    }
}

/// Notes the replies of one session thread. Neighbours mostly came in one read and were taken in one cycle, so they
/// are counted together.
#[derive(Debug)]
pub(crate) struct StageClock {
    slow_ns: u64,
    lines_left: u32,
    lines_second: u64,
    last: Passage,
    count: u64,
}

impl StageClock {
    /// Logs requests that take `slow` or longer; none for zero.
    pub(crate) fn new(slow: Duration) -> Self {
        let slow_ns = if slow.is_zero() { u64::MAX } else { slow.as_nanos() as u64 };
        Self { slow_ns, lines_left: 0, lines_second: 0, last: Passage::default(), count: 0 }
    }

    /// `reply` may leave, at `now_ns`.
    pub(crate) fn note(&mut self, times: &StageTimes, reply: &Reply, now_ns: u64) {
        let passage = reply.passage;
        // Pages of the feed wait for something to happen: they measure nothing of ours.
        if passage.taken_ns == 0 {
            return;
        }
        if passage != self.last {
            self.end_round(times, now_ns);
            self.last = passage;
        }
        self.count += 1;
        if now_ns.saturating_sub(passage.received_ns) >= self.slow_ns {
            self.log(reply, now_ns);
        }
    }

    /// Counts what was noted with `now_ns`.
    pub(crate) fn end_round(&mut self, times: &StageTimes, now_ns: u64) {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        let Passage { received_ns, taken_ns } = self.last;
        times.intake.note(taken_ns.saturating_sub(received_ns), count);
        times.journal.note(now_ns.saturating_sub(taken_ns), count);
        times.whole.note(now_ns.saturating_sub(received_ns), count);
    }

    fn log(&mut self, reply: &Reply, now_ns: u64) {
        let second = now_ns / SECOND_NS;
        if second != self.lines_second {
            self.lines_second = second;
            self.lines_left = SLOW_LINES_PER_S;
        }
        let Some(left) = self.lines_left.checked_sub(1) else { return };
        self.lines_left = left;
        let Passage { received_ns, taken_ns } = reply.passage;
        let us = |from: u64, to: u64| to.saturating_sub(from) / 1_000;
        tracing::warn!(
            request_id = reply.request_id,
            trace_id = format_args!("{:032x}", reply.trace_id),
            reply = reply.body.name(),
            intake_us = us(received_ns, taken_ns),
            journal_us = us(taken_ns, now_ns),
            whole_us = us(received_ns, now_ns),
            "slow request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::SessionKey;
    use crate::replies::ReplyBody;
    use tally_protocol::Refusal;

    fn reply(received_ns: u64, taken_ns: u64) -> Reply {
        Reply {
            session: SessionKey { thread: 0, slot: 0, generation: 0 },
            request_id: 1,
            trace_id: 2,
            passage: Passage { received_ns, taken_ns },
            body: ReplyBody::Refused { refusal: Refusal::Busy, retry_after_ms: 0, text: None },
        }
    }

    fn counts(times: &StageTimes) -> [(u64, u64); 3] {
        times.read().map(|(_, counts)| (counts.buckets.iter().sum(), counts.sum_ns))
    }

    #[test]
    fn each_reply_counts_once_in_each_stage() {
        let (times, mut clock) = (StageTimes::default(), StageClock::new(Duration::ZERO));
        for (received, taken) in [(100, 150), (100, 150), (120, 150), (100, 150)] {
            clock.note(&times, &reply(received, taken), 400);
        }
        clock.end_round(&times, 400);
        assert_eq!(counts(&times), [(4, 180), (4, 1_000), (4, 1_180)]);
        clock.end_round(&times, 900);
        assert_eq!(counts(&times)[2], (4, 1_180), "nothing was left");
    }

    #[test]
    fn what_nobody_timed_is_left_out() {
        let (times, mut clock) = (StageTimes::default(), StageClock::new(Duration::ZERO));
        clock.note(&times, &reply(0, 0), 400);
        clock.end_round(&times, 400);
        assert_eq!(counts(&times)[0], (0, 0));
    }

    #[test]
    fn slow_requests_are_logged_but_not_without_end() {
        let (times, mut clock) = (StageTimes::default(), StageClock::new(Duration::from_micros(1)));
        for _ in 0..50 {
            clock.note(&times, &reply(1, 2), 5_000);
        }
        assert_eq!(clock.lines_left, 0);
        clock.note(&times, &reply(1, 2), 5_000 + SECOND_NS);
        assert_eq!(clock.lines_left, SLOW_LINES_PER_S - 1);
        clock.note(&times, &reply(SECOND_NS * 2, SECOND_NS * 2), SECOND_NS * 2 + 999);
        assert_eq!(clock.lines_left, SLOW_LINES_PER_S - 1, "this one was not slow");
    }
}
