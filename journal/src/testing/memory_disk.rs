//! A disk in memory that forgets what was not synced, and that stops at any step, at once or in hindsight.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};

/// A file's bytes: as written, and as a crash leaves them.
#[derive(Clone, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
}

/// Files have numbers, so that they keep their identity when they are renamed.
type Number = usize;

/// One thing that happened to the disk.
#[derive(Clone)]
enum Change {
    Create(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory,
    Write { file: Number, offset: usize, bytes: Vec<u8>, durable: bool },
    Sync(Number),
    Allocate(Number, usize),
}

#[derive(Clone, Default)]
struct Files {
    /// Removed ones stay: they may be open.
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Number>,
    durable_names: BTreeMap<PathBuf, Number>,
}

#[derive(Default)]
struct State {
    files: Files,
    /// Changes that may still happen before the machine stops.
    steps_left: Option<usize>,
    steps: usize,
    /// Everything that happened, where it is kept.
    history: Option<Vec<Change>>,
}

/// See the module.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// As if all of it had been synced.
    Kept,
    /// As if none of it had been written.
    Lost,
}

impl MemoryDisk {
    /// An empty disk that remembers every change, for [`MemoryDisk::crashed_at`].
    pub fn with_history() -> Self {
        let state = State { history: Some(Vec::new()), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Every change after the next `steps` fails, as if the machine had stopped.
    pub fn stop_after(&self, steps: Option<usize>) {
        self.state.lock().steps_left = steps;
    }

    /// Changes so far.
    pub fn steps(&self) -> usize {
        self.state.lock().steps
    }

    /// What is there after a crash: an independent copy.
    pub fn after_crash(&self, unsynced: Unsynced) -> Self {
        self.state.lock().files.after_crash(unsynced)
    }

    /// What would be there had the machine stopped after the first `steps` changes; with `torn`, in the middle of the
    /// one that followed, if it was a write.
    ///
    /// # Panics
    /// When the history was not kept, or is shorter.
    pub fn crashed_at(&self, steps: usize, torn: bool, unsynced: Unsynced) -> Self {
        let state = self.state.lock();
        let history = state.history.as_ref().expect("the disk was made with its history");
        let mut files = Files::default();
        for change in &history[..steps] {
            files.apply(change).expect("it happened before");
        }
        if let Some(Change::Write { file, offset, bytes, durable }) = history.get(steps).filter(|_| torn) {
            let bytes = bytes[..bytes.len() / 2].to_vec();
            let half = Change::Write { file: *file, offset: *offset, bytes, durable: *durable };
            files.apply(&half).expect("a write to an open file");
        }
        files.after_crash(unsynced)
    }

    /// Changes the bytes of a file behind everyone's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state.lock();
        let number = state.files.names[path];
        let inode = &mut state.files.inodes[number];
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    /// The content of a file, if there is one.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let number = state.files.names.get(path)?;
        Some(state.files.inodes[*number].current.clone())
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(left) = &mut state.steps_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the machine has stopped"))?;
        }
        state.files.apply(&change)?;
        state.steps += 1;
        if let Some(history) = &mut state.history {
            history.push(change);
        }
        Ok(())
    }

    fn file(&self, file: Number, mode: OpenMode) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), file, mode })
    }
}

impl Files {
    fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create(path) => {
                self.names.insert(path.clone(), self.inodes.len());
                self.inodes.push(Inode::default());
            }
            Change::Rename(from, to) => {
                let number = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                self.names.insert(to.clone(), number);
            }
            Change::Remove(path) => {
                self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            }
            Change::SyncDirectory => self.durable_names = self.names.clone(),
            Change::Write { file, offset, bytes, durable } => {
                let Inode { current, durable: kept } = &mut self.inodes[*file];
                let end = offset + bytes.len();
                for content in [Some(current), durable.then_some(kept)].into_iter().flatten() {
                    if content.len() < end {
                        content.resize(end, 0);
                    }
                    content[*offset..end].copy_from_slice(bytes);
                }
            }
            Change::Sync(file) => {
                let inode = &mut self.inodes[*file];
                inode.durable.clone_from(&inode.current);
            }
            Change::Allocate(file, len_bytes) => {
                let content = &mut self.inodes[*file].current;
                content.resize(content.len().max(*len_bytes), 0);
            }
        }
        Ok(())
    }

    fn after_crash(&self, unsynced: Unsynced) -> MemoryDisk {
        let names = match unsynced {
            Unsynced::Kept => &self.names,
            Unsynced::Lost => &self.durable_names,
        };
        let mut files = Self::default();
        for (path, &number) in names {
            let bytes = match unsynced {
                Unsynced::Kept => &self.inodes[number].current,
                Unsynced::Lost => &self.inodes[number].durable,
            };
            files.names.insert(path.clone(), files.inodes.len());
            files.inodes.push(Inode { current: bytes.clone(), durable: bytes.clone() });
        }
        files.durable_names = files.names.clone();
        MemoryDisk { state: Arc::new(Mutex::new(State { files, ..State::default() })) }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: Number,
    mode: OpenMode,
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::Create {
            self.change(Change::Create(path.to_owned()))?;
        }
        let number = self.state.lock().files.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(number, mode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Remove(path.to_owned()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock();
        Ok(state.files.names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.change(Change::SyncDirectory)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        let bytes = state.files.inodes[self.file].current.get(offset as usize..).unwrap_or_default();
        let len_bytes = bytes.len().min(buffer.len());
        buffer[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
        Ok(len_bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(matches!(self.mode, OpenMode::Create | OpenMode::WriteDurable), "a write through {:?}", self.mode);
        let durable = self.mode == OpenMode::WriteDurable;
        self.disk.change(Change::Write { file: self.file, offset: offset as usize, bytes: bytes.to_vec(), durable })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(Change::Sync(self.file))
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.change(Change::Allocate(self.file, len_bytes as usize))
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().files.inodes[self.file].current.len() as u64)
    }

    fn as_std(&self) -> Option<&std::fs::File> {
        None
    }
}
