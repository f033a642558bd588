//! Accounts to open, and limits to set.

use tally_ledger::Actor;
use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, AccountKind};

use super::{CUSTOMER_COUNT, Workload, admin, staff};
use crate::clock::BEGIN_NS;
use crate::request::Asked;

pub(super) const HOUR_NS: u64 = 3_600 * 1_000_000_000;
/// Few enough that requests meet on them.
const ACCOUNTS_LEN: usize = 18;

/// EUR mostly, so that most transfers find two accounts of one currency.
const CURRENCIES: [u16; 4] = [978, 978, 978, 840];

/// The currency that an account is opened in.
pub(super) fn currency_of(id: AccountId) -> u16 {
    CURRENCIES[id.get() as usize % CURRENCIES.len()]
}

/// As if it came from an older ledger. The time is a function of the id, so that opening it again mostly says the same.
fn import_account(open: &mut message::AccountOpen) {
    open.flags.set(open.flags.get() | account_flags::IMPORTED);
    open.user_data_64.set(BEGIN_NS - HOUR_NS * (open.id.get() as u64 % 100 + 1));
}

impl Workload {
    /// Accounts to begin with, and who opens them: all of it can be done.
    pub(super) fn first_accounts(&mut self, count: u64) -> (Actor, Asked) {
        let mut opens: Vec<message::AccountOpen> = (0..count)
            .map(|_| {
                let id = self.new_account();
                self.account_open(id)
            })
            .collect();
        if self.random.one_in(2) {
            let chain = opens.len() - 1;
            opens[..chain].iter_mut().for_each(|open| open.flags.set(open.flags.get() | account_flags::LINKED));
        }
        if !self.random.one_in(4) {
            return (staff(), Asked::Open(opens));
        }
        opens.iter_mut().for_each(import_account);
        (admin(), Asked::Open(opens))
    }

    pub(super) fn open_accounts(&mut self, count: u64) -> Asked {
        let mut opens = Vec::new();
        for _ in 0..count {
            // Now and then one that is there already.
            let again = self.accounts.len() >= ACCOUNTS_LEN || (!self.accounts.is_empty() && self.random.one_in(8));
            let id = if again { *self.random.pick(&self.accounts) } else { self.new_account() };
            let mut open = self.account_open(id);
            if again && self.random.one_in(4) {
                self.spoil(&mut open);
            }
            if self.random.one_in(3) {
                open.flags.set(open.flags.get() | account_flags::LINKED);
            }
            opens.push(open);
        }
        // Mostly the chain has an end.
        if let Some(last) = opens.last_mut().filter(|_| !self.random.one_in(10)) {
            last.flags.set(last.flags.get() & !account_flags::LINKED);
        }
        if self.random.one_in(6) {
            self.import_accounts(&mut opens);
        }
        Asked::Open(opens)
    }

    /// As if they came from an older ledger; now and then one of them does not, or at an impossible time.
    fn import_accounts(&mut self, opens: &mut [message::AccountOpen]) {
        for open in opens {
            if self.random.one_in(16) {
                continue;
            }
            import_account(open);
            match self.random.below(24) {
                0 => open.user_data_64.set(BEGIN_NS * 2),
                1 => open.user_data_64.set(0),
                _ => {}
            }
        }
    }

    fn new_account(&mut self) -> AccountId {
        let id = AccountId::of_branch(self.branch, self.account_next);
        self.account_next += 1;
        self.accounts.push(id);
        id
    }

    fn account_open(&mut self, id: AccountId) -> message::AccountOpen {
        let random = &mut self.random;
        let limits = match random.weighted(&[10, 5, 1]) {
            0 => account_flags::DEBITS_LIMITED,
            1 => 0,
            _ => account_flags::CREDITS_LIMITED,
        };
        let state = match random.weighted(&[90, 3, 1]) {
            0 => 0,
            1 => account_flags::OPENED_FROZEN,
            _ => account_flags::OPENED_CLOSED,
        };
        // A function of the id, so that opening it again mostly says the same.
        let local = id.get() as u64;
        let overdraft = if local.is_multiple_of(3) { 200 } else { 0 };
        let day_limit = if local.is_multiple_of(4) { 4_000 } else { u64::MAX };
        message::AccountOpen {
            id: id.get().into(),
            user_data_128: u128::from(local).into(),
            owner: (local % CUSTOMER_COUNT + 1).into(),
            user_data_64: (local * 3).into(),
            overdraft: overdraft.into(),
            day_limit: day_limit.into(),
            user_data_32: 7.into(),
            currency: currency_of(id).into(),
            code: 1.into(),
            flags: (limits | state).into(),
            kind: AccountKind::Customer as u8,
            reserved: [0; 5],
        }
    }

    /// One field is something that it must not be, or not what it was the first time.
    fn spoil(&mut self, open: &mut message::AccountOpen) {
        match self.random.below(10) {
            0 => open.currency.set(0),
            1 => open.code.set(0),
            2 => open.flags.set(3),
            3 => open.kind = AccountKind::Cash as u8,
            4 => open.id.set(open.id.get() | 1 << 111),
            5 => open.owner.set(77),
            6 => open.user_data_64.set(0),
            7 => open.flags.set(account_flags::OPENED_FROZEN | account_flags::OPENED_CLOSED),
            8 => open.flags.set(1 << 9),
            _ => open.code.set(2),
        }
    }

    pub(super) fn new_limits(&mut self) -> message::LimitsSet {
        let id = self.account();
        let day_limit = if self.random.one_in(2) { u64::MAX } else { self.random.between(0, 9_000) };
        message::LimitsSet {
            id: id.get().into(),
            overdraft: self.random.below(500).into(),
            day_limit: day_limit.into(),
        }
    }
}
