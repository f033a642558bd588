//! The folder of a journal: made by the branch's own code, damaged, put on a disk.

mod books;
mod careful;
mod refit;
mod write;

use std::path::{Path, PathBuf};

use tally_journal::OpenMode;
use tally_branch_server::journal::checkpoint::{blocks_path, manifest_path};
use tally_journal::disk::Disk;
use tally_journal::segment::{segment_number, segment_path};
use tally_ledger::journal::record::Record;
use tally_protocol::Lsn;
use tally_sim::disk::SimDisk;
use tally_sim::random::Random;

pub use self::books::Books;
pub use self::careful::Careful;
pub use self::write::BRANCH;
use crate::change::{Change, File};

/// The smallest that the journal allows.
pub const SEGMENT_LEN_BYTES: u64 = 1 << 20;
const DIRECTORY: &str = "/journal";
/// Recovery cuts and removes; it never needs room. More than any folder takes.
const DISK_LEN_BYTES: u64 = 1 << 30;

/// The files, and what they tell.
#[derive(Clone, Debug)]
pub struct JournalFolder {
    files: Vec<File>,
    /// Every record that was written, in order.
    records: Vec<Record>,
}

/// Where the folder lies on its disk.
pub fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

impl JournalFolder {
    /// The folder of a branch whose life follows from `seed`.
    pub fn write(seed: u64) -> Self {
        write::folder(seed)
    }

    /// The accounts and holds when the journal ended at `next`.
    pub fn books_at(&self, next: Lsn) -> Books {
        let mut books = Books::default();
        self.records.iter().take_while(|record| record.lsn < next).for_each(|record| books.redo(record));
        books
    }

    /// A disk that holds the folder after `changes`, with the checksums over them made to fit if `is_refitted`.
    pub fn damaged(&self, changes: &[Change], is_refitted: bool) -> SimDisk {
        let mut files = self.files.clone();
        changes.iter().for_each(|change| change.apply(&mut files, renumbered));
        if is_refitted {
            refit::refit(&self.files, &mut files);
        }
        disk_of(&files)
    }
}

/// The path of the same kind of file with another number.
fn renumbered(file: &File, number: u64) -> Option<PathBuf> {
    match file.path.extension()?.to_str()? {
        "log" => Some(segment_path(directory(), number)),
        "blocks" => Some(blocks_path(directory(), number)),
        "manifest" => Some(manifest_path(directory(), number)),
        _ => None,
    }
}

fn empty_disk() -> SimDisk {
    let disk = SimDisk::new(DISK_LEN_BYTES, Random::new(0));
    disk.create_directory(directory()).expect("nothing is planned to go wrong");
    disk
}

fn disk_of(files: &[File]) -> SimDisk {
    let disk = empty_disk();
    for file in files {
        let open = disk.open(&file.path, OpenMode::Create).expect("nothing is planned to go wrong");
        open.allocate(file.bytes.len() as u64).expect("there is room");
        disk.put(&file.path, 0, &file.bytes);
    }
    disk.sync_directory(directory()).expect("nothing is planned to go wrong");
    disk
}

fn files_of(disk: &SimDisk) -> Vec<File> {
    let file = |path: PathBuf| disk.contents(&path).map(|bytes| File { path, bytes });
    disk.files().into_iter().filter_map(file).collect()
}

fn is_segment(file: &File) -> bool {
    segment_number(&file.path).is_some()
}
