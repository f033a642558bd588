//! A disk in memory that loses power: the journal's [`Disk`], with everything that a real one may do at a crash.
//!
//! ```text
//!   write --> unsynced sectors --sync--> durable          crash: each unsynced sector is any of its versions,
//!   name ops --> pending --sync_directory--> durable             a prefix of the pending name operations
//! ```
//!
//! Power fails, the disk fills up or an operation fails when the [`Faults`] say so; from then until
//! [`SimDisk::restart`] nothing works, as for a process whose machine went down in the middle of a call.
//!
//! **Invariant:** what was synced is never lost, torn or changed, but by [`SimDisk::flip_bit`].

mod faults;
mod file;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tally_journal::disk::{Disk, DiskFile, OpenMode};

pub use faults::{Fate, Faults};
use file::Content;
use names::{Inode, Names};

use crate::random::Random;

/// See the top of the file. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    names: Names,
    files: BTreeMap<Inode, Content>,
    capacity_bytes: u64,
    faults: Faults,
    /// Counts restarts: what was opened before one is of no use after it.
    boot: u32,
    is_down: bool,
    /// Says that writes are durable when they are not.
    is_lying: bool,
    random: Random,
    /// Operations that changed something, or tried to, since the beginning.
    writes: u64,
}

/// An open file.
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: Inode,
    boot: u32,
    is_write_durable: bool,
}

fn down() -> io::Error {
    io::Error::other("the power is off")
}

impl SimDisk {
    /// An empty disk of `capacity_bytes`, whose misfortunes are drawn from `random`.
    pub fn new(capacity_bytes: u64, random: Random) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                names: Names::default(),
                files: BTreeMap::new(),
                capacity_bytes,
                faults: Faults::default(),
                boot: 0,
                is_down: false,
                is_lying: false,
                random,
                writes: 0,
            })),
        }
    }

    /// What will go wrong, and when.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// From here on durable writes are only said to be durable.
    pub fn set_lying(&self) {
        self.lock().is_lying = true;
    }

    /// A disk of its own with the same contents, everything on it durable, and nothing planned to go wrong.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let copy = Self::new(state.capacity_bytes, state.random.clone());
        let mut other = copy.lock();
        other.names = state.names.copy();
        other.files = state.files.iter().map(|(&inode, content)| (inode, content.copy())).collect();
        drop(other);
        copy
    }

    /// Puts bytes into a file that is there, behind the interface's back, durably.
    pub fn put(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(inode) = state.names.find(path)
            && let Ok(content) = state.file(inode)
        {
            content.write(bytes, offset);
            content.sync_range(offset, offset + bytes.len());
        }
    }

    /// Every file that has a name, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().names.all()
    }

    /// Makes the disk larger or smaller.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Whether the power is off.
    pub fn is_down(&self) -> bool {
        self.lock().is_down
    }

    /// Writes, syncs, renames and so on, since the beginning.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Turns the power off.
    pub fn power_off(&self) {
        self.lock().is_down = true;
    }

    /// Power fails, if it has not yet, and comes back: what was not synced is what chance makes of it.
    pub fn restart(&self) {
        let mut state = self.lock();
        let State { names, files, random, .. } = &mut *state;
        let fate = Fate::draw(random);
        names.crash(random, fate);
        for content in files.values_mut() {
            content.crash(random, fate);
        }
        files.retain(|inode, _| names.holds(*inode));
        state.faults = Faults::default();
        state.is_down = false;
        state.boot += 1;
    }

    /// Damages one bit at rest. `false` where the file has no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.lock();
        let Some(inode) = state.names.find(path) else { return false };
        state.file(inode).is_ok_and(|file| file.flip_bit(offset as usize, bit))
    }

    /// The bytes of a file, read without the interface and its faults.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let inode = state.names.find(path)?;
        Some(state.file(inode).ok()?.bytes().to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn file(&mut self, inode: Inode) -> io::Result<&mut Content> {
        self.files.get_mut(&inode).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Gives the blocks of files back that can never be seen again.
    fn forget_nameless(&mut self) {
        let names = &self.names;
        self.files.retain(|inode, _| names.holds(*inode));
    }

    fn up(&self) -> io::Result<()> {
        if self.is_down { Err(down()) } else { Ok(()) }
    }

    /// Before an operation that changes something: what befalls it.
    fn change(&mut self) -> io::Result<Option<faults::Fault>> {
        self.up()?;
        self.writes += 1;
        Ok(self.faults.next())
    }

    /// As [`Self::change`], for an operation that is all or nothing: it fails, or power fails after it.
    fn change_at_once(&mut self, operation: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        match self.change()? {
            None => operation(self),
            Some(faults::Fault::Error) => Err(io::Error::other("injected error")),
            Some(faults::Fault::PowerOff) => {
                if self.random.one_in(2) {
                    operation(self)?;
                }
                self.is_down = true;
                Err(down())
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes().len() as u64).sum()
    }

    fn check_room(&self, more_bytes: u64) -> io::Result<()> {
        if more_bytes > 0 && self.used_bytes() + more_bytes > self.capacity_bytes {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let inode = if mode == OpenMode::Create {
            let mut made = None;
            state.change_at_once(|state| {
                let inode = state.names.create(path)?;
                state.files.insert(inode, Content::default());
                made = Some(inode);
                Ok(())
            })?;
            made.expect("made without an error")
        } else {
            state.up()?;
            state.names.find(path).ok_or(ErrorKind::NotFound)?
        };
        let boot = state.boot;
        drop(state);
        let is_write_durable = mode == OpenMode::WriteDurable;
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), inode, boot, is_write_durable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().change_at_once(|state| state.names.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().change_at_once(|state| state.names.remove(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock();
        state.up()?;
        state.names.list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.lock().change_at_once(|state| {
            state.names.create_directory(directory);
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.lock().change_at_once(|state| {
            state.names.sync(directory);
            state.forget_nameless();
            Ok(())
        })
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.lock();
        state.up()?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

impl SimFile {
    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.up()?;
        if state.boot == self.boot { Ok(state) } else { Err(down()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.lock()?;
        let bytes = state.file(self.inode)?.bytes();
        let start = bytes.len().min(offset as usize);
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        let fault = state.change()?;
        let offset = offset as usize;
        let end = offset + bytes.len();
        let grows = end.saturating_sub(state.file(self.inode)?.bytes().len());
        state.check_room(grows as u64)?;
        let is_durable = self.is_write_durable && !state.is_lying;
        let file = state.file(self.inode)?;
        file.write(bytes, offset);
        match fault {
            None if is_durable => file.sync_range(offset, end),
            None => {}
            Some(faults::Fault::Error) => return Err(io::Error::other("injected error")),
            Some(faults::Fault::PowerOff) => {
                state.is_down = true;
                return Err(down());
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inode = self.inode;
        let mut state = self.lock()?;
        state.change_at_once(|state| {
            state.file(inode)?.sync();
            Ok(())
        })
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        let inode = self.inode;
        let mut state = self.lock()?;
        let now = state.file(inode)?.bytes().len() as u64;
        state.check_room(len_bytes.saturating_sub(now))?;
        state.change_at_once(|state| {
            state.file(inode)?.allocate(len_bytes as usize);
            Ok(())
        })
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.lock()?;
        Ok(state.file(self.inode)?.bytes().len() as u64)
    }

    fn as_std(&self) -> Option<&std::fs::File> {
        None
    }
}
