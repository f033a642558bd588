//! Snapshots on disk: one file each, whole or not there.
//!
//! ```text
//!  | magic 8 | meta length 4 | meta | state | xxh3 64 of all before |
//! ```
//!
//! **Invariant:** a file gets its name once it is durable. The newest two are kept, so that a damaged one costs time.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{put_snapshot_meta, snapshot_meta};
use super::types::SnapshotMeta;
use crate::bytes::{Reader, Write};

const MAGIC: &[u8; 8] = b"TALLYSN1";
const KEPT: usize = 2;
const CHECKSUM_LEN_BYTES: usize = 8;

/// The snapshots of one node.
#[derive(Clone, Debug)]
pub struct Snapshots {
    directory: PathBuf,
}

/// A snapshot: what it is about, and the state's bytes.
pub type Stored = (SnapshotMeta, Bytes);

impl Snapshots {
    /// Those of `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// The newest that is whole; damaged ones are reported and passed over.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub fn newest(&self) -> io::Result<Option<Stored>> {
        for (_, path) in self.files()?.into_iter().rev() {
            let bytes = Bytes::from(fs::read(&path)?);
            match parse(&bytes) {
                Some(stored) => return Ok(Some(stored)),
                None => {
                    tracing::error!(stage = "snapshot", path = %path.display(), "a snapshot is damaged: trying the one before")
                }
            }
        }
        Ok(None)
    }

    /// Makes a snapshot durable, and the newest.
    ///
    /// # Errors
    /// When the disk fails; then the one before is still the newest.
    pub fn publish(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let number = self.files()?.last().map_or(1, |(number, _)| number + 1);
        let mut bytes = MAGIC.to_vec();
        let mut about = Vec::new();
        put_snapshot_meta(&mut about, meta);
        bytes.put_bytes(&about);
        bytes.extend_from_slice(state);
        let checksum = xxh3_64(&bytes);
        bytes.put_u64(checksum);
        let (path, tmp) = (self.path(number), self.directory.join("snapshot.tmp"));
        let mut file = File::create(&tmp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        File::open(&self.directory)?.sync_all()?;
        let files = self.files()?;
        for (_, old) in &files[..files.len().saturating_sub(KEPT)] {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("snapshot-{number:010}"))
    }

    /// Numbers and paths, rising.
    fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("snapshot-")?.parse().ok();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            files.extend(number(&path).map(|number| (number, path)));
        }
        files.sort_unstable();
        Ok(files)
    }
}

fn parse(bytes: &Bytes) -> Option<Stored> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LEN_BYTES)?)?;
    if xxh3_64(content).to_le_bytes() != checksum {
        return None;
    }
    let mut reader = Reader::new(content);
    if reader.take(MAGIC.len()).ok()? != MAGIC {
        return None;
    }
    let mut about = Reader::new(reader.bytes().ok()?);
    let meta = snapshot_meta(&mut about).ok()?;
    about.end().ok()?;
    Some((meta, bytes.slice_ref(reader.rest())))
}

#[cfg(test)]
mod tests {
    use openraft::LeaderId;

    use super::*;
    use crate::raft::types::{LogId, StoredMembership};

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(LogId::new(LeaderId::new(1, 2), index)),
            last_membership: StoredMembership::default(),
            snapshot_id: format!("1-2-{index}"),
        }
    }

    #[test]
    fn the_newest_whole_one_counts_and_two_are_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let snapshots = Snapshots::open(folder.path().join("snapshots")).expect("made");
        assert_eq!(snapshots.newest().expect("readable"), None);
        for index in 1..=4 {
            snapshots.publish(&meta(index), format!("state {index}").as_bytes()).expect("written");
        }
        let files = snapshots.files().expect("readable");
        assert_eq!(files.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(snapshots.newest().expect("readable"), Some((meta(4), Bytes::from_static(b"state 4"))));
        let mut bytes = fs::read(&files[1].1).expect("there");
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            fs::write(&files[1].1, &bytes).expect("written");
            assert_eq!(snapshots.newest().expect("readable"), Some((meta(3), Bytes::from_static(b"state 3"))));
            bytes[at] ^= 1;
        }
        fs::write(&files[1].1, b"").expect("written");
        assert_eq!(snapshots.newest().expect("readable").expect("the older").0, meta(3));
        // A file that was being written when the process died is not in the way.
        fs::write(snapshots.directory.join("snapshot.tmp"), b"half").expect("written");
        snapshots.publish(&meta(5), b"state 5").expect("written");
        assert_eq!(snapshots.newest().expect("readable").expect("the newest").0, meta(5));
    }
}
