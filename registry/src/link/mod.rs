//! Connections between services: TLS with certificates on both sides, and frames on them.

pub mod frames;
pub mod identity;
pub mod tls;

pub use frames::{Frame, FrameReader, append_refused};
pub use identity::Identity;
pub use tls::Tls;
