//! That the comparison finds every kind of damage, and that a cut adds up the same whatever checkpoint it begins from.

use std::collections::BTreeMap;

use tally_protocol::message::TransferKind;
use tally_protocol::{
    AccountId, AccountKind, Amount, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};

use super::*;
use crate::account::{Account, Sums};
use crate::hold::Hold;
use crate::journal::record::{AccountChange, Record, RecordBody, TransferRecord};
use crate::leg::Leg;
use crate::replay::RecordEffect;

const A: BranchId = BranchId::new(1);
const B: BranchId = BranchId::new(2);
const EUR: Currency = Currency::EUR;

fn side(posted: u128) -> Side {
    Side { posted, early: 0, late: 0 }
}

/// A branch that balances: its customers paid `sent` to `peer` and got `received` from there.
fn books(branch: BranchId, peer: BranchId, sent: u128, received: u128) -> BranchBooks {
    let posted = 1_000 + sent + received;
    let totals = Totals { accounts: 3, debits_posted: posted, credits_posted: posted, ..Totals::default() };
    BranchBooks {
        branch,
        currencies: BTreeMap::from([(EUR, totals)]),
        settlements: BTreeMap::from([((peer, EUR), Settlement { debits: side(received), credits: side(sent) })]),
        open: Vec::new(),
    }
}

fn leg(id: u128, peer: BranchId, amount: u64, is_outgoing: bool) -> OpenLeg {
    let (id, amount) = (TransferId::new(id), Amount::new(amount));
    OpenLeg { id, decided_under: id, peer, currency: EUR, amount, is_outgoing, is_hold: false }
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let euros = |books: &mut BranchBooks| *books.currencies.get(&EUR).expect("euros");
    let pair = |source, destination, sent, received| {
        Finding::MirrorDiffers(Pair { source, destination, currency: EUR, sent, received })
    };
    type Damage = fn(&mut [BranchBooks; 2], &mut Committed);
    let table: [(&str, Damage, Vec<Finding>); 14] = [
        ("nothing", |_, _| {}, vec![]),
        (
            "a cent too much on an account",
            |books, _| books[0].currencies.get_mut(&EUR).expect("euros").credits_posted += 1,
            vec![
                Finding::Unbalanced { branch: Some(A), currency: EUR, what: "posted", debits: 1_050, credits: 1_051 },
                Finding::Unbalanced { branch: None, currency: EUR, what: "posted", debits: 2_100, credits: 2_101 },
            ],
        ),
        (
            "two branches off by the same, in opposite directions",
            |books, _| {
                books[0].currencies.get_mut(&EUR).expect("euros").credits_posted += 1;
                books[1].currencies.get_mut(&EUR).expect("euros").debits_posted += 1;
            },
            vec![
                Finding::Unbalanced { branch: Some(A), currency: EUR, what: "posted", debits: 1_050, credits: 1_051 },
                Finding::Unbalanced { branch: Some(B), currency: EUR, what: "posted", debits: 1_051, credits: 1_050 },
            ],
        ),
        (
            "held on one side only",
            |books, _| {
                let euros = books[1].currencies.get_mut(&EUR).expect("euros");
                (euros.debits_held, euros.holds) = (5, 5);
            },
            vec![
                Finding::Unbalanced { branch: Some(B), currency: EUR, what: "held", debits: 5, credits: 0 },
                Finding::Unbalanced { branch: None, currency: EUR, what: "held", debits: 5, credits: 0 },
            ],
        ),
        (
            "money held for a hold that is gone",
            |books, _| {
                let euros = books[0].currencies.get_mut(&EUR).expect("euros");
                (euros.debits_held, euros.credits_held) = (7, 7);
            },
            vec![Finding::HoldsDiffer { branch: A, currency: EUR, held: 7, holds: 0 }],
        ),
        (
            "balanced, but sent to nobody",
            |books, _| books[0].settlements.get_mut(&(B, EUR)).expect("there").credits.posted += 1,
            vec![pair(A, B, 31, 30)],
        ),
        (
            "received twice",
            |books, _| books[1].settlements.get_mut(&(A, EUR)).expect("there").debits.posted += 30,
            vec![pair(A, B, 30, 60)],
        ),
        (
            "a settlement account that is gone",
            |books, _| books[1].settlements.clear(),
            vec![pair(A, B, 30, 0), pair(B, A, 0, 20)],
        ),
        (
            "open on both sides, undecided",
            |books, _| {
                books[0].open.push(leg(9, B, 5, true));
                books[1].open.push(leg(9, A, 5, false));
            },
            vec![],
        ),
        (
            "open on both sides, committed",
            |books, committed| {
                books[0].open.push(leg(9, B, 5, true));
                books[1].open.push(leg(9, A, 5, false));
                committed.insert((TransferId::new(9), A, B), Amount::new(5));
            },
            vec![],
        ),
        (
            "open at its source, posted at its destination, committed",
            |books, committed| {
                books[0].open.push(leg(9, B, 5, true));
                books[1].settlements.get_mut(&(A, EUR)).expect("there").debits.posted += 5;
                committed.insert((TransferId::new(9), A, B), Amount::new(5));
            },
            vec![],
        ),
        (
            "open at its source, posted at its destination, and never committed",
            |books, _| {
                books[0].open.push(leg(9, B, 5, true));
                books[1].settlements.get_mut(&(A, EUR)).expect("there").debits.posted += 5;
            },
            vec![pair(A, B, 30, 35)],
        ),
        (
            "posted behind the cut at one, before it at the other",
            |books, _| {
                books[0].settlements.get_mut(&(B, EUR)).expect("there").credits.late += 5;
                books[1].settlements.get_mut(&(A, EUR)).expect("there").debits.posted += 5;
            },
            vec![],
        ),
        (
            "posted before it was decided",
            |books, _| {
                let side = &mut books[1].settlements.get_mut(&(A, EUR)).expect("there").debits;
                (side.posted, side.early) = (side.posted + 5, 5);
            },
            vec![],
        ),
    ];
    for (what, damage, expected) in table {
        let mut both = [books(A, B, 30, 20), books(B, A, 20, 30)];
        assert_eq!(euros(&mut both[0]).accounts, 3);
        let mut committed = BTreeMap::new();
        damage(&mut both, &mut committed);
        assert_eq!(compare(&both, &committed).findings, expected, "{what}");
    }
}

