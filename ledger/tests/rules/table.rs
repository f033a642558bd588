//! Rules as tables: one line is one event and its expected answer.
//!
//! ```text
//! ## A sentence: what the group shows. Each group starts with an empty branch.
//! account A1 limited overdraft=50                  an account; flags: limited, credit-limited, linked, frozen, closed
//!                                                  (opened so), imported=-1d (its own time, from the beginning of 2026)
//! put A1 0 0 0 100                                 sums by hand: debits held, posted; credits held, posted
//! transfer T1 A1 A2 30 code=7 linked -> ok         id, debit, credit, amount; then whatever else is set
//! deposit T2 A1 5 -> ok                            withdraw likewise; hold as transfer
//! settle T4 T3 20 -> ok 20                         id, hold, amount (0: all); void, reverse likewise
//! batch ... end                                    the lines between go together (transfers, or accounts); also: chain
//! opened A1 -1d                                    when it was opened, from the beginning of 2026
//! sums A1 0 30 0 100                               what must be there
//! ```
//!
//! Expected answers: `ok`, `ok AMOUNT`, `again` (a repeat that was done), `again NAME` (a repeated refusal), or
//! the NAME of a refusal; nothing means `ok`, of a line that only prepares. `//` begins a comment.

use std::collections::BTreeSet;

use tally_ledger::{Actor, Sums};
use tally_protocol::message::{self, Role, TransferKind, TransferState, account_flags, transfer_flags};
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Refusal, Timestamp, TransferId,
};
use zerocopy::FromZeros;

use crate::bank::{Answer, BRANCH, Bank};

/// 2026-01-01 00:00 UTC.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);

/// What a run of a table saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Lines with an expectation.
    pub(crate) cases: usize,
    /// Every refusal that was answered.
    pub(crate) refusals: BTreeSet<Refusal>,
}

/// Runs every group of a table.
///
/// # Panics
/// With the line, when an answer is not the expected one.
pub(crate) fn run(name: &str, text: &str, seen: &mut Seen) {
    let mut runner: Option<Runner> = None;
    for (index, line) in text.lines().enumerate() {
        let place = format!("{name}:{}: {line}", index + 1);
        let line = line.split("//").next().expect("the part before a comment").trim();
        if line.starts_with("## ") {
            runner.take().into_iter().for_each(Runner::finish);
            runner = Some(Runner::new());
        } else if !line.is_empty() && !line.starts_with('#') {
            let runner = runner.as_mut().unwrap_or_else(|| panic!("{place}: before the first group"));
            runner.line(line, &place, seen);
        }
    }
    runner.into_iter().for_each(Runner::finish);
}

#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) bank: Bank,
    /// Since `batch` or `chain` (true).
    gathered: Option<(bool, Vec<Gathered>)>,
}

/// An entry that goes together with its neighbours, what it should answer, and where it stands.
#[derive(Clone)]
struct Gathered {
    wire: Wire,
    expected: String,
    place: String,
}

#[derive(Clone)]
enum Wire {
    Transfer(message::Transfer, Actor),
    Account(message::AccountOpen),
}

impl Runner {
    pub(crate) fn new() -> Self {
        Self { bank: Bank::new(START), gathered: None }
    }

    fn finish(self) {
        assert!(self.gathered.is_none(), "a batch or chain without its end");
        let replayed = self.bank.replay(0, Default::default(), Default::default());
        assert!(replayed == self.bank.hash(), "replay gives the state that was served");
    }

    fn line(&mut self, line: &str, place: &str, seen: &mut Seen) {
        let (event, expected) = match line.split_once("->") {
            Some((event, expected)) => (event.trim(), expected.trim()),
            None => (line, ""),
        };
        let words: Vec<&str> = event.split_whitespace().collect();
        match (words[0], &mut self.gathered) {
            ("batch" | "chain", gathered) => *gathered = Some((words[0] == "chain", Vec::new())),
            ("end", _) => self.end(place, seen),
            (verb, Some((_, gathered))) => {
                let wire = match (verb, kind_of(verb)) {
                    ("account", _) => Wire::Account(account(&words[1..], place)),
                    (_, Some(kind)) => {
                        let (wire, actor) = transfer(kind, &words[1..], place);
                        Wire::Transfer(wire, actor)
                    }
                    (_, None) => panic!("{place}: only transfers, or accounts to open, go together"),
                };
                gathered.push(Gathered { wire, expected: expected.to_owned(), place: place.to_owned() });
            }
            ("sums" | "spent" | "available" | "status" | "opened" | "state" | "recorded", None) => {
                seen.cases += 1;
                self.look(words[0], &words[1..], place);
            }
            (_, None) => answered(self.event(event), expected, place, seen),
        }
    }

