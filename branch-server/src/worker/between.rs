//! Transfers between branches: begun for clients, prepared and ended for the registry.
//!
//! What has to be said follows from `tally_ledger::two_phase::Participant`; what has to be recorded is done by
//! `engine/legs.rs`. A message that finds no room is dropped: the registry tells again, and a branch asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tally_ledger::two_phase::{Decision, Participant, ParticipantEffect, ParticipantEvent, Vote};
use tally_ledger::wire::recorded_reply;
use tally_protocol::link::{CrossTransfer, MarkItem, VoteItem};
use tally_protocol::message::{self, transfer_flags};
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp, TransferId};

use super::Running;
use crate::engine::{Decided, Done, LegStep};
use crate::intake::Instruction;
use crate::lookup::{Asker, Job, Looked, Question};
use crate::replies::{GatedSender, ReplyBody};
use crate::two_phase::{Doubt, Said, TwoPhase, VOTES_TIMEOUT_NS, Waiting};

/// Instructions carried out in one cycle before others have their turn.
const INSTRUCTIONS_PER_CYCLE: usize = 256;
/// How often open legs are looked at for questions that are due.
const TICK_INTERVAL_NS: u64 = 250_000_000;

/// A worker's part in transfers between branches.
pub struct Between {
    /// What all threads share.
    pub shared: Arc<TwoPhase>,
    /// Begins, which wait for nothing.
    pub begins: GatedSender<Said>,
    /// Votes, acknowledgements and questions, behind their records.
    pub says: GatedSender<Said>,
    /// Instructions that could not be carried out yet: the log was full, or another worker had the id in hand.
    pub(super) waiting: VecDeque<Instruction>,
    pub(super) tick_next_ns: u64,
}

impl Between {
    /// The worker's ends of the queues to the link.
    pub fn new(shared: Arc<TwoPhase>, begins: GatedSender<Said>, says: GatedSender<Said>) -> Self {
        Self { shared, begins, says, waiting: VecDeque::new(), tick_next_ns: 0 }
    }

    fn say(&mut self, id: TransferId, gate: Lsn, effect: ParticipantEffect, now: Timestamp) {
        let (id, stamp) = (id.get(), now.as_nanos());
        let said = match effect {
            ParticipantEffect::Vote(Vote::Yes) => Said::Vote(VoteItem::new(id, stamp, 0)),
            ParticipantEffect::Vote(Vote::No(refusal)) => Said::Vote(VoteItem::new(id, stamp, refusal.code())),
            ParticipantEffect::Acknowledge => Said::Acknowledge(MarkItem::new(id, stamp)),
            ParticipantEffect::Ask => Said::Ask(MarkItem::new(id, stamp)),
            // Records: made by the engine before this is said.
            ParticipantEffect::Hold
            | ParticipantEffect::Refuse(_)
            | ParticipantEffect::Settle
            | ParticipantEffect::Void => {
                return;
            }
        };
        self.says.push_to(0, gate, said);
    }

    /// Says what `state` has to say of `event`, behind `gate`, and returns the state after it.
    fn handle(
        &mut self,
        id: TransferId,
        gate: Lsn,
        state: Participant,
        event: ParticipantEvent,
        now: Timestamp,
    ) -> Participant {
        let mut effects = Vec::with_capacity(2);
        let next = state.handle(self.shared.branch(), event, &mut effects);
        let next = next.expect("an open leg, or a new one, contradicts nothing");
        for effect in effects {
            self.say(id, gate, effect, now);
        }
        next
    }

    /// A leg was prepared: it is in doubt from here on.
    fn note_prepared(&mut self, id: TransferId, done: &Done, waiting: Vec<Waiting>) {
        let event = ParticipantEvent::Prepare { ruling: Ok(()), now: done.timestamp };
        let state = Participant::Absent.handle(self.shared.branch(), event, &mut Vec::new());
        let state = state.expect("a new leg contradicts nothing");
        let doubt = Doubt { state, lsn: done.lsn, since: done.timestamp, waiting };
        self.shared.doubts.insert(id, doubt);
        self.say(id, done.lsn, ParticipantEffect::Vote(Vote::Yes), done.timestamp);
    }
}

