//! Everything that can go wrong with the id index, by culprit: the disk, or damaged files. An id that
//! cannot be looked up is an error, never "absent": taking it for new could pay twice.

use std::io;
use std::path::{Path, PathBuf};

/// Why an id could not be looked up or the index not opened.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// The disk or the file system refused.
    #[error("id index: {path}: {source}")]
    Io {
        /// The file or directory that was worked on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A page of a run file does not carry the checksum that it was written with.
    #[error("id index: run {run}, page {page} ({what}) is damaged")]
    PageDamaged {
        /// The run's number; its file is `run-<number>.ids`.
        run: u64,
        /// The page, counted from 0, of 4,096 bytes each.
        page: u64,
        /// What the page should have held.
        what: &'static str,
    },
    /// The manifest cannot be understood.
    #[error("id index: {path} is damaged: {what}")]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There are run files but nothing that says which of them count.
    #[error("id index: {path} holds run files but no manifest; restore the manifest or the whole directory")]
    ManifestMissing {
        /// The index's directory.
        path: PathBuf,
    },
    /// A publication failed half-way; nothing more is written until the process starts again.
    #[error("id index: stopped writing after a failed publication; restart the branch")]
    Stopped,
}

impl IdError {
    /// Attaches the path that an IO error belongs to.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
