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
    /// Money lies on a closed account, or on one that has moved.
    #[error("{0}: closed or moved, but not empty")]
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
    /// A closing account without the one open hold that closes it, or such a hold without a closing account.
    #[error("{0}: its status is not what the open holds that close it say")]
    ClosingDiffers(AccountId),
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
    let is_over = matches!(account.status, AccountStatus::Closed | AccountStatus::Moved);
    let is_empty_if_closed = !is_over || account.sums.is_settled();
    ensure(is_empty_if_closed, Violation::ClosedNotEmpty(account.id))?;
    ensure(!both, Violation::FlagsConflict(account.id))?;
    // What was spent comes at once, what is held for it where the account joins a hold when that is decided. And what it takes over
    // from a settlement account, which has no limit, leaves that one's counter as it is.
    let is_behind = account.status == AccountStatus::Arriving || account.id.settlement_peer().is_some();
    ensure(is_behind || Some(account.day_spent) <= debits, Violation::DaySpentTooLarge(account.id))
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

/// Each account's held sums are those of its open holds, every hold has its two accounts, and an account is closing
/// where one hold closes it.
///
/// # Errors
/// [`Violation::HoldWithoutAccount`], [`Violation::HoldsDiffer`], [`Violation::ClosingDiffers`].
pub fn holds_match_accounts<'a>(
    holds: impl IntoIterator<Item = &'a Hold>,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> Result<(), Violation> {
    let mut held: BTreeMap<AccountId, (&Account, u128, u128, usize)> =
        accounts.into_iter().map(|account| (account.id, (account, 0, 0, 0))).collect();
    for hold in holds {
        let sides =
            [(hold.debit_account_id, true, hold.closes.debit), (hold.credit_account_id, false, hold.closes.credit)];
        for (id, is_debit, closes) in sides {
            let Some((account, debits, credits, closers)) = held.get_mut(&id) else {
                return Err(Violation::HoldWithoutAccount(hold.id));
            };
            ensure(account.currency == hold.currency, Violation::HoldWithoutAccount(hold.id))?;
            *(if is_debit { debits } else { credits }) += hold.amount.get() as u128;
            *closers += usize::from(closes);
        }
    }
    for (id, (account, debits, credits, closers)) in held {
        let (debits_held, credits_held) = (account.sums.debits_held.get(), account.sums.credits_held.get());
        let same = debits_held as u128 == debits && credits_held as u128 == credits;
        ensure(same, Violation::HoldsDiffer { id, debits_held, credits_held, debits, credits })?;
        let is_closing = account.status == AccountStatus::Closing;
        ensure(closers == usize::from(is_closing), Violation::ClosingDiffers(id))?;
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

#[cfg(test)]
mod tests {
    use tally_protocol::{BranchId, Lsn, Timestamp};

    use super::*;
    use crate::closing::Closes;

    /// An account with these sums: debits held, debits posted, credits held, credits posted.
    fn account_with(local: u128, sums: [u64; 4]) -> Account {
        let till = crate::cash_account(BranchId::new(1), Currency::EUR, Timestamp::default());
        let [debits_held, debits_posted, credits_held, credits_posted] = sums.map(Amount::new);
        let sums = Sums { debits_held, debits_posted, credits_held, credits_posted };
        Account { id: AccountId::of_branch(BranchId::new(1), local), sums, ..till }
    }

    fn hold_of(amount: u64) -> Hold {
        Hold {
            id: TransferId::new(1),
            debit_account_id: account_with(1, [0; 4]).id,
            credit_account_id: account_with(2, [0; 4]).id,
            amount: Amount::new(amount),
            currency: Currency::EUR,
            code: 1,
            expires_at: Timestamp::MAX,
            leg: crate::Leg::Whole,
            far_account_id: AccountId::NONE,
            lsn: Lsn::ZERO,
            timestamp: Timestamp::default(),
            closes: Closes::NONE,
            stage: crate::HoldStage::Open,
            attempt: crate::two_phase::Attempt::ONLY,
            chain: None,
        }
    }

    #[test]
    fn money_made_or_lost_is_found_per_currency() {
        let accounts = [account_with(1, [3, 9, 0, 0]), account_with(2, [0, 0, 3, 9])];
        assert_eq!(conservation(&accounts), Ok(()));
        let posted = [account_with(1, [3, 9, 0, 0]), account_with(2, [0, 0, 3, 8])];
        assert!(matches!(
            conservation(&posted),
            Err(Violation::NotConserved { what: "posted", debits: 9, credits: 8, .. })
        ));
        let held = [account_with(1, [4, 9, 0, 0]), account_with(2, [0, 0, 3, 9])];
        assert!(matches!(conservation(&held), Err(Violation::NotConserved { what: "held", .. })));
        // Even in all, but not in each currency.
        let dollars = Account { currency: Currency::USD, ..account_with(2, [0, 0, 3, 9]) };
        assert!(matches!(conservation([&accounts[0], &dollars]), Err(Violation::NotConserved { .. })));
    }

    #[test]
    fn an_account_that_cannot_be_is_found() {
        let good = account_with(1, [1, 2, 3, 4]);
        assert_eq!(account(&good), Ok(()));
        assert_eq!(account(&account_with(1, [1, u64::MAX, 0, 0])), Err(Violation::SumsOverflow(good.id)));
        assert_eq!(account(&account_with(1, [0, 0, u64::MAX, 1])), Err(Violation::SumsOverflow(good.id)));
        let closed = Account { status: AccountStatus::Closed, ..account_with(1, [0, 5, 0, 5]) };
        assert_eq!(account(&closed), Ok(()));
        let closed = Account { status: AccountStatus::Closed, ..account_with(1, [0, 5, 0, 6]) };
        assert_eq!(account(&closed), Err(Violation::ClosedNotEmpty(good.id)));
        let limited = Account { flags: account_flags::ALL, ..good.clone() };
        assert_eq!(account(&limited), Err(Violation::FlagsConflict(good.id)));
        let spent = Account { day_spent: Amount::new(4), ..good.clone() };
        assert_eq!(account(&spent), Err(Violation::DaySpentTooLarge(good.id)));
    }

    #[test]
    fn a_step_beyond_a_limit_is_found_and_one_that_stays_is_not() {
        let limited = |sums| Account { flags: account_flags::DEBITS_LIMITED, ..account_with(1, sums) };
        let passed = |what| Err(Violation::LimitPassed { id: account_with(1, [0; 4]).id, what });
        assert_eq!(step(&limited([0, 0, 0, 5]), &limited([2, 3, 0, 5])), Ok(()));
        assert_eq!(step(&limited([0, 0, 0, 5]), &limited([3, 3, 0, 5])), passed("debits"));
        // Beyond already, since the overdraft was lowered: settling may go on, spending may not.
        assert_eq!(step(&limited([9, 0, 0, 5]), &limited([0, 9, 0, 5])), Ok(()));
        assert_eq!(step(&limited([9, 0, 0, 5]), &limited([9, 1, 0, 5])), passed("debits"));
        let overdrawn = Account { overdraft: Amount::new(1), ..limited([3, 3, 0, 5]) };
        assert_eq!(step(&limited([0, 0, 0, 5]), &overdrawn), Ok(()));
        let owing = |sums| Account { flags: account_flags::CREDITS_LIMITED, ..account_with(1, sums) };
        assert_eq!(step(&owing([0, 5, 0, 0]), &owing([0, 5, 2, 3])), Ok(()));
        assert_eq!(step(&owing([0, 5, 0, 0]), &owing([0, 5, 3, 3])), passed("credits"));
        let on = |day, spent, limit| Account {
            day,
            day_spent: Amount::new(spent),
            day_limit: Amount::new(limit),
            ..account_with(1, [0; 4])
        };
        assert_eq!(step(&on(1, 5, 9), &on(1, 9, 9)), Ok(()));
        assert_eq!(step(&on(1, 5, 9), &on(1, 10, 9)), passed("day"));
        assert_eq!(step(&on(1, 12, 9), &on(1, 12, 9)), Ok(()));
        assert_eq!(step(&on(1, 12, 9), &on(2, 12, 9)), passed("day"));
        let shrunk = step(&account_with(1, [0, 5, 0, 5]), &account_with(1, [0, 5, 0, 4]));
        assert_eq!(shrunk, Err(Violation::PostedShrank(account_with(1, [0; 4]).id)));
    }

    #[test]
    fn held_sums_are_those_of_the_holds() {
        let accounts = [account_with(1, [10, 0, 0, 0]), account_with(2, [0, 0, 10, 0])];
        assert_eq!(state(&accounts, &[hold_of(10)]), Ok(()));
        assert!(matches!(state(&accounts, &[hold_of(9)]), Err(Violation::HoldsDiffer { debits: 9, .. })));
        assert!(matches!(state(&accounts, &[]), Err(Violation::HoldsDiffer { debits: 0, .. })));
        let gone = holds_match_accounts(&[hold_of(10)], &accounts[..1]);
        assert_eq!(gone, Err(Violation::HoldWithoutAccount(TransferId::new(1))));
        let dollars = Hold { currency: Currency::USD, ..hold_of(10) };
        let other = holds_match_accounts(&[dollars], &accounts);
        assert_eq!(other, Err(Violation::HoldWithoutAccount(TransferId::new(1))));
    }
}