#[test]
fn a_branch_that_is_not_there_leaves_its_mirror_unmatched() {
    let report = compare(&[books(A, B, 30, 20)], &BTreeMap::new());
    assert_eq!((report.unmatched, report.pairs, report.findings), (vec![(A, B, EUR)], vec![], vec![]));
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A branch and everything that it went through: the state after each record.
struct History {
    records: Vec<Record>,
    states: Vec<(BTreeMap<AccountId, Account>, BTreeMap<TransferId, Hold>)>,
}

fn account(id: AccountId) -> Account {
    Account { id, ..crate::cash_account(A, EUR, Timestamp::default()) }
}

const fn lsn(index: usize) -> Lsn {
    Lsn::new(64 * (index as u64 + 1))
}

/// Record `index` is stamped so.
const fn stamp(index: usize) -> Timestamp {
    Timestamp::from_nanos(10 * (index as u64 + 1))
}

impl History {
    fn new(dice: &mut Dice, len: usize) -> Self {
        let mut history = Self { records: Vec::new(), states: Vec::new() };
        let customers: Vec<AccountId> = (1..4).map(|local| AccountId::of_branch(A, local)).collect();
        let settlement = AccountId::of_settlement(A, B, EUR);
        for id in customers.iter().copied().chain([settlement]) {
            history.push(RecordBody::Account(AccountChange::Opened, account(id)));
        }
        while history.records.len() < len {
            let index = history.records.len();
            let customer = customers[dice.roll(3) as usize];
            let other = AccountId::of_house(A, AccountKind::Cash, EUR);
            if index == 4 {
                history.push(RecordBody::Account(AccountChange::Opened, account(other)));
                continue;
            }
            let amount = 1 + dice.roll(9);
            let id = TransferId::new(index as u128 + 1);
            let open: Vec<Hold> = history.states[index - 1].1.values().copied().collect();
            let (leg, kind, debit, credit) = match dice.roll(6) {
                0 => (Leg::Whole, TransferKind::Transfer, other, customer),
                1 => (Leg::Whole, TransferKind::Hold, customer, other),
                2 => (Leg::Source, TransferKind::Transfer, customer, settlement),
                3 => (Leg::Destination, TransferKind::Transfer, settlement, customer),
                _ if open.is_empty() => continue,
                _ => {
                    let hold = open[dice.roll(open.len() as u64) as usize];
                    history.end(&hold, dice.roll(3) == 0, dice.roll(40));
                    continue;
                }
            };
            history.move_money(id, (leg, kind), (debit, credit), amount);
        }
        history
    }

    fn sums(&self, id: AccountId) -> Sums {
        self.states.last().expect("accounts were opened").0[&id].sums
    }

    fn move_money(
        &mut self,
        id: TransferId,
        (leg, kind): (Leg, TransferKind),
        (debit, credit): (AccountId, AccountId),
        amount: u64,
    ) {
        let (mut debits, mut credits) = (self.sums(debit), self.sums(credit));
        let grown = |sum: Amount| sum.checked_add(Amount::new(amount)).expect("small");
        if leg.is_part() || kind == TransferKind::Hold {
            (debits.debits_held, credits.credits_held) = (grown(debits.debits_held), grown(credits.credits_held));
        } else {
            (debits.debits_posted, credits.credits_posted) =
                (grown(debits.debits_posted), grown(credits.credits_posted));
        }
        self.push(RecordBody::Transfer(record(id, (leg, kind), (debit, credit), amount, (debits, credits))));
    }

    /// Ends a hold: given back, or posted. A leg's decision is `before` its record.
    fn end(&mut self, hold: &Hold, is_given_back: bool, before: u64) {
        let (debit, credit, amount) = (hold.debit_account_id, hold.credit_account_id, hold.amount);
        let (mut debits, mut credits) = (self.sums(debit), self.sums(credit));
        debits.debits_held = debits.debits_held.checked_sub(amount).expect("held");
        credits.credits_held = credits.credits_held.checked_sub(amount).expect("held");
        if !is_given_back {
            debits.debits_posted = debits.debits_posted.checked_add(amount).expect("small");
            credits.credits_posted = credits.credits_posted.checked_add(amount).expect("small");
        }
        let moved = if is_given_back { 0 } else { amount.get() };
        let accounts = (debit, credit);
        let index = self.records.len();
        if hold.leg.is_part() {
            let kind = (hold.leg, TransferKind::Transfer);
            let at = Timestamp::from_nanos(stamp(index).as_nanos() - before.min(stamp(index).as_nanos() - 1));
            let ended = record(hold.id, kind, accounts, moved, (debits, credits)).decided(at);
            self.push(RecordBody::Decided(is_given_back.then_some(Refusal::TransferAborted), ended));
        } else {
            let kind = if is_given_back { TransferKind::Void } else { TransferKind::Settle };
            let id = TransferId::new(index as u128 + 1);
            let ended = record(id, (Leg::Whole, kind), accounts, moved, (debits, credits));
            self.push(RecordBody::Transfer(TransferRecord { reference: hold.id, ..ended }));
        }
    }

    fn push(&mut self, body: RecordBody) {
        let index = self.records.len();
        let (lsn, timestamp) = (lsn(index), stamp(index));
        let record = Record { lsn, timestamp, actor: CustomerId::BANK, body };
        let (mut accounts, mut holds) = self.states.last().cloned().unwrap_or_default();
        match &record.body {
            RecordBody::Account(_, account) => drop(accounts.insert(account.id, Account { lsn, ..account.clone() })),
            RecordBody::Transfer(transfer)
            | RecordBody::Decided(_, transfer)
            | RecordBody::Expired(transfer)
            | RecordBody::Rehomed(transfer) => {
                for (id, sums) in
                    [(transfer.debit_account_id, transfer.debit), (transfer.credit_account_id, transfer.credit)]
                {
                    let account = accounts.get_mut(&id).expect("opened");
                    (account.sums, account.lsn) = (sums, lsn);
                }
            }
            RecordBody::Cancelled(_) => {}
        }
        match RecordEffect::of(&record.body, lsn, timestamp) {
            RecordEffect::HoldOpened(hold) => drop(holds.insert(hold.id, hold)),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => drop(holds.remove(&id)),
            RecordEffect::HoldRehomed { .. } | RecordEffect::HoldJoining(..) => unreachable!("no account moves here"),
            RecordEffect::HoldKept(_) | RecordEffect::Reversed(_) | RecordEffect::None => {}
        }
        self.records.push(record);
        self.states.push((accounts, holds));
    }

    /// The books by the state as it was, and by looking at every decision of the whole history.
    fn expected(&self, cut: Timestamp) -> BranchBooks {
        let last = self.records.iter().rposition(|record| record.timestamp <= cut).expect("accounts are older");
        let (accounts, holds) = &self.states[last];
        let mut expected = BranchBooks { branch: A, ..BranchBooks::default() };
        for account in accounts.values() {
            expected.currencies.entry(EUR).or_default().add(&account.sums);
        }
        let settlement = accounts[&AccountId::of_settlement(A, B, EUR)].sums;
        let side = |sum: Amount| Side { posted: u128::from(sum.get()), ..Side::default() };
        let both = Settlement { debits: side(settlement.debits_posted), credits: side(settlement.credits_posted) };
        expected.settlements.insert((B, EUR), both);
        for hold in holds.values() {
            expected.currencies.get_mut(&EUR).expect("euros").holds += u128::from(hold.amount.get());
            let Some(leg) = OpenLeg::of(hold) else { continue };
            let decided = self.records[last + 1..].iter().find_map(|record| match &record.body {
                RecordBody::Decided(refusal, of) if of.id == hold.id => Some((*refusal, of.decided_at())),
                _ => None,
            });
            match decided {
                None => expected.open.push(leg),
                Some((None, at)) if at <= cut => {
                    let side = expected.side_of(hold.debit_account_id, hold.credit_account_id, EUR).expect("a leg");
                    side.late += u128::from(leg.amount.get());
                }
                Some(_) => {}
            }
        }
        expected
    }
}

fn record(
    id: TransferId,
    (leg, kind): (Leg, TransferKind),
    (debit_account_id, credit_account_id): (AccountId, AccountId),
    amount: u64,
    (debit, credit): (Sums, Sums),
) -> TransferRecord {
    TransferRecord {
        id,
        debit_account_id,
        credit_account_id,
        amount_asked: Amount::new(amount),
        amount: Amount::new(amount),
        day_spent: Amount::ZERO,
        day: 0,
        debit,
        credit,
        code: 1,
        currency: EUR.get(),
        flags: 0,
        refusal: None,
        status: crate::StatusChange::NONE,
        kind,
        leg,
        given: 0,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
        chain: None,
    }
}

#[test]
fn a_cut_is_the_same_from_every_checkpoint() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let history = History::new(&mut dice, 40 + seed as usize % 40);
        let len = history.records.len();
        let at = 5 + dice.roll(len as u64 - 5) as usize;
        let expected = history.expected(stamp(at));
        for has_checkpoint in [false, true] {
            // Everything in it is from somewhere between these two, each account and hold by itself.
            let from = if has_checkpoint { dice.roll(at as u64) as usize } else { 0 };
            let until = from + if has_checkpoint { dice.roll((at - from) as u64 + 1) as usize } else { 0 };
            let mut cut = Cut::new(A, stamp(at), if has_checkpoint { lsn(until + 1) } else { Lsn::ZERO });
            let behind = history.records[from..].iter().position(|record| !cut.before(record));
            if has_checkpoint {
                let mut caught = || &history.states[from + dice.roll((until - from) as u64 + 1) as usize];
                let ids: Vec<AccountId> = history.states[until].0.keys().copied().collect();
                ids.iter().filter_map(|id| caught().0.get(id)).for_each(|account| cut.account(account));
                let holds: Vec<TransferId> = (0..=len as u128).map(TransferId::new).collect();
                holds.iter().filter_map(|id| caught().1.get(id)).for_each(|hold| cut.hold(*hold));
            }
            cut.close();
            let behind = behind.map_or(len, |behind| from + behind);
            history.records[behind..].iter().for_each(|record| cut.after(record));
            assert_eq!(cut.books(), expected, "seed {seed}, cut at {at}, checkpoint {has_checkpoint} {from}..{until}");
            assert_eq!(cut.has_open(), !expected.open.is_empty());
        }
    }
}

