//! The operating system's disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};

use crate::disk::{Disk, DiskFile, OpenMode};

/// The operating system's disk, past the page cache where it permits.
#[derive(Debug)]
pub struct RealDisk {
    direct_io: AtomicBool,
}

impl RealDisk {
    /// With `direct_io`, large files bypass the page cache, where the file system can.
    pub const fn new(direct_io: bool) -> Self {
        Self { direct_io: AtomicBool::new(direct_io) }
    }

    fn open_with(&self, path: &Path, mode: OpenMode, direct: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let direct = if direct { libc::O_DIRECT } else { 0 };
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadDirect => options.read(true).custom_flags(direct),
            // One call, and on disks with forced unit access one command, where write and fdatasync are two.
            OpenMode::WriteDurable => options.read(true).write(true).custom_flags(direct | libc::O_DSYNC),
            OpenMode::Create => options.read(true).write(true).create(true).truncate(true).custom_flags(direct),
        };
        options.open(path)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let direct = self.direct_io.load(Ordering::Relaxed) && mode != OpenMode::Read;
        let file = match self.open_with(path, mode, direct) {
            // What a file system without direct IO answers.
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                if self.direct_io.swap(false, Ordering::Relaxed) {
                    tracing::warn!(stage = "journal", path = %path.display(), "no direct IO on this file system: writing through the page cache");
                }
                self.open_with(path, mode, false)?
            }
            other => other?,
        };
        if mode == OpenMode::Read {
            // Single records at random places: reading ahead would only push other pages out.
            fadvise(&file, 0, None, Advice::Random)?;
        }
        Ok(Box::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(directory)?;
        match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.sync_directory(parent),
            None => Ok(()),
        }
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let stats = statvfs(directory)?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len_bytes) => done += len_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len_bytes) {
            Ok(()) => Ok(()),
            // The length alone then; a full disk shows when the blocks are written.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.len_bytes()? < len_bytes {
                    self.file.set_len(len_bytes)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn as_std(&self) -> Option<&File> {
        Some(&self.file)
    }
}
