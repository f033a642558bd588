//! Transfers between branches, as a worker meets them: begun for clients, prepared and ended for the registry.
//!
//! What each leads to is `two_phase/legs.rs`; here it is passed on. A message that finds no room is dropped: the registry
//! tells again, and a branch asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tally_ledger::Residence;
use tally_ledger::two_phase::ParticipantEffect;
use tally_ledger::wire::recorded_reply;
use tally_protocol::link::{EndItem, IdItem};
use tally_protocol::message::{self, transfer_flags};
use tally_protocol::{AccountId, BranchId, Lsn, Refusal, Timestamp, TransferId};

use super::Running;
use super::requests::retry_hint_ms;
use crate::clock;
use crate::engine::{Done, Moved};
use crate::intake::{Instruction, Op};
use crate::lookup::{Asker, Job, Looked, Question};
use crate::replies::{GatedSender, ReplyBody};
use crate::two_phase::{Begun, Heard, Led, Said, TwoPhase, Waiting};

/// Instructions carried out in one cycle before others have their turn.
const INSTRUCTIONS_PER_CYCLE: usize = 256;
/// How often open legs are looked at for questions that are due.
const TICK_INTERVAL_NS: u64 = 250_000_000;

/// A worker's part in transfers between branches.
pub struct Between {
    /// What all threads share.
    pub shared: Arc<TwoPhase>,
    /// What the registry is told, behind its records.
    pub says: GatedSender<Said>,
    /// What the registry is told at once.
    pub begins: GatedSender<Said>,
    /// Instructions that could not be carried out yet: the log was full, or another worker had the id in hand.
    pub(super) waiting: VecDeque<Instruction>,
    pub(super) led: Led,
    tick_next_ns: u64,
}

impl Between {
    /// The worker's ends of the queues to the link.
    pub fn new(shared: Arc<TwoPhase>, says: GatedSender<Said>, begins: GatedSender<Said>) -> Self {
        Self { shared, says, begins, waiting: VecDeque::new(), led: Led::default(), tick_next_ns: 0 }
    }
}

