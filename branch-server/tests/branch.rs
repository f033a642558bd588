//! The branch behind the sessions, driven through its queues, on a real disk: what is asked, what is
//! answered, and what is still there after a restart.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_branch_server::bell::Bell;
use tally_branch_server::branch::Branch;
use tally_branch_server::intake::{Op, Passage, Request, SessionKey};
use tally_branch_server::replies::{Reply, ReplyBody, ReplyReceiver};
use tally_branch_server::session::Backend;
use tally_ledger::Actor;
use tally_protocol::message::{self, AccountOpen, FeedRead, ItemResult, Role, TransferKind, TransferState};
use tally_protocol::{AccountId, BranchId, Currency, CustomerId, Refusal, TransferId};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const BRANCH: BranchId = BranchId::new(1);
const TELLER: Actor = Actor { role: Role::Teller, customer: CustomerId::BANK };

struct Bank {
    branch: Branch,
    receiver: ReplyReceiver,
    request_id: u64,
}

impl Bank {
    fn start(dir: &std::path::Path) -> Self {
        let (branch, mut receivers) = Branch::start(support::options(dir, BRANCH, false), &[Bell::new(|| {})])
            .expect("the branch starts on its own folder");
        Self { branch, receiver: receivers.remove(0), request_id: 0 }
    }

    fn send(&mut self, actor: Actor, op: Op) -> u64 {
        self.send_before(0, actor, op)
    }

    /// `deadline` by the monotonic clock, 0 for none.
    fn send_before(&mut self, deadline: u64, actor: Actor, op: Op) -> u64 {
        self.request_id += 1;
        let session = SessionKey { thread: 0, slot: 0, generation: 0 };
        let request = Request {
            session,
            request_id: self.request_id,
            trace_id: 0,
            deadline,
            passage: Passage::default(),
            cleared_moves: 0,
            actor,
            op,
        };
        self.branch.intake().push(request).expect("the queues are empty");
        self.branch.intake().ring();
        self.request_id
    }

