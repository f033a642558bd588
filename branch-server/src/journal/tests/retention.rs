//! The running journal on the real disk: a checkpoint, and what it makes unnecessary.

use tally_journal::segment::list_segments;
use tally_journal::{JournalOptions, ReadError, RealDisk};

use super::*;
use crate::journal::{CheckpointRequest, Journal};

/// A checkpoint of the running journal, the journal behind it, and what retention then gives up.
#[test]
fn a_checkpoint_while_running_bounds_replay_and_lets_old_segments_go() {
    let place = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let options = JournalOptions {
        segment_len_bytes: SEGMENT,
        free_bytes_min: 0,
        ..JournalOptions::new(place.path().to_owned(), 1)
    };
    let recovered = recover(&disk, place.path(), SEGMENT, &mut Collected::default()).expect("an empty directory");
    let journal = Journal::start(disk.clone(), options, &recovered, Box::new(|_| {})).expect("starts");
    let mut writer = journal.writer(0);
    let mut written = Vec::new();
    let mut metas = Vec::new();
    for round in 1..=4 {
        let until = journal.end().get() + 3 * SEGMENT / 2;
        while journal.end().get() < until {
            while writer.secure(100 * 184).is_err() {
                std::thread::yield_now();
            }
            written.extend(append(&mut writer, &vec![body(round, false); 100], 0));
        }
        let replay_from = journal.durable();
        let request = CheckpointRequest {
            branch: tally_protocol::BranchId::new(1),
            ids_covered: replay_from.end(),
            counters: vec![round as u64],
            bytes_per_second_max: None,
            retention_bytes: Some(SEGMENT),
        };
        written.extend(append(&mut writer, &[body(round, false)], 0));
        let meta = journal
            .write_checkpoint(request, replay_from, &mut std::iter::empty(), &mut std::iter::empty())
            .expect("is written");
        assert!(meta.replay_from <= meta.complete_at && meta.complete_at <= journal.durable().end());
        assert_eq!(journal.checkpoint_lsn(), meta.replay_from);
        metas.push(meta);
    }
    // The two newest checkpoints and one segment before them.
    let first_kept = (metas[2].replay_from.get() - SEGMENT) / SEGMENT * SEGMENT;
    assert_eq!(journal.oldest().get(), first_kept);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while list_segments(&*disk, place.path()).expect("lists")[0] * SEGMENT < first_kept {
        assert!(std::time::Instant::now() < deadline, "old segments stay");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(matches!(journal.read_record(written[0].lsn), Err(ReadError::Retired { .. })));
    let last = written.last().expect("some");
    assert!(journal.wait_durable(last.lsn));
    assert_eq!(&journal.read_record(last.lsn).expect("is there"), last);
    journal.stop();
    let mut collected = Collected::default();
    let recovered = recover(&disk, place.path(), SEGMENT, &mut collected).expect("recovers");
    assert_eq!(recovered.checkpoint.as_ref(), metas.last());
    assert_eq!((recovered.journal.oldest.get(), recovered.journal.torn_tail), (first_kept, None));
    let from = metas[3].replay_from;
    let behind: Vec<_> = written.into_iter().filter(|record| record.lsn >= from).collect();
    assert_eq!(collected.records, behind);
}
