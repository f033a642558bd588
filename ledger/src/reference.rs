//! What is known of the transfer that a settle, void or reversal names, and which accounts follow from it.
//!
//! The shell finds it out before the rules run: open holds are in memory, everything older is a record of
//! the journal. [`Reference::of_record`] reads a record for it, so that the shell need not know the rules.

use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, BranchId, Currency, Lsn, Refusal, Timestamp};

use crate::hold::{Hold, HoldEnd, HoldStage};
use crate::journal::record::{RecordBody, TransferRecord};
use crate::leg::{Leg, settlement_account_id};
use crate::replay::opened_hold;
use crate::transfer::{Transfer, cash_account_id};

/// A posted transfer that a reversal may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The account that it debited; the reversal credits it.
    pub debit_account_id: AccountId,
    /// The account that it credited; the reversal debits it.
    pub credit_account_id: AccountId,
    /// What it moved.
    pub amount: Amount,
    /// What that is counted in.
    pub currency: Currency,
    /// Its reason code.
    pub code: u16,
}

/// What became of a transfer later on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was a hold, and ended.
    Hold(HoldEnd),
    /// It was posted, and reversed.
    Reversed,
    /// It was a leg, and the registry decided: posted, or given back for this reason.
    Decided(Option<Refusal>),
    /// It was a part of a hold between branches, and has gone with its account to this branch, which has the other part.
    Gone(BranchId),
}

/// What was found out about the id in a transfer's `reference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The kind takes none.
    NotGiven,
    /// No transfer has this id, or a cancel burnt it.
    Absent,
    /// A transfer with this id was refused: nothing happened under it.
    Refused,
    /// An open hold.
    Open(Hold),
    /// A hold that ended.
    Ended(HoldEnd),
    /// A posted transfer: a plain one, a deposit, a withdrawal, or the settle of a hold.
    Posted(Posted),
    /// A posted transfer that was reversed.
    ReversedBefore,
    /// A void, a reversal, or a part of a transfer between branches: neither a hold, nor anything that can be
    /// reversed.
    Neither,
    /// A hold between branches that cannot be acted on here (`HoldElsewhere`) or now (`Busy`: the registry has not
    /// decided; `AccountMoving`: an account of it is on its way). Whoever names it is refused without a trace, so the rules never see it.
    NotNow(Refusal),
}

impl Ended {
    /// What `body` ended, if it ended something: the record's `reference`, or for an expiry its `id`, names it.
    pub fn of_record(body: &RecordBody) -> Option<Self> {
        match body {
            RecordBody::Expired(_) => Some(Self::Hold(HoldEnd::Expired)),
            RecordBody::Decided(None, record) => match record.kind {
                // It stands.
                TransferKind::Hold => None,
                TransferKind::Settle => Some(Self::Hold(HoldEnd::Settled)),
                TransferKind::Void => Some(Self::Hold(HoldEnd::Voided)),
                TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Reverse => {
                    Some(Self::Decided(None))
                }
            },
            RecordBody::Decided(Some(Refusal::HoldElsewhere), record) => Some(Self::Gone(record.peer())),
            RecordBody::Decided(Some(refusal), _) => Some(Self::Decided(Some(*refusal))),
            RecordBody::Transfer(record) if record.refusal.is_none() => match record.kind {
                TransferKind::Settle => Some(Self::Hold(HoldEnd::Settled)),
                TransferKind::Void => Some(Self::Hold(HoldEnd::Voided)),
                TransferKind::Reverse => Some(Self::Reversed),
                TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => None,
            },
            RecordBody::Transfer(_) | RecordBody::Rehomed(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => {
                None
            }
        }
    }
}

impl Reference {
    /// Reads the record under the referred id, which lies at `lsn` and was stamped `timestamp`; `ended` is
    /// what a later record did to it.
    pub fn of_record(body: &RecordBody, lsn: Lsn, timestamp: Timestamp, ended: Option<Ended>) -> Self {
        match body {
            RecordBody::Transfer(record) => Self::of_transfer(record, lsn, timestamp, ended),
            RecordBody::Expired(_) => Self::Ended(HoldEnd::Expired),
            RecordBody::Decided(..) | RecordBody::Rehomed(_) => Self::Neither,
            RecordBody::Account(..) | RecordBody::Cancelled(_) => Self::Absent,
        }
    }

    pub(crate) fn of_transfer(record: &TransferRecord, lsn: Lsn, timestamp: Timestamp, ended: Option<Ended>) -> Self {
        match (record.refusal, ended) {
            (Some(_), _) => return Self::Refused,
            (None, Some(Ended::Gone(_))) => return Self::NotNow(Refusal::HoldElsewhere),
            // Also of the payee's part, where the payer has joined it.
            (None, Some(Ended::Hold(end))) => return Self::Ended(end),
            // Also of a payee's part that was given back: the payer's branch may have lost its own in a crash, and know nothing.
            (None, Some(Ended::Decided(Some(_)))) => return Self::Refused,
            (None, _) if record.leg == Leg::Destination && record.kind == TransferKind::Hold => {
                return Self::NotNow(Refusal::HoldElsewhere);
            }
            (None, Some(Ended::Reversed)) => return Self::ReversedBefore,
            // What another branch has a part in is not undone here alone: a transfer, a member of its chain, and the settle
            // of a hold.
            (None, _) if record.leg.awaits_decision() && record.kind != TransferKind::Hold => return Self::Neither,
            (None, _)
                if record.credit_account_id.settlement_peer().is_some() && record.kind == TransferKind::Settle =>
            {
                return Self::Neither;
            }
            (None, _) => {}
        }
        match record.kind {
            TransferKind::Hold => Self::Open(opened_hold(record, lsn, timestamp)),
            TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Settle => {
                Self::Posted(Posted {
                    debit_account_id: record.debit_account_id,
                    credit_account_id: record.credit_account_id,
                    amount: record.amount,
                    currency: Currency::new(record.currency).unwrap_or_default(),
                    code: record.code,
                })
            }
            TransferKind::Void | TransferKind::Reverse => Self::Neither,
        }
    }

