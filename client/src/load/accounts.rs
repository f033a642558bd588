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

/// A range of accounts of one branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountRange {
    pub(crate) branch_id: BranchId,
    /// The local number of the first.
    pub(crate) base: u64,
    pub(crate) count: u64,
    pub(crate) currency: Currency,
}

impl AccountRange {
    #[inline]
    pub(crate) fn id(&self, index: u64) -> AccountId {
        AccountId::of_branch(self.branch_id, u128::from(self.base) + u128::from(index))
    }

    /// Which of them `id` is, if it is one.
    #[inline]
    pub(crate) fn index_of(&self, id: u128) -> Option<u32> {
        let index = id.checked_sub(self.id(0).get())?;
        // A range has no more than `u32::MAX` accounts.
        (index < u128::from(self.count)).then_some(index as u32)
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(crate) range: AccountRange,
    pub(crate) expected: Vec<i64>,
    /// What all of them together were given.
    pub(crate) deposited: u64,
}

impl Accounts {
    /// Opens all of `range` and, unless `penniless`, pays [`FUNDS`] into each. Accounts that were there before
    /// are used as they are.
    pub(crate) fn prepare(dialer: &Arc<Dialer>, range: AccountRange, penniless: bool) -> anyhow::Result<Self> {
        let open =
            move |index| customer_account(range.id(index), range.base + index + 1, range.currency, Overdraft::None);
        let were_there = bulk::open_accounts(dialer, range.count, open)?;
        let mut accounts = Self { range, expected: vec![0; range.count as usize], deposited: 0 };
        if were_there > 0 {
            let balances = bulk::balances(dialer, range.count, move |index| range.id(index), posted)?;
            accounts.expected = balances.into_iter().map(Option::unwrap_or_default).collect();
        }
        if !penniless {
            // The ids follow from a seed, so that a batch that is sent again carries the same ones.
            let seed = Random::from_system().bits();
            let deposit = move |index| {
                let id = (Random::from_seed(seed.wrapping_add(index)).bits_128() | 1) & !(1 << 127);
                transfers::deposit(TransferId::new(id), range.id(index), range.money(FUNDS))
            };
            bulk::deposit(dialer, range.count, deposit)?;
            accounts.expected.iter_mut().for_each(|balance| *balance += FUNDS as i64);
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
