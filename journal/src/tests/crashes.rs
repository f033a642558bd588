//! Crashes and damage: what comes back is a prefix, nothing that was durable is missing, and what cannot be
//! told apart from a loss is refused.

use tally_ledger::journal::group::GroupHeader;
use tally_ledger::journal::recovery::Loss;

use super::*;
use crate::OpenMode;
use crate::segment::segment_path;
use crate::testing::Unsynced;

/// Groups of a few records each; returns the disk, the records, and where each group starts.
fn some_groups() -> (MemoryDisk, Vec<Record>, Vec<u64>) {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 2).expect("starts");
    for count in [3, 1, 60, 2, 30] {
        journal.write(count).expect("writes");
    }
    let bytes = disk.bytes(&segment_path(directory(), 0)).expect("exists");
    let starts = (0..bytes.len() as u64)
        .step_by(4096)
        .filter(|&at| GroupHeader::peek(&bytes[at as usize..]).is_ok_and(|(header, _)| header.start.get() == at))
        .collect();
    (disk, journal.written, starts)
}

#[test]
fn the_disk_in_memory_does_what_a_disk_must() {
    crate::conformance::disk_conformance(&MemoryDisk::default(), directory());
}

#[test]
fn an_untouched_log_comes_back_whole() {
    let (disk, written, starts) = some_groups();
    assert_eq!(starts.len(), 6, "a mark and five groups");
    for unsynced in [Unsynced::Kept, Unsynced::Lost] {
        let (recovered, collected) = recover_from(&disk.after_crash(unsynced)).expect("recovers");
        assert_eq!(collected, written);
        assert_eq!(recovered.torn_tail, None);
        assert_eq!(recovered.last_timestamp, written.last().expect("some").timestamp);
        assert_eq!(recovered.epoch.get(), 1);
    }
}

/// The last group, torn at every sector: what was there before it comes back, and the log can go on.
#[test]
fn a_tail_torn_at_any_sector_is_cut() {
    let (disk, written, starts) = some_groups();
    let last = *starts.last().expect("some") as usize;
    let before: Vec<_> = written.iter().filter(|record| (record.lsn.get() as usize) < last).cloned().collect();
    let end = written.last().map(|last| last.lsn.get() + last.body.len_bytes() as u64).expect("some") as usize;
    let path = segment_path(directory(), 0);
    for sector in (last..end).step_by(512) {
        // Only sectors before it were written; only this one was not; it was written wrongly.
        let changes: [&dyn Fn(&mut [u8]); 3] = [
            &|bytes| bytes[sector..end.next_multiple_of(512)].fill(0),
            &|bytes| bytes[sector..sector + 512].fill(0),
            &|bytes| bytes[sector + 7] ^= 0x10,
        ];
        for (kind, change) in changes.iter().enumerate() {
            let disk = disk.after_crash(Unsynced::Lost);
            disk.tamper(&path, change);
            let (recovered, collected) = recover_from(&disk).expect("recovers");
            assert_eq!(collected, before, "sector {sector}, change {kind}");
            assert_eq!(recovered.next.get(), last as u64);
            let nothing_left = kind == 0 && sector == last;
            assert_eq!(recovered.torn_tail.is_some(), !nothing_left, "sector {sector}, change {kind}");
            let bytes = disk.bytes(&path).expect("exists");
            assert!(bytes[last..].iter().all(|&byte| byte == 0), "the cut tail is zeroed");
            let mut journal = Manual::start(&disk, &recovered, 1).expect("starts again");
            journal.write(2).expect("writes");
            let (again, collected) = recover_from(&disk).expect("recovers again");
            assert_eq!(collected, [&before[..], &journal.written].concat());
            assert_eq!((again.epoch.get(), again.torn_tail), (2, None));
        }
    }
}

/// The same damage in any earlier group: a later one says that it was durable.
#[test]
fn damage_before_the_tail_is_refused_at_any_sector() {
    let (disk, written, starts) = some_groups();
    let path = segment_path(directory(), 0);
    for pair in starts.windows(2) {
        let inside = |record: &&Record| (pair[0]..pair[1]).contains(&record.lsn.get());
        let end = written.iter().filter(inside).map(|record| record.lsn.get() + record.body.len_bytes() as u64);
        let end = end.max().unwrap_or(pair[0] + 64);
        for sector in (pair[0]..end).step_by(512) {
            let disk = disk.after_crash(Unsynced::Lost);
            disk.tamper(&path, |bytes| bytes[sector as usize + 3] ^= 1);
            let error = recover_from(&disk).expect_err("refuses");
            let expected = if sector == pair[0] { Loss::Missing } else { Loss::Damaged };
            assert!(
                matches!(error, RecoveryError::Lost { at, loss } if at.get() == pair[0] && loss == expected),
                "sector {sector}: {error}"
            );
        }
    }
}

