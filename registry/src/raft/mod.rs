//! The replicated log: openraft, with our own storage, network and codec around it.

pub mod codec;
pub mod machine;
pub mod network;
pub mod rpc;
pub mod snapshots;
pub mod types;

pub use types::{Batch, Member, SnapshotBytes, Types};
