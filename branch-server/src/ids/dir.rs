//! Every change that the id index makes to the file system, one method each.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};

use super::error::IdError;
use super::manifest::{MANIFEST_FILE_NAME, Manifest};
use super::run::run_file_name;

const MANIFEST_TMP_NAME: &str = "ids.manifest.tmp";

/// What was just done, and to which path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "tests look at each step"))]
pub(super) enum Effect {
    RunCreated,
    RunWritten,
    RunSynced,
    RunRemoved,
    ManifestPrepared,
    ManifestPublished,
    DirSynced,
}

#[cfg(test)]
type AfterStep = Box<dyn Fn(Effect, &Path) + Send + Sync>;

/// The index's own directory.
pub(super) struct Dir {
    path: PathBuf,
    /// Tests look at the directory after each step, as a crash would leave it.
    #[cfg(test)]
    pub(super) after_step: Option<AfterStep>,
}

impl Dir {
    /// Makes the directory if it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, IdError> {
        fs::create_dir_all(path).map_err(IdError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            #[cfg(test)]
            after_step: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a crash left behind: run files that the manifest does not name. Without a manifest there must be
    /// none.
    pub(super) fn remove_left_overs(&self, manifest: Option<&Manifest>) -> Result<(), IdError> {
        let keep: Vec<_> = manifest.iter().flat_map(|manifest| &manifest.runs).map(|&run| run_file_name(run)).collect();
        for entry in fs::read_dir(&self.path).map_err(IdError::io(&self.path))? {
            let name = entry.map_err(IdError::io(&self.path))?.file_name();
            let is_run = Path::new(&name).extension().is_some_and(|extension| extension == "ids");
            if is_run && manifest.is_none() {
                return Err(IdError::ManifestMissing { path: self.path.clone() });
            }
            if name == MANIFEST_TMP_NAME || (is_run && !keep.iter().any(|kept| name == kept.as_str())) {
                let path = self.path.join(name);
                fs::remove_file(&path).map_err(IdError::io(&path))?;
            }
        }
        Ok(())
    }

    /// Makes the file of run `number` with room for about `len_bytes`, past the page cache where the file system
    /// can, so that writing runs neither pushes out what is looked up nor piles up for one long flush.
    pub(super) fn create_run(&self, number: u64, len_bytes: u64) -> Result<(PathBuf, File), IdError> {
        let path = self.path.join(run_file_name(number));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let direct = options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path);
        let file = match direct {
            Err(error) if error.kind() == ErrorKind::InvalidInput => options.open(&path),
            other => other,
        };
        let file = file.map_err(IdError::io(&path))?;
        match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len_bytes) {
            // Where space cannot be set aside, a full disk is met while writing.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(IdError::Io { path, source: errno.into() }),
        }
        self.step(Effect::RunCreated, &path);
        Ok((path, file))
    }

    /// Makes a written run file durable, under its name.
    pub(super) fn sync_run(&self, path: &Path, file: &File) -> Result<(), IdError> {
        self.step(Effect::RunWritten, path);
        file.sync_all().map_err(IdError::io(path))?;
        self.step(Effect::RunSynced, path);
        self.sync()
    }

    /// Removes the file of run `number`. Failing is harmless: the next start removes it.
    pub(super) fn remove_run(&self, number: u64) {
        let path = self.path.join(run_file_name(number));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(stage = "ids", path = %path.display(), %error, "a run file that is not needed stays until the next start")
            }
        }
        self.step(Effect::RunRemoved, &path);
    }

    /// Writes the next manifest beside the present one. Failing leaves the present one as it is.
    pub(super) fn prepare_manifest(&self, manifest: &Manifest) -> Result<(), IdError> {
        let path = self.path.join(MANIFEST_TMP_NAME);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(manifest.to_text().as_bytes())?;
            file.sync_all()
        };
        write().map_err(IdError::io(&path))?;
        self.step(Effect::ManifestPrepared, &path);
        Ok(())
    }

    /// Puts the prepared manifest in the present one's place. After a failure nobody knows which of the two the disk
    /// will show after a crash, so nothing either of them names may be removed.
    pub(super) fn publish_manifest(&self) -> Result<(), IdError> {
        let path = self.path.join(MANIFEST_FILE_NAME);
        fs::rename(self.path.join(MANIFEST_TMP_NAME), &path).map_err(IdError::io(&path))?;
        self.step(Effect::ManifestPublished, &path);
        self.sync()
    }

    fn sync(&self) -> Result<(), IdError> {
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(IdError::io(&self.path))?;
        self.step(Effect::DirSynced, &self.path);
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, effect: Effect, path: &Path) {
        if let Some(after_step) = &self.after_step {
            after_step(effect, path);
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "tests look at each step")]
    const fn step(&self, _effect: Effect, _path: &Path) {}
}
