//! Opening accounts: one, or a linked chain of which all are opened or none.
//!
//! Nothing but what is opened is recorded, so a refused account or chain leaves no trace.

use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn};
use tally_protocol::{Refusal, Timestamp};

use crate::account::{Account, Residence, Sums};
use crate::imported::own_time;
use crate::transfer::ensure;

/// The answer to a request to open an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// This account is to be recorded and opened.
    New(Account),
    /// It was opened before with the same content: answer with its `opened_at`.
    Before,
}

/// The answer to a request to open a chain of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainOpened {
    /// These accounts are to be recorded, in this order and together, and opened.
    New(Vec<Account>),
    /// All of them were opened before with the same content: answer each with its `opened_at`.
    Before,
}

/// Decides about an account to open in `branch`. Once a new one has its record, the caller calls
/// [`Account::set_opened`].
///
/// # Errors
/// The first that applies, in this order: `FieldInvalid` (reserved bytes), `IdMustNotBeZero`,
/// `IdMustNotBeMax`, `FlagReserved`, `FlagsConflict`, `CurrencyInvalid`, `CodeMustNotBeZero`, `WrongBranch`,
/// `AccountIdReserved`, `AccountKindInvalid`, `ImportedEventTimestampOutOfRange`; where the id is known, the first
/// difference: flags, kind, user data (128, 64, 32 bits), currency, code, owner, limits; and where it is new,
/// `ImportedEventTimestampMustNotAdvance`. Limits are compared as they are now, `LINKED` is not compared.
pub fn open_account(
    wire: &message::AccountOpen,
    existing: Option<&Account>,
    branch: BranchId,
    now: Timestamp,
) -> Result<Opened, Refusal> {
    let account = from_wire(wire, branch, now)?;
    match existing {
        None => {
            let has_come = !account.has(account_flags::IMPORTED) || account.opened_at < now;
            ensure(has_come, Refusal::ImportedEventTimestampMustNotAdvance)?;
            Ok(Opened::New(account))
        }
        Some(existing) => same_account(&account, existing).map(|()| Opened::Before),
    }
}

/// Decides about linked accounts; `existing` are those that have their ids now.
///
/// # Errors
/// One for each account. The first that cannot be opened says why, as [`open_account`] does; one that was opened before
/// says `IdAlreadyUsed`, for it is no part of this chain, and so does one that is twice in it. The others are
/// `ChainBroken`.
pub fn open_chain(
    wires: &[message::AccountOpen],
    existing: &[Option<Account>],
    branch: BranchId,
    now: Timestamp,
) -> Result<ChainOpened, Vec<Refusal>> {
    assert!(wires.len() == existing.len(), "{} accounts to open, {} looked for", wires.len(), existing.len());
    let mut accounts = Vec::with_capacity(wires.len());
    let mut broken: Option<(usize, Refusal)> = None;
    let mut before = 0;
    for (index, (wire, existing)) in wires.iter().zip(existing).enumerate() {
        let is_twice = wires[..index].iter().any(|earlier| earlier.id == wire.id);
        let refusal = match open_account(wire, existing.as_ref(), branch, now) {
            Err(refusal) => refusal,
            Ok(_) if is_twice => Refusal::IdAlreadyUsed,
            Ok(Opened::New(account)) => {
                accounts.push(account);
                continue;
            }
            Ok(Opened::Before) => {
                before += 1;
                Refusal::IdAlreadyUsed
            }
        };
        broken.get_or_insert((index, refusal));
    }
    match broken {
        None => Ok(ChainOpened::New(accounts)),
        Some(_) if before == wires.len() => Ok(ChainOpened::Before),
        Some((at, refusal)) => {
            Err((0..wires.len()).map(|index| if index == at { refusal } else { Refusal::ChainBroken }).collect())
        }
    }
}

impl Account {
    /// A new account is recorded at `lsn` and stamped `timestamp`: that is when it was opened, unless it was elsewhere.
    pub fn set_opened(&mut self, lsn: Lsn, timestamp: Timestamp) {
        (self.lsn, self.timestamp, self.day) = (lsn, timestamp, timestamp.day());
        if !self.has(account_flags::IMPORTED) {
            self.opened_at = timestamp;
        }
    }
}

