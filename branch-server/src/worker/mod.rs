//! Worker: a pinned thread's duty cycle. Read the clock once, take at most so many requests, apply them,
//! hand the replies over, rest if there was nothing.
//!
//! ```text
//!   lane.control --.
//!   lane.two_phase +
//!   returned ------+--> one at a time: engine stages --> record into the log, reply behind its gate
//!   lane.interactive, 16 at a time, cache misses overlapped --'
//!   bulk (batches, many openings), in slices, so that single payments do not wait behind it --'
//! ```

mod batch;
mod between;
mod bulk;
mod chains;
mod idle;
mod opening;
mod pace;
mod passing;
mod requests;
pub(crate) use requests::transfers_of;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tally_protocol::Timestamp;
use tally_protocol::{Lsn, Refusal};

pub use between::Between;
pub use idle::IdleConfig;

use crate::clock;
use crate::engine::{Engine, Writer};
use crate::intake::{Lane, Op, Request};
use crate::journal::Journal;
use crate::lookup::{Asker, Job, LookupQueues, Question};
use crate::replies::{ReplyBody, ReplySender};

use batch::Batch;
use bulk::Bulk;
use idle::Idle;
use opening::Opening;
use pace::Pace;
use passing::Passing;

/// Requests taken together, so that their cache misses overlap: the line fill buffers of a core hold 10 to
/// 16 misses, and each request causes about six.
const BURST_LEN: usize = 16;
/// Bursts of single requests in one cycle before batches get their slice.
const BURSTS_PER_CYCLE: usize = 16;
/// Holds that are ended in one cycle when many run out at the same time.
const EXPIRIES_PER_CYCLE: usize = 256;
/// How often the holds' time-outs are looked at.
const EXPIRY_INTERVAL_NS: u64 = 10_000_000;
/// How often look-ups that wait for a stamp are looked at while there is nothing else to do.
const PASSING_LOOK: std::time::Duration = std::time::Duration::from_micros(200);
/// Requests that may wait because their id is in flight at another worker.
const WAITING_LEN_MAX: usize = 1_024;

/// What a worker needs; handed over once, when its thread starts.
pub struct Worker {
    /// Which one it is.
    pub number: usize,
    /// The rules and the state, shared with the other workers.
    pub engine: Arc<Engine>,
    /// For the durable position.
    pub journal: Arc<Journal>,
    /// Its own end of the log.
    pub writer: Writer,
    /// Its queues.
    pub lane: Arc<Lane>,
    /// The way to the disk and back.
    pub lookups: Arc<LookupQueues>,
    /// The way to the sessions.
    pub replies: ReplySender,
    /// What to do without work.
    pub idle: IdleConfig,
    /// Set when the branch stops.
    pub stop: Arc<AtomicBool>,
    /// Set by the worker when the log was full: the next flush rings.
    pub starving: Arc<AtomicBool>,
    /// What it did, for the metrics.
    pub stats: Arc<WorkerStats>,
    /// Its part in transfers between branches, where the branch has a registry.
    pub between: Option<Between>,
}

/// What a worker did since it started.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Transfers posted.
    pub posted: std::sync::atomic::AtomicU64,
    /// Transfers refused and recorded.
    pub refused: std::sync::atomic::AtomicU64,
    /// Cycles with work.
    pub cycles: std::sync::atomic::AtomicU64,
    /// The longest cycle, in nanoseconds, since it was last read.
    pub cycle_max_ns: std::sync::atomic::AtomicU64,
    /// Nanoseconds spent in cycles with work.
    pub busy_ns: std::sync::atomic::AtomicU64,
}

/// The worker with what lasts from cycle to cycle.
struct Running {
    worker: Worker,
    burst: Vec<Request>,
    waiting: VecDeque<Request>,
    bulk: VecDeque<Bulk>,
    batch_number: u64,
    pace: Pace,
    passing: Vec<Passing>,
    expiry_next_ns: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.number)
    }
}

