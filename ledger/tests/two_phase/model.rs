//! Every interleaving of one transfer between branches, explored: messages that are lost, repeated and overtaken,
//! flushes that are late, branches and registry leaders that crash at any moment.
//!
//! The bank here has the real machines in it and nothing else: a branch is its durable state, its state in memory and
//! what waits for a flush; the registry is a log whose first entry stands, and a leader that forgets everything else. A source
//! that has lost its part in a crash, and had begun it, may be asked for the same again, or for something else.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};
use tally_ledger::HoldEnd;
use tally_ledger::two_phase::{
    Attempt, Coordinator, CoordinatorEffect, CoordinatorEvent, Decision, Objection, Participant, ParticipantEffect,
    ParticipantEvent, Participants, Vote,
};
use tally_protocol::{BranchId, Refusal, Timestamp};

/// When the coordinator gives up.
pub(super) const DEADLINE: Timestamp = Timestamp::from_nanos(1);
/// When everybody asks.
pub(super) const MUCH_LATER: Timestamp = Timestamp::MAX;
const EARLY: Timestamp = Timestamp::from_nanos(0);

/// The source of the transfer.
pub(super) const SOURCE: BranchId = BranchId::new(1);
/// What a client asks for first, and what it asks for under the same id when its branch has forgotten that.
const FIRST: Attempt = Attempt::new(1);
const OTHER: Attempt = Attempt::new(2);

/// What travels. A message that was sent may arrive any number of times, in any order, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Begin(Attempt),
    Prepare(BranchId, Attempt),
    Voted(BranchId, Vote),
    Tell(BranchId, Decision),
    Asked(BranchId, Attempt),
    Acknowledged(BranchId),
    /// From the payer's branch, which has ended a hold that stood.
    End(BranchId, HoldEnd),
    Heard(BranchId),
    /// From the leader to the log.
    Proposed(Decision, Participants),
}

/// One branch, as far as this transfer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Branch {
    pub(super) durable: Participant,
    pub(super) memory: Participant,
    /// What it has held, if anything: durably, and in memory.
    held: [Option<Attempt>; 2],
    /// Said once the journal is flushed.
    pub(super) gated: Vec<Message>,
}

/// The whole bank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bank {
    pub(super) branches: Vec<Branch>,
    pub(super) leader: Coordinator,
    /// The registry's log: the first decision about this transfer.
    pub(super) log: Option<(Decision, Participants)>,
    pub(super) network: BTreeSet<Message>,
    /// Whether it is a hold that is asked for.
    pub(super) is_hold: bool,
    /// The planted bug: the registry takes every begin, vote and question for one of what was begun first.
    is_blind: bool,
    crashes_left: u8,
    /// Somebody refused an event as impossible.
    pub(super) contradicted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The client's request reaches the source, whose rules allow it or not.
    Request {
        allowed: bool,
        attempt: Attempt,
    },
    /// A message arrives. Where it is a prepare, the branch's rules allow it or not.
    Deliver(Message, bool),
    Flush(BranchId),
    Crash(BranchId),
    /// The leader is lost, and the next one knows what the log says.
    ChangeLeader,
    /// The coordinator's time is up.
    GiveUp,
    /// A prepared branch loses patience.
    Ask(BranchId),
    /// An operator ends it.
    Resolve,
    /// The payer's branch ends a hold that stands: by request, or because its time ran out.
    End(HoldEnd),
}

pub(super) fn number(branch: BranchId) -> usize {
    usize::from(branch.get()) - 1
}

impl Bank {
    fn new(transfers: &Transfers) -> Self {
        let &Transfers { branch_count, crashes, is_hold, is_blind } = transfers;
        Self {
            branches: vec![Branch::default(); branch_count],
            leader: Coordinator::Unknown,
            log: None,
            network: BTreeSet::new(),
            is_hold,
            is_blind,
            crashes_left: crashes,
            contradicted: false,
        }
    }

