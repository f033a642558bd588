//! From a record to the state: what a record does to accounts and holds, without asking the rules again.
//!
//! Used for the live path and for recovery alike, so both arrive at the same state.
//!
//! **Invariant:** a record is applied to an account only when it lies behind the account's last one;
//! applying a stretch of the journal a second time changes nothing.

use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Currency, Lsn, Timestamp, TransferId};

use crate::account::Account;
use crate::closing::Closes;
use crate::hold::{Hold, HoldEnd, HoldStage};
use crate::joining::Joining;
use crate::journal::record::{Record, RecordBody, TransferRecord};
use crate::leg::Leg;
use crate::two_phase::Attempt;

/// What a record does beside changing two accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordEffect {
    /// Nothing.
    None,
    /// This hold is open from here on.
    HoldOpened(Hold),
    /// The hold with this id ended.
    HoldEnded(TransferId, HoldEnd),
    /// The transfer with this id was reversed.
    Reversed(TransferId),
    /// The prepared leg with this id was decided, and is no hold any more.
    Decided(TransferId),
    /// The registry let the hold between branches with this id stand.
    HoldKept(TransferId),
    /// In the hold with this id the account `to` has the place of `from`: see [`Hold::rehomed`].
    HoldRehomed {
        /// The hold's.
        id: TransferId,
        /// The account that has gone, or the settlement account of one that has come.
        from: AccountId,
        /// The settlement account that stands for it, or the account itself.
        to: AccountId,
    },
    /// The hold with this id waits for an account that is to join it, or no longer.
    HoldJoining(TransferId, Option<Joining>),
}

impl RecordEffect {
    /// The effect of a record that lies at `lsn` and was stamped `timestamp`.
    pub fn of(body: &RecordBody, lsn: Lsn, timestamp: Timestamp) -> Self {
        match body {
            RecordBody::Transfer(record) => Self::of_transfer(record, lsn, timestamp),
            RecordBody::Expired(record) => Self::HoldEnded(record.id, HoldEnd::Expired),
            RecordBody::Decided(None, record) => match record.kind {
                TransferKind::Hold => Self::HoldKept(record.id),
                TransferKind::Settle => Self::HoldEnded(record.id, HoldEnd::Settled),
                TransferKind::Void => Self::HoldEnded(record.id, HoldEnd::Voided),
                TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Reverse => {
                    Self::Decided(record.id)
                }
            },
            RecordBody::Decided(Some(_), record) => Self::Decided(record.id),
            RecordBody::Rehomed(record) if record.debit_account_id == record.credit_account_id => {
                Self::HoldJoining(record.id, Joining::of_record(record))
            }
            RecordBody::Rehomed(record) => {
                Self::HoldRehomed { id: record.id, from: record.credit_account_id, to: record.debit_account_id }
            }
            RecordBody::Account(..) | RecordBody::Cancelled(_) => Self::None,
        }
    }

    /// As [`RecordEffect::of`], for the record of a transfer.
    #[inline]
    pub fn of_transfer(record: &TransferRecord, lsn: Lsn, timestamp: Timestamp) -> Self {
        if record.refusal.is_some() {
            return Self::None;
        }
        match record.kind {
            TransferKind::Transfer if record.leg.awaits_decision() => {
                Self::HoldOpened(opened_hold(record, lsn, timestamp))
            }
            TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw => Self::None,
            TransferKind::Hold => Self::HoldOpened(opened_hold(record, lsn, timestamp)),
            TransferKind::Settle => Self::HoldEnded(record.reference, HoldEnd::Settled),
            TransferKind::Void => Self::HoldEnded(record.reference, HoldEnd::Voided),
            TransferKind::Reverse => Self::Reversed(record.reference),
        }
    }
}

