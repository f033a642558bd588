//! The registry: the real coordinators and the real replicated state, behind a log that keeps Raft's promise. What was
//! committed stays, in order. What a leader had only proposed may be committed or lost when the leader is.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tally_branch_server::intake::Instruction;
use tally_branch_server::two_phase::{Said, decision_of};
use tally_ledger::two_phase::{AbortReason, Attempt, Coordinator, Decision, Participants};
use tally_protocol::link::{self, LinkFrame, MoveOrder, MovedItem, VoteItem};
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId, split_frame};
use tally_registry::coordinator::Coordinators;
use tally_registry::state::{BatchBuilder, BatchReader, Command, Known, Outcome, State};

use super::BankBug;
use crate::random::Random;

/// Few, so that some transfers find the table full.
const TRANSFERS_MAX: usize = 64;
const REMEMBERED_MAX: u64 = 100_000;
/// Proposals that may be under way.
const PROPOSED_MAX: usize = 2;

/// See the top of the file.
pub(super) struct Registry {
    /// What a quorum has.
    log: Vec<Bytes>,
    state: State,
    leader: Option<Leader>,
    bug: Option<BankBug>,
    leaders: u64,
}

struct Leader {
    coordinators: Coordinators,
    proposed: VecDeque<Bytes>,
    batch: BatchBuilder,
    number: u64,
}

impl Registry {
    pub(super) fn new(branches: &[BranchId], now: Timestamp, bug: Option<BankBug>) -> Self {
        let mut registry = Self { log: Vec::new(), state: State::default(), leader: None, bug, leaders: 0 };
        let mut batch = BatchBuilder::default();
        batch.push(&Command::Found { cluster_id: 1, remembered_max: REMEMBERED_MAX, stamp: now });
        for &id in branches {
            batch.push(&Command::Branch { id, incarnation: u128::from(id.get()), endpoint: "here:1", stamp: now });
        }
        let founding = batch.take(0, 0, 0);
        registry.commit(founding, now);
        registry
    }

    pub(super) const fn has_leader(&self) -> bool {
        self.leader.is_some()
    }

    /// How a transfer ends, if the log says so.
    pub(super) fn decision(&self, id: TransferId) -> Option<Decision> {
        self.state.decisions.get(id).map(|known| known.decision)
    }

    /// An operator wants an account elsewhere. The order is lost with the leader, or the link.
    pub(super) fn order_move(&mut self, from: BranchId, order: MoveOrder) {
        if let Some(leader) = &mut self.leader {
            leader.coordinators.order_move(from, order);
            leader.coordinators.forget_order(TransferId::new(order.id.get()));
        }
    }

    /// Where an account is.
    pub(super) fn place(&self, account_id: AccountId) -> BranchId {
        self.state.directory.branch_of(account_id)
    }

    /// Whether any account has moved.
    pub(super) fn has_moved(&self) -> bool {
        !self.state.directory.moved.is_empty()
    }

    /// All accounts that have moved, as branches are told.
    pub(super) fn moved(&self) -> Vec<MovedItem> {
        let item = |(account_id, moved): (AccountId, tally_registry::state::MovedAccount)| MovedItem {
            account_id: account_id.get().into(),
            version: moved.version.into(),
            branch_id: moved.branch_id.get().into(),
            reserved: [0; 6],
        };
        self.state.directory.moved_since(0).map(item).collect()
    }

    /// Decisions that somebody has to carry out, and transfers in the leader's hands.
    pub(super) fn open(&self) -> usize {
        self.state.decisions.open_count() + self.leader.as_ref().map_or(0, |leader| leader.coordinators.len())
    }