    fn receive(&mut self) -> Reply {
        let started = Instant::now();
        let mut replies = Vec::new();
        while replies.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(20), "no reply");
            self.receiver.poll_ready(self.branch.durable(), |reply| replies.push(reply));
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(replies.len(), 1, "one request, one reply");
        replies.remove(0)
    }

    fn ask_as(&mut self, actor: Actor, op: Op) -> ReplyBody {
        let request_id = self.send(actor, op);
        let reply = self.receive();
        assert_eq!(reply.request_id, request_id);
        reply.body
    }

    fn ask(&mut self, op: Op) -> ReplyBody {
        self.ask_as(TELLER, op)
    }

    fn open(&mut self, locals: std::ops::RangeInclusive<u128>) {
        let opens: Vec<AccountOpen> = locals
            .map(|local| AccountOpen {
                id: account(local).get().into(),
                owner: (local as u64).into(),
                currency: Currency::EUR.get().into(),
                code: 1.into(),
                flags: message::account_flags::DEBITS_LIMITED.into(),
                kind: 1,
                day_limit: u64::MAX.into(),
                ..AccountOpen::new_zeroed()
            })
            .collect();
        let items = items(self.ask(Op::OpenAccounts(Bytes::copy_from_slice(opens.as_bytes()))));
        assert!(items.iter().all(|item| item.refusal.get() == 0), "{items:?}");
    }

    fn transfer(&mut self, transfer: message::Transfer) -> Result<message::TransferReply, Refusal> {
        match self.ask(Op::Transfer(transfer)) {
            ReplyBody::Transfer { reply, .. } => match reply.refusal.get() {
                0 => Ok(reply),
                code => Err(Refusal::from_code(code).expect("a known code")),
            },
            ReplyBody::Refused { refusal, .. } => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn balance(&mut self, local: u128) -> i64 {
        let ReplyBody::Balance(balance) = self.ask(Op::GetBalance(account(local))) else { panic!("no balance") };
        balance.sums.credits_posted.get() as i64 - balance.sums.debits_posted.get() as i64
    }

    fn held(&mut self, local: u128) -> u64 {
        let ReplyBody::Balance(balance) = self.ask(Op::GetBalance(account(local))) else { panic!("no balance") };
        balance.sums.debits_held.get()
    }

    /// Both accounts' debits and credits posted, as a look-up shows them.
    fn found_sums(&mut self, actor: Actor, id: u128) -> ((u64, u64), (u64, u64)) {
        match self.ask_as(actor, Op::GetTransfer(TransferId::new(id))) {
            ReplyBody::Found(found) => (shown(&found.debit), shown(&found.credit)),
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, id: u128) -> Result<u8, Refusal> {
        match self.ask(Op::GetTransfer(TransferId::new(id))) {
            ReplyBody::Found(found) => Ok(found.state),
            ReplyBody::Refused { refusal, .. } => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

fn account(local: u128) -> AccountId {
    AccountId::of_branch(BRANCH, local)
}

fn items(body: ReplyBody) -> Vec<ItemResult> {
    let ReplyBody::Items(_, bytes) = body else { panic!("{body:?}") };
    <[ItemResult]>::ref_from_bytes(&bytes).expect("whole items").to_vec()
}

fn transfer(id: u128, kind: TransferKind, debit: u128, credit: u128, amount: u64) -> message::Transfer {
    let local = |local: u128| if local == 0 { 0 } else { account(local).get() };
    message::Transfer {
        id: id.into(),
        debit_account_id: local(debit).into(),
        credit_account_id: local(credit).into(),
        amount: amount.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        kind: kind as u8,
        ..message::Transfer::new_zeroed()
    }
}

fn refer(id: u128, kind: TransferKind, reference: u128, amount: u64) -> message::Transfer {
    let currency = 0.into();
    message::Transfer { reference: reference.into(), currency, code: 0.into(), ..transfer(id, kind, 0, 0, amount) }
}

#[test]
fn money_moves_is_held_and_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=3);
    use TransferKind::{Deposit, Hold, Reverse, Settle, Transfer, Void, Withdraw};
    let first = bank.transfer(transfer(1, Deposit, 0, 1, 1_000)).expect("a deposit");
    bank.transfer(transfer(2, Transfer, 1, 2, 300)).expect("funds are there");
    assert_eq!(bank.transfer(transfer(3, Transfer, 3, 1, 1)).err(), Some(Refusal::InsufficientFunds));
    bank.transfer(transfer(4, Hold, 1, 3, 500)).expect("funds are there");
    bank.transfer(transfer(5, Hold, 1, 3, 100)).expect("funds are there");
    assert_eq!((bank.balance(1), bank.held(1)), (700, 600));
    bank.transfer(refer(6, Settle, 4, 450)).expect("the hold is open");
    bank.transfer(refer(7, Void, 5, 0)).expect("the hold is open");
    bank.transfer(refer(8, Reverse, 2, 0)).expect("posted, and the money is still there");
    bank.transfer(transfer(9, Withdraw, 3, 0, 50)).expect("funds are there");

    let check = |bank: &mut Bank| {
        assert_eq!([1, 2, 3].map(|local| bank.balance(local)), [550, 0, 400]);
        assert_eq!([1, 2, 3].map(|local| bank.held(local)), [0, 0, 0]);
        let again = bank.transfer(transfer(1, Deposit, 0, 1, 1_000)).expect("the first answer again");
        assert_eq!((again.lsn, again.timestamp, again.amount), (first.lsn, first.timestamp, first.amount));
        assert_eq!(again.flags.get(), message::RESULT_REPEATED);
        let other = bank.transfer(transfer(1, Deposit, 0, 1, 1_001)).err();
        assert_eq!(other, Some(Refusal::ExistsWithDifferentAmount));
        assert_eq!(bank.transfer(transfer(3, Transfer, 3, 1, 1)).err(), Some(Refusal::InsufficientFunds));
        assert_eq!(bank.transfer(refer(10, Void, 4, 0)).err(), Some(Refusal::HoldAlreadySettled));
        assert_eq!(bank.transfer(refer(11, Settle, 5, 0)).err(), Some(Refusal::HoldAlreadyVoided));
        assert_eq!(bank.transfer(refer(12, Reverse, 2, 0)).err(), Some(Refusal::AlreadyReversed));
        assert_eq!(bank.transfer(refer(13, Settle, 99, 0)).err(), Some(Refusal::ReferenceNotFound));
        let states: Vec<_> = (1..=9).map(|id| bank.state(id).expect("known")).collect();
        use TransferState::{Done, Refused, Reversed, Settled, Voided};
        let expected = [Done, Reversed, Refused, Settled, Voided, Done, Done, Done, Done];
        assert_eq!(states, expected.map(|state| state as u8));
        assert_eq!(bank.state(99).err(), Some(Refusal::TransferNotFound));
    };
    check(&mut bank);
    bank.branch.stop();
    let mut bank = Bank::start(dir.path());
    check(&mut bank);
    bank.branch.stop();
}

#[test]
fn a_cancelled_id_stays_burnt_and_a_used_one_cannot_be_cancelled() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=2);
    let cancel = |bank: &mut Bank, id| match bank.ask(Op::CancelId(TransferId::new(id))) {
        ReplyBody::Item(_, item) => Refusal::from_code(item.refusal.get()),
        other => panic!("{other:?}"),
    };
    assert_eq!(cancel(&mut bank, 7), None);
    assert_eq!(bank.transfer(transfer(7, TransferKind::Deposit, 0, 1, 5)).err(), Some(Refusal::IdCancelled));
    bank.transfer(transfer(8, TransferKind::Deposit, 0, 1, 5)).expect("a deposit");
    assert_eq!(cancel(&mut bank, 8), Some(Refusal::IdAlreadyUsed));
    let burnt = refer(9, TransferKind::Settle, 7, 0);
    assert_eq!(bank.transfer(burnt).err(), Some(Refusal::ReferenceNotFound), "burnt is absent for good");
    bank.branch.stop();
    let mut bank = Bank::start(dir.path());
    assert_eq!(cancel(&mut bank, 7), None);
    assert_eq!(bank.state(7), Ok(TransferState::Cancelled as u8));
    bank.branch.stop();
}

#[test]
fn a_batch_is_worked_in_order_with_its_chains_and_old_ids() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=10);
    // Enough ids that several generations go to disk.
    let deposits = |round: u128| {
        let deposit = |n: u128| transfer(1 + round * 1_000 + n, TransferKind::Deposit, 0, 1 + n % 10, 1);
        let batch: Vec<_> = (0..1_000).map(deposit).collect();
        Op::Batch(Bytes::copy_from_slice(batch.as_bytes()))
    };
    for round in 0..4 {
        let results = items(bank.ask(deposits(round)));
        assert_eq!(results.len(), 1_000);
        assert!(results.iter().all(|item| item.refusal.get() == 0 && item.flags.get() == 0));
    }
    assert_eq!(bank.balance(1), 400);
    std::thread::sleep(Duration::from_millis(600));
    // All of it again, from disk and from memory: answered, and not done twice.
    for round in 0..4 {
        let results = items(bank.ask(deposits(round)));
        assert_eq!(results.len(), 1_000);
        let is_repeat = |item: &ItemResult| item.refusal.get() == 0 && item.flags.get() == message::RESULT_REPEATED;
        assert!(results.iter().all(is_repeat), "round {round}");
    }
    assert_eq!(bank.balance(1), 400);
    let linked = |mut transfer: message::Transfer| {
        transfer.flags = message::transfer_flags::LINKED.into();
        transfer
    };
    use TransferKind::{Hold, Settle, Transfer};
    let batch = [
        transfer(1, TransferKind::Deposit, 0, 1, 1),
        transfer(10_001, Hold, 1, 2, 100),
        refer(10_002, Settle, 10_001, 60),
        linked(transfer(10_003, Transfer, 2, 3, 10)),
        transfer(10_004, Transfer, 3, 4, 100_000),
        linked(transfer(10_005, Hold, 2, 3, 10)),
        refer(10_006, Settle, 10_005, 0),
        transfer(10_007, Transfer, 5, 5, 1),
        linked(transfer(10_008, Transfer, 2, 3, 10)),
    ];
    let results = items(bank.ask(Op::Batch(Bytes::copy_from_slice(batch.as_bytes()))));
    let refusals: Vec<_> = results.iter().map(|item| Refusal::from_code(item.refusal.get())).collect();
    let expected = [
        None,
        None,
        None,
        Some(Refusal::ChainBroken),
        Some(Refusal::InsufficientFunds),
        None,
        None,
        Some(Refusal::AccountsMustDiffer),
        Some(Refusal::ChainOpen),
    ];
    assert_eq!(refusals, expected);
    assert_eq!(results[0].flags.get(), message::RESULT_REPEATED);
    assert_eq!([1, 2, 3].map(|local| bank.balance(local)), [340, 450, 410]);
    let chain = [linked(batch[5]), batch[6]];
    let again = items(bank.ask(Op::Chain(Bytes::copy_from_slice(chain.as_bytes()))));
    assert!(again.iter().all(|item| item.refusal.get() == 0 && item.flags.get() == message::RESULT_REPEATED));
    bank.branch.stop();
}

