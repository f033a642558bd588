//! A hold: money reserved on both accounts until it is settled, voided, or its time runs out.

use tally_protocol::{AccountId, Amount, Currency, Lsn, Timestamp, TransferId};

use crate::chain_between::ChainPlace;
use crate::closing::Closes;
use crate::joining::Joining;
use crate::leg::Leg;
use crate::two_phase::Attempt;

/// What has to happen for a hold to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldStage {
    /// It stands until it is settled, voided, or its time runs out. Between branches: both have it, and the payer's
    /// branch ends it.
    #[default]
    Open,
    /// A part of a transfer between branches: the registry's decision posts it or gives it back.
    AwaitsPosting,
    /// A part of a hold between branches: the registry's decision lets it stand or gives it back.
    AwaitsKeeping,
    /// It stands, and the account at the other end of it is on its way to here: nobody ends it before that move is
    /// decided. See [`crate::joining`].
    Joining(Joining),
    /// It has ended here, at the payer's branch, and `amount` of it was posted; the payee's branch has not said yet that
    /// it knows. No longer part of any sum: see [`crate::ending`].
    Ended(HoldEnd),
}

/// [`HoldStage::Joining`] as one byte of a checkpoint.
pub(crate) const JOINING_RAW: u8 = 6;

impl HoldStage {
    /// As one byte of a checkpoint; 0 is what every hold within a branch, and every part of a plain transfer, has.
    pub const fn raw(self, leg: Leg) -> u8 {
        match (self, leg) {
            (Self::Open, Leg::Whole) | (Self::AwaitsPosting, _) => 0,
            (Self::Open, Leg::Source | Leg::Destination | Leg::Inner) => 1,
            (Self::AwaitsKeeping, _) => 2,
            (Self::Joining(_), _) => JOINING_RAW,
            (Self::Ended(HoldEnd::Settled), _) => 3,
            (Self::Ended(HoldEnd::Voided), _) => 4,
            (Self::Ended(HoldEnd::Expired), _) => 5,
        }
    }

    /// Reads what [`HoldStage::raw`] wrote, but for [`HoldStage::Joining`], which has more to it than a byte.
    pub const fn from_raw(raw: u8, leg: Leg) -> Option<Self> {
        Some(match (raw, leg) {
            (0, Leg::Whole) | (1, Leg::Source | Leg::Destination | Leg::Inner) => Self::Open,
            (0, Leg::Source | Leg::Destination | Leg::Inner) => Self::AwaitsPosting,
            (2, Leg::Source | Leg::Destination | Leg::Inner) => Self::AwaitsKeeping,
            (3, Leg::Source) => Self::Ended(HoldEnd::Settled),
            (4, Leg::Source) => Self::Ended(HoldEnd::Voided),
            (5, Leg::Source) => Self::Ended(HoldEnd::Expired),
            _ => return None,
        })
    }
}

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
    /// When it ends by itself; [`Timestamp::MAX`] for never. Of a hold between branches it is the payer's branch that
    /// looks at the clock.
    pub expires_at: Timestamp,
    /// The record that made it, or that let it stand.
    pub lsn: Lsn,
    /// Which part of a transfer between branches it is; [`Leg::Whole`] for a client's own hold.
    pub leg: Leg,
    /// The account at the other branch, or that was there; [`AccountId::NONE`] where there never was one. Of a hold that is passed on,
    /// either of its two.
    pub far_account_id: AccountId,
    /// The time stamp of that record: its day is the one that an unspent day limit goes back to.
    pub timestamp: Timestamp,
    /// Which of its accounts take nothing new while it is open.
    pub closes: Closes,
    /// What has to happen for it to end.
    pub stage: HoldStage,
    /// Of a part of a transfer between branches: what was prepared.
    pub attempt: Attempt,
    /// Of a member of a chain between branches, until that is decided: which chain, and which member.
    pub chain: Option<ChainPlace>,
}