    pub(super) fn participants(&self) -> Participants {
        let branches = (1..=self.branches.len() as u16).map(BranchId::new);
        Participants::of(branches).expect("a few")
    }

    pub(super) fn coordinator(&mut self, event: CoordinatorEvent) {
        let mut effects = Vec::new();
        match self.leader.handle(event, &mut effects) {
            Ok(next) => self.leader = next,
            // An operator who comes too late is refused; that is no contradiction between the parts.
            Err(_) => self.contradicted |= event != CoordinatorEvent::Resolve,
        }
        let begun = self.begun();
        self.network.extend(effects.into_iter().map(|effect| match effect {
            CoordinatorEffect::Prepare(branch) => Message::Prepare(branch, begun.expect("it is being collected")),
            CoordinatorEffect::Propose(decision, participants) => Message::Proposed(decision, participants),
            CoordinatorEffect::Tell(branch, decision) => Message::Tell(branch, decision),
        }));
    }

    /// What the leader gathers votes for.
    fn begun(&self) -> Option<Attempt> {
        match self.leader {
            Coordinator::Collecting { attempt, .. } => Some(attempt),
            Coordinator::Unknown
            | Coordinator::Deciding { .. }
            | Coordinator::Decided { .. }
            | Coordinator::Done(_) => None,
        }
    }

    /// What the registry makes of `attempt`.
    fn seen(&self, attempt: Attempt) -> Attempt {
        self.begun().filter(|_| self.is_blind).unwrap_or(attempt)
    }

    pub(super) fn participant(&mut self, branch: BranchId, event: ParticipantEvent) {
        let mut effects = Vec::new();
        let it = &mut self.branches[number(branch)];
        match it.memory.handle(branch, event, &mut effects) {
            Ok(next) => it.memory = next,
            Err(_) => self.contradicted = true,
        }
        for effect in effects {
            match effect {
                // Recording is a change of `memory` that is not `durable` yet.
                ParticipantEffect::Hold => {
                    it.held[1] = match it.memory {
                        Participant::Prepared { attempt, .. } => Some(attempt),
                        _ => unreachable!("what was held just now is prepared"),
                    };
                }
                ParticipantEffect::Refuse(_)
                | ParticipantEffect::Settle
                | ParticipantEffect::Void
                | ParticipantEffect::Keep
                | ParticipantEffect::End(_) => {}
                ParticipantEffect::Vote(vote) => it.gated.push(Message::Voted(branch, vote)),
                ParticipantEffect::Acknowledge => it.gated.push(Message::Acknowledged(branch)),
                ParticipantEffect::Heard => it.gated.push(Message::Heard(branch)),
                ParticipantEffect::Ask(attempt) => it.gated.push(Message::Asked(branch, attempt)),
            }
        }
        let it = &mut self.branches[number(branch)];
        it.gated.sort_unstable();
        it.gated.dedup();
    }

    pub(super) fn flush(&mut self, branch: BranchId) {
        let it = &mut self.branches[number(branch)];
        (it.durable, it.held[0]) = (it.memory, it.held[1]);
        self.network.extend(it.gated.drain(..));
    }

