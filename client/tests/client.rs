//! The client library against a branch that fails on demand.

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::{BRANCH, FakeBranch};
use tally_client::{
    Between, Cancelled, ChainOutcome, Client, ClientOptions, ConnectError, ConnectFile, Final, LostReason, Money,
    Outcome, Resolution, RetryPolicy, UnknownReason, next_transfer_id,
};
use tally_protocol::message::{AccountOpen, Transfer, TransferKind, account_flags, transfer_flags};
use tally_protocol::{AccountId, Amount, BranchId, Currency, Lsn, Refusal, TransferId};
use zerocopy::FromZeros;

const EUR: Currency = Currency::EUR;

fn account(number: u128) -> AccountId {
    AccountId::of_branch(BranchId::new(BRANCH), number)
}

fn money(amount: u64) -> Money {
    Money { amount: Amount::new(amount), currency: EUR }
}

fn between(debit: u128, credit: u128) -> Between {
    Between { debit_account_id: account(debit), credit_account_id: account(credit) }
}

fn open(number: u128) -> AccountOpen {
    let mut open = AccountOpen::new_zeroed();
    open.id.set(account(number).get());
    open.currency.set(EUR.get());
    open.flags.set(account_flags::DEBITS_LIMITED);
    open.kind = 1;
    open.code.set(1);
    open
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A branch with two accounts, of which the first has 1,000.
async fn bank(branch: &FakeBranch, options: ClientOptions) -> Client {
    let client = Client::connect(branch.connect_info(), options).await.expect("the branch runs");
    let opened = client.open_accounts(&[open(1), open(2)]).await.expect("opened");
    assert!(opened.iter().all(|item| item.is_done()));
    let deposit = client.deposit(next_transfer_id(), account(1), money(1_000)).await;
    assert!(matches!(deposit, Outcome::Done(_)), "{deposit:?}");
    client
}

#[test]
fn every_kind_of_request_is_answered() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await;
        assert_eq!(client.session().await.expect("logged in").branch_id, BranchId::new(BRANCH));

        let id = next_transfer_id();
        let Outcome::Done(receipt) = client.transfer(id, between(1, 2), money(300)).await else { panic!("not done") };
        assert_eq!((receipt.amount, receipt.repeated, receipt.balances), (Amount::new(300), false, None));
        let Outcome::Done(again) = client.transfer(id, between(1, 2), money(300)).await else { panic!("not done") };
        assert_eq!((again.lsn, again.repeated), (receipt.lsn, true));
        let Outcome::Refused(refused) = client.transfer(id, between(1, 2), money(301)).await else { panic!("done") };
        assert_eq!(refused.refusal(), Some(Refusal::ExistsWithDifferentAmount));
        let short = client.withdraw(next_transfer_id(), account(2), money(301)).await;
        let Outcome::Refused(refused) = short else { panic!("{short:?}") };
        assert_eq!(refused.refusal(), Some(Refusal::InsufficientFunds));

        let mut with_balances = Transfer::new_zeroed();
        with_balances.id.set(77);
        with_balances.debit_account_id.set(account(1).get());
        with_balances.credit_account_id.set(account(2).get());
        with_balances.amount.set(100);
        with_balances.currency.set(EUR.get());
        with_balances.code.set(9);
        with_balances.kind = TransferKind::Transfer as u8;
        with_balances.flags.set(transfer_flags::WANT_BALANCES);
        let Outcome::Done(receipt) = client.submit(&with_balances).await else { panic!("not done") };
        let [debit, credit] = receipt.balances.expect("asked for");
        assert_eq!((debit.debits_posted.get(), credit.credits_posted.get()), (400, 400));

        let mut batch = [with_balances; 3];
        batch[1].id.set(78);
        batch[2].id.set(79);
        batch[2].amount.set(1_000_000);
        let ChainOutcome::Answered(items) = client.batch(&batch).await else { panic!("not answered") };
        assert_eq!(items.iter().map(|item| item.refusal_code).collect::<Vec<_>>(), [0, 0, 229]);
        assert_eq!(items.iter().map(|item| item.repeated).collect::<Vec<_>>(), [true, false, false]);
        let ChainOutcome::Answered(items) = client.chain(&batch[..2]).await else { panic!("not answered") };
        assert!(items.iter().all(|item| item.is_done() && item.repeated));

        let balance = client.balance(account(2)).await.expect("known");
        assert_eq!(balance.sums.credits_posted.get(), 500);
        assert_eq!(client.account(account(1)).await.expect("known").open.id.get(), account(1).get());
        let unknown = client.balance(account(99)).await.expect_err("unknown");
        assert_eq!(unknown.refusal(), Some(Refusal::AccountNotFound));
        client.freeze_account(account(2)).await.expect("frozen");
        client.unfreeze_account(account(2)).await.expect("unfrozen");
        client.close_account(account(99)).await.expect_err("unknown");
        assert_eq!(client.status().await.expect("answered").accounts.get(), 3);
        client.ping().await.expect("answered");

        assert!(matches!(client.resolve(id).await, Ok(Resolution::Done(found)) if found.transfer.amount.get() == 300));
        assert!(matches!(client.resolve(TransferId::new(5)).await, Ok(Resolution::Absent)));
        assert!(matches!(client.cancel(id).await, Ok(Cancelled::AlreadyUsed)));
        assert!(matches!(client.make_final(id).await, Ok(Final::Done(_))));
        assert!(matches!(client.make_final(TransferId::new(79)).await, Ok(Final::Refused(_))));
        assert!(matches!(client.make_final(TransferId::new(5)).await, Ok(Final::Never)));
        assert!(matches!(client.cancel(TransferId::new(5)).await, Ok(Cancelled::Burnt)));
        assert!(matches!(client.resolve(TransferId::new(5)).await, Ok(Resolution::Cancelled)));
        let late = client.transfer(TransferId::new(5), between(1, 2), money(1)).await;
        assert!(matches!(late, Outcome::Refused(refused) if refused.refusal() == Some(Refusal::IdCancelled)));
    });
}

