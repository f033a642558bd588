//! The whole bank under one seed: branches with their disks, the registry with its log, a network that loses, repeats,
//! delays and reorders, and clients that pay across.
//!
//! ```text
//!  clients --pay, ask again--> branch <===network===> registry's leader --> replicated log
//!                              engine, journal,        coordinators          state
//!                              simulated disk
//! ```
//!
//! First anything may fail: branches crash with what they had not flushed, the leader is lost with all that it knew, links
//! break. Then everything heals, and the bank has to come to rest: every transfer decided, every hold resolved, both sides of
//! every transfer alike.
//!
//! Real: the engine and its legs, the journal, recovery, checkpoints, the id index, the look-ups' answers, the registry's
//! coordinators and its replicated state. Written again here: threads, sockets, and Raft, of which the log's promise is kept
//! (what was committed stays, in order; what was only proposed may be lost with its leader).
//!
//! **Invariant:** everything that happens follows from the seed.

mod branch;
mod checks;
mod network;
mod outcome;
mod planted;
mod registry;
mod workload;
mod world;

pub use outcome::{BankFailure, BankOutcome};
pub use world::{BankOptions, run_bank_seed};

/// What is wrong with the bank, on purpose: each must be caught, or the simulator is blind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BankBug {
    /// The registry does not look which content a begin, a vote or a question is about.
    AttemptsNotCompared,
    /// A vote leaves before the prepare is durable.
    VoteBeforeDurable,
    /// An acknowledgement leaves before the decision is durable at the branch.
    AcknowledgedBeforeDurable,
    /// A client is answered before the decision is durable at its branch.
    AnswerBeforeDurable,
    /// A question leaves before the prepare is durable.
    AskBeforeDurable,
    /// A decision is told before the log has it.
    ToldBeforeReplicated,
    /// A new leader answers questions about what it does not know by itself, without the log.
    AbortFromMemory,
    /// A new leader forgets decisions that nobody has acknowledged.
    DecisionsForgotten,
    /// A later decision replaces an earlier one.
    LastDecisionWins,
    /// The leader commits what is begun, without the destination's vote.
    CommitOnBegin,
    /// The leader takes a no for a yes.
    NoTakenForYes,
    /// A restarted branch gives prepared holds back by itself.
    PreparesExpire,
    /// A restarted branch forgets what it has prepared.
    PreparesForgotten,
    /// A checkpoint leaves legs out.
    CheckpointSkipsLegs,
    /// The decision's record is not replayed.
    DecisionsNotReplayed,
    /// A commit posts at the source only.
    DestinationNotPosted,
    /// A commit posts twice when it is told twice.
    PostedTwice,
    /// An abort posts all the same.
    AbortPosts,
    /// A branch never asks.
    NobodyAsks,
    /// The leader never says a decision again.
    NeverToldAgain,
    /// The source's part is prepared without a hold on the money.
    SourceHoldsNothing,
    /// A destination does not follow the source's clock.
    StampsIgnored,
    /// The end of a hold leaves the payer's branch before its record is durable.
    EndBeforeDurable,
    /// The payee's branch says that it knows of an end before its record is durable.
    HeardBeforeDurable,
    /// A restarted branch forgets the ends that the payee's branch has not heard.
    EndsForgotten,
    /// An end is told once and never again.
    EndsToldOnce,
    /// The payee's branch ends a hold by its own clock.
    PayeeExpires,
    /// The payee's branch posts all of a hold, whatever the payer's branch has settled.
    EndPostsAll,
    /// A branch takes a new id on an account that has moved there without asking where it was before.
    FormerBranchesNotAsked,
    /// An account goes on paying while it moves.
    SealedAccountsPay,
    /// A move begins before the seal is durable.
    SealBeforeDurable,
    /// The end of a move is not replayed at the branch that is left.
    MoveEndsNotReplayed,
    /// A chain begins before its prepare is durable.
    ChainBeginsBeforeDurable,
    /// The decision on a chain is carried out on the first member only.
    ChainDecidedInPart,
    /// A checkpoint has of each chain that is in doubt the first member only.
    CheckpointSkipsMembers,
    /// Of the decision on a chain the first record is replayed only.
    ChainDecisionsReplayedInPart,
    /// A checkpoint does not say which chain a hold belongs to.
    ChainPlacesForgotten,
    /// After a restart a branch without a chain's first member does not know the chain's id.
    ChainIdsForgotten,
    /// The holds that came with an account are not replayed at its new branch.
    CameHoldsForgotten,
    /// That an account has gone from its holds is not replayed.
    RehomesNotReplayed,
    /// A branch in the middle does not tell on how a hold has ended.
    EndsNotPassedOn,
    /// A hold is ended while the account is on its way that is to join it.
    JoiningHoldsEnd,
    /// A restarted branch forgets which holds wait for an account.
    JoiningForgotten,
    /// That a hold has gone with its account is not replayed at the branch that is left.
    LeavesNotReplayed,
}

impl BankBug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AttemptsNotCompared,
        Self::VoteBeforeDurable,
        Self::AcknowledgedBeforeDurable,
        Self::AnswerBeforeDurable,
        Self::AskBeforeDurable,
        Self::ToldBeforeReplicated,
        Self::AbortFromMemory,
        Self::DecisionsForgotten,
        Self::LastDecisionWins,
        Self::CommitOnBegin,
        Self::NoTakenForYes,
        Self::PreparesExpire,
        Self::PreparesForgotten,
        Self::CheckpointSkipsLegs,
        Self::DecisionsNotReplayed,
        Self::DestinationNotPosted,
        Self::PostedTwice,
        Self::AbortPosts,
        Self::NobodyAsks,
        Self::NeverToldAgain,
        Self::SourceHoldsNothing,
        Self::StampsIgnored,
        Self::EndBeforeDurable,
        Self::HeardBeforeDurable,
        Self::EndsForgotten,
        Self::EndsToldOnce,
        Self::PayeeExpires,
        Self::EndPostsAll,
        Self::FormerBranchesNotAsked,
        Self::SealedAccountsPay,
        Self::SealBeforeDurable,
        Self::MoveEndsNotReplayed,
        Self::ChainBeginsBeforeDurable,
        Self::ChainDecidedInPart,
        Self::CheckpointSkipsMembers,
        Self::ChainDecisionsReplayedInPart,
        Self::ChainPlacesForgotten,
        Self::ChainIdsForgotten,
        Self::CameHoldsForgotten,
        Self::RehomesNotReplayed,
        Self::EndsNotPassedOn,
        Self::JoiningHoldsEnd,
        Self::JoiningForgotten,
        Self::LeavesNotReplayed,
    ];
}
