//! What the state cannot take ends recovery with its reason.

use std::time::Duration;

use super::*;

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
    let mut journal = Manual::start(&disk, &recovered.journal, 1).expect("starts");
    // More than the buffers that are read ahead.
    while journal.end() < 6 * SEGMENT {
        journal.write(1_000).expect("writes");
    }
    let first = journal.written[0].lsn;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let refused = recover(&disk, directory(), SEGMENT, &mut Refusing).expect_err("it takes nothing");
    assert!(matches!(refused, RecoveryError::Unfit { at, why: Unfit::NoId } if at == first), "{refused}");
}
