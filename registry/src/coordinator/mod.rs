//! Every transfer between branches that is not over: one `ledger::two_phase::Coordinator` each, in the leader's memory.
//!
//! ```text
//!   begin, vote, ask, acknowledge --> [ table of coordinators ] --prepare, decision, busy--> outboxes, one per branch
//!                                        ^            | propose
//!                                        | replicated v
//!                                      [ the replicated log ]
//! ```
//!
//! Nothing here is needed to be safe: it is lost with the leader, and the next one reads the decisions that somebody has
//! to carry out from the state. What was not decided is asked about by the branches that hold something for it.
//!
//! Pure: `now` and the replicated state come in, frames and commands are fetched. A simulator drives it as the server
//! does.
//!
//! **Invariant:** a decision goes into an outbox only out of the replicated state.
//!
//! **Invariant:** everything here is bounded: the table by `transfers_max` (a begin beyond it is answered `busy`; what is
//! asked about comes in all the same, because branches bound what they hold; a chain takes the room of all its members), each outbox by [`OUTBOX_ITEMS_MAX`] (what
//! does not fit is said again by a timer).

mod chains;
mod moves;
mod outbox;
mod timers;

#[cfg(test)]
mod tests;

pub use chains::ChainInHand;
pub use moves::{Ordered, refusal_name};
pub use outbox::OUTBOX_ITEMS_MAX;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tally_ledger::two_phase::{
    AbortReason, Attempt, Contradiction, Coordinator, CoordinatorEffect, CoordinatorEvent, Decision, Participants, Vote,
};
use tally_protocol::link::{AccountMove, BranchStatus, CrossTransfer, EndItem, MarkItem, VoteItem};
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId};

use crate::state::{BATCH_HEADER_LEN_BYTES, BatchBuilder, Command, Known, State};
use outbox::Outbox;
use timers::{Timers, pause};

/// A batch of the log is not longer: it must pass within a heartbeat of Raft, and small ones behind it must not wait.
pub const BATCH_LEN_BYTES_MAX: usize = 256 << 10;
/// The most that a source may ask us to wait for votes.
const DEADLINE_NANOS_MAX: u64 = 60_000_000_000;
/// Acknowledgements are in no hurry: they go with the next decisions, or after this time.
const ACKNOWLEDGE_PAUSE_NANOS: u64 = 50_000_000;
/// Contradictions kept until somebody fetches them for the log.
const CONTRADICTIONS_MAX: usize = 100;
/// Decisions that a branch may owe an acknowledgement for. A branch that is away would gather them without end: beyond
/// this, transfers to it are refused as they begin.
const OWED_MAX: usize = 100_000;

// The longest command must fit into a batch, many times.
const _: () = assert!(BATCH_LEN_BYTES_MAX > 16 * BATCH_HEADER_LEN_BYTES + 16 * 1_024);

/// See the module.
#[derive(Debug)]
pub struct Coordinators {
    transfers_max: usize,
    /// Nothing new is begun: the log cannot take it, or another node is about to lead.
    is_closed: bool,
    table: HashMap<TransferId, Slot, RandomState>,
    timers: Timers,
    outboxes: BTreeMap<BranchId, Outbox>,
    owed: BTreeMap<BranchId, usize>,
    decisions: VecDeque<Proposal>,
    acknowledged: VecDeque<(TransferId, Participants)>,
    acknowledged_since: Option<Timestamp>,
    contradictions: Vec<(TransferId, Contradiction)>,
    /// The moves of the table.
    moves: HashMap<TransferId, Arc<AccountMove>, RandomState>,
    /// The chains of the table.
    chains: HashMap<TransferId, ChainInHand, RandomState>,
    /// Members of all of them.
    chain_members: usize,
    /// What operators wait for.
    orders: BTreeMap<TransferId, Ordered>,
    effects: Vec<CoordinatorEffect>,
    counters: Counters,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    machine: Coordinator,
    /// Absent where only the log or a question told of it.
    transfer: Option<CrossTransfer>,
    /// Who has carried the decision out.
    acknowledged: Participants,
    begun_at: Timestamp,
    decided_at: Option<Timestamp>,
    voted_at: [Option<Timestamp>; 2],
    /// When the machine came into its state.
    entered_at: Timestamp,
    /// How often it was told the time since then.
    attempts: u8,
}

