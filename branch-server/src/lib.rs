//! The data plane of a branch: TLS sessions, intake queues, pinned workers, the journal, replies.
//!
//! ```text
//! client --> acceptor --> tls --> session --> intake ==MPSC==> worker
//!   ^                                                            |
//!   |                                                  lock accounts, check, apply
//!   '-- tls <-- session <-- replies <-- durable up to LSN -- journal <== record =='
//! ```

// In a model only parts of it are used.
#![cfg_attr(feature = "loom", allow(dead_code))]

pub mod accounts;
pub mod ids;
pub mod intake;
mod prefetch;
pub mod replies;
pub mod stages;

// What the branch's threads share with the journal's.
use tally_journal::scheduling;
pub use tally_journal::{bell, histogram, sync};

// The rest touches files, sockets and clocks, which loom does not model.
#[cfg(not(feature = "loom"))]
pub mod acceptor;
#[cfg(not(feature = "loom"))]
pub mod admin;
#[cfg(not(feature = "loom"))]
pub mod affinity;
#[cfg(not(feature = "loom"))]
pub mod audit;
#[cfg(not(feature = "loom"))]
pub mod auth;
#[cfg(not(feature = "loom"))]
pub mod branch;
#[cfg(not(feature = "loom"))]
pub mod checkpointer;
#[cfg(not(feature = "loom"))]
pub mod clock;
#[cfg(not(feature = "loom"))]
pub mod config;
pub mod endings;
#[cfg(not(feature = "loom"))]
pub mod engine;
#[cfg(not(feature = "loom"))]
pub mod feed;
pub mod holds;
#[cfg(not(feature = "loom"))]
pub mod journal;
#[cfg(not(feature = "loom"))]
pub mod limits;
#[cfg(not(feature = "loom"))]
pub mod link;
#[cfg(not(feature = "loom"))]
pub mod logging;
#[cfg(not(feature = "loom"))]
pub mod lookup;
#[cfg(not(feature = "loom"))]
pub mod metrics;
#[cfg(not(feature = "loom"))]
pub mod recovery;
#[cfg(not(feature = "loom"))]
pub mod server;
#[cfg(not(feature = "loom"))]
pub mod session;
#[cfg(not(feature = "loom"))]
pub mod tls;
#[cfg(not(feature = "loom"))]
pub mod tokens;
#[cfg(not(feature = "loom"))]
pub mod two_phase;
#[cfg(not(feature = "loom"))]
pub mod users;
#[cfg(not(feature = "loom"))]
pub mod worker;