fn from_wire(wire: &message::AccountOpen, branch: BranchId, now: Timestamp) -> Result<Account, Refusal> {
    let id = AccountId::new(wire.id.get());
    let flags = wire.flags.get();
    let has_both = |a: u16, b: u16| flags & (a | b) == a | b;
    ensure(wire.reserved == [0; 5], Refusal::FieldInvalid)?;
    ensure(!id.is_none(), Refusal::IdMustNotBeZero)?;
    ensure(id.get() != u128::MAX, Refusal::IdMustNotBeMax)?;
    ensure(flags & !account_flags::ALL == 0, Refusal::FlagReserved)?;
    ensure(!has_both(account_flags::DEBITS_LIMITED, account_flags::CREDITS_LIMITED), Refusal::FlagsConflict)?;
    ensure(!has_both(account_flags::OPENED_FROZEN, account_flags::OPENED_CLOSED), Refusal::FlagsConflict)?;
    let currency = Currency::new(wire.currency.get()).ok_or(Refusal::CurrencyInvalid)?;
    ensure(wire.code.get() != 0, Refusal::CodeMustNotBeZero)?;
    ensure(id.branch() == branch, Refusal::WrongBranch)?;
    ensure(!id.is_house(), Refusal::AccountIdReserved)?;
    let kind = AccountKind::from_wire(wire.kind).ok_or(Refusal::AccountKindInvalid)?;
    // There is one till per currency, and the branch opens it itself.
    ensure(kind != AccountKind::Cash, Refusal::AccountKindInvalid)?;
    let user_data_64 = wire.user_data_64.get();
    let opened_at = if flags & account_flags::IMPORTED == 0 { now } else { own_time(user_data_64)? };
    let status = match flags & (account_flags::OPENED_FROZEN | account_flags::OPENED_CLOSED) {
        account_flags::OPENED_FROZEN => AccountStatus::Frozen,
        account_flags::OPENED_CLOSED => AccountStatus::Closed,
        _ => AccountStatus::Open,
    };
    Ok(Account {
        id,
        owner: CustomerId::new(wire.owner.get()),
        user_data_128: wire.user_data_128.get(),
        user_data_64,
        user_data_32: wire.user_data_32.get(),
        currency,
        code: wire.code.get(),
        flags: flags & !account_flags::LINKED,
        kind,
        status,
        overdraft: Amount::new(wire.overdraft.get()),
        day_limit: Amount::new(wire.day_limit.get()),
        day_spent: Amount::ZERO,
        day: now.day(),
        sums: Sums::default(),
        opened_at,
        lsn: Lsn::ZERO,
        timestamp: now,
        residence: Residence::default(),
    })
}

fn same_account(asked: &Account, existing: &Account) -> Result<(), Refusal> {
    let same_limits = asked.overdraft == existing.overdraft && asked.day_limit == existing.day_limit;
    // That it was moved says nothing about how it was opened.
    ensure(asked.flags == existing.flags & !account_flags::HAS_MOVED, Refusal::ExistsWithDifferentFlags)?;
    ensure(asked.kind == existing.kind, Refusal::ExistsWithDifferentKind)?;
    ensure(asked.user_data_128 == existing.user_data_128, Refusal::ExistsWithDifferentUserData128)?;
    ensure(asked.user_data_64 == existing.user_data_64, Refusal::ExistsWithDifferentUserData64)?;
    ensure(asked.user_data_32 == existing.user_data_32, Refusal::ExistsWithDifferentUserData32)?;
    ensure(asked.currency == existing.currency, Refusal::ExistsWithDifferentCurrency)?;
    ensure(asked.code == existing.code, Refusal::ExistsWithDifferentCode)?;
    ensure(asked.owner == existing.owner, Refusal::ExistsWithDifferentOwner)?;
    ensure(same_limits, Refusal::ExistsWithDifferentLimits)
}
