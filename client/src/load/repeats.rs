//! Old transfers sent once more: how long does the branch take to know them again?

use std::sync::Arc;

use tally_protocol::message::RESULT_REPEATED;
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;

use super::accounts::AccountRange;
use super::latency::{Latencies, LatencySummary};
use super::samples::Sample;
use crate::Dialer;
use crate::lane::{LaneOptions, Nanos, Next, RequestWriter, Traffic, run_lanes};

/// Between the first lane's first question and the first intended time.
const START: Nanos = 20_000_000;

/// Sends every sample once, in the order of their ids' turn, at a fixed rate.
struct Repeating {
    range: AccountRange,
    samples: Vec<Sample>,
    next: usize,
    nanos_each: Nanos,
    latencies: Latencies,
    problem: Option<String>,
}

impl Traffic for Repeating {
    type Tag = usize;

    fn next(&mut self, _: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<usize> {
        let index = self.next;
        let Some(Sample { sent, .. }) = self.samples.get(index) else { return Next::Finished };
        let intended = START + index as Nanos * self.nanos_each;
        if now < intended {
            return Next::Later(intended);
        }
        self.next += 1;
        let transfer = self.range.transfer(sent.id, sent.pair, sent.amount);
        writer.send(&Request::Transfer(&transfer), index, intended)
    }

    fn reply(&mut self, _: usize, index: usize, since: Nanos, now: Nanos, reply: Reply<'_>) {
        self.latencies.record(now.saturating_sub(since));
        match reply {
            Reply::Transfer { reply, .. } if reply.refusal.get() == 0 && reply.flags.get() & RESULT_REPEATED != 0 => {}
            other => {
                let id = self.samples[index].sent.id;
                self.problem.get_or_insert_with(|| format!("transfer {id} again: {other:?}"));
            }
        }
    }

    fn lost(&mut self, _: usize, _: usize, _: Nanos, _: Nanos) {
        self.problem.get_or_insert_with(|| "a connection was lost".to_owned());
    }
}

/// See [`super::Load::repeat_samples`].
pub(crate) fn run(
    dialer: &Arc<Dialer>,
    range: AccountRange,
    samples: Vec<Sample>,
    rate: u64,
) -> anyhow::Result<LatencySummary> {
    let repeating = Repeating {
        range,
        samples,
        next: 0,
        nanos_each: 1_000_000_000 / rate.max(1),
        latencies: Latencies::default(),
        problem: None,
    };
    let options = LaneOptions { tick: std::time::Duration::from_micros(100), ..LaneOptions::for_work(8, 256) };
    let (repeating, _) = run_lanes(dialer, options, repeating)?;
    match repeating.problem {
        None => Ok(repeating.latencies.summary()),
        Some(problem) => anyhow::bail!("{problem}"),
    }
}
