//! The real server under torture: killed at random instants, and run on a disk that loses power or fails.

pub(crate) mod disk;