    /// One event, and its answer.
    ///
    /// # Panics
    /// When the line makes no sense.
    pub(crate) fn event(&mut self, event: &str) -> Answer {
        let words: Vec<&str> = event.split_whitespace().collect();
        let (&verb, rest) = words.split_first().expect("no line is empty");
        if let Some(kind) = kind_of(verb) {
            let (wire, actor) = transfer(kind, rest, event);
            return self.bank.transfer(&wire, &actor);
        }
        let done = match verb {
            "account" => self.bank.open_all(&[account(rest, event)])[0],
            "close" => self.bank.close(account_id(rest[0])).map(|()| true),
            "freeze" => self.bank.freeze(account_id(rest[0])).map(|()| true),
            "unfreeze" => self.bank.unfreeze(account_id(rest[0])).map(|()| true),
            "limits" => {
                let wire = limits(rest, self.bank.accounts.get(&account_id(rest[0])));
                self.bank.limits(&wire).map(|()| true)
            }
            "cancel" => self.bank.cancel(transfer_id(rest[0])),
            "put" => {
                self.bank.put(account_id(rest[0]), sums(&rest[1..]));
                Ok(true)
            }
            "clock" => {
                self.bank.now = clock(self.bank.now, rest[0]);
                Ok(true)
            }
            "expire" => {
                self.bank.expire();
                Ok(true)
            }
            other => panic!("{event}: what is `{other}`?"),
        };
        answer_of(done)
    }

    fn end(&mut self, place: &str, seen: &mut Seen) {
        let (is_chain, gathered) = self.gathered.take().unwrap_or_else(|| panic!("{place}: nothing begun"));
        let mut accounts = Vec::new();
        let mut transfers = Vec::new();
        for step in &gathered {
            match step.wire {
                Wire::Account(wire) => accounts.push(wire),
                Wire::Transfer(wire, actor) => transfers.push((wire, actor)),
            }
        }
        let wires: Vec<message::Transfer> = transfers.iter().map(|(wire, _)| *wire).collect();
        let answers = match (transfers.first(), is_chain) {
            (None, false) => self.bank.open_all(&accounts).into_iter().map(answer_of).collect(),
            (Some((_, actor)), true) => self.bank.chain(&wires, actor),
            (Some((_, actor)), false) => self.bank.batch(&wires, actor),
            (None, true) => panic!("{place}: accounts are linked by their flags"),
        };
        assert!(answers.len() == gathered.len(), "{place}: one answer each");
        for (answer, step) in answers.into_iter().zip(gathered) {
            answered(answer, &step.expected, &step.place, seen);
        }
    }

