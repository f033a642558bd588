//! A node of the registry: one port, one thread.
//!
//! ```text
//!  accept --first frame--+-- LinkHello ------> branch_link   frames in and out, only at the leader
//!                        +-- LinkPeerHello --> peer          Raft's calls of other nodes
//!                        '-- LinkCall -------> calls         operators, and what branches look up
//!  leader    waits to lead, sets the barrier, ticks the coordinators
//!  proposer  fills batches, two under way at a time
//!  health    hears heartbeats, proposes what has changed, asks for snapshots
//! ```
//!
//! Raft's own task, the state machine and all of these run on one thread: a decision is a few wake-ups of tasks and one
//! flush, and none of a thread. The journal's flusher has its own.

mod accept;
mod audit;
mod branch_link;
mod calls;
mod health;
mod leader;
mod membership;
mod moves;
mod node;
mod peer;
mod proposer;
mod start;

pub use node::{Node, NodeOptions};
pub use start::{RunFile, Server, run};
