//! Accounts to open, and limits to set.

use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, AccountKind};

use super::{CUSTOMER_COUNT, Workload};
use crate::request::Asked;

/// EUR mostly, so that most transfers find two accounts of one currency.
pub(super) const CURRENCIES: [u16; 4] = [978, 978, 978, 840];

impl Workload {
    pub(super) fn open_accounts(&mut self, count: u64) -> Asked {
        let mut opens = Vec::new();
        for _ in 0..count {
            // Now and then one that is there already.
            let again = !self.accounts.is_empty() && self.random.one_in(8);
            let id = if again { *self.random.pick(&self.accounts) } else { self.new_account() };
            opens.push(self.account_open(id));
        }
        Asked::Open(opens)
    }

    fn new_account(&mut self) -> AccountId {
        let id = AccountId::of_branch(self.branch, self.account_next);
        self.account_next += 1;
        self.accounts.push(id);
        id
    }

    fn account_open(&mut self, id: AccountId) -> message::AccountOpen {
        let random = &mut self.random;
        let flags = match random.weighted(&[5, 3, 1]) {
            0 => account_flags::DEBITS_LIMITED,
            1 => 0,
            _ => account_flags::CREDITS_LIMITED,
        };
        // A function of the id, so that opening it again mostly says the same.
        let local = id.get() as u64;
        let overdraft = if local.is_multiple_of(3) { 200 } else { 0 };
        let day_limit = if local.is_multiple_of(4) { 1_500 } else { u64::MAX };
        message::AccountOpen {
            id: id.get().into(),
            user_data_128: u128::from(local).into(),
            owner: (local % CUSTOMER_COUNT + 1).into(),
            user_data_64: (local * 3).into(),
            overdraft: overdraft.into(),
            day_limit: day_limit.into(),
            user_data_32: 7.into(),
            currency: if random.one_in(50) { 0 } else { CURRENCIES[local as usize % CURRENCIES.len()] }.into(),
            code: if random.one_in(50) { 0 } else { 1 }.into(),
            flags: flags.into(),
            kind: AccountKind::Customer as u8,
            reserved: [0; 5],
        }
    }

    pub(super) fn new_limits(&mut self) -> message::LimitsSet {
        let id = self.account();
        let day_limit = if self.random.one_in(2) { u64::MAX } else { self.random.between(0, 3_000) };
        message::LimitsSet {
            id: id.get().into(),
            overdraft: self.random.below(500).into(),
            day_limit: day_limit.into(),
        }
    }
}