#[test]
fn a_group_that_an_older_run_wrote_does_not_count_as_one_of_this_run() {
    let (disk, _, starts) = some_groups();
    let path = segment_path(directory(), 0);
    let before = disk.bytes(&path).expect("exists");
    let (third, fourth) = (starts[3] as usize, starts[4] as usize);
    // The third group is torn away with all behind it; another run writes a different one in its place.
    disk.tamper(&path, |bytes| bytes[third..].fill(0));
    let (recovered, _) = recover_from(&disk).expect("recovers");
    assert_eq!(recovered.next.get(), starts[3]);
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    journal.write(1).expect("writes");
    let after_first = journal.log.end().get().next_multiple_of(4096) as usize;
    assert!(after_first <= fourth, "the new groups end before the old one begins");
    // The disk brings the old groups back to life.
    disk.tamper(&path, |bytes| bytes[fourth..].copy_from_slice(&before[fourth..]));
    // Their claims cannot be true, but one that does not start is safer than one that believes either side.
    let error = recover_from(&disk).expect_err("refuses");
    assert!(matches!(error, RecoveryError::Lost { .. }), "{error}");
}

#[test]
fn what_a_recycled_segment_still_holds_is_neither_read_nor_reported() {
    let (old, ..) = some_groups();
    let old_bytes = old.bytes(&segment_path(directory(), 0)).expect("exists");
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    while journal.log.end().get() <= SEGMENT {
        journal.write(50).expect("writes");
    }
    // The second segment's file was the first of another log, and is overwritten from its start.
    let path = segment_path(directory(), 1);
    let used = journal.log.end().get().next_multiple_of(4096) - SEGMENT;
    disk.tamper(&path, |bytes| bytes[used as usize..].copy_from_slice(&old_bytes[used as usize..]));
    let (recovered, collected) = recover_from(&disk).expect("recovers");
    assert_eq!(collected, journal.written);
    assert_eq!(recovered.torn_tail, None);
    let mut again = Manual::start(&disk, &recovered, 1).expect("starts");
    again.write(5).expect("writes");
    assert_eq!(recover_from(&disk).expect("recovers").1, [journal.written, again.written].concat());
}

/// The machine stops after each single change to the disk, from an empty directory through two segments.
#[test]
fn a_crash_at_any_step_keeps_what_was_durable() {
    let run = |disk: &MemoryDisk, durable: &mut Vec<Record>| -> Result<(), RecoveryError> {
        let (recovered, collected) = recover_from(disk)?;
        *durable = collected;
        let mut journal = Manual::start(disk, &recovered, 2)?;
        for round in 0..12 {
            journal.write(if round % 3 == 0 { 900 } else { 7 })?;
            durable.append(&mut std::mem::take(&mut journal.written));
        }
        Ok(())
    };
    let whole = MemoryDisk::default();
    run(&whole, &mut Vec::new()).expect("nothing stops it");
    for steps in 0..whole.steps() {
        let disk = MemoryDisk::default();
        disk.stop_after(Some(steps));
        let mut durable = Vec::new();
        run(&disk, &mut durable).expect_err("the machine stops");
        for unsynced in [Unsynced::Kept, Unsynced::Lost] {
            let disk = disk.after_crash(unsynced);
            let (recovered, collected) = recover_from(&disk).expect("recovers");
            assert!(collected.starts_with(&durable), "step {steps}, {unsynced:?}");
            // And the next run works, whatever half-made files there were.
            let mut again = Manual::start(&disk, &recovered, 1).expect("starts");
            again.write(3).expect("writes");
            let all = [collected, again.written].concat();
            assert_eq!(recover_from(&disk).expect("recovers").1, all);
        }
    }
}

/// A segment that was prepared ahead of time lies behind the one that is given up: the next run must not miss the latter.
#[test]
fn a_log_goes_on_though_a_torn_or_a_recycled_segment_lies_before_a_clean_one() {
    for (kind, change) in [(0, "the first group is torn"), (1, "recycled, and not begun")] {
        let disk = MemoryDisk::default();
        let (recovered, _) = recover_from(&disk).expect("an empty disk");
        let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
        journal.write(400).expect("writes");
        let first = disk.bytes(&segment_path(directory(), 0)).expect("exists");
        for number in [1, 2] {
            let file = disk.open(&segment_path(directory(), number), OpenMode::Create).expect("made");
            file.allocate(SEGMENT).expect("room");
        }
        disk.sync_directory(directory()).expect("is synced");
        disk.tamper(&segment_path(directory(), 1), |bytes| match kind {
            0 => bytes[..100].fill(7),
            _ => bytes.copy_from_slice(&first),
        });
        let (recovered, collected) = recover_from(&disk).expect("recovers");
        assert_eq!(collected, journal.written, "{change}");
        let mut again = Manual::start(&disk, &recovered, 1).unwrap_or_else(|error| panic!("{change}: {error}"));
        while again.end() < 3 * SEGMENT {
            again.write(400).expect("writes");
        }
        let all = [&journal.written[..], &again.written].concat();
        assert_eq!(recover_from(&disk).expect("recovers").1, all, "{change}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    while journal.log.end().get() < 2 * SEGMENT + 8192 {
        journal.write(400).expect("writes");
    }
    for (missing, expected) in [(0, "journal begins at"), (1, "missing")] {
        let disk = disk.after_crash(Unsynced::Lost);
        disk.remove(&segment_path(directory(), missing)).expect("removes");
        let error = recover_from(&disk).expect_err("refuses").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let short = disk.after_crash(Unsynced::Lost);
    let error = recover(&short, directory(), 2 * SEGMENT);
    assert!(matches!(error, Err(RecoveryError::SegmentLen { expected: 2_097_152, found: 1_048_576 })));
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
