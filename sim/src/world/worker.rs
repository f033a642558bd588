//! A worker, one stage at a time. What it does in each is the branch's; that it may be interrupted between any two
//! of them, for as long as chance will have it, is what this is for.

use std::collections::VecDeque;
use std::sync::Arc;

use tally_branch_server::engine::{
    AccountOp, AccountOutcome, Cancel, ChainStep, Engine, Locked, Prepare, Prepared, Published, Read, Reserved, Step,
};
use tally_branch_server::ids::Recent;
use tally_branch_server::intake::Lane;
use tally_branch_server::replies::{ReplyBody, ReplySender};
use tally_journal::LogWriter;
use tally_ledger::check_transfer_id;
use tally_ledger::wire::{account_message, balance_message, item_result};
use tally_ledger::{Account, Hold, mixed, stretches};
use tally_protocol::message::{self, MessageType};
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp, TransferId};
use zerocopy::IntoBytes;

use super::World;
use super::lookups::{LOOKUPS_MAX, Lookup};
use super::running::Running;
use super::task::{Next, Task, Work};
use crate::invariants::Violation;
use crate::planted::Bug;
use crate::trace::trace;

/// Tasks that may wait because an id is in flight elsewhere.
const WAITING_MAX: usize = 8;

/// See the top of the file.
pub(super) struct SimWorker<'e> {
    pub(super) writer: LogWriter,
    lane: Arc<Lane>,
    pub(super) replies: ReplySender,
    /// Came back from the disk.
    pub(super) returned: VecDeque<Task>,
    /// Met an id in flight.
    waiting: VecDeque<Task>,
    task: Option<Task>,
    stage: Stage<'e>,
    /// What a planted bug has kept of the state before its transfer.
    stale: Stale,
}

/// What the planted bugs of a worker remember.
#[derive(Default)]
struct Stale {
    accounts: Vec<Account>,
    hold: Option<Hold>,
}

