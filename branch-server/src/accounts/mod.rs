//! The accounts of the branch in memory: slots that are read without a lock, and an index from id to slot.

mod index;
mod slot;
mod store;

pub use slot::{Locked, Slot, SlotNumber, lock_both};
pub use store::{Accounts, AccountsFull, Opening};
