//! The bank's rules. Events and `now` in, outcomes and effects out: no IO, no clock, no threads.

pub mod account;
pub mod actor;
pub mod hold;
pub mod journal;

pub use account::{Account, Sums};
pub use actor::Actor;
pub use hold::{Hold, HoldEnd};
