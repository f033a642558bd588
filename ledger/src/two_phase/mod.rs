//! A transfer that touches several branches: it happens at all of them or at none.
//!
//! Two-phase commit with presumed abort (Mohan, Lindsay and Obermarck: Transaction Management in the R* Distributed
//! Database Management System, 1986), with escrow in place of locks: what a branch prepares is a hold, so everything
//! else on those accounts goes on.
//!
//! ```text
//!   source branch            coordinator (registry)           destination branch
//!       | hold, durable            |                                 |
//!       |------ begin ------------>|------- prepare ---------------->|
//!       |                          |                                 | hold, durable
//!       |                          |<------ vote yes ----------------|
//!       |                   decision, replicated                     |
//!       |<----- decision ----------|------- decision --------------->|
//!       | settle, durable          |                                 | settle, durable
//!       |------ acknowledged ----->|<------ acknowledged ------------|
//! ```
//!
//! The source begins only once its own part is durable: its begin is its vote. Were it to begin earlier, a crash could take
//! its part, and the same id could come back with another content while the destination holds the first one.
//!
//! Of a hold the decision is only that it stands, at both branches. What ends it is decided by the payer's branch alone, and
//! told to the other one (`crate::ending`): both hold the money, so there is nothing left to vote about.
//!
//! Two machines, [`Coordinator`] and [`Participant`], each with one function from state and event to the next state and
//! what has to be done. The same functions run live, in replay, in the simulator and in the model checker.
//!
//! **Invariants:** a begin or a yes vote leaves only once the prepare is durable; a decision only once the registry's log has it,
//! and the first decision in that log stands for ever; an acknowledgement leaves only once the settle or void is
//! durable. What would break one of them is a [`Contradiction`], and changes nothing.

mod coordinator;
mod participant;
mod participants;
mod wire;

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

/// Why a transfer between branches did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbortReason {
    /// This branch's rules refused it.
    Refused(BranchId, Refusal),
    /// This branch's vote did not come in time; the first of them, if several.
    TimedOut(BranchId),
    /// Somebody asked about a transfer of which the registry's log knows nothing: its coordinator was lost before it
    /// had decided.
    Presumed,
    /// An operator ended it.
    Resolved,
}

/// What a branch says of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// It is held, durably, and can be settled whatever happens.
    Yes,
    /// The branch's rules refuse it. Nothing is held.
    No(Refusal),
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
