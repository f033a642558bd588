//! What a branch keeps in its journal: records of what happened to its money, and checkpoints, so that a restart need
//! not replay all of them. How a journal gets to the disk is the crate `tally_journal`'s.

pub mod checkpoint;
pub mod records;
pub mod recovery;
mod running;

pub use checkpoint::{CheckpointError, CheckpointMeta, CheckpointRequest};
pub use records::Records;
pub use recovery::{Recovered, RecoveryError, RecoveryTarget, Unfit, recover};
pub use running::Journal;

#[cfg(test)]
mod tests;