#[test]
fn thousands_of_callers_share_a_connection() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions { connections: 2, ..ClientOptions::default() }).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..10_000 {
            let client = client.clone();
            calls.spawn(async move {
                // Some callers go away without waiting.
                let transfer = client.transfer(next_transfer_id(), between(1, 2), money(1));
                tokio::time::timeout(Duration::from_secs(20), transfer).await
            });
        }
        let mut done = 0;
        while let Some(outcome) = calls.join_next().await {
            done += i64::from(matches!(outcome, Ok(Ok(Outcome::Done(_)))));
        }
        assert_eq!(done, 1_000, "as much as there was money");
        assert_eq!(branch.ledger.lock().expect("no panic").balance(account(2)), 1_000);
    });
    assert_eq!(branch.faults.password_logins.load(Ordering::Relaxed), 1, "one password login");
    assert_eq!(branch.faults.token_logins.load(Ordering::Relaxed), 1, "then the token");
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_id() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await;
        branch.faults.hang_up_after.store(1, Ordering::Relaxed);
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(10)).await;
        assert!(matches!(outcome, Outcome::Done(receipt) if receipt.repeated), "done by the first attempt");
        branch.faults.swallow.store(2, Ordering::Relaxed);
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(10)).await;
        assert!(matches!(outcome, Outcome::Done(receipt) if !receipt.repeated), "done by the last attempt");
        assert_eq!(branch.ledger.lock().expect("no panic").balance(account(2)), 20);
    });
}

#[test]
fn without_retries_a_lost_answer_is_unknown_and_can_be_made_final() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await.with_retry(RetryPolicy::NEVER);
        branch.faults.hang_up_after.store(1, Ordering::Relaxed);
        let done = client.transfer(next_transfer_id(), between(1, 2), money(10)).await;
        let Outcome::Unknown { id, why: UnknownReason::Lost(LostReason::Closed) } = done else { panic!("{done:?}") };
        assert!(matches!(client.make_final(id).await, Ok(Final::Done(_))));

        branch.faults.swallow.store(1, Ordering::Relaxed);
        let lost = client.transfer(next_transfer_id(), between(1, 2), money(10)).await;
        let Outcome::Unknown { id, .. } = lost else { panic!("{lost:?}") };
        assert!(matches!(client.resolve(id).await, Ok(Resolution::Absent)));
        assert!(matches!(client.make_final(id).await, Ok(Final::Never)));
        assert_eq!(branch.ledger.lock().expect("no panic").balance(account(2)), 10);
    });
}

#[test]
fn busy_is_tried_again_a_bounded_number_of_times() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let retry = RetryPolicy { attempts_max: 4, backoff_min: Duration::from_millis(1), ..RetryPolicy::default() };
        let client = bank(&branch, ClientOptions { retry, ..ClientOptions::default() }).await;
        branch.faults.busy.store(3, Ordering::Relaxed);
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(1)).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        branch.faults.busy.store(4, Ordering::Relaxed);
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(1)).await;
        assert!(matches!(outcome, Outcome::Refused(refused) if refused.refusal() == Some(Refusal::Busy)));
    });
}

