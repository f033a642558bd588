//! What became of a transfer, as far as it is known.
//!
//! A timeout is not a refusal. A client that treats it as one pays twice, or not at all. So the answer to a
//! transfer has a place for "not known", and that place carries the id by which it can be asked about
//! ([`crate::Client::resolve`]) or made final ([`crate::Client::make_final`]).
//!
//! **Invariant:** [`Outcome::Refused`] and [`Outcome::NotSent`] are answered only if no attempt of this call can
//! have been applied.

use tally_protocol::message::{ItemResult, RESULT_REPEATED, Sums, TransferFound, TransferReply};
use tally_protocol::{Amount, Lsn, Timestamp, TransferId};

use crate::{ConnectError, LostReason, Refused, RequestError};

/// The answer to one transfer.
#[derive(Clone, Debug)]
#[must_use]
pub enum Outcome {
    /// It is done, and durable.
    Done(Receipt),
    /// It was not done. Codes below 100 leave the id free; others are final for this id.
    Refused(Refused),
    /// It was sent, and it is not known whether it was done. Ask with the same id later, or make it final.
    Unknown {
        /// The id to ask about.
        id: TransferId,
        /// Why nothing is known.
        why: UnknownReason,
    },
    /// It never left this process: nothing was done, and the id is free.
    NotSent {
        /// The id, to try again with.
        id: TransferId,
        /// Why no session could be had.
        why: ConnectError,
    },
}

impl Outcome {
    /// The receipt, if it is done.
    pub const fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Done(receipt) => Some(receipt),
            Self::Refused(_) | Self::Unknown { .. } | Self::NotSent { .. } => None,
        }
    }
}

/// Why the outcome of something that was sent is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownReason {
    /// The connection was lost.
    #[error("{0}")]
    Lost(LostReason),
    /// No answer came in time.
    #[error("no answer before the deadline")]
    DeadlinePassed,
    /// An answer came that makes no sense.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
}

/// A transfer that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: TransferId,
    /// When the ledger did it.
    pub timestamp: Timestamp,
    /// Where it stands in the journal.
    pub lsn: Lsn,
    /// What was moved: differs from what was asked for by balancing, settle and void.
    pub amount: Amount,
    /// Whether the id was known already, and this is its first answer again.
    pub repeated: bool,
    /// Debit account, credit account: their sums after it, when asked for.
    pub balances: Option<[Sums; 2]>,
}

impl Receipt {
    pub(crate) fn read(id: TransferId, reply: &TransferReply, balances: Option<&[Sums; 2]>) -> Result<Self, Refused> {
        match reply.refusal.get() {
            0 => Ok(Self {
                id,
                timestamp: Timestamp::from_nanos(reply.timestamp.get()),
                lsn: Lsn::new(reply.lsn.get()),
                amount: Amount::new(reply.amount.get()),
                repeated: reply.flags.get() & RESULT_REPEATED != 0,
                balances: balances.copied(),
            }),
            code => Err(Refused::of_code(code)),
        }
    }
}

/// The answer about one account or transfer out of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemOutcome {
    /// When it was recorded; 0 where it was not.
    pub timestamp: Timestamp,
    /// The wire code of the refusal; 0 for done.
    pub refusal_code: u16,
    /// Whether the id was known already.
    pub repeated: bool,
}

impl ItemOutcome {
    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        self.refusal_code == 0
    }

    /// Done, or the refusal.
    pub fn result(&self) -> Result<(), Refused> {
        if self.is_done() { Ok(()) } else { Err(Refused::of_code(self.refusal_code)) }
    }
}

impl From<&ItemResult> for ItemOutcome {
    fn from(item: &ItemResult) -> Self {
        Self {
            timestamp: Timestamp::from_nanos(item.timestamp.get()),
            refusal_code: item.refusal.get(),
            repeated: item.flags.get() & RESULT_REPEATED != 0,
        }
    }
}