    /// What an open hold is to a transfer that names it: what the registry decides nobody else ends, and a hold between
    /// branches is ended by the payer's branch.
    pub const fn of_open(hold: Hold) -> Self {
        match (hold.stage, hold.leg) {
            (HoldStage::AwaitsPosting, _) => Self::Neither,
            (HoldStage::Joining(_), _) => Self::NotNow(Refusal::AccountMoving),
            (_, Leg::Destination) => Self::NotNow(Refusal::HoldElsewhere),
            (HoldStage::AwaitsKeeping, _) => Self::NotNow(Refusal::Busy),
            (HoldStage::Open, _) => Self::Open(hold),
            // Not among the open ones.
            (HoldStage::Ended(end), _) => Self::Ended(end),
        }
    }

    /// The open hold that a settle or void needs.
    pub(crate) fn open_hold(&self) -> Result<&Hold, Refusal> {
        match self {
            Self::Open(hold) => Ok(hold),
            Self::NotGiven | Self::Absent | Self::Refused => Err(Refusal::ReferenceNotFound),
            Self::Posted(_) | Self::ReversedBefore | Self::Neither | Self::NotNow(_) => {
                Err(Refusal::ReferenceKindMismatch)
            }
            Self::Ended(HoldEnd::Settled) => Err(Refusal::HoldAlreadySettled),
            Self::Ended(HoldEnd::Voided) => Err(Refusal::HoldAlreadyVoided),
            Self::Ended(HoldEnd::Expired) => Err(Refusal::HoldExpired),
        }
    }

    /// The posted transfer that a reversal needs.
    pub(crate) fn posted(&self) -> Result<&Posted, Refusal> {
        match self {
            Self::Posted(posted) => Ok(posted),
            Self::NotGiven | Self::Absent | Self::Refused => Err(Refusal::ReferenceNotFound),
            Self::Open(_) | Self::Ended(_) | Self::Neither | Self::NotNow(_) => Err(Refusal::ReferenceKindMismatch),
            Self::ReversedBefore => Err(Refusal::AlreadyReversed),
        }
    }

    /// Currency of the transfer that was referred to, where it is known.
    pub(crate) const fn currency(&self) -> Option<Currency> {
        match self {
            Self::Open(hold) => Some(hold.currency),
            Self::Posted(posted) => Some(posted.currency),
            Self::NotGiven
            | Self::Absent
            | Self::Refused
            | Self::Ended(_)
            | Self::ReversedBefore
            | Self::Neither
            | Self::NotNow(_) => None,
        }
    }

    /// Reason code of the transfer that was referred to; 0 where it is not known.
    pub(crate) const fn code(&self) -> u16 {
        match self {
            Self::Open(hold) => hold.code,
            Self::Posted(posted) => posted.code,
            Self::NotGiven
            | Self::Absent
            | Self::Refused
            | Self::Ended(_)
            | Self::ReversedBefore
            | Self::Neither
            | Self::NotNow(_) => 0,
        }
    }
}

/// The debit and the credit account that a transfer touches: those whose locks must be held while
/// [`crate::decide`] runs.
///
/// # Errors
/// What can be told from the reference alone, in this order: `ReferenceNotFound`, `ReferenceKindMismatch`,
/// `HoldAlreadySettled`, `HoldAlreadyVoided`, `HoldExpired`, `AlreadyReversed`. They are final: record them
/// with [`crate::Outcome::refused`].
#[inline(always)]
pub fn effective_accounts(
    transfer: &Transfer,
    reference: &Reference,
    branch: BranchId,
) -> Result<(AccountId, AccountId), Refusal> {
    let cash = || cash_account_id(branch, transfer.currency.unwrap_or_default());
    let settlement = || settlement_account_id(branch, transfer.peer, transfer.currency.unwrap_or_default());
    match transfer.kind {
        TransferKind::Transfer | TransferKind::Hold => Ok(match transfer.leg {
            Leg::Whole | Leg::Inner => (transfer.debit_account_id, transfer.credit_account_id),
            Leg::Source => (transfer.debit_account_id, settlement()),
            Leg::Destination => (settlement(), transfer.credit_account_id),
        }),
        TransferKind::Deposit => Ok((cash(), transfer.credit_account_id)),
        TransferKind::Withdraw => Ok((transfer.debit_account_id, cash())),
        TransferKind::Settle | TransferKind::Void => {
            reference.open_hold().map(|hold| (hold.debit_account_id, hold.credit_account_id))
        }
        // The opposite direction: what was credited is debited.
        TransferKind::Reverse => reference.posted().map(|posted| (posted.credit_account_id, posted.debit_account_id)),
    }
}
