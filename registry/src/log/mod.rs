//! The node's part of the replicated log, on a journal of its own: votes and entries are durable before openraft hears
//! that they are.
//!
//! ```text
//!  openraft --append, save_vote--> store --records--> journal (ring, flusher, segments)
//!      ^                             |                   '--durable--> waiting --"flushed"--> openraft
//!      '------ entries read <------ index (newest ones in memory, older ones by position)
//!  purge --> index, record --> retention: manifest, then the segments below are given up
//! ```
//!
//! **Invariants:** everything goes through one journal, in the order in which openraft asked for it, so that any prefix of
//! it is a state that this node was in; what was acknowledged is in the prefix that a crash leaves; a segment is given
//! up only when a durable manifest says what it said.

mod identity;
mod index;
mod manifest;
mod open;
mod record;
mod retention;
mod store;
mod waiting;

#[cfg(test)]
mod tests;

pub use identity::Identity;
pub use manifest::{Manifest, ManifestError};
pub use open::{LogByHand, LogOptions, OpenError, create, identity_of, open, open_by_hand};
pub use record::{Record, RecordError};
pub use store::{LogHandle, LogReader, LogStore};