    /// A node becomes the leader. It knows what the log says.
    pub(super) fn elect(&mut self, connected: impl Iterator<Item = BranchId>, now: Timestamp) {
        self.leaders += 1;
        // From the log alone, every other time by way of a snapshot.
        let mut state = State::default();
        for (index, batch) in self.log.iter().enumerate() {
            apply(&mut state, batch, |_, _, _| {});
            if self.leaders.is_multiple_of(2) && index % 7 == 3 {
                state = State::decode(&state.encode()).expect("a snapshot comes back");
            }
        }
        assert!(state == self.state, "two nodes that applied the same log differ");
        self.state = state;
        let forgotten = State::default();
        let known = if self.bug == Some(BankBug::DecisionsForgotten) { &forgotten } else { &self.state };
        let mut coordinators = Coordinators::new(TRANSFERS_MAX, known, now);
        connected.for_each(|branch| coordinators.connect(branch));
        self.leader =
            Some(Leader { coordinators, proposed: VecDeque::new(), batch: BatchBuilder::default(), number: 0 });
    }

    /// The leader is lost. What it had proposed may have reached a quorum, in order.
    pub(super) fn lose_leader(&mut self, now: Timestamp, random: &mut Random) {
        let Some(leader) = self.leader.take() else { return };
        let kept = random.index(leader.proposed.len() + 1);
        for batch in leader.proposed.into_iter().take(kept) {
            self.commit(batch, now);
        }
    }

    pub(super) fn connect(&mut self, branch: BranchId) {
        if let Some(leader) = &mut self.leader {
            leader.coordinators.connect(branch);
        }
    }

    pub(super) fn disconnect(&mut self, branch: BranchId) {
        if let Some(leader) = &mut self.leader {
            leader.coordinators.disconnect(branch);
        }
    }

    /// A branch has said something. Nobody hears it while there is no leader.
    pub(super) fn hear(&mut self, from: BranchId, said: &Said, now: Timestamp) -> Option<Instruction> {
        let said = &self.as_seen(said.clone());
        let (state, bug) = (&self.state, self.bug);
        let coordinators = &mut self.leader.as_mut()?.coordinators;
        match said {
            Said::Begin(item) => {
                coordinators.begin(from, &[*item], state, now);
                if bug == Some(BankBug::CommitOnBegin) {
                    let yes = VoteItem::yes(item.transfer.id.get(), now.as_nanos(), Attempt::of_cross(item).get());
                    coordinators.vote(BranchId::new(item.destination.get()), &[yes], state, now);
                }
            }
            Said::BeginChain(chain) => {
                coordinators.begin_chain(from, chain, state, now);
                if bug == Some(BankBug::CommitOnBegin) {
                    let yes = VoteItem::yes(chain.prefix.id.get(), now.as_nanos(), Attempt::of_chain(from).get());
                    let others: Vec<BranchId> = chain.branches().filter(|branch| *branch != from).collect();
                    others.into_iter().for_each(|branch| coordinators.vote(branch, &[yes], state, now));
                }
            }
            Said::Vote(item) => {
                let mut item = *item;
                let begun = coordinators.show(TransferId::new(item.id.get()));
                if let (Some(BankBug::NoTakenForYes), Some(begun)) = (bug, begun) {
                    let attempt = match (begun.chain, begun.transfer) {
                        (Some(in_hand), _) => Attempt::of_chain(in_hand.chain.source()),
                        (None, Some(cross)) => Attempt::of_cross(&cross),
                        (None, None) => Attempt::ONLY,
                    };
                    (item.refusal, item.member, item.attempt) = (0.into(), 0, attempt.get().into());
                }
                coordinators.vote(from, &[item], state, now);
            }
            Said::End(item) => coordinators.end(from, &[*item]),
            Said::Heard(item) => coordinators.heard(from, &[*item]),
            Said::Acknowledge(item) => coordinators.acknowledge(from, &[*item], state, now),
            Said::BeginMove(moving) => coordinators.begin_move(from, moving.body(), state, now),
            Said::RefuseMove(item) => coordinators.refuse_moves(&[*item]),
            Said::AskId(item) => coordinators.ask_ids(from, &[*item]),
            Said::TellId(item) => coordinators.tell_ids(from, &[*item]),
            Said::Ask(item) => {
                let id = TransferId::new(item.id.get());
                let is_unknown = coordinators.show(id).is_none() && state.decisions.get(id).is_none();
                if bug == Some(BankBug::AbortFromMemory) && is_unknown {
                    return Some(Instruction::Decide(id, Decision::Abort(AbortReason::Presumed), now));
                }
                coordinators.ask(from, &[*item], state, now);
            }
        }
        None
    }