impl Hold {
    /// Whether only the registry's decision can end it.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self.stage, HoldStage::AwaitsPosting | HoldStage::AwaitsKeeping)
    }

    /// What the registry decides it under: its chain's id, or its own.
    pub fn decision_id(&self) -> TransferId {
        self.chain.map_or(self.id, |place| place.id)
    }

    /// Whether it ends here when its time runs out.
    pub fn has_timeout(&self) -> bool {
        self.stage == HoldStage::Open && self.leg != Leg::Destination && self.expires_at != Timestamp::MAX
    }
}

impl Hold {
    /// The same where `to` takes the place of `from`: one is an account that goes to another branch, or comes from there, the
    /// other the settlement account for that branch. `None` when `from` is neither side. What waited for that waits no longer.
    ///
    /// With a settlement account on both sides it is passed on: the branch of the debit side ends it, this one carries that
    /// out and tells the branch of the credit side.
    #[must_use]
    pub fn rehomed(self, from: AccountId, to: AccountId) -> Option<Self> {
        let mut hold = self.joining_none();
        match from {
            _ if from == self.debit_account_id => hold.debit_account_id = to,
            _ if from == self.credit_account_id => hold.credit_account_id = to,
            _ => return None,
        }
        if let HoldStage::Joining(joining) = self.stage {
            hold.far_account_id = joining.other_account_id;
            if from == self.debit_account_id {
                // The clock and the day's limit are the payer's, and came with it.
                (hold.timestamp, hold.expires_at) = (joining.made_at, joining.expires_at);
            }
        }
        let is_settlement = |id: AccountId| id.settlement_peer().is_some();
        hold.leg = match (is_settlement(hold.debit_account_id), is_settlement(hold.credit_account_id)) {
            (false, false) => Leg::Whole,
            (false, true) => Leg::Source,
            (true, _) => Leg::Destination,
        };
        if !self.leg.is_part() {
            hold.far_account_id = from;
        }
        Some(hold)
    }

    /// The same, waiting for no account that would join it.
    #[must_use]
    pub const fn joining_none(self) -> Self {
        match self.stage {
            HoldStage::Joining(_) => Self { stage: HoldStage::Open, ..self },
            HoldStage::Open | HoldStage::AwaitsPosting | HoldStage::AwaitsKeeping | HoldStage::Ended(_) => self,
        }
    }

    /// The account on its way here that is to join it.
    pub const fn joined_by(&self) -> Option<Joining> {
        match self.stage {
            HoldStage::Joining(joining) => Some(joining),
            HoldStage::Open | HoldStage::AwaitsPosting | HoldStage::AwaitsKeeping | HoldStage::Ended(_) => None,
        }
    }

    /// Whether it was between branches, and is within this one since an account of it came here.
    pub fn has_joined(&self) -> bool {
        !self.leg.is_part() && !self.far_account_id.is_none()
    }

    /// Whether `id` is one of its two accounts.
    pub fn is_on(&self, id: AccountId) -> bool {
        self.debit_account_id == id || self.credit_account_id == id
    }

    /// Whether it is the money of an account that moves: then the account at the other branch is the same one.
    pub fn moves_account(&self) -> bool {
        self.leg.is_part() && self.near_account_id() == self.far_account_id
    }

    /// Of a part of a transfer between branches: the account here, which is not the settlement account.
    pub const fn near_account_id(&self) -> AccountId {
        match self.leg {
            Leg::Destination => self.credit_account_id,
            Leg::Whole | Leg::Inner | Leg::Source => self.debit_account_id,
        }
    }

    /// Of such a part: the settlement account.
    pub const fn settlement_account_id(&self) -> AccountId {
        match self.leg {
            Leg::Destination => self.debit_account_id,
            Leg::Whole | Leg::Inner | Leg::Source => self.credit_account_id,
        }
    }
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldEnd {
    /// Posted, in full or in part.
    Settled,
    /// Given back on request.
    Voided,
    /// Given back because its time ran out.
    Expired,
}
