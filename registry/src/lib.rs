//! The control plane: who is in the bank, where everybody is, and how transfers between branches end.
//!
//! ```text
//!  branches, operators, other nodes --> server --> coordinator --proposals--> raft --> log, snapshots
//!                                         ^            ^                        |
//!                                         '-- frames --'------- state <--applied'
//! ```

pub mod admin;
pub mod bytes;
pub mod client;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod core;
pub mod link;
pub mod log;
pub mod metrics;
pub mod raft;
pub mod server;
pub mod state;
