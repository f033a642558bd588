//! Rows as transfers: each is sent until it is answered, at the file's own pace or as fast as possible.

use std::collections::VecDeque;

use tally_protocol::message::{RESULT_REPEATED, Transfer};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{Lsn, Refusal};

use super::args::Speed;
use super::book::Entry;
use crate::bulk::describe;
use crate::lane::{Nanos, Next, RequestWriter, Traffic};
use crate::load::Latencies;

/// How long a lane with nothing to do waits for rows that another may lose.
const IDLE: Nanos = 5_000_000;
/// Pause after "busy" without a hint.
const BUSY: Nanos = 2_000_000;

/// Transfers that must all be answered. Sending one twice does no harm: its id is known.
pub(crate) struct Rows<F> {
    /// The transfer of row `index`.
    make: F,
    /// When each row is due, in nanoseconds from the start; rising. Empty for "at once".
    due: Vec<Nanos>,
    entries: Vec<Entry>,
    /// Everything below this position was there before the replay.
    start_lsn: Lsn,
    next: usize,
    again: VecDeque<usize>,
    outstanding: usize,
    pause_until: Nanos,
    pub(crate) latencies: Latencies,
    pub(crate) answered: u64,
    /// Answered as repeats, by an earlier replay or an earlier attempt.
    pub(crate) repeated: u64,
    pub(crate) busy: u64,
    pub(crate) problem: Option<String>,
}

