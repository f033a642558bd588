//! The failing disk's folders and files, and its power switch.
//!
//! Rules, as strict as POSIX lets a file system be:
//! - data and length of a file are durable after `fsync` or `fdatasync` of it, or after a write to it that
//!   was opened with `O_DSYNC`;
//! - a name (created, renamed, removed) is durable after `fsync` of the folder that it is in, and not
//!   before: flushing the file does not save its name;
//! - names of one folder become durable in the order in which they changed; a rename within a folder is
//!   one change.
//!
//! **Invariant:** after [`Disk::power_cut`] only what these rules promise is certain to be there.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::faults::Health;
use super::file::FileData;

/// A file or folder; 1 is the root.
pub(crate) type Inode = u64;
/// The root folder.
pub(crate) const ROOT: Inode = 1;

/// Why the disk does not do it: a Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

type Result<T> = std::result::Result<T, Errno>;
const NOT_FOUND: Errno = Errno(libc::ENOENT);
const IO: Errno = Errno(libc::EIO);

/// What a node is.
#[derive(Debug)]
pub(crate) enum Body {
    /// A file.
    File(FileData),
    /// A folder.
    Folder(Folder),
}

/// A file or folder.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its content.
    pub(crate) body: Body,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Where it was last put, for messages and faults.
    pub(crate) path: String,
}

/// A folder's names.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    names: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
    /// What leads from `durable` to `names`.
    pending: Vec<Change>,
}

/// One change of a folder's names: each name gets the inode, or is removed.
type Change = Vec<(OsString, Option<Inode>)>;

impl Folder {
    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    fn flush(&mut self) {
        self.durable.clone_from(&self.names);
        self.pending.clear();
    }

    /// Its names, as processes see them.
    pub(crate) fn names(&self) -> &BTreeMap<OsString, Inode> {
        &self.names
    }
}

fn apply(names: &mut BTreeMap<OsString, Inode>, change: &Change) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

/// What a power cut may leave of the things that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing.
    Nothing,
    /// Each sector with this chance out of 256, and the first few changes of each folder.
    Some(u8),
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Blocks of 4 KiB that lost something.
    pub(crate) blocks: u64,
    /// Changes of names.
    pub(crate) names: u64,
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    backing: PathBuf,
    nodes: BTreeMap<Inode, Node>,
    open: BTreeMap<Inode, u64>,
    next: Inode,
    /// Whether and when flushes fail.
    pub(crate) health: Health,
}

impl Disk {
    /// An empty disk whose platter is the folder `backing`, which must be empty.
    pub(crate) fn new(backing: &Path) -> io::Result<Self> {
        fs::create_dir_all(backing)?;
        let root = Node { body: Body::Folder(Folder::default()), mode: 0o755, path: String::new() };
        Ok(Self {
            backing: backing.to_owned(),
            nodes: BTreeMap::from([(ROOT, root)]),
            open: BTreeMap::new(),
            next: ROOT + 1,
            health: Health::default(),
        })
    }

    /// The platter's folder.
    pub(crate) fn backing(&self) -> &Path {
        &self.backing
    }

    /// The node.
    pub(crate) fn node(&self, inode: Inode) -> Result<&Node> {
        self.nodes.get(&inode).ok_or(NOT_FOUND)
    }