#[derive(Clone, Copy, Debug)]
struct Proposal {
    id: TransferId,
    decision: Decision,
    participants: Participants,
    stamp: Timestamp,
}

/// What happened since the leader began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transfers begun.
    pub begun: u64,
    /// Begins that found no room, or a destination that is not there.
    pub busy: u64,
    /// Decisions to commit.
    pub committed: u64,
    /// Decisions to abort.
    pub aborted: u64,
    /// Transfers that are over.
    pub done: u64,
    /// Ends of holds that were passed on, copies included.
    pub ends: u64,
    /// Items of branches that break the rules.
    pub contradictions: u64,
    /// Items that were said again because time had passed.
    pub repeated: u64,
    /// Items that found an outbox full.
    pub dropped: u64,
}

/// How many transfers are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Waiting for votes.
    pub collecting: usize,
    /// On their way into the log.
    pub deciding: usize,
    /// Decided, not acknowledged by all.
    pub decided: usize,
    /// When the oldest of the first two began.
    pub oldest_undecided: Option<Timestamp>,
}

/// A transfer, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Which.
    pub id: TransferId,
    /// Its machine.
    pub machine: Coordinator,
    /// As the source began it, if this leader heard that; of a chain the first member that goes to another branch.
    pub transfer: Option<CrossTransfer>,
    /// All of a chain.
    pub chain: Option<ChainInHand>,
    /// When this leader first heard of it.
    pub begun_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When source and destination voted, where this leader heard that.
    pub voted_at: [Option<Timestamp>; 2],
    /// How often it was said again.
    pub attempts: u8,
}

impl Coordinators {
    /// Those of a leader that begins to serve: every decision of `state` that somebody has to carry out. At most
    /// `transfers_max` transfers are begun at a time.
    pub fn new(transfers_max: usize, state: &State, now: Timestamp) -> Self {
        let mut new = Self {
            transfers_max,
            is_closed: false,
            table: HashMap::default(),
            timers: Timers::default(),
            outboxes: BTreeMap::new(),
            owed: BTreeMap::new(),
            decisions: VecDeque::new(),
            acknowledged: VecDeque::new(),
            acknowledged_since: None,
            contradictions: Vec::new(),
            moves: HashMap::default(),
            chains: HashMap::default(),
            chain_members: 0,
            orders: BTreeMap::new(),
            effects: Vec::new(),
            counters: Counters::default(),
        };
        for (id, known) in state.decisions.open() {
            let machine = Coordinator::Decided { decision: known.decision, unacknowledged: known.unacknowledged };
            let slot = Slot { decided_at: Some(known.stamp), ..Slot::new(machine, now) };
            new.put(id, slot, now);
        }
        new
    }

