//! The control plane: who is in the bank, where everybody is, and how transfers between branches end.
//!
//! ```text
//!  branches, operators, other nodes --> server --> coordinator --proposals--> raft --> log, snapshots
//!                                         ^            ^                        |
//!                                         '-- frames --'------- state <--applied'
//! ```

pub mod bytes;
pub mod log;
pub mod raft;