/// Where its transfer stands.
#[derive(Default)]
enum Stage<'e> {
    #[default]
    Idle,
    Prepared(Prepared<'e>),
    Locked(Locked<'e>),
    Reserved(Reserved<'e>),
    Published(Published),
}

impl<'e> SimWorker<'e> {
    pub(super) fn new(writer: LogWriter, lane: Arc<Lane>, replies: ReplySender) -> Self {
        Self {
            writer,
            lane,
            replies,
            returned: VecDeque::new(),
            waiting: VecDeque::new(),
            task: None,
            stage: Stage::Idle,
            stale: Stale::default(),
        }
    }

    /// Whether it has accounts locked.
    pub(super) const fn holds_locks(&self) -> bool {
        matches!(self.stage, Stage::Locked(_) | Stage::Reserved(_))
    }

    /// Whether its end of the log is free for another record.
    pub(super) const fn may_reserve(&self) -> bool {
        !matches!(self.stage, Stage::Reserved(_) | Stage::Published(_))
    }

    /// Whether no transfer is under way in it; what was secured in the log for one must not go to another.
    pub(super) const fn is_between_transfers(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    fn next_task(&mut self, bug: Option<Bug>) -> Option<Task> {
        if let Some(task) = self.returned.pop_front() {
            return Some(task);
        }
        if let Some(task) = self.waiting.pop_front() {
            return Some(task);
        }
        let lane = &self.lane;
        let request = lane.control.pop().or_else(|| lane.interactive.pop()).or_else(|| lane.bulk.pop());
        request.map(|request| Task::of(request, bug))
    }

    /// For the bugs that work on what was before.
    fn keep_stale(&mut self, world: &World, engine: &Engine, transfer: &message::Transfer) {
        if world.is_planted(Bug::LostUpdate) {
            let ids = [transfer.debit_account_id.get(), transfer.credit_account_id.get()];
            let slots = ids.iter().filter_map(|&id| engine.accounts.find(AccountId::new(id)));
            self.stale.accounts = slots.map(|slot| slot.read()).collect();
        }
        if world.is_planted(Bug::HoldStaysOpen) {
            self.stale.hold = engine.holds.get(TransferId::new(transfer.reference.get()));
        }
    }

    /// Puts the accounts back to what they were; `false` when one of them is locked.
    fn put_back_stale(&mut self, engine: &Engine) -> bool {
        for account in &self.stale.accounts {
            let slot = engine.accounts.find(account.id).expect("it was found before");
            let Some(locked) = slot.try_lock() else { return false };
            locked.publish_sums(account);
        }
        true
    }

    fn reply(&mut self, task: &Task, gate: Lsn, body: ReplyBody) {
        self.replies.push(gate, task.asker.reply(body));
    }

    fn refuse(&mut self, task: &Task, refusal: Refusal) {
        self.reply(task, Lsn::ZERO, ReplyBody::Refused { refusal, retry_after_ms: 0, text: None });
    }
}

impl<'e> Running<'e> {
    /// One stage of worker `number`.
    pub(super) fn worker_step(&mut self, world: &mut World, number: usize) -> Result<bool, Violation> {
        let (now, now_ns) = (world.clock.wall(), world.clock.monotonic_ns());
        let worker = &mut self.workers[number];
        match std::mem::take(&mut worker.stage) {
            Stage::Idle => Ok(self.begin(world, number)),
            Stage::Prepared(prepared) => {
                if world.is_planted(Bug::LostUpdate) && !worker.put_back_stale(self.engine) {
                    worker.stage = Stage::Prepared(prepared);
                    return Ok(false);
                }
                let (stage, got) = match prepared.try_lock() {
                    Ok(locked) => (Stage::Locked(locked), true),
                    Err(prepared) => (Stage::Prepared(prepared), false),
                };
                worker.stage = stage;
                if got {
                    trace!(world.trace, "worker {number} has locked");
                }
                Ok(got)
            }
            Stage::Locked(locked) => {
                match locked.decide_and_reserve(&mut worker.writer, now, || now_ns) {
                    Ok(reserved) => {
                        trace!(world.trace, "worker {number} has decided");
                        let task = worker.task.as_ref().expect("a stage has a task");
                        world.audit.decided(task.asker.request_id as usize)?;
                        worker.stage = Stage::Reserved(reserved);
                    }
                    Err(step) => {
                        let task = worker.task.take().expect("a stage has a task");
                        self.after_step(world, number, task, step);
                    }
                }
                Ok(true)
            }
            Stage::Reserved(reserved) => {
                worker.stage = Stage::Published(reserved.publish());
                trace!(world.trace, "worker {number} has published");
                Ok(true)
            }
            Stage::Published(published) => {
                let done = published.fill(&mut worker.writer);
                if let (Some(hold), None) = (worker.stale.hold.take(), done.refusal)
                    && self.engine.holds.get(hold.id).is_none()
                {
                    self.engine.holds.insert_recovered(hold);
                }
                trace!(world.trace, "worker {number} has filled {}: {:?}", done.lsn, done.refusal);
                let task = worker.task.take().expect("a stage has a task");
                self.after_step(world, number, task, Step::Done(done));
                Ok(true)
            }
        }
    }

    /// Takes up a task, or goes on with the one in hand.
    fn begin(&mut self, world: &mut World, number: usize) -> bool {
        let worker = &mut self.workers[number];
        let Some(mut task) = worker.task.take().or_else(|| worker.next_task(world.options.bug)) else { return false };
        if self.must_wait(&task) {
            self.workers[number].task = Some(task);
            return false;
        }
        let now_ns = world.clock.monotonic_ns();
        if world.is_planted(Bug::DeadlineIgnored) {
            task.asker.deadline = 0;
        }
        if task.asker.deadline != 0 && now_ns > task.asker.deadline {
            self.give_up_late(number, task);
            return true;
        }
        trace!(world.trace, "worker {number} takes up request {}", task.asker.request_id);
        let now = world.clock.wall();
        match &task.work {
            Work::Transfer(transfer) => {
                let transfer = *transfer;
                self.prepare(world, number, task, &transfer);
            }
            Work::Batch(batch) => match batch.next() {
                Next::Single(transfer) => {
                    let transfer = *transfer;
                    self.prepare(world, number, task, &transfer);
                }
                Next::Chain(chain) => {
                    let chain = chain.to_vec();
                    self.chain(world, number, task, &chain);
                }
                Next::Undecidable(count, refusal) => self.undecidable(number, task, count, refusal),
                Next::Mixed(refusals) => self.mixed(number, task, &refusals),
                Next::Done => self.finish_batch(number, task),
            },
            Work::Chain(chain) => {
                let chain = chain.clone();
                self.chain(world, number, task, &chain);
            }
            Work::Open(_) => self.open(number, task, now),
            Work::Change(id, op) => {
                let (id, op) = (*id, *op);
                self.change(world, number, task, id, op, now);
            }
            Work::Cancel(id, None) if check_transfer_id(*id).is_err() => {
                let refusal = check_transfer_id(*id).expect_err("just seen");
                let item = item_result(Some(refusal), Timestamp::default(), false);
                self.workers[number].reply(&task, Lsn::ZERO, ReplyBody::Item(MessageType::CancelIdReply, item));
            }
            Work::Cancel(_, None) | Work::Find(_) => self.ask(world, number, task),
            Work::Cancel(id, Some(_)) => {
                let id = *id;
                self.cancel(world, number, task, id, now);
            }
            Work::Balance(id) | Work::Account(id) => {
                let id = *id;
                self.read(world, number, &task, id, now);
            }
        }
        true
    }

    /// Whether the branch's thread would wait for a lock here, which this single thread cannot.
    fn must_wait(&self, task: &Task) -> bool {
        let waits_for_opening = || self.engine.accounts.try_opening().is_none();
        match &task.work {
            Work::Transfer(_) => waits_for_opening(),
            Work::Batch(batch) => match batch.next() {
                Next::Single(_) => waits_for_opening(),
                Next::Chain(_) => self.locks_are_held(),
                Next::Undecidable(..) | Next::Mixed(_) | Next::Done => false,
            },
            Work::Chain(_) | Work::Open(_) | Work::Change(..) => self.locks_are_held(),
            Work::Cancel(..) | Work::Balance(_) | Work::Account(_) | Work::Find(_) => false,
        }
    }

    fn give_up_late(&mut self, number: usize, mut task: Task) {
        let worker = &mut self.workers[number];
        if let Work::Batch(batch) = &mut task.work {
            (0..batch.left()).for_each(|_| batch.refuse(Refusal::DeadlinePassed));
            return self.finish_batch(number, task);
        }
        worker.refuse(&task, Refusal::DeadlinePassed);
    }

    fn prepare(&mut self, world: &mut World, number: usize, task: Task, transfer: &message::Transfer) {
        let worker = &mut self.workers[number];
        let now = world.clock.wall();
        match self.engine.prepare(&mut worker.writer, transfer, &task.asker, task.looked.as_ref(), now) {
            Prepare::Ready(prepared) => {
                worker.keep_stale(world, self.engine, transfer);
                worker.stage = Stage::Prepared(prepared);
                worker.task = Some(task);
            }
            Prepare::NotRecorded(refusal) => self.after_step(world, number, task, Step::NotRecorded(refusal)),
            Prepare::InFlight => self.after_step(world, number, task, Step::InFlight),
            Prepare::Lookup => self.after_step(world, number, task, Step::Lookup),
        }
    }

    /// A single transfer, or entry of a batch, came so far.
    fn after_step(&mut self, world: &mut World, number: usize, mut task: Task, step: Step) {
        let worker = &mut self.workers[number];
        task.looked = None;
        match (step, &mut task.work) {
            (Step::Done(done), Work::Batch(batch)) => {
                batch.answer(item_result(done.refusal, done.timestamp, false), done.lsn);
                worker.task = Some(task);
            }
            (Step::Done(done), Work::Transfer(transfer)) => {
                let body = self.engine.transfer_body(transfer, &done, &task.asker);
                worker.reply(&task, done.lsn, body);
            }
            (Step::NotRecorded(Refusal::Busy), Work::Batch(_)) => worker.task = Some(task),
            (Step::NotRecorded(refusal), Work::Batch(batch)) => {
                batch.refuse(refusal);
                worker.task = Some(task);
            }
            (Step::NotRecorded(refusal), _) => worker.refuse(&task, refusal),
            (Step::InFlight, Work::Transfer(transfer)) if world.is_planted(Bug::InFlightIgnored) => {
                let id = TransferId::new(transfer.id.get());
                if self.engine.ids.facts_recent(id) == Recent::InFlight {
                    self.engine.ids.release(id);
                }
                worker.task = Some(task);
            }
            (Step::InFlight, _) => self.wait(number, task),
            (Step::Lookup, _) => self.ask(world, number, task),
            (Step::Done(_), _) => unreachable!("only transfers go through the stages"),
            (Step::Moved(_), _) => unreachable!("nothing moves where there is one branch"),
        }
    }

    /// Another worker has the id in hand.
    fn wait(&mut self, number: usize, task: Task) {
        let worker = &mut self.workers[number];
        if worker.waiting.len() < WAITING_MAX || matches!(task.work, Work::Batch(_)) {
            worker.waiting.push_back(task);
        } else {
            worker.refuse(&task, Refusal::Busy);
        }
    }

    /// Only the disk can tell.
    fn ask(&mut self, world: &mut World, number: usize, task: Task) {
        trace!(world.trace, "worker {number} asks the disk for request {}", task.asker.request_id);
        if self.lookups.len() < LOOKUPS_MAX || matches!(task.work, Work::Batch(_)) {
            self.lookups.push_back(Lookup { worker: number, task });
        } else {
            self.workers[number].refuse(&task, Refusal::Busy);
        }
    }

    fn chain(&mut self, world: &mut World, number: usize, mut task: Task, chain: &[message::Transfer]) {
        let (now, now_ns) = (world.clock.wall(), world.clock.monotonic_ns());
        let worker = &mut self.workers[number];
        let looked = task.looked.take();
        let step = self.engine.chain(&mut worker.writer, chain, &task.asker, looked.as_ref(), now, || now_ns);
        let items = match step {
            ChainStep::InFlight => return self.wait(number, task),
            ChainStep::Lookup => return self.ask(world, number, task),
            ChainStep::Refused(Refusal::Busy) if matches!(task.work, Work::Batch(_)) => {
                worker.task = Some(task);
                return;
            }
            ChainStep::Refused(refusal) => match &mut task.work {
                Work::Batch(batch) => {
                    chain.iter().for_each(|_| batch.refuse(refusal));
                    worker.task = Some(task);
                    return;
                }
                _ => return worker.refuse(&task, refusal),
            },
            ChainStep::NotRecorded(refusals) => refusals
                .into_iter()
                .map(|refusal| (item_result(Some(refusal), Timestamp::default(), false), Lsn::ZERO))
                .collect::<Vec<_>>(),
            ChainStep::Done(dones) => {
                trace!(world.trace, "worker {number} has filled a chain at {}", dones[0].lsn);
                dones.iter().map(|done| (item_result(done.refusal, done.timestamp, false), done.lsn)).collect()
            }
        };
        if let Work::Batch(batch) = &mut task.work {
            items.into_iter().for_each(|(item, gate)| batch.answer(item, gate));
            worker.task = Some(task);
            return;
        }
        let gate = items.iter().map(|(_, gate)| *gate).max().unwrap_or_default();
        let items: Vec<message::ItemResult> = items.into_iter().map(|(item, _)| item).collect();
        let body = ReplyBody::Items(MessageType::ChainReply, items.as_bytes().to_vec().into());
        worker.reply(&task, gate, body);
    }

    fn undecidable(&mut self, number: usize, mut task: Task, count: usize, refusal: Refusal) {
        if let Work::Batch(batch) = &mut task.work {
            (1..count).for_each(|_| batch.refuse(Refusal::ChainBroken));
            batch.refuse(refusal);
        }
        self.workers[number].task = Some(task);
    }

    fn mixed(&mut self, number: usize, mut task: Task, refusals: &[Refusal]) {
        if let Work::Batch(batch) = &mut task.work {
            refusals.iter().for_each(|&refusal| batch.refuse(refusal));
        }
        self.workers[number].task = Some(task);
    }

    fn finish_batch(&mut self, number: usize, task: Task) {
        let Task { asker, work, looked } = task;
        let Work::Batch(batch) = work else { unreachable!("called for batches only") };
        let gate = batch.gate;
        let body = ReplyBody::Items(MessageType::BatchReply, batch.into_items());
        let task = Task { asker, work: Work::Chain(Vec::new()), looked };
        self.workers[number].reply(&task, gate, body);
    }

    fn open(&mut self, number: usize, task: Task, now: Timestamp) {
        let worker = &mut self.workers[number];
        let Work::Open(opens) = &task.work else { unreachable!("called for openings only") };
        let mut outcomes = Vec::new();
        for stretch in stretches(opens) {
            let chain = &opens[stretch.range];
            let not_taken = |refusal: &Refusal| AccountOutcome::NotTaken(*refusal);
            match (stretch.refusal, mixed(&opens[0], chain), chain) {
                (Some(refusal), _, chain) => {
                    outcomes.extend(chain[1..].iter().map(|_| AccountOutcome::NotTaken(Refusal::ChainBroken)));
                    outcomes.push(AccountOutcome::NotTaken(refusal));
                }
                (None, Some(refusals), _) => outcomes.extend(refusals.iter().map(not_taken)),
                (None, None, [single]) => {
                    outcomes.push(self.engine.open_account(&mut worker.writer, single, task.asker.actor, now));
                }
                (None, None, chain) => match self.engine.open_chain(&mut worker.writer, chain, task.asker.actor, now) {
                    Ok(opened) => outcomes.extend(opened),
                    Err(refusal) => outcomes.extend(chain.iter().map(|_| not_taken(&refusal))),
                },
            }
        }
        let mut gate = Lsn::ZERO;
        let mut items = Vec::new();
        for outcome in outcomes {
            let (seen, item) = outcome.item();
            gate = gate.max(seen);
            items.extend_from_slice(item.as_bytes());
        }
        worker.reply(&task, gate, ReplyBody::Items(Self::OPEN_REPLY, items.into()));
    }

    fn change(&mut self, world: &mut World, number: usize, task: Task, id: AccountId, op: AccountOp, now: Timestamp) {
        let worker = &mut self.workers[number];
        let before = self.engine.accounts.find(id).map(|slot| slot.read());
        let outcome = self.engine.change_account(&mut worker.writer, id, op, task.asker.actor, now);
        let hides = match op {
            AccountOp::SetLimits(_) => world.is_planted(Bug::LimitsNotApplied),
            AccountOp::Freeze => world.is_planted(Bug::FreezeNotApplied),
            AccountOp::Close | AccountOp::Unfreeze => false,
        };
        if let (true, AccountOutcome::Done { gate, timestamp, .. }, Some(mut before)) = (hides, &outcome, before) {
            (before.lsn, before.timestamp) = (*gate, *timestamp);
            self.engine.accounts.find(id).expect("it was changed").lock().publish_all(&before);
        }
        let (gate, item) = outcome.item();
        worker.reply(&task, gate, ReplyBody::Item(op.reply_type(), item));
    }

    fn cancel(&mut self, world: &mut World, number: usize, mut task: Task, id: TransferId, now: Timestamp) {
        let worker = &mut self.workers[number];
        let Work::Cancel(_, looked) = &mut task.work else { unreachable!("called for cancels only") };
        let looked = looked.take().expect("the disk was asked");
        match self.engine.cancel(&mut worker.writer, id, &looked, task.asker.actor, now) {
            Cancel::Done { lsn, timestamp } => {
                let body = ReplyBody::Item(MessageType::CancelIdReply, item_result(None, timestamp, false));
                worker.reply(&task, lsn, body);
            }
            Cancel::AskAgain => self.ask(world, number, task),
            Cancel::Refused(refusal) => worker.refuse(&task, refusal),
        }
    }

    fn read(&mut self, world: &World, number: usize, task: &Task, id: AccountId, now: Timestamp) {
        let worker = &mut self.workers[number];
        match self.engine.read(id, task.asker.actor) {
            Read::Found(account) => {
                let body = match &task.work {
                    Work::Balance(_) => ReplyBody::Balance(balance_message(&account, now)),
                    _ => ReplyBody::Account(Box::new(account_message(&account))),
                };
                let gate = if world.is_planted(Bug::ReadNotGated) { Lsn::ZERO } else { account.lsn };
                worker.reply(task, gate, body);
            }
            Read::Refused(refusal) => worker.refuse(task, refusal),
        }
    }
}