    /// A branch's link is there: it is told what it may have missed.
    pub fn connect(&mut self, branch: BranchId) {
        let outbox = self.outboxes.entry(branch).or_default();
        *outbox = Outbox::default();
        for (&id, slot) in &self.table {
            match (slot.machine, &slot.transfer) {
                (Coordinator::Collecting { source, missing, .. }, Some(transfer))
                    if missing.contains(branch) && branch != source =>
                {
                    match (self.moves.get(&id), self.chains.get(&id)) {
                        (Some(moving), _) => outbox.prepare_move(moving),
                        (None, Some(in_hand)) => outbox.prepare_chain(&in_hand.chain),
                        (None, None) => outbox.prepare(transfer),
                    };
                }
                (Coordinator::Decided { decision, unacknowledged }, _) if unacknowledged.contains(branch) => {
                    outbox.tell(decision.to_item(id, slot.decided_at.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    /// A branch's link is gone: nothing is gathered for it.
    pub fn disconnect(&mut self, branch: BranchId) {
        self.outboxes.remove(&branch);
    }

    /// Whether new transfers are refused as they begin; those in hand go on.
    pub fn set_closed(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    /// `from` begins transfers. Its own parts are not durable yet: it votes on them.
    pub fn begin(&mut self, from: BranchId, items: &[CrossTransfer], state: &State, now: Timestamp) {
        for item in items {
            let id = TransferId::new(item.transfer.id.get());
            let (source, destination) = (BranchId::new(item.source.get()), BranchId::new(item.destination.get()));
            if source != from {
                self.contradiction(id, Contradiction::Stranger(from));
                continue;
            }
            if self.is_of_others(id, from, state) {
                continue;
            }
            let is_known = self.table.contains_key(&id) || state.decisions.get(id).is_some();
            if !is_known
                && (self.is_closed
                    || self.table.len() + self.chain_members >= self.transfers_max
                    || !self.is_there(destination, state))
            {
                self.counters.busy += 1;
                self.outbox(from, |outbox| outbox.busy(MarkItem::new(id.get(), now.as_nanos())));
                continue;
            }
            let deadline = item.deadline.get().min(now.as_nanos().saturating_add(DEADLINE_NANOS_MAX));
            let participants = Participants::one(source).with(destination).expect("two are few");
            let deadline = Timestamp::from_nanos(deadline);
            self.counters.begun += u64::from(!is_known);
            let attempt = Attempt::of_cross(item);
            let event = CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised: false };
            self.step(id, event, Some(item), state, now);
        }
    }

    /// `from` votes.
    pub fn vote(&mut self, from: BranchId, items: &[VoteItem], state: &State, now: Timestamp) {
        for item in items {
            let id = TransferId::new(item.id.get());
            // A refusal of a newer branch is a no all the same, but which one could not be passed on: the transfer is
            // left to its deadline.
            let Ok(vote) = Vote::of_item(item) else { continue };
            if matches!(vote, Vote::Yes(_)) && self.is_of_others(id, from, state) {
                continue;
            }
            if let Some(slot) = self.table.get_mut(&id) {
                slot.note_vote(from, Timestamp::from_nanos(item.stamp.get()));
            }
            if let Some(in_hand) = self.chains.get_mut(&id) {
                in_hand.voted_at.entry(from).or_insert(Timestamp::from_nanos(item.stamp.get()));
            }
            self.step(id, CoordinatorEvent::Voted(from, vote), None, state, now);
        }
    }

    /// `from` asks what became of what it has prepared.
    pub fn ask(&mut self, from: BranchId, items: &[MarkItem], state: &State, now: Timestamp) {
        for item in items {
            let id = TransferId::new(item.id.get());
            if !self.is_of_others(id, from, state) {
                let event = CoordinatorEvent::Asked(from, Attempt::new(item.attempt.get()));
                self.step(id, event, None, state, now);
            }
        }
    }

    /// `from` has carried decisions out.
    pub fn acknowledge(&mut self, from: BranchId, items: &[MarkItem], state: &State, now: Timestamp) {
        for item in items {
            self.step(TransferId::new(item.id.get()), CoordinatorEvent::Acknowledged(from), None, state, now);
        }
    }

    /// `from` has ended holds as the payer's branch: passed on to the payees' branches. Nothing is remembered: `from` says it
    /// again until it has heard that they know.
    pub fn end(&mut self, from: BranchId, items: &[EndItem]) {
        for item in items {
            if item.source.get() == from.get() {
                self.counters.ends += 1;
                self.outbox(BranchId::new(item.destination.get()), |outbox| outbox.end(*item));
            } else {
                self.contradiction(TransferId::new(item.id.get()), Contradiction::Stranger(from));
            }
        }
    }

    /// `from` has carried out, as the payees' branch, how holds ended: passed on to the payers' branches.
    pub fn heard(&mut self, from: BranchId, items: &[EndItem]) {
        for item in items {
            if item.destination.get() == from.get() {
                self.outbox(BranchId::new(item.source.get()), |outbox| outbox.heard(*item));
            } else {
                self.contradiction(TransferId::new(item.id.get()), Contradiction::Stranger(from));
            }
        }
    }

    /// The log has `known` as the decision on `id`, of which we proposed one for `participants`.
    pub fn replicated(
        &mut self,
        id: TransferId,
        known: Known,
        participants: Participants,
        state: &State,
        now: Timestamp,
    ) {
        if let Some(slot) = self.table.get_mut(&id) {
            slot.decided_at = Some(known.stamp);
        }
        // One that is over, or that a former proposal decided, comes back with nobody to tell but who is asking.
        let event = CoordinatorEvent::Replicated { decision: known.decision, participants };
        self.step(id, event, None, state, now);
    }

    /// An operator wants `id` ended. Returns who has to give back, for the command that decides it; `None` when it is
    /// decided, or about to be: then the outcome is in the state, or will be.
    ///
    /// # Errors
    /// When it is decided otherwise.
    pub fn resolve(
        &mut self,
        id: TransferId,
        state: &State,
        now: Timestamp,
    ) -> Result<Option<Participants>, Contradiction> {
        let slot = self.load(id, state, now);
        let mut effects = std::mem::take(&mut self.effects);
        let next = slot.machine.handle(CoordinatorEvent::Resolve, &mut effects);
        let proposed = effects.drain(..).find_map(|effect| match effect {
            CoordinatorEffect::Propose(_, participants) => Some(participants),
            CoordinatorEffect::Prepare(_) | CoordinatorEffect::Tell(..) => None,
        });
        self.effects = effects;
        let slot = slot.entered(next?, now);
        self.put(id, slot, now);
        Ok(proposed)
    }

    /// Time has passed. To be called some twenty times a second.
    pub fn tick(&mut self, state: &State, now: Timestamp) {
        for id in self.timers.take_due(now) {
            let Some(slot) = self.table.get_mut(&id) else { continue };
            let due_at = slot.due_at(id);
            if now < due_at {
                self.timers.schedule(id, due_at);
                continue;
            }
            slot.attempts = slot.attempts.saturating_add(1);
            self.counters.repeated += 1;
            self.step(id, CoordinatorEvent::Tick(now), None, state, now);
            if let Some(slot) = self.table.get(&id) {
                self.timers.schedule(id, slot.due_at(id));
            }
        }
    }

    /// Moves what is to be proposed into `batch`, up to [`BATCH_LEN_BYTES_MAX`]: decisions first, acknowledgements behind
    /// them or when they have waited. Where more acknowledgements wait than decisions they get half of it, or a long rush
    /// of decisions would leave ever more of them open.
    pub fn fill(&mut self, batch: &mut BatchBuilder, now: Timestamp) {
        let has_room = |batch: &BatchBuilder| batch.len_bytes() + 64 <= BATCH_LEN_BYTES_MAX;
        let is_behind = self.acknowledged.len() > self.decisions.len();
        let for_decisions = if is_behind { BATCH_LEN_BYTES_MAX / 2 } else { BATCH_LEN_BYTES_MAX };
        while batch.len_bytes() + 64 <= for_decisions
            && let Some(Proposal { id, decision, participants, stamp }) = self.decisions.pop_front()
        {
            batch.push(&match self.moves.get(&id) {
                Some(moving) if decision == Decision::Commit => Command::MoveAccount {
                    id,
                    account_id: AccountId::new(moving.account.account_id.get()),
                    branch_id: BranchId::new(moving.account.destination.get()),
                    participants,
                    stamp,
                },
                Some(_) | None => Command::Decide { id, decision, participants, stamp },
            });
        }
        if batch.is_empty() && !self.has_acknowledgements_due(now) {
            return;
        }
        while has_room(batch)
            && let Some((id, branches)) = self.acknowledged.pop_front()
        {
            batch.push(&Command::Acknowledged { id, branches, stamp: now });
        }
        self.acknowledged_since = (!self.acknowledged.is_empty()).then_some(now);
    }

    /// Whether [`Self::fill`] would find something.
    pub fn has_proposals(&self, now: Timestamp) -> bool {
        !self.decisions.is_empty() || self.has_acknowledgements_due(now)
    }

    fn has_acknowledgements_due(&self, now: Timestamp) -> bool {
        self.acknowledged_since.is_some_and(|since| now.as_nanos() >= since.as_nanos() + ACKNOWLEDGE_PAUSE_NANOS)
    }

    /// Appends all frames for `branch` to `out`; whether there were any.
    pub fn take_frames(&mut self, branch: BranchId, out: &mut Vec<u8>) -> bool {
        let len_before = out.len();
        if let Some(outbox) = self.outboxes.get_mut(&branch) {
            outbox.take(out);
        }
        out.len() > len_before
    }

    /// Connected branches that have frames waiting.
    pub fn branches_with_frames(&self) -> impl Iterator<Item = BranchId> + '_ {
        self.outboxes.iter().filter(|(_, outbox)| !outbox.is_empty()).map(|(&branch, _)| branch)
    }

    /// What broke the rules since the last call.
    pub fn take_contradictions(&mut self) -> Vec<(TransferId, Contradiction)> {
        std::mem::take(&mut self.contradictions)
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Transfers by state.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for slot in self.table.values() {
            match slot.machine {
                Coordinator::Collecting { .. } => census.collecting += 1,
                Coordinator::Deciding { .. } => census.deciding += 1,
                Coordinator::Decided { .. } => census.decided += 1,
                Coordinator::Unknown | Coordinator::Done(_) => {}
            }
            if matches!(slot.machine, Coordinator::Collecting { .. } | Coordinator::Deciding { .. }) {
                let oldest = census.oldest_undecided.map_or(slot.begun_at, |oldest| oldest.min(slot.begun_at));
                census.oldest_undecided = Some(oldest);
            }
        }
        census
    }

    /// Transfers in hand.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What is known of `id`, or of the chain that it is a member of, if it is not over.
    pub fn show(&self, id: TransferId) -> Option<Shown> {
        let shown = |id| self.table.get(&id).map(|slot| self.shown(id, slot));
        shown(id).or_else(|| shown(self.chain_of(id)?))
    }

    fn shown(&self, id: TransferId, slot: &Slot) -> Shown {
        Shown { chain: self.chains.get(&id).cloned(), ..slot.shown(id) }
    }

    /// Transfers that are not over, the oldest first, at most `count_max`; with `undecided` only those.
    pub fn list(&self, undecided: bool, count_max: usize) -> Vec<Shown> {
        let wanted = |slot: &&Slot| !undecided || !matches!(slot.machine, Coordinator::Decided { .. });
        let mut all: Vec<_> =
            self.table.iter().filter(|(_, slot)| wanted(slot)).map(|(&id, slot)| self.shown(id, slot)).collect();
        all.sort_unstable_by_key(|shown| (shown.begun_at, shown.id));
        all.truncate(count_max);
        all
    }

    /// Whether transfers to `branch` can be begun.
    fn is_there(&self, branch: BranchId, state: &State) -> bool {
        let owes_too_much = self.owed.get(&branch).is_some_and(|&owed| owed >= OWED_MAX);
        !owes_too_much
            && state.directory.branches.get(&branch).is_some_and(|entry| match entry.status {
                BranchStatus::Serving | BranchStatus::Suspect => true,
                BranchStatus::Draining | BranchStatus::Down | BranchStatus::Left => false,
            })
    }

    /// Whether `id` was begun or committed for other branches than `from`, which says that it holds a part. That is something
    /// else under an id that is used up. It is told to give that back, once the log has the commit; before, it has to ask
    /// again.
    ///
    /// Who has a part in the commit cannot hold anything else under the id: its part was durable when it promised.
    fn is_of_others(&mut self, id: TransferId, from: BranchId, state: &State) -> bool {
        match self.table.get(&id).map(|slot| slot.machine) {
            // What the log knows was read before this leader began, so it knows nothing of this.
            Some(
                Coordinator::Collecting { participants, .. }
                | Coordinator::Deciding { proposed: Decision::Commit, participants },
            ) => return !participants.contains(from),
            Some(
                Coordinator::Unknown
                | Coordinator::Deciding { proposed: Decision::Abort(_), .. }
                | Coordinator::Decided { .. }
                | Coordinator::Done(_),
            )
            | None => {}
        }
        let Some(known) = state.decisions.get(id).filter(|known| known.excludes(from)) else { return false };
        let item = Decision::Abort(AbortReason::Presumed).to_item(id, known.stamp);
        self.outbox(from, |outbox| outbox.tell(item));
        true
    }

    /// The machine of `id`, from the table, or as the log has it.
    fn load(&self, id: TransferId, state: &State, now: Timestamp) -> Slot {
        if let Some(slot) = self.table.get(&id) {
            return *slot;
        }
        match state.decisions.get(id) {
            None => Slot::new(Coordinator::Unknown, now),
            Some(Known { decision, unacknowledged, stamp, .. }) => {
                let machine = match unacknowledged.is_empty() {
                    true => Coordinator::Done(decision),
                    false => Coordinator::Decided { decision, unacknowledged },
                };
                Slot { decided_at: Some(stamp), ..Slot::new(machine, now) }
            }
        }
    }

    /// One event of one transfer.
    fn step(
        &mut self,
        id: TransferId,
        event: CoordinatorEvent,
        begun: Option<&CrossTransfer>,
        state: &State,
        now: Timestamp,
    ) {
        let mut slot = self.load(id, state, now);
        if let (Coordinator::Unknown, Some(transfer)) = (slot.machine, begun) {
            slot.transfer = Some(*transfer);
        }
        let mut effects = std::mem::take(&mut self.effects);
        match slot.machine.handle(event, &mut effects) {
            Ok(next) => {
                let slot = slot.noted(event, &next).entered(next, now);
                effects.drain(..).for_each(|effect| self.carry_out(id, &slot, effect, state, now));
                self.put(id, slot, now);
            }
            Err(contradiction) => {
                effects.clear();
                self.contradiction(id, contradiction);
            }
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, id: TransferId, slot: &Slot, effect: CoordinatorEffect, state: &State, now: Timestamp) {
        match effect {
            CoordinatorEffect::Prepare(branch) => {
                let chain = self.chains.get(&id).map(|in_hand| in_hand.chain.clone());
                match (self.moves.get(&id).cloned(), chain, slot.transfer) {
                    (Some(moving), ..) => self.outbox(branch, |outbox| outbox.prepare_move(&moving)),
                    (None, Some(chain), _) => self.outbox(branch, |outbox| outbox.prepare_chain(&chain)),
                    (None, None, Some(transfer)) => self.outbox(branch, |outbox| outbox.prepare(&transfer)),
                    (None, None, None) => {}
                }
            }
            CoordinatorEffect::Tell(branch, decision) => {
                // What was decided before this leader, or is over, has its stamp in the state.
                let stamp = slot.decided_at.or_else(|| state.decisions.get(id).map(|known| known.stamp));
                let item = decision.to_item(id, stamp.unwrap_or(now));
                self.outbox(branch, |outbox| outbox.tell(item));
            }
            CoordinatorEffect::Propose(decision, participants) => {
                // Each transfer proposes once per pause of seconds; were that to pile up, it proposes again later.
                if self.decisions.len() < 2 * self.transfers_max.max(1) {
                    self.decisions.push_back(Proposal { id, decision, participants, stamp: now });
                }
            }
        }
    }

    /// Stores the machine of `id`, or forgets it when there is nothing to remember.
    fn put(&mut self, id: TransferId, slot: Slot, now: Timestamp) {
        let before = self.table.get(&id).map(|slot| slot.machine);
        self.count(before, slot.machine);
        match slot.machine {
            Coordinator::Unknown => {}
            Coordinator::Done(_) => {
                self.moves.remove(&id);
                self.forget_chain(id);
                if self.table.remove(&id).is_some() {
                    self.counters.done += 1;
                    self.acknowledged.push_back((id, slot.acknowledged));
                    self.acknowledged_since.get_or_insert(now);
                }
            }
            Coordinator::Collecting { .. } | Coordinator::Deciding { .. } | Coordinator::Decided { .. } => {
                if self.table.insert(id, slot).is_none() {
                    self.timers.schedule(id, slot.due_at(id));
                }
            }
        }
    }

    /// Keeps the books of decisions and of who owes an acknowledgement.
    fn count(&mut self, before: Option<Coordinator>, after: Coordinator) {
        let unacknowledged = |machine: Option<Coordinator>| match machine {
            Some(Coordinator::Decided { unacknowledged, .. }) => unacknowledged,
            _ => Participants::default(),
        };
        let (owed, owes) = (unacknowledged(before), unacknowledged(Some(after)));
        if owed != owes {
            for branch in owes.iter().filter(|&branch| !owed.contains(branch)) {
                *self.owed.entry(branch).or_default() += 1;
            }
            for branch in owed.iter().filter(|&branch| !owes.contains(branch)) {
                *self.owed.get_mut(&branch).expect("it owed this one") -= 1;
            }
        }
        let was_open = matches!(before, Some(Coordinator::Collecting { .. } | Coordinator::Deciding { .. }));
        match after {
            Coordinator::Decided { decision, .. } | Coordinator::Done(decision) if was_open => match decision {
                Decision::Commit => self.counters.committed += 1,
                Decision::Abort(_) => self.counters.aborted += 1,
            },
            _ => {}
        }
    }

    fn outbox(&mut self, branch: BranchId, put: impl FnOnce(&mut Outbox) -> bool) {
        if let Some(outbox) = self.outboxes.get_mut(&branch)
            && !put(outbox)
        {
            self.counters.dropped += 1;
        }
    }

    fn contradiction(&mut self, id: TransferId, contradiction: Contradiction) {
        self.counters.contradictions += 1;
        if self.contradictions.len() < CONTRADICTIONS_MAX {
            self.contradictions.push((id, contradiction));
        }
    }
}

impl Slot {
    fn new(machine: Coordinator, now: Timestamp) -> Self {
        Self {
            machine,
            transfer: None,
            acknowledged: Participants::default(),
            begun_at: now,
            decided_at: None,
            voted_at: [None; 2],
            entered_at: now,
            attempts: 0,
        }
    }

    fn note_vote(&mut self, from: BranchId, stamp: Timestamp) {
        let Some(transfer) = &self.transfer else { return };
        let sides = [transfer.source.get(), transfer.destination.get()];
        if let Some(side) = sides.iter().position(|&side| side == from.get()) {
            self.voted_at[side].get_or_insert(stamp);
        }
    }

    /// With who has nothing left to do after `event`, which led to `next`.
    fn noted(mut self, event: CoordinatorEvent, next: &Coordinator) -> Self {
        let is_decided = matches!(next, Coordinator::Decided { .. } | Coordinator::Done(_));
        if let CoordinatorEvent::Acknowledged(branch) | CoordinatorEvent::Voted(branch, Vote::No(_)) = event
            && is_decided
        {
            self.acknowledged = self.acknowledged.with(branch).unwrap_or(self.acknowledged);
        }
        self
    }

    /// In the state `next`, since `now` if it is another one than before.
    fn entered(mut self, next: Coordinator, now: Timestamp) -> Self {
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.machine) {
            (self.entered_at, self.attempts) = (now, 0);
        }
        self.machine = next;
        self
    }

    /// When to look at it again.
    fn due_at(&self, id: TransferId) -> Timestamp {
        let is_deciding = matches!(self.machine, Coordinator::Deciding { .. });
        let due_at = self.entered_at.as_nanos().saturating_add(pause(id, self.attempts, is_deciding));
        match self.machine {
            Coordinator::Collecting { deadline, .. } => Timestamp::from_nanos(due_at).min(deadline),
            _ => Timestamp::from_nanos(due_at),
        }
    }

    fn shown(&self, id: TransferId) -> Shown {
        let Self { machine, transfer, begun_at, decided_at, voted_at, attempts, .. } = *self;
        Shown { id, machine, transfer, chain: None, begun_at, decided_at, voted_at, attempts }
    }
}
