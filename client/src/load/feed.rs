//! Reads the durable feed between two positions, page by page over one lane. Entries are read where they
//! arrived: millions pass in a few seconds, and none is kept.

use std::sync::Arc;

use tally_protocol::message::{FeedEntry, FeedRead};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{Lsn, Refusal};
use zerocopy::byteorder::little_endian::{U32, U64};

use crate::Dialer;
use crate::bulk::{ONE, describe};
use crate::lane::{Nanos, Next, RequestWriter, Traffic, run_lanes};

/// While a page is under way there is nothing to do.
const IDLE: Nanos = 5_000_000;
/// Pause after "busy" without a hint.
const BUSY: Nanos = 2_000_000;

/// Hands each entry from `from` up to `until` to `each`, and returns what that has made of `state`.
pub(crate) fn read<S: 'static>(
    dialer: &Arc<Dialer>,
    from: Lsn,
    until: Lsn,
    state: S,
    each: fn(&mut S, &FeedEntry),
) -> anyhow::Result<S> {
    let reading = Reading {
        position: from.get(),
        until: until.get(),
        under_way: false,
        pause_until: 0,
        state,
        each,
        problem: None,
    };
    let (reading, _) = run_lanes(dialer, ONE, reading)?;
    match reading.problem {
        None => Ok(reading.state),
        Some(problem) => anyhow::bail!("the feed at position {}: {problem}", reading.position),
    }
}

struct Reading<S> {
    position: u64,
    until: u64,
    under_way: bool,
    pause_until: Nanos,
    state: S,
    each: fn(&mut S, &FeedEntry),
    problem: Option<String>,
}

impl<S> Traffic for Reading<S> {
    type Tag = ();

    fn next(&mut self, _: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<()> {
        if self.problem.is_some() || self.position >= self.until {
            return Next::Finished;
        }
        if self.under_way {
            return Next::Later(now + IDLE);
        }
        if now < self.pause_until {
            return Next::Later(self.pause_until);
        }
        self.under_way = true;
        let read = FeedRead { from: U64::new(self.position), count_max: U32::new(0), wait_ms: U32::new(0) };
        writer.send(&Request::ReadFeed(&read), (), now)
    }

    fn reply(&mut self, _: usize, (): (), _: Nanos, now: Nanos, reply: Reply<'_>) {
        self.under_way = false;
        match reply {
            Reply::Feed(page) if page.next > self.position => {
                for entry in page.entries.iter().filter(|entry| entry.lsn.get() < self.until) {
                    (self.each)(&mut self.state, entry);
                }
                self.position = page.next;
            }
            Reply::Refused(refused) if refused.refusal().is_some_and(Refusal::is_transient) => {
                self.pause_until = now + BUSY.max(Nanos::from(refused.retry_after_ms) * 1_000_000);
            }
            Reply::Feed(_) => self.problem = Some("it ends before what is durable".to_owned()),
            other => self.problem = Some(describe(&other)),
        }
    }

    fn lost(&mut self, _: usize, (): (), _: Nanos, _: Nanos) {
        self.under_way = false;
    }
}