impl Running {
    /// A client's payment to another branch.
    pub(super) fn payment_between(
        &mut self,
        asker: Asker,
        transfer: message::Transfer,
        peer: BranchId,
        looked: Option<&Looked>,
        now: Timestamp,
    ) {
        let worker = &mut self.worker;
        let between = worker.between.as_mut().expect("the caller looked");
        if let Err(refusal) = between.shared.admit(peer) {
            // What was begun before is answered without the registry.
            return match looked {
                None => self.ask(asker, Question::Transfer(asker, transfer)),
                Some(_) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            };
        }
        let (engine, writer, led) = (&worker.engine, &mut worker.writer, &mut between.led);
        match between.shared.begin(engine, writer, (&transfer, peer), &asker, looked, now, led) {
            Begun::InDoubt => self.pass_on(now),
            Begun::Refused(done) => {
                worker.count(&done);
                let body = worker.engine.transfer_body(&transfer, &done, &asker);
                self.reply(asker, done.lsn, body);
            }
            Begun::NotRecorded(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            Begun::InFlight => self.wait(asker, Op::Transfer(transfer)),
            Begun::Lookup => self.ask(asker, Question::Transfer(asker, transfer)),
            Begun::Moved(moved) => self.transfer_of_moved(asker, transfer, moved, looked, now),
        }
    }

    /// The transfer came again while it is in doubt: it is answered with the first one.
    pub(super) fn attach(&mut self, asker: Asker, transfer: message::Transfer, decided_under: TransferId) {
        let Some(between) = &self.worker.between else {
            // A folder that had a registry, and is configured without one: nobody will decide.
            return self.refuse(asker, Refusal::RegistryUnreachable, retry_hint_ms(Refusal::RegistryUnreachable));
        };
        let wants_balances = transfer.flags.get() & transfer_flags::WANT_BALANCES != 0;
        let member = TransferId::new(transfer.id.get());
        let waiting = Waiting { asker, wants_balances, is_repeat: true, member };
        match between.shared.doubts.attach(decided_under, waiting) {
            Ok(true) => {}
            Ok(false) => self.refuse(asker, Refusal::Busy, 5),
            // Decided meanwhile.
            Err(_) => self.ask(asker, Question::Transfer(asker, transfer)),
        }
    }

    /// A transfer on an account that has moved away, or here.
    pub(super) fn transfer_of_moved(
        &mut self,
        asker: Asker,
        transfer: message::Transfer,
        moved: Moved,
        looked: Option<&Looked>,
        now: Timestamp,
    ) {
        let Some(between) = &mut self.worker.between else {
            return self.refuse(asker, Refusal::RegistryUnreachable, retry_hint_ms(Refusal::RegistryUnreachable));
        };
        let account_id = |raw: u128| AccountId::new(raw);
        match moved {
            Moved::Away(_) if transfer.kind == message::TransferKind::Deposit as u8 => {
                self.refuse_moved(asker, account_id(transfer.credit_account_id.get()));
            }
            Moved::Away(_) => self.refuse_moved(asker, account_id(transfer.debit_account_id.get())),
            Moved::PayeeAway(branch) => {
                let payee = account_id(transfer.credit_account_id.get());
                let peer = between.shared.moved.get(payee).unwrap_or(branch);
                let kinds = [message::TransferKind::Transfer as u8, message::TransferKind::Hold as u8];
                let is_payment = kinds.contains(&transfer.kind);
                if peer == self.worker.engine.branch {
                    self.refuse(asker, Refusal::AccountMoving, retry_hint_ms(Refusal::AccountMoving));
                } else if is_payment {
                    self.payment_between(asker, transfer, peer, looked, now);
                } else {
                    self.refuse_moved(asker, payee);
                }
            }
            Moved::Here(residence) => self.ask_former(asker, transfer, residence, TransferId::NONE, now),
            Moved::HereAlone(residence) => {
                self.ask_former(asker, transfer, residence, TransferId::new(transfer.reference.get()), now);
            }
        }
    }

    /// Asks where the account was before it came here.
    fn ask_former(
        &mut self,
        asker: Asker,
        transfer: message::Transfer,
        residence: Residence,
        reference: TransferId,
        now: Timestamp,
    ) {
        let Some(between) = self.worker.between.as_mut() else { return };
        let now_ns = clock::monotonic_nanos();
        match between.shared.ask_former(asker, transfer, residence, reference, now_ns, &mut between.led) {
            Ok(()) => self.pass_on(now),
            Err(refusal) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
        }
    }

    /// The account is at another branch: the hint says at which.
    pub(super) fn refuse_moved(&mut self, asker: Asker, id: AccountId) {
        let told = self.worker.between.as_ref().and_then(|between| between.shared.moved.get(id));
        let branch = told.or_else(|| self.worker.engine.gone_to(id)).unwrap_or_default();
        // It is on its way back.
        if branch == self.worker.engine.branch {
            return self.refuse(asker, Refusal::AccountMoving, retry_hint_ms(Refusal::AccountMoving));
        }
        self.refuse(asker, Refusal::AccountMoved, u32::from(branch.get()));
    }

    /// What the former branches of an account have said about a request.
    fn go_on(&mut self, heard: Heard, now: Timestamp) {
        match heard {
            Heard::Cleared(asker, transfer) => self.transfer(asker, transfer, None, now),
            Heard::Refused(asker, refusal, Some(branch)) => self.refuse(asker, refusal, u32::from(branch.get())),
            Heard::Refused(asker, refusal, None) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
        }
    }

    /// Tells another branch whether an id was used here.
    pub(super) fn tell_id(&mut self, item: IdItem) {
        if let Some(between) = &mut self.worker.between {
            between.says.push_to(0, Lsn::ZERO, Said::TellId(item));
        }
    }

    /// Carries out what the registry wants.
    pub(super) fn take_instructions(&mut self, now: Timestamp) -> bool {
        let Some(between) = &mut self.worker.between else { return false };
        for instruction in std::mem::take(&mut between.waiting) {
            self.instruct(instruction, None, now);
        }
        let mut worked = false;
        for _ in 0..INSTRUCTIONS_PER_CYCLE {
            // What waits keeps its turn: a full log is full for all.
            let is_free = self.worker.between.as_ref().is_some_and(|between| between.waiting.is_empty());
            let Some(instruction) = is_free.then(|| self.worker.lane.two_phase.pop()).flatten() else { break };
            self.instruct(instruction, None, now);
            worked = true;
        }
        worked
    }

    /// Carries out one instruction; `looked` is what the disk said about a prepare.
    pub(super) fn instruct(&mut self, instruction: Instruction, looked: Option<&Looked>, now: Timestamp) {
        let worker = &mut self.worker;
        let Some(between) = &mut worker.between else { return };
        let (engine, writer, led) = (&worker.engine, &mut worker.writer, &mut between.led);
        match &instruction {
            Instruction::Prepare(cross) => between.shared.prepare(engine, writer, cross, looked, now, led),
            Instruction::PrepareChain(chain) => between.shared.prepare_chain(engine, writer, chain, looked, now, led),
            Instruction::Decide(id, decision, at) => {
                between.shared.decide(engine, writer, *id, (*decision, *at), now, led);
            }
            Instruction::End(item) => between.shared.end(engine, writer, item, now, led),
            Instruction::Heard(id) => engine.holds.ending_heard(*id),
            Instruction::Leave(order) => between.shared.leave(engine, writer, order, now, led),
            Instruction::TakeIn(moving) => between.shared.take_in(engine, writer, moving, looked, now, led),
            Instruction::AskId(item) => led.question = Some(Question::IdUsed(*item)),
            Instruction::IdTold(item) => match between.shared.hear_former(item) {
                Some(heard) => return self.go_on(heard, now),
                None => return,
            },
        }
        self.pass_on(now);
    }

    /// Says what came back from the disk about a leg.
    pub(super) fn say_leg(&mut self, id: TransferId, effect: ParticipantEffect, now: Timestamp) {
        let Some(between) = &mut self.worker.between else { return };
        between.shared.say(id, effect, now, &mut between.led);
        self.pass_on(now);
    }

    /// The disk said that the end of a hold was carried out before.
    pub(super) fn say_heard(&mut self, item: &EndItem, now: Timestamp) {
        let Some(between) = &mut self.worker.between else { return };
        between.shared.heard(item, Lsn::ZERO, now, &mut between.led);
        self.pass_on(now);
    }

    /// A decision that cannot be was looked at, and logged.
    pub(super) fn note_contradiction(&self) {
        if let Some(between) = &self.worker.between {
            between.shared.stats.contradictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks about legs that nobody decides, and tells ends of holds that nobody has heard.
    pub(super) fn ask_about_legs(&mut self, now: Timestamp, now_ns: u64) {
        let worker = &mut self.worker;
        let Some(between) = worker.between.as_mut().filter(|_| worker.number == 0) else { return };
        let is_tick = now_ns >= between.tick_next_ns;
        if !is_tick && !worker.engine.holds.endings.has_fresh() {
            return;
        }
        let mut late = Vec::new();
        if is_tick {
            between.tick_next_ns = now_ns + TICK_INTERVAL_NS;
            between.shared.ask(now, &mut between.led);
            late = between.shared.give_up_former(now_ns);
        }
        between.shared.tell_ends(&worker.engine, is_tick, now, &mut between.led);
        self.pass_on(now);
        let refusal = Refusal::FormerBranchUnreachable;
        late.into_iter().for_each(|asker| self.refuse(asker, refusal, retry_hint_ms(refusal)));
    }

    /// Passes on what the last step led to.
    pub(super) fn pass_on(&mut self, now: Timestamp) {
        let worker = &mut self.worker;
        let Some(between) = &mut worker.between else { return };
        if let Some(question) = between.led.question.take() {
            let prepared = match &question {
                Question::Prepare(cross) => Some(TransferId::new(cross.transfer.id.get())),
                Question::PrepareChain(chain) => Some(TransferId::new(chain.prefix.id.get())),
                _ => None,
            };
            if worker.lookups.ask(Job { worker: worker.number, question }).is_err() {
                match prepared {
                    Some(id) => between.shared.vote_no(id, Refusal::Busy, now, &mut between.led),
                    // The registry says it again.
                    None => drop(between.shared.stats.dropped.fetch_add(1, Ordering::Relaxed)),
                }
            }
        }
        for (gate, said) in between.led.says.drain(..) {
            match said {
                // A queue keeps its order: behind the gates of others a begin would wait for their flush.
                Said::Begin(_) => between.begins.push_to(0, gate, said),
                // Nobody waits for it but the registry, to forget the transfer: it would cost two wake-ups just when the
                // decision is on its way to the client.
                Said::Acknowledge(_) => between.says.push_in_passing(0, gate, said),
                _ => between.says.push_to(0, gate, said),
            }
        }
        between.waiting.extend(between.led.again.take());
        let decided = std::mem::take(&mut between.led.decided);
        let answers = std::mem::take(&mut between.led.answers);
        let chain_answers = std::mem::take(&mut between.led.chain_answers);
        let asked_again = std::mem::take(&mut between.led.asked_again);
        decided.iter().for_each(|done| self.worker.count(done));
        for (gate, waiting, done) in answers {
            self.tell(gate, waiting, &done);
        }
        for (gate, asker, dones) in chain_answers {
            self.tell_chain(gate, asker, &dones);
        }
        for (asker, entries) in asked_again {
            self.ask(asker, Question::Chain(asker, entries));
        }
    }

    /// Tells a client how its transfer was decided.
    fn tell(&mut self, gate: Lsn, Waiting { asker, wants_balances, is_repeat, .. }: Waiting, done: &Done) {
        let engine = &self.worker.engine;
        let balances = wants_balances.then(|| {
            [
                engine.sums_for(&asker.actor, done.debit_account_id, &done.debit),
                engine.sums_for(&asker.actor, done.credit_account_id, &done.credit),
            ]
        });
        let reply = recorded_reply(done.amount, done.refusal, (done.lsn, done.timestamp), is_repeat);
        self.reply(asker, gate, ReplyBody::Transfer { reply, balances });
    }
}
