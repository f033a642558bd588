//! A branch's view of one transfer in which it takes part. Its states follow from the branch's own journal, so that
//! recovery finds them again.
//!
//! ```text
//!            held                   told: commit
//!  Absent ----------> Prepared ----------------> Settled
//!     |                   |  told: abort
//!     | refused           |--------------------> Voided
//!     |                   |  told: commit, of a hold             the payer's branch ends it
//!     |                   '--------------------> Held --------------------------------> Ended
//!     '---------> Refused
//! ```
//!
//! What a record of the journal allows to be said (a vote, a question, an acknowledgement) is said behind that record:
//! the caller lets it out once the record is durable.
//!
//! **Invariant:** only a decision ends what is prepared: not time, not a crash, not an operator of the branch. A hold that
//! stands is ended by the payer's branch alone, whose record of that is a decision, too.

use tally_protocol::{BranchId, Timestamp};

use crate::hold::HoldEnd;

use super::{Attempt, Contradiction, Decision, Objection, Vote};

/// Seconds that a prepared branch waits before it asks for the first time: longer than a decision takes, shorter than
/// a person waits.
const ASK_AFTER_S: u32 = 1;
/// The longest pause between two questions, in seconds.
const ASK_PAUSE_S_MAX: u32 = 32;

/// See the top of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Participant {
    /// Nothing is known of it.
    #[default]
    Absent,
    /// The money is held and the vote is yes.
    Prepared {
        /// When to ask, if no decision has come by then.
        ask_at: Timestamp,
        /// How long to wait after that question, in seconds; doubles each time.
        pause_s: u32,
        /// What is held.
        attempt: Attempt,
    },
    /// Committed here.
    Settled,
    /// Aborted here.
    Voided,
    /// A hold that stands: both branches have it. Nothing is asked, and only the payer's branch ends it.
    Held,
    /// A hold that stood, and ended.
    Ended(HoldEnd),
    /// The rules refused it and the vote is no.
    Refused(Objection),
}

/// What happens to a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantEvent {
    /// The transfer is to be prepared. `ruling` is what the rules say if nothing is known of it yet.
    Prepare {
        /// Whether it can be held.
        ruling: Result<(), Objection>,
        /// The time of the record.
        now: Timestamp,
        /// What is to be held.
        attempt: Attempt,
    },
    /// The registry says how it ends.
    Told(Decision),
    /// The same of a hold: it stands.
    Kept,
    /// The payer's branch has ended the hold.
    End(HoldEnd),
    /// Time has passed.
    Tick(Timestamp),
}

/// What the branch has to do. Both records and what is said stand in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantEffect {
    /// Hold the money and record that.
    Hold,
    /// Record the refusal.
    Refuse(Objection),
    /// Settle the hold and record that.
    Settle,
    /// Void the hold and record that.
    Void,
    /// Let the hold stand and record that.
    Keep,
    /// End the hold like the payer's branch, and record that.
    End(HoldEnd),
    /// Tell the registry, once everything recorded so far for this transfer is durable.
    Vote(Vote),
    /// Tell the registry, once everything recorded so far for this transfer is durable.
    Acknowledge,
    /// Tell the payer's branch that the hold's end is known here, once everything recorded so far for this hold is durable.
    Heard,
    /// Ask the registry about what is held. That too is said once the prepare is durable: whoever asks is taken to have
    /// promised.
    Ask(Attempt),
}

impl Participant {
    /// The next state; what has to be done is added to `effects`. `branch` is the one whose state this is.
    ///
    /// # Errors
    /// See [`Contradiction`]: the state stays.
    pub fn handle(
        self,
        branch: BranchId,
        event: ParticipantEvent,
        effects: &mut Vec<ParticipantEffect>,
    ) -> Result<Self, Contradiction> {
        match event {
            ParticipantEvent::Prepare { ruling, now, attempt } => Ok(self.prepare(ruling, (now, attempt), effects)),
            ParticipantEvent::Told(decision) => self.told(branch, decision, effects),
            ParticipantEvent::Kept => self.kept(branch, effects),
            ParticipantEvent::End(end) => self.end(branch, end, effects),
            ParticipantEvent::Tick(now) => Ok(self.tick(now, effects)),
        }
    }

