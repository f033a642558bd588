//! A branch's legs, from what is wanted to what is to be said: the same for a worker and for the simulator.
//!
//! What has to be recorded is done by `engine/legs.rs`; what has to be said follows from
//! `tally_ledger::two_phase::Participant`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_ledger::two_phase::{
    Attempt, Contradiction, Decision, Participant, ParticipantEffect, ParticipantEvent, Vote,
};
use tally_ledger::{Hold, HoldEnd, HoldStage, Leg};
use tally_protocol::link::{CrossTransfer, EndItem, MarkItem};
use tally_protocol::message::{self, transfer_flags};
use tally_protocol::{Amount, BranchId, Lsn, Refusal, Timestamp, TransferId};

use super::{Doubt, Said, TwoPhase, VOTES_TIMEOUT_NS, Waiting};
use crate::engine::{Decided, Done, Ended, Engine, LegStep, Moved, Writer};
use crate::intake::Instruction;
use crate::lookup::{Asker, Looked, Question};

/// What it led to, in the order in which it has to happen.
#[derive(Debug, Default)]
pub struct Led {
    /// To be told to the registry, each once everything up to its position is durable; what waits for nothing, at once.
    pub says: Vec<(Lsn, Said)>,
    /// Clients that can be told how their transfer was decided, each behind the record at its position.
    pub answers: Vec<(Lsn, Waiting, Done)>,
    /// For the disk.
    pub question: Option<Question>,
    /// Could not be carried out yet.
    pub again: Option<Instruction>,
    /// The source's part that was decided; of a chain, each member.
    pub decided: Vec<Done>,
    /// Clients that can be told how their chain was decided, each behind the record at its position.
    pub chain_answers: Vec<(Lsn, Asker, Vec<Done>)>,
    /// Chains that came again while they were in doubt: to be looked up.
    pub asked_again: Vec<(Asker, Bytes)>,
}

/// How far a payment to another branch came.
#[derive(Clone, Copy, Debug)]
pub enum Begun {
    /// Prepared, and begun with the registry. The client is answered when it is decided.
    InDoubt,
    /// Refused and recorded.
    Refused(Done),
    /// Refused without a trace.
    NotRecorded(Refusal),
    /// Another worker has the id in hand.
    InFlight,
    /// The disk has to be asked first.
    Lookup,
    /// An account of it has moved. Nothing was recorded.
    Moved(Moved),
}

impl Led {
    pub(super) fn say(&mut self, id: TransferId, gate: Lsn, effect: ParticipantEffect, now: Timestamp) {
        let stamp = now.as_nanos();
        let said = match effect {
            ParticipantEffect::Vote(vote) => Said::Vote(vote.to_item(id, now)),
            ParticipantEffect::Acknowledge => Said::Acknowledge(MarkItem::new(id.get(), stamp)),
            ParticipantEffect::Ask(attempt) => Said::Ask(MarkItem::question(id.get(), stamp, attempt.get())),
            // Records: made by the engine before anything is said. What is heard is told with the end that came.
            ParticipantEffect::Hold
            | ParticipantEffect::Refuse(_)
            | ParticipantEffect::Settle
            | ParticipantEffect::Void
            | ParticipantEffect::Keep
            | ParticipantEffect::End(_)
            | ParticipantEffect::Heard => return,
        };
        self.says.push((gate, said));
    }
}

impl TwoPhase {
    /// A client's payment to an account at `peer`. [`TwoPhase::admit`] comes before.
    #[expect(clippy::too_many_arguments, reason = "the stages' own arguments, and where to write")]
    pub fn begin(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        (transfer, peer): (&message::Transfer, BranchId),
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
        led: &mut Led,
    ) -> Begun {
        let done = match engine.prepare_source(writer, (transfer, peer), asker, looked, now) {
            LegStep::Prepared(done) => done,
            LegStep::Refused(done) => return Begun::Refused(done),
            LegStep::NotRecorded(refusal) => return Begun::NotRecorded(refusal),
            LegStep::InFlight => return Begun::InFlight,
            LegStep::Lookup => return Begun::Lookup,
            LegStep::Moved(moved) => return Begun::Moved(moved),
            LegStep::Held(_) => unreachable!("only a destination is told twice"),
        };
        let id = TransferId::new(transfer.id.get());
        let wants_balances = transfer.flags.get() & transfer_flags::WANT_BALANCES != 0;
        let wire = message::Transfer { flags: 0.into(), ..*transfer };
        let stamp = done.timestamp.as_nanos();
        let deadline = stamp.saturating_add(VOTES_TIMEOUT_NS);
        let cross = CrossTransfer::new(wire, stamp, deadline, asker.trace_id, self.branch, peer);
        // Both parts are flushed at the same time: the begin waits for nothing, and the vote for this record.
        let attempt = Attempt::of_cross(&cross);
        led.says.push((Lsn::ZERO, Said::Begin(cross)));
        led.say(id, done.lsn, ParticipantEffect::Vote(Vote::Yes(attempt)), done.timestamp);
        let waiting = Waiting { asker: *asker, wants_balances, is_repeat: false, member: id };
        self.note_prepared(id, attempt, &done, vec![waiting]);
        self.stats.begun.fetch_add(1, Ordering::Relaxed);
        Begun::InDoubt
    }

