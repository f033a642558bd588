//! Placeholder.
pub mod torture;
