//! Two branches on real disks, and between them the coordinator's own state machine: what a customer of one is answered
//! who pays a customer of the other, and what both books say, also after restarts at the worst moments.

#[path = "between/chains.rs"]
mod chains;
#[path = "between/moves.rs"]
mod moves;
#[path = "between/strangers.rs"]
mod strangers;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_branch_server::bell::Bell;
use tally_branch_server::branch::{Branch, LinkParts};
use tally_branch_server::intake::{Instruction, Op, Passage, Request, SessionKey};
use tally_branch_server::replies::{Reply, ReplyBody, ReplyReceiver};
use tally_branch_server::session::Backend;
use tally_branch_server::two_phase::{Peer, Routes, Said};
use tally_ledger::Actor;
use tally_ledger::two_phase::{
    AbortReason, Attempt, Coordinator, CoordinatorEffect, CoordinatorEvent, Decision, Participants, Vote,
};
use tally_protocol::link::{AccountMove, BranchStatus, CrossChain, CrossTransfer, MovedItem};
use tally_protocol::message::{
    self, AccountOpen, Role, Sums, TransferKind, TransferState, account_flags, transfer_flags,
};
use tally_protocol::{AccountId, BranchId, Currency, CustomerId, Refusal, Timestamp, TransferId};
use zerocopy::{FromZeros, IntoBytes};

const HERE: BranchId = BranchId::new(1);
const THERE: BranchId = BranchId::new(2);
const TELLER: Actor = Actor { role: Role::Teller, customer: CustomerId::BANK };
/// Far more than a busy disk takes: each bank here is two journals, and every test makes some.
const PATIENCE: Duration = Duration::from_secs(120);
const LATER: Timestamp = Timestamp::from_nanos(u64::MAX / 2);

const fn customer(branch: BranchId) -> AccountId {
    AccountId::of_branch(branch, 7)
}

/// One branch, without sockets.
struct Side {
    branch: Branch,
    receiver: ReplyReceiver,
    link: LinkParts,
    request_id: u64,
    replies: HashMap<u64, Reply>,
}

impl Side {
    fn start(dir: &Path, id: BranchId) -> Self {
        let (branch, mut receivers) =
            Branch::start(support::options(dir, id, true), &[Bell::new(|| {})]).expect("the branch starts");
        let (link, _) = branch.take_link().expect("the branch has a registry");
        let peer = || Peer { endpoint: String::new(), status: BranchStatus::Serving };
        link.shared.set_routes(Routes { version: 1, branches: [(HERE, peer()), (THERE, peer())].into() });
        link.shared.set_linked(true);
        Self { branch, receiver: receivers.remove(0), link, request_id: 0, replies: HashMap::new() }
    }

    fn send(&mut self, actor: Actor, op: Op) -> u64 {
        self.request_id += 1;
        let request = Request {
            session: SessionKey { thread: 0, slot: 0, generation: 0 },
            request_id: self.request_id,
            trace_id: 0,
            deadline: 0,
            passage: Passage::default(),
            cleared_moves: 0,
            actor,
            op,
        };
        self.branch.intake().push(request).expect("the queues are empty");
        self.branch.intake().ring();
        self.request_id
    }

    fn poll(&mut self) {
        let replies = &mut self.replies;
        self.receiver.poll_ready(self.branch.durable(), |reply| drop(replies.insert(reply.request_id, reply)));
    }

