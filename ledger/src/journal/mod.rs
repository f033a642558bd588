//! The rules of the journal: what a record looks like, how records are grouped, when what is durable,
//! and what a scanned tail means. The shell only carries bytes to and from the disk.

pub mod checkpoint;
pub mod cursor;
pub mod group;
pub mod position;
pub mod record;
pub mod recovery;

#[cfg(test)]
mod record_tests;
