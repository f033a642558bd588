//! An account of the oracle: plain numbers, and sums in 128 bits so that nothing overflows here.

use tally_ledger::{Account, Sums};
use tally_protocol::message::account_flags;
use tally_protocol::{AccountStatus, Lsn};

/// Nanoseconds in a day.
pub(super) const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
/// Where a limit is meant: none.
pub(super) const NO_LIMIT: u64 = u64::MAX;

/// The four sums of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSums {
    /// Held debits.
    pub debits_held: u64,
    /// Posted debits.
    pub debits_posted: u64,
    /// Held credits.
    pub credits_held: u64,
    /// Posted credits.
    pub credits_posted: u64,
}

/// An account as it was after some record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelAccount {
    /// Raw id.
    pub id: u128,
    /// Customer number; 0 for the bank.
    pub owner: u64,
    /// The client's own: 128, 64 and 32 bits.
    pub user_data: (u128, u64, u32),
    /// ISO 4217.
    pub currency: u16,
    /// The client's own class.
    pub code: u16,
    /// [`account_flags`].
    pub flags: u16,
    /// Wire value of the kind.
    pub kind: u8,
    /// Open, frozen or closed.
    pub status: AccountStatus,
    /// How far debits may exceed credits, where limited.
    pub overdraft: u64,
    /// The most debits in a day.
    pub day_limit: u64,
    /// Debits of `day`.
    pub day_spent: u64,
    /// Days since 1970.
    pub day: u64,
    /// The four sums.
    pub sums: ModelSums,
    /// Nanoseconds.
    pub opened_at: u64,
    /// The record that made this version.
    pub lsn: Lsn,
    /// Its stamp.
    pub timestamp: u64,
}

impl ModelSums {
    /// Held and posted.
    pub const fn debits(&self) -> u128 {
        self.debits_held as u128 + self.debits_posted as u128
    }

    /// Held and posted.
    pub const fn credits(&self) -> u128 {
        self.credits_held as u128 + self.credits_posted as u128
    }

    /// From the server's form.
    pub const fn of(sums: &Sums) -> Self {
        Self {
            debits_held: sums.debits_held.get(),
            debits_posted: sums.debits_posted.get(),
            credits_held: sums.credits_held.get(),
            credits_posted: sums.credits_posted.get(),
        }
    }
}

impl ModelAccount {
    /// From the server's form.
    pub fn of(account: &Account) -> Self {
        Self {
            id: account.id.get(),
            owner: account.owner.get(),
            user_data: (account.user_data_128, account.user_data_64, account.user_data_32),
            currency: account.currency.get(),
            code: account.code,
            flags: account.flags,
            kind: account.kind as u8,
            status: account.status,
            overdraft: account.overdraft.get(),
            day_limit: account.day_limit.get(),
            day_spent: account.day_spent.get(),
            day: u64::from(account.day),
            sums: ModelSums::of(&account.sums),
            opened_at: account.opened_at.as_nanos(),
            lsn: account.lsn,
            timestamp: account.timestamp.as_nanos(),
        }
    }

    /// Whether debits may exceed credits by no more than the overdraft.
    pub const fn debits_are_limited(&self) -> bool {
        self.flags & account_flags::DEBITS_LIMITED != 0
    }

    /// Whether credits may not exceed debits.
    pub const fn credits_are_limited(&self) -> bool {
        self.flags & account_flags::CREDITS_LIMITED != 0
    }

    /// What was debited on the day of `now`.
    pub(super) const fn spent_on(&self, now: u64) -> u64 {
        if now / DAY_NS > self.day { 0 } else { self.day_spent }
    }

    /// What may still be debited on the day of `now`.
    pub(super) fn day_left(&self, now: u64) -> u128 {
        if self.day_limit == NO_LIMIT {
            return u128::MAX;
        }
        u128::from(self.day_limit).saturating_sub(u128::from(self.spent_on(now)))
    }

    /// What may be debited until debits exceed posted credits by `overdraft`.
    pub(super) fn room_to_debit(&self, overdraft: u64) -> u128 {
        // Debits have to fit in 64 bits: room beyond is none.
        let room = u128::from(self.sums.credits_posted) + u128::from(overdraft);
        room.min(u64::MAX.into()).saturating_sub(self.sums.debits())
    }

    /// What may be credited until credits reach posted debits.
    pub(super) fn room_to_credit(&self) -> u128 {
        u128::from(self.sums.debits_posted).saturating_sub(self.sums.credits())
    }
}