    fn ask(&mut self, op: Op) -> ReplyBody {
        let id = self.send(TELLER, op);
        let began = Instant::now();
        loop {
            self.poll();
            if let Some(reply) = self.replies.remove(&id) {
                return reply.body;
            }
            assert!(began.elapsed() < PATIENCE, "no reply");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn sums(&mut self, id: AccountId) -> [u64; 4] {
        match self.ask(Op::GetBalance(id)) {
            ReplyBody::Balance(balance) => numbers(&balance.sums),
            ReplyBody::Refused { refusal: Refusal::AccountNotFound, .. } => [0; 4],
            other => panic!("{other:?}"),
        }
    }

    /// Held and posted debits, held and posted credits of "due to" and "due from" the other branch.
    fn settlement(&mut self, branch: BranchId, peer: BranchId) -> [u64; 4] {
        self.sums(AccountId::of_settlement(branch, peer, Currency::EUR))
    }

    fn instruct(&self, instruction: Instruction) {
        let lane = &self.link.lanes[0];
        lane.two_phase.push(instruction).expect("there is room");
        lane.bell.ring();
    }
}

fn begin(source: BranchId, attempt: Attempt, is_promised: bool) -> CoordinatorEvent {
    let participants = Participants::of(BRANCHES).expect("two");
    CoordinatorEvent::Begin { source, participants, deadline: LATER, attempt, is_promised }
}

fn numbers(sums: &Sums) -> [u64; 4] {
    [sums.debits_held.get(), sums.debits_posted.get(), sums.credits_held.get(), sums.credits_posted.get()]
}

/// Both branches and the registry's memory. `decided` is its log.
struct Bank {
    folders: [tempfile::TempDir; 2],
    sides: Vec<Side>,
    coordinators: HashMap<u128, Coordinator>,
    begun: HashMap<u128, CrossTransfer>,
    begun_chains: HashMap<u128, CrossChain>,
    begun_moves: HashMap<u128, Arc<AccountMove>>,
    /// Orders that a branch has refused.
    refused_moves: HashMap<u128, Refusal>,
    decided: HashMap<u128, (Decision, Participants)>,
    /// What the registry does not hear, by what is said.
    deaf: fn(&Said) -> bool,
    /// Whether it says everything twice.
    stammers: bool,
    /// Whether its log takes decisions.
    decides: bool,
}

/// Its threads end with it: a test makes many banks, and those of others are not to wait for them.
impl Drop for Bank {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sides.drain(..).for_each(|side| side.branch.stop());
        }
    }
}

const BRANCHES: [BranchId; 2] = [HERE, THERE];

