//! The data folder as a process sees it: who is using it, and where that server listens.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Whoever only asks whether a server runs holds the lock for an instant, too.
const TRIES_MAX: u32 = 5;
const TRY_INTERVAL: Duration = Duration::from_millis(20);

/// The exclusive use of a data folder; given back when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, making it if it is not there.
    ///
    /// # Errors
    /// When another server uses it, or it cannot be written.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        for _ in 0..TRIES_MAX {
            if let Some(lock) = Self::try_take(dir).with_context(|| format!("{}", dir.display()))? {
                return Ok(lock);
            }
            std::thread::sleep(TRY_INTERVAL);
        }
        anyhow::bail!("{} is in use by another server", dir.display())
    }

    /// Takes the folder unless a server uses it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn try_take(dir: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// `server.json`: the process that serves a folder and the ports it chose. There while it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// The server's process id.
    pub pid: u32,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin server listens.
    pub metrics: Option<SocketAddr>,
    #[serde(skip)]
    path: PathBuf,
}

impl RunFile {
    fn path(dir: &Path) -> PathBuf {
        dir.join("server.json")
    }

    /// Says where this process serves `dir`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn write(dir: &Path, address: SocketAddr, metrics: Option<SocketAddr>) -> io::Result<Self> {
        let file = Self { pid: std::process::id(), address, metrics, path: Self::path(dir) };
        let text = serde_json::to_vec_pretty(&file).expect("numbers and addresses are always JSON");
        crate::users::replace_private_file(&file.path, &text)?;
        Ok(file)
    }

    /// What the server of `dir` said last; `None` when there is no such file. A server that was killed
    /// leaves its file behind: whether it runs, only the lock says.
    ///
    /// # Errors
    /// When the file cannot be read or is not one of ours.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(text) => {
                let file: Self = serde_json::from_slice(&text)?;
                Ok(Some(Self { path, ..file }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets it, at the end of a server.
    pub(super) fn remove(&self) {
        // A server that is killed leaves it behind as well; the next one forgets it.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Forgets what a server that was killed left behind. Only for who holds the lock.
    ///
    /// # Errors
    /// When the file is there and stays.
    pub(super) fn forget(dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(Self::path(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_server() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("new");
        let lock = FolderLock::take(&dir).expect("free");
        let error = FolderLock::take(&dir).expect_err("taken").to_string();
        assert!(error.contains("in use by another server"), "{error}");
        drop(lock);
        assert!(FolderLock::take(&dir).is_ok());
    }

    #[test]
    fn the_run_file_says_where() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(RunFile::read(folder.path()).expect("no file is fine"), None);
        let address: SocketAddr = "127.0.0.1:5".parse().expect("an address");
        let written = RunFile::write(folder.path(), address, Some(address)).expect("written");
        let read = RunFile::read(folder.path()).expect("read").expect("there");
        assert_eq!(read, written);
        read.remove();
        assert_eq!(RunFile::read(folder.path()).expect("gone is fine"), None);
    }
}
