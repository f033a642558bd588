//! Closing an account by a hold: while it is open the account takes nothing new; void or expiry opens the account
//! again, settling closes it for good.
//!
//! ```text
//!   open --hold with a closing flag--> closing --settle--> closed
//!     ^                                   |
//!     '-------------void, expiry----------'
//! ```
//!
//! **Invariant:** an account is closing if and only if exactly one open hold closes it: a second one would find the
//! account closing and is refused.

use tally_protocol::AccountStatus;
use tally_protocol::message::transfer_flags::{CLOSING_CREDIT, CLOSING_DEBIT};

use crate::hold::HoldEnd;

/// Which of its two accounts a hold closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    /// The one that it debits.
    pub debit: bool,
    /// The one that it credits.
    pub credit: bool,
}

/// What a record does to the status of its two accounts. One byte, as the journal keeps it: two bits for the debit
/// account, above them two for the credit account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusChange(u8);

const OPENS: u8 = 1;
const BEGINS_TO_CLOSE: u8 = 2;
const CLOSES: u8 = 3;
const CREDIT_SHIFT: u32 = 2;

impl Closes {
    /// Neither.
    pub const NONE: Self = Self { debit: false, credit: false };

    /// As a hold's flags say.
    pub const fn of_flags(flags: u16) -> Self {
        Self { debit: flags & CLOSING_DEBIT != 0, credit: flags & CLOSING_CREDIT != 0 }
    }

    /// What making the hold does.
    pub const fn begun(self) -> StatusChange {
        self.each(BEGINS_TO_CLOSE)
    }

    /// What ending the hold does.
    pub const fn ended(self, end: HoldEnd) -> StatusChange {
        match end {
            HoldEnd::Settled => self.each(CLOSES),
            HoldEnd::Voided | HoldEnd::Expired => self.each(OPENS),
        }
    }

    const fn each(self, change: u8) -> StatusChange {
        let (debit, credit) = (self.debit as u8 * change, self.credit as u8 * change);
        StatusChange(debit | credit << CREDIT_SHIFT)
    }
}

impl StatusChange {
    /// Both stay as they are.
    pub const NONE: Self = Self(0);

    /// Whether both accounts stay as they are.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The debit account's status after it, which was `before`.
    pub const fn debit(self, before: AccountStatus) -> AccountStatus {
        after(self.0 & CLOSES, before)
    }

    /// The credit account's status after it, which was `before`.
    pub const fn credit(self, before: AccountStatus) -> AccountStatus {
        after(self.0 >> CREDIT_SHIFT, before)
    }

    /// As the journal keeps it.
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Reads what the journal keeps.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        if raw >> (2 * CREDIT_SHIFT) == 0 { Some(Self(raw)) } else { None }
    }
}

const fn after(change: u8, before: AccountStatus) -> AccountStatus {
    match change {
        OPENS => AccountStatus::Open,
        BEGINS_TO_CLOSE => AccountStatus::Closing,
        CLOSES => AccountStatus::Closed,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_changes_as_the_drawing_says() {
        let both = |change: StatusChange| (change.debit(AccountStatus::Frozen), change.credit(AccountStatus::Frozen));
        let debit = Closes::of_flags(CLOSING_DEBIT | 1);
        assert_eq!(both(debit.begun()), (AccountStatus::Closing, AccountStatus::Frozen));
        assert_eq!(both(debit.ended(HoldEnd::Voided)), (AccountStatus::Open, AccountStatus::Frozen));
        let credit = Closes::of_flags(CLOSING_CREDIT);
        assert_eq!(both(credit.ended(HoldEnd::Settled)), (AccountStatus::Frozen, AccountStatus::Closed));
        assert_eq!(both(credit.ended(HoldEnd::Expired)), (AccountStatus::Frozen, AccountStatus::Open));
        let two = Closes::of_flags(CLOSING_DEBIT | CLOSING_CREDIT);
        assert_eq!(both(two.ended(HoldEnd::Settled)), (AccountStatus::Closed, AccountStatus::Closed));
        assert!(Closes::NONE.begun().is_none() && Closes::NONE.ended(HoldEnd::Settled).is_none());
    }

    #[test]
    fn one_byte_holds_it_and_no_other_byte_is_one() {
        for raw in 0..=u8::MAX {
            assert_eq!(StatusChange::from_raw(raw).map(StatusChange::raw), (raw < 16).then_some(raw));
        }
    }
}