impl Worker {
    /// Serves until [`Worker::stop`] is set and every queue is empty.
    pub fn run(self) {
        let mut idle = Idle::new(self.idle);
        let mut running = Running {
            worker: self,
            burst: Vec::with_capacity(BURST_LEN),
            waiting: VecDeque::new(),
            bulk: VecDeque::new(),
            batch_number: 0,
            pace: Pace::default(),
            passing: Vec::new(),
            expiry_next_ns: 0,
        };
        loop {
            let started = clock::monotonic_nanos();
            if running.cycle(started) {
                running.note_cycle(clock::monotonic_nanos() - started);
                idle.worked();
                continue;
            }
            if running.may_stop() {
                return;
            }
            if let Some(time) = idle.rest() {
                // What it waits for rings no bell.
                let time = if running.passing.is_empty() { time } else { time.min(PASSING_LOOK) };
                running.sleep(time);
            }
        }
    }
}

impl Running {
    /// One duty cycle. Returns whether there was work.
    fn cycle(&mut self, now_ns: u64) -> bool {
        let wall = clock::wall();
        let now = self.worker.between.as_ref().map_or(wall, |between| between.shared.now(wall));
        let is_alone = self.bulk.is_empty() && self.worker.lane.has_one();
        if is_alone {
            self.worker.writer.hush();
        }
        let mut worked = self.take_control(now, now_ns);
        worked |= self.take_instructions(now);
        worked |= self.take_returned(now, now_ns);
        worked |= self.retry_waiting(now, now_ns);
        worked |= self.take_interactive(now, now_ns);
        worked |= self.take_passing(now, now_ns);
        worked |= self.take_bulk(now_ns);
        worked |= self.work_bulk(now, now_ns);
        worked |= self.expire_holds(now, now_ns);
        self.ask_about_legs(now, now_ns);
        let journal = &self.worker.journal;
        self.worker.replies.hand_over(|| journal.durable());
        if let Some(between) = &mut self.worker.between {
            // In this order: the link takes a begin no later than the vote on it.
            between.begins.hand_over(|| journal.durable());
            between.says.hand_over(|| journal.durable());
        }
        // What a single request wrote is flushed without waking anybody: nothing else is to be done meanwhile. It was handed
        // over before, so that the flush rings for it.
        if is_alone && self.worker.writer.unhush() {
            journal.flush_here();
        }
        worked
    }

    fn take_control(&mut self, now: Timestamp, now_ns: u64) -> bool {
        let mut worked = false;
        while let Some(request) = self.worker.lane.control.pop() {
            self.handle(request, now, now_ns);
            worked = true;
        }
        worked
    }

    fn take_returned(&mut self, now: Timestamp, now_ns: u64) -> bool {
        let mut worked = false;
        while let Some(returned) = self.worker.lookups.take_back(self.worker.number) {
            self.handle_returned(returned, now, now_ns);
            worked = true;
        }
        worked
    }

    /// A request whose id another worker had in hand is tried again; that worker needed microseconds.
    fn retry_waiting(&mut self, now: Timestamp, now_ns: u64) -> bool {
        let count = self.waiting.len();
        for _ in 0..count {
            let request = self.waiting.pop_front().expect("counted");
            self.handle(request, now, now_ns);
        }
        count > 0
    }

    fn take_interactive(&mut self, now: Timestamp, now_ns: u64) -> bool {
        let mut worked = false;
        for _ in 0..BURSTS_PER_CYCLE {
            let mut burst = std::mem::take(&mut self.burst);
            while burst.len() < BURST_LEN {
                let Some(request) = self.worker.lane.interactive.pop() else { break };
                burst.push(request);
            }
            if burst.is_empty() {
                self.burst = burst;
                break;
            }
            worked = true;
            self.prefetch(&burst);
            for request in burst.drain(..) {
                self.handle(request, now, now_ns);
            }
            self.burst = burst;
        }
        if worked {
            self.pace.note_singles(now_ns);
        }
        worked
    }

    /// Starts the cache misses of a burst, in two rounds: the second follows what the first brought.
    fn prefetch(&self, burst: &[Request]) {
        let transfers = || {
            burst.iter().filter_map(|request| match &request.op {
                Op::Transfer(transfer) => Some(transfer),
                _ => None,
            })
        };
        self.worker.engine.prefetch(transfers, None);
    }