/// The hold that a record made.
pub(crate) fn opened_hold(record: &TransferRecord, lsn: Lsn, timestamp: Timestamp) -> Hold {
    // Time runs, and the day's limit counts, from when it was made.
    let timestamp = if record.came_along() { Timestamp::from_nanos(record.user_data_64) } else { timestamp };
    let expires_at = match record.timeout_s {
        0 => Timestamp::MAX,
        // The payer's branch looks at the clock.
        _ if record.leg == Leg::Destination => Timestamp::MAX,
        // The rules refuse a time-out that does not fit.
        seconds => timestamp.checked_add_seconds(seconds).unwrap_or(Timestamp::MAX),
    };
    Hold {
        id: record.id,
        debit_account_id: record.debit_account_id,
        credit_account_id: record.credit_account_id,
        amount: record.amount,
        currency: Currency::new(record.currency).unwrap_or_default(),
        code: record.code,
        expires_at,
        lsn,
        leg: record.leg,
        far_account_id: record.far_account_id().unwrap_or_default(),
        timestamp,
        closes: Closes::of_flags(record.flags),
        chain: record.chain,
        stage: match (record.leg.awaits_decision(), record.kind) {
            (false, _) => HoldStage::Open,
            (true, TransferKind::Hold) => HoldStage::AwaitsKeeping,
            (true, _) => HoldStage::AwaitsPosting,
        },
        attempt: Attempt::of_record(record),
    }
}

/// Whether a record of a transfer or an expiry changed its two accounts: a refusal did not.
pub const fn changes_accounts(record: &TransferRecord) -> bool {
    record.refusal.is_none()
}

/// Brings the account that the record debited to the state after it, unless it is there already.
/// Says whether it did.
pub fn redo_debit(account: &mut Account, record: &TransferRecord, lsn: Lsn, timestamp: Timestamp) -> bool {
    assert!(account.id == record.debit_account_id, "record debits {}, not {}", record.debit_account_id, account.id);
    if !changes_accounts(record) || lsn <= account.lsn {
        return false;
    }
    account.sums = record.debit;
    account.status = record.status.debit(account.status);
    account.day = record.day;
    account.day_spent = record.day_spent;
    account.lsn = lsn;
    account.timestamp = timestamp;
    true
}

/// Brings the account that the record credited to the state after it, unless it is there already.
/// Says whether it did.
pub fn redo_credit(account: &mut Account, record: &TransferRecord, lsn: Lsn, timestamp: Timestamp) -> bool {
    assert!(account.id == record.credit_account_id, "record credits {}, not {}", record.credit_account_id, account.id);
    if !changes_accounts(record) || lsn <= account.lsn {
        return false;
    }
    account.sums = record.credit;
    account.status = record.status.credit(account.status);
    account.lsn = lsn;
    account.timestamp = timestamp;
    true
}

