//! Space is promised before it is needed, and never twice.

use super::*;
use crate::log::LogFull;
use crate::sync::Ordering;

#[test]
fn a_full_ring_is_told_before_and_never_at_the_reservation() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 2).expect("starts");
    let mut written = Vec::new();
    // Twenty times around the ring.
    while journal.log.end().get() < 20 * SEGMENT {
        let mut refused = 0;
        let mut taken = 0;
        while refused < 2 {
            for writer in &mut journal.writers {
                match writer.secure(232) {
                    Ok(()) => {
                        written.extend(append(writer, &[body(taken, true)], 0));
                        taken += 1;
                    }
                    Err(full) => {
                        assert_eq!(full, LogFull::Ring);
                        refused += 1;
                    }
                }
            }
        }
        assert!(taken * 232 > u128::from(SEGMENT) / 3, "most of the ring is used: {taken} records");
        journal.flush().expect("writes");
    }
    assert_eq!(recover_from(&disk).expect("recovers").1, written);
}

#[test]
fn the_largest_reservation_fits_from_any_place() {
    let geometry = Geometry::for_segments(SEGMENT).expect("in range");
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    let most = geometry.reservation_len_bytes_max as usize / 232;
    let mut written = Vec::new();
    for round in 0..40 {
        let chain: Vec<_> = (0..most as u128).map(|id| body(id, true)).collect();
        written.extend(append(&mut journal.writers[0], &chain, 0));
        written.extend(append(&mut journal.writers[0], &vec![body(round, false); 1 + round as usize * 13], 0));
        journal.flush().expect("writes");
    }
    assert_eq!(recover_from(&disk).expect("recovers").1, written);
}

#[test]
fn a_full_disk_stops_promises_but_not_what_was_promised() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    let writer = &mut journal.writers[0];
    writer.secure(184).expect("there is space");
    journal.log.set_writable(false);
    assert_eq!(writer.secure(184), Err(LogFull::Disk));
    assert_eq!(journal.log.refused().disk.load(Ordering::Relaxed), 1);
    let place = writer.reserve(184, 1, Timestamp::from_nanos(0));
    let (lsn, timestamp) = (place.lsn(), place.timestamp());
    let record = Record { lsn, timestamp, actor: CustomerId::BANK, body: body(1, false) };
    writer.fill(place, |bytes| record.encode_into(bytes));
    journal.log.set_writable(true);
    assert_eq!(writer.secure(184), Ok(()));
    journal.flush().expect("writes");
    assert_eq!(recover_from(&disk).expect("recovers").1, [record]);
}

#[test]
fn a_group_waits_for_the_slowest_writer() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 2).expect("starts");
    let mut slow = journal.writers.pop().expect("two");
    slow.secure(184).expect("there is space");
    let place = slow.reserve(184, 1, Timestamp::from_nanos(0));
    let record =
        Record { lsn: place.lsn(), timestamp: place.timestamp(), actor: CustomerId::BANK, body: body(9, false) };
    let quick = append(&mut journal.writers[0], &[body(10, false)], 0);
    assert_eq!(journal.log.accepted(), record.lsn, "nothing behind the gap is accepted");
    assert_eq!(journal.flusher.step().expect("writes"), Step::Filling);
    assert!(!journal.flusher.is_ready());
    slow.fill(place, |bytes| record.encode_into(bytes));
    assert!(journal.flusher.is_ready());
    assert!(matches!(journal.flusher.step().expect("writes"), Step::Flushed { .. }));
    assert_eq!(recover_from(&disk).expect("recovers").1, [&[record][..], &quick].concat());
}

#[test]
#[should_panic(expected = "secured")]
fn what_was_not_secured_cannot_be_reserved() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    let _ = journal.writers[0].reserve(184, 1, Timestamp::from_nanos(0));
}

#[test]
fn segments_are_prepared_ahead_and_a_stop_leaves_no_half_made_file() {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered, 1).expect("starts");
    std::thread::scope(|scope| {
        let preparer = scope.spawn(|| journal.segments.prepare_until_stopped(&journal.log));
        let second = crate::segment::segment_path(directory(), 1);
        while disk.bytes(&second).is_none() {
            std::thread::yield_now();
        }
        journal.segments.stop();
        preparer.join().expect("does not panic");
    });
    while journal.log.end().get() < SEGMENT {
        journal.write(100).expect("writes");
    }
    assert_eq!(recover_from(&disk).expect("recovers").1, journal.written);
    assert!(disk.list(directory()).expect("lists").iter().all(|path| !path.ends_with(".tmp")));
}