impl Running {
    /// A client's payment to another branch.
    pub(super) fn payment_between(
        &mut self,
        asker: Asker,
        transfer: message::Transfer,
        looked: Option<&Looked>,
        now: Timestamp,
    ) {
        let worker = &mut self.worker;
        let between = worker.between.as_mut().expect("the caller looked");
        let peer = AccountId::new(transfer.credit_account_id.get()).branch();
        if let Err(refusal) = between.shared.admit(peer) {
            // What was begun before is answered without the registry.
            return match looked {
                None => self.ask(asker, Question::Transfer(asker, transfer)),
                Some(_) => self.refuse(asker, refusal, super::requests::retry_hint_ms(refusal)),
            };
        }
        match worker.engine.prepare_source(&mut worker.writer, &transfer, &asker, looked, now) {
            LegStep::Prepared(done) => {
                let id = TransferId::new(transfer.id.get());
                let wants_balances = transfer.flags.get() & transfer_flags::WANT_BALANCES != 0;
                let wire = message::Transfer { flags: 0.into(), ..transfer };
                let stamp = done.timestamp.as_nanos();
                let deadline = stamp.saturating_add(VOTES_TIMEOUT_NS);
                let source = worker.engine.branch;
                let cross = CrossTransfer::new(wire, stamp, deadline, asker.trace_id, source, peer);
                between.note_prepared(id, &done, vec![Waiting { asker, wants_balances, is_repeat: false }]);
                between.begins.push_to(0, Lsn::ZERO, Said::Begin(cross));
                between.shared.stats.begun.fetch_add(1, Ordering::Relaxed);
            }
            LegStep::Refused(done) => {
                worker.count(&done);
                let body = worker.engine.transfer_body(&transfer, &done, &asker);
                self.reply(asker, done.lsn, body);
            }
            LegStep::NotRecorded(refusal) => self.refuse(asker, refusal, super::requests::retry_hint_ms(refusal)),
            LegStep::InFlight => self.wait(asker, crate::intake::Op::Transfer(transfer)),
            LegStep::Lookup => self.ask(asker, Question::Transfer(asker, transfer)),
            LegStep::Held(_) => unreachable!("only a destination is told twice"),
        }
    }

    /// The transfer came again while it is in doubt: it is answered with the first one.
    pub(super) fn attach(&mut self, asker: Asker, transfer: message::Transfer) {
        let Some(between) = &self.worker.between else {
            return self.refuse(asker, Refusal::RegistryUnreachable, super::requests::retry_hint_ms(Refusal::Busy));
        };
        let wants_balances = transfer.flags.get() & transfer_flags::WANT_BALANCES != 0;
        let waiting = Waiting { asker, wants_balances, is_repeat: true };
        match between.shared.doubts.attach(TransferId::new(transfer.id.get()), waiting) {
            Ok(true) => {}
            Ok(false) => self.refuse(asker, Refusal::Busy, 5),
            // Decided meanwhile.
            Err(_) => self.ask(asker, Question::Transfer(asker, transfer)),
        }
    }

    /// Carries out what the registry wants.
    pub(super) fn take_instructions(&mut self, now: Timestamp) -> bool {
        let Some(between) = &mut self.worker.between else { return false };
        let mut worked = false;
        for _ in 0..between.waiting.len() {
            let between = self.worker.between.as_mut().expect("it was there");
            let instruction = between.waiting.pop_front().expect("counted");
            self.instruct(instruction, None, now);
        }
        for _ in 0..INSTRUCTIONS_PER_CYCLE {
            // What waits keeps its turn: a full log is full for all.
            let is_free = self.worker.between.as_ref().is_some_and(|between| between.waiting.is_empty());
            let Some(instruction) = is_free.then(|| self.worker.lane.two_phase.pop()).flatten() else { break };
            self.instruct(instruction, None, now);
            worked = true;
        }
        worked
    }

    pub(super) fn instruct(&mut self, instruction: Instruction, looked: Option<&Looked>, now: Timestamp) {
        match instruction {
            Instruction::Prepare(cross) => self.prepare_leg(cross, looked, now),
            Instruction::Decide(id, decision) => self.decide_leg(id, decision, now),
        }
    }