impl Bank {
    fn new() -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        let sides = (0..2).map(|at: usize| Side::start(folders[at].path(), BRANCHES[at])).collect();
        let mut bank = Self {
            folders,
            sides,
            coordinators: HashMap::new(),
            begun: HashMap::new(),
            begun_chains: HashMap::new(),
            begun_moves: HashMap::new(),
            refused_moves: HashMap::new(),
            decided: HashMap::new(),
            deaf: |_| false,
            stammers: false,
            decides: true,
        };
        for at in [0, 1] {
            bank.open(at, customer(BRANCHES[at]), account_flags::DEBITS_LIMITED);
        }
        let deposit = message::Transfer {
            debit_account_id: 0.into(),
            credit_account_id: customer(HERE).get().into(),
            kind: TransferKind::Deposit as u8,
            ..payment(1, 100)
        };
        assert_eq!(answer(bank.sides[0].ask(Op::Transfer(deposit))), (None, 100, false));
        bank
    }

    fn restart(&mut self, at: usize) {
        self.sides.remove(at).branch.stop();
        self.sides.insert(at, Side::start(self.folders[at].path(), BRANCHES[at]));
    }

    /// The registry's leader is another one: it knows what the log says and nothing else.
    fn change_leader(&mut self) {
        self.coordinators.clear();
        self.begun.clear();
        self.begun_chains.clear();
        self.begun_moves.clear();
        for (&id, &(decision, participants)) in &self.decided.clone() {
            self.coordinate(id, CoordinatorEvent::Replicated { decision, participants });
        }
    }

    fn coordinate(&mut self, id: u128, event: CoordinatorEvent) {
        let mut effects = Vec::new();
        let state = self.coordinators.remove(&id).unwrap_or_default();
        let next = state.handle(event, &mut effects).expect("no contradiction");
        self.coordinators.insert(id, next);
        for effect in effects {
            let times = if self.stammers { 2 } else { 1 };
            match effect {
                CoordinatorEffect::Prepare(branch) => {
                    let instruction = match (self.begun_moves.get(&id), self.begun_chains.get(&id)) {
                        (Some(moving), _) => Instruction::TakeIn(moving.clone()),
                        (None, Some(chain)) => Instruction::PrepareChain(chain.clone()),
                        (None, None) => Instruction::Prepare(self.begun[&id]),
                    };
                    (0..times).for_each(|_| self.side(branch).instruct(instruction.clone()));
                }
                CoordinatorEffect::Tell(branch, decision) => {
                    let id = TransferId::new(id);
                    (0..times).for_each(|_| {
                        self.side(branch).instruct(Instruction::Decide(id, decision, Timestamp::default()))
                    });
                }
                CoordinatorEffect::Propose(decision, participants) if self.decides => {
                    let (decision, participants) = *self.decided.entry(id).or_insert((decision, participants));
                    self.note_place(id, decision);
                    self.coordinate(id, CoordinatorEvent::Replicated { decision, participants });
                }
                CoordinatorEffect::Propose(..) => {}
            }
        }
    }

    /// Both branches are told where an account is, as the registry does in front of the decision.
    fn note_place(&self, id: u128, decision: Decision) {
        let Some(moving) = self.begun_moves.get(&id).filter(|_| decision == Decision::Commit) else { return };
        let item = &moving.account;
        let version = u64::from(item.moves);
        let moved = MovedItem {
            account_id: item.account_id,
            version: version.into(),
            branch_id: item.destination,
            reserved: [0; 6],
        };
        self.sides.iter().for_each(|side| side.link.shared.moved.learn(&[moved]));
    }

    /// Opens an account; `flags` say whether it can be overdrawn.
    fn open(&mut self, at: usize, id: AccountId, flags: u16) {
        let open = AccountOpen {
            id: id.get().into(),
            owner: 5.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            kind: 1,
            flags: flags.into(),
            day_limit: u64::MAX.into(),
            ..AccountOpen::new_zeroed()
        };
        let opened = self.sides[at].ask(Op::OpenAccounts(Bytes::copy_from_slice(open.as_bytes())));
        assert!(matches!(opened, ReplyBody::Items(..)), "{opened:?}");
    }

    fn side(&self, branch: BranchId) -> &Side {
        &self.sides[usize::from(branch == THERE)]
    }

    /// Carries what the branches say to the registry.
    fn pump(&mut self) {
        for at in [0, 1] {
            let side = &mut self.sides[at];
            side.poll();
            let mut said = Vec::new();
            let durable = side.branch.durable();
            // As the link does: a begin goes in front of the vote on it.
            let mut gated = Vec::new();
            side.link.says.poll_ready(durable, |item| gated.push(item));
            side.link.begins.poll_ready(durable, |item| said.push(item));
            said.append(&mut gated);
            for item in said {
                if (self.deaf)(&item) {
                    continue;
                }
                let branch = BRANCHES[at];
                let times = if self.stammers { 2 } else { 1 };
                let (id, event) = match item {
                    Said::Begin(cross) => {
                        let id = cross.transfer.id.get();
                        self.begun.insert(id, cross);
                        (id, begin(branch, Attempt::of_cross(&cross), false))
                    }
                    Said::BeginChain(chain) => {
                        let id = chain.prefix.id.get();
                        let participants = Participants::of(chain.branches()).expect("a few");
                        self.begun_chains.insert(id, chain);
                        let (source, attempt, is_promised) = (branch, Attempt::of_chain(branch), true);
                        let deadline = LATER;
                        (id, CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised })
                    }
                    Said::Vote(vote) => {
                        let id = vote.id.get();
                        (id, CoordinatorEvent::Voted(branch, Vote::of_item(&vote).expect("it is known")))
                    }
                    Said::Acknowledge(mark) => (mark.id.get(), CoordinatorEvent::Acknowledged(branch)),
                    Said::Ask(mark) => {
                        (mark.id.get(), CoordinatorEvent::Asked(branch, Attempt::new(mark.attempt.get())))
                    }
                    // Passed on as they are.
                    Said::End(item) => {
                        let to = self.side(BranchId::new(item.destination.get()));
                        (0..times).for_each(|_| to.instruct(Instruction::End(item)));
                        continue;
                    }
                    Said::Heard(item) => {
                        let (to, id) = (self.side(BranchId::new(item.source.get())), TransferId::new(item.id.get()));
                        (0..times).for_each(|_| to.instruct(Instruction::Heard(id)));
                        continue;
                    }
                    Said::BeginMove(moving) => {
                        let id = moving.account.id.get();
                        self.begun_moves.insert(id, moving);
                        (id, begin(branch, Attempt::ONLY, true))
                    }
                    Said::RefuseMove(vote) => {
                        let refusal = Refusal::from_code(vote.refusal.get()).expect("it is known");
                        self.refused_moves.insert(vote.id.get(), refusal);
                        continue;
                    }
                    Said::AskId(item) => {
                        self.side(BranchId::new(item.asked.get())).instruct(Instruction::AskId(item));
                        continue;
                    }
                    Said::TellId(item) => {
                        self.side(BranchId::new(item.asker.get())).instruct(Instruction::IdTold(item));
                        continue;
                    }
                };
                self.coordinate(id, event);
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "{what}");
            self.pump();
        }
    }

    /// Pays from here to there and waits for the answer.
    fn pay(&mut self, wire: message::Transfer) -> (Option<Refusal>, u64, bool) {
        let id = self.sides[0].send(TELLER, Op::Transfer(wire));
        self.until("an answer", |bank| bank.sides[0].replies.contains_key(&id));
        answer(self.sides[0].replies.remove(&id).expect("it is there").body)
    }

    fn settle_down(&mut self) {
        self.until("every leg is decided and acknowledged", |bank| {
            let open = bank.sides.iter().map(|side| side.link.shared.doubts.summary().0).sum::<usize>();
            let untold = bank.sides.iter().map(|side| side.branch.stats().ends_untold.0).sum::<u64>();
            open == 0 && untold == 0 && bank.coordinators.values().all(|state| matches!(state, Coordinator::Done(_)))
        });
    }

    /// What is here and there, and that the settlement accounts mirror each other.
    fn balances(&mut self) -> [i64; 2] {
        let due_to = self.sides[0].settlement(HERE, THERE);
        let due_from = self.sides[1].settlement(THERE, HERE);
        assert_eq!([due_to[0], due_to[2]], [0, 0], "nothing is held");
        assert_eq!((due_to[1], due_to[3]), (due_from[3], due_from[1]), "the branches agree");
        [0, 1].map(|at: usize| {
            let [held, debits, _, credits] = self.sides[at].sums(customer(BRANCHES[at]));
            assert_eq!(held, 0);
            credits as i64 - debits as i64
        })
    }
}

