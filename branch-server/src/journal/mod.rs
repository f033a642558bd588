//! The journal's hands: the log in memory, the thread that writes it, segments, checkpoints, recovery.
//!
//! ```text
//!  workers --secure, reserve, fill--> ring --seal--> flusher --O_DIRECT|O_DSYNC--> segment files
//!                                                       '--> durable position --> session threads
//! ```

#[cfg(not(feature = "loom"))]
pub mod aligned;
#[cfg(not(feature = "loom"))]
pub mod blocking;
#[cfg(not(feature = "loom"))]
pub mod checkpoint;
#[cfg(not(feature = "loom"))]
pub mod conformance;
#[cfg(not(feature = "loom"))]
pub mod disk;
pub mod flusher;
pub mod log;
#[cfg(not(feature = "loom"))]
pub mod published;
#[cfg(not(feature = "loom"))]
pub mod reader;
#[cfg(not(feature = "loom"))]
pub mod real_disk;
#[cfg(not(feature = "loom"))]
pub mod recovery;
pub mod ring;
#[cfg(not(feature = "loom"))]
mod running;
#[cfg(not(feature = "loom"))]
pub mod segment;
pub mod stats;
#[cfg(not(feature = "loom"))]
mod uring;

pub use log::{Log, LogFull, LogWriter, Reservation};
pub use stats::JournalStats;
#[cfg(not(feature = "loom"))]
pub use {
    checkpoint::{CheckpointError, CheckpointMeta, CheckpointRequest},
    disk::{Disk, DiskFile, OpenMode},
    reader::ReadError,
    real_disk::RealDisk,
    recovery::{Recovered, RecoveryError, RecoveryTarget, Unfit, recover},
    running::{Journal, JournalOptions, OnDurable, StartError, WriteVia},
};

#[cfg(all(test, not(feature = "loom")))]
mod tests;