    fn prepare(
        self,
        ruling: Result<(), Objection>,
        (now, attempt): (Timestamp, Attempt),
        effects: &mut Vec<ParticipantEffect>,
    ) -> Self {
        match (self, ruling) {
            (Self::Absent, Ok(())) => {
                effects.extend([ParticipantEffect::Hold, ParticipantEffect::Vote(Vote::Yes(attempt))]);
                Self::Prepared { ask_at: after(now, ASK_AFTER_S), pause_s: 2 * ASK_AFTER_S, attempt }
            }
            (Self::Absent, Err(why)) => {
                effects.extend([ParticipantEffect::Refuse(why), ParticipantEffect::Vote(Vote::No(why))]);
                Self::Refused(why)
            }
            // It was asked before, and the vote may have been lost: a vote does not change.
            (Self::Prepared { attempt: held, .. }, _) if held == attempt => {
                effects.push(ParticipantEffect::Vote(Vote::Yes(held)));
                self
            }
            // Its source has forgotten what it began first, or this is a late copy of what it has forgotten: only one of them
            // can be committed, and whoever knows which is asked.
            (Self::Prepared { attempt: held, .. }, _) => {
                effects.push(ParticipantEffect::Ask(held));
                self
            }
            (Self::Refused(why), _) => {
                effects.push(ParticipantEffect::Vote(Vote::No(why)));
                self
            }
            // A late copy: the registry has decided, and perhaps missed the acknowledgement.
            (Self::Settled | Self::Voided | Self::Held | Self::Ended(_), _) => {
                effects.push(ParticipantEffect::Acknowledge);
                self
            }
        }
    }

    fn told(
        self,
        branch: BranchId,
        decision: Decision,
        effects: &mut Vec<ParticipantEffect>,
    ) -> Result<Self, Contradiction> {
        let next = match (self, decision) {
            (Self::Prepared { .. }, Decision::Commit) => {
                effects.push(ParticipantEffect::Settle);
                Self::Settled
            }
            (Self::Prepared { .. }, Decision::Abort(_)) => {
                effects.push(ParticipantEffect::Void);
                Self::Voided
            }
            (Self::Settled | Self::Held | Self::Ended(_), Decision::Commit) => self,
            // Where the prepare has not come yet there is nothing to give back. If it comes, it will be asked about.
            (Self::Absent | Self::Voided | Self::Refused(_), Decision::Abort(_)) => self,
            (Self::Absent | Self::Voided | Self::Refused(_), Decision::Commit) => {
                return Err(Contradiction::NotPromised(branch));
            }
            (Self::Settled | Self::Held | Self::Ended(_), Decision::Abort(_)) => {
                return Err(Contradiction::OtherDecision { known: Decision::Commit, other: decision });
            }
        };
        effects.push(ParticipantEffect::Acknowledge);
        Ok(next)
    }

    fn kept(self, branch: BranchId, effects: &mut Vec<ParticipantEffect>) -> Result<Self, Contradiction> {
        let next = match self {
            Self::Prepared { .. } => {
                effects.push(ParticipantEffect::Keep);
                Self::Held
            }
            Self::Held | Self::Ended(_) => self,
            Self::Absent | Self::Settled | Self::Voided | Self::Refused(_) => {
                return Err(Contradiction::NotPromised(branch));
            }
        };
        effects.push(ParticipantEffect::Acknowledge);
        Ok(next)
    }

    fn end(self, branch: BranchId, end: HoldEnd, effects: &mut Vec<ParticipantEffect>) -> Result<Self, Contradiction> {
        match self {
            // The payer's branch has been told of the commit earlier than this one.
            Self::Prepared { .. } | Self::Held => effects.push(ParticipantEffect::End(end)),
            Self::Ended(known) if known == end => {}
            Self::Ended(known) => return Err(Contradiction::OtherEnd { known, other: end }),
            Self::Absent | Self::Settled | Self::Voided | Self::Refused(_) => {
                return Err(Contradiction::NotPromised(branch));
            }
        }
        effects.push(ParticipantEffect::Heard);
        Ok(Self::Ended(end))
    }

    fn tick(self, now: Timestamp, effects: &mut Vec<ParticipantEffect>) -> Self {
        match self {
            Self::Prepared { ask_at, pause_s, attempt } if now >= ask_at => {
                effects.push(ParticipantEffect::Ask(attempt));
                Self::Prepared { ask_at: after(now, pause_s), pause_s: (2 * pause_s).min(ASK_PAUSE_S_MAX), attempt }
            }
            Self::Prepared { .. }
            | Self::Absent
            | Self::Settled
            | Self::Voided
            | Self::Held
            | Self::Ended(_)
            | Self::Refused(_) => self,
        }
    }
}

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add_seconds(seconds).unwrap_or(Timestamp::MAX)
}
