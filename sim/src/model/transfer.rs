//! One transfer: what the answer must be, given everything that was recorded before it.

use tally_ledger::Actor;
use tally_protocol::message::{Role, TransferKind, transfer_flags};
use tally_protocol::{AccountId, AccountStatus, Lsn, Refusal, TransferId};

use super::account::DAY_NS;
use super::form::cash_account;
use super::{Model, ModelAccount, ModelEnd, ModelHold, ModelSums, Used};

/// A well-formed transfer as it was asked for; 0 where something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Raw id.
    pub id: u128,
    /// What it does.
    pub kind: TransferKind,
    /// Raw id of the debit account.
    pub debit: u128,
    /// Raw id of the credit account.
    pub credit: u128,
    /// Raw id of the earlier transfer.
    pub reference: u128,
    /// Minor units.
    pub amount: u64,
    /// The client's own: 128, 64 and 32 bits.
    pub user_data: (u128, u64, u32),
    /// Seconds.
    pub timeout_s: u32,
    /// ISO 4217.
    pub currency: u16,
    /// Reason code.
    pub code: u16,
    /// [`transfer_flags`].
    pub flags: u16,
}

/// The answer that must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why nothing is done; `None` when it is.
    pub refusal: Option<Refusal>,
    /// What is moved.
    pub amount: u64,
    /// The account that pays; as asked for where the reference leads nowhere.
    pub debit: u128,
    /// The account that is paid.
    pub credit: u128,
    /// The debit account's sums after it.
    pub debit_sums: ModelSums,
    /// The credit account's sums after it.
    pub credit_sums: ModelSums,
    /// Currency and code that took effect.
    pub currency: u16,
    /// See `currency`.
    pub code: u16,
}

/// Which kinds act on an earlier transfer.
pub(super) trait Referring {
    /// Whether this one does.
    fn refers(self) -> bool;
}

impl Referring for TransferKind {
    fn refers(self) -> bool {
        matches!(self, Self::Settle | Self::Void | Self::Reverse)
    }
}

/// What a transfer will do, once its reference was looked at.
#[derive(Clone, Copy)]
enum Plan {
    Move,
    EndHold(ModelHold),
    SendBack { amount: u64, currency: u16 },
}

/// The two accounts after a transfer that was done.
struct Moved {
    amount: u64,
    debit: ModelAccount,
    credit: ModelAccount,
}

impl Model {
    /// A transfer is recorded at `lsn` with stamp `now`. What the answer must be; the model changes accordingly.
    pub fn transfer(&mut self, ask: &Ask, actor: &Actor, lsn: Lsn, now: u64) -> Verdict {
        self.advance(lsn);
        let verdict = self.judge(ask, actor, now);
        self.note(ask, verdict, lsn, now);
        verdict
    }

    /// The hold's time ran out and the branch recorded it at `lsn`. `None` when there is no such hold, or it is
    /// not due.
    pub fn expire(&mut self, id: TransferId, lsn: Lsn, now: u64) -> Option<Verdict> {
        self.advance(lsn);
        let hold = *self.holds.get(&id)?;
        if hold.expires_at > now {
            return None;
        }
        let debit = self.account(hold.debit)?.clone();
        let credit = self.account(hold.credit)?.clone();
        let moved = end_hold(&hold, ModelEnd::Expired, 0, debit, credit);
        let verdict = self.store(moved, (hold.currency, hold.code), lsn, now);
        self.end_hold(id, ModelEnd::Expired);
        Some(verdict)
    }

    pub(super) fn note(&mut self, ask: &Ask, verdict: Verdict, lsn: Lsn, timestamp: u64) {
        self.set_used(TransferId::new(ask.id), Used::Transfer { ask: *ask, verdict, lsn, timestamp });
    }

    /// The answer where nothing is done.
    pub(super) fn refused(&self, ask: &Ask, refusal: Refusal) -> Verdict {
        let (debit, credit) = self.sides(ask);
        let (currency, code) = self.currency_and_code(ask);
        let sums = |id: u128| self.account(id).map_or(ModelSums::default(), |account| account.sums);
        let (debit_sums, credit_sums) = (sums(debit), sums(credit));
        Verdict { refusal: Some(refusal), amount: 0, debit, credit, debit_sums, credit_sums, currency, code }
    }

