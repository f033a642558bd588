//! A hold: money reserved on both accounts until it is settled, voided, or its time runs out.

use tally_protocol::{AccountId, Amount, Currency, Lsn, Timestamp, TransferId};

use crate::closing::Closes;
use crate::leg::Leg;

/// An open hold, as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The id of the transfer that made it.
    pub id: TransferId,
    /// Whose `debits_held` it is part of.
    pub debit_account_id: AccountId,
    /// Whose `credits_held` it is part of.
    pub credit_account_id: AccountId,
    /// What is held.
    pub amount: Amount,
    /// What it is counted in.
    pub currency: Currency,
    /// The reason code of the transfer that made it.
    pub code: u16,
    /// When it ends by itself; [`Timestamp::MAX`] for never.
    pub expires_at: Timestamp,
    /// The record that made it.
    pub lsn: Lsn,
    /// Which part of a transfer between branches it is; [`Leg::Whole`] for a client's own hold.
    pub leg: Leg,
    /// The account at the other branch; [`AccountId::NONE`] where there is none.
    pub far_account_id: AccountId,
    /// The time stamp of that record: its day is the one that an unspent day limit goes back to.
    pub timestamp: Timestamp,
    /// Which of its accounts take nothing new while it is open.
    pub closes: Closes,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// Posted, in full or in part.
    Settled,
    /// Given back on request.
    Voided,
    /// Given back because its time ran out.
    Expired,
}
