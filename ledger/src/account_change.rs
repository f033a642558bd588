//! Opening an account and changing what bounds it.
//!
//! **Invariant:** an account is closed only when nothing is held on it and its balance is nothing, so no
//! money is ever stranded; and a closed account never changes again, but for holds of nothing that end.

use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn};
use tally_protocol::{Refusal, Timestamp};

use crate::account::{Account, Sums};
use crate::transfer::cash_account_id;

/// The answer to a request to open an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// This account is to be recorded and opened.
    New(Account),
    /// It was opened before with the same content: answer with its `opened_at`.
    Before,
}

const fn ensure(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// Decides about an account to open in `branch`. The caller sets `lsn` of a new one to that of its record.
///
/// # Errors
/// The first that applies, in this order: `FieldInvalid` (reserved bytes), `IdMustNotBeZero`,
/// `IdMustNotBeMax`, `FlagReserved`, `FlagsConflict`, `CurrencyInvalid`, `CodeMustNotBeZero`, `WrongBranch`,
/// `AccountIdReserved`, `AccountKindInvalid`; and where the id is known, the first difference: flags, kind,
/// user data (128, 64, 32 bits), currency, code, owner, limits. Limits are compared as they are now.
pub fn open_account(
    wire: &message::AccountOpen,
    existing: Option<&Account>,
    branch: BranchId,
    now: Timestamp,
) -> Result<Opened, Refusal> {
    let account = from_wire(wire, branch, now)?;
    match existing {
        None => Ok(Opened::New(account)),
        Some(existing) => same_account(&account, existing).map(|()| Opened::Before),
    }
}

fn from_wire(wire: &message::AccountOpen, branch: BranchId, now: Timestamp) -> Result<Account, Refusal> {
    let id = AccountId::new(wire.id.get());
    let flags = wire.flags.get();
    let both_limits = account_flags::DEBITS_LIMITED | account_flags::CREDITS_LIMITED;
    ensure(wire.reserved == [0; 5], Refusal::FieldInvalid)?;
    ensure(!id.is_none(), Refusal::IdMustNotBeZero)?;
    ensure(id.get() != u128::MAX, Refusal::IdMustNotBeMax)?;
    ensure(flags & !account_flags::ALL == 0, Refusal::FlagReserved)?;
    ensure(flags & both_limits != both_limits, Refusal::FlagsConflict)?;
    let currency = Currency::new(wire.currency.get()).ok_or(Refusal::CurrencyInvalid)?;
    ensure(wire.code.get() != 0, Refusal::CodeMustNotBeZero)?;
    ensure(id.branch() == branch, Refusal::WrongBranch)?;
    ensure(!id.is_house(), Refusal::AccountIdReserved)?;
    let kind = AccountKind::from_wire(wire.kind).ok_or(Refusal::AccountKindInvalid)?;
    // There is one till per currency, and the branch opens it itself.
    ensure(kind != AccountKind::Cash, Refusal::AccountKindInvalid)?;
    Ok(Account {
        id,
        owner: CustomerId::new(wire.owner.get()),
        user_data_128: wire.user_data_128.get(),
        user_data_64: wire.user_data_64.get(),
        user_data_32: wire.user_data_32.get(),
        currency,
        code: wire.code.get(),
        flags,
        kind,
        status: AccountStatus::Open,
        overdraft: Amount::new(wire.overdraft.get()),
        day_limit: Amount::new(wire.day_limit.get()),
        day_spent: Amount::ZERO,
        day: now.day(),
        sums: Sums::default(),
        opened_at: now,
        lsn: Lsn::ZERO,
        timestamp: now,
    })
}

fn same_account(asked: &Account, existing: &Account) -> Result<(), Refusal> {
    let same_limits = asked.overdraft == existing.overdraft && asked.day_limit == existing.day_limit;
    ensure(asked.flags == existing.flags, Refusal::ExistsWithDifferentFlags)?;
    ensure(asked.kind == existing.kind, Refusal::ExistsWithDifferentKind)?;
    ensure(asked.user_data_128 == existing.user_data_128, Refusal::ExistsWithDifferentUserData128)?;
    ensure(asked.user_data_64 == existing.user_data_64, Refusal::ExistsWithDifferentUserData64)?;
    ensure(asked.user_data_32 == existing.user_data_32, Refusal::ExistsWithDifferentUserData32)?;
    ensure(asked.currency == existing.currency, Refusal::ExistsWithDifferentCurrency)?;
    ensure(asked.code == existing.code, Refusal::ExistsWithDifferentCode)?;
    ensure(asked.owner == existing.owner, Refusal::ExistsWithDifferentOwner)?;
    ensure(same_limits, Refusal::ExistsWithDifferentLimits)
}

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
    }
}

/// The account, closed for good.
///
/// # Errors
/// `AccountNotFound`, `AccountIdReserved` (the branch's own), `AccountClosed`, `AccountNotEmpty` (a balance,
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

fn not_closed(account: &Account) -> Result<&Account, Refusal> {
    ensure(account.status != AccountStatus::Closed, Refusal::AccountClosed).map(|()| account)
}