#[test]
fn holds_run_out_and_the_feed_tells_everything_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=2);
    bank.transfer(transfer(1, TransferKind::Deposit, 0, 1, 100)).expect("a deposit");
    let hold = message::Transfer { timeout_s: 1.into(), ..transfer(2, TransferKind::Hold, 1, 2, 40) };
    bank.transfer(hold).expect("funds are there");
    let started = Instant::now();
    while bank.held(1) != 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "the hold did not run out");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(bank.transfer(refer(3, TransferKind::Settle, 2, 0)).err(), Some(Refusal::HoldExpired));
    assert_eq!(bank.state(2), Ok(TransferState::Expired as u8));
    let page = |bank: &mut Bank, from: u64, count_max: u32| {
        let read = FeedRead { from: from.into(), count_max: count_max.into(), wait_ms: 100.into() };
        let ReplyBody::Feed(bytes) = bank.ask(Op::ReadFeed(read)) else { panic!("no page") };
        let (prefix, entries) = message::FeedPagePrefix::read_from_prefix(&bytes).expect("a prefix");
        let entries = <[message::FeedEntry]>::ref_from_bytes(entries).expect("whole entries");
        (prefix.next.get(), entries.iter().map(|entry| (entry.kind, entry.transfer.id.get())).collect::<Vec<_>>())
    };
    let (next, first) = page(&mut bank, 0, 3);
    let (next, second) = page(&mut bank, next, 0);
    let told = [first, second].concat();
    // Two accounts, the cash account with the first deposit, then the transfers.
    assert_eq!(told.iter().filter(|(kind, _)| *kind == 4).count(), 3);
    let transfers: Vec<_> = told.iter().filter(|(kind, _)| *kind != 4).copied().collect();
    assert_eq!(transfers, [(1, 1), (1, 2), (2, 2), (1, 3)]);
    assert_eq!(page(&mut bank, next, 0).1, []);
    bank.branch.stop();
}

