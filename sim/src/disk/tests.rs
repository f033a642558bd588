use super::*;

const DIRECTORY: &str = "/disk";

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(1 << 20, Random::new(seed));
    disk.create_directory(Path::new(DIRECTORY)).expect("no fault is planned");
    disk
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn made_durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(&path(name), OpenMode::Create).expect("room");
    file.write_at(bytes, 0).expect("room");
    file.sync().expect("no fault is planned");
    disk.sync_directory(Path::new(DIRECTORY)).expect("no fault is planned");
    file
}

#[test]
fn it_does_what_every_disk_must() {
    tally_journal::conformance::disk_conformance(&disk(0), Path::new("/conformance"));
}

#[test]
fn what_was_synced_survives_and_what_was_not_is_torn_at_sectors() {
    let mut kinds = std::collections::HashSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let file = made_durable(&disk, "a", &[1; 4096]);
        file.write_at(&[2; 4096], 0).expect("room");
        disk.restart();
        let bytes = disk.contents(&path("a")).expect("its name was durable");
        let sectors: Vec<u8> = bytes
            .chunks(512)
            .map(|sector| {
                assert!(sector.iter().all(|&byte| byte == sector[0]), "torn inside a sector");
                sector[0]
            })
            .collect();
        kinds.insert(match (sectors.contains(&1), sectors.contains(&2)) {
            (true, true) => "torn",
            (true, false) => "lost",
            _ => "kept",
        });
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

#[test]
fn a_durable_write_needs_no_sync_and_an_old_handle_dies() {
    for seed in 0..50 {
        let disk = disk(seed);
        drop(made_durable(&disk, "a", &[0; 8192]));
        let file = disk.open(&path("a"), OpenMode::WriteDurable).expect("it is there");
        file.write_at(&[7; 4096], 4096).expect("room");
        disk.restart();
        assert_eq!(disk.contents(&path("a")).expect("there")[4096..], [7; 4096]);
        assert!(file.write_at(&[1; 4096], 0).is_err());
    }
}

#[test]
fn an_unsynced_rename_may_be_lost_but_is_never_half_done() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        made_durable(&disk, "old", &[1]);
        made_durable(&disk, "new", &[2]);
        disk.rename(&path("new"), &path("old")).expect("both are there");
        disk.restart();
        let old = disk.contents(&path("old")).expect("one of the two")[0];
        assert_eq!(disk.contents(&path("new")).is_some(), old == 1);
        seen.insert(old);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn power_fails_in_the_middle_of_the_planned_operation() {
    let disk = disk(1);
    let file = made_durable(&disk, "a", &[1; 4096]);
    disk.set_faults(Faults { power_off_after: Some(1), error_after: None });
    file.write_at(&[2; 512], 0).expect("not yet");
    assert!(file.sync().is_err());
    assert!(disk.is_down() && file.write_at(&[3; 512], 0).is_err());
    disk.restart();
    assert!(disk.open(&path("a"), OpenMode::Read).is_ok());
}

#[test]
fn an_injected_error_comes_once() {
    let disk = disk(1);
    disk.set_faults(Faults { power_off_after: None, error_after: Some(0) });
    assert!(disk.open(&path("a"), OpenMode::Create).is_err());
    assert!(disk.open(&path("a"), OpenMode::Create).is_ok());
}

#[test]
fn a_full_disk_refuses() {
    let disk = disk(1);
    let file = made_durable(&disk, "a", &[1; 4096]);
    disk.set_capacity(8192);
    assert_eq!(disk.free_bytes(Path::new(DIRECTORY)).expect("up"), 4096);
    assert_eq!(file.allocate(16384).map_err(|error| error.kind()), Err(ErrorKind::StorageFull));
    assert!(file.write_at(&[1; 4096], 0).is_ok(), "what has its blocks can be written");
}
