//! What clients do: pay and hold within a branch and across, settle and void, send requests again, and remember what they
//! were told.

use std::collections::BTreeMap;

use tally_protocol::message::{self, TransferKind, account_flags};
use tally_protocol::{AccountId, BranchId, Currency, Refusal, TransferId};
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
    /// The id of the chain that it is a member of.
    pub(super) chain: Option<u128>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    One(message::Transfer),
    Chain(Vec<message::Transfer>),
}

impl Payment {
    pub(super) const fn is_hold(&self) -> bool {
        self.wire.kind == TransferKind::Hold as u8
    }

    /// What the registry decides it under, if it does.
    pub(super) fn decided_under(&self) -> TransferId {
        TransferId::new(self.chain.unwrap_or(self.wire.id.get()))
    }
}

/// See the top of the file.
pub(super) struct Workload {
    branches: Vec<BranchId>,
    pub(super) payments: Vec<Payment>,
    /// The payment that each request was about; of a chain, the first one and all amounts.
    requests: Vec<(usize, Option<Vec<u64>>)>,
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
    pub(super) fn next(&mut self, random: &mut Random) -> (u64, usize, Wanted) {
        let payment = if !self.payments.is_empty() && random.one_in(4) {
            let again = random.index(self.payments.len());
            // A client that should not: the same id, another amount.
            let payment = &mut self.payments[again];
            if !payment.is_over && random.one_in(3) {
                payment.wire.amount = (payment.wire.amount.get() + 1).into();
            }
            // Or one that asks again where the account was, or is said to be by now.
            let places = self.places.get(&payment.wire.debit_account_id.get());
            if let Some(places) = places.filter(|_| payment.chain.is_none()) {
                payment.at = places[random.index(places.len())];
            }
            again
        } else if random.one_in(6) {
            return self.new_chain(random);
        } else {
            let ending = if random.one_in(4) { self.new_ending(random) } else { None };
            let payment = ending.unwrap_or_else(|| self.new_payment(random));
            self.payments.push(payment);
            self.payments.len() - 1
        };
        self.ask(payment)
    }

    /// A request for a payment, or the chain that it is a member of, that was sent before.
    pub(super) fn ask(&mut self, payment: usize) -> (u64, usize, Wanted) {
        let Payment { wire, at, chain, answer, .. } = &self.payments[payment];
        // What has an answer may be asked about alone, and a member without one never: it would be done alone.
        let chain = chain.filter(|_| answer.is_none() || self.requests.len() % 2 == 0);
        let Some(chain) = chain else {
            let (at, wire) = (*at, *wire);
            self.requests.push((payment, None));
            return (self.requests.len() as u64 - 1, at, Wanted::One(wire));
        };
        let is_member = |payment: &Payment| payment.chain == Some(chain);
        let first = self.payments.iter().position(is_member).expect("a chain has members");
        let members: Vec<_> = self.payments[first..].iter().take_while(|payment| is_member(payment)).collect();
        let (wires, at) = (members.iter().map(|payment| payment.wire).collect(), members[0].at);
        let amounts = members.iter().map(|payment| payment.wire.amount.get()).collect();
        self.requests.push((first, Some(amounts)));
        (self.requests.len() as u64 - 1, at, Wanted::Chain(wires))
    }

    /// A chain of payments and holds out of accounts of one branch, mostly to others.
    fn new_chain(&mut self, random: &mut Random) -> (u64, usize, Wanted) {
        let first = self.payments.len();
        let source = random.index(self.branches.len());
        for _ in 0..random.between(2, 4) {
            let mut payment = self.new_payment(random);
            let debit = account(self.branches[source], random.below(ACCOUNTS_PER_BRANCH));
            let mut credit = AccountId::new(payment.wire.credit_account_id.get());
            if credit == debit {
                credit = account(self.branches[(source + 1) % self.branches.len()], 0);
            }
            payment.wire.debit_account_id = debit.get().into();
            payment.wire.credit_account_id = credit.get().into();
            payment.at = source;
            payment.is_between = credit.branch() != debit.branch();
            payment.chain = Some(first as u128 + 1_000);
            self.payments.push(payment);
        }
        self.ask(first)
    }

    /// A payment across that a branch was asked for last and has not answered, and may have forgotten in a crash: its client
    /// asks again, or for another amount under the same id.
    pub(super) fn forgotten(&mut self, at: usize, random: &mut Random) -> Option<usize> {
        let is_open = |payment: &Payment| payment.at == at && payment.is_between && !payment.is_over;
        let index = self.payments.iter().rposition(is_open)?;
        if random.one_in(2) {
            let wire = &mut self.payments[index].wire;
            wire.amount = (wire.amount.get() + 1).into();
        }
        Some(index)
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
            chain: None,
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
        Payment {
            wire,
            at,
            done_at: None,
            is_between: false,
            answer: None,
            is_over: false,
            is_voided_at_last: false,
            chain: None,
        }
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
    /// Returns what it was about.
    pub(super) fn told(&mut self, told: &Told, by: usize) -> Result<&[Payment], Violation> {
        self.answers += 1;
        let (first, amounts) = self.requests[told.request as usize].clone();
        match amounts {
            None => self.told_one(told, first, by)?,
            Some(amounts) => self.told_chain(told, first, &amounts, by)?,
        }
        let count = self.requests[told.request as usize].1.as_ref().map_or(1, Vec::len);
        Ok(&self.payments[first..first + count])
    }

    fn told_chain(&mut self, told: &Told, first: usize, amounts: &[u64], by: usize) -> Result<(), Violation> {
        // Nobody does it where an account has moved, or with other members than were sent first.
        let gives_up = |refusal: Refusal| {
            let has_moved = matches!(refusal, Refusal::MovedAccountSinglesOnly | Refusal::AccountMoved);
            has_moved || (100..190).contains(&refusal.code())
        };
        let refusals = told.items.iter().filter_map(|(refusal, _)| *refusal).chain(told.refusal);
        let is_given_up = refusals.into_iter().any(gives_up);
        for (index, &amount) in amounts.iter().enumerate() {
            let payment = &mut self.payments[first + index];
            payment.is_over |= is_given_up;
            // What was not recorded is no answer.
            let Some(&(refusal, true)) = told.items.get(index) else { continue };
            let answer = (refusal, if refusal.is_none() { amount } else { 0 });
            if let Some(before) = payment.answer {
                let id = payment.wire.id.get();
                hold!(OneEffect, answer == before, "{id:x} was answered {before:?}, now {answer:?} in its chain");
            }
            payment.answer = Some(answer);
            payment.done_at = refusal.is_none().then_some(by);
            payment.is_over = true;
        }
        Ok(())
    }

    fn told_one(&mut self, told: &Told, payment: usize, by: usize) -> Result<(), Violation> {
        let payment = &mut self.payments[payment];
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
            (Some(Refusal::IdUsedElsewhere | Refusal::HoldElsewhere), Some(at)) => payment.at = at,
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
        Ok(())
    }
}
