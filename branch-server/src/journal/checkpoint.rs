//! Checkpoints: all accounts and open holds in a file, so that recovery need not replay the whole journal.

use tally_protocol::{BranchId, Lsn, Timestamp};

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// Whose it is.
    pub branch: BranchId,
    /// Counted from 1.
    pub number: u64,
    /// Replay begins here: the durable position before the first account was read.
    pub replay_from: Lsn,
    /// Nothing in it is younger: it counts because everything below this is durable.
    pub complete_at: Lsn,
    /// The highest stamp when it was complete.
    pub last_timestamp: Timestamp,
    /// The id index on disk covers everything below this.
    pub ids_covered: Lsn,
    /// The engine's own counters, at most 64.
    pub counters: Vec<u64>,
}

/// What the engine adds to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Whose it is.
    pub branch: BranchId,
    /// The id index on disk covers everything below this.
    pub ids_covered: Lsn,
    /// The engine's own counters, at most 64.
    pub counters: Vec<u64>,
    /// How fast it may be written; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
}

/// Why there is no new checkpoint. The last one stands.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What was read back is not what was written.
    #[error("the checkpoint reads back differently at byte {0}")]
    ReadBack(u64),
    /// The journal stopped before what it captured was durable.
    #[error("the journal stopped")]
    Stopped,
}
