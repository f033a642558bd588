//! The rules for one transfer, as a ladder of checks: the first that fails is the answer.
//!
//! The order of the checks is the order of the variants 201..=236 of [`Refusal`], for every kind:
//!
//! ```text
//!   reference     found? a hold / posted? still open?      (settle, void, reverse)
//!   accounts      found? owned by the actor? one currency?
//!   contents      same accounts, currency, code, amount as the reference?
//!   status        closed? frozen?
//!   amount        balancing takes what the limits leave
//!   overflow      each sum, held and posted together, the time-out
//!   limits        funds, credits, the day
//!   emptiness     of an account that a settled hold closes for good
//!   own time      of what is imported: over, and after both accounts were opened
//! ```
//!
//! **Invariant:** what a hold reserves is checked when it is made. Settling or voiding it adds nothing to
//! either side's total, so neither can be refused by a limit, an overflow or a freeze.

use tally_protocol::message::{Role, TransferKind, transfer_flags};
use tally_protocol::{AccountStatus, Amount, Refusal, Timestamp};

use crate::account::{Account, Sums};
use crate::actor::Actor;
use crate::closing::{Closes, StatusChange};
use crate::hold::{Hold, HoldEnd};
use crate::imported::{check_time, own_time};
use crate::leg::Leg;
use crate::outcome::Outcome;
use crate::permissions::owns;
use crate::reference::{Posted, Reference};
use crate::transfer::{CLOSING, Transfer};

/// Decides one transfer. Pure: nothing is read but the arguments, and nothing is written.
///
/// `debit` and `credit` are the accounts that [`crate::effective_accounts`] named, `None` where there is
/// none. `now` is the time stamp that the record will carry, so that a replay decides the same. Every
/// refusal is one that is recorded ([`Refusal::consumes_id`]).
#[inline]
pub fn decide(
    transfer: &Transfer,
    reference: &Reference,
    debit: Option<&Account>,
    credit: Option<&Account>,
    actor: &Actor,
    now: Timestamp,
) -> Outcome {
    match check(transfer, reference, debit, credit, actor, now) {
        Ok(outcome) => outcome,
        Err(refusal) => {
            assert!(refusal.consumes_id(), "{refusal} would not be recorded");
            Outcome::refused(refusal, debit, credit)
        }
    }
}

/// Ends a hold whose time has run out. Never refused: it only gives back.
pub fn expire_hold(hold: &Hold, debit: &Account, credit: &Account) -> Outcome {
    end_hold(hold, (Amount::ZERO, hold.amount), hold.closes.ended(HoldEnd::Expired), debit, credit)
}

/// What a transfer acts on, once the reference has been looked at.
enum Act<'a> {
    /// Moves `amount`, or reserves it.
    Move,
    /// Ends this hold.
    End(&'a Hold),
    /// Moves back what this transfer moved.
    MoveBack(&'a Posted),
}

fn check(
    transfer: &Transfer,
    reference: &Reference,
    debit: Option<&Account>,
    credit: Option<&Account>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Outcome, Refusal> {
    let act = check_reference(transfer, reference, now)?;
    let debit = debit.ok_or(Refusal::DebitAccountNotFound)?;
    let credit = credit.ok_or(Refusal::CreditAccountNotFound)?;
    check_owner(transfer, debit, credit, actor)?;
    check_currency(transfer, debit, credit)?;
    let outcome = match act {
        Act::Move => check_move(transfer, debit, credit, now),
        Act::End(hold) => check_end(transfer, hold, debit, credit),
        Act::MoveBack(posted) => check_move_back(transfer, posted, debit, credit, actor),
    };
    if transfer.has(transfer_flags::IMPORTED) && outcome.is_ok() {
        check_time(own_time(transfer.user_data_64)?, debit, credit, now)?;
    }
    outcome
}

fn check_reference<'a>(transfer: &Transfer, reference: &'a Reference, now: Timestamp) -> Result<Act<'a>, Refusal> {
    match transfer.kind {
        TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => Ok(Act::Move),
        TransferKind::Settle | TransferKind::Void => {
            let hold = reference.open_hold()?;
            if hold.expires_at <= now { Err(Refusal::HoldExpired) } else { Ok(Act::End(hold)) }
        }
        TransferKind::Reverse => reference.posted().map(Act::MoveBack),
    }
}

