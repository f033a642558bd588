//! Votes and decisions as they lie on the links between branches and the registry.

use tally_protocol::link::{DecisionItem, EndItem, VoteItem, end, outcome, reason};
use tally_protocol::{BranchId, Refusal, Timestamp, TransferId};
use zerocopy::byteorder::little_endian::{U16, U64, U128};

use super::{AbortReason, Attempt, Decision, Objection, Vote};
use crate::ending::Ending;
use crate::hold::HoldEnd;

/// A code that this build does not know: its peer is newer, or broken. The item cannot be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemUnknown {
    /// Of a refusal.
    #[error("refusal {0} is not known here")]
    Refusal(u16),
    /// Of the end of a hold.
    #[error("end {0} of a hold is not known here")]
    End(u8),
    /// Of an outcome and its reason.
    #[error("outcome {0} for reason {1} is not known here")]
    Outcome(u8, u8),
}

impl Vote {
    /// The vote on `id`, behind the record of `stamp`.
    pub const fn to_item(self, id: TransferId, stamp: Timestamp) -> VoteItem {
        match self {
            Self::Yes(attempt) => VoteItem::yes(id.get(), stamp.as_nanos(), attempt.get()),
            Self::No(Objection { refusal, member }) => {
                VoteItem { member, ..VoteItem::no(id.get(), stamp.as_nanos(), refusal.code()) }
            }
        }
    }

    /// What `item` votes.
    ///
    /// # Errors
    /// When the refusal is not known.
    pub fn of_item(item: &VoteItem) -> Result<Self, ItemUnknown> {
        match item.refusal.get() {
            0 => Ok(Self::Yes(Attempt::new(item.attempt.get()))),
            code => Ok(Self::No(Objection { refusal: known(code)?, member: item.member })),
        }
    }
}

impl Decision {
    /// The decision on `id`, made at `stamp`.
    pub fn to_item(self, id: TransferId, stamp: Timestamp) -> DecisionItem {
        let (outcome, reason, branch, refusal) = match self {
            Self::Commit => (outcome::COMMIT, reason::NONE, 0, 0),
            Self::Abort(AbortReason::Refused(branch, why)) => {
                (outcome::ABORT, reason::REFUSED, branch.get(), why.refusal.code())
            }
            Self::Abort(AbortReason::TimedOut(branch)) => (outcome::ABORT, reason::TIMED_OUT, branch.get(), 0),
            Self::Abort(AbortReason::Presumed) => (outcome::ABORT, reason::PRESUMED, 0, 0),
            Self::Abort(AbortReason::Resolved) => (outcome::ABORT, reason::RESOLVED, 0, 0),
        };
        let member = match self {
            Self::Abort(AbortReason::Refused(_, why)) => why.member,
            Self::Commit | Self::Abort(_) => 0,
        };
        DecisionItem {
            id: id.get().into(),
            stamp: stamp.as_nanos().into(),
            outcome,
            reason,
            branch: branch.into(),
            refusal: refusal.into(),
            reserved: [0; 17],
            member,
        }
    }

    /// What `item` decides.
    ///
    /// # Errors
    /// When outcome, reason or refusal are not known.
    pub fn of_item(item: &DecisionItem) -> Result<Self, ItemUnknown> {
        let branch = BranchId::new(item.branch.get());
        Ok(match (item.outcome, item.reason) {
            (outcome::COMMIT, reason::NONE) => Self::Commit,
            (outcome::ABORT, reason::REFUSED) => {
                let why = Objection { refusal: known(item.refusal.get())?, member: item.member };
                Self::Abort(AbortReason::Refused(branch, why))
            }
            (outcome::ABORT, reason::TIMED_OUT) => Self::Abort(AbortReason::TimedOut(branch)),
            (outcome::ABORT, reason::PRESUMED) => Self::Abort(AbortReason::Presumed),
            (outcome::ABORT, reason::RESOLVED) => Self::Abort(AbortReason::Resolved),
            (outcome, reason) => return Err(ItemUnknown::Outcome(outcome, reason)),
        })
    }
}

impl HoldEnd {
    /// As it lies on a link.
    pub const fn raw(self) -> u8 {
        match self {
            Self::Settled => end::SETTLED,
            Self::Voided => end::VOIDED,
            Self::Expired => end::EXPIRED,
        }
    }

