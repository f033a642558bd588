//! The branch while it runs: its parts, and the loop that lets one of them, drawn by chance, take one step.

use std::collections::VecDeque;
use std::sync::Arc;

use tally_branch_server::engine::Engine;
use tally_branch_server::intake::{Intake, IntakeConfig, Lane};
use tally_branch_server::replies::{GateBell, ReplyReceiver, ReplySender, channels};
use tally_journal::LogWriter;
use tally_journal::bell::Bell;
use tally_journal::flusher::Step;
use tally_protocol::Lsn;
use tally_protocol::message::MessageType;

use super::boot::{Journal, SEGMENT_LEN_BYTES};
use super::checkpoint::Checkpointing;
use super::lookups::Lookup;
use super::worker::SimWorker;
use super::{End, World};
use crate::invariants::bounded::{self, Depths};
use crate::invariants::{Violation, hold};
use crate::planted::Bug;
use crate::trace::trace;

/// Steps without anything to do after which a branch that should come to rest is taken to hang.
const IDLE_STEPS_MAX: u64 = 20_000;

/// The parts, but for the engine and the journal, which outlive the workers' borrows.
pub(super) struct Running<'e> {
    pub(super) engine: &'e Engine,
    pub(super) journal: &'e mut Journal,
    pub(super) intake: Intake,
    pub(super) workers: Vec<SimWorker<'e>>,
    pub(super) lookups: VecDeque<Lookup>,
    pub(super) lookup_replies: ReplySender,
    pub(super) receivers: Vec<ReplyReceiver>,
    pub(super) checkpointing: Checkpointing,
    /// A reply that the planted bug keeps back, to be swapped with the next.
    pub(super) kept_back: Option<tally_branch_server::replies::Reply>,
    pub(super) is_draining: bool,
    /// Where the feed's reader goes on.
    pub(super) feed_at: Lsn,
}

/// What may take the next step. The order is that of the setting's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Clients,
    Worker,
    Flusher,
    Sessions,
    Lookups,
    Expiry,
    Checkpoint,
    Ids,
    Reads,
}

const PARTS: [Part; 9] = [
    Part::Clients,
    Part::Worker,
    Part::Flusher,
    Part::Sessions,
    Part::Lookups,
    Part::Expiry,
    Part::Checkpoint,
    Part::Ids,
    Part::Reads,
];

impl<'e> Running<'e> {
    pub(super) fn new(world: &World, engine: &'e Engine, journal: &'e mut Journal) -> Self {
        let setting = &world.setting;
        let depth = setting.intake_depth;
        let config =
            IntakeConfig { control_depth: depth, two_phase_depth: depth, interactive_depth: depth, bulk_depth: depth };
        let lanes: Vec<Arc<Lane>> =
            (0..setting.workers).map(|_| Arc::new(Lane::new(&config, Bell::new(|| {})))).collect();
        let bells: Vec<GateBell> = (0..setting.session_threads).map(|_| GateBell::new(Bell::new(|| {}))).collect();
        let (mut senders, receivers) = channels(setting.workers + 1, &bells);
        let lookup_replies = senders.pop().expect("one more than workers");
        let workers = senders.into_iter().zip(&lanes).enumerate();
        let workers = workers.map(|(number, (replies, lane))| {
            let writer = LogWriter::new(journal.log.clone(), number);
            SimWorker::new(writer, lane.clone(), replies)
        });
        let workers = workers.collect();
        let (feed, _) = crossbeam::channel::bounded(1);
        Self {
            engine,
            intake: Intake::new(lanes, feed),
            workers,
            lookups: VecDeque::new(),
            lookup_replies,
            receivers,
            checkpointing: Checkpointing::default(),
            kept_back: None,
            is_draining: false,
            feed_at: Lsn::ZERO,
            journal,
        }
    }

    /// Steps until power fails, or `steps` are over and it is made to fail.
    pub(super) fn run_until_crash(&mut self, world: &mut World, steps: u64) -> Result<End, Violation> {
        let end = world.trace.count() + steps;
        let mut idle = 0;
        while world.trace.count() < end && idle < IDLE_STEPS_MAX {
            idle = if self.step(world)? { 0 } else { idle + 1 };
            if world.disk.is_down() {
                return Ok(End::Crashed);
            }
        }
        trace!(world.trace, "power is cut");
        world.disk.power_off();
        Ok(End::Crashed)
    }

    /// Steps, then lets everything come to rest: what was asked must be answered.
    pub(super) fn run_to_the_end(&mut self, world: &mut World, steps: u64) -> Result<End, Violation> {
        if self.run_for(world, steps)? == End::Crashed {
            return Ok(End::Crashed);
        }
        world.disk.set_faults(crate::disk::Faults::default());
        self.is_draining = true;
        let mut idle = 0;
        while world.audit.open_requests() > 0 {
            if world.disk.is_down() {
                return Ok(End::Crashed);
            }
            idle += 1;
            hold!(Answered, idle < IDLE_STEPS_MAX, "{} requests are never answered", world.audit.open_requests());
            self.step(world)?;
        }
        for _ in 0..100 {
            self.step(world)?;
        }
        self.read_whole_journal(world)?;
        Ok(End::Finished)
    }