    fn take_bulk(&mut self, now_ns: u64) -> bool {
        let mut worked = false;
        while self.bulk.len() < bulk::OPEN_MAX {
            let Some(request) = self.worker.lane.bulk.pop() else { break };
            worked = true;
            let (asker, op) = Asker::taken(request, now_ns);
            match op {
                Op::Batch(entries) => {
                    self.batch_number += 1;
                    let old_ids = self.worker.engine.ids.old_ids();
                    let batch = Batch::new(self.batch_number, asker, entries, old_ids);
                    self.bulk.push_back(Bulk::Batch(Box::new(batch)));
                }
                Op::OpenAccounts(entries) => self.bulk.push_back(Bulk::Opening(Opening::new(asker, entries))),
                Op::ReadFeed(_) => unreachable!("the feed has a queue of its own"),
                _ => unreachable!("not a bulk operation"),
            }
        }
        worked
    }

    fn work_bulk(&mut self, now: Timestamp, now_ns: u64) -> bool {
        let mut budget = bulk::SLICE_LEN;
        let mut worked = false;
        if self.bulk.is_empty() || !self.pace.admits_bulk(now_ns, &self.worker.journal, &self.worker.starving) {
            return false;
        }
        // Each gets a turn; what waits for the disk is passed over.
        for _ in 0..self.bulk.len() {
            let mut bulk = self.bulk.pop_front().expect("counted");
            let used = bulk.work(&mut self.worker, budget, now, now_ns);
            worked |= used > 0;
            budget -= used.min(budget);
            if bulk.is_done() {
                bulk.reply(&mut self.worker.replies);
            } else {
                self.bulk.push_back(bulk);
            }
            if budget == 0 {
                break;
            }
        }
        worked
    }

    fn expire_holds(&mut self, now: Timestamp, now_ns: u64) -> bool {
        if self.worker.number != 0 || now_ns < self.expiry_next_ns {
            return false;
        }
        let due = self.worker.engine.holds.due(now, EXPIRIES_PER_CYCLE);
        // A full round means that more are due: look again in the next cycle.
        if due.len() < EXPIRIES_PER_CYCLE {
            self.expiry_next_ns = now_ns + EXPIRY_INTERVAL_NS;
        }
        for &id in &due {
            if !self.worker.engine.expire(&mut self.worker.writer, id, now) {
                break;
            }
        }
        !due.is_empty()
    }

    /// Sends a question to the disk; answers `Busy` when too many are out.
    fn ask(&mut self, asker: Asker, question: Question) {
        let number = self.worker.number;
        if self.worker.lookups.ask(Job { worker: number, question }).is_err() {
            self.refuse(asker, Refusal::Busy, 5);
        }
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal, retry_after_ms: u32) {
        self.reply(asker, Lsn::ZERO, ReplyBody::Refused { refusal, retry_after_ms, text: None });
    }

    fn reply(&mut self, asker: Asker, gate: Lsn, body: ReplyBody) {
        self.worker.replies.push(gate, asker.reply(body));
    }

    fn note_cycle(&self, took_ns: u64) {
        let stats = &self.worker.stats;
        stats.cycles.fetch_add(1, Ordering::Relaxed);
        stats.busy_ns.fetch_add(took_ns, Ordering::Relaxed);
        stats.cycle_max_ns.fetch_max(took_ns, Ordering::Relaxed);
    }

    fn may_stop(&self) -> bool {
        self.worker.stop.load(Ordering::Acquire)
            && self.worker.lane.is_empty()
            && self.waiting.is_empty()
            && self.passing.is_empty()
            && self.worker.between.as_ref().is_none_or(|between| between.waiting.is_empty())
            && self.bulk.is_empty()
            && self.worker.lookups.out() == 0
    }

    fn has_work(&self) -> bool {
        !self.worker.lane.is_empty()
            || self.worker.lookups.has_returned(self.worker.number)
            || self.worker.stop.load(Ordering::Acquire)
    }

    /// Sleeps until the bell rings or `time` is over. Batches that wait for the disk do not keep the
    /// worker awake: what returns rings.
    fn sleep(&self, time: std::time::Duration) {
        let bell = &self.worker.lane.bell;
        bell.announce_sleep();
        if !self.has_work() {
            std::thread::park_timeout(time);
        }
        bell.awake();
    }
}