#[test]
fn many_senders_lose_no_cent() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=20);
    for local in 1..=20 {
        bank.transfer(transfer(local, TransferKind::Deposit, 0, local, 1_000)).expect("a deposit");
    }
    let count = 20_000u128;
    let mut sent = 0;
    let mut answered = 0;
    let started = Instant::now();
    while answered < count {
        assert!(started.elapsed() < Duration::from_secs(60), "{answered} of {count} answered");
        while sent < count && sent - answered < 1_000 {
            let (debit, credit) = (1 + sent * 7 % 20, 1 + (sent * 13 + 5) % 20);
            let credit = if credit == debit { 1 + credit % 20 } else { credit };
            // Every tenth id comes twice, at two workers at once.
            let id = 1_000 + sent - u128::from(sent % 10 == 9);
            bank.send(
                TELLER,
                Op::Transfer(transfer(id, TransferKind::Transfer, debit, credit, 1 + (sent % 50) as u64)),
            );
            sent += 1;
        }
        let mut now = 0;
        bank.receiver.poll_ready(bank.branch.durable(), |_| now += 1);
        answered += now;
        if now == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    let total: i64 = (1..=20).map(|local| bank.balance(local)).sum();
    assert_eq!(total, 20_000);
    let balances: Vec<_> = (1..=20).map(|local| bank.balance(local)).collect();
    bank.branch.stop();
    let mut bank = Bank::start(dir.path());
    assert_eq!((1..=20).map(|local| bank.balance(local)).collect::<Vec<_>>(), balances);
    bank.branch.stop();
}