    pub(super) fn deliver(&mut self, message: Message, ruling: Result<(), Objection>) {
        let participants = self.participants();
        match message {
            Message::Begin(attempt) => {
                let (attempt, deadline, is_promised) = (self.seen(attempt), DEADLINE, false);
                let source = SOURCE;
                self.coordinator(CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised });
            }
            Message::Prepare(branch, attempt) => {
                self.participant(branch, ParticipantEvent::Prepare { ruling, now: EARLY, attempt });
            }
            Message::Voted(branch, vote) => {
                let vote = if let Vote::Yes(attempt) = vote { Vote::Yes(self.seen(attempt)) } else { vote };
                self.coordinator(CoordinatorEvent::Voted(branch, vote));
            }
            Message::Tell(branch, Decision::Commit) if self.is_hold => self.participant(branch, ParticipantEvent::Kept),
            Message::End(branch, end) => self.participant(branch, ParticipantEvent::End(end)),
            // The payer's branch says it no more; here it is said any number of times.
            Message::Heard(_) => {}
            Message::Tell(branch, decision) => self.participant(branch, ParticipantEvent::Told(decision)),
            Message::Asked(branch, attempt) => {
                self.coordinator(CoordinatorEvent::Asked(branch, self.seen(attempt)));
            }
            Message::Acknowledged(branch) => self.coordinator(CoordinatorEvent::Acknowledged(branch)),
            Message::Proposed(decision, participants) => {
                let (decision, participants) = *self.log.get_or_insert((decision, participants));
                self.coordinator(CoordinatorEvent::Replicated { decision, participants });
            }
        }
    }

    /// The next leader: what the log does not say is forgotten, and everybody is told once more.
    pub(super) fn change_leader(&mut self) {
        self.leader = Coordinator::Unknown;
        if let Some((decision, participants)) = self.log {
            self.coordinator(CoordinatorEvent::Replicated { decision, participants });
        }
    }

    /// The payer's branch ends the hold, if that stands and has not ended.
    fn end(&mut self, end: HoldEnd) {
        if self.branches[0].memory == Participant::Held {
            self.participant(SOURCE, ParticipantEvent::End(end));
            self.branches[0].gated.retain(|said| *said != Message::Heard(SOURCE));
            self.tell_end();
        }
    }

    /// The others are told, behind the flush.
    pub(super) fn tell_end(&mut self) {
        let Participant::Ended(end) = self.branches[0].memory else { return };
        let others = self.participants().without(SOURCE);
        let source = &mut self.branches[0];
        source.gated.extend(others.iter().map(|branch| Message::End(branch, end)));
        source.gated.sort_unstable();
        source.gated.dedup();
    }

    fn request(&mut self, allowed: bool, attempt: Attempt) {
        let ruling = if allowed { Ok(()) } else { Err(Refusal::InsufficientFunds.into()) };
        self.participant(SOURCE, ParticipantEvent::Prepare { ruling, now: EARLY, attempt });
        // The begin waits for no flush; what the source refuses does not leave it.
        if allowed {
            self.network.insert(Message::Begin(attempt));
        }
        self.branches[0].gated.retain(|said| !matches!(said, Message::Voted(_, Vote::No(_))));
    }
}

pub(super) struct Transfers {
    pub(super) branch_count: usize,
    pub(super) crashes: u8,
    pub(super) is_hold: bool,
    pub(super) is_blind: bool,
}

fn is_prepared(state: Participant) -> bool {
    matches!(state, Participant::Prepared { .. })
}

pub(super) fn is_committed(state: Participant) -> bool {
    matches!(state, Participant::Settled | Participant::Held | Participant::Ended(_))
}

impl Model for Transfers {
    type State = Bank;
    type Action = Step;

    fn init_states(&self) -> Vec<Bank> {
        vec![Bank::new(self)]
    }

    fn actions(&self, bank: &Bank, steps: &mut Vec<Step>) {
        if bank.branches[0].memory == Participant::Absent {
            let has_forgotten = bank.network.contains(&Message::Begin(FIRST));
            for attempt in [FIRST, OTHER].into_iter().take(1 + usize::from(has_forgotten)) {
                steps.extend([true, false].map(|allowed| Step::Request { allowed, attempt }));
            }
        }
        for &message in &bank.network {
            steps.push(Step::Deliver(message, true));
            if matches!(message, Message::Prepare(..)) {
                steps.push(Step::Deliver(message, false));
            }
        }
        for branch in bank.participants().iter() {
            let it = &bank.branches[number(branch)];
            if it.durable != it.memory || !it.gated.is_empty() {
                steps.push(Step::Flush(branch));
                if bank.crashes_left > 0 {
                    steps.push(Step::Crash(branch));
                }
            }
            if is_prepared(it.memory) {
                steps.push(Step::Ask(branch));
            }
        }
        if bank.crashes_left > 0 && bank.leader != Coordinator::Unknown {
            steps.push(Step::ChangeLeader);
        }
        steps.extend([Step::GiveUp, Step::Resolve]);
        if bank.branches[0].memory == Participant::Held {
            steps.extend([HoldEnd::Settled, HoldEnd::Expired].map(Step::End));
        }
    }

