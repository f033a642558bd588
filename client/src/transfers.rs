//! Builds the transfers of each kind, so that the fields which a kind does not use are zero; and the accounts of
//! customers.

use tally_protocol::message::{AccountOpen, Transfer, TransferKind, account_flags};
use tally_protocol::{AccountId, AccountKind, Amount, Currency, TransferId};
use zerocopy::FromZeros;

/// The reason code of transfers, and the class of accounts, that are made without naming one.
pub const CODE_DEFAULT: u16 = 1;

/// An amount in a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// Minor units.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
}

/// From where to where: the debit account pays, the credit account is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// Whose debits grow.
    pub debit_account_id: AccountId,
    /// Whose credits grow.
    pub credit_account_id: AccountId,
}

/// How far an account may be overdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdraft {
    /// Not at all.
    None,
    /// Without limit.
    Unlimited,
}

/// A customer's account, without a limit per day.
pub fn customer_account(id: AccountId, owner: u64, currency: Currency, overdraft: Overdraft) -> AccountOpen {
    let mut open = AccountOpen::new_zeroed();
    open.id.set(id.get());
    open.owner.set(owner);
    open.day_limit.set(u64::MAX);
    open.currency.set(currency.get());
    open.code.set(CODE_DEFAULT);
    open.flags.set(match overdraft {
        Overdraft::None => account_flags::DEBITS_LIMITED,
        Overdraft::Unlimited => 0,
    });
    open.kind = AccountKind::Customer as u8;
    open
}

#[inline]
fn blank(id: TransferId, kind: TransferKind) -> Transfer {
    let mut transfer = Transfer::new_zeroed();
    transfer.id.set(id.get());
    transfer.kind = kind as u8;
    transfer
}

#[inline]
fn moving(id: TransferId, kind: TransferKind, between: Between, money: Money) -> Transfer {
    let mut transfer = blank(id, kind);
    transfer.debit_account_id.set(between.debit_account_id.get());
    transfer.credit_account_id.set(between.credit_account_id.get());
    transfer.amount.set(money.amount.get());
    transfer.currency.set(money.currency.get());
    transfer.code.set(CODE_DEFAULT);
    transfer
}

/// Posts at once.
#[inline]
pub(crate) fn transfer(id: TransferId, between: Between, money: Money) -> Transfer {
    moving(id, TransferKind::Transfer, between, money)
}

/// From the branch's cash account.
pub(crate) fn deposit(id: TransferId, credit_account_id: AccountId, money: Money) -> Transfer {
    let between = Between { debit_account_id: AccountId::NONE, credit_account_id };
    moving(id, TransferKind::Deposit, between, money)
}

/// To the branch's cash account.
pub(crate) fn withdraw(id: TransferId, debit_account_id: AccountId, money: Money) -> Transfer {
    let between = Between { debit_account_id, credit_account_id: AccountId::NONE };
    moving(id, TransferKind::Withdraw, between, money)
}

/// Reserves; `timeout_s` in seconds, 0 for never.
pub(crate) fn hold(id: TransferId, between: Between, money: Money, timeout_s: u32) -> Transfer {
    let mut transfer = moving(id, TransferKind::Hold, between, money);
    transfer.timeout_s.set(timeout_s);
    transfer
}

/// Posts the hold `hold_id`; `Amount::ZERO` means all of it.
pub(crate) fn settle(id: TransferId, hold_id: TransferId, amount: Amount) -> Transfer {
    let mut transfer = blank(id, TransferKind::Settle);
    transfer.reference.set(hold_id.get());
    transfer.amount.set(amount.get());
    transfer
}

/// Gives the hold `hold_id` back.
pub(crate) fn void(id: TransferId, hold_id: TransferId) -> Transfer {
    let mut transfer = blank(id, TransferKind::Void);
    transfer.reference.set(hold_id.get());
    transfer
}

/// Posts the opposite of `posted_id`.
pub(crate) fn reverse(id: TransferId, posted_id: TransferId) -> Transfer {
    let mut transfer = blank(id, TransferKind::Reverse);
    transfer.reference.set(posted_id.get());
    transfer
}
