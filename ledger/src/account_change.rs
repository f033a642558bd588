//! Changing what bounds an account, and what ends it. How one begins: `opening.rs`.
//!
//! **Invariant:** an account is closed only when nothing is held on it and its balance is nothing, so no
//! money is ever stranded; and a closed account never changes again, but for holds of nothing that end. One that is
//! closing belongs to the hold that closes it, and is changed by nothing else.

use tally_protocol::message;
use tally_protocol::{AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn};
use tally_protocol::{Refusal, Timestamp};

use crate::account::{Account, Residence, Sums};
use crate::transfer::{cash_account_id, ensure};

/// The branch's till in a currency, which the branch opens itself the first time that it is needed: no
/// limits, owned by the bank.
pub fn cash_account(branch: BranchId, currency: Currency, now: Timestamp) -> Account {
    Account {
        id: cash_account_id(branch, currency),
        owner: CustomerId::BANK,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        currency,
        code: 1,
        flags: 0,
        kind: AccountKind::Cash,
        status: AccountStatus::Open,
        overdraft: Amount::ZERO,
        day_limit: Amount::MAX,
        day_spent: Amount::ZERO,
        day: now.day(),
        sums: Sums::default(),
        opened_at: now,
        lsn: Lsn::ZERO,
        timestamp: now,
        residence: Residence::default(),
    }
}

/// The account, closed for good.
///
/// # Errors
/// Those of [`is_here`], `AccountNotFound`, `AccountIdReserved` (the branch's own), `AccountClosed`, `AccountNotEmpty` (a balance,
/// or holds on either side).
pub fn close_account(existing: Option<&Account>) -> Result<Account, Refusal> {
    let account = existing.ok_or(Refusal::AccountNotFound)?;
    ensure(!account.id.is_house(), Refusal::AccountIdReserved)?;
    let account = not_closed(account)?;
    ensure(account.sums.is_settled(), Refusal::AccountNotEmpty)?;
    Ok(Account { status: AccountStatus::Closed, ..account.clone() })
}

/// The account, frozen.
///
/// # Errors
/// `AccountNotFound`, `AccountClosed`, `AccountAlreadyFrozen`.
pub fn freeze_account(existing: Option<&Account>) -> Result<Account, Refusal> {
    let account = not_closed(existing.ok_or(Refusal::AccountNotFound)?)?;
    ensure(account.status == AccountStatus::Open, Refusal::AccountAlreadyFrozen)?;
    Ok(Account { status: AccountStatus::Frozen, ..account.clone() })
}

/// The account, open again.
///
/// # Errors
/// `AccountNotFound`, `AccountClosed`, `AccountNotFrozen`.
pub fn unfreeze_account(existing: Option<&Account>) -> Result<Account, Refusal> {
    let account = not_closed(existing.ok_or(Refusal::AccountNotFound)?)?;
    ensure(account.status == AccountStatus::Frozen, Refusal::AccountNotFrozen)?;
    Ok(Account { status: AccountStatus::Open, ..account.clone() })
}

/// The account with other limits. They bind from the next transfer on: an account that is beyond them
/// already keeps what it has and may not go further.
///
/// # Errors
/// `AccountNotFound`, `AccountClosed`.
pub fn set_limits(wire: &message::LimitsSet, existing: Option<&Account>) -> Result<Account, Refusal> {
    let account = not_closed(existing.ok_or(Refusal::AccountNotFound)?)?;
    assert!(account.id.get() == wire.id.get(), "limits for {:032x} set on {}", wire.id.get(), account.id);
    let (overdraft, day_limit) = (Amount::new(wire.overdraft.get()), Amount::new(wire.day_limit.get()));
    Ok(Account { overdraft, day_limit, ..account.clone() })
}

/// Whether an account is at this branch, to be shown and changed.
///
/// # Errors
/// `AccountMoved`, `AccountMoving`.
pub const fn is_here(account: &Account) -> Result<(), Refusal> {
    match account.status {
        AccountStatus::Moved => Err(Refusal::AccountMoved),
        AccountStatus::Moving | AccountStatus::Arriving => Err(Refusal::AccountMoving),
        AccountStatus::Open | AccountStatus::Frozen | AccountStatus::Closed | AccountStatus::Closing => Ok(()),
    }
}

fn not_closed(account: &Account) -> Result<&Account, Refusal> {
    is_here(account)?;
    let is_closed = matches!(account.status, AccountStatus::Closed | AccountStatus::Closing);
    ensure(!is_closed, Refusal::AccountClosed).map(|()| account)
}