/// Staff act for any customer. A customer pays out of accounts of their own, and ends holds in their own
/// favour only: the payer can neither take a hold back nor settle it for less than was promised. Into the bank's own
/// accounts they pay nothing: cash goes in and out over the counter, also where a deposit is reversed.
#[inline]
fn check_owner(transfer: &Transfer, debit: &Account, credit: &Account, actor: &Actor) -> Result<(), Refusal> {
    let payee = match transfer.leg {
        // Whom the payer named, not the settlement account that stands for them here.
        Leg::Source => transfer.credit_account_id,
        Leg::Whole | Leg::Inner | Leg::Destination => credit.id,
    };
    let owner = match transfer.kind {
        TransferKind::Settle | TransferKind::Void => credit.owner,
        TransferKind::Transfer
        | TransferKind::Deposit
        | TransferKind::Withdraw
        | TransferKind::Hold
        | TransferKind::Reverse => debit.owner,
    };
    let permitted = match actor.role {
        Role::Teller | Role::Admin => true,
        Role::Customer => owns(actor, owner) && !payee.is_house(),
        Role::Auditor => false,
    };
    if permitted { Ok(()) } else { Err(Refusal::NotOwner) }
}

#[inline]
fn check_currency(transfer: &Transfer, debit: &Account, credit: &Account) -> Result<(), Refusal> {
    if debit.currency != credit.currency {
        // The client named only one account here: the other is the till of the transfer's currency.
        let till = matches!(transfer.kind, TransferKind::Deposit | TransferKind::Withdraw);
        return Err(if till { Refusal::TransferCurrencyMismatch } else { Refusal::AccountsCurrencyMismatch });
    }
    let takes_reference = crate::transfer::takes_reference(transfer.kind);
    if !takes_reference && transfer.currency != Some(debit.currency) {
        return Err(Refusal::TransferCurrencyMismatch);
    }
    Ok(())
}

/// Both ways of being closed: what is new is stopped by either.
const CLOSED: &[AccountStatus] = &[AccountStatus::Closed, AccountStatus::Closing];

/// Whether both accounts take something new. One look at each is enough for nearly all transfers.
#[inline]
fn check_open(debit: &Account, credit: &Account) -> Result<(), Refusal> {
    if debit.status == AccountStatus::Open && credit.status == AccountStatus::Open {
        return Ok(());
    }
    check_not_closed(debit, credit, CLOSED)?;
    check_not_frozen(debit, credit)
}

fn check_not_closed(debit: &Account, credit: &Account, closed: &[AccountStatus]) -> Result<(), Refusal> {
    if closed.contains(&debit.status) {
        return Err(Refusal::DebitAccountClosed);
    }
    if closed.contains(&credit.status) {
        return Err(Refusal::CreditAccountClosed);
    }
    Ok(())
}

fn check_not_frozen(debit: &Account, credit: &Account) -> Result<(), Refusal> {
    if debit.status == AccountStatus::Frozen {
        return Err(Refusal::DebitAccountFrozen);
    }
    if credit.status == AccountStatus::Frozen {
        return Err(Refusal::CreditAccountFrozen);
    }
    Ok(())
}

/// A transfer, deposit, withdrawal or hold.
#[inline]
fn check_move(transfer: &Transfer, debit: &Account, credit: &Account, now: Timestamp) -> Result<Outcome, Refusal> {
    check_open(debit, credit)?;
    let amount = balanced(transfer, debit, credit, now);
    let is_hold = transfer.kind == TransferKind::Hold || transfer.leg.awaits_decision();
    check_sums(amount, is_hold, &debit.sums, &credit.sums)?;
    if is_hold && transfer.timeout_s != 0 && now.checked_add_seconds(transfer.timeout_s).is_none() {
        return Err(Refusal::OverflowsTimeout);
    }
    check_limits(amount, debit, credit)?;
    if amount > debit.day_left(now) {
        return Err(Refusal::DayLimitExceeded);
    }
    let (debit_sums, credit_sums) = moved(amount, is_hold, debit, credit);
    let day_spent = plus(debit.spent_on_day_of(now), amount);
    Ok(Outcome {
        refusal: None,
        day: now.day().max(debit.day),
        day_spent,
        amount,
        debit: debit_sums,
        credit: credit_sums,
        status: if transfer.has(CLOSING) { Closes::of_flags(transfer.flags).begun() } else { StatusChange::NONE },
    })
}

