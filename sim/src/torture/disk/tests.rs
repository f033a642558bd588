//! The rules of names and flushes, first on the disk itself, then through the kernel.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::tree::{Disk, Errno, ROOT};
use super::*;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn never() -> u32 {
    unreachable!("nothing survives, so nothing is drawn")
}

fn new_disk() -> (tempfile::TempDir, Disk) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::new(folder.path()).expect("an empty disk");
    (folder, disk)
}

/// Every name on the disk, as a process would list them.
fn listing(disk: &Disk) -> Vec<String> {
    let mut names: Vec<String> =
        disk.folder(ROOT).unwrap().names().keys().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_name_is_durable_only_after_its_folder_was_flushed() {
    let (_folder, mut disk) = new_disk();
    for kept in ["a", "b"] {
        let file = disk.create(ROOT, name(kept), 0o600, false).unwrap();
        disk.write(file, 0, kept.as_bytes(), true).unwrap();
    }
    disk.flush_folder(ROOT).unwrap();
    let lost = disk.create(ROOT, name("c"), 0o600, false).unwrap();
    disk.write(lost, 0, b"flushed, but nobody knows its name", true).unwrap();
    disk.remove(ROOT, name("a"), false).unwrap();
    disk.rename((ROOT, name("b")), (ROOT, name("d")), false).unwrap();
    assert_eq!(listing(&disk), ["c", "d"]);
    assert_eq!(disk.power_cut(Survival::Nothing, &mut never).unwrap().names, 3);
    assert_eq!(listing(&disk), ["a", "b"]);
    let a = disk.lookup(ROOT, name("a")).unwrap();
    assert_eq!(disk.file(a).unwrap().read(0, 9).unwrap(), b"a");
    assert_eq!(disk.node(lost).err(), Some(Errno(libc::ENOENT)), "nothing leads to it any more");
}

#[test]
fn names_that_survive_by_chance_are_the_first_ones_and_a_rename_is_never_torn() {
    for keep in 0..=3u32 {
        let (_folder, mut disk) = new_disk();
        disk.create(ROOT, name("a"), 0o600, false).unwrap();
        disk.create(ROOT, name("b"), 0o600, false).unwrap();
        disk.rename((ROOT, name("a")), (ROOT, name("c")), true).unwrap();
        disk.power_cut(Survival::Some(0), &mut || keep).unwrap();
        let expected: &[&str] = [&[][..], &["a"], &["a", "b"], &["b", "c"]][keep as usize];
        assert_eq!(listing(&disk), expected);
    }
}

#[test]
fn an_open_file_outlives_its_name_until_the_power_goes() {
    let (_folder, mut disk) = new_disk();
    let file = disk.create(ROOT, name("a"), 0o600, false).unwrap();
    disk.opened(file);
    disk.remove(ROOT, name("a"), false).unwrap();
    disk.flush_folder(ROOT).unwrap();
    disk.write(file, 0, b"still here", false).unwrap();
    disk.power_cut(Survival::Nothing, &mut never).unwrap();
    assert_eq!(disk.write(file, 0, b"gone", false), Err(Errno(libc::ENOENT)));
}

#[test]
fn a_broken_disk_refuses_to_write_until_it_is_repaired() {
    let (_folder, mut disk) = new_disk();
    let file = disk.create(ROOT, name("segment-1.log"), 0o600, false).unwrap();
    disk.flush_folder(ROOT).unwrap();
    disk.health.arm(0, After::StaysBroken);
    assert_eq!(disk.write(file, 0, b"x", true), Err(Errno(libc::EIO)));
    assert_eq!(disk.write(file, 0, b"x", false), Err(Errno(libc::EIO)));
    assert_eq!(disk.create(ROOT, name("b"), 0o600, false), Err(Errno(libc::EIO)));
    disk.health = Default::default();
    disk.write(file, 0, b"x", true).unwrap();
}

/// A mounted disk, or `None` where this process may not mount (no root, no /dev/fuse).
fn mounted(folder: &tempfile::TempDir) -> Option<MountedDisk> {
    match MountedDisk::mount(&folder.path().join("mount"), &folder.path().join("platter")) {
        Ok(disk) => Some(disk),
        Err(error) => {
            eprintln!("not tested, because FUSE cannot be used here: {error}");
            None
        }
    }
}

#[test]
fn real_processes_see_the_rules_through_the_kernel() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = mounted(&folder) else { return };
    let path = disk.path().join("segment-1.log");
    let mut buffered = File::create(&path).unwrap();
    buffered.write_all(&[1; 10_000]).unwrap();
    buffered.sync_all().unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    let synchronous =
        OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(&path).expect("an O_DSYNC handle");
    synchronous.write_all_at(&[2; 4096], 4096).unwrap();
    buffered.write_all_at(&[3; 4096], 0).unwrap();
    fs::write(disk.path().join("other"), b"never flushed").unwrap();
    assert_eq!(fs::read(&path).unwrap()[0], 3);

    let lost = disk.power_cut(Survival::Nothing, &mut never).unwrap();
    assert_eq!((lost.blocks, lost.names), (2, 1));
    let mut after = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut after).unwrap();
    assert_eq!((after.len(), after[0], after[4096], after[8192]), (10_000, 1, 2, 1));
    assert!(!disk.path().join("other").exists());
    assert!(buffered.write_all_at(&[4], 0).is_err(), "a file that was open at the power cut is dead");

    disk.fail_flush(0, After::Lies);
    let again = OpenOptions::new().write(true).open(&path).unwrap();
    again.write_all_at(&[5], 0).unwrap();
    assert_eq!(again.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
    again.sync_data().expect("the second flush lies");
    disk.power_cut(Survival::Nothing, &mut never).unwrap();
    assert_eq!(fs::read(&path).unwrap()[0], 1);
    let mount = disk.path().to_owned();
    drop((again, buffered, synchronous, disk));
    assert_eq!(fs::read_dir(mount).unwrap().count(), 0, "unmounted");
}

#[test]
fn direct_writes_of_a_journal_are_taken_and_durable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = mounted(&folder) else { return };
    let path = disk.path().join("segment");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(&path)
        .expect("direct IO is taken");
    File::open(disk.path()).unwrap().sync_all().unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 20).unwrap();
    #[repr(align(4096))]
    struct Aligned([u8; 8192]);
    file.write_all_at(&Aligned([9; 8192]).0, 4096).unwrap();
    disk.power_cut(Survival::Nothing, &mut never).unwrap();
    let after = fs::read(&path).unwrap();
    assert_eq!((after.len(), after[4095], after[4096], after[12_287], after[12_288]), (1 << 20, 0, 9, 9, 0));
}