    /// The registry wants the destination's part prepared.
    pub fn prepare(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        cross: &CrossTransfer,
        looked: Option<&Looked>,
        now: Timestamp,
        led: &mut Led,
    ) {
        let id = TransferId::new(cross.transfer.id.get());
        // Causes come before effects: this part is stamped behind the source's.
        let now = now.max(Timestamp::from_nanos(cross.stamp.get().saturating_add(1)));
        let (source, attempt) = (BranchId::new(cross.source.get()), Attempt::of_cross(cross));
        match engine.prepare_destination(writer, (&cross.transfer, source), looked, now) {
            LegStep::Prepared(done) => {
                self.note_prepared(id, attempt, &done, Vec::new());
                led.say(id, done.lsn, ParticipantEffect::Vote(Vote::Yes(attempt)), done.timestamp);
                self.stats.prepared.fetch_add(1, Ordering::Relaxed);
            }
            LegStep::Refused(done) => {
                let ruling = Err(done.refusal.expect("it was refused").into());
                let event = ParticipantEvent::Prepare { ruling, now: done.timestamp, attempt };
                self.handle(id, done.lsn, Participant::Absent, event, (done.timestamp, led));
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
            }
            LegStep::Held(hold) if hold.is_in_doubt() => {
                let held = Participant::Prepared { ask_at: hold.timestamp, pause_s: 1, attempt: hold.attempt };
                self.handle(id, hold.lsn, held, ParticipantEvent::Prepare { ruling: Ok(()), now, attempt }, (now, led));
            }
            // A late copy: the registry has decided, and perhaps missed the acknowledgement.
            LegStep::Held(hold) => led.say(id, hold.lsn, ParticipantEffect::Acknowledge, now),
            LegStep::NotRecorded(refusal) => self.vote_no(id, refusal, now, led),
            LegStep::InFlight => led.again = Some(Instruction::Prepare(*cross)),
            LegStep::Lookup => led.question = Some(Question::Prepare(*cross)),
            LegStep::Moved(_) => unreachable!("told as a refusal that stays"),
        }
    }

    /// A vote that leaves no trace here: nothing was looked at, or there is no room.
    pub fn vote_no(&self, id: TransferId, refusal: Refusal, now: Timestamp, led: &mut Led) {
        self.object(id, refusal.into(), now, led);
    }

    /// The registry has decided, at a stamp of its own.
    pub fn decide(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        id: TransferId,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
        led: &mut Led,
    ) {
        // Causes come before effects: the worker may have read its clock before the decision came.
        let now = self.now(now);
        match engine.decide(writer, id, (decision, decided_at), now) {
            Decided::Now(done, hold) => {
                let doubt = self.doubts.remove(id);
                let prepared = Participant::Prepared { ask_at: hold.timestamp, pause_s: 1, attempt: hold.attempt };
                let state = doubt.as_ref().map_or(prepared, |doubt| doubt.state);
                let is_kept = hold.stage == HoldStage::AwaitsKeeping && decision == Decision::Commit;
                let event = if is_kept { ParticipantEvent::Kept } else { ParticipantEvent::Told(decision) };
                self.handle(id, done.lsn, state, event, (done.timestamp, led));
                self.stats.count(decision, hold.stage);
                led.decided.extend((hold.leg == Leg::Source).then_some(done));
                // A hold's answer is the record that made it, for its end is another record: so it answers the same for ever.
                let (gate, answer) = (done.lsn, if is_kept { as_held(done, &hold) } else { done });
                let waiting = doubt.into_iter().flat_map(|doubt| doubt.waiting);
                led.answers.extend(waiting.map(|waiting| (gate, waiting, answer)));
            }
            Decided::Standing(hold) if decision == Decision::Commit => {
                led.say(id, hold.lsn, ParticipantEffect::Acknowledge, now);
            }
            // It may be a hold on which the registry never decided, since it was made within one branch: its record knows.
            Decided::Standing(_) => led.question = Some(Question::Decide(id, decision, decided_at)),
            Decided::NotOpen | Decided::NotAlone => {
                if !self.decide_chain(engine, writer, id, (decision, decided_at), now, led) {
                    led.question = Some(Question::Decide(id, decision, decided_at));
                }
            }
            Decided::NoRoom => led.again = Some(Instruction::Decide(id, decision, decided_at)),
        }
    }