    /// What `item` says.
    ///
    /// # Errors
    /// When that is not known.
    pub const fn of_item(item: &EndItem) -> Result<Self, ItemUnknown> {
        match item.end {
            end::SETTLED => Ok(Self::Settled),
            end::VOIDED => Ok(Self::Voided),
            end::EXPIRED => Ok(Self::Expired),
            other => Err(ItemUnknown::End(other)),
        }
    }
}

impl Ending {
    /// The end, as `source` tells it to the payee's branch.
    pub const fn to_item(&self, source: BranchId) -> EndItem {
        EndItem {
            id: U128::new(self.hold_id.get()),
            stamp: U64::new(self.timestamp.as_nanos()),
            posted: U64::new(self.posted.get()),
            source: U16::new(source.get()),
            destination: U16::new(self.peer.get()),
            end: self.end.raw(),
            reserved: [0; 11],
        }
    }
}

fn known(code: u16) -> Result<Refusal, ItemUnknown> {
    Refusal::from_code(code).ok_or(ItemUnknown::Refusal(code))
}

#[cfg(test)]
mod tests {
    use tally_protocol::link::LinkItem;
    use tally_protocol::{Amount, Currency, Lsn};

    use super::*;

    #[test]
    fn every_vote_and_decision_comes_back_as_it_was_and_is_valid_on_the_link() {
        let (id, stamp, branch) = (TransferId::new(77), Timestamp::from_nanos(5), BranchId::new(3));
        let members = [0, 1, u8::MAX].into_iter();
        let refusals =
            members.flat_map(|member| Refusal::ALL.iter().map(move |&refusal| Objection { refusal, member }));
        for vote in refusals.clone().map(Vote::No).chain([Vote::Yes(Attempt::new(u64::MAX))]) {
            let item = vote.to_item(id, stamp);
            assert_eq!((Vote::of_item(&item), item.invalid_field()), (Ok(vote), None));
            assert_eq!((item.id.get(), item.stamp.get()), (77, 5));
        }
        let reasons = refusals.map(|refusal| AbortReason::Refused(branch, refusal));
        let reasons = reasons.chain([AbortReason::TimedOut(branch), AbortReason::Presumed, AbortReason::Resolved]);
        for decision in reasons.map(Decision::Abort).chain([Decision::Commit]) {
            let item = decision.to_item(id, stamp);
            assert_eq!((Decision::of_item(&item), item.invalid_field()), (Ok(decision), None));
            assert_eq!((item.id.get(), item.stamp.get()), (77, 5));
        }
    }

    #[test]
    fn every_end_of_a_hold_comes_back_and_is_valid_on_the_link() {
        for (end, posted) in [(HoldEnd::Settled, 5), (HoldEnd::Voided, 0), (HoldEnd::Expired, 0)] {
            let ending = Ending {
                hold_id: TransferId::new(9),
                end,
                posted: Amount::new(posted),
                currency: Currency::EUR,
                peer: BranchId::new(2),
                lsn: Lsn::new(64),
                timestamp: Timestamp::from_nanos(7),
            };
            let item = ending.to_item(BranchId::new(1));
            assert_eq!((HoldEnd::of_item(&item), item.invalid_field()), (Ok(end), None));
            let said = (item.id.get(), item.stamp.get(), item.posted.get(), item.source.get(), item.destination.get());
            assert_eq!(said, (9, 7, posted, 1, 2));
            assert_eq!(HoldEnd::of_item(&EndItem { end: 9, ..item }), Err(ItemUnknown::End(9)));
        }
    }

    #[test]
    fn codes_of_a_newer_peer_are_not_guessed() {
        let vote = VoteItem::no(1, 1, 299);
        assert_eq!(Vote::of_item(&vote), Err(ItemUnknown::Refusal(299)));
        let refused = Decision::Abort(AbortReason::Refused(BranchId::new(1), Refusal::Busy.into()));
        let item = refused.to_item(TransferId::new(1), Timestamp::from_nanos(1));
        let newer = DecisionItem { refusal: 299.into(), ..item };
        assert_eq!(Decision::of_item(&newer), Err(ItemUnknown::Refusal(299)));
        assert_eq!(Decision::of_item(&DecisionItem { reason: 9, ..item }), Err(ItemUnknown::Outcome(2, 9)));
    }
}
