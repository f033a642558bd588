//! The audit of the whole bank at one instant, while it serves.
//!
//! ```text
//!   registry --stamp T--> auditor --T--> every branch: all accounts as of T, and the legs that were open at T
//!                            '--those legs--> registry: which were committed by T?
//!                            '--> compare: debits equal credits, and the settlement accounts mirror each other
//! ```
//!
//! The instant is a stamp of hybrid logical clocks, so it is a consistent cut: whatever caused something in it is in it
//! too. A leg that is open at T counts as posted where the registry committed it by T, whether or not its branch had
//! heard by then; so both sides of a transfer count alike, however far apart the messages are.
//!
//! - [`Cut`] adds up one branch out of a checkpoint and the records behind it;
//! - [`BranchBooks`] is what it says;
//! - [`compare`] finds what does not agree.

mod books;
mod compare;
mod cut;

#[cfg(test)]
mod tests;

pub use books::{BranchBooks, LegKey, OpenLeg, Settlement, Side, Totals};
pub use compare::{Committed, Finding, Pair, Report, compare};
pub use cut::Cut;
