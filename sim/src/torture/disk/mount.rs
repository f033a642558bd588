//! The failing disk as a file system that real processes can use: FUSE in front of [`Disk`].
//!
//! One lock around the whole disk, and nothing cached by the kernel for longer than a file stays open, so
//! that [`MountedDisk::power_cut`] is one instant for every process. **Invariant:** a file that was open
//! at a power cut can never again be written or flushed, however late its process is to die.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BackgroundSession, Config, Errno as FuseErrno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::faults::After;
use super::tree::{Body, Disk, Errno, Inode, Lost, ROOT, Survival};

/// The kernel asks again each time.
const NOT_CACHED: Duration = Duration::ZERO;
/// How long the last process may take to let go of its files.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// The disk and the files that are open on it.
#[derive(Debug)]
struct State {
    disk: Disk,
    open: BTreeMap<u64, Inode>,
    next_handle: u64,
}

/// A failing disk at its mount point; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct MountedDisk {
    state: Arc<Mutex<State>>,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl MountedDisk {
    /// An empty disk at the folder `at`, with its platter in the folder `backing`.
    pub(crate) fn mount(at: &Path, backing: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let state = State { disk: Disk::new(backing)?, open: BTreeMap::new(), next_handle: 1 };
        let state = Arc::new(Mutex::new(state));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tally-torture".into()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Adapter { state: Arc::clone(&state) }, at, &config)?;
        Ok(Self { state, at: at.to_owned(), session: Some(session) })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// See [`Disk::flush_all`].
    pub(crate) fn flush_all(&self) -> io::Result<()> {
        self.lock().disk.flush_all()
    }

    /// See [`Disk::power_cut`]. Files that are open stay unusable; a disk that was broken is whole again.
    pub(crate) fn power_cut(&self, survival: Survival, random: &mut dyn FnMut() -> u32) -> io::Result<Lost> {
        let mut state = self.lock();
        state.open.clear();
        state.disk.health = Default::default();
        state.disk.power_cut(survival, random)
    }

    /// The flush of the journal after `flushes` more of them fails.
    pub(crate) fn fail_flush(&self, flushes: u64, after: After) {
        self.lock().disk.health.arm(flushes, after);
    }

    /// Flushes that were failed since the last power cut.
    pub(crate) fn failed_flushes(&self) -> u64 {
        self.lock().disk.health.failed()
    }

    /// See [`Disk::export`].
    pub(crate) fn export(&self, target: &Path) -> io::Result<()> {
        self.lock().disk.export(target)
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at) {
            eprintln!("cannot unmount {}: {error}", self.at.display());
            return;
        }
        if let Some(session) = self.session.take() {
            // Already unmounted: only the thread is left to end.
            let _ = session.umount_and_join();
        }
    }
}

/// Unmounts what a process left at `at` that was killed before it could; nothing where there is nothing.
pub(crate) fn unmount_left_behind(at: &Path) {
    // An error says that nothing was mounted there.
    let _ = unmount(at);
}