    /// Lines that only look.
    fn look(&self, verb: &str, rest: &[&str], place: &str) {
        let id = rest[0];
        let account = || &self.bank.accounts[&account_id(id)];
        match verb {
            "sums" => assert_eq!(account().sums, sums(&rest[1..]), "{place}"),
            "spent" => {
                assert_eq!(account().spent_on_day_of(self.bank.now), Amount::new(number(rest[1])), "{place}");
            }
            "available" => assert_eq!(account().available(self.bank.now), Amount::new(number(rest[1])), "{place}"),
            "status" => {
                let status = match rest[1] {
                    "open" => AccountStatus::Open,
                    "frozen" => AccountStatus::Frozen,
                    "closed" => AccountStatus::Closed,
                    "closing" => AccountStatus::Closing,
                    other => panic!("{place}: status {other}"),
                };
                assert_eq!(account().status, status, "{place}");
            }
            "opened" => assert_eq!(account().opened_at, clock(START, rest[1]), "{place}"),
            "state" => {
                let state = match self.bank.state_of(transfer_id(id)) {
                    None => "absent",
                    Some(TransferState::Done) => "done",
                    Some(TransferState::Refused) => "refused",
                    Some(TransferState::InFlight) => "in_flight",
                    Some(TransferState::Settled) => "settled",
                    Some(TransferState::Voided) => "voided",
                    Some(TransferState::Expired) => "expired",
                    Some(TransferState::Cancelled) => "cancelled",
                    Some(TransferState::Reversed) => "reversed",
                    Some(TransferState::Prepared) => "prepared",
                };
                assert_eq!(state, rest[1], "{place}");
            }
            "recorded" => {
                let record = self.bank.record_of(transfer_id(id)).expect("a transfer is recorded");
                assert_eq!(record.debit_account_id, account_id(rest[1]), "{place}");
                assert_eq!(record.credit_account_id, account_id(rest[2]), "{place}");
                assert_eq!(record.amount, Amount::new(number(rest[3])), "{place}");
                assert_eq!(Currency::new(record.currency), Currency::from_code(rest[4]), "{place}");
                assert_eq!(record.code, number(rest[5]) as u16, "{place}");
            }
            other => panic!("{place}: what is `{other}`?"),
        }
    }
}

/// What was done before is answered `Ok(false)`.
fn answer_of(done: Result<bool, Refusal>) -> Answer {
    Answer { refusal: done.err(), amount: Amount::ZERO, repeated: done == Ok(false) }
}

fn answered(answer: Answer, expected: &str, place: &str, seen: &mut Seen) {
    seen.cases += usize::from(!expected.is_empty());
    seen.refusals.extend(answer.refusal);
    let expected = if expected.is_empty() { "ok" } else { expected };
    let words: Vec<&str> = expected.split_whitespace().collect();
    let name = answer.refusal.map_or("ok", Refusal::name);
    let is_expected = match words[..] {
        ["ok"] => name == "ok" && !answer.repeated,
        ["ok", amount] => name == "ok" && !answer.repeated && answer.amount == Amount::new(number(amount)),
        ["again"] => name == "ok" && answer.repeated,
        ["again", refusal] => name == refusal && answer.repeated,
        [refusal] => name == refusal && !answer.repeated,
        _ => panic!("{place}: what should it answer?"),
    };
    let again = if answer.repeated { "again " } else { "" };
    assert!(is_expected, "{place}\n  answered {again}{name} {}", answer.amount.get());
}

fn kind_of(verb: &str) -> Option<TransferKind> {
    Some(match verb {
        "transfer" => TransferKind::Transfer,
        "deposit" => TransferKind::Deposit,
        "withdraw" => TransferKind::Withdraw,
        "hold" => TransferKind::Hold,
        "settle" => TransferKind::Settle,
        "void" => TransferKind::Void,
        "reverse" => TransferKind::Reverse,
        _ => return None,
    })
}

/// A number; `max` is 2^64 - 1, `max-9` nine less.
pub(crate) fn number(text: &str) -> u64 {
    match text.strip_prefix("max") {
        Some("") => u64::MAX,
        Some(rest) => u64::MAX - rest[1..].parse::<u64>().unwrap_or_else(|_| panic!("number {text}")),
        None => text.parse().unwrap_or_else(|_| panic!("number {text}")),
    }
}

/// `A7` of this branch, `A0` none, `Amax` all ones, `B7` of another branch, `till:EUR`, `house:7`.
pub(crate) fn account_id(text: &str) -> AccountId {
    if let Some(code) = text.strip_prefix("till:") {
        return AccountId::of_house(BRANCH, AccountKind::Cash, Currency::from_code(code).expect("a currency"));
    }
    if let Some(local) = text.strip_prefix("house:") {
        return AccountId::of_branch(BRANCH, 1 << 111 | number(local) as u128);
    }
    match text.split_at(1) {
        ("A", "0") => AccountId::NONE,
        ("A", "max") => AccountId::new(u128::MAX),
        ("A", local) => AccountId::of_branch(BRANCH, number(local) as u128),
        ("B", local) => AccountId::of_branch(BranchId::new(2), number(local) as u128),
        _ => panic!("account {text}"),
    }
}

