//! The client of a bank of several branches, which move, vanish and come.

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::FakeBranch;
use tally_client::{
    Bank, Between, ClientOptions, ConnectError, Money, Outcome, Overdraft, RequestError, customer_account,
    next_transfer_id,
};
use tally_protocol::message::{Transfer, TransferKind};
use tally_protocol::{AccountId, Amount, BranchId, Currency};
use zerocopy::FromZeros;

const MONEY: Money = Money { amount: Amount::new(250), currency: Currency::EUR };

fn account(branch: u16, number: u128) -> AccountId {
    AccountId::of_branch(BranchId::new(branch), number)
}

fn between(from: AccountId, to: AccountId) -> Between {
    Between { debit_account_id: from, credit_account_id: to }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Opens account 1 of a branch, with 1,000 in it.
async fn open(bank: &Bank, branch: u16) {
    let home = bank.branch(BranchId::new(branch)).await.expect("known");
    let account = account(branch, 1);
    let opened = home.open_accounts(&[customer_account(account, 1, Currency::EUR, Overdraft::None)]).await;
    assert!(opened.expect("answered").iter().all(|item| item.is_done()));
    let money = Money { amount: Amount::new(1_000), currency: Currency::EUR };
    assert!(matches!(bank.deposit(next_transfer_id(), account, money).await, Outcome::Done(_)));
}

fn asked(branches: &[&FakeBranch]) -> u32 {
    branches.iter().map(|branch| branch.faults.asked.load(Ordering::Relaxed)).sum()
}

#[test]
fn each_request_goes_to_the_home_of_its_account() {
    let (one, two) = (FakeBranch::start_as(1), FakeBranch::start_as(2));
    one.tell(3, &[&one, &two]);
    two.tell(3, &[&one, &two]);
    block_on(async {
        let bank = Bank::connect(one.connect_info_with(&[&two]), ClientOptions::default()).await.expect("they run");
        assert_eq!((bank.routes().version, bank.routes().branches.len()), (3, 2));
        open(&bank, 1).await;
        open(&bank, 2).await;
        let paid = bank.transfer(next_transfer_id(), between(account(2, 1), account(1, 1)), MONEY).await;
        assert!(matches!(paid, Outcome::Done(_)), "{paid:?}");
        let taken = bank.withdraw(next_transfer_id(), account(1, 1), MONEY).await;
        assert!(matches!(taken, Outcome::Done(_)), "{taken:?}");
        assert_eq!(one.ledger.lock().expect("kept").balance(account(1, 1)), 750);
        assert_eq!(two.ledger.lock().expect("kept").balance(account(2, 1)), 750);
        assert_eq!(bank.balance(account(2, 1)).await.expect("there").sums.debits_posted.get(), 250);
        assert_eq!(bank.account(account(1, 1)).await.expect("there").open.id.get(), account(1, 1).get());
        assert_eq!(asked(&[&one, &two]), 1, "nothing made it ask again");
    });
}

#[test]
fn a_branch_alone_answers_for_itself() {
    let alone = FakeBranch::start_as(7);
    block_on(async {
        let bank = Bank::connect(alone.connect_info(), ClientOptions::default()).await.expect("it runs");
        open(&bank, 7).await;
        assert_eq!(bank.routes().version, 0);
        let Err(error) = bank.balance(account(8, 1)).await else { panic!("there is no branch 8") };
        assert!(matches!(&error, RequestError::NotSent(ConnectError::BranchUnknown(unknown)) if unknown.get() == 8));
        let paid = bank.transfer(next_transfer_id(), between(account(8, 1), account(7, 1)), MONEY).await;
        assert!(matches!(paid, Outcome::NotSent { why: ConnectError::BranchUnknown(_), .. }), "{paid:?}");
    });
}

#[test]
fn a_branch_that_has_moved_is_found_again_with_the_same_id() {
    let (one, two) = (FakeBranch::start_as(1), FakeBranch::start_as(2));
    let moved = FakeBranch::start_as(2);
    one.tell(1, &[&one, &two]);
    block_on(async {
        let info = one.connect_info_with(&[&two, &moved]);
        let bank = Bank::connect(info, ClientOptions::default()).await.expect("they run");
        open(&bank, 2).await;
        let id = next_transfer_id();
        let deposit = |bank: &Bank| {
            let bank = bank.clone();
            async move { bank.deposit(id, account(2, 1), MONEY).await }
        };
        assert!(matches!(deposit(&bank).await, Outcome::Done(receipt) if !receipt.repeated));

        // Its books move with it, to where nobody has told us of; what was there is gone.
        std::mem::swap(&mut *moved.ledger.lock().expect("kept"), &mut *two.ledger.lock().expect("kept"));
        one.tell(2, &[&one, &moved]);
        drop(two);
        assert!(matches!(deposit(&bank).await, Outcome::Done(receipt) if receipt.repeated));
        assert_eq!(bank.routes().branches[&BranchId::new(2)].endpoint, moved.address.to_string());
    });
}

#[test]
fn another_branch_at_the_known_place_is_not_used() {
    let (one, two, three) = (FakeBranch::start_as(1), FakeBranch::start_as(2), FakeBranch::start_as(3));
    // Wrong: what is told as branch 2 is branch 3.
    let told = |second: &FakeBranch| vec![(1, one.address.to_string()), (2, second.address.to_string())];
    *one.faults.routes.lock().expect("kept") = (1, told(&three));
    block_on(async {
        let options = ClientOptions { deadline: Duration::from_millis(600), ..ClientOptions::default() };
        let bank = Bank::connect(one.connect_info_with(&[&two, &three]), options).await.expect("they run");
        let before = three.faults.requests.load(Ordering::Relaxed);
        let paid = bank.deposit(next_transfer_id(), account(2, 1), MONEY).await;
        let Outcome::NotSent { why: ConnectError::OtherBranch { expected, found, .. }, .. } = paid else {
            panic!("{paid:?}")
        };
        assert_eq!((expected.get(), found.get()), (2, 3));
        assert_eq!(three.faults.requests.load(Ordering::Relaxed), before, "it was asked nothing");

        *one.faults.routes.lock().expect("kept") = (2, told(&two));
        open(&bank, 2).await;
    });
}

#[test]
fn a_branch_that_has_joined_is_known_when_it_is_used_or_heard_of() {
    let (one, two, three) = (FakeBranch::start_as(1), FakeBranch::start_as(2), FakeBranch::start_as(3));
    one.tell(1, &[&one, &two]);
    block_on(async {
        let info = one.connect_info_with(&[&two, &three]);
        let bank = Bank::connect(info, ClientOptions::default()).await.expect("they run");
        tokio::time::sleep(Duration::from_millis(120)).await;
        one.tell(2, &[&one, &two, &three]);
        open(&bank, 3).await;
        assert_eq!(bank.routes().version, 2);

        // A session with branch 2 begins, which knows more than branch 1 told.
        tokio::time::sleep(Duration::from_millis(120)).await;
        two.tell(5, &[&one, &two]);
        one.tell(5, &[&one, &two]);
        open(&bank, 2).await;
        assert_eq!((bank.routes().version, bank.routes().branches.len()), (5, 2));
    });
}

#[test]
fn older_routes_change_nothing_and_any_branch_can_be_asked() {
    let (one, two, three) = (FakeBranch::start_as(1), FakeBranch::start_as(2), FakeBranch::start_as(3));
    one.tell(4, &[&one, &two]);
    two.tell(5, &[&one, &two, &three]);
    block_on(async {
        let info = one.connect_info_with(&[&two, &three]);
        let bank = Bank::connect(info, ClientOptions::default()).await.expect("they run");
        // Branch 1 has just come back, and has not heard from the registry.
        one.tell(0, &[]);
        tokio::time::sleep(Duration::from_millis(120)).await;
        open(&bank, 3).await;
        assert_eq!(bank.routes().version, 5, "branch 2 was asked");
        // The first endpoint is gone; the bank is not.
        drop(one);
        tokio::time::sleep(Duration::from_millis(120)).await;
        bank.ask_again().await.expect("branch 2 answers");
        open(&bank, 2).await;
    });
}

#[test]
fn one_endpoint_that_answers_is_enough() {
    let (one, two) = (FakeBranch::start_as(1), FakeBranch::start_as(2));
    two.tell(1, &[&one, &two]);
    block_on(async {
        let info = one.connect_info_with(&[&two]);
        let others = [two.address.to_string()];
        drop(one);
        assert!(Bank::connect(info.clone(), ClientOptions::default()).await.is_err());
        let bank = Bank::with_endpoints(info, others, ClientOptions::default()).expect("usable");
        open(&bank, 2).await;
    });
}

#[test]
fn many_callers_that_miss_a_branch_ask_once_and_are_told_soon() {
    let one = FakeBranch::start_as(1);
    one.tell(1, &[&one]);
    block_on(async {
        let bank = Bank::connect(one.connect_info(), ClientOptions::default()).await.expect("it runs");
        tokio::time::sleep(Duration::from_millis(120)).await;
        let begun = Instant::now();
        let callers: Vec<_> = (0..50)
            .map(|number| {
                let bank = bank.clone();
                tokio::spawn(async move { bank.balance(account(9, number + 1)).await })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.expect("no panic").is_err());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(asked(&[&one]) <= 3, "asked {} times", asked(&[&one]));
    });
}

#[test]
fn what_names_no_account_is_not_guessed() {
    let one = FakeBranch::start_as(1);
    block_on(async {
        let bank = Bank::new(one.connect_info(), ClientOptions::default()).expect("usable");
        let mut settle = Transfer::new_zeroed();
        settle.id.set(5);
        settle.kind = TransferKind::Settle as u8;
        settle.reference.set(4);
        let outcome = bank.submit(&settle).await;
        assert!(matches!(&outcome, Outcome::NotSent { why: ConnectError::Config(_), .. }), "{outcome:?}");
    });
}
