//! Operations on accounts: what the answer must be.

use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, AccountKind, AccountStatus, Currency, Lsn, Refusal};

use super::account::DAY_NS;
use super::form::cash_account;
use super::{Model, ModelAccount, ModelSums};

/// What is asked of an account.
#[derive(Clone, Copy, Debug)]
pub enum AccountAsk {
    /// Open it.
    Open(message::AccountOpen),
    /// Close it.
    Close(u128),
    /// Freeze it.
    Freeze(u128),
    /// Unfreeze it.
    Unfreeze(u128),
    /// Give it other limits.
    SetLimits(message::LimitsSet),
}

impl AccountAsk {
    /// The raw id of the account.
    pub const fn id(&self) -> u128 {
        match self {
            Self::Open(open) => open.id.get(),
            Self::Close(id) | Self::Freeze(id) | Self::Unfreeze(id) => *id,
            Self::SetLimits(limits) => limits.id.get(),
        }
    }

    /// What must become of an account that is `existing` now: its next version, `None` where nothing is to be done.
    ///
    /// # Errors
    /// The refusal that must be answered.
    pub fn judge(
        &self,
        existing: Option<&ModelAccount>,
        branch: u16,
        now: u64,
    ) -> Result<Option<ModelAccount>, Refusal> {
        if let Self::Open(open) = self {
            return opened(open, existing, branch, now);
        }
        let account = existing.ok_or(Refusal::AccountNotFound)?;
        let is_house = AccountId::new(account.id).is_house();
        if is_house && matches!(self, Self::Close(_)) {
            return Err(Refusal::AccountIdReserved);
        }
        if matches!(account.status, AccountStatus::Closed | AccountStatus::Closing) {
            return Err(Refusal::AccountClosed);
        }
        let mut next = account.clone();
        match self {
            Self::Open(_) => unreachable!("answered above"),
            Self::Close(_) => {
                let ModelSums { debits_held, debits_posted, credits_held, credits_posted } = account.sums;
                if debits_held != 0 || credits_held != 0 || debits_posted != credits_posted {
                    return Err(Refusal::AccountNotEmpty);
                }
                next.status = AccountStatus::Closed;
            }
            Self::Freeze(_) if account.status == AccountStatus::Frozen => return Err(Refusal::AccountAlreadyFrozen),
            Self::Freeze(_) => next.status = AccountStatus::Frozen,
            Self::Unfreeze(_) if account.status == AccountStatus::Open => return Err(Refusal::AccountNotFrozen),
            Self::Unfreeze(_) => next.status = AccountStatus::Open,
            Self::SetLimits(limits) => {
                next.overdraft = limits.overdraft.get();
                next.day_limit = limits.day_limit.get();
            }
        }
        Ok(Some(next))
    }
}

impl Model {
    /// A change of an account is recorded at `lsn`. What the account must be after it.
    ///
    /// # Errors
    /// What should have been answered instead, without a record; `None` where nothing was to be done.
    pub fn change_account(&mut self, ask: &AccountAsk, lsn: Lsn, now: u64) -> Result<ModelAccount, Option<Refusal>> {
        self.advance(lsn);
        let mut next = ask.judge(self.account(ask.id()), self.branch, now).map_err(Some)?.ok_or(None)?;
        (next.lsn, next.timestamp) = (lsn, now);
        self.set_account(next.clone());
        Ok(next)
    }

    /// The branch opened its own till `id` at `lsn`. What it must be; `None` where there should be none.
    pub fn open_till(&mut self, id: u128, lsn: Lsn, now: u64) -> Option<ModelAccount> {
        self.advance(lsn);
        let currency = id as u16;
        if self.account(id).is_some() || cash_account(self.branch, currency) != Some(id) {
            return None;
        }
        let till = ModelAccount {
            id,
            owner: 0,
            user_data: (0, 0, 0),
            currency,
            code: 1,
            flags: 0,
            kind: AccountKind::Cash as u8,
            status: AccountStatus::Open,
            overdraft: 0,
            day_limit: u64::MAX,
            day_spent: 0,
            day: now / DAY_NS,
            sums: ModelSums::default(),
            opened_at: now,
            lsn,
            timestamp: now,
        };
        self.set_account(till.clone());
        Some(till)
    }
}