impl<F: Fn(usize) -> Transfer> Rows<F> {
    pub(crate) fn new(count: usize, start_lsn: Lsn, due: Vec<Nanos>, make: F) -> Self {
        Self {
            make,
            due,
            entries: vec![Entry::Open; count],
            start_lsn,
            next: 0,
            again: VecDeque::new(),
            outstanding: 0,
            pause_until: 0,
            latencies: Latencies::default(),
            answered: 0,
            repeated: 0,
            busy: 0,
            problem: None,
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn pick(&mut self, now: Nanos) -> Next<usize> {
        if now < self.pause_until {
            return Next::Later(self.pause_until);
        }
        if let Some(index) = self.again.pop_front() {
            return Next::Sent { tag: index, since: now };
        }
        if self.next == self.entries.len() {
            return if self.outstanding == 0 { Next::Finished } else { Next::Later(now + IDLE) };
        }
        let due = self.due.get(self.next).copied().unwrap_or(now);
        if due > now {
            return Next::Later(due);
        }
        self.next += 1;
        Next::Sent { tag: self.next - 1, since: due }
    }

    fn answer(&mut self, index: usize, entry: Entry) {
        assert_eq!(self.entries[index], Entry::Open, "row {index} is answered twice");
        self.entries[index] = entry;
        self.answered += 1;
    }
}

impl<F: Fn(usize) -> Transfer> Traffic for Rows<F> {
    type Tag = usize;

    fn next(&mut self, _: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<usize> {
        match self.pick(now) {
            Next::Sent { tag, since } => {
                self.outstanding += 1;
                writer.send(&Request::Transfer(&(self.make)(tag)), tag, since)
            }
            Next::Later(at) => Next::Later(at),
            Next::Finished => Next::Finished,
        }
    }

    fn reply(&mut self, _: usize, index: usize, since: Nanos, now: Nanos, reply: Reply<'_>) {
        self.outstanding -= 1;
        match reply {
            Reply::Transfer { reply, .. } => {
                self.latencies.record(now.saturating_sub(since));
                let repeated = reply.flags.get() & RESULT_REPEATED != 0;
                self.repeated += u64::from(repeated);
                // A repeat whose record is younger than the replay was posted by an attempt of ours that was lost.
                let before = repeated && reply.lsn.get() < self.start_lsn.get();
                let entry = match reply.refusal.get() {
                    0 if before => Entry::Before,
                    0 => Entry::Posted,
                    code => Entry::Refused(code),
                };
                self.answer(index, entry);
            }
            Reply::Refused(refused) => match refused.refusal() {
                Some(Refusal::Busy | Refusal::InFlightLimit | Refusal::ShuttingDown | Refusal::DiskFull) => {
                    self.busy += 1;
                    self.pause_until = now + BUSY.max(Nanos::from(refused.retry_after_ms) * 1_000_000);
                    self.again.push_back(index);
                }
                Some(_) | None => self.answer(index, Entry::Refused(refused.code)),
            },
            other => {
                self.problem.get_or_insert_with(|| describe(&other));
                self.answer(index, Entry::Refused(u16::MAX));
            }
        }
    }

    fn lost(&mut self, _: usize, index: usize, _: Nanos, _: Nanos) {
        self.outstanding -= 1;
        self.again.push_back(index);
    }
}

/// When each row is due, if the file's time runs `speed` times as fast.
pub(crate) fn due_times(speed: Speed, times: impl Iterator<Item = u64>) -> Vec<Nanos> {
    match speed {
        Speed::Max => Vec::new(),
        Speed::Times(factor) => {
            let mut first = None;
            times
                .map(|t| {
                    let since_first = t - *first.get_or_insert(t);
                    (since_first as f64 * 1e9 / factor) as Nanos
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::TransferReply;
    use zerocopy::FromZeros;

    use super::*;

    fn transfer(index: usize) -> Transfer {
        let mut transfer = Transfer::new_zeroed();
        transfer.id.set(index as u128 + 1);
        transfer
    }

    fn ask<F: Fn(usize) -> Transfer>(rows: &mut Rows<F>, now: Nanos) -> Next<usize> {
        rows.next(0, now, RequestWriter { out: &mut Vec::new(), request_id: 0 })
    }

    fn done(lsn: u64, repeated: bool) -> TransferReply {
        let mut reply = TransferReply::new_zeroed();
        reply.lsn.set(lsn);
        reply.flags.set(u16::from(repeated));
        reply
    }

    #[test]
    fn rows_keep_the_files_pace() {
        assert_eq!(due_times(Speed::Times(2.0), [10, 10, 14, 20].into_iter()), [0, 0, 2_000_000_000, 5_000_000_000]);
        let due = due_times(Speed::Times(1e9), [10, 40].into_iter());
        let mut rows = Rows::new(2, Lsn::ZERO, due, transfer);
        assert_eq!(ask(&mut rows, 100), Next::Sent { tag: 0, since: 0 });
        assert_eq!(ask(&mut rows, 20), Next::Later(30));
        assert_eq!(ask(&mut rows, 90), Next::Sent { tag: 1, since: 30 });
    }

    #[test]
    fn every_row_is_sent_until_it_is_answered() {
        let mut rows = Rows::new(3, Lsn::new(100), Vec::new(), transfer);
        for index in 0..3 {
            assert_eq!(ask(&mut rows, 5), Next::Sent { tag: index, since: 5 });
        }
        assert!(matches!(ask(&mut rows, 5), Next::Later(_)), "two lanes may still lose theirs");
        rows.lost(0, 1, 5, 6);
        assert_eq!(ask(&mut rows, 7), Next::Sent { tag: 1, since: 7 });
        rows.reply(0, 0, 5, 8, Reply::Transfer { reply: &done(99, true), balances: None });
        rows.reply(0, 1, 5, 8, Reply::Transfer { reply: &done(100, true), balances: None });
        let busy = tally_protocol::reply::Refused { code: Refusal::Busy.code(), retry_after_ms: 3, text: "" };
        rows.reply(0, 2, 5, 8, Reply::Refused(busy));
        assert_eq!(ask(&mut rows, 9), Next::Later(3_000_008));
        assert_eq!(ask(&mut rows, 3_000_008), Next::Sent { tag: 2, since: 3_000_008 });
        rows.reply(0, 2, 5, 8, Reply::Refused(tally_protocol::reply::Refused { code: 65, ..busy }));
        assert_eq!(rows.entries(), [Entry::Before, Entry::Posted, Entry::Refused(65)]);
        assert_eq!(ask(&mut rows, 4_000_000), Next::Finished);
        assert_eq!((rows.answered, rows.repeated, rows.busy), (3, 2, 1));
    }
}
