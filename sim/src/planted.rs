//! Bugs on purpose: each changes one decision of the server, and the simulator must find out.
//!
//! They are planted in the simulator's own loops, in what stands between the parts, and not in the parts
//! themselves, so that the server holds no trace of them.

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Replies leave when they are ready, whatever the disk says.
    ReplyBeforeFlush,
    /// The disk says "written" before it has.
    FlushNotDurable,
    /// A write error is taken for a success.
    WriteErrorIgnored,
    /// One group is not written at all.
    GroupSkipped,
    /// Recovery does not look at the checksum of the last group.
    TornTailAccepted,
    /// A read is answered without waiting for the record that it shows.
    ReadNotGated,
    /// After a restart no id is known.
    IdsForgotten,
    /// After a restart the ids of refusals are free again.
    RefusedIdsForgotten,
    /// After a restart burnt ids are free again.
    CancelsForgotten,
    /// After a restart ended holds look as if they had never ended.
    EndsForgotten,
    /// A worker that meets an id in flight takes it all the same.
    InFlightIgnored,
    /// A transfer is decided on what its accounts were before it had the locks.
    LostUpdate,
    /// A settled hold stays open.
    HoldStaysOpen,
    /// A hold that ran out is given back without a record.
    ExpiryNotRecorded,
    /// Holds run out before their time.
    ExpiryTooEarly,
    /// The links of a chain are worked one by one.
    ChainInPieces,
    /// New limits are recorded, but do not bind.
    LimitsNotApplied,
    /// A frozen account is open in memory.
    FreezeNotApplied,
    /// A checkpoint counts before everything in it is durable.
    CheckpointTooEarly,
    /// Replay begins where the checkpoint ended instead of where it began.
    ReplayFromTooLate,
    /// A checkpoint leaves an account out.
    CheckpointSkipsAccount,
    /// A checkpoint leaves the open holds out.
    CheckpointSkipsHolds,
    /// Recovery leaves out one record.
    RecordNotReplayed,
    /// Recovery brings only the debit side back.
    CreditNotReplayed,
    /// Recovery forgets what was spent today.
    DayLimitNotRestored,
    /// After a restart stamps begin with the wall clock.
    StampsGoBack,
    /// After a restart the journal goes on one block too early.
    TailOverwritten,
    /// Requests are worked after their deadline.
    DeadlineIgnored,
    /// A reply is lost.
    ReplyLost,
    /// A reply is sent twice.
    ReplyTwice,
    /// Two replies are swapped.
    RepliesSwapped,
    /// The feed leaves out a record.
    FeedSkips,
    /// Every session may do what staff may.
    OwnerNotChecked,
    /// Accounts are opened without the limit that was asked for.
    LimitFlagDropped,
    /// Linked accounts are opened one by one.
    OpeningsInPieces,
    /// After a restart, accounts are as open or closed as they were before the holds that close them.
    ClosingNotReplayed,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ReplyBeforeFlush,
        Self::FlushNotDurable,
        Self::WriteErrorIgnored,
        Self::GroupSkipped,
        Self::TornTailAccepted,
        Self::ReadNotGated,
        Self::IdsForgotten,
        Self::RefusedIdsForgotten,
        Self::CancelsForgotten,
        Self::EndsForgotten,
        Self::InFlightIgnored,
        Self::LostUpdate,
        Self::HoldStaysOpen,
        Self::ExpiryNotRecorded,
        Self::ExpiryTooEarly,
        Self::ChainInPieces,
        Self::LimitsNotApplied,
        Self::FreezeNotApplied,
        Self::CheckpointTooEarly,
        Self::ReplayFromTooLate,
        Self::CheckpointSkipsAccount,
        Self::CheckpointSkipsHolds,
        Self::RecordNotReplayed,
        Self::CreditNotReplayed,
        Self::DayLimitNotRestored,
        Self::StampsGoBack,
        Self::TailOverwritten,
        Self::DeadlineIgnored,
        Self::ReplyLost,
        Self::ReplyTwice,
        Self::RepliesSwapped,
        Self::FeedSkips,
        Self::OwnerNotChecked,
        Self::LimitFlagDropped,
        Self::OpeningsInPieces,
        Self::ClosingNotReplayed,
    ];
}
