//! What every [`Disk`] must do: run by the real one's tests and by the simulator's.

use std::io;
use std::path::Path;

use crate::aligned::AlignedBuffer;
use crate::disk::{Disk, OpenMode};

/// Checks `disk`, using files in `directory`, which must be empty.
///
/// # Panics
/// Where it does not do what [`Disk`] says.
pub fn disk_conformance(disk: &dyn Disk, directory: &Path) {
    disk.create_directory(directory).expect("makes a directory");
    disk.create_directory(directory).expect("an existing one is fine");
    files_are_written_and_read(disk, directory);
    names_change(disk, directory);
    assert!(disk.free_bytes(directory).expect("knows its free space") > 0, "no free space");
    for path in disk.list(directory).expect("lists") {
        disk.remove(&path).expect("removes");
    }
    assert_eq!(disk.list(directory).expect("lists").len(), 0);
    disk.sync_directory(directory).expect("syncs");
}

fn pattern(len_bytes: usize, seed: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(len_bytes);
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(31).wrapping_add(seed) ^ (index >> 8) as u8;
    }
    buffer
}

fn files_are_written_and_read(disk: &dyn Disk, directory: &Path) {
    let path = directory.join("a");
    for mode in [OpenMode::Read, OpenMode::ReadDirect, OpenMode::WriteDurable] {
        let missing = disk.open(&path, mode).err().map(|error| error.kind());
        assert_eq!(missing, Some(io::ErrorKind::NotFound), "{mode:?} of a file that does not exist");
    }
    let file = disk.open(&path, OpenMode::Create).expect("creates");
    assert_eq!(file.len_bytes().expect("has a length"), 0);
    file.allocate(5 * 4096).expect("allocates");
    assert_eq!(file.len_bytes().expect("has a length"), 5 * 4096);
    file.allocate(4096).expect("allocates no less");
    assert_eq!(file.len_bytes().expect("has a length"), 5 * 4096, "allocating does not shorten");
    file.write_at(&pattern(8192, 1), 4096).expect("writes");
    file.sync().expect("syncs");
    drop(file);
    let durable = disk.open(&path, OpenMode::WriteDurable).expect("opens");
    durable.write_at(&pattern(4096, 2), 8192).expect("writes");
    let mut expected = vec![0; 5 * 4096];
    expected[4096..8192].copy_from_slice(&pattern(8192, 1)[..4096]);
    expected[8192..12288].copy_from_slice(&pattern(4096, 2));
    for mode in [OpenMode::Read, OpenMode::ReadDirect, OpenMode::WriteDurable] {
        let file = disk.open(&path, mode).expect("opens");
        let mut buffer = AlignedBuffer::zeroed(8 * 4096);
        assert_eq!(file.read_at(&mut buffer, 0).expect("reads"), 5 * 4096, "{mode:?} stops at the end");
        assert_eq!(&buffer[..5 * 4096], expected, "{mode:?}");
        assert_eq!(file.read_at(&mut buffer[..4096], 4 * 4096).expect("reads"), 4096);
        assert_eq!(file.read_at(&mut buffer[..4096], 5 * 4096).expect("reads"), 0, "{mode:?} at the end");
    }
    let mut odd = [0; 100];
    let file = disk.open(&path, OpenMode::Read).expect("opens");
    assert_eq!(file.read_at(&mut odd, 4096 + 13).expect("reads"), 100);
    assert_eq!(odd[..], expected[4096 + 13..][..100], "plain reads need no alignment");
    let emptied = disk.open(&path, OpenMode::Create).expect("creates over it");
    assert_eq!(emptied.len_bytes().expect("has a length"), 0);
}

fn names_change(disk: &dyn Disk, directory: &Path) {
    let [from, to, other] = ["from", "to", "b"].map(|name| directory.join(name));
    for (path, seed) in [(&from, 3), (&to, 4)] {
        let file = disk.open(path, OpenMode::Create).expect("creates");
        file.write_at(&pattern(4096, seed), 0).expect("writes");
    }
    disk.rename(&from, &to).expect("renames over a file");
    disk.rename(&to, &other).expect("renames");
    let mut buffer = AlignedBuffer::zeroed(4096);
    let file = disk.open(&other, OpenMode::Read).expect("opens");
    assert_eq!(file.read_at(&mut buffer, 0).expect("reads"), 4096);
    assert_eq!(buffer[..], pattern(4096, 3)[..], "the content moved with the name");
    let missing = |result: io::Result<()>| result.err().map(|error| error.kind()) == Some(io::ErrorKind::NotFound);
    assert!(missing(disk.rename(&from, &to)), "renaming what is not there");
    assert!(missing(disk.remove(&to)), "removing what is not there");
    assert_eq!(disk.list(directory).expect("lists"), [directory.join("a"), other], "in order of names");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RealDisk;

    #[test]
    fn the_real_disk_with_and_without_direct_io() {
        for direct_io in [true, false] {
            let place = tempfile::tempdir().expect("a directory");
            disk_conformance(&RealDisk::new(direct_io), &place.path().join("deeper"));
        }
    }
}
