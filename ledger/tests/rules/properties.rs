//! Random histories. The bank of `bank.rs` checks conservation, limits, holds and "one id, one effect" after
//! every event; here the states are compared with a second, naive book-keeping, and with replays.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tally_ledger::journal::record::{RecordBody, TransferRecord};
use tally_ledger::{
    Account, Actor, Outcome, Reference, Sums, Transfer, check, decide, effective_accounts, transfer_record,
};
use tally_protocol::message::{self, Role, TransferKind, account_flags};
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Timestamp, TransferId};
use zerocopy::{FromBytes, FromZeros};

use crate::bank::{BRANCH, Bank};
use crate::table::{START, account_id};

/// Few ids, so that repeats and references hit.
const IDS: u128 = 48;

#[derive(Clone, Debug)]
enum Event {
    Transfer(message::Transfer, Actor),
    Chain(Vec<message::Transfer>, Actor),
    Batch(Vec<message::Transfer>, Actor),
    Cancel(u128),
    Freeze(AccountId),
    Unfreeze(AccountId),
    Close(AccountId),
    Limits(AccountId, u64, u64),
    Clock(u64),
    Expire,
}

/// What each account may do: enough kinds that every rule is met.
const ACCOUNTS: &[&str] = &[
    "A1 limited owner=7 overdraft=50 day-limit=400",
    "A2 limited owner=8",
    "A3 credit-limited owner=8",
    "A4 owner=7 day-limit=100",
    "A5",
    "A6 currency=USD owner=7",
];

fn any_account() -> impl Strategy<Value = AccountId> {
    // A9 does not exist.
    prop_oneof![9 => 1u8..=6, 1 => Just(9u8)].prop_map(|local| account_id(&format!("A{local}")))
}

fn any_amount() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..=40, 2 => 0u64..=300, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2)]
}

fn any_actor() -> impl Strategy<Value = Actor> {
    let role = prop_oneof![4 => Just(Role::Teller), 2 => Just(Role::Customer), 1 => Just(Role::Auditor)];
    (role, 7u64..=8).prop_map(|(role, customer)| Actor { role, customer: CustomerId::new(customer) })
}