    fn next_state(&self, bank: &Bank, step: Step) -> Option<Bank> {
        let mut next = bank.clone();
        match step {
            Step::Request { allowed, attempt } => next.request(allowed, attempt),
            Step::Deliver(message, allowed) => {
                next.deliver(message, if allowed { Ok(()) } else { Err(Refusal::CreditAccountFrozen.into()) });
            }
            Step::Flush(branch) => next.flush(branch),
            Step::Crash(branch) => {
                let it = &mut next.branches[number(branch)];
                (it.memory, it.held[1], it.gated) = (it.durable, it.held[0], Vec::new());
                next.crashes_left -= 1;
            }
            Step::ChangeLeader => {
                next.change_leader();
                next.crashes_left -= 1;
            }
            Step::GiveUp => next.coordinator(CoordinatorEvent::Tick(DEADLINE)),
            Step::Ask(branch) => next.participant(branch, ParticipantEvent::Tick(MUCH_LATER)),
            Step::End(end) => next.end(end),
            Step::Resolve => next.coordinator(CoordinatorEvent::Resolve),
        }
        next.forget_pauses();
        (next != *bank).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no contradiction", |_, bank: &Bank| !bank.contradicted),
            Property::always("all settle or none", |_, bank: &Bank| {
                let any = |is: fn(Participant) -> bool| bank.branches.iter().any(|it| is(it.memory) || is(it.durable));
                !(any(is_committed) && any(|state| state == Participant::Voided))
            }),
            Property::always("what ends was decided", |_, bank: &Bank| {
                bank.branches.iter().all(|it| match it.memory {
                    Participant::Settled | Participant::Held | Participant::Ended(_) => {
                        matches!(bank.log, Some((Decision::Commit, _)))
                    }
                    Participant::Voided => matches!(bank.log, Some((Decision::Abort(_), _))),
                    Participant::Absent | Participant::Prepared { .. } | Participant::Refused(_) => true,
                })
            }),
            Property::always("commit needs every durable promise", |_, bank: &Bank| {
                let is_commit = matches!(bank.log, Some((Decision::Commit, _)));
                !is_commit || bank.branches.iter().all(|it| is_prepared(it.durable) || is_committed(it.durable))
            }),
            Property::always("commit needs the same everywhere", |_, bank: &Bank| {
                let is_commit = matches!(bank.log, Some((Decision::Commit, _)));
                !is_commit || bank.branches.iter().all(|it| it.held[0] == bank.branches[0].held[0])
            }),
            Property::always("a hold has one end, which the payer's branch has first", |_, bank: &Bank| {
                bank.branches[1..].iter().all(|it| match it.memory {
                    Participant::Ended(_) => it.memory == bank.branches[0].durable,
                    _ => true,
                })
            }),
            Property::always("a vote is durable before it is said", |_, bank: &Bank| {
                bank.network.iter().all(|&message| match message {
                    Message::Voted(branch, Vote::Yes(held)) | Message::Asked(branch, held) => {
                        bank.branches[number(branch)].held[0] == Some(held)
                    }
                    Message::Voted(branch, Vote::No(_)) => {
                        matches!(bank.branches[number(branch)].durable, Participant::Refused(_))
                    }
                    Message::End(_, end) => bank.branches[0].durable == Participant::Ended(end),
                    Message::Heard(branch) => matches!(bank.branches[number(branch)].durable, Participant::Ended(_)),
                    Message::Begin(_)
                    | Message::Prepare(..)
                    | Message::Tell(..)
                    | Message::Acknowledged(_)
                    | Message::Proposed(..) => true,
                })
            }),
            // Of an abort, a branch that holds nothing says so at once; a prepare that comes late is asked about.
            Property::always("a commit is durable before it is acknowledged", |_, bank: &Bank| {
                let is_commit = matches!(bank.log, Some((Decision::Commit, _)));
                let said = |branch| bank.network.contains(&Message::Acknowledged(branch));
                let is_settled = |branch| is_committed(bank.branches[number(branch)].durable);
                bank.participants().iter().all(|branch| !is_commit || !said(branch) || is_settled(branch))
            }),
            Property::always("after healing everything is decided and nothing is held", |_, bank: &Bank| bank.heals()),
            Property::sometimes("a transfer is committed everywhere", |_, bank: &Bank| {
                bank.branches.iter().all(|it| it.durable == bank.committed())
                    && bank.leader == Coordinator::Done(Decision::Commit)
            }),
            Property::sometimes("a transfer is aborted after it was prepared everywhere", |_, bank: &Bank| {
                bank.branches.iter().all(|it| it.durable == Participant::Voided)
            }),
            Property::sometimes("a branch refuses what the others have prepared", |_, bank: &Bank| {
                matches!(bank.branches[1].durable, Participant::Refused(_)) && is_prepared(bank.branches[0].durable)
            }),
        ]
    }
}