    fn prepare_leg(&mut self, cross: CrossTransfer, looked: Option<&Looked>, now: Timestamp) {
        let worker = &mut self.worker;
        let Some(between) = &mut worker.between else { return };
        let id = TransferId::new(cross.transfer.id.get());
        let now = now.max(Timestamp::from_nanos(cross.stamp.get()));
        match worker.engine.prepare_destination(&mut worker.writer, &cross.transfer, looked, now) {
            LegStep::Prepared(done) => {
                between.note_prepared(id, &done, Vec::new());
                between.shared.stats.prepared.fetch_add(1, Ordering::Relaxed);
            }
            LegStep::Refused(done) => {
                let refusal = done.refusal.expect("it was refused");
                let event = ParticipantEvent::Prepare { ruling: Err(refusal), now: done.timestamp };
                between.handle(id, done.lsn, Participant::Absent, event, done.timestamp);
                between.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
            }
            LegStep::Held(hold) => between.say(id, hold.lsn, ParticipantEffect::Vote(Vote::Yes), now),
            LegStep::NotRecorded(refusal) => self.vote_no(id, refusal, now),
            LegStep::InFlight => between.waiting.push_back(Instruction::Prepare(cross)),
            LegStep::Lookup => {
                let job = Job { worker: worker.number, question: Question::Prepare(cross) };
                if worker.lookups.ask(job).is_err() {
                    self.vote_no(id, Refusal::Busy, now);
                }
            }
        }
    }

    fn vote_no(&mut self, id: TransferId, refusal: Refusal, now: Timestamp) {
        let Some(between) = &mut self.worker.between else { return };
        between.say(id, Lsn::ZERO, ParticipantEffect::Vote(Vote::No(refusal)), now);
        between.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn decide_leg(&mut self, id: TransferId, decision: Decision, now: Timestamp) {
        let worker = &mut self.worker;
        let Some(between) = &mut worker.between else { return };
        match worker.engine.decide(&mut worker.writer, id, decision, now) {
            Decided::Now(done, hold) => {
                let doubt = between.shared.doubts.remove(id);
                let prepared = Participant::Prepared { ask_at: hold.timestamp, pause_s: 1 };
                let state = doubt.as_ref().map_or(prepared, |doubt| doubt.state);
                between.handle(id, done.lsn, state, ParticipantEvent::Told(decision), done.timestamp);
                between.shared.stats.count(decision);
                if hold.leg == tally_ledger::Leg::Source {
                    worker.count(&done);
                }
                for waiting in doubt.into_iter().flat_map(|doubt| doubt.waiting) {
                    self.tell(waiting, &done);
                }
            }
            Decided::NotOpen => {
                let job = Job { worker: worker.number, question: Question::Decide(id, decision) };
                if worker.lookups.ask(job).is_err() {
                    between.shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Decided::NoRoom => between.waiting.push_back(Instruction::Decide(id, decision)),
        }
    }

    /// Tells a client how its transfer was decided.
    fn tell(&mut self, waiting: Waiting, done: &Done) {
        let engine = &self.worker.engine;
        let Waiting { asker, wants_balances, is_repeat } = waiting;
        let balances = wants_balances.then(|| {
            [
                engine.sums_for(&asker.actor, done.debit_account_id, &done.debit),
                engine.sums_for(&asker.actor, done.credit_account_id, &done.credit),
            ]
        });
        let reply = recorded_reply(done.amount, done.refusal, (done.lsn, done.timestamp), is_repeat);
        self.reply(asker, done.lsn, ReplyBody::Transfer { reply, balances });
    }

    /// Says what came back from the disk about a leg.
    pub(super) fn say_leg(&mut self, id: TransferId, effect: ParticipantEffect, now: Timestamp) {
        let Some(between) = &mut self.worker.between else { return };
        between.say(id, Lsn::ZERO, effect, now);
    }

    /// A decision that cannot be was looked at, and logged.
    pub(super) fn note_contradiction(&self) {
        if let Some(between) = &self.worker.between {
            between.shared.stats.contradictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks about legs that nobody decides.
    pub(super) fn ask_about_legs(&mut self, now: Timestamp, now_ns: u64) {
        let worker = &mut self.worker;
        let Some(between) = worker.between.as_mut().filter(|_| worker.number == 0) else { return };
        if now_ns < between.tick_next_ns {
            return;
        }
        between.tick_next_ns = now_ns + TICK_INTERVAL_NS;
        let (shared, says) = (&between.shared, &mut between.says);
        shared.doubts.tick(shared.branch(), now, |id, lsn| {
            says.push_to(0, lsn, Said::Ask(MarkItem::new(id.get(), now.as_nanos())));
            shared.stats.asked.fetch_add(1, Ordering::Relaxed);
        });
    }
}