    fn run_for(&mut self, world: &mut World, steps: u64) -> Result<End, Violation> {
        let end = world.trace.count() + steps;
        let mut idle = 0;
        while world.trace.count() < end && idle < IDLE_STEPS_MAX {
            idle = if self.step(world)? { 0 } else { idle + 1 };
            if world.disk.is_down() {
                return Ok(End::Crashed);
            }
        }
        Ok(End::Finished)
    }

    /// One step of one part. Whether there was anything to do.
    fn step(&mut self, world: &mut World) -> Result<bool, Violation> {
        if let Some(jump) = world.clock.step(&mut world.random) {
            trace!(world.trace, "the wall clock jumps: {jump:?}");
        }
        world.audit.set_now(world.clock.monotonic_ns());
        let part = PARTS[world.random.weighted(&world.setting.weights)];
        let worked = match part {
            Part::Clients => self.clients_step(world),
            Part::Worker => {
                let worker = world.random.index(self.workers.len());
                self.worker_step(world, worker)?
            }
            Part::Flusher => self.flusher_step(world)?,
            Part::Sessions => self.sessions_step(world)?,
            Part::Lookups => self.lookups_step(world)?,
            Part::Expiry => self.expiry_step(world),
            Part::Checkpoint => self.checkpoint_step(world),
            Part::Ids => self.ids_step(world)?,
            Part::Reads => self.feed_step(world)?,
        };
        if world.trace.count().is_multiple_of(16) {
            self.check_depths(world)?;
        }
        Ok(worked)
    }

    fn check_depths(&self, world: &World) -> Result<(), Violation> {
        bounded::check(&Depths {
            open_requests: self.intake.depths().iter().sum(),
            open_requests_max: 3 * world.setting.intake_depth * world.setting.workers,
            holds: self.engine.holds.taken(),
            holds_max: world.setting.holds_max,
            log_len_bytes: self.journal.log.end().get().saturating_sub(self.journal.published.durable().end().get()),
            log_len_bytes_max: SEGMENT_LEN_BYTES,
        })
    }

    /// One step of the flusher: the next group is closed, written, and counts.
    fn flusher_step(&mut self, world: &mut World) -> Result<bool, Violation> {
        let step = self.journal.flusher.step();
        let heard = std::mem::take(&mut *self.journal.line.borrow_mut());
        for group in heard {
            world.audit.group(&group.bytes)?;
            if group.is_durable {
                world.audit.handle_durable(group.end);
            }
            let start = group.end.get() - group.bytes.len() as u64;
            world.last_group = Some((start, group.bytes, group.is_durable));
        }
        match step {
            Ok(Step::Idle | Step::Filling) => Ok(false),
            Ok(Step::Flushed { durable, chain }) => {
                self.journal.published.publish(durable, chain);
                trace!(world.trace, "durable to {}", durable.end());
                Ok(true)
            }
            Err(error) => {
                trace!(world.trace, "the flush failed, the process stops: {error}");
                world.disk.power_off();
                Ok(true)
            }
        }
    }

    /// Holds whose time has run out.
    fn expiry_step(&mut self, world: &mut World) -> bool {
        let now = world.clock.wall();
        if self.locks_are_held() || !self.workers[0].is_between_transfers() {
            return false;
        }
        let early = if world.is_planted(Bug::ExpiryTooEarly) { 15 } else { 0 };
        let due = self.engine.holds.due(now.checked_add_seconds(early).unwrap_or(now), 4);
        for &id in &due {
            trace!(world.trace, "hold {:x} is due", id.get());
            if world.is_planted(Bug::ExpiryNotRecorded) {
                self.expire_silently(id);
                continue;
            }
            if !self.engine.expire(&mut self.workers[0].writer, id, now) {
                break;
            }
        }
        !due.is_empty()
    }

    /// The id index writes out what it has in memory, and merges. Its thread would wait until all of that is durable;
    /// here the disk is given the time for that at once, or it is left for another time.
    fn ids_step(&mut self, world: &mut World) -> Result<bool, Violation> {
        if !self.workers.iter().all(SimWorker::may_reserve) {
            return Ok(false);
        }
        while self.flusher_step(world)? && !world.disk.is_down() {}
        if !self.journal.published.durable().reaches(self.journal.log.end()) {
            return Ok(false);
        }
        hold!(Recoverable, self.journal.ids_keeper.rotate_and_merge(), "the id index writes nothing any more");
        let stats = self.engine.ids.stats();
        trace!(world.trace, "ids written out: covered {}, {} runs", stats.covered_lsn, stats.run_count);
        Ok(true)
    }

    fn expire_silently(&self, id: tally_protocol::TransferId) {
        let Some(hold) = self.engine.holds.remove(id) else { return };
        let find = |id| self.engine.accounts.find(id).expect("a hold's accounts exist");
        let (debit, credit) = (find(hold.debit_account_id), find(hold.credit_account_id));
        let (mut paying, mut paid) = (debit.read(), credit.read());
        let outcome = tally_ledger::expire_hold(&hold, &paying, &paid);
        outcome.apply(&mut paying, &mut paid, hold.lsn, hold.timestamp);
        debit.lock().publish_sums(&paying);
        credit.lock().publish_sums(&paid);
    }

    /// Whether a worker stands between its locks and their release: whoever would wait for a lock must not try.
    pub(super) fn locks_are_held(&self) -> bool {
        self.workers.iter().any(SimWorker::holds_locks)
    }

    /// The type of the reply to a list of account operations.
    pub(super) const OPEN_REPLY: MessageType = MessageType::OpenAccountsReply;
}
