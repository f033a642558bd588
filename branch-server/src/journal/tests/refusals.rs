//! What the state cannot take, or what no journal of ours holds, ends recovery with its reason.

use std::time::Duration;

use super::*;
use crate::journal::disk::OpenMode;
use crate::journal::segment::segment_path;

/// Takes nothing, and says so late: the reader is ahead by then, and waits for a buffer.
struct Refusing;

impl RecoveryTarget for Refusing {
    fn restart(&mut self) {}
    fn checkpoint(&mut self, _: &CheckpointMeta) {}
    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        Err(Unfit::AccountUnknown(account.id))
    }
    fn hold(&mut self, _: Hold) {}
    fn record(&mut self, _: &Record) -> Result<(), Unfit> {
        std::thread::sleep(Duration::from_millis(200));
        Err(Unfit::NoId)
    }
}

#[test]
fn a_record_that_the_state_refuses_ends_a_long_recovery() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    // More than the buffers that are read ahead.
    while journal.end() < 6 * SEGMENT {
        journal.write(1_000).expect("writes");
    }
    let first = journal.written[0].lsn;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let refused = recover(&disk, directory(), SEGMENT, &mut Refusing).expect_err("it takes nothing");
    assert!(matches!(refused, RecoveryError::Unfit { at, why: Unfit::NoId } if at == first), "{refused}");
}

#[test]
fn a_segment_that_no_log_reaches_is_named() {
    for number in [u64::MAX, u64::MAX / SEGMENT, (1 << 62) / SEGMENT] {
        let disk = MemoryDisk::default();
        let (recovered, _) = recover_from(&disk).expect("an empty disk");
        Manual::start(&disk, &recovered, 1).expect("starts").write(1).expect("writes");
        let file = disk.open(&segment_path(directory(), number), OpenMode::Create).expect("made");
        file.allocate(SEGMENT).expect("room");
        drop(file);
        let refused = recover_from(&disk).expect_err("no such segment");
        assert!(matches!(refused, RecoveryError::SegmentNumber(found) if found == number), "{refused}");
    }
}