    /// Those that take effect: as asked for, or those of the reference.
    fn currency_and_code(&self, ask: &Ask) -> (u16, u16) {
        let (currency, code) = self.referred(ask).unwrap_or_default();
        let or = |given: u16, other: u16| if given == 0 { other } else { given };
        (or(ask.currency, currency), or(ask.code, code))
    }

    /// What the answer must be; accounts, holds and ends change when it is done.
    pub(super) fn judge(&mut self, ask: &Ask, actor: &Actor, now: u64) -> Verdict {
        let plan = self.plan(ask, now);
        let (debit, credit) = self.sides(ask);
        let (currency, code) = self.currency_and_code(ask);
        let outcome = plan.and_then(|plan| {
            let debit = self.account(debit).cloned().ok_or(Refusal::DebitAccountNotFound)?;
            let credit = self.account(credit).cloned().ok_or(Refusal::CreditAccountNotFound)?;
            check_owner(ask.kind, &debit, &credit, actor)?;
            check_currency(ask, &debit, &credit)?;
            let opened = [&debit, &credit].map(|account| (account.id, account.opened_at));
            let moved = match plan {
                Plan::Move => plain(ask, debit, credit, now)?,
                Plan::EndHold(hold) => ending(ask, &hold, debit, credit)?,
                Plan::SendBack { amount, currency } => sending_back(ask, amount, currency, debit, credit, actor)?,
            };
            check_own_time(ask, opened, now)?;
            Ok(moved)
        });
        match outcome {
            Ok(moved) => {
                let verdict = self.store(moved, (currency, code), self.at, now);
                self.follow_up(ask, &verdict, now);
                verdict
            }
            Err(refusal) => self.refused(ask, refusal),
        }
    }

    /// What the reference allows.
    fn plan(&self, ask: &Ask, now: u64) -> Result<Plan, Refusal> {
        if !ask.kind.refers() {
            return Ok(Plan::Move);
        }
        let id = TransferId::new(ask.reference);
        let Some(Used::Transfer { ask: earlier, verdict, .. }) = self.used.get(&id) else {
            return Err(Refusal::ReferenceNotFound);
        };
        if verdict.refusal.is_some() {
            return Err(Refusal::ReferenceNotFound);
        }
        let was_hold = earlier.kind == TransferKind::Hold;
        let end = self.ended.get(&id).map(|(end, _)| *end);
        if ask.kind == TransferKind::Reverse {
            return match (earlier.kind, end) {
                (TransferKind::Hold | TransferKind::Void | TransferKind::Reverse, _) => {
                    Err(Refusal::ReferenceKindMismatch)
                }
                (_, Some(_)) => Err(Refusal::AlreadyReversed),
                (_, None) => Ok(Plan::SendBack { amount: verdict.amount, currency: verdict.currency }),
            };
        }
        if !was_hold {
            return Err(Refusal::ReferenceKindMismatch);
        }
        match end {
            Some(ModelEnd::Settled) => Err(Refusal::HoldAlreadySettled),
            Some(ModelEnd::Voided) => Err(Refusal::HoldAlreadyVoided),
            Some(ModelEnd::Expired) => Err(Refusal::HoldExpired),
            Some(ModelEnd::Reversed) => unreachable!("a hold is not reversed"),
            None => {
                let hold = *self.holds.get(&id).expect("a hold without an end is open");
                if hold.expires_at <= now { Err(Refusal::HoldExpired) } else { Ok(Plan::EndHold(hold)) }
            }
        }
    }

    /// The accounts that are debited and credited.
    fn sides(&self, ask: &Ask) -> (u128, u128) {
        let cash = || cash_account(self.branch, ask.currency).expect("a well-formed transfer has a currency");
        match ask.kind {
            TransferKind::Transfer | TransferKind::Hold => (ask.debit, ask.credit),
            TransferKind::Deposit => (cash(), ask.credit),
            TransferKind::Withdraw => (ask.debit, cash()),
            TransferKind::Settle | TransferKind::Void => match self.holds.get(&TransferId::new(ask.reference)) {
                Some(hold) => (hold.debit, hold.credit),
                None => (ask.debit, ask.credit),
            },
            TransferKind::Reverse => match self.plan(ask, 0) {
                Ok(_) => match self.used.get(&TransferId::new(ask.reference)) {
                    Some(Used::Transfer { verdict, .. }) => (verdict.credit, verdict.debit),
                    Some(Used::Cancelled { .. }) | None => unreachable!("it was planned"),
                },
                Err(_) => (ask.debit, ask.credit),
            },
        }
    }