    /// The node, to change its mode.
    pub(crate) fn node_mut(&mut self, inode: Inode) -> Result<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(NOT_FOUND)
    }

    /// The folder.
    pub(crate) fn folder(&self, inode: Inode) -> Result<&Folder> {
        match &self.node(inode)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Errno(libc::ENOTDIR)),
        }
    }

    fn folder_mut(&mut self, inode: Inode) -> Result<&mut Folder> {
        if self.health.write_fails() {
            return Err(IO);
        }
        match &mut self.node_mut(inode)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Errno(libc::ENOTDIR)),
        }
    }

    /// The file.
    pub(crate) fn file(&self, inode: Inode) -> Result<&FileData> {
        match &self.node(inode)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Errno(libc::EISDIR)),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<&mut FileData> {
        if self.health.write_fails() {
            return Err(IO);
        }
        self.file_even_if_broken(inode)
    }

    fn file_even_if_broken(&mut self, inode: Inode) -> Result<&mut FileData> {
        match &mut self.node_mut(inode)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Errno(libc::EISDIR)),
        }
    }

    /// The node that `name` in `parent` means.
    pub(crate) fn lookup(&self, parent: Inode, name: &OsStr) -> Result<Inode> {
        self.folder(parent)?.names.get(name).copied().ok_or(NOT_FOUND)
    }

    /// Makes a file or an empty folder.
    pub(crate) fn create(&mut self, parent: Inode, name: &OsStr, mode: u16, folder: bool) -> Result<Inode> {
        if self.folder(parent)?.names.contains_key(name) {
            return Err(Errno(libc::EEXIST));
        }
        let inode = self.next;
        let path = self.path_in(parent, name)?;
        self.folder_mut(parent)?.change(vec![(name.to_owned(), Some(inode))]);
        self.next += 1;
        let body = if folder {
            Body::Folder(Folder::default())
        } else {
            let platter = self.backing.join(inode.to_string());
            Body::File(FileData::new(OpenOptions::new().read(true).write(true).create_new(true).open(platter)?))
        };
        self.nodes.insert(inode, Node { body, mode, path });
        Ok(inode)
    }

    fn path_in(&self, parent: Inode, name: &OsStr) -> Result<String> {
        Ok(format!("{}/{}", self.node(parent)?.path, name.to_string_lossy()))
    }

    /// Removes a file, or an empty folder where `folder` says so.
    pub(crate) fn remove(&mut self, parent: Inode, name: &OsStr, folder: bool) -> Result<()> {
        match &self.node(self.lookup(parent, name)?)?.body {
            Body::File(_) if folder => return Err(Errno(libc::ENOTDIR)),
            Body::Folder(_) if !folder => return Err(Errno(libc::EISDIR)),
            Body::Folder(removed) if !removed.names.is_empty() => return Err(Errno(libc::ENOTEMPTY)),
            Body::File(_) | Body::Folder(_) => {}
        }
        self.folder_mut(parent)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    /// Renames, and replaces what has the new name (unless `keep` forbids it).
    pub(crate) fn rename(&mut self, from: (Inode, &OsStr), to: (Inode, &OsStr), keep: bool) -> Result<()> {
        let inode = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if keep => return Err(Errno(libc::EEXIST)),
            Ok(same) if same == inode => return Ok(()),
            Ok(replaced) => {
                if let Body::Folder(folder) = &self.node(replaced)?.body
                    && !folder.names.is_empty()
                {
                    return Err(Errno(libc::ENOTEMPTY));
                }
            }
            Err(_) => {}
        }
        let path = self.path_in(to.0, to.1)?;
        let (added, removed) = ((to.1.to_owned(), Some(inode)), (from.1.to_owned(), None));
        if from.0 == to.0 {
            self.folder_mut(to.0)?.change(vec![removed, added]);
        } else {
            self.folder_mut(to.0)?.change(vec![added]);
            self.folder_mut(from.0)?.change(vec![removed]);
        }
        self.node_mut(inode)?.path = path;
        Ok(())
    }

    /// Counts an open file, so that it outlives its name.
    pub(crate) fn opened(&mut self, inode: Inode) {
        *self.open.entry(inode).or_default() += 1;
    }

    /// The other end of [`Disk::opened`].
    pub(crate) fn closed(&mut self, inode: Inode) {
        if let Some(count) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
    }

    /// Writes into memory; with `synchronous`, on to the platter before it returns.
    pub(crate) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8], synchronous: bool) -> Result<()> {
        self.file_mut(inode)?.write(offset, bytes)?;
        if synchronous {
            self.flush_or_fail(inode)?;
            self.file_mut(inode)?.flush_range(offset, bytes.len())?;
        }
        Ok(())
    }

    /// Makes a file longer or shorter.
    pub(crate) fn set_len(&mut self, inode: Inode, len: u64) -> Result<()> {
        self.file_mut(inode)?.set_len(len);
        Ok(())
    }

    /// `fsync`, `fdatasync`.
    pub(crate) fn flush_file(&mut self, inode: Inode) -> Result<()> {
        self.flush_or_fail(inode)?;
        Ok(self.file_mut(inode)?.flush()?)
    }

    /// `fsync` of a folder.
    pub(crate) fn flush_folder(&mut self, inode: Inode) -> Result<()> {
        let path = self.node(inode)?.path.clone();
        if self.health.flush_fails(&path) {
            return Err(IO);
        }
        self.folder_mut(inode)?.flush();
        self.sweep()?;
        Ok(())
    }

    fn flush_or_fail(&mut self, inode: Inode) -> Result<()> {
        let path = self.node(inode)?.path.clone();
        if self.health.flush_fails(&path) {
            self.file_even_if_broken(inode)?.doom();
            return Err(IO);
        }
        Ok(())
    }

    /// Makes everything durable, as a machine does that is shut down properly.
    pub(crate) fn flush_all(&mut self) -> io::Result<()> {
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => file.flush()?,
                Body::Folder(folder) => folder.flush(),
            }
        }
        self.sweep()
    }

    /// The power goes and comes back: open files are closed, what was not flushed is gone or, by
    /// `survival` and `random` (each call one even draw), partly there.
    pub(crate) fn power_cut(&mut self, survival: Survival, random: &mut dyn FnMut() -> u32) -> io::Result<Lost> {
        self.open.clear();
        let mut lost = Lost::default();
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => {
                    lost.blocks += file.power_cut(&mut || match survival {
                        Survival::Nothing => false,
                        Survival::Some(of_256) => random() % 256 < u32::from(of_256),
                    })?;
                }
                Body::Folder(folder) => {
                    let keep = match survival {
                        Survival::Nothing => 0,
                        Survival::Some(_) => random() as usize % (folder.pending.len() + 1),
                    };
                    lost.names += (folder.pending.len() - keep) as u64;
                    for change in folder.pending.drain(..).take(keep) {
                        apply(&mut folder.durable, &change);
                    }
                    folder.pending.clear();
                    folder.names.clone_from(&folder.durable);
                }
            }
        }
        self.sweep()?;
        Ok(lost)
    }

    /// Removes nodes that no name and no open file leads to.
    fn sweep(&mut self) -> io::Result<()> {
        let mut reached: HashSet<Inode> = self.open.keys().copied().collect();
        let mut visit = vec![ROOT];
        visit.extend(reached.iter().copied());
        reached.insert(ROOT);
        while let Some(inode) = visit.pop() {
            if let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get(&inode) {
                let pending = folder.pending.iter().flatten().filter_map(|(_, inode)| *inode);
                for child in folder.names.values().chain(folder.durable.values()).copied().chain(pending) {
                    if reached.insert(child) {
                        visit.push(child);
                    }
                }
            }
        }
        let gone: Vec<Inode> = self.nodes.keys().filter(|inode| !reached.contains(inode)).copied().collect();
        for inode in gone {
            if let Some(Node { body: Body::File(_), .. }) = self.nodes.remove(&inode) {
                fs::remove_file(self.backing.join(inode.to_string()))?;
            }
        }
        Ok(())
    }

    /// Copies what a power cut would leave into the folder `target`, to be looked at after a failure.
    pub(crate) fn export(&self, target: &Path) -> io::Result<()> {
        let mut visit = vec![(ROOT, target.to_owned())];
        while let Some((inode, path)) = visit.pop() {
            match self.nodes.get(&inode).map(|node| &node.body) {
                Some(Body::Folder(folder)) => {
                    fs::create_dir_all(&path)?;
                    visit.extend(folder.durable.iter().map(|(name, &inode)| (inode, path.join(name))));
                }
                Some(Body::File(_)) => {
                    fs::copy(self.backing.join(inode.to_string()), &path)?;
                }
                None => {}
            }
        }
        Ok(())
    }
}
