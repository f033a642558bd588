//! A disk that a real server runs on and that can lose power or fail, because `kill -9` alone proves
//! nothing about flushes: the page cache outlives the process.
//!
//! ```text
//! server --> kernel --> mount (FUSE) --> tree: names --> file: blocks in memory --flush--> backing folder
//!                                          ^ power_cut: back to what was flushed   ^ faults: EIO
//! ```

mod faults;
mod file;
mod mount;
mod tree;

pub(crate) use faults::After;
pub(crate) use mount::{MountedDisk, unmount_left_behind};
pub(crate) use tree::Survival;

#[cfg(test)]
mod tests;
