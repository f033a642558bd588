//! Names of files: as they are seen now, and which of them a crash may take back.
//!
//! Name operations reach the disk in the order in which they were made, as on every journalling file system:
//! a crash keeps a prefix of those whose directory was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Fate;
use crate::random::Random;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(u64);

/// One change of names.
#[derive(Debug)]
enum NameOp {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// See the top of the file.
#[derive(Debug, Default)]
pub(super) struct Names {
    now: BTreeMap<PathBuf, Inode>,
    durable: BTreeMap<PathBuf, Inode>,
    pending: Vec<NameOp>,
    directories: BTreeSet<PathBuf>,
    inode_next: u64,
}

impl Names {
    pub(super) fn find(&self, path: &Path) -> Option<Inode> {
        self.now.get(path).copied()
    }

    /// Whether a file has a name now or may have one after a crash.
    pub(super) fn holds(&self, inode: Inode) -> bool {
        self.now.values().chain(self.durable.values()).any(|&held| held == inode)
    }

    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.now.keys().cloned().collect()
    }

    /// The same names, all of them durable.
    pub(super) fn copy(&self) -> Self {
        Self {
            now: self.now.clone(),
            durable: self.now.clone(),
            pending: Vec::new(),
            directories: self.directories.clone(),
            inode_next: self.inode_next,
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Inode> {
        if !path.parent().is_some_and(|parent| self.directories.contains(parent)) {
            return Err(ErrorKind::NotFound.into());
        }
        self.inode_next += 1;
        let inode = Inode(self.inode_next);
        self.push(NameOp::Link(path.to_owned(), inode));
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.now.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        self.push(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        if !self.now.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        self.push(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.directories.contains(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(self.now.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    pub(super) fn create_directory(&mut self, directory: &Path) {
        self.directories.extend(directory.ancestors().map(Path::to_owned));
    }

    pub(super) fn sync(&mut self, directory: &Path) {
        let pending = std::mem::take(&mut self.pending);
        for op in pending {
            if op.path().parent() == Some(directory) {
                op.apply(&mut self.durable);
            } else {
                self.pending.push(op);
            }
        }
    }

    pub(super) fn crash(&mut self, random: &mut Random, fate: Fate) {
        let kept = fate.version(random, self.pending.len() + 1);
        for op in self.pending.drain(..).take(kept) {
            op.apply(&mut self.durable);
        }
        self.now = self.durable.clone();
    }

    fn push(&mut self, op: NameOp) {
        op.apply(&mut self.now);
        self.pending.push(op);
    }
}

impl NameOp {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}