/// The reversal makes each copy ask the disk, so that one copy is looked up while the worker applies another: what is
/// known of the chain at that moment is a part of it.
#[test]
fn a_chain_that_is_sent_again_while_it_is_under_way_is_answered_as_the_first() {
    const COPIES: usize = 4;
    const LINKS: u128 = 60;
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=2);
    bank.transfer(transfer(1, TransferKind::Deposit, 0, 1, 1 << 40)).expect("a deposit");
    for round in 1..=150 {
        let base = round * 1_000;
        bank.transfer(transfer(base, TransferKind::Transfer, 1, 2, 5)).expect("funds are there");
        let mut chain = vec![refer(base + 1, TransferKind::Reverse, base, 0)];
        chain.extend((2..=LINKS).map(|link| transfer(base + link, TransferKind::Transfer, 1, 2, 1)));
        let last = chain.len() - 1;
        chain[..last].iter_mut().for_each(|link| link.flags = message::transfer_flags::LINKED.into());
        let bytes = Bytes::copy_from_slice(chain.as_bytes());
        for _ in 0..COPIES {
            bank.send(TELLER, Op::Chain(bytes.clone()));
        }
        let mut replies = Vec::new();
        let started = Instant::now();
        while replies.len() < COPIES {
            assert!(started.elapsed() < Duration::from_secs(20), "{} replies", replies.len());
            bank.receiver.poll_ready(bank.branch.durable(), |reply| replies.push(reply));
            // So few recent ids fit that a slow disk makes itself felt: such a copy is sent again.
            let is_busy = |reply: &Reply| matches!(reply.body, ReplyBody::Refused { refusal: Refusal::Busy, .. });
            let taken = replies.len();
            replies.retain(|reply| !is_busy(reply));
            for _ in replies.len()..taken {
                bank.send(TELLER, Op::Chain(bytes.clone()));
            }
        }
        for reply in replies {
            let items = items(reply.body);
            assert!(items.iter().all(|item| item.refusal.get() == 0), "round {round}: {items:?}");
        }
    }
}

fn customer(number: u64) -> Actor {
    Actor { role: Role::Customer, customer: CustomerId::new(number) }
}

/// Debits and credits posted, as shown.
fn shown(sums: &message::Sums) -> (u64, u64) {
    (sums.debits_posted.get(), sums.credits_posted.get())
}

#[test]
fn a_customer_is_shown_own_sums_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=2);
    bank.transfer(transfer(1, TransferKind::Deposit, 0, 1, 900)).expect("cash");
    bank.transfer(transfer(2, TransferKind::Deposit, 0, 2, 70)).expect("cash");
    let wants = |id, debit, credit| message::Transfer {
        flags: message::transfer_flags::WANT_BALANCES.into(),
        ..transfer(id, TransferKind::Transfer, debit, credit, 30)
    };
    let mut balances = |actor, wire| match bank.ask_as(actor, Op::Transfer(wire)) {
        ReplyBody::Transfer { balances: Some([debit, credit]), reply } => {
            (reply.refusal.get(), shown(&debit), shown(&credit))
        }
        other => panic!("{other:?}"),
    };
    let not_owner = Refusal::NotOwner.code();
    assert_eq!(balances(customer(1), wants(3, 1, 2)), (0, (30, 900), (0, 0)), "the payee's are hidden");
    assert_eq!(balances(customer(1), wants(3, 1, 2)), (0, (30, 900), (0, 0)), "in a repeat too");
    assert_eq!(balances(TELLER, wants(4, 1, 2)), (0, (60, 900), (0, 130)), "staff sees both");
    assert_eq!(balances(customer(1), wants(5, 2, 1)), (not_owner, (0, 0), (60, 900)), "the owner's of a refusal too");

    assert_eq!(bank.found_sums(customer(1), 3), ((30, 900), (0, 0)));
    assert_eq!(bank.found_sums(customer(2), 3), ((0, 0), (0, 100)));
    assert_eq!(bank.found_sums(customer(1), 5), ((0, 0), (60, 900)));
    assert_eq!(bank.found_sums(TELLER, 3), ((30, 900), (0, 100)));

    // Writing one's own account beside somebody else's hold does not show the hold's accounts.
    bank.open(3..=3);
    bank.transfer(transfer(6, TransferKind::Hold, 1, 2, 10)).expect("held");
    let void = message::Transfer {
        debit_account_id: account(3).get().into(),
        flags: message::transfer_flags::WANT_BALANCES.into(),
        ..refer(7, TransferKind::Void, 6, 0)
    };
    let body = bank.ask_as(customer(3), Op::Transfer(void));
    let ReplyBody::Transfer { balances: Some([debit, credit]), reply } = body else { panic!("{body:?}") };
    assert_eq!((reply.refusal.get(), shown(&debit), shown(&credit)), (not_owner, (0, 0), (0, 0)));
    assert_eq!(bank.found_sums(customer(3), 7), ((0, 0), (0, 0)));
    bank.branch.stop();
}