#[test]
fn what_was_posted_before_it_was_decided_does_not_count() {
    let mut history = History::new(&mut Dice(1), 5);
    let (payer, settlement) = (AccountId::of_branch(A, 1), AccountId::of_settlement(A, B, EUR));
    let id = TransferId::new(77);
    history.move_money(id, (Leg::Source, TransferKind::Transfer), (payer, settlement), 8);
    let hold = history.states[5].1[&id];
    history.end(&hold, false, 0);
    // The registry's clock is ahead of ours: our record is older than the decision that it carries out.
    let RecordBody::Decided(_, decided) = &mut history.records[6].body else { panic!("the decision") };
    *decided = decided.decided(Timestamp::from_nanos(stamp(6).as_nanos() + 1_000));
    let mut cut = Cut::new(A, stamp(6), Lsn::ZERO);
    assert!(history.records.iter().all(|record| cut.before(record)));
    cut.close();
    let credits = cut.books().settlements[&(B, EUR)].credits;
    assert_eq!((credits.posted, credits.early, credits.counted()), (8, 8, 0));
}

#[test]
fn a_hold_between_branches_counts_as_its_payer_has_ended_it() {
    let settlement = AccountId::of_settlement(A, B, EUR);
    let customer = AccountId::of_branch(A, 1);
    let id = TransferId::new(77);
    // At the payee's branch: held, let stand, and settled in part; its payer's branch settled it at `ended_at`.
    let payee = |ended_at: Timestamp, is_read_on: bool| {
        let mut history = History::new(&mut Dice(1), 5);
        history.move_money(id, (Leg::Destination, TransferKind::Hold), (settlement, customer), 8);
        let held = (history.sums(settlement), history.sums(customer));
        let kept = record(id, (Leg::Destination, TransferKind::Hold), (settlement, customer), 0, held);
        history.push(RecordBody::Decided(None, kept.decided(stamp(6))));
        let (mut debits, mut credits) = held;
        (debits.debits_held, credits.credits_held) = (Amount::ZERO, Amount::ZERO);
        (debits.debits_posted, credits.credits_posted) = (Amount::new(5), Amount::new(5));
        let settled =
            record(id, (Leg::Destination, TransferKind::Settle), (settlement, customer), 5, (debits, credits));
        history.push(RecordBody::Decided(None, settled.decided(ended_at)));
        let mut cut = Cut::new(A, stamp(6), Lsn::ZERO);
        assert_eq!(history.records.iter().position(|record| !cut.before(record)), Some(7));
        cut.close();
        if is_read_on {
            cut.after(&history.records[7]);
        }
        cut.books()
    };
    let late = |books: &BranchBooks| books.settlements[&(B, EUR)].debits.late;
    let books = payee(stamp(6), true);
    assert_eq!((late(&books), books.open.len()), (5, 0), "ended by the cut, and heard of it later");
    let books = payee(stamp(7), true);
    assert_eq!((late(&books), books.open.len()), (0, 0), "ended behind the cut");
    let books = payee(stamp(6), false);
    assert!(books.open[0].is_hold && !books.open[0].is_outgoing && late(&books) == 0, "not heard of it yet");

    // At the payer's branch, its record is the end, and says how much.
    let mut history = History::new(&mut Dice(1), 5);
    history.move_money(id, (Leg::Source, TransferKind::Hold), (customer, settlement), 8);
    let (mut debits, mut credits) = (history.sums(customer), history.sums(settlement));
    (debits.debits_held, credits.credits_held) = (Amount::ZERO, Amount::ZERO);
    (debits.debits_posted, credits.credits_posted) = (Amount::new(5), Amount::new(5));
    let settled =
        record(TransferId::new(78), (Leg::Whole, TransferKind::Settle), (customer, settlement), 5, (debits, credits));
    history.push(RecordBody::Transfer(TransferRecord { reference: id, ..settled }));
    for (at, posted, ended_with) in [(stamp(5), 0, 0), (stamp(6), 5, 5)] {
        let mut cut = Cut::new(A, at, Lsn::ZERO);
        history.records.iter().all(|record| cut.before(record));
        cut.close();
        let books = cut.books();
        assert_eq!(books.settlements[&(B, EUR)].credits.counted(), posted);
        assert_eq!((cut.ended_with(id, B), books.open.len()), (Amount::new(ended_with), 0));
        assert_eq!(cut.ended_with(id, A), Amount::ZERO, "towards another branch");
    }
}