fn any_transfer() -> impl Strategy<Value = message::Transfer> {
    let kind = prop_oneof![
        3 => Just(TransferKind::Transfer),
        2 => Just(TransferKind::Deposit),
        1 => Just(TransferKind::Withdraw),
        3 => Just(TransferKind::Hold),
        3 => Just(TransferKind::Settle),
        2 => Just(TransferKind::Void),
        2 => Just(TransferKind::Reverse),
    ];
    let flags = prop_oneof![6 => Just(0u16), 1 => 0u16..32, 1 => Just(1 << 15)];
    let ids = (1..=IDS, 1..=IDS);
    (kind, ids, any_account(), any_account(), any_amount(), flags, 0u32..4, prop::bool::weighted(0.9)).prop_map(
        |(kind, (id, reference), debit, credit, amount, flags, timeout_s, is_euro)| {
            let takes_reference = matches!(kind, TransferKind::Settle | TransferKind::Void | TransferKind::Reverse);
            let mut wire = message::Transfer { id: id.into(), kind: kind as u8, ..message::Transfer::new_zeroed() };
            wire.flags = flags.into();
            if takes_reference {
                wire.reference = reference.into();
                wire.amount = if kind == TransferKind::Settle { amount } else { 0 }.into();
                return wire;
            }
            let currency = if is_euro { Currency::EUR } else { Currency::USD };
            wire.currency = currency.get().into();
            wire.code = 1.into();
            wire.amount = amount.into();
            if kind != TransferKind::Deposit {
                wire.debit_account_id = debit.get().into();
            }
            if kind != TransferKind::Withdraw {
                wire.credit_account_id = credit.get().into();
            }
            if kind == TransferKind::Hold {
                wire.timeout_s = timeout_s.into();
            }
            wire
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    let transfers = || prop::collection::vec(any_transfer(), 1..6);
    prop_oneof![
        24 => (any_transfer(), any_actor()).prop_map(|(transfer, actor)| Event::Transfer(transfer, actor)),
        6 => (transfers(), any_actor()).prop_map(|(transfers, actor)| Event::Chain(transfers, actor)),
        4 => (transfers(), any_actor()).prop_map(|(transfers, actor)| Event::Batch(transfers, actor)),
        1 => (1..=IDS).prop_map(Event::Cancel),
        1 => any_account().prop_map(Event::Freeze),
        2 => any_account().prop_map(Event::Unfreeze),
        1 => any_account().prop_map(Event::Close),
        1 => (any_account(), 0u64..200, 0u64..500).prop_map(|(id, overdraft, day)| Event::Limits(id, overdraft, day)),
        2 => prop_oneof![Just(1_000_000_000), Just(40_000_000_000_000), Just(86_400_000_000_000)].prop_map(Event::Clock),
        2 => Just(Event::Expire),
    ]
}

fn begin() -> Bank {
    let mut runner = crate::table::Runner::new();
    for account in ACCOUNTS {
        let answer = runner.event(&format!("account {account}"));
        assert!(answer.refusal.is_none(), "{account}");
    }
    runner.bank
}

fn happen(bank: &mut Bank, event: &Event) {
    match event {
        Event::Transfer(wire, actor) => drop(bank.transfer(wire, actor)),
        Event::Chain(wires, actor) => drop(bank.chain(wires, actor)),
        Event::Batch(wires, actor) => drop(bank.batch(wires, actor)),
        Event::Cancel(id) => drop(bank.cancel(TransferId::new(*id))),
        Event::Freeze(id) => drop(bank.freeze(*id)),
        Event::Unfreeze(id) => drop(bank.unfreeze(*id)),
        Event::Close(id) => drop(bank.close(*id)),
        Event::Limits(id, overdraft, day_limit) => {
            let (overdraft, day_limit) = ((*overdraft).into(), (*day_limit).into());
            let wire = message::LimitsSet { id: id.get().into(), overdraft, day_limit };
            let _refused_or_done = bank.limits(&wire);
        }
        Event::Clock(nanos) => bank.now = Timestamp::from_nanos(bank.now.as_nanos() + nanos),
        Event::Expire => bank.expire(),
    }
}

/// A second set of books, kept from what the records say was moved, in 128 bits and without any rule.
#[derive(Default)]
struct NaiveBooks {
    sums: BTreeMap<AccountId, [i128; 4]>,
    spent: BTreeMap<(AccountId, u32), i128>,
    holds: BTreeMap<TransferId, (TransferRecord, u32)>,
}

impl NaiveBooks {
    fn of(bank: &Bank) -> Self {
        let mut books = Self::default();
        for record in &bank.log {
            match &record.body {
                RecordBody::Transfer(of) if of.refusal.is_none() => books.post(of, record.timestamp.day()),
                RecordBody::Expired(of) => books.end(of.id, 0),
                RecordBody::Decided(..) | RecordBody::Rehomed(_) => unreachable!("this branch stands alone"),
                RecordBody::Transfer(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => {}
            }
        }
        books
    }

    fn add(&mut self, debit: AccountId, credit: AccountId, held: i128, posted: i128) {
        let sums = self.sums.entry(debit).or_default();
        (sums[0], sums[1]) = (sums[0] + held, sums[1] + posted);
        let sums = self.sums.entry(credit).or_default();
        (sums[2], sums[3]) = (sums[2] + held, sums[3] + posted);
    }

    fn post(&mut self, of: &TransferRecord, day: u32) {
        let (debit, credit, amount) = (of.debit_account_id, of.credit_account_id, of.amount.get() as i128);
        match of.kind {
            TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw => {
                self.add(debit, credit, 0, amount);
                *self.spent.entry((debit, day)).or_default() += amount;
            }
            TransferKind::Reverse => self.add(debit, credit, 0, amount),
            TransferKind::Hold => {
                self.add(debit, credit, amount, 0);
                *self.spent.entry((debit, day)).or_default() += amount;
                self.holds.insert(of.id, (*of, day));
            }
            TransferKind::Settle => self.end(of.reference, amount),
            TransferKind::Void => self.end(of.reference, 0),
        }
    }

    fn end(&mut self, id: TransferId, posted: i128) {
        let (hold, day) = self.holds.remove(&id).expect("only open holds end");
        let held = hold.amount.get() as i128;
        self.add(hold.debit_account_id, hold.credit_account_id, -held, posted);
        *self.spent.entry((hold.debit_account_id, day)).or_default() -= held - posted;
    }

    fn agree_with(&self, bank: &Bank) {
        for account in bank.accounts.values() {
            let Sums { debits_held, debits_posted, credits_held, credits_posted } = account.sums;
            let sums = [debits_held, debits_posted, credits_held, credits_posted].map(|sum| sum.get() as i128);
            assert_eq!(sums, self.sums.get(&account.id).copied().unwrap_or_default(), "{}", account.id);
            let spent = self.spent.get(&(account.id, bank.now.day())).copied().unwrap_or_default();
            assert_eq!(account.spent_on_day_of(bank.now).get() as i128, spent, "day of {}", account.id);
        }
        assert!(self.holds.keys().eq(bank.holds.keys()), "the same holds are open");
    }
}

fn any_sums() -> impl Strategy<Value = Sums> {
    // Mostly near one of the ends, where sums overflow and limits bind.
    let near = || prop_oneof![0u64..100, Just(0), (0u64..100).prop_map(|less| u64::MAX - less), any::<u64>()];
    (near(), near(), near(), near()).prop_map(|(debits_held, debits_posted, credits_held, credits_posted)| Sums {
        debits_held: Amount::new(debits_held.min(u64::MAX - debits_posted)),
        debits_posted: Amount::new(debits_posted),
        credits_held: Amount::new(credits_held.min(u64::MAX - credits_posted)),
        credits_posted: Amount::new(credits_posted),
    })
}

fn any_state_of_an_account(local: u128) -> impl Strategy<Value = Account> {
    let limits = (any::<u64>(), any::<u64>(), any::<u64>(), 0u32..4);
    (any_sums(), limits, 0u16..3, 1u8..=4, 7u64..=8).prop_map(
        move |(sums, (overdraft, day_limit, day_spent, day), flags, status, owner)| Account {
            id: AccountId::of_branch(BRANCH, local),
            owner: CustomerId::new(owner),
            user_data_128: 0,
            user_data_64: 0,
            user_data_32: 0,
            currency: Currency::EUR,
            code: 1,
            flags: flags & account_flags::ALL,
            kind: AccountKind::Customer,
            status: AccountStatus::from_wire(status).expect("1 to 4"),
            overdraft: Amount::new(overdraft),
            day_limit: Amount::new(day_limit),
            day_spent: Amount::new(day_spent).min(sums.debits()),
            day,
            sums,
            opened_at: START,
            lsn: Lsn::ZERO,
            timestamp: START,
            residence: tally_ledger::Residence::default(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: both sets of books agree, and replay gives the state that was served, from nothing
    /// and from a checkpoint of which every account was saved at another moment.
    #[test]
    fn random_histories_keep_the_books(
        events in prop::collection::vec(any_event(), 1..80),
        saved_at in prop::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        let mut bank = begin();
        let mut states = vec![bank.clone()];
        for event in &events {
            happen(&mut bank, event);
            NaiveBooks::of(&bank).agree_with(&bank);
            states.push(bank.clone());
        }
        prop_assert_eq!(bank.replay(0, BTreeMap::new(), BTreeMap::new()), bank.hash());

        let ids: Vec<AccountId> = bank.accounts.keys().copied().collect();
        let moments: Vec<usize> = saved_at.iter().map(|index| index.index(states.len())).collect();
        let of_account = |i: usize| &states[moments[i % moments.len()]];
        let accounts: BTreeMap<AccountId, Account> = ids
            .iter()
            .enumerate()
            .filter_map(|(i, id)| of_account(i).accounts.get(id).map(|account| (*id, account.clone())))
            .collect();
        let holds = &states[*moments.iter().min().expect("sixteen moments")];
        let from = holds.log.len();
        prop_assert_eq!(bank.replay(from, accounts, holds.holds.clone()), bank.hash());
    }

    /// The same events give the same state and the same answers.
    #[test]
    fn the_rules_are_a_function(events in prop::collection::vec(any_event(), 1..40)) {
        let (mut one, mut other) = (begin(), begin());
        for event in &events {
            happen(&mut one, event);
            happen(&mut other, event);
        }
        prop_assert_eq!(one.log, other.log);
        prop_assert_eq!(one.accounts, other.accounts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make reading a transfer panic, and what is read is written back the same.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), message::Transfer::LEN_BYTES),
        tame in any::<[bool; 4]>(),
    ) {
        // The last fields are tamed now and then, or nothing would get past the first checks.
        for (is_tame, (at, most)) in tame.into_iter().zip([(108, 8), (109, 1), (110, 8), (111, 1)]) {
            if is_tame {
                bytes[at] %= most;
            }
        }
        let wire = message::Transfer::read_from_bytes(&bytes).expect("the length fits");
        match Transfer::from_wire(&wire, BRANCH) {
            Ok(transfer) => prop_assert_eq!(transfer.to_wire(), wire),
            Err(refusal) => prop_assert!(!refusal.consumes_id(), "{refusal} is recorded"),
        }
    }

    /// Accounts in any valid state, near the limits of their sums too: never a panic, never an invalid
    /// state, never a step beyond a limit; and a refusal changes nothing.
    #[test]
    fn any_state_stays_valid(
        mut wire in any_transfer(),
        amount in any::<u64>(),
        debit in any_state_of_an_account(1),
        credit in any_state_of_an_account(2),
        actor in any_actor(),
        now in 0u64..400_000_000_000_000,
    ) {
        wire.amount = amount.max(1).into();
        wire.debit_account_id = debit.id.get().into();
        wire.credit_account_id = credit.id.get().into();
        let now = Timestamp::from_nanos(now.max(debit.day as u64 * 86_400_000_000_000));
        let Ok(transfer) = Transfer::from_wire(&wire, BRANCH) else { return Ok(()) };
        if effective_accounts(&transfer, &Reference::NotGiven, BRANCH).is_err() {
            return Ok(());
        }
        let outcome = decide(&transfer, &Reference::NotGiven, Some(&debit), Some(&credit), &actor, now);
        let record = transfer_record(&transfer, &Reference::NotGiven, BRANCH, &outcome);
        let (mut debit_after, mut credit_after) = (debit.clone(), credit.clone());
        outcome.apply(&mut debit_after, &mut credit_after, Lsn::new(8), now);
        match outcome {
            Outcome { refusal: Some(refusal), .. } => {
                prop_assert!(refusal.consumes_id());
                prop_assert_eq!((&debit_after, &credit_after), (&debit, &credit));
                prop_assert_eq!(record.amount, Amount::ZERO);
            }
            Outcome { refusal: None, .. } => {
                check::step(&debit, &debit_after).expect("no limit passed");
                check::step(&credit, &credit_after).expect("no limit passed");
                let moved = |after: Amount, before: Amount| after.get() - before.get();
                prop_assert_eq!(moved(debit_after.sums.debits(), debit.sums.debits()), outcome.amount.get());
                prop_assert_eq!(moved(credit_after.sums.credits(), credit.sums.credits()), outcome.amount.get());
            }
        }
    }
}
