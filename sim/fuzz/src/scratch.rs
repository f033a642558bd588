//! A directory of the real file system for the id index, which does its own IO.

use std::path::{Path, PathBuf};

/// Where files live in memory, if there is such a place: each input makes and removes a few.
const MEMORY: &str = "/dev/shm";

/// Removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory. One process needs one at a time.
    pub fn new() -> Self {
        let base = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
        let path = base.join(format!("tally-fuzz-{}", std::process::id()));
        // Left by a process of this number that died of a finding.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("there is a place for temporary files");
        Self(path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
