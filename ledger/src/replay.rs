//! From a record to the state: what a record does to accounts and holds, without asking the rules again.
//!
//! Used for the live path and for recovery alike, so both arrive at the same state.
//!
//! **Invariant:** a record is applied to an account only when it lies behind the account's last one;
//! applying a stretch of the journal a second time changes nothing.

use tally_protocol::message::TransferKind;
use tally_protocol::{Currency, Lsn, Timestamp, TransferId};

use crate::account::Account;
use crate::hold::{Hold, HoldEnd};
use crate::journal::record::{Record, RecordBody, TransferRecord};

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
}

impl RecordEffect {
    /// The effect of a record that lies at `lsn` and was stamped `timestamp`.
    pub fn of(body: &RecordBody, lsn: Lsn, timestamp: Timestamp) -> Self {
        match body {
            RecordBody::Transfer(record) => Self::of_transfer(record, lsn, timestamp),
            RecordBody::Expired(record) => Self::HoldEnded(record.id, HoldEnd::Expired),
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
    let expires_at = match record.timeout_s {
        0 => Timestamp::MAX,
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
        timestamp,
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
        RecordBody::Account(..) | RecordBody::Transfer(_) | RecordBody::Expired(_) | RecordBody::Cancelled(_) => None,
    }
}