/// Unmounts, waiting a little for dying processes; then takes the mount point away from them.
fn unmount(at: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    let patience = std::time::Instant::now() + UNMOUNT_PATIENCE;
    while let Err(rustix::io::Errno::BUSY) = unmount(at, UnmountFlags::empty()) {
        if std::time::Instant::now() >= patience {
            return unmount(at, UnmountFlags::DETACH);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panics while it holds the disk")
}

/// What the kernel talks to.
#[derive(Debug)]
struct Adapter {
    state: Arc<Mutex<State>>,
}

impl State {
    fn attributes(&self, inode: Inode) -> Result<FileAttr, Errno> {
        let node = self.disk.node(inode)?;
        let (kind, size, nlink) = match &node.body {
            Body::File(file) => (FileType::RegularFile, file.len(), 1),
            Body::Folder(_) => (FileType::Directory, 0, 2),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: node.mode,
            nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn open(&mut self, inode: Inode) -> FileHandle {
        let handle = self.next_handle;
        self.next_handle += 1;
        self.disk.opened(inode);
        self.open.insert(handle, inode);
        FileHandle(handle)
    }

    /// The open file; an error for one that was open when the power was cut.
    fn handle(&self, handle: FileHandle) -> Result<Inode, Errno> {
        self.open.get(&handle.0).copied().ok_or(Errno(libc::EIO))
    }

    fn close(&mut self, handle: FileHandle) {
        if let Some(inode) = self.open.remove(&handle.0) {
            self.disk.closed(inode);
        }
    }
}

fn fuse(error: Errno) -> FuseErrno {
    FuseErrno::from_i32(error.0)
}

fn synchronous(flags: OpenFlags) -> bool {
    flags.0 & libc::O_DSYNC != 0
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(fuse(error)),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&NOT_CACHED, &attributes, Generation(0)),
        Err(error) => reply.error(fuse(error)),
    }
}

fn attributes(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&NOT_CACHED, &attributes),
        Err(error) => reply.error(fuse(error)),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = lock(&self.state);
        entry(state.disk.lookup(parent.0, name).and_then(|inode| state.attributes(inode)), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(lock(&self.state).attributes(inode.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = lock(&self.state);
        let done = (|| {
            if let Some(mode) = mode {
                state.disk.node_mut(inode.0)?.mode = (mode & 0o7777) as u16;
            }
            if let Some(size) = size {
                state.disk.set_len(inode.0, size)?;
            }
            state.attributes(inode.0)
        })();
        attributes(done, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut state = lock(&self.state);
        let made = state.disk.create(parent.0, name, (mode & !umask & 0o7777) as u16, true);
        entry(made.and_then(|inode| state.attributes(inode)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(lock(&self.state).disk.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(lock(&self.state).disk.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(FuseErrno::EINVAL);
        }
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        empty(lock(&self.state).disk.rename((parent.0, name), (new_parent.0, new_name), keep), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = lock(&self.state);
        let made = state.disk.create(parent.0, name, (mode & !umask & 0o7777) as u16, false);
        match made.and_then(|inode| Ok((inode, state.attributes(inode)?))) {
            Ok((inode, attributes)) => {
                let handle = state.open(inode);
                reply.created(&NOT_CACHED, &attributes, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let mut state = lock(&self.state);
        match state.disk.file(inode.0) {
            // Without "keep cache" the kernel forgets what it read of the file before.
            Ok(_) => reply.opened(state.open(inode.0), FopenFlags::empty()),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.state).close(handle);
        reply.ok();
    }

    fn flush(&self, _: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // Called by `close`, which makes nothing durable.
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = lock(&self.state);
        let read = state
            .handle(handle)
            .and_then(|inode| state.disk.file(inode))
            .and_then(|file| Ok(file.read(offset, size as usize)?));
        drop(state);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = lock(&self.state);
        let written = state.handle(handle).and_then(|inode| state.disk.write(inode, offset, data, synchronous(flags)));
        drop(state);
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn fsync(&self, _: &Request, _inode: INodeNo, handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let mut state = lock(&self.state);
        empty(state.handle(handle).and_then(|inode| state.disk.flush_file(inode)), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        empty(lock(&self.state).disk.flush_folder(inode.0), reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = lock(&self.state);
        let folder = match state.disk.folder(inode.0) {
            Ok(folder) => folder,
            Err(error) => return reply.error(fuse(error)),
        };
        let dots = [(OsStr::new("."), inode.0), (OsStr::new(".."), ROOT)];
        let names = folder.names().iter().map(|(name, &inode)| (name.as_os_str(), inode));
        for (index, (name, inode)) in dots.into_iter().chain(names).enumerate().skip(offset as usize) {
            let kind = match state.disk.node(inode).map(|node| &node.body) {
                Ok(Body::File(_)) => FileType::RegularFile,
                Ok(Body::Folder(_)) | Err(_) => FileType::Directory,
            };
            if reply.add(INodeNo(inode), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(FuseErrno::EOPNOTSUPP);
        }
        let mut state = lock(&self.state);
        let done = (|| {
            let inode = state.handle(handle)?;
            let end = offset + length;
            if mode == 0 && state.disk.file(inode)?.len() < end {
                state.disk.set_len(inode, end)?;
            }
            Ok(())
        })();
        empty(done, reply);
    }

    fn statfs(&self, _: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(lock(&self.state).disk.backing()) {
            Ok(stat) => reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                stat.f_bsize as u32,
                255,
                stat.f_frsize as u32,
            ),
            Err(error) => reply.error(FuseErrno::from_i32(error.raw_os_error())),
        }
    }

    fn access(&self, _: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
