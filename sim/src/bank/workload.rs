//! What clients do: pay and hold within a branch and across, settle and void, send requests again, and remember what they
//! were told.

use std::collections::BTreeMap;

use tally_protocol::message::{self, TransferKind, account_flags};
use tally_protocol::{AccountId, BranchId, Currency, Refusal};
use zerocopy::FromZeros;

use super::branch::Told;
use crate::invariants::{Violation, hold};
use crate::random::Random;

/// Few, so that payments meet on them.
pub(super) const ACCOUNTS_PER_BRANCH: u64 = 3;
/// What each account is given at the beginning.
pub(super) const DEPOSIT: u64 = 1_000;

/// A payment and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) wire: message::Transfer,
    /// The branch that its client sends it to next.
    pub(super) at: usize,
    /// The branch that did it: a settle or void of it goes there.
    done_at: Option<usize>,
    pub(super) is_between: bool,
    /// The final answer, once one was given.
    pub(super) answer: Option<(Option<Refusal>, u64)>,
    /// Whether its client has nothing left to ask: it has the answer, or learnt that the id has another content, which it
    /// sent earlier.
    pub(super) is_over: bool,
    /// Of a hold that stands: whether it was voided when all had healed.
    is_voided_at_last: bool,
}

impl Payment {
    pub(super) const fn is_hold(&self) -> bool {
        self.wire.kind == TransferKind::Hold as u8
    }
}

/// See the top of the file.
pub(super) struct Workload {
    branches: Vec<BranchId>,
    pub(super) payments: Vec<Payment>,
    /// The payment that each request was about.
    requests: Vec<usize>,
    /// Where clients believe accounts to be that were said to have moved: every branch that was named, the last one last.
    places: BTreeMap<u128, Vec<usize>>,
    pub(super) answers: u64,
}

pub(super) const fn account(branch: BranchId, number: u64) -> AccountId {
    AccountId::of_branch(branch, number as u128 + 1)
}

/// An account that cannot be overdrawn.
pub(super) fn account_open(id: AccountId) -> message::AccountOpen {
    message::AccountOpen {
        id: id.get().into(),
        owner: 5.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        kind: 1,
        flags: account_flags::DEBITS_LIMITED.into(),
        day_limit: u64::MAX.into(),
        ..message::AccountOpen::new_zeroed()
    }
}

pub(super) fn deposit(id: u128, into: AccountId) -> message::Transfer {
    message::Transfer {
        id: id.into(),
        credit_account_id: into.get().into(),
        amount: DEPOSIT.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        kind: TransferKind::Deposit as u8,
        ..message::Transfer::new_zeroed()
    }
}

impl Workload {
    pub(super) const fn new(branches: Vec<BranchId>) -> Self {
        Self { branches, payments: Vec::new(), requests: Vec::new(), places: BTreeMap::new(), answers: 0 }
    }

    /// The next request: its number, the branch that it goes to, and what it asks for.
    pub(super) fn next(&mut self, random: &mut Random) -> (u64, usize, message::Transfer) {
        let payment = if !self.payments.is_empty() && random.one_in(4) {
            let again = random.index(self.payments.len());
            // A client that should not: the same id, another amount.
            let payment = &mut self.payments[again];
            if !payment.is_over && random.one_in(3) {
                payment.wire.amount = (payment.wire.amount.get() + 1).into();
            }
            // Or one that asks again where the account was, or is said to be by now.
            if let Some(places) = self.places.get(&payment.wire.debit_account_id.get()) {
                payment.at = places[random.index(places.len())];
            }
            again
        } else {
            let ending = if random.one_in(4) { self.new_ending(random) } else { None };
            let payment = ending.unwrap_or_else(|| self.new_payment(random));
            self.payments.push(payment);
            self.payments.len() - 1
        };
        self.ask(payment)
    }

    /// A request for a payment that was sent before.
    pub(super) fn ask(&mut self, payment: usize) -> (u64, usize, message::Transfer) {
        self.requests.push(payment);
        let Payment { wire, at, .. } = &self.payments[payment];
        (self.requests.len() as u64 - 1, *at, *wire)
    }

    fn new_payment(&self, random: &mut Random) -> Payment {
        let source = random.index(self.branches.len());
        let peer = random.index(self.branches.len());
        let debit = account(self.branches[source], random.below(ACCOUNTS_PER_BRANCH));
        let mut credit = account(self.branches[peer], random.below(ACCOUNTS_PER_BRANCH));
        if credit == debit {
            credit = account(self.branches[peer], (credit.get() as u64) % ACCOUNTS_PER_BRANCH);
        }
        if random.one_in(12) {
            // Nobody's: refused by whoever keeps it.
            credit = account(self.branches[peer], 99);
        }
        let amount = if random.one_in(6) { random.between(500, 3_000) } else { random.between(1, 60) };
        let is_hold = random.one_in(3);
        let kind = if is_hold { TransferKind::Hold } else { TransferKind::Transfer };
        let timeout_s = if is_hold && random.one_in(2) { random.between(1, 30) as u32 } else { 0 };
        let wire = message::Transfer {
            id: (self.payments.len() as u128 + 1_000).into(),
            timeout_s: timeout_s.into(),
            debit_account_id: debit.get().into(),
            credit_account_id: credit.get().into(),
            amount: amount.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            user_data_32: (random.below(2) as u32).into(),
            kind: kind as u8,
            ..message::Transfer::new_zeroed()
        };
        let at = self.places.get(&debit.get()).and_then(|places| places.last()).copied().unwrap_or(source);
        Payment {
            wire,
            at,
            done_at: None,
            is_between: source != peer,
            answer: None,
            is_over: false,
            is_voided_at_last: false,
        }
    }

