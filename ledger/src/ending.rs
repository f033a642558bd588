//! The end of a hold between two branches.
//!
//! ```text
//!   payer's branch                      registry                      payee's branch
//!   settle, void, time-out: recorded
//!   durable ------- end --------------> passed on ------------------> posts as much, gives the rest back
//!   forgotten <---------- heard ------- passed on <------------------ durable
//! ```
//!
//! Both branches hold the money, and neither can give it away, so an end cannot be refused and nobody need vote: the
//! record of the payer's branch decides. It is told until the payee's branch has it, durably.
//!
//! Where an account of it has moved since, a branch in the middle has a settlement account on both sides of the hold: it carries
//! out the end that it hears, and tells it on as if it were the payer's branch.
//!
//! **Invariant:** a hold between branches has one end, the first that the payer's branch records. The payee's branch posts
//! the very amount that the payer's branch has posted.

use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, BranchId, Currency, Lsn, Timestamp, TransferId};

use crate::account::Account;
use crate::closing::{Closes, StatusChange};
use crate::decide::end_hold;
use crate::hold::{Hold, HoldEnd, HoldStage};
use crate::journal::record::{RecordBody, TransferRecord};
use crate::leg::Leg;
use crate::outcome::{Outcome, hold_end_record};

/// How the payer's branch ended a hold between branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The hold's id.
    pub hold_id: TransferId,
    /// How it ended.
    pub end: HoldEnd,
    /// What was posted, in minor units; the rest was given back.
    pub posted: Amount,
    /// What it is counted in.
    pub currency: Currency,
    /// The payee's branch.
    pub peer: BranchId,
    /// The record that says so: nothing is said of it before that is durable.
    pub lsn: Lsn,
    /// When.
    pub timestamp: Timestamp,
}

impl Ending {
    /// What the record at `lsn` ended, if that was a hold between branches and this is the payer's branch.
    pub fn of_record(body: &RecordBody, lsn: Lsn, timestamp: Timestamp) -> Option<Self> {
        match body {
            RecordBody::Transfer(record) => Self::of_transfer(record, lsn, timestamp),
            // Of a hold that is passed on, too: what has ended it there is told on.
            RecordBody::Expired(record) => {
                let peer = record.credit_account_id.settlement_peer()?;
                Some(Self::new((record.id, HoldEnd::Expired, Amount::ZERO), record, peer, (lsn, timestamp)))
            }
            RecordBody::Decided(None, record) if record.leg == Leg::Destination => {
                let (end, posted) = end_by(record)?;
                let peer = record.credit_account_id.settlement_peer()?;
                Some(Self::new((record.id, end, posted), record, peer, (lsn, timestamp)))
            }
            RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => {
                None
            }
        }
    }

    /// As [`Ending::of_record`], for the record of a transfer.
    #[inline]
    pub fn of_transfer(record: &TransferRecord, lsn: Lsn, timestamp: Timestamp) -> Option<Self> {
        let (end, posted) = end_by(record)?;
        if record.refusal.is_some() {
            return None;
        }
        // Only a hold between branches is on a settlement account.
        let peer = record.credit_account_id.settlement_peer()?;
        Some(Self::new((record.reference, end, posted), record, peer, (lsn, timestamp)))
    }

    fn new(
        (hold_id, end, posted): (TransferId, HoldEnd, Amount),
        record: &TransferRecord,
        peer: BranchId,
        (lsn, timestamp): (Lsn, Timestamp),
    ) -> Self {
        let currency = Currency::new(record.currency).unwrap_or_default();
        Self { hold_id, end, posted, currency, peer, lsn, timestamp }
    }

    /// As it lies in a checkpoint, among the holds.
    pub fn to_hold(&self, branch: BranchId) -> Hold {
        Hold {
            id: self.hold_id,
            debit_account_id: AccountId::NONE,
            credit_account_id: crate::settlement_account_id(branch, self.peer, self.currency),
            amount: self.posted,
            currency: self.currency,
            code: 0,
            expires_at: Timestamp::MAX,
            lsn: self.lsn,
            leg: Leg::Source,
            far_account_id: AccountId::NONE,
            timestamp: self.timestamp,
            closes: Closes::NONE,
            stage: HoldStage::Ended(self.end),
            attempt: crate::two_phase::Attempt::ONLY,
            chain: None,
        }
    }

    /// What [`Ending::to_hold`] made; `None` for a hold that is open.
    pub fn of_hold(hold: &Hold) -> Option<Self> {
        let (HoldStage::Ended(end), Some(peer)) = (hold.stage, hold.credit_account_id.settlement_peer()) else {
            return None;
        };
        let Hold { id: hold_id, amount: posted, currency, lsn, timestamp, .. } = *hold;
        Some(Self { hold_id, end, posted, currency, peer, lsn, timestamp })
    }
}

/// Ends the payee's part of a hold as the payer's branch has, at that stamp of its own: `posted` of it is posted, the rest given back. `None` where
/// that is more than was held, which no branch that keeps the rules asks for.
pub fn end_leg(
    hold: &Hold,
    end: HoldEnd,
    (posted, ended_at): (Amount, Timestamp),
    debit: &Account,
    credit: &Account,
) -> Option<(Outcome, RecordBody)> {
    let reported = match end {
        HoldEnd::Settled => posted,
        HoldEnd::Voided | HoldEnd::Expired if posted.is_zero() => hold.amount,
        HoldEnd::Voided | HoldEnd::Expired => return None,
    };
    if posted > hold.amount {
        return None;
    }
    let outcome = end_hold(hold, (posted, reported), StatusChange::NONE, debit, credit);
    // It is this hold alone that ends, whatever chain it came with.
    let record = TransferRecord { chain: None, ..hold_end_record(hold, &outcome).decided(ended_at) };
    let body = match end {
        HoldEnd::Settled => RecordBody::Decided(None, TransferRecord { kind: TransferKind::Settle, ..record }),
        HoldEnd::Voided => RecordBody::Decided(None, TransferRecord { kind: TransferKind::Void, ..record }),
        HoldEnd::Expired => RecordBody::Expired(record),
    };
    Some((outcome, body))
}

/// How a record of this kind ends a hold, and what it posts; `None` for one that ends none.
#[inline]
fn end_by(record: &TransferRecord) -> Option<(HoldEnd, Amount)> {
    match record.kind {
        TransferKind::Settle => Some((HoldEnd::Settled, record.amount)),
        TransferKind::Void => Some((HoldEnd::Voided, Amount::ZERO)),
        TransferKind::Transfer
        | TransferKind::Deposit
        | TransferKind::Withdraw
        | TransferKind::Hold
        | TransferKind::Reverse => None,
    }
}