/// The account after a record that opened or changed it; `None` when `existing` is at least as new.
pub fn redo_account(existing: Option<&Account>, record: &Record) -> Option<Account> {
    match &record.body {
        RecordBody::Account(_, after) if existing.is_none_or(|account| record.lsn > account.lsn) => {
            Some(Account { lsn: record.lsn, timestamp: record.timestamp, ..after.clone() })
        }
        RecordBody::Account(..)
        | RecordBody::Transfer(_)
        | RecordBody::Expired(_)
        | RecordBody::Decided(..)
        | RecordBody::Rehomed(_)
        | RecordBody::Cancelled(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::Role;
    use tally_protocol::{AccountStatus, Amount, BranchId, CustomerId, Refusal};

    use super::*;
    use crate::journal::record::AccountChange;
    use crate::{Actor, Outcome, Reference, Transfer, cash_account, cash_account_id, decide, transfer_record};

    const BRANCH: BranchId = BranchId::new(1);

    /// A hold of 30 with a time-out of 2 s, stamped 9, from the account at `.0` to the one at `.1`.
    fn held() -> (Account, Account, TransferRecord) {
        let euros = cash_account(BRANCH, Currency::EUR, Timestamp::from_nanos(1));
        let other = Account { id: tally_protocol::AccountId::of_branch(BRANCH, 2), ..euros.clone() };
        let transfer = Transfer {
            id: TransferId::new(4),
            debit_account_id: cash_account_id(BRANCH, Currency::EUR),
            credit_account_id: other.id,
            reference: TransferId::NONE,
            user_data_128: 0,
            amount: Amount::new(30),
            user_data_64: 0,
            user_data_32: 0,
            timeout_s: 2,
            currency: Some(Currency::EUR),
            code: 1,
            flags: 0,
            kind: TransferKind::Hold,
            leg: crate::Leg::Whole,
            peer: BranchId::default(),
            chain: None,
        };
        let actor = Actor { role: Role::Teller, customer: CustomerId::BANK };
        let now = Timestamp::from_nanos(9);
        let outcome = decide(&transfer, &Reference::NotGiven, Some(&euros), Some(&other), &actor, now);
        let record = transfer_record(&transfer, &Reference::NotGiven, BRANCH, &outcome);
        (euros, other, record)
    }

    #[test]
    fn a_record_is_applied_only_behind_the_accounts_last() {
        let (mut debit, mut credit, record) = held();
        let at = Timestamp::from_nanos(9);
        let before = (debit.clone(), credit.clone());
        for lsn in [99, 100] {
            (debit.lsn, credit.lsn) = (Lsn::new(100), Lsn::new(100));
            assert!(!redo_debit(&mut debit, &record, Lsn::new(lsn), at));
            assert!(!redo_credit(&mut credit, &record, Lsn::new(lsn), at));
            assert!(debit.sums == before.0.sums && credit.sums == before.1.sums, "untouched at {lsn}");
        }
        assert!(redo_debit(&mut debit, &record, Lsn::new(101), at));
        assert!(redo_credit(&mut credit, &record, Lsn::new(101), at));
        assert_eq!((debit.sums.debits_held, debit.day_spent), (Amount::new(30), Amount::new(30)));
        assert_eq!((credit.sums.credits_held, credit.day_spent), (Amount::new(30), Amount::ZERO));
        assert_eq!((debit.lsn, credit.lsn, credit.timestamp), (Lsn::new(101), Lsn::new(101), at));
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let (debit, _, record) = held();
        let refused = Outcome::refused(Refusal::InsufficientFunds, Some(&debit), None);
        let record = TransferRecord { refusal: refused.refusal, ..record };
        let mut after = debit.clone();
        assert!(!redo_debit(&mut after, &record, Lsn::new(500), Timestamp::from_nanos(9)));
        assert_eq!(after, debit);
        assert_eq!(RecordEffect::of_transfer(&record, Lsn::new(500), Timestamp::default()), RecordEffect::None);
    }

    #[test]
    fn a_hold_comes_out_of_its_record() {
        let (debit, credit, record) = held();
        let body = RecordBody::Transfer(record);
        let effect = RecordEffect::of(&body, Lsn::new(64), Timestamp::from_nanos(9));
        let RecordEffect::HoldOpened(hold) = effect else { panic!("{effect:?}") };
        assert_eq!((hold.id, hold.debit_account_id, hold.credit_account_id), (record.id, debit.id, credit.id));
        assert_eq!((hold.amount, hold.lsn, hold.code), (Amount::new(30), Lsn::new(64), 1));
        assert_eq!(hold.expires_at, Timestamp::from_nanos(2_000_000_009));
        let ended = RecordEffect::of(&RecordBody::Expired(record), Lsn::new(80), Timestamp::from_nanos(99));
        assert_eq!(ended, RecordEffect::HoldEnded(record.id, HoldEnd::Expired));
    }

    #[test]
    fn an_account_record_is_the_account_unless_it_is_older() {
        let (account, _, _) = held();
        let frozen = Account { status: AccountStatus::Frozen, ..account.clone() };
        let body = RecordBody::Account(AccountChange::Frozen, frozen);
        let record = Record { lsn: Lsn::new(64), timestamp: Timestamp::from_nanos(9), actor: CustomerId::BANK, body };
        let after = redo_account(Some(&account), &record).expect("newer");
        assert_eq!((after.status, after.lsn, after.timestamp), (AccountStatus::Frozen, record.lsn, record.timestamp));
        assert_eq!(redo_account(None, &record), Some(after.clone()));
        assert_eq!(redo_account(Some(&after), &record), None);
    }
}
