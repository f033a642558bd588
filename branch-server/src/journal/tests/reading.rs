//! Reading durable records back.

use std::ops::ControlFlow;

use super::*;
use crate::journal::Records;
use tally_journal::segment::segment_path;
use tally_journal::{ReadError, Reader};
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::position::{DurableLsn, Positions};

fn three_segments() -> (MemoryDisk, Vec<Record>, Records, DurableLsn) {
    let disk = MemoryDisk::default();
    let (recovered, _) = recover_from(&disk).expect("an empty disk");
    let mut journal = Manual::start(&disk, &recovered.journal, 1).expect("starts");
    let mut count = 1;
    while journal.log.end().get() < 2 * SEGMENT + 50_000 {
        journal.write(count).expect("writes");
        count = count * 7 % 300 + 1;
    }
    let durable = Positions::recovered(journal.log.end()).durable();
    let geometry = Geometry::for_segments(SEGMENT).expect("in range");
    let reader = Reader::open(Arc::new(disk.clone()), directory().to_owned(), geometry).expect("opens");
    (disk, journal.written, Records::new(Arc::new(reader)), durable)
}

fn scan(reader: &Records, from: Lsn, durable: DurableLsn, most: usize) -> Result<(Vec<Record>, Lsn), ReadError> {
    let mut records = Vec::new();
    let next = reader.scan(from, durable, &mut |record| {
        records.push(record.clone());
        if records.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((records, next))
}

#[test]
fn every_record_is_found_by_its_position_and_nothing_in_between() {
    let (_, written, reader, durable) = three_segments();
    for record in &written {
        assert_eq!(&reader.record(record.lsn, durable).expect("is there"), record);
    }
    let inside = Lsn::new(written[5].lsn.get() + 8);
    assert!(matches!(reader.record(inside, durable), Err(ReadError::NoRecord(_))));
    assert!(matches!(reader.record(Lsn::ZERO, durable), Err(ReadError::NotDurable(_))));
    let early = Positions::recovered(written[10].lsn).durable();
    assert!(matches!(reader.record(written[10].lsn, early), Err(ReadError::NotDurable(_))));
    assert!(reader.record(written[9].lsn, early).is_ok());
}

#[test]
fn a_scan_in_pages_of_any_size_sees_every_record_once() {
    let (_, written, reader, durable) = three_segments();
    for page in [1000, 7, 100_000] {
        let (mut from, mut seen) = (Lsn::ZERO, Vec::new());
        loop {
            let (mut records, next) = scan(&reader, from, durable, page).expect("reads");
            if records.is_empty() {
                break;
            }
            seen.append(&mut records);
            from = next;
        }
        assert_eq!(seen, written, "pages of {page}");
    }
}

#[test]
fn a_scan_from_any_position_begins_with_the_first_record_behind_it() {
    let (_, written, reader, durable) = three_segments();
    for (before, after) in written.iter().zip(&written[1..]).step_by(37) {
        for from in [before.lsn.get() + 1, before.lsn.get() + 100, after.lsn.get() - 1, after.lsn.get()] {
            let (records, _) = scan(&reader, Lsn::new(from), durable, 1).expect("reads");
            assert_eq!(records, std::slice::from_ref(after), "from {from}");
        }
    }
    let end = durable.end();
    assert_eq!(scan(&reader, end, durable, 1).expect("reads"), (vec![], end));
    let beyond = Lsn::new(end.get() + 5);
    assert_eq!(scan(&reader, beyond, durable, 1).expect("reads"), (vec![], beyond));
}

#[test]
fn damage_is_told_and_not_skipped() {
    let (disk, written, reader, durable) = three_segments();
    // A record, a group's header, and a whole group that would otherwise pass for a skipped end.
    let victim = written[written.len() / 2].lsn.get();
    let path = segment_path(directory(), victim / SEGMENT);
    disk.tamper(&path, |bytes| bytes[(victim % SEGMENT) as usize + 50] ^= 1);
    assert!(matches!(scan(&reader, Lsn::ZERO, durable, usize::MAX), Err(ReadError::Damaged(at)) if at.get() == victim));
    assert!(matches!(reader.record(Lsn::new(victim), durable), Err(ReadError::NoRecord(_))));
    disk.tamper(&path, |bytes| bytes[(victim % SEGMENT) as usize + 50] ^= 1);
    let header = written.iter().map(|record| record.lsn.get() - 64).find(|at| at % 4096 == 0 && at % SEGMENT > 0);
    let header = header.expect("a group that begins with a record");
    disk.tamper(&segment_path(directory(), header / SEGMENT), |bytes| bytes[(header % SEGMENT) as usize] ^= 1);
    assert!(matches!(scan(&reader, Lsn::ZERO, durable, usize::MAX), Err(ReadError::Damaged(_))));
}

#[test]
fn what_retention_removed_is_named() {
    let (_, written, reader, durable) = three_segments();
    reader.reader().forget_below(Lsn::new(SEGMENT));
    let error = reader.record(written[0].lsn, durable).expect_err("is gone");
    assert!(matches!(error, ReadError::Retired { oldest, .. } if oldest.get() == SEGMENT), "{error}");
    assert!(matches!(scan(&reader, Lsn::ZERO, durable, 1), Err(ReadError::Retired { .. })));
    let (records, _) = scan(&reader, Lsn::new(SEGMENT), durable, usize::MAX).expect("reads");
    let kept: Vec<_> = written.into_iter().filter(|record| record.lsn.get() > SEGMENT).collect();
    assert_eq!(records, kept);
}