    /// A settle or void of some hold, whatever became of that.
    fn new_ending(&self, random: &mut Random) -> Option<Payment> {
        // Mostly one of the newest that stand between two branches.
        let is_wanted: fn(&Payment) -> bool = match random.one_in(4) {
            true => Payment::is_hold,
            false => |payment| payment.is_hold() && payment.is_between && matches!(payment.answer, Some((None, _))),
        };
        let holds: Vec<usize> = (0..self.payments.len()).filter(|&at| is_wanted(&self.payments[at])).collect();
        let newest = &holds[holds.len().saturating_sub(4)..];
        let at = *newest.get(random.index(newest.len().max(1)))?;
        let settles = random.one_in(2);
        let held = self.payments[at].wire.amount.get();
        let amount = if settles && random.one_in(2) { random.between(1, held + held / 8 + 1) } else { 0 };
        let mut ending = self.ending(at, if settles { TransferKind::Settle } else { TransferKind::Void }, amount);
        if random.one_in(2) {
            // Named, it follows the payer's account wherever that goes.
            ending.wire.debit_account_id = self.payments[at].wire.debit_account_id;
        }
        Some(ending)
    }

    fn ending(&self, at: usize, kind: TransferKind, amount: u64) -> Payment {
        let id = self.payments.len() as u128 + 1_000;
        let hold = &self.payments[at];
        let wire = message::Transfer {
            id: id.into(),
            reference: hold.wire.id,
            amount: amount.into(),
            kind: kind as u8,
            ..message::Transfer::new_zeroed()
        };
        let at = hold.done_at.unwrap_or(hold.at);
        Payment { wire, at, done_at: None, is_between: false, answer: None, is_over: false, is_voided_at_last: false }
    }

    /// Every hold that stands is voided by somebody.
    pub(super) fn end_holds(&mut self) {
        for at in 0..self.payments.len() {
            let hold = &self.payments[at];
            // Whoever was told that the id has another content does not know whether that stands.
            let may_stand = hold.is_over && !matches!(hold.answer, Some((Some(_), _)));
            if hold.is_hold() && may_stand && !hold.is_voided_at_last {
                let payment = self.ending(at, TransferKind::Void, 0);
                self.payments[at].is_voided_at_last = true;
                self.payments.push(payment);
            }
        }
    }

    /// A client is told something by branch `by`. An answer that was final is given again, or the id was never used up.
    pub(super) fn told(&mut self, told: &Told, by: usize) -> Result<&Payment, Violation> {
        self.answers += 1;
        let payment = &mut self.payments[self.requests[told.request as usize]];
        let is_final = told.refusal.is_none_or(Refusal::consumes_id);
        let answer = (told.refusal, told.amount);
        let debit = payment.wire.debit_account_id.get();
        let home = AccountId::new(debit).branch();
        let index = |branch: u32| self.branches.iter().position(|known| u32::from(known.get()) == branch);
        match (told.refusal, index(told.branch)) {
            (Some(Refusal::AccountMoved), Some(at)) => {
                payment.at = at;
                let first = index(u32::from(home.get())).into_iter().collect();
                let places = self.places.entry(debit).or_insert(first);
                places.retain(|&place| place != at);
                places.push(at);
            }
            (Some(Refusal::IdUsedElsewhere), Some(at)) => payment.at = at,
            // Who ends a hold names no account: it asks around.
            (Some(Refusal::WrongBranch), _) => {
                payment.at = index(u32::from(home.get())).unwrap_or((payment.at + 1) % self.branches.len());
            }
            _ => {}
        }
        match payment.answer {
            Some(before) => {
                let says_the_same = answer == before || told.refusal.is_some_and(|refusal| refusal.code() < 200);
                hold!(OneEffect, says_the_same, "{:x} was answered {before:?}, now {answer:?}", payment.wire.id.get());
            }
            None if is_final => {
                payment.answer = Some(answer);
                payment.done_at = told.refusal.is_none().then_some(by);
            }
            None => {}
        }
        payment.is_over |= is_final || told.refusal.is_some_and(|refusal| (100..190).contains(&refusal.code()));
        Ok(payment)
    }
}