    /// Currency and code of what is referred to, where it can be acted on.
    fn referred(&self, ask: &Ask) -> Option<(u16, u16)> {
        if !ask.kind.refers() {
            return None;
        }
        let id = TransferId::new(ask.reference);
        if let Some(hold) = self.holds.get(&id) {
            return Some((hold.currency, hold.code));
        }
        match self.used.get(&id)? {
            Used::Transfer { ask: earlier, verdict, .. }
                if verdict.refusal.is_none()
                    && !self.ended.contains_key(&id)
                    && !matches!(earlier.kind, TransferKind::Void | TransferKind::Reverse) =>
            {
                Some((verdict.currency, verdict.code))
            }
            Used::Transfer { .. } | Used::Cancelled { .. } => None,
        }
    }

    fn store(&mut self, moved: Moved, (currency, code): (u16, u16), lsn: Lsn, now: u64) -> Verdict {
        let Moved { amount, mut debit, mut credit } = moved;
        (debit.lsn, debit.timestamp) = (lsn, now);
        (credit.lsn, credit.timestamp) = (lsn, now);
        let verdict = Verdict {
            refusal: None,
            amount,
            debit: debit.id,
            credit: credit.id,
            debit_sums: debit.sums,
            credit_sums: credit.sums,
            currency,
            code,
        };
        self.set_account(debit);
        self.set_account(credit);
        verdict
    }

    /// What a done transfer does beside moving money.
    fn follow_up(&mut self, ask: &Ask, verdict: &Verdict, now: u64) {
        let reference = TransferId::new(ask.reference);
        match ask.kind {
            TransferKind::Hold => {
                let expires_at = match ask.timeout_s {
                    0 => u64::MAX,
                    seconds => now + u64::from(seconds) * 1_000_000_000,
                };
                let hold = ModelHold {
                    debit: verdict.debit,
                    credit: verdict.credit,
                    amount: verdict.amount,
                    currency: verdict.currency,
                    code: verdict.code,
                    expires_at,
                    day: now / DAY_NS,
                    closes: closes(ask),
                };
                self.open_hold(TransferId::new(ask.id), hold);
            }
            TransferKind::Settle => self.end_hold(reference, ModelEnd::Settled),
            TransferKind::Void => self.end_hold(reference, ModelEnd::Voided),
            TransferKind::Reverse => self.set_ended(reference, ModelEnd::Reversed),
            TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw => {}
        }
    }
}

fn check_owner(kind: TransferKind, debit: &ModelAccount, credit: &ModelAccount, actor: &Actor) -> Result<(), Refusal> {
    let decides = if matches!(kind, TransferKind::Settle | TransferKind::Void) { credit } else { debit };
    let may = match actor.role {
        Role::Teller | Role::Admin => true,
        Role::Customer => {
            actor.customer.get() != 0 && decides.owner == actor.customer.get() && !AccountId::new(credit.id).is_house()
        }
        Role::Auditor => false,
    };
    if may { Ok(()) } else { Err(Refusal::NotOwner) }
}

fn check_currency(ask: &Ask, debit: &ModelAccount, credit: &ModelAccount) -> Result<(), Refusal> {
    if debit.currency != credit.currency {
        let names_both = !matches!(ask.kind, TransferKind::Deposit | TransferKind::Withdraw);
        return Err(if names_both { Refusal::AccountsCurrencyMismatch } else { Refusal::TransferCurrencyMismatch });
    }
    if !ask.kind.refers() && ask.currency != debit.currency {
        return Err(Refusal::TransferCurrencyMismatch);
    }
    Ok(())
}

/// Which of its sides a hold closes.
const fn closes(ask: &Ask) -> (bool, bool) {
    (ask.flags & transfer_flags::CLOSING_DEBIT != 0, ask.flags & transfer_flags::CLOSING_CREDIT != 0)
}

