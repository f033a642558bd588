//! The data plane of a branch: TLS sessions, intake queues, pinned workers, the journal, replies.
//!
//! ```text
//! client --> acceptor --> tls --> session --> intake ==MPSC==> worker
//!   ^                                                            |
//!   |                                                  lock accounts, check, apply
//!   '-- tls <-- session <-- replies <-- durable up to LSN -- journal <== record =='
//! ```

pub mod accounts;
pub mod bell;
mod prefetch;
pub mod sync;

#[cfg(not(feature = "loom"))]
pub mod clock;
pub mod ids;
pub mod intake;
pub mod journal;
pub mod replies;
