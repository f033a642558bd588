//! A transfer that touches several branches: it happens at all of them or at none.
//!
//! Two-phase commit with presumed abort (Mohan, Lindsay and Obermarck: Transaction Management in the R* Distributed
//! Database Management System, 1986), with escrow in place of locks: what a branch prepares is a hold, so everything
//! else on those accounts goes on.
//!
//! ```text
//!   source branch            coordinator (registry)           destination branch
//!       | hold                     |                                 |
//!       |------ begin ------------>|------- prepare ---------------->|
//!       | durable                  |                                 | hold, durable
//!       |------ vote yes --------->|<------ vote yes ----------------|
//!       |                   decision, replicated                     |
//!       |<----- decision ----------|------- decision --------------->|
//!       | settle, durable          |                                 | settle, durable
//!       |------ acknowledged ----->|<------ acknowledged ------------|
//! ```
//!
//! Both parts are flushed at the same time: the source begins before its own is durable. A crash may take that part, and the
//! same id may come back with another content while the destination holds the first one. So every vote and question says
//! what is held, by its [`Attempt`], and what differs is aborted.
//!
//! Of a hold the decision is only that it stands, at both branches. What ends it is decided by the payer's branch alone, and
//! told to the other one (`crate::ending`): both hold the money, so there is nothing left to vote about.
//!
//! Two machines, [`Coordinator`] and [`Participant`], each with one function from state and event to the next state and
//! what has to be done. The same functions run live, in replay, in the simulator and in the model checker.
//!
//! **Invariants:** a yes vote leaves only once the prepare is durable, and a commit needs one of each branch for the very
//! attempt that was begun; a decision leaves only once the registry's log has it,
//! and the first decision in that log stands for ever; an acknowledgement leaves only once the settle or void is
//! durable. What would break one of them is a [`Contradiction`], and changes nothing.

mod attempt;
mod coordinator;
mod participant;
mod participants;
mod wire;

pub use attempt::Attempt;
pub use coordinator::{Coordinator, CoordinatorEffect, CoordinatorEvent};
pub use participant::{Participant, ParticipantEffect, ParticipantEvent};
pub use participants::{PARTICIPANTS_MAX, Participants, TooManyParticipants};
pub use wire::ItemUnknown;

use tally_protocol::{BranchId, Refusal};

use crate::hold::HoldEnd;

/// How a transfer between branches ends, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Every branch carries out what it promised: posts it, or lets a hold stand.
    Commit,
    /// Every branch gives back what it holds.
    Abort(AbortReason),
}

/// Why a branch says no.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Objection {
    /// What its rules say.
    pub refusal: Refusal,
    /// Of a chain: which member is refused, from 0. Of a single transfer: 0.
    pub member: u8,
}

impl From<Refusal> for Objection {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, member: 0 }
    }
}

impl std::fmt::Debug for Objection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.member {
            0 => self.refusal.fmt(f),
            member => write!(f, "{:?} of member {member}", self.refusal),
        }
    }
}

/// Why a transfer between branches did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbortReason {
    /// This branch's rules refused it.
    Refused(BranchId, Objection),
    /// This branch's vote did not come in time; the first of them, if several.
    TimedOut(BranchId),
    /// Somebody holds a part of a transfer of which the registry's log knows nothing, and its leader nothing or something
    /// else: its coordinator was lost before it had decided, or its source has forgotten in a crash what it began.
    Presumed,
    /// An operator ended it.
    Resolved,
}

/// What a branch says of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// This is held, durably, and can be settled whatever happens.
    Yes(Attempt),
    /// The branch's rules refuse it. Nothing is held.
    No(Objection),
}

/// An event that cannot come if every part keeps the rules: a bug, a restored old backup, or a foreign registry. The
/// state stays as it was; a person has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The log decided otherwise before.
    #[error("decided as {known:?} before, as {other:?} now")]
    OtherDecision {
        /// What stands.
        known: Decision,
        /// What came.
        other: Decision,
    },
    /// A commit, although this branch never promised its part.
    #[error("a commit of what branch {0} did not promise")]
    NotPromised(BranchId),
    /// The payer's branch ended a hold otherwise before.
    #[error("the hold has ended as {known:?} before, as {other:?} now")]
    OtherEnd {
        /// What stands.
        known: HoldEnd,
        /// What came.
        other: HoldEnd,
    },
    /// Somebody who has no part in the transfer.
    #[error("branch {0} takes no part in it")]
    Stranger(BranchId),
}