/// What was imported is over, and later than both accounts; tills were always there.
fn check_own_time(ask: &Ask, [debit, credit]: [(u128, u64); 2], now: u64) -> Result<(), Refusal> {
    if ask.flags & transfer_flags::IMPORTED == 0 {
        return Ok(());
    }
    let own = ask.user_data.1;
    let is_before = |(id, opened_at): (u128, u64)| !AccountId::new(id).is_house() && own <= opened_at;
    first(&[
        (own >= now, Refusal::ImportedEventTimestampMustNotAdvance),
        (is_before(debit), Refusal::ImportedEventTimestampMustPostdateDebitAccount),
        (is_before(credit), Refusal::ImportedEventTimestampMustPostdateCreditAccount),
    ])
}

/// `frozen_may`, `closing_may`: whether such accounts take part.
fn check_status(
    debit: &ModelAccount,
    credit: &ModelAccount,
    frozen_may: bool,
    closing_may: bool,
) -> Result<(), Refusal> {
    let is_closed = |account: &ModelAccount| match account.status {
        AccountStatus::Closed => true,
        AccountStatus::Closing => !closing_may,
        AccountStatus::Open | AccountStatus::Frozen => false,
        AccountStatus::Moving | AccountStatus::Moved | AccountStatus::Arriving => {
            unreachable!("nothing moves where there is one branch")
        }
    };
    let ladder = [
        (is_closed(debit), Refusal::DebitAccountClosed),
        (is_closed(credit), Refusal::CreditAccountClosed),
        (debit.status == AccountStatus::Frozen && !frozen_may, Refusal::DebitAccountFrozen),
        (credit.status == AccountStatus::Frozen && !frozen_may, Refusal::CreditAccountFrozen),
    ];
    first(&ladder)
}

fn check_room(amount: u128, is_hold: bool, debit: &ModelSums, credit: &ModelSums) -> Result<(), Refusal> {
    let over = |sum: u128| sum + amount > u128::from(u64::MAX);
    let ladder = [
        (is_hold && over(debit.debits_held.into()), Refusal::OverflowsDebitsHeld),
        (is_hold && over(credit.credits_held.into()), Refusal::OverflowsCreditsHeld),
        (over(debit.debits()) && over(debit.debits_posted.into()), Refusal::OverflowsDebitsPosted),
        (over(credit.credits()) && over(credit.credits_posted.into()), Refusal::OverflowsCreditsPosted),
        (over(debit.debits()), Refusal::OverflowsDebits),
        (over(credit.credits()), Refusal::OverflowsCredits),
    ];
    first(&ladder)
}

fn check_limits(amount: u128, debit: &ModelAccount, credit: &ModelAccount) -> Result<(), Refusal> {
    let ladder = [
        (debit.debits_are_limited() && amount > debit.room_to_debit(debit.overdraft), Refusal::InsufficientFunds),
        (credit.credits_are_limited() && amount > credit.room_to_credit(), Refusal::ExceedsDebits),
    ];
    first(&ladder)
}

fn first(ladder: &[(bool, Refusal)]) -> Result<(), Refusal> {
    ladder.iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, refusal)| Err(*refusal))
}

fn narrow(amount: u128) -> u64 {
    u64::try_from(amount).expect("what may be moved fits in 64 bits")
}

/// A transfer, deposit, withdrawal or hold.
fn plain(ask: &Ask, mut debit: ModelAccount, mut credit: ModelAccount, now: u64) -> Result<Moved, Refusal> {
    check_status(&debit, &credit, false, false)?;
    let mut amount = u128::from(ask.amount);
    if ask.flags & transfer_flags::BALANCING_DEBIT != 0 {
        let overdraft = if debit.debits_are_limited() { debit.overdraft } else { 0 };
        amount = amount.min(debit.room_to_debit(overdraft)).min(debit.day_left(now));
    }
    if ask.flags & transfer_flags::BALANCING_CREDIT != 0 {
        amount = amount.min(credit.room_to_credit());
    }
    let is_hold = ask.kind == TransferKind::Hold;
    check_room(amount, is_hold, &debit.sums, &credit.sums)?;
    if is_hold && u128::from(now) + u128::from(ask.timeout_s) * 1_000_000_000 > u128::from(u64::MAX) {
        return Err(Refusal::OverflowsTimeout);
    }
    check_limits(amount, &debit, &credit)?;
    if amount > debit.day_left(now) {
        return Err(Refusal::DayLimitExceeded);
    }
    let amount = narrow(amount);
    debit.day_spent = debit.spent_on(now) + amount;
    debit.day = debit.day.max(now / DAY_NS);
    if is_hold {
        debit.sums.debits_held += amount;
        credit.sums.credits_held += amount;
        let (closes_debit, closes_credit) = closes(ask);
        for (account, closes) in [(&mut debit, closes_debit), (&mut credit, closes_credit)] {
            if closes {
                account.status = AccountStatus::Closing;
            }
        }
    } else {
        debit.sums.debits_posted += amount;
        credit.sums.credits_posted += amount;
    }
    Ok(Moved { amount, debit, credit })
}

