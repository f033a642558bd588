//! A journal on disk: what is appended is durable, in order, before anybody is told. It does not know what its
//! records mean: a branch keeps its money in one, a registry node its Raft log.
//!
//! ```text
//!  writers --secure, reserve, fill--> ring --seal--> flusher --O_DIRECT|O_DSYNC--> segment files
//!                                                       '--> durable position --> whoever waits
//! ```
//!
//! The rules are pure and live in `tally_ledger::journal`: what one flush makes durable, where the next record goes, what
//! a scanned tail means. Here they are carried out.

// In a model only parts of it are used.
#![cfg_attr(feature = "loom", allow(dead_code))]

// What the journal's threads share with those around them. Functions on the way of every payment are marked
// `#[inline]`, here and in the log: they are called from another crate.
pub mod bell;
pub mod histogram;
pub mod scheduling;
pub mod sync;

// The log in memory and the thread that writes it: these are model-checked.
pub mod flusher;
pub mod log;
pub mod ring;
pub mod stats;

// The rest touches files and clocks, which loom does not model.
#[cfg(not(feature = "loom"))]
pub mod aligned;
#[cfg(not(feature = "loom"))]
pub mod blocking;
#[cfg(not(feature = "loom"))]
pub mod conformance;
#[cfg(not(feature = "loom"))]
pub mod disk;
#[cfg(not(feature = "loom"))]
mod flushing;
#[cfg(not(feature = "loom"))]
pub mod published;
#[cfg(not(feature = "loom"))]
pub mod reader;
#[cfg(not(feature = "loom"))]
pub mod real_disk;
#[cfg(not(feature = "loom"))]
pub mod recovery;
#[cfg(not(feature = "loom"))]
mod running;
#[cfg(not(feature = "loom"))]
pub mod segment;
#[cfg(not(feature = "loom"))]
pub mod testing;
#[cfg(not(feature = "loom"))]
mod turns;
#[cfg(not(feature = "loom"))]
mod uring;

pub use log::{Log, LogFull, LogWriter, Reservation};
pub use stats::JournalStats;
#[cfg(not(feature = "loom"))]
pub use {
    disk::{Disk, DiskFile, OpenMode},
    flushing::FlusherByHand,
    reader::{ReadError, Reader},
    real_disk::RealDisk,
    recovery::{Anchor, Recovered, RecoveryError, TornTail, recover_groups},
    running::{Journal, JournalOptions, OnDurable, StartError, WriteVia},
};

#[cfg(all(test, not(feature = "loom")))]
mod tests;