    /// What the planted bug makes of something: it is about what was begun first.
    fn as_seen(&self, mut said: Said) -> Said {
        let show = |id| self.leader.as_ref().and_then(|leader| leader.coordinators.show(TransferId::new(id)));
        let begun = |id| match show(id) {
            Some(shown) if matches!(shown.machine, Coordinator::Collecting { .. }) => shown.transfer,
            _ => None,
        };
        if self.bug != Some(BankBug::AttemptsNotCompared) {
            return said;
        }
        match &mut said {
            Said::Begin(item) => *item = begun(item.transfer.id.get()).unwrap_or(*item),
            Said::Vote(item) if item.refusal.get() == 0 => {
                let attempt = begun(item.id.get()).map(|begun| Attempt::of_cross(&begun).get());
                item.attempt = attempt.unwrap_or(item.attempt.get()).into();
            }
            Said::Ask(item) => {
                let attempt = begun(item.id.get()).map(|begun| Attempt::of_cross(&begun).get());
                item.attempt = attempt.unwrap_or(item.attempt.get()).into();
            }
            _ => {}
        }
        said
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.bug == Some(BankBug::NeverToldAgain) {
            return;
        }
        if let Some(leader) = &mut self.leader {
            leader.coordinators.tick(&self.state, now);
        }
    }

    /// The leader proposes what there is, if not too much is under way. Says whether it did.
    pub(super) fn propose(&mut self, now: Timestamp) -> bool {
        let Some(leader) = &mut self.leader else { return false };
        if leader.proposed.len() >= PROPOSED_MAX {
            return false;
        }
        leader.coordinators.fill(&mut leader.batch, now);
        if leader.batch.is_empty() {
            return false;
        }
        leader.number += 1;
        let batch = leader.batch.take(1, self.leaders, leader.number);
        if self.bug == Some(BankBug::ToldBeforeReplicated) {
            let (coordinators, state) = (&mut leader.coordinators, &self.state);
            let mut reader = BatchReader::new(&batch).expect("just written");
            while let Ok(Some(command)) = reader.next_command() {
                if let Some((id, decision, participants, stamp)) = decision_in(&command) {
                    let known = Known::new(decision, participants, stamp);
                    coordinators.replicated(id, known, participants, state, now);
                }
            }
        }
        leader.proposed.push_back(batch);
        true
    }

    /// The log has the leader's oldest proposal.
    pub(super) fn replicate(&mut self, now: Timestamp) -> bool {
        let Some(batch) = self.leader.as_mut().and_then(|leader| leader.proposed.pop_front()) else { return false };
        self.commit(batch, now);
        true
    }

    fn commit(&mut self, batch: Bytes, now: Timestamp) {
        let mut decided = Vec::new();
        if self.bug == Some(BankBug::LastDecisionWins) {
            forget_decisions(&mut self.state, &batch);
        }
        apply(&mut self.state, &batch, |id, known, participants| decided.push((id, known, participants)));
        self.log.push(batch);
        if let Some(leader) = &mut self.leader {
            for (id, known, participants) in decided {
                leader.coordinators.replicated(id, known, participants, &self.state, now);
            }
        }
    }