#[test]
fn a_customer_reaches_no_account_of_the_bank() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=1);
    bank.transfer(transfer(1, TransferKind::Deposit, 0, 1, 900)).expect("cash");
    let till = AccountId::of_house(BRANCH, tally_protocol::AccountKind::Cash, Currency::EUR).get();
    for (debit, credit) in [(account(1).get(), till), (till, account(1).get())] {
        let wire = message::Transfer {
            debit_account_id: debit.into(),
            credit_account_id: credit.into(),
            ..transfer(2, TransferKind::Transfer, 0, 0, 5)
        };
        let refused = |body: &ReplyBody| matches!(body, ReplyBody::Refused { refusal: Refusal::NotPermitted, .. });
        assert!(refused(&bank.ask_as(customer(1), Op::Transfer(wire))));
        let chain = items(bank.ask_as(customer(1), Op::Chain(Bytes::copy_from_slice(wire.as_bytes()))));
        assert_eq!(chain[0].known_refusal(), Some(Refusal::NotPermitted));
    }
    let back = bank.ask_as(customer(1), Op::Transfer(refer(3, TransferKind::Reverse, 1, 0)));
    let ReplyBody::Transfer { reply, .. } = back else { panic!("{back:?}") };
    assert_eq!(reply.known_refusal(), Some(Refusal::NotOwner), "a deposit is reversed over the counter");
    assert_eq!(bank.state(2), Err(Refusal::TransferNotFound), "the id is free");
    assert_eq!(bank.balance(1), 900);
    bank.branch.stop();
}

#[test]
fn a_folder_of_another_branch_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    bank.open(1..=1);
    bank.branch.stop();
    let other = support::options(dir.path(), BranchId::new(2), false);
    let error = Branch::start(other, &[Bell::new(|| {})]).expect_err("it is branch 1's").to_string();
    assert!(error.contains("branch.id"), "{error}");
}

#[test]
fn openings_have_a_deadline_and_are_answered_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    // More than one slice.
    bank.open(1..=900);
    let open = AccountOpen { id: account(950).get().into(), ..AccountOpen::new_zeroed() };
    bank.send_before(1, TELLER, Op::OpenAccounts(Bytes::copy_from_slice(open.as_bytes())));
    let late = items(bank.receive().body);
    assert_eq!(late[0].known_refusal(), Some(Refusal::DeadlinePassed));
    bank.branch.stop();
}

/// Accounts from `locals`, linked to each other.
fn chain(locals: std::ops::RangeInclusive<u128>, flags: u16, user_data_64: u64) -> Vec<AccountOpen> {
    let last = *locals.end();
    locals
        .map(|local| AccountOpen {
            id: account(local).get().into(),
            user_data_64: user_data_64.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            flags: (flags | if local == last { 0 } else { message::account_flags::LINKED }).into(),
            kind: 1,
            day_limit: u64::MAX.into(),
            ..AccountOpen::new_zeroed()
        })
        .collect()
}

fn refusals(items: &[ItemResult]) -> Vec<Option<Refusal>> {
    items.iter().map(ItemResult::known_refusal).collect()
}

fn opening(opens: &[AccountOpen]) -> Op {
    Op::OpenAccounts(Bytes::copy_from_slice(opens.as_bytes()))
}

