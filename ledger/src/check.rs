//! Checkers of the invariants that a state must satisfy by itself, shared by tests and the simulator.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use tally_protocol::message::account_flags;
use tally_protocol::{AccountId, AccountStatus, Amount, Currency, TransferId};

use crate::account::{Account, Sums};
use crate::hold::Hold;

/// Which invariant does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Money was made or lost.
    #[error("{currency}: {debits} debited and {credits} credited ({what})")]
    NotConserved {
        /// In this currency.
        currency: Currency,
        /// `"posted"` or `"held"`.
        what: &'static str,
        /// Sum over all accounts, in minor units.
        debits: u128,
        /// Sum over all accounts, in minor units.
        credits: u128,
    },
    /// Held and posted together do not fit in 64 bits.
    #[error("{0}: held and posted do not fit in 64 bits")]
    SumsOverflow(AccountId),
    /// Money lies on a closed account.
    #[error("{0}: closed, but not empty")]
    ClosedNotEmpty(AccountId),
    /// Flags that exclude each other.
    #[error("{0}: debits and credits are both limited")]
    FlagsConflict(AccountId),
    /// More was spent today than the account's debits are in all.
    #[error("{0}: more spent on one day than ever debited")]
    DaySpentTooLarge(AccountId),
    /// The held sums are not those of the open holds.
    #[error("{id}: {debits_held} and {credits_held} held, but its open holds say {debits} and {credits}")]
    HoldsDiffer {
        /// On this account.
        id: AccountId,
        /// As the account says.
        debits_held: u64,
        /// As the account says.
        credits_held: u64,
        /// As its holds add up.
        debits: u128,
        /// As its holds add up.
        credits: u128,
    },
    /// A hold on an account that does not exist, or in another currency.
    #[error("hold {0}: an account is missing or has another currency")]
    HoldWithoutAccount(TransferId),
    /// A step took an account further beyond a limit.
    #[error("{id}: {what} limit passed")]
    LimitPassed {
        /// This account.
        id: AccountId,
        /// `"debits"`, `"credits"` or `"day"`.
        what: &'static str,
    },
    /// A posted sum became smaller.
    #[error("{0}: a posted sum shrank")]
    PostedShrank(AccountId),
}

const fn ensure(holds: bool, violation: Violation) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation) }
}

/// Debits equal credits, per currency, posted and held alike.
///
/// # Errors
/// [`Violation::NotConserved`] for the first currency, by number, in which they do not.
pub fn conservation<A: Borrow<Account>>(accounts: impl IntoIterator<Item = A>) -> Result<(), Violation> {
    let mut totals: BTreeMap<Currency, [u128; 4]> = BTreeMap::new();
    for account in accounts {
        let account = account.borrow();
        let total = totals.entry(account.currency).or_default();
        let Sums { debits_held, debits_posted, credits_held, credits_posted } = account.sums;
        for (total, sum) in total.iter_mut().zip([debits_posted, credits_posted, debits_held, credits_held]) {
            // 2^64 accounts with full sums would be needed to overflow.
            *total += sum.get() as u128;
        }
    }
    for (currency, [debits_posted, credits_posted, debits_held, credits_held]) in totals {
        for (what, debits, credits) in [("posted", debits_posted, credits_posted), ("held", debits_held, credits_held)]
        {
            ensure(debits == credits, Violation::NotConserved { currency, what, debits, credits })?;
        }
    }
    Ok(())
}

/// What must be true of every account by itself.
///
/// # Errors
/// The first of [`Violation::SumsOverflow`], `ClosedNotEmpty`, `FlagsConflict`, `DaySpentTooLarge`.
pub fn account(account: &Account) -> Result<(), Violation> {
    let Sums { debits_held, debits_posted, credits_held, credits_posted } = account.sums;
    let debits = debits_held.checked_add(debits_posted);
    let credits = credits_held.checked_add(credits_posted);
    let fits = debits.is_some() && credits.is_some();
    let both = account.has(account_flags::DEBITS_LIMITED) && account.has(account_flags::CREDITS_LIMITED);
    ensure(fits, Violation::SumsOverflow(account.id))?;
    let is_empty_if_closed = account.status != AccountStatus::Closed || account.sums.is_settled();
    ensure(is_empty_if_closed, Violation::ClosedNotEmpty(account.id))?;
    ensure(!both, Violation::FlagsConflict(account.id))?;
    ensure(Some(account.day_spent) <= debits, Violation::DaySpentTooLarge(account.id))
}

/// What must be true of an account from one state to the next: posted sums never shrink, and whatever grew
/// is within its limit. An account may lie beyond a limit that was lowered, but not move further.
///
/// # Errors
/// [`Violation::PostedShrank`], [`Violation::LimitPassed`].
pub fn step(before: &Account, after: &Account) -> Result<(), Violation> {
    let (old, new) = (&before.sums, &after.sums);
    let grew = old.debits_posted <= new.debits_posted && old.credits_posted <= new.credits_posted;
    ensure(grew, Violation::PostedShrank(after.id))?;
    let passed = |what| Violation::LimitPassed { id: after.id, what };
    let room = new.credits_posted.get() as u128 + after.overdraft.get() as u128;
    let within_debits =
        new.debits() <= old.debits() || !after.has(account_flags::DEBITS_LIMITED) || new.debits().get() as u128 <= room;
    ensure(within_debits, passed("debits"))?;
    let within_credits = new.credits() <= old.credits()
        || !after.has(account_flags::CREDITS_LIMITED)
        || new.credits() <= new.debits_posted;
    ensure(within_credits, passed("credits"))?;
    let spent_before = if after.day > before.day { Amount::ZERO } else { before.day_spent };
    let within_day = after.day_spent <= spent_before || after.day_spent <= after.day_limit;
    ensure(within_day, passed("day"))
}

/// Each account's held sums are those of its open holds, and every hold has its two accounts.
///
/// # Errors
/// [`Violation::HoldWithoutAccount`], [`Violation::HoldsDiffer`].
pub fn holds_match_accounts<'a>(
    holds: impl IntoIterator<Item = &'a Hold>,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> Result<(), Violation> {
    let mut held: BTreeMap<AccountId, (&Account, u128, u128)> =
        accounts.into_iter().map(|account| (account.id, (account, 0, 0))).collect();
    for hold in holds {
        for (id, is_debit) in [(hold.debit_account_id, true), (hold.credit_account_id, false)] {
            let Some((account, debits, credits)) = held.get_mut(&id) else {
                return Err(Violation::HoldWithoutAccount(hold.id));
            };
            ensure(account.currency == hold.currency, Violation::HoldWithoutAccount(hold.id))?;
            *(if is_debit { debits } else { credits }) += hold.amount.get() as u128;
        }
    }
    for (id, (account, debits, credits)) in held {
        let (debits_held, credits_held) = (account.sums.debits_held.get(), account.sums.credits_held.get());
        let same = debits_held as u128 == debits && credits_held as u128 == credits;
        ensure(same, Violation::HoldsDiffer { id, debits_held, credits_held, debits, credits })?;
    }
    Ok(())
}

/// All of the above that one state can show.
///
/// # Errors
/// The first violation found.
pub fn state(accounts: &[Account], holds: &[Hold]) -> Result<(), Violation> {
    accounts.iter().try_for_each(account)?;
    conservation(accounts)?;
    holds_match_accounts(holds, accounts)
}