    /// What the leader has for `branch`, in order of id.
    pub(super) fn take_for(&mut self, branch: BranchId) -> Vec<Instruction> {
        let Some(leader) = &mut self.leader else { return Vec::new() };
        let mut bytes = Vec::new();
        leader.coordinators.take_frames(branch, &mut bytes);
        let (mut rest, mut instructions) = (&bytes[..], Vec::new());
        while let Some((header, body)) = split_frame(rest).expect("the registry's own frames") {
            match link::decode(header, body).expect("the registry's own frames") {
                LinkFrame::Prepare(items) => instructions.extend(items.iter().map(|item| Instruction::Prepare(*item))),
                LinkFrame::PrepareChain(chain) => instructions.push(Instruction::PrepareChain(chain.to_owned())),
                LinkFrame::Decision(items) => instructions.extend(items.iter().map(|item| {
                    let decided_at = Timestamp::from_nanos(item.stamp.get());
                    Instruction::Decide(TransferId::new(item.id.get()), decision_of(item), decided_at)
                })),
                LinkFrame::End(items) => instructions.extend(items.iter().map(|item| Instruction::End(*item))),
                LinkFrame::Heard(items) => {
                    instructions.extend(items.iter().map(|item| Instruction::Heard(TransferId::new(item.id.get()))))
                }
                LinkFrame::MoveOrder(items) => instructions.extend(items.iter().map(|item| Instruction::Leave(*item))),
                LinkFrame::MovePrepare(moving) => instructions.push(Instruction::TakeIn(Arc::new(moving.to_owned()))),
                LinkFrame::IdAsk(items) => instructions.extend(items.iter().map(|item| Instruction::AskId(*item))),
                LinkFrame::IdTold(items) => instructions.extend(items.iter().map(|item| Instruction::IdTold(*item))),
                LinkFrame::Busy(_) => {}
                other => unreachable!("{:?} for a branch", other.link_type()),
            }
            rest = &rest[header.len_bytes.get() as usize..];
        }
        // The table's order is by a hash that differs from run to run; what happens must not.
        instructions.sort_by_key(|instruction| match instruction {
            Instruction::Prepare(_) | Instruction::PrepareChain(_) | Instruction::Leave(_) | Instruction::TakeIn(_) => {
                (instruction.id(), 0)
            }
            Instruction::Decide(..) => (instruction.id(), 1),
            Instruction::End(_) => (instruction.id(), 2),
            Instruction::Heard(_) => (instruction.id(), 3),
            Instruction::AskId(_) | Instruction::IdTold(_) => (instruction.id(), 4),
        });
        instructions
    }

    /// Items that broke the rules.
    pub(super) fn contradictions(&mut self) -> Vec<String> {
        let Some(leader) = &mut self.leader else { return Vec::new() };
        let found = leader.coordinators.take_contradictions();
        found.into_iter().map(|(id, contradiction)| format!("{id}: {contradiction}")).collect()
    }
}

/// The decision that a command wants.
const fn decision_in(command: &Command<'_>) -> Option<(TransferId, Decision, Participants, Timestamp)> {
    match *command {
        Command::Decide { id, decision, participants, stamp } => Some((id, decision, participants, stamp)),
        Command::MoveAccount { id, participants, stamp, .. } => Some((id, Decision::Commit, participants, stamp)),
        _ => None,
    }
}

/// Applies every command of a batch; `decided` hears of each decision that now stands.
fn apply(state: &mut State, batch: &Bytes, mut decided: impl FnMut(TransferId, Known, Participants)) {
    let mut reader = BatchReader::new(batch).expect("a batch of the log is whole");
    while let Some(command) = reader.next_command().expect("a batch of the log is whole") {
        let outcome = state.apply(&command);
        if let (Some((id, _, participants, _)), Outcome::Decided(known)) = (decision_in(&command), outcome) {
            decided(id, known, participants);
        }
    }
}

/// The planted bug "last decision wins".
fn forget_decisions(state: &mut State, batch: &Bytes) {
    let mut reader = BatchReader::new(batch).expect("a batch of the log is whole");
    let mut again = State { directory: state.directory.clone(), ..State::default() };
    again.decisions = tally_registry::state::Decisions::new(REMEMBERED_MAX);
    let mut replaced = Vec::new();
    while let Ok(Some(command)) = reader.next_command() {
        if let Command::Decide { id, .. } = command {
            replaced.push(id);
        }
    }
    for (id, known) in state.decisions.open() {
        if !replaced.contains(&id) {
            let Known { decision, participants, unacknowledged, stamp } = known;
            again.apply(&Command::Decide { id, decision, participants, stamp });
            let branches = unacknowledged.iter().fold(participants, Participants::without);
            again.apply(&Command::Acknowledged { id, branches, stamp });
        }
    }
    *state = again;
}