/// A settle or a void.
fn ending(ask: &Ask, hold: &ModelHold, debit: ModelAccount, credit: ModelAccount) -> Result<Moved, Refusal> {
    check_contents(ask, &debit, &credit, hold.currency)?;
    let amount = if ask.amount == 0 { hold.amount } else { ask.amount };
    let ladder = [
        (ask.code != 0 && ask.code != hold.code, Refusal::HoldHasDifferentCode),
        (amount > hold.amount, Refusal::AmountExceedsHold),
        (ask.kind == TransferKind::Void && amount != hold.amount, Refusal::ReferenceHasDifferentAmount),
    ];
    first(&ladder)?;
    if ask.kind == TransferKind::Void {
        return Ok(end_hold(hold, ModelEnd::Voided, 0, debit, credit));
    }
    check_status(&debit, &credit, true, true)?;
    let moved = end_hold(hold, ModelEnd::Settled, amount, debit, credit);
    let is_empty =
        |sums: &ModelSums| sums.debits_held == 0 && sums.credits_held == 0 && sums.debits_posted == sums.credits_posted;
    first(&[
        (hold.closes.0 && !is_empty(&moved.debit.sums), Refusal::DebitAccountNotEmpty),
        (hold.closes.1 && !is_empty(&moved.credit.sums), Refusal::CreditAccountNotEmpty),
    ])?;
    Ok(moved)
}

/// A reversal.
fn sending_back(
    ask: &Ask,
    amount: u64,
    currency: u16,
    mut debit: ModelAccount,
    mut credit: ModelAccount,
    actor: &Actor,
) -> Result<Moved, Refusal> {
    check_contents(ask, &debit, &credit, currency)?;
    if ask.amount != 0 && ask.amount != amount {
        return Err(Refusal::ReferenceHasDifferentAmount);
    }
    check_status(&debit, &credit, actor.role != Role::Customer, false)?;
    check_room(amount.into(), false, &debit.sums, &credit.sums)?;
    check_limits(amount.into(), &debit, &credit)?;
    debit.sums.debits_posted += amount;
    credit.sums.credits_posted += amount;
    Ok(Moved { amount, debit, credit })
}

fn check_contents(ask: &Ask, debit: &ModelAccount, credit: &ModelAccount, currency: u16) -> Result<(), Refusal> {
    let differs = |given: u128, found: u128| given != 0 && given != found;
    let ladder = [
        (differs(ask.debit, debit.id), Refusal::ReferenceHasDifferentDebitAccount),
        (differs(ask.credit, credit.id), Refusal::ReferenceHasDifferentCreditAccount),
        (differs(ask.currency.into(), currency.into()), Refusal::ReferenceHasDifferentCurrency),
    ];
    first(&ladder)
}

/// Both accounts after a hold ended with `posted` of it posted.
fn end_hold(hold: &ModelHold, end: ModelEnd, posted: u64, mut debit: ModelAccount, mut credit: ModelAccount) -> Moved {
    let (status, amount) = match end {
        ModelEnd::Settled => (AccountStatus::Closed, posted),
        ModelEnd::Voided | ModelEnd::Expired => (AccountStatus::Open, hold.amount),
        ModelEnd::Reversed => unreachable!("a hold is not reversed"),
    };
    if hold.closes.0 {
        debit.status = status;
    }
    if hold.closes.1 {
        credit.status = status;
    }
    debit.sums.debits_held -= hold.amount;
    debit.sums.debits_posted += posted;
    credit.sums.credits_held -= hold.amount;
    credit.sums.credits_posted += posted;
    if debit.day == hold.day {
        debit.day_spent = debit.day_spent.saturating_sub(hold.amount - posted);
    }
    Moved { amount, debit, credit }
}