/// The answer to a chain or a batch.
#[derive(Clone, Debug)]
#[must_use]
pub enum ChainOutcome {
    /// One answer for each transfer, in order.
    Answered(Vec<ItemOutcome>),
    /// None was looked at.
    Refused(Refused),
    /// It was sent, and it is not known what was done: ask by the transfers' ids, or send the same again.
    Unknown {
        /// Why nothing is known.
        why: UnknownReason,
    },
    /// It never left this process.
    NotSent {
        /// Why no session could be had.
        why: ConnectError,
    },
}

/// What the branch knows of an id.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// It was done; `state` in it says what became of it since.
    Done(Box<TransferFound>),
    /// It was refused for good.
    Refused(Box<TransferFound>),
    /// The id was cancelled: no transfer will ever carry it.
    Cancelled,
    /// It is being worked on.
    InFlight,
    /// The branch has not seen it. It may still be under way: only a cancel makes this final.
    Absent,
}

/// What became of a request to cancel an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The id is burnt: no transfer will ever carry it.
    Burnt,
    /// Too late: a transfer with this id was done or refused before.
    AlreadyUsed,
}

/// What became of a transfer, for good.
#[derive(Clone, Debug)]
pub enum Final {
    /// It was done.
    Done(Box<TransferFound>),
    /// It was refused.
    Refused(Box<TransferFound>),
    /// It was never done, and never will be.
    Never,
}

/// An answer that is not the one hoped for, with what it means for something that changes the ledger.
pub(crate) enum Failure {
    Refused(Refused),
    Unknown(UnknownReason),
    NotSent(ConnectError),
}

impl Failure {
    /// `error` is how the last attempt ended; `unanswered` why an attempt before it, if any, got no answer.
    pub(crate) fn of(error: RequestError, unanswered: Option<UnknownReason>) -> Self {
        match (error, unanswered) {
            // What the ledger itself says about an id holds for every attempt with it.
            (RequestError::Refused(refused), _) if !refused.is_of_session() => Self::Refused(refused),
            (_, Some(why)) => Self::Unknown(why),
            (RequestError::Refused(refused), None) => Self::Refused(refused),
            (RequestError::NotSent(why), None) => Self::NotSent(why),
            (RequestError::Lost(reason), None) => Self::Unknown(UnknownReason::Lost(reason)),
            (RequestError::DeadlinePassed, None) => Self::Unknown(UnknownReason::DeadlinePassed),
            (RequestError::Unexpected(what), None) => Self::Unknown(UnknownReason::Unexpected(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::Refusal;

    use super::*;

    #[test]
    fn an_attempt_that_was_lost_makes_later_session_refusals_unknown() {
        let refused = |refusal: Refusal| RequestError::Refused(Refused::of_code(refusal.code()));
        let lost = || Some(UnknownReason::Lost(LostReason::Closed));
        let cases = [
            (refused(Refusal::Busy), None, "refused"),
            (refused(Refusal::Busy), lost(), "unknown"),
            (refused(Refusal::NotPermitted), lost(), "unknown"),
            (refused(Refusal::DeadlinePassed), None, "refused"),
            (refused(Refusal::InsufficientFunds), lost(), "refused"),
            (refused(Refusal::CodeMustNotBeZero), lost(), "refused"),
            (refused(Refusal::IdCancelled), lost(), "refused"),
            (RequestError::NotSent(ConnectError::DeadlinePassed), None, "not sent"),
            (RequestError::NotSent(ConnectError::DeadlinePassed), lost(), "unknown"),
            (RequestError::Lost(LostReason::Silent), None, "unknown"),
            (RequestError::DeadlinePassed, None, "unknown"),
        ];
        for (error, unanswered, expected) in cases {
            let shown = format!("{error:?} after {unanswered:?}");
            let got = match Failure::of(error, unanswered) {
                Failure::Refused(_) => "refused",
                Failure::Unknown(_) => "unknown",
                Failure::NotSent(_) => "not sent",
            };
            assert_eq!(got, expected, "{shown}");
        }
    }
}