fn payment(id: u128, amount: u64) -> message::Transfer {
    message::Transfer {
        id: id.into(),
        debit_account_id: customer(HERE).get().into(),
        credit_account_id: customer(THERE).get().into(),
        amount: amount.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        kind: TransferKind::Transfer as u8,
        ..message::Transfer::new_zeroed()
    }
}

/// Why not, how much, and whether it is a repeat.
fn answer(body: ReplyBody) -> (Option<Refusal>, u64, bool) {
    match body {
        ReplyBody::Transfer { reply, .. } => {
            (reply.known_refusal(), reply.amount.get(), reply.flags.get() & message::RESULT_REPEATED != 0)
        }
        ReplyBody::Refused { refusal, .. } => (Some(refusal), 0, false),
        other => panic!("{other:?}"),
    }
}

fn in_doubt(bank: &Bank) -> [usize; 2] {
    [0, 1].map(|at: usize| bank.sides[at].link.shared.doubts.summary().0)
}

fn state(bank: &mut Bank, at: usize, id: u128) -> Option<TransferState> {
    match bank.sides[at].ask(Op::GetTransfer(TransferId::new(id))) {
        ReplyBody::Found(found) => TransferState::from_wire(found.state),
        ReplyBody::Refused { refusal: Refusal::TransferNotFound, .. } => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payment_happens_on_both_sides_and_once() {
    for stammers in [false, true] {
        let mut bank = Bank::new();
        bank.stammers = stammers;
        assert_eq!(bank.pay(payment(2, 30)), (None, 30, false));
        bank.settle_down();
        assert_eq!(bank.balances(), [70, 30]);
        assert_eq!(bank.pay(payment(2, 30)), (None, 30, true));
        assert_eq!(bank.pay(payment(2, 31)).0, Some(Refusal::ExistsWithDifferentAmount));
        for at in [0, 1] {
            assert_eq!(state(&mut bank, at, 2), Some(TransferState::Done));
            bank.restart(at);
            assert_eq!(state(&mut bank, at, 2), Some(TransferState::Done), "after a restart");
        }
        assert_eq!(bank.pay(payment(2, 30)), (None, 30, true));
        assert_eq!(bank.balances(), [70, 30]);
        let wanted = message::Transfer { flags: transfer_flags::WANT_BALANCES.into(), ..payment(2, 30) };
        let reply = bank.sides[0].ask(Op::Transfer(wanted));
        let ReplyBody::Transfer { balances: Some([debit, _]), .. } = reply else { panic!("{reply:?}") };
        assert_eq!(numbers(&debit), [0, 30, 0, 100]);
    }
}

#[test]
fn what_one_side_refuses_happens_on_neither() {
    let mut bank = Bank::new();
    let nobody = AccountId::of_branch(THERE, 99).get();
    let table = [
        (payment(2, 101), Refusal::InsufficientFunds),
        (message::Transfer { credit_account_id: nobody.into(), ..payment(3, 10) }, Refusal::CreditAccountNotFound),
        (
            message::Transfer { currency: Currency::USD.get().into(), ..payment(4, 10) },
            Refusal::AccountsCurrencyMismatch,
        ),
    ];
    for round in [false, true] {
        for (wire, refusal) in table {
            assert_eq!(bank.pay(wire), (Some(refusal), 0, round), "id {}", wire.id.get());
        }
        bank.settle_down();
        assert_eq!(bank.balances(), [100, 0]);
        (0..2).for_each(|at| bank.restart(at));
    }
    for (wire, _) in table {
        assert_eq!(state(&mut bank, 0, wire.id.get()), Some(TransferState::Refused));
    }
}

#[test]
fn a_branch_that_is_not_linked_says_so_and_keeps_nothing() {
    let mut bank = Bank::new();
    assert_eq!(bank.pay(payment(2, 30)), (None, 30, false));
    bank.settle_down();
    bank.sides[0].link.shared.set_linked(false);
    assert_eq!(bank.pay(payment(3, 10)), (Some(Refusal::RegistryUnreachable), 0, false));
    assert_eq!(state(&mut bank, 0, 3), None);
    assert_eq!(bank.pay(payment(2, 30)), (None, 30, true), "what was done is answered without the registry");
    bank.sides[0].link.shared.set_linked(true);
    let elsewhere = AccountId::of_branch(BranchId::new(9), 1).get();
    let unknown = message::Transfer { credit_account_id: elsewhere.into(), ..payment(3, 10) };
    assert_eq!(bank.pay(unknown), (Some(Refusal::BranchUnknown), 0, false));
    assert_eq!(bank.pay(payment(3, 10)), (None, 10, false), "the id was free");
}

#[test]
fn what_is_prepared_waits_for_the_decision_alone() {
    let mut bank = Bank::new();
    bank.decides = false;
    let first = bank.sides[0].send(TELLER, Op::Transfer(payment(2, 60)));
    bank.until("both are prepared", |bank| in_doubt(bank) == [1, 1]);
    assert_eq!(state(&mut bank, 0, 2), Some(TransferState::Prepared));
    // The money is promised: it can neither be spent, nor settled, voided or cancelled by anybody here.
    assert_eq!(answer(bank.sides[0].ask(Op::Transfer(payment(3, 41)))).0, Some(Refusal::InsufficientFunds));
    for (id, kind) in [(4, TransferKind::Settle), (5, TransferKind::Void), (6, TransferKind::Reverse)] {
        let end = message::Transfer {
            debit_account_id: 0.into(),
            credit_account_id: 0.into(),
            reference: 2.into(),
            kind: kind as u8,
            ..payment(id, 0)
        };
        let refused = answer(bank.sides[0].ask(Op::Transfer(end))).0;
        assert_eq!(refused, Some(Refusal::ReferenceKindMismatch), "{kind:?}");
    }
    // The same transfer again is answered with the first.
    let again = bank.sides[0].send(TELLER, Op::Transfer(payment(2, 60)));
    for at in [0, 1] {
        assert!(matches!(bank.sides[at].ask(Op::FreezeAccount(customer(BRANCHES[at]))), ReplyBody::Item(..)));
    }
    bank.until("the repeat waits, too", |bank| bank.sides[0].replies.is_empty());
    bank.decides = true;
    bank.until("both are answered", |bank| bank.sides[0].replies.len() == 2);
    let replies = &mut bank.sides[0].replies;
    assert_eq!(answer(replies.remove(&first).expect("the first").body), (None, 60, false));
    assert_eq!(answer(replies.remove(&again).expect("the repeat").body), (None, 60, true));
    bank.settle_down();
    assert_eq!(bank.balances(), [40, 60], "settled, although both accounts were frozen meanwhile");
}

#[test]
fn restarts_between_prepare_and_decision_lose_nothing() {
    for restarted in [&[0][..], &[1], &[0, 1]] {
        for leader_lost in [false, true] {
            let mut bank = Bank::new();
            bank.decides = false;
            bank.sides[0].send(TELLER, Op::Transfer(payment(2, 30)));
            bank.until("both are prepared", |bank| in_doubt(bank) == [1, 1]);
            restarted.iter().for_each(|&at| bank.restart(at));
            assert_eq!(in_doubt(&bank), [1, 1], "a restart forgets no promise");
            bank.decides = true;
            if leader_lost {
                bank.change_leader();
            }
            bank.settle_down();
            let expected = if leader_lost { [100, 0] } else { [70, 30] };
            assert_eq!(bank.balances(), expected, "{restarted:?}, leader lost: {leader_lost}");
            let refusal = leader_lost.then_some(Refusal::TransferAborted);
            assert_eq!(bank.pay(payment(2, 30)), (refusal, if leader_lost { 0 } else { 30 }, true));
        }
    }
}

#[test]
fn lost_messages_are_said_again() {
    let losses: [(fn(&Said) -> bool, [i64; 2]); 3] = [
        // Nobody but the source knows of it: presumed aborted.
        (|said| matches!(said, Said::Begin(_)), [100, 0]),
        // Whoever asks has promised.
        (|said| matches!(said, Said::Vote(_)), [70, 30]),
        (|_| false, [70, 30]),
    ];
    for (deaf, expected) in losses {
        let mut bank = Bank::new();
        bank.deaf = deaf;
        let refusal = (expected == [100, 0]).then_some(Refusal::TransferAborted);
        assert_eq!(bank.pay(payment(2, 30)).0, refusal);
        bank.settle_down();
        assert_eq!(bank.balances(), expected);
    }
}

#[test]
fn many_payments_both_ways_leave_the_books_even() {
    let mut bank = Bank::new();
    bank.stammers = true;
    let mut sent = [0u64; 2];
    for id in 10..210u128 {
        let (at, wire) = if id % 3 == 0 {
            let back = message::Transfer {
                debit_account_id: customer(THERE).get().into(),
                credit_account_id: customer(HERE).get().into(),
                ..payment(id, 1)
            };
            (1, back)
        } else {
            (0, payment(id, 1))
        };
        bank.sides[at].send(TELLER, Op::Transfer(wire));
        sent[at] += 1;
        bank.pump();
    }
    bank.until("all are answered", |bank| [0, 1].iter().all(|&at| bank.sides[at].replies.len() as u64 == sent[at]));
    bank.settle_down();
    let [here, there] = bank.balances();
    assert_eq!(here + there, 100, "money was neither made nor lost");
    let done = |bank: &Bank, at: usize| {
        bank.sides[at]
            .replies
            .values()
            .filter(|reply| matches!(&reply.body, ReplyBody::Transfer { reply, .. } if reply.refusal.get() == 0))
            .count() as i64
    };
    assert_eq!(there, done(&bank, 0) - done(&bank, 1));
}

fn hold(id: u128, amount: u64, timeout_s: u32) -> message::Transfer {
    message::Transfer { kind: TransferKind::Hold as u8, timeout_s: timeout_s.into(), ..payment(id, amount) }
}

/// A settle (of `amount`, 0 for all), void or reversal of `of`.
fn ending(id: u128, kind: TransferKind, of: u128, amount: u64) -> message::Transfer {
    message::Transfer {
        id: id.into(),
        reference: of.into(),
        amount: amount.into(),
        kind: kind as u8,
        ..message::Transfer::new_zeroed()
    }
}

#[test]
fn a_hold_stands_on_both_sides_until_the_payers_branch_ends_it() {
    let table = [
        (TransferKind::Settle, 0, 30, TransferState::Settled, Refusal::HoldAlreadySettled),
        (TransferKind::Settle, 12, 12, TransferState::Settled, Refusal::HoldAlreadySettled),
        (TransferKind::Void, 0, 0, TransferState::Voided, Refusal::HoldAlreadyVoided),
    ];
    for (kind, asked, posted, ended, again) in table {
        for stammers in [false, true] {
            let mut bank = Bank::new();
            bank.stammers = stammers;
            assert_eq!(bank.pay(hold(2, 30, 0)), (None, 30, false));
            bank.settle_down();
            for round in 0..2 {
                assert_eq!(in_doubt(&bank), [0, 0], "it stands, and nobody asks");
                assert_eq!(bank.sides[0].sums(customer(HERE)), [30, 0, 0, 100]);
                assert_eq!(bank.sides[1].sums(customer(THERE)), [0, 0, 30, 0]);
                assert_eq!([0, 1].map(|at| state(&mut bank, at, 2)), [Some(TransferState::Done); 2]);
                assert_eq!(bank.pay(hold(2, 30, 0)), (None, 30, true));
                assert_eq!(bank.pay(payment(3 + round, 71)).0, Some(Refusal::InsufficientFunds), "it is promised");
                (0..2).for_each(|at| bank.restart(at));
            }
            assert_eq!(answer(bank.sides[1].ask(Op::Transfer(ending(8, kind, 2, 0)))).0, Some(Refusal::HoldElsewhere));
            assert_eq!(state(&mut bank, 1, 8), None, "and the id stays free");
            let too_much = ending(9, TransferKind::Settle, 2, 31);
            assert_eq!(answer(bank.sides[0].ask(Op::Transfer(too_much))).0, Some(Refusal::AmountExceedsHold));
            // The registry is not asked: the payer's branch decides.
            bank.sides[0].link.shared.set_linked(false);
            let said = if posted == 0 { 30 } else { posted };
            let end = ending(10, kind, 2, asked);
            assert_eq!(answer(bank.sides[0].ask(Op::Transfer(end))), (None, said, false));
            bank.sides[0].link.shared.set_linked(true);
            bank.settle_down();
            for round in [false, true] {
                assert_eq!(bank.balances(), [100 - posted as i64, posted as i64], "{kind:?} of {asked}");
                assert_eq!([0, 1].map(|at| state(&mut bank, at, 2)), [Some(ended); 2]);
                assert_eq!(bank.pay(hold(2, 30, 0)), (None, 30, true), "a hold's answer stays");
                assert_eq!(bank.pay(end), (None, said, true));
                assert_eq!(bank.pay(ending(11, kind, 2, 0)), (Some(again), 0, round));
                let back = ending(12, TransferKind::Reverse, 10, 0);
                assert_eq!(bank.pay(back).0, Some(Refusal::ReferenceKindMismatch), "the mirror would not follow");
                (0..2).for_each(|at| bank.restart(at));
            }
        }
    }
}

#[test]
fn a_hold_expires_by_the_payers_clock() {
    let mut bank = Bank::new();
    assert_eq!(bank.pay(hold(2, 30, 1)), (None, 30, false));
    bank.settle_down();
    bank.until("it has expired at both", |bank| {
        [0, 1].iter().all(|&at| state(bank, at, 2) == Some(TransferState::Expired))
    });
    bank.settle_down();
    assert_eq!(bank.balances(), [100, 0]);
    assert_eq!(bank.pay(ending(3, TransferKind::Settle, 2, 0)).0, Some(Refusal::HoldExpired));
    // Nor does one that is in doubt for longer than its time end by itself.
    bank.decides = false;
    bank.sides[0].send(TELLER, Op::Transfer(hold(4, 30, 1)));
    bank.until("both are prepared", |bank| in_doubt(bank) == [1, 1]);
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!([0, 1].map(|at| state(&mut bank, at, 4)), [Some(TransferState::Prepared); 2]);
    let void = Op::Transfer(ending(5, TransferKind::Void, 4, 0));
    assert_eq!(answer(bank.sides[0].ask(void)), (Some(Refusal::Busy), 0, false));
    assert_eq!(state(&mut bank, 0, 5), None, "nothing was recorded");
    bank.decides = true;
    bank.until("it has expired at both", |bank| {
        [0, 1].iter().all(|&at| state(bank, at, 4) == Some(TransferState::Expired))
    });
    bank.settle_down();
    assert_eq!(bank.balances(), [100, 0]);
}

#[test]
fn what_refuses_a_hold_on_one_side_keeps_it_from_both() {
    let mut bank = Bank::new();
    let nobody = AccountId::of_branch(THERE, 99).get();
    let closing = transfer_flags::CLOSING_DEBIT.into();
    let table = [
        (hold(2, 101, 0), Refusal::InsufficientFunds, true),
        (
            message::Transfer { credit_account_id: nobody.into(), ..hold(3, 10, 9) },
            Refusal::CreditAccountNotFound,
            true,
        ),
        (message::Transfer { flags: closing, ..hold(4, 10, 0) }, Refusal::WrongBranch, false),
    ];
    for (wire, refusal, is_recorded) in table {
        assert_eq!(bank.pay(wire).0, Some(refusal));
        let expected = is_recorded.then_some(TransferState::Refused);
        assert_eq!(state(&mut bank, 0, wire.id.get()), expected);
        let end = ending(wire.id.get() + 10, TransferKind::Settle, wire.id.get(), 0);
        assert_eq!(bank.pay(end).0, Some(Refusal::ReferenceNotFound));
    }
    bank.settle_down();
    assert_eq!(bank.balances(), [100, 0]);
}

#[test]
fn the_end_of_a_hold_is_told_until_it_was_heard() {
    let losses: [fn(&Said) -> bool; 2] = [|said| matches!(said, Said::End(_)), |said| matches!(said, Said::Heard(_))];
    for deaf in losses {
        for restarted in [&[][..], &[0], &[1], &[0, 1]] {
            let mut bank = Bank::new();
            assert_eq!(bank.pay(hold(2, 30, 0)), (None, 30, false));
            bank.settle_down();
            bank.deaf = deaf;
            assert_eq!(bank.pay(ending(3, TransferKind::Settle, 2, 20)), (None, 20, false));
            (0..20).for_each(|_| bank.pump());
            assert_eq!(bank.sides[0].branch.stats().ends_untold.0, 1);
            restarted.iter().for_each(|&at| bank.restart(at));
            assert_eq!(bank.sides[0].branch.stats().ends_untold.0, 1, "a restart forgets no end");
            bank.deaf = |_| false;
            bank.settle_down();
            assert_eq!(bank.balances(), [80, 20], "{restarted:?}");
        }
    }
}