    /// The payer's branch has ended a hold, of which this branch has the payee's part.
    pub fn end(&self, engine: &Engine, writer: &mut Writer, item: &EndItem, now: Timestamp, led: &mut Led) {
        let id = TransferId::new(item.id.get());
        let Ok(end) = HoldEnd::of_item(item) else { return };
        let source = BranchId::new(item.source.get());
        // Causes come before effects.
        let now = now.max(Timestamp::from_nanos(item.stamp.get().saturating_add(1)));
        match engine.end_hold(
            writer,
            (id, source),
            (end, Amount::new(item.posted.get()), Timestamp::from_nanos(item.stamp.get())),
            now,
        ) {
            Ended::Now(done, hold) => {
                // Other members of its chain are in doubt as before.
                if engine.holds.chain(hold.decision_id()).is_empty() {
                    self.doubts.remove(hold.decision_id());
                }
                self.stats.count_end(end);
                self.heard(item, done.lsn, done.timestamp, led);
            }
            Ended::NotOpen => led.question = Some(Question::End(*item)),
            // Told again until it is heard.
            Ended::Later => {}
            Ended::NoRoom => led.again = Some(Instruction::End(*item)),
            Ended::Impossible => self.contradicted(id, Contradiction::NotPromised(self.branch)),
        }
    }

    /// Tells the payer's branch that the end of its hold is known here.
    pub fn heard(&self, item: &EndItem, gate: Lsn, now: Timestamp, led: &mut Led) {
        led.says.push((gate, Said::Heard(EndItem { stamp: now.as_nanos().into(), ..*item })));
    }

    /// Tells ends of holds: those that were not told yet, and where `is_tick` those that nobody has heard.
    pub fn tell_ends(&self, engine: &Engine, is_tick: bool, now: Timestamp, led: &mut Led) {
        let endings = &engine.holds.endings;
        endings.tell_fresh(|ending| led.says.push((ending.lsn, Said::End(ending.to_item(self.branch)))));
        if is_tick {
            endings.tell_due(now, |ending| led.says.push((ending.lsn, Said::End(ending.to_item(self.branch)))));
        }
    }

    fn contradicted(&self, id: TransferId, contradiction: Contradiction) {
        tracing::error!(
            stage = "two_phase",
            transfer = %id,
            %contradiction,
            "what another service says contradicts this branch's journal: nothing was changed, somebody has to look"
        );
        self.stats.contradictions.fetch_add(1, Ordering::Relaxed);
    }

    /// What the disk says has to be said. Everything in it was durable before it was read.
    pub fn say(&self, id: TransferId, effect: ParticipantEffect, now: Timestamp, led: &mut Led) {
        led.say(id, Lsn::ZERO, effect, now);
    }

    /// Asks about legs that nobody decides.
    pub fn ask(&self, now: Timestamp, led: &mut Led) {
        self.doubts.tick(self.branch, now, |id, lsn, attempt| {
            led.say(id, lsn, ParticipantEffect::Ask(attempt), now);
            self.stats.asked.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// A leg was prepared: it is in doubt from here on.
    pub(super) fn note_prepared(&self, id: TransferId, attempt: Attempt, done: &Done, waiting: Vec<Waiting>) {
        let event = ParticipantEvent::Prepare { ruling: Ok(()), now: done.timestamp, attempt };
        let state = Participant::Absent.handle(self.branch, event, &mut Vec::with_capacity(2));
        let state = state.expect("a new leg contradicts nothing");
        let accounts = [done.debit_account_id, done.credit_account_id];
        let (lsn, since) = (done.lsn, done.timestamp);
        self.doubts.insert(id, Doubt { state, accounts, lsn, since, waiting, chain: None });
    }

    /// Says what `state` has to say of `event`, behind `gate`, and returns the state after it.
    pub(super) fn handle(
        &self,
        id: TransferId,
        gate: Lsn,
        state: Participant,
        event: ParticipantEvent,
        (now, led): (Timestamp, &mut Led),
    ) -> Participant {
        let mut effects = Vec::with_capacity(2);
        let next = state.handle(self.branch, event, &mut effects);
        effects.into_iter().for_each(|effect| led.say(id, gate, effect, now));
        next.expect("an open leg, or a new one, contradicts nothing")
    }
}

/// The answer to a hold that stands: as its own record has it.
pub(super) const fn as_held(done: Done, hold: &Hold) -> Done {
    Done { lsn: hold.lsn, timestamp: hold.timestamp, ..done }
}
