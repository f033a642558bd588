//! A disk in memory that forgets what was not synced, and that stops at any step.

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

type Node = Arc<Mutex<Inode>>;

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes that may still happen before the machine stops.
    steps_left: Option<usize>,
    steps: usize,
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
        let state = self.state.lock();
        let names = match unsynced {
            Unsynced::Kept => &state.names,
            Unsynced::Lost => &state.durable_names,
        };
        let copy = |(path, node): (&PathBuf, &Node)| {
            let node = node.lock();
            let bytes = match unsynced {
                Unsynced::Kept => node.current.clone(),
                Unsynced::Lost => node.durable.clone(),
            };
            (path.clone(), Arc::new(Mutex::new(Inode { current: bytes.clone(), durable: bytes })))
        };
        let names: BTreeMap<_, _> = names.iter().map(copy).collect();
        let state = State { durable_names: names.clone(), names, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the bytes of a file behind everyone's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut [u8])) {
        let node = self.state.lock().names[path].clone();
        let mut node = node.lock();
        change(&mut node.current);
        node.durable = node.current.clone();
    }

    /// The content of a file, if there is one.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.state.lock().names.get(path)?.lock().current.clone())
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(left) = &mut state.steps_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the machine has stopped"))?;
        }
        state.steps += 1;
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    node: Node,
    mode: OpenMode,
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let node = if mode == OpenMode::Create {
            self.step()?;
            let node = Node::default();
            self.state.lock().names.insert(path.to_owned(), node.clone());
            node
        } else {
            self.state.lock().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), node, mode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut state = self.state.lock();
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.state.lock().names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.state.lock().names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.step()?;
        let mut state = self.state.lock();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let node = self.node.lock();
        let bytes = node.current.get(offset as usize..).unwrap_or_default();
        let len_bytes = bytes.len().min(buffer.len());
        buffer[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
        Ok(len_bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(matches!(self.mode, OpenMode::Create | OpenMode::WriteDurable), "a write through {:?}", self.mode);
        self.disk.step()?;
        let mut node = self.node.lock();
        let end = offset as usize + bytes.len();
        let durable = self.mode == OpenMode::WriteDurable;
        let Inode { current, durable: kept } = &mut *node;
        for content in [Some(current), durable.then_some(kept)].into_iter().flatten() {
            if content.len() < end {
                content.resize(end, 0);
            }
            content[offset as usize..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.step()?;
        let mut node = self.node.lock();
        node.durable = node.current.clone();
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.step()?;
        let mut node = self.node.lock();
        let len_bytes = node.current.len().max(len_bytes as usize);
        node.current.resize(len_bytes, 0);
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.node.lock().current.len() as u64)
    }

    fn as_std(&self) -> Option<&std::fs::File> {
        None
    }
}
