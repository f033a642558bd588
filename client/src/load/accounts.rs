//! The accounts that load is spread over: opened, given money, and what each must hold.
//!
//! Invariant: `expected[i]` is the balance of account `i` if exactly the transfers that were acknowledged, or
//! found to be done afterwards, have happened.

use std::sync::Arc;

use tally_protocol::message::{Sums, Transfer};
use tally_protocol::{AccountId, Amount, BranchId, Currency, TransferId};

use super::choose::Pair;
use crate::{Between, Dialer, Money, Overdraft, Random, bulk, customer_account, transfers};

/// What each account is given: more than any run takes out of one, and so little that ten million of them fit
/// into the cash account's sum.
pub(crate) const FUNDS: u64 = 1_000_000_000;

/// A range of accounts of one branch, and perhaps a second one of the same local numbers at another branch. Indices
/// from `count` on are of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountRange {
    pub(crate) branch_id: BranchId,
    /// The other branch.
    pub(crate) far: Option<BranchId>,
    /// The local number of the first.
    pub(crate) base: u64,
    /// At each branch.
    pub(crate) count: u64,
    pub(crate) currency: Currency,
}

impl AccountRange {
    #[inline]
    pub(crate) fn id(&self, index: u64) -> AccountId {
        let (branch_id, index) = match self.far {
            Some(far) if index >= self.count => (far, index - self.count),
            Some(_) | None => (self.branch_id, index),
        };
        AccountId::of_branch(branch_id, u128::from(self.base) + u128::from(index))
    }

    /// Accounts at both branches.
    pub(crate) const fn total(&self) -> u64 {
        if self.far.is_some() { 2 * self.count } else { self.count }
    }

    /// The indices at one of them.
    pub(crate) fn indices(&self, is_far: bool) -> std::ops::Range<u64> {
        if is_far { self.count..self.total() } else { 0..self.count }
    }

    /// Which of them `id` is, if it is one.
    #[inline]
    pub(crate) fn index_of(&self, id: u128) -> Option<u32> {
        let within = |first: AccountId| id.checked_sub(first.get()).filter(|&index| index < u128::from(self.count));
        // A range has no more than `u32::MAX` accounts.
        match (within(self.id(0)), self.far) {
            (Some(index), _) => Some(index as u32),
            (None, Some(_)) => within(self.id(self.count)).map(|index| (index + u128::from(self.count)) as u32),
            (None, None) => None,
        }
    }

    /// A transfer between two of them.
    #[inline]
    pub(crate) fn transfer(&self, id: TransferId, pair: Pair, amount: u32) -> Transfer {
        let between =
            Between { debit_account_id: self.id(pair.debit.into()), credit_account_id: self.id(pair.credit.into()) };
        transfers::transfer(id, between, self.money(amount.into()))
    }

    fn money(&self, minor_units: u64) -> Money {
        Money { amount: Amount::new(minor_units), currency: self.currency }
    }
}

/// How to reach the branches of a range.
#[derive(Clone, Debug)]
pub(crate) struct Dialers {
    pub(crate) home: Arc<Dialer>,
    pub(crate) far: Option<Arc<Dialer>>,
}

impl Dialers {
    /// Each, and whether it is the other branch.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<Dialer>, bool)> {
        std::iter::once((&self.home, false)).chain(self.far.as_ref().map(|far| (far, true)))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(crate) range: AccountRange,
    pub(crate) expected: Vec<i64>,
    /// What all of them together were given.
    pub(crate) deposited: u64,
}

impl Accounts {
    /// Opens all of `range` and, unless `penniless`, pays [`FUNDS`] into each of the first branch. Accounts that were
    /// there before are used as they are.
    pub(crate) fn prepare(dialers: &Dialers, range: AccountRange, penniless: bool) -> anyhow::Result<Self> {
        let mut accounts = Self { range, expected: vec![0; range.total() as usize], deposited: 0 };
        for (dialer, is_far) in dialers.iter() {
            let indices = range.indices(is_far);
            let first = indices.start;
            let open = move |index| {
                let id = range.id(first + index);
                customer_account(id, range.base + index + 1, range.currency, Overdraft::None)
            };
            if bulk::open_accounts(dialer, range.count, open)? > 0 {
                let balances = bulk::balances(dialer, range.count, move |index| range.id(first + index), posted)?;
                for (expected, balance) in accounts.expected[first as usize..].iter_mut().zip(balances) {
                    *expected = balance.unwrap_or_default();
                }
            }
        }
        let dialer = &dialers.home;
        if !penniless {
            // The ids follow from a seed, so that a batch that is sent again carries the same ones.
            let seed = Random::from_system().bits();
            let deposit = move |index| {
                let id = (Random::from_seed(seed.wrapping_add(index)).bits_128() | 1) & !(1 << 127);
                transfers::deposit(TransferId::new(id), range.id(index), range.money(FUNDS))
            };
            bulk::deposit(dialer, range.count, deposit)?;
            accounts.expected[..range.count as usize].iter_mut().for_each(|balance| *balance += FUNDS as i64);
            accounts.deposited = FUNDS * range.count;
        }
        Ok(accounts)
    }
}

/// Credits less debits, both posted.
pub(crate) fn posted(sums: &Sums) -> i64 {
    // Sums of a load run are far below 2^63.
    sums.credits_posted.get().wrapping_sub(sums.debits_posted.get()) as i64
}
