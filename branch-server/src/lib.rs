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

pub mod acceptor;
pub mod admin;
pub mod affinity;
pub mod auth;
pub mod branch;
pub mod checkpointer;
pub mod clock;
pub mod config;
pub mod engine;
pub mod feed;
pub mod holds;
pub mod ids;
pub mod intake;
pub mod journal;
pub mod limits;
pub mod logging;
pub mod lookup;
pub mod metrics;
pub mod recovery;
pub mod replies;
pub mod server;
pub mod session;
pub mod tls;
pub mod tokens;
pub mod users;
pub mod worker;