/// `T7`, `T0` none, `Tmax` all ones.
pub(crate) fn transfer_id(text: &str) -> TransferId {
    match text.strip_prefix('T') {
        Some("max") => TransferId::new(u128::MAX),
        Some(raw) => TransferId::new(number(raw) as u128),
        None => panic!("transfer {text}"),
    }
}

fn sums(words: &[&str]) -> Sums {
    let &[debits_held, debits_posted, credits_held, credits_posted] = words else { panic!("four sums: {words:?}") };
    Sums {
        debits_held: Amount::new(number(debits_held)),
        debits_posted: Amount::new(number(debits_posted)),
        credits_held: Amount::new(number(credits_held)),
        credits_posted: Amount::new(number(credits_posted)),
    }
}

/// `+5s`, `+1d`, `+7ns`, `-5s`, or `max-3s`.
fn clock(now: Timestamp, text: &str) -> Timestamp {
    let (from, step) = text.split_once('+').or_else(|| text.split_once('-')).expect("+TIME or max-TIME");
    let digits = step.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let nanos = number(digits)
        * match &step[digits.len()..] {
            "ns" => 1,
            "s" => 1_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            other => panic!("unit {other}"),
        };
    Timestamp::from_nanos(match (from, text.contains('-')) {
        ("max", _) => u64::MAX - nanos,
        (_, true) => now.as_nanos() - nanos,
        (_, false) => now.as_nanos() + nanos,
    })
}

/// An imported event's own time: nanoseconds, or a step from the beginning of 2026.
fn own_time(text: &str) -> u64 {
    if text.starts_with(['+', '-']) { clock(START, text).as_nanos() } else { number(text) }
}

fn currency(text: &str) -> u16 {
    Currency::from_code(text).map_or_else(|| number(text) as u16, Currency::get)
}

fn transfer(kind: TransferKind, words: &[&str], place: &str) -> (message::Transfer, Actor) {
    let takes_reference = matches!(kind, TransferKind::Settle | TransferKind::Void | TransferKind::Reverse);
    let mut wire = message::Transfer {
        id: transfer_id(words[0]).get().into(),
        kind: kind as u8,
        currency: if takes_reference { 0 } else { Currency::EUR.get() }.into(),
        code: if takes_reference { 0 } else { 1 }.into(),
        ..message::Transfer::new_zeroed()
    };
    let mut actor = Actor { role: Role::Teller, customer: CustomerId::new(9_000) };
    let positional = words[1..].iter().take_while(|word| !word.contains('=') && !is_flag(word)).count();
    let (fixed, options) = words[1..].split_at(positional);
    match (kind, fixed) {
        (TransferKind::Transfer | TransferKind::Hold, &[debit, credit, amount]) => {
            wire.debit_account_id = account_id(debit).get().into();
            wire.credit_account_id = account_id(credit).get().into();
            wire.amount = number(amount).into();
        }
        (TransferKind::Deposit, &[credit, amount]) => {
            wire.credit_account_id = account_id(credit).get().into();
            wire.amount = number(amount).into();
        }
        (TransferKind::Withdraw, &[debit, amount]) => {
            wire.debit_account_id = account_id(debit).get().into();
            wire.amount = number(amount).into();
        }
        (TransferKind::Settle | TransferKind::Void | TransferKind::Reverse, [reference, amount @ ..]) => {
            wire.reference = transfer_id(reference).get().into();
            wire.amount = amount.first().map_or(0, |amount| number(amount)).into();
        }
        _ => panic!("{place}: too few or too many words"),
    }
    options.iter().for_each(|option| set(&mut wire, &mut actor, option, place));
    (wire, actor)
}

fn is_flag(word: &str) -> bool {
    matches!(
        word,
        "linked" | "balancing-debit" | "balancing-credit" | "closing-debit" | "closing-credit" | "want-balances"
    )
}

