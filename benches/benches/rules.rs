//! The rules: what a plain payment costs in the ledger, each step by itself and all of them in a row.
//!
//! Both accounts lie in the cache, and no id, lock or log is involved: this is the part that only more or simpler
//! rules can change.

use std::hint::black_box;

use divan::Bencher;
use tally_ledger::{
    Account, Actor, Opened, Outcome, Reference, Transfer, decide, effective_accounts, open_account, transfer_record,
};
use tally_protocol::message::{self, Role, TransferKind, account_flags};
use tally_protocol::{AccountId, AccountKind, Amount, BranchId, CustomerId, Lsn, Timestamp};
use zerocopy::FromZeros;

const BRANCH: BranchId = BranchId::new(1);
const NOW: Timestamp = Timestamp::from_nanos(20_000 * 86_400_000_000_000);
const OWNER: u64 = 7;
const ACTOR: Actor = Actor { role: Role::Customer, customer: CustomerId::new(OWNER) };

fn main() {
    divan::main();
}

#[divan::bench]
fn from_wire(bencher: Bencher) {
    let wire = wire();
    bencher.bench_local(|| Transfer::from_wire(black_box(&wire), BRANCH));
}

#[divan::bench]
fn decided(bencher: Bencher) {
    let (transfer, debit, credit) = (transfer(), account(1), account(2));
    bencher.bench_local(|| decide_one(black_box(&transfer), black_box(&debit), black_box(&credit)));
}

#[divan::bench]
fn refused(bencher: Bencher) {
    let (transfer, debit, credit) = (Transfer { amount: Amount::MAX, ..transfer() }, account(1), account(2));
    assert!(!decide_one(&transfer, &debit, &credit).is_done());
    bencher.bench_local(|| decide_one(black_box(&transfer), black_box(&debit), black_box(&credit)));
}

#[divan::bench]
fn record(bencher: Bencher) {
    let (transfer, outcome) = (transfer(), decide_one(&transfer(), &account(1), &account(2)));
    bencher.bench_local(|| {
        transfer_record(black_box(&transfer), black_box(&Reference::NotGiven), BRANCH, black_box(&outcome))
    });
}

#[divan::bench]
fn apply(bencher: Bencher) {
    let (mut debit, mut credit) = (account(1), account(2));
    let outcome = decide_one(&transfer(), &debit, &credit);
    bencher.bench_local(|| {
        black_box(&outcome).apply(black_box(&mut debit), black_box(&mut credit), Lsn::new(64), NOW);
    });
}

/// One payment after the other between the same two accounts.
#[divan::bench]
fn whole(bencher: Bencher) {
    let (wire, mut debit, mut credit) = (wire(), account(1), account(2));
    bencher.bench_local(|| {
        let transfer = Transfer::from_wire(black_box(&wire), BRANCH).expect("well formed");
        let reference = black_box(Reference::NotGiven);
        let accounts = effective_accounts(&transfer, &reference, BRANCH);
        assert!(accounts == Ok((debit.id, credit.id)), "the transfer is about these two");
        let outcome = decide(&transfer, &reference, Some(&debit), Some(&credit), &ACTOR, black_box(NOW));
        assert!(outcome.is_done(), "there is money for a week of payments");
        outcome.apply(&mut debit, &mut credit, black_box(Lsn::new(64)), NOW);
        transfer_record(&transfer, &reference, BRANCH, &outcome)
    });
}

fn decide_one(transfer: &Transfer, debit: &Account, credit: &Account) -> Outcome {
    decide(transfer, black_box(&Reference::NotGiven), Some(debit), Some(credit), black_box(&ACTOR), black_box(NOW))
}

fn transfer() -> Transfer {
    Transfer::from_wire(&wire(), BRANCH).expect("well formed")
}

/// One minor unit from the first account to the second.
fn wire() -> message::Transfer {
    message::Transfer {
        id: 44.into(),
        debit_account_id: account_id(1).into(),
        credit_account_id: account_id(2).into(),
        amount: 1.into(),
        currency: 978.into(),
        code: 1.into(),
        kind: TransferKind::Transfer as u8,
        ..message::Transfer::new_zeroed()
    }
}

/// A customer's account with a limit on its debits and one for the day, and plenty of money.
fn account(local: u128) -> Account {
    let open = message::AccountOpen {
        id: account_id(local).into(),
        owner: OWNER.into(),
        day_limit: (u64::MAX - 1).into(),
        currency: 978.into(),
        code: 1.into(),
        flags: account_flags::DEBITS_LIMITED.into(),
        kind: AccountKind::Customer as u8,
        ..message::AccountOpen::new_zeroed()
    };
    match open_account(&open, None, BRANCH, NOW) {
        Ok(Opened::New(mut account)) => {
            account.sums.credits_posted = Amount::new(1_000_000_000_000_000);
            account
        }
        other => panic!("{other:?}"),
    }
}

fn account_id(local: u128) -> u128 {
    AccountId::of_branch(BRANCH, local).get()
}