#[test]
fn a_deadline_ends_the_wait_and_says_that_nothing_is_known() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await.with_deadline(Duration::from_millis(200));
        branch.faults.silent.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(1)).await;
        assert!(matches!(outcome, Outcome::Unknown { why: UnknownReason::DeadlinePassed, .. }), "{outcome:?}");
        assert!((150..10_000).contains(&(begun.elapsed().as_millis() as u64)), "{:?}", begun.elapsed());
        branch.faults.silent.store(false, Ordering::Relaxed);
        client.ping().await.expect("the connection goes on");
    });
}

#[test]
fn what_cannot_be_sent_was_not_sent() {
    let branch = FakeBranch::start();
    let info = branch.connect_info();
    runtime().block_on(async {
        let retry = RetryPolicy { attempts_max: 2, backoff_min: Duration::from_millis(1), ..RetryPolicy::default() };
        let client = Client::new(info, ClientOptions { retry, ..ClientOptions::default() }).expect("valid");
        drop(branch);
        let outcome = client.transfer(next_transfer_id(), between(1, 2), money(1)).await;
        assert!(matches!(outcome, Outcome::NotSent { why: ConnectError::Unreachable { .. }, .. }), "{outcome:?}");
    });
}

#[test]
fn logins_that_fail_say_so() {
    let branch = FakeBranch::start();
    let file = ConnectFile::read(&branch.connect_file).expect("just written");
    runtime().block_on(async {
        let eve = file.connect_info(Some("eve")).expect("there is one");
        let error = Client::connect(eve, ClientOptions::default()).await.expect_err("wrong password");
        assert!(matches!(&error, ConnectError::Refused(refused) if refused.refusal() == Some(Refusal::LoginFailed)));

        let mut stranger = branch.connect_info();
        stranger.server_name = "example.org".to_owned();
        let error = Client::connect(stranger, ClientOptions::default()).await.expect_err("another name");
        assert!(matches!(&error, ConnectError::Unreachable { .. }), "{error:?}");
    });
}

#[test]
fn a_token_that_ended_is_replaced_by_the_password() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await;
        branch.faults.token_ended.store(true, Ordering::Relaxed);
        client.close();
        client.ping().await.expect("logged in again");
    });
    assert_eq!(branch.faults.password_logins.load(Ordering::Relaxed), 2);
}

#[test]
fn the_feed_gives_each_entry_in_order_and_a_position_to_go_on_from() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await;
        for _ in 0..24 {
            let outcome = client.transfer(next_transfer_id(), between(1, 2), money(1)).await;
            assert!(matches!(outcome, Outcome::Done(_)));
        }
        let mut reader = client.read_feed(Lsn::ZERO);
        for expected in 1..=13 {
            assert_eq!(reader.next().await.expect("there").lsn.get(), expected);
        }
        let mut reader = client.read_feed(reader.position());
        for expected in 14..=25 {
            assert_eq!(reader.next().await.expect("there").lsn.get(), expected);
        }
        assert!(reader.next_within(Duration::ZERO).await.expect("answered").is_none());
        assert!(matches!(client.transfer(next_transfer_id(), between(1, 2), money(1)).await, Outcome::Done(_)));
        let entry = reader.next_within(Duration::from_secs(5)).await.expect("answered");
        assert_eq!(entry.expect("there").lsn.get(), 26);
    });
}

#[test]
fn each_call_has_a_trace_id_which_its_attempts_share_unless_the_caller_gives_one() {
    let branch = FakeBranch::start();
    runtime().block_on(async {
        let client = bank(&branch, ClientOptions::default()).await;
        branch.faults.traces.lock().expect("no test panics in it").clear();
        client.ping().await.expect("answered");
        branch.faults.busy.store(1, Ordering::Relaxed);
        assert!(matches!(client.transfer(next_transfer_id(), between(1, 2), money(1)).await, Outcome::Done(_)));
        let own = std::num::NonZeroU128::new(77).expect("not 0");
        client.with_trace_id(own).ping().await.expect("answered");
    });
    let traces = branch.faults.traces.lock().expect("no test panics in it").clone();
    let [ping, first_attempt, second_attempt, own] = traces[..] else { panic!("{traces:x?}") };
    assert!(ping != 0 && ping != first_attempt, "{traces:x?}");
    assert_eq!(first_attempt, second_attempt);
    assert_eq!(ping >> 64, first_attempt >> 64, "one client");
    assert_eq!(own, 77);
}