impl Bank {
    /// What a branch is once the commit is carried out there.
    const fn committed(&self) -> Participant {
        if self.is_hold { Participant::Held } else { Participant::Settled }
    }

    /// How long a branch waits before it asks again does not matter here, and would make each question a new state.
    fn forget_pauses(&mut self) {
        for it in &mut self.branches {
            for state in [&mut it.memory, &mut it.durable] {
                if let Participant::Prepared { ask_at, pause_s, .. } = state {
                    (*ask_at, *pause_s) = (Timestamp::from_nanos(1), 1);
                }
            }
        }
    }
}

fn explore(branch_count: usize, crashes: u8, is_hold: bool) {
    let model = || Transfers { branch_count, crashes, is_hold, is_blind: false };
    let checker = model().checker().threads(2).spawn_bfs().join();
    println!("{branch_count} branches, {crashes} crashes, a hold {is_hold}: {} states", checker.unique_state_count());
    for (name, path) in checker.discoveries() {
        if !model()
            .properties()
            .iter()
            .any(|it| it.name == name && it.expectation == stateright::Expectation::Sometimes)
        {
            println!("{name}: {path}");
        }
    }
    checker.assert_properties();
}

#[test]
fn two_branches_agree_whatever_is_lost() {
    explore(2, 1, false);
}

#[test]
fn a_registry_that_does_not_compare_what_is_held_commits_two_transfers() {
    let model = Transfers { branch_count: 2, crashes: 1, is_hold: false, is_blind: true };
    let properties = HasDiscoveries::AnyOf(BTreeSet::from(["commit needs the same everywhere"]));
    let checker = model.checker().threads(2).finish_when(properties).spawn_bfs().join();
    let path = checker.assert_any_discovery("commit needs the same everywhere");
    assert!(path.into_actions().contains(&Step::Crash(SOURCE)));
}

#[test]
fn two_branches_agree_on_a_hold_and_its_end() {
    explore(2, 0, true);
}

#[test]
#[ignore = "208,966 states: half a minute; see docs/TESTING.md"]
fn two_branches_agree_on_a_hold_through_a_crash() {
    explore(2, 1, true);
}

#[test]
#[ignore = "1,519,033 states: a minute, optimised; see docs/TESTING.md"]
fn two_branches_agree_through_two_crashes() {
    explore(2, 2, false);
}

#[test]
#[ignore = "648,043 states: a minute, optimised; see docs/TESTING.md"]
fn three_branches_agree_whatever_is_lost_or_overtaken() {
    explore(3, 0, false);
}