fn set(wire: &mut message::Transfer, actor: &mut Actor, option: &str, place: &str) {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let flag = |wire: &mut message::Transfer, bit: u16| wire.flags = (wire.flags.get() | bit).into();
    match key {
        "linked" => flag(wire, transfer_flags::LINKED),
        "balancing-debit" => flag(wire, transfer_flags::BALANCING_DEBIT),
        "balancing-credit" => flag(wire, transfer_flags::BALANCING_CREDIT),
        "closing-debit" => flag(wire, transfer_flags::CLOSING_DEBIT),
        "closing-credit" => flag(wire, transfer_flags::CLOSING_CREDIT),
        "want-balances" => flag(wire, transfer_flags::WANT_BALANCES),
        "imported" => {
            flag(wire, transfer_flags::IMPORTED);
            wire.user_data_64 = own_time(value).into();
        }
        "flags" => flag(wire, number(value) as u16),
        "debit" => wire.debit_account_id = account_id(value).get().into(),
        "credit" => wire.credit_account_id = account_id(value).get().into(),
        "ref" => wire.reference = transfer_id(value).get().into(),
        "timeout" => wire.timeout_s = (number(value) as u32).into(),
        "currency" => wire.currency = currency(value).into(),
        "code" => wire.code = (number(value) as u16).into(),
        "user128" => wire.user_data_128 = (number(value) as u128).into(),
        "user64" => wire.user_data_64 = number(value).into(),
        "user32" => wire.user_data_32 = (number(value) as u32).into(),
        "kind" => wire.kind = number(value) as u8,
        "reserved" => wire.reserved = number(value) as u8,
        "as" => {
            *actor = match value.split_once(':') {
                Some(("customer", number)) => {
                    Actor { role: Role::Customer, customer: CustomerId::new(number.parse().expect("a customer")) }
                }
                None if value == "teller" => Actor { role: Role::Teller, ..*actor },
                None if value == "admin" => Actor { role: Role::Admin, ..*actor },
                None if value == "auditor" => Actor { role: Role::Auditor, ..*actor },
                _ => panic!("{place}: as {value}"),
            }
        }
        _ => panic!("{place}: what is `{option}`?"),
    }
}

fn account(words: &[&str], place: &str) -> message::AccountOpen {
    let mut wire = message::AccountOpen {
        id: account_id(words[0]).get().into(),
        day_limit: u64::MAX.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        kind: AccountKind::Customer as u8,
        ..message::AccountOpen::new_zeroed()
    };
    for option in &words[1..] {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let flag = |wire: &mut message::AccountOpen, bit: u16| wire.flags = (wire.flags.get() | bit).into();
        match key {
            "limited" => flag(&mut wire, account_flags::DEBITS_LIMITED),
            "credit-limited" => flag(&mut wire, account_flags::CREDITS_LIMITED),
            "linked" => flag(&mut wire, account_flags::LINKED),
            "frozen" => flag(&mut wire, account_flags::OPENED_FROZEN),
            "closed" => flag(&mut wire, account_flags::OPENED_CLOSED),
            "imported" => {
                flag(&mut wire, account_flags::IMPORTED);
                wire.user_data_64 = own_time(value).into();
            }
            "flags" => flag(&mut wire, number(value) as u16),
            "overdraft" => wire.overdraft = number(value).into(),
            "day-limit" => wire.day_limit = number(value).into(),
            "owner" => wire.owner = number(value).into(),
            "currency" => wire.currency = currency(value).into(),
            "code" => wire.code = (number(value) as u16).into(),
            "user128" => wire.user_data_128 = (number(value) as u128).into(),
            "user64" => wire.user_data_64 = number(value).into(),
            "user32" => wire.user_data_32 = (number(value) as u32).into(),
            "kind" => wire.kind = number(value) as u8,
            "reserved" => wire.reserved[4] = number(value) as u8,
            _ => panic!("{place}: what is `{option}`?"),
        }
    }
    wire
}

/// Limits that are not named stay as they are.
fn limits(words: &[&str], existing: Option<&tally_ledger::Account>) -> message::LimitsSet {
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).map(number);
    message::LimitsSet {
        id: account_id(words[0]).get().into(),
        overdraft: value("overdraft=").unwrap_or(existing.map_or(0, |account| account.overdraft.get())).into(),
        day_limit: value("day-limit=").unwrap_or(existing.map_or(0, |account| account.day_limit.get())).into(),
    }
}