fn opened(
    open: &message::AccountOpen,
    existing: Option<&ModelAccount>,
    branch: u16,
    now: u64,
) -> Result<Option<ModelAccount>, Refusal> {
    use Refusal as R;
    let id = open.id.get();
    let flags = open.flags.get();
    let has = |flag: u16| flags & flag != 0;
    let both_limits = has(account_flags::DEBITS_LIMITED) && has(account_flags::CREDITS_LIMITED);
    let both_states = has(account_flags::OPENED_FROZEN) && has(account_flags::OPENED_CLOSED);
    let imported = has(account_flags::IMPORTED);
    let kind = AccountKind::from_wire(open.kind).filter(|kind| *kind != AccountKind::Cash);
    let user_data = (open.user_data_128.get(), open.user_data_64.get(), open.user_data_32.get());
    let ladder = [
        (open.reserved != [0; 5], R::FieldInvalid),
        (id == 0, R::IdMustNotBeZero),
        (id == u128::MAX, R::IdMustNotBeMax),
        (flags & !account_flags::ALL != 0, R::FlagReserved),
        (both_limits || both_states, R::FlagsConflict),
        (Currency::new(open.currency.get()).is_none(), R::CurrencyInvalid),
        (open.code.get() == 0, R::CodeMustNotBeZero),
        ((id >> 112) as u16 != branch, R::WrongBranch),
        (AccountId::new(id).is_house(), R::AccountIdReserved),
        (kind.is_none(), R::AccountKindInvalid),
        (imported && matches!(user_data.1, 0 | u64::MAX), R::ImportedEventTimestampOutOfRange),
    ];
    if let Some((_, refusal)) = ladder.into_iter().find(|(applies, _)| *applies) {
        return Err(refusal);
    }
    // A link is no part of the account.
    let flags = flags & !account_flags::LINKED;
    let Some(existing) = existing else {
        if imported && user_data.1 >= now {
            return Err(R::ImportedEventTimestampMustNotAdvance);
        }
        let status = match (has(account_flags::OPENED_FROZEN), has(account_flags::OPENED_CLOSED)) {
            (true, _) => AccountStatus::Frozen,
            (_, true) => AccountStatus::Closed,
            (false, false) => AccountStatus::Open,
        };
        return Ok(Some(ModelAccount {
            id,
            owner: open.owner.get(),
            user_data,
            currency: open.currency.get(),
            code: open.code.get(),
            flags,
            kind: open.kind,
            status,
            overdraft: open.overdraft.get(),
            day_limit: open.day_limit.get(),
            day_spent: 0,
            day: now / DAY_NS,
            sums: ModelSums::default(),
            opened_at: if imported { user_data.1 } else { now },
            lsn: Lsn::ZERO,
            timestamp: now,
        }));
    };
    let limits = (open.overdraft.get(), open.day_limit.get());
    let ladder = [
        (flags != existing.flags, R::ExistsWithDifferentFlags),
        (open.kind != existing.kind, R::ExistsWithDifferentKind),
        (user_data.0 != existing.user_data.0, R::ExistsWithDifferentUserData128),
        (user_data.1 != existing.user_data.1, R::ExistsWithDifferentUserData64),
        (user_data.2 != existing.user_data.2, R::ExistsWithDifferentUserData32),
        (open.currency.get() != existing.currency, R::ExistsWithDifferentCurrency),
        (open.code.get() != existing.code, R::ExistsWithDifferentCode),
        (open.owner.get() != existing.owner, R::ExistsWithDifferentOwner),
        (limits != (existing.overdraft, existing.day_limit), R::ExistsWithDifferentLimits),
    ];
    match ladder.into_iter().find(|(applies, _)| *applies) {
        Some((_, refusal)) => Err(refusal),
        None => Ok(None),
    }
}