/// A settle or a void.
fn check_end(transfer: &Transfer, hold: &Hold, debit: &Account, credit: &Account) -> Result<Outcome, Refusal> {
    check_contents(transfer, hold.currency, debit, credit)?;
    if transfer.code != 0 && transfer.code != hold.code {
        return Err(Refusal::HoldHasDifferentCode);
    }
    let asked = if transfer.amount.is_zero() { hold.amount } else { transfer.amount };
    if asked > hold.amount {
        return Err(Refusal::AmountExceedsHold);
    }
    if transfer.kind == TransferKind::Void {
        if asked != hold.amount {
            return Err(Refusal::ReferenceHasDifferentAmount);
        }
        let status = hold.closes.ended(HoldEnd::Voided);
        return Ok(end_hold(hold, (Amount::ZERO, hold.amount), status, debit, credit));
    }
    // An account with money held on it cannot be closed, so this meets only holds of nothing. What is closing keeps
    // what was promised before.
    check_not_closed(debit, credit, &[AccountStatus::Closed])?;
    let outcome = end_hold(hold, (asked, asked), hold.closes.ended(HoldEnd::Settled), debit, credit);
    if hold.closes.debit && !outcome.debit.is_settled() {
        return Err(Refusal::DebitAccountNotEmpty);
    }
    if hold.closes.credit && !outcome.credit.is_settled() {
        return Err(Refusal::CreditAccountNotEmpty);
    }
    Ok(outcome)
}

/// A reversal.
fn check_move_back(
    transfer: &Transfer,
    posted: &Posted,
    debit: &Account,
    credit: &Account,
    actor: &Actor,
) -> Result<Outcome, Refusal> {
    check_contents(transfer, posted.currency, debit, credit)?;
    if !transfer.amount.is_zero() && transfer.amount != posted.amount {
        return Err(Refusal::ReferenceHasDifferentAmount);
    }
    check_not_closed(debit, credit, CLOSED)?;
    // Staff reverse out of a frozen account: it is how stolen money gets back from where it was stopped.
    if actor.role == Role::Customer {
        check_not_frozen(debit, credit)?;
    }
    let amount = posted.amount;
    check_sums(amount, false, &debit.sums, &credit.sums)?;
    check_limits(amount, debit, credit)?;
    let (debit_sums, credit_sums) = moved(amount, false, debit, credit);
    // A correction is no spending: the day's limit neither stops it nor counts it.
    Ok(Outcome {
        refusal: None,
        day: debit.day,
        day_spent: debit.day_spent,
        amount,
        debit: debit_sums,
        credit: credit_sums,
        status: StatusChange::NONE,
    })
}

/// Whether what the client wrote beside the reference agrees with it.
fn check_contents(
    transfer: &Transfer,
    currency: tally_protocol::Currency,
    debit: &Account,
    credit: &Account,
) -> Result<(), Refusal> {
    if !transfer.debit_account_id.is_none() && transfer.debit_account_id != debit.id {
        return Err(Refusal::ReferenceHasDifferentDebitAccount);
    }
    if !transfer.credit_account_id.is_none() && transfer.credit_account_id != credit.id {
        return Err(Refusal::ReferenceHasDifferentCreditAccount);
    }
    if transfer.currency.is_some_and(|given| given != currency) {
        return Err(Refusal::ReferenceHasDifferentCurrency);
    }
    Ok(())
}

/// The amount, cut down by the balancing flags to what the accounts leave. May come out as nothing, which
/// posts: the client asked for "at most".
#[inline]
fn balanced(transfer: &Transfer, debit: &Account, credit: &Account, now: Timestamp) -> Amount {
    let mut amount = transfer.amount;
    if transfer.has(transfer_flags::BALANCING_DEBIT) {
        let limited = debit.has(tally_protocol::message::account_flags::DEBITS_LIMITED);
        let overdraft = if limited { debit.overdraft } else { Amount::ZERO };
        amount = amount.min(debit.funds_up_to(overdraft)).min(debit.day_left(now));
    }
    if transfer.has(transfer_flags::BALANCING_CREDIT) {
        amount = amount.min(credit.credits_up_to_balance());
    }
    amount
}

