//! The data plane of a branch: TLS sessions, intake queues, pinned workers, the journal, replies.

pub mod ids;
pub mod journal;
pub mod sync;