#[test]
fn linked_accounts_are_opened_whole_wherever_the_slices_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    // Two single accounts, then a chain that does not fit into what is left of the slice.
    let mut opens = [chain(1..=1, 0, 0), chain(2..=2, 0, 0), chain(3..=258, 0, 0)].concat();
    let opened = items(bank.ask(opening(&opens)));
    assert!(opened.iter().all(|item| item.is_done() && !item.is_repeat()), "{opened:?}");
    let stamps: Vec<u64> = opened.iter().map(|item| item.timestamp.get()).collect();
    assert!(stamps.is_sorted_by(|a, b| a < b), "each has a stamp of its own");
    // A chain with one account too many of the branch's thousand: none of it is opened.
    let full = items(bank.ask(opening(&chain(2_000..=2_255, 0, 0))));
    assert_eq!(refusals(&full), vec![None; 256]);
    assert_eq!(refusals(&items(bank.ask(opening(&chain(2_256..=2_511, 0, 0))))), vec![None; 256]);
    let over = items(bank.ask(opening(&chain(3_000..=3_255, 0, 0))));
    assert_eq!(refusals(&over), vec![Some(Refusal::CapacityReached); 256]);
    let missing = bank.ask(Op::GetAccount(account(3_000)));
    assert!(matches!(missing, ReplyBody::Refused { refusal: Refusal::AccountNotFound, .. }), "{missing:?}");
    bank.branch.stop();

    let mut bank = Bank::start(dir.path());
    opens[1].code = 7.into();
    let again = items(bank.ask(opening(&opens)));
    assert_eq!(again[1].known_refusal(), Some(Refusal::ExistsWithDifferentCode));
    assert!(again[2..].iter().all(|item| item.is_done() && item.is_repeat()));
    let same: Vec<u64> = again[2..].iter().map(|item| item.timestamp.get()).collect();
    assert_eq!(same, stamps[2..], "the first answers again, after a restart");
    bank.branch.stop();
}

#[test]
fn what_was_imported_and_what_is_closing_is_so_after_a_restart() {
    use message::{account_flags, transfer_flags};
    const ADMIN: Actor = Actor { role: Role::Admin, customer: CustomerId::new(3) };
    let dir = tempfile::tempdir().expect("a folder");
    let mut bank = Bank::start(dir.path());
    let own_time = 1_000_000_000_000_000_000;
    let opens = chain(1..=2, account_flags::IMPORTED, own_time);
    let teller = items(bank.ask(opening(&opens)));
    assert_eq!(refusals(&teller), vec![Some(Refusal::NotPermitted); 2], "history is an admin's");
    let admin = items(bank.ask_as(ADMIN, opening(&opens)));
    assert!(admin.iter().all(|item| item.is_done() && item.timestamp.get() == own_time), "{admin:?}");
    bank.open(3..=3);
    let closing =
        message::Transfer { flags: transfer_flags::CLOSING_DEBIT.into(), ..transfer(1, TransferKind::Hold, 1, 2, 0) };
    bank.transfer(closing).expect("nothing is held");
    let imported = message::Transfer {
        flags: transfer_flags::IMPORTED.into(),
        user_data_64: own_time.into(),
        ..transfer(2, TransferKind::Transfer, 2, 3, 5)
    };
    let ReplyBody::Transfer { reply, .. } = bank.ask_as(ADMIN, Op::Transfer(imported)) else { panic!("no answer") };
    let early = Refusal::ImportedEventTimestampMustPostdateDebitAccount;
    assert_eq!(reply.known_refusal(), Some(early));
    bank.branch.stop();

    let mut bank = Bank::start(dir.path());
    let ReplyBody::Account(account) = bank.ask(Op::GetAccount(account(1))) else { panic!("no account") };
    assert_eq!((account.opened_at.get(), account.open.flags.get()), (own_time, account_flags::IMPORTED));
    assert_eq!(account.status, tally_protocol::AccountStatus::Closing as u8);
    let pay = |id| transfer(id, TransferKind::Transfer, 2, 1, 5);
    assert_eq!(bank.transfer(pay(3)).err(), Some(Refusal::CreditAccountClosed));
    bank.transfer(refer(4, TransferKind::Void, 1, 0)).expect("the hold is open");
    bank.transfer(pay(5)).expect("it is open again");
    bank.branch.stop();
}
