//! What a checkpoint's bytes mean: blocks of accounts and holds, and the manifest that makes them count.

pub mod account;
pub mod block;
pub mod hold;
pub mod manifest;
mod varint;

/// Why bytes are not what a checkpoint says they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointDamage {
    /// The bytes end too early.
    #[error("checkpoint cut short")]
    Short,
    /// Not this kind of thing at all.
    #[error("not a part of a checkpoint")]
    Magic,
    /// Written by a version that this one does not know.
    #[error("checkpoint format {0} is unknown")]
    Format(u32),
    /// A checksum does not match.
    #[error("checkpoint checksum does not match")]
    Check,
    /// A field holds a value that was never written.
    #[error("checkpoint field `{0}` is invalid")]
    Field(&'static str),
    /// A whole block, but of another checkpoint or another place.
    #[error("checkpoint block {found} in place of {expected}")]
    Order {
        /// Whose place it is.
        expected: u64,
        /// What lies there.
        found: u64,
    },
    /// The blocks are not the ones that the manifest counted.
    #[error("checkpoint blocks and manifest do not agree")]
    Manifest,
}