/// Whether every sum still fits. Held and posted together bound each of them, so one addition per side
/// tells; only a refusal looks for the name of the sum.
#[inline]
pub(crate) fn check_sums(amount: Amount, is_hold: bool, debit: &Sums, credit: &Sums) -> Result<(), Refusal> {
    if debit.debits().checked_add(amount).is_some() && credit.credits().checked_add(amount).is_some() {
        return Ok(());
    }
    Err(overflowing_sum(amount, is_hold, debit, credit))
}

#[cold]
fn overflowing_sum(amount: Amount, is_hold: bool, debit: &Sums, credit: &Sums) -> Refusal {
    let overflows = |sum: Amount| sum.checked_add(amount).is_none();
    let ladder = [
        (is_hold && overflows(debit.debits_held), Refusal::OverflowsDebitsHeld),
        (is_hold && overflows(credit.credits_held), Refusal::OverflowsCreditsHeld),
        (overflows(debit.debits_posted), Refusal::OverflowsDebitsPosted),
        (overflows(credit.credits_posted), Refusal::OverflowsCreditsPosted),
        (overflows(debit.debits()), Refusal::OverflowsDebits),
        (overflows(credit.credits()), Refusal::OverflowsCredits),
    ];
    let first = ladder.iter().find(|(applies, _)| *applies);
    first.expect("called only when one of the totals overflows").1
}

#[inline]
fn check_limits(amount: Amount, debit: &Account, credit: &Account) -> Result<(), Refusal> {
    if amount > debit.funds_left() {
        return Err(Refusal::InsufficientFunds);
    }
    if amount > credit.credits_left() {
        return Err(Refusal::ExceedsDebits);
    }
    Ok(())
}

/// Both accounts' sums after `amount` was posted or held.
#[inline]
fn moved(amount: Amount, is_hold: bool, debit: &Account, credit: &Account) -> (Sums, Sums) {
    let (mut debit, mut credit) = (debit.sums, credit.sums);
    if is_hold {
        debit.debits_held = plus(debit.debits_held, amount);
        credit.credits_held = plus(credit.credits_held, amount);
    } else {
        debit.debits_posted = plus(debit.debits_posted, amount);
        credit.credits_posted = plus(credit.credits_posted, amount);
    }
    (debit, credit)
}

/// Both accounts after `posted` of `hold` was posted and the rest given back; `amount` is what the outcome reports, `status`
/// what becomes of the accounts. The rest goes back to the day's limit as long as the account still counts the hold's day.
pub(crate) fn end_hold(
    hold: &Hold,
    (posted, amount): (Amount, Amount),
    status: StatusChange,
    debit: &Account,
    credit: &Account,
) -> Outcome {
    let rest = minus(hold.amount, posted);
    let (mut debit_sums, mut credit_sums) = (debit.sums, credit.sums);
    debit_sums.debits_held = minus(debit_sums.debits_held, hold.amount);
    debit_sums.debits_posted = plus(debit_sums.debits_posted, posted);
    credit_sums.credits_held = minus(credit_sums.credits_held, hold.amount);
    credit_sums.credits_posted = plus(credit_sums.credits_posted, posted);
    let same_day = debit.day == hold.timestamp.day();
    // The counter is no money: one that is off must not stop the branch.
    let day_spent = if same_day { debit.day_spent.saturating_sub(rest) } else { debit.day_spent };
    Outcome { refusal: None, day: debit.day, day_spent, amount, debit: debit_sums, credit: credit_sums, status }
}

#[inline]
fn plus(sum: Amount, amount: Amount) -> Amount {
    sum.checked_add(amount).expect("checked before: held and posted together fit")
}

#[inline]
fn minus(sum: Amount, amount: Amount) -> Amount {
    sum.checked_sub(amount).expect("an open hold is part of the sums that it was added to")
}
