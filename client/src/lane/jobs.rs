//! A numbered list of requests, each of which must be answered: opening accounts, reading balances.

use std::sync::Arc;

use tally_protocol::Refusal;
use tally_protocol::reply::Reply;

use super::runner::{LaneOptions, run_lanes};
use super::{Nanos, Next, RequestWriter, Traffic};
use crate::{ConnectError, Dialer};

/// How soon a lane looks again whether another lane's loss has left it something to do.
const IDLE: Nanos = 5_000_000;
/// Between attempts where the branch gave no hint.
const BUSY: Nanos = 2_000_000;

/// What the answer to a job means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// It is done.
    Done,
    /// Ask again.
    Again,
}

/// Writes and reads the requests of a list. Asking twice must do no harm.
pub trait Jobs {
    /// Writes job `index`: calls `writer.send(request, (), now)`.
    fn write(&mut self, index: u64, writer: RequestWriter<'_>) -> Next<()>;
    /// Reads its answer; never one that says "busy".
    fn read(&mut self, index: u64, reply: Reply<'_>) -> JobResult;
}

struct JobTraffic<J> {
    jobs: J,
    count: u64,
    next: u64,
    again: Vec<u64>,
    outstanding: u64,
    pause_until: Nanos,
}

impl<J: Jobs> Traffic for JobTraffic<J> {
    type Tag = u64;

    fn next(&mut self, _: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<u64> {
        if now < self.pause_until {
            return Next::Later(self.pause_until);
        }
        let index = match self.again.pop() {
            Some(index) => index,
            None if self.next < self.count => {
                self.next += 1;
                self.next - 1
            }
            None if self.outstanding == 0 => return Next::Finished,
            None => return Next::Later(now + IDLE),
        };
        self.outstanding += 1;
        match self.jobs.write(index, writer) {
            Next::Sent { tag: (), .. } => Next::Sent { tag: index, since: now },
            Next::Later(_) | Next::Finished => unreachable!("a job is written when it is asked for"),
        }
    }

    fn reply(&mut self, _: usize, index: u64, _: Nanos, now: Nanos, reply: Reply<'_>) {
        self.outstanding -= 1;
        if let Reply::Refused(refused) = &reply
            && matches!(refused.refusal(), Some(Refusal::Busy | Refusal::InFlightLimit | Refusal::ShuttingDown))
        {
            self.pause_until = now + BUSY.max(Nanos::from(refused.retry_after_ms) * 1_000_000);
            return self.again.push(index);
        }
        match self.jobs.read(index, reply) {
            JobResult::Done => {}
            JobResult::Again => {
                self.pause_until = now + BUSY;
                self.again.push(index);
            }
        }
    }

    fn lost(&mut self, _: usize, index: u64, _: Nanos, _: Nanos) {
        self.outstanding -= 1;
        self.again.push(index);
    }
}

/// Does `count` jobs, in about their order, over lanes on the calling thread.
pub fn run_jobs<J: Jobs + 'static>(
    dialer: &Arc<Dialer>,
    options: LaneOptions,
    count: u64,
    jobs: J,
) -> Result<J, ConnectError> {
    let options = LaneOptions { lane_count: options.lane_count.min(count.max(1) as usize), ..options };
    let traffic = JobTraffic { jobs, count, next: 0, again: Vec::new(), outstanding: 0, pause_until: 0 };
    Ok(run_lanes(dialer, options, traffic)?.0.jobs)
}
