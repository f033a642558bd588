//! Checkpoints: published or not, damaged, and the journal behind them.

use tally_ledger::journal::group::{Chain, Epoch};
use tally_protocol::{AccountKind, AccountStatus, BranchId, Currency};

use super::*;
use crate::journal::checkpoint::{self, blocks_path, manifest_path};
use tally_journal::testing::Unsynced;

fn account(id: u128) -> Account {
    Account {
        id: AccountId::new(id),
        owner: CustomerId::new(id as u64 / 2),
        user_data_128: id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        user_data_64: 0,
        user_data_32: 0,
        currency: Currency::EUR,
        code: 1,
        flags: 0,
        kind: AccountKind::Customer,
        status: AccountStatus::Open,
        overdraft: Amount::ZERO,
        day_limit: Amount::MAX,
        day_spent: Amount::ZERO,
        day: 3,
        sums: Sums { credits_posted: Amount::new(id as u64), ..Sums::default() },
        opened_at: Timestamp::from_nanos(7),
        lsn: Lsn::new(64 + id as u64),
        timestamp: Timestamp::from_nanos(9),
        residence: tally_ledger::Residence::default(),
    }
}

fn hold(id: u128) -> Hold {
    Hold {
        id: TransferId::new(id),
        debit_account_id: AccountId::new(1),
        credit_account_id: AccountId::new(2),
        amount: Amount::new(3),
        currency: Currency::EUR,
        code: 1,
        expires_at: Timestamp::MAX,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        far_account_id: AccountId::NONE,
        lsn: Lsn::new(64),
        timestamp: Timestamp::from_nanos(1),
        closes: tally_ledger::Closes::NONE,
        stage: tally_ledger::HoldStage::Open,
        attempt: tally_ledger::two_phase::Attempt::ONLY,
    }
}

/// Writes a checkpoint of `accounts` accounts that replay follows from `replay_from`.
fn write(
    disk: &MemoryDisk,
    journal: &Manual,
    replay_from: Lsn,
    accounts: u128,
) -> Result<CheckpointMeta, checkpoint::CheckpointError> {
    let mut all = (1..=accounts).map(account);
    let written = checkpoint::write_blocks(disk, directory(), None, &mut all, &mut (1..=5).map(hold))?;
    checkpoint::verify(disk, directory(), &written, None)?;
    let (durable, chain) = (journal.log.end(), journal.flusher.chain());
    let meta = CheckpointMeta {
        branch: BranchId::new(1),
        number: 0,
        segment_len_bytes: SEGMENT,
        replay_from,
        complete_at: durable,
        durable,
        chain,
        epoch: Epoch::new(1),
        last_timestamp: Timestamp::from_nanos(1 << 40),
        ids_covered: Lsn::new(5),
        blocks: 0,
        blocks_check: 0,
        accounts: 0,
        holds: 0,
        counters: vec![1, 2, 3],
    };
    let meta = checkpoint::complete(meta, &written)?;
    checkpoint::publish(disk, directory(), &meta)?;
    checkpoint::remove_older(disk, directory())?;
    Ok(meta)
}

fn journal(disk: &MemoryDisk) -> Manual {
    let (recovered, _) = recover_from(disk).expect("an empty disk");
    let mut journal = Manual::start(disk, &recovered.journal, 1).expect("starts");
    journal.write(20).expect("writes");
    journal
}

fn behind(records: &[Record], from: Lsn) -> Vec<Record> {
    records.iter().filter(|record| record.lsn >= from).cloned().collect()
}

#[test]
fn the_newest_is_read_and_the_journal_from_its_start() {
    let disk = MemoryDisk::default();
    let mut journal = journal(&disk);
    let from = journal.log.end();
    journal.write(10).expect("writes");
    // More than one block.
    let meta = write(&disk, &journal, from, 60_000).expect("writes");
    journal.write(3).expect("writes");
    assert!(meta.blocks > 2, "{} blocks", meta.blocks);
    let (recovered, collected) = recover_from(&disk.after_crash(Unsynced::Lost)).expect("recovers");
    assert_eq!(recovered.checkpoint, Some(meta));
    assert_eq!((recovered.accounts, recovered.records), (60_000, 13));
    assert_eq!(collected.accounts, (1..=60_000).map(account).collect::<Vec<_>>());
    assert_eq!(collected.holds, (1..=5).map(hold).collect::<Vec<_>>());
    assert_eq!(collected.records, behind(&journal.written, from));
    assert_eq!(recovered.journal.last_timestamp, Timestamp::from_nanos(1 << 40), "stamps never fall below the last");
}

#[test]
fn one_at_the_very_end_of_the_journal_tells_how_the_log_goes_on() {
    let disk = MemoryDisk::default();
    let journal = journal(&disk);
    let end = journal.log.end();
    write(&disk, &journal, end, 10).expect("writes");
    let (recovered, collected) = recover_from(&disk).expect("recovers");
    assert_eq!((recovered.journal.next, recovered.records, collected.records.len()), (end, 0, 0));
    assert_ne!(recovered.journal.chain, Chain::START);
    let mut again = Manual::start(&disk, &recovered.journal, 1).expect("starts");
    again.write(2).expect("writes");
    assert_eq!(recover_from(&disk).expect("recovers").1.records, again.written);
    // Without the checkpoint the whole log is one chain.
    disk.remove(&manifest_path(directory(), 1)).expect("removes");
    assert_eq!(recover_from(&disk).expect("recovers").1.records, [journal.written, again.written].concat());
}

#[test]
fn a_damaged_one_is_passed_over_for_the_one_before() {
    let disk = MemoryDisk::default();
    let mut journal = journal(&disk);
    let first_from = journal.log.end();
    write(&disk, &journal, first_from, 100).expect("writes");
    journal.write(10).expect("writes");
    write(&disk, &journal, journal.log.end(), 30_000).expect("writes");
    journal.write(5).expect("writes");
    let blocks = blocks_path(directory(), 2);
    let len = disk.bytes(&blocks).expect("exists").len();
    let damages: [(&std::path::Path, usize); 4] = [
        (&blocks, 100),
        (&blocks, len / 2 + 100),
        (&blocks, len - (1 << 20) + 60),
        (&manifest_path(directory(), 2), 30),
    ];
    for (path, offset) in damages {
        let disk = disk.after_crash(Unsynced::Lost);
        disk.tamper(path, |bytes| bytes[offset] ^= 4);
        let (recovered, collected) = recover_from(&disk).expect("recovers");
        assert_eq!((recovered.damaged_checkpoints, collected.restarts), (1, 1), "{} {offset}", path.display());
        assert_eq!(collected.accounts, (1..=100).map(account).collect::<Vec<_>>());
        assert_eq!(collected.records, behind(&journal.written, first_from));
        // Both gone: the journal reaches back to its beginning.
        disk.tamper(&manifest_path(directory(), 1), |bytes| bytes[30] ^= 4);
        let (recovered, collected) = recover_from(&disk).expect("recovers");
        assert_eq!((recovered.damaged_checkpoints, collected.records.len()), (2, journal.written.len()));
    }
}

#[test]
fn the_two_newest_are_kept() {
    let disk = MemoryDisk::default();
    let mut journal = journal(&disk);
    for number in 1..=4 {
        journal.write(1).expect("writes");
        assert_eq!(write(&disk, &journal, journal.log.end(), 10).expect("writes").number, number);
    }
    assert_eq!(checkpoint::list_manifests(&disk, directory()).expect("lists"), [3, 4]);
    let left = [1, 2, 3, 4].map(|number| disk.bytes(&blocks_path(directory(), number)).is_some());
    assert_eq!(left, [false, false, true, true]);
}

/// The machine stops after each single change that the second checkpoint makes to the disk.
#[test]
fn a_crash_at_any_step_leaves_the_older_or_the_newer() {
    let prepare = || {
        let disk = MemoryDisk::default();
        let mut journal = journal(&disk);
        for accounts in [10, 20] {
            write(&disk, &journal, journal.log.end(), accounts).expect("writes");
            journal.write(4).expect("writes");
        }
        (disk, journal)
    };
    let (disk, journal) = prepare();
    let before = disk.steps();
    write(&disk, &journal, journal.log.end(), 30).expect("nothing stops it");
    let (mut older, mut newer) = (0, 0);
    for steps in 0..disk.steps() - before {
        let (disk, journal) = prepare();
        disk.stop_after(Some(steps));
        write(&disk, &journal, journal.log.end(), 30).expect_err("the machine stops");
        for unsynced in [Unsynced::Kept, Unsynced::Lost] {
            let (recovered, collected) = recover_from(&disk.after_crash(unsynced)).expect("recovers");
            assert_eq!(recovered.damaged_checkpoints, 0, "step {steps}, {unsynced:?}");
            match collected.accounts.len() {
                20 => {
                    older += 1;
                    assert_eq!(collected.records.len(), 4);
                }
                30 => {
                    newer += 1;
                    assert_eq!(collected.records.len(), 0);
                }
                other => panic!("step {steps}, {unsynced:?}: {other} accounts"),
            }
        }
    }
    assert!(older > 4 && newer > 2, "{older} older, {newer} newer");
}

#[test]
fn records_that_a_checkpoint_captured_must_be_there() {
    let disk = MemoryDisk::default();
    let mut journal = journal(&disk);
    let from = journal.log.end();
    journal.write(10).expect("writes");
    let last = journal.log.end().get() - 4096;
    write(&disk, &journal, from, 10).expect("writes");
    // The last group of the log: without the checkpoint it would pass for torn.
    disk.tamper(&tally_journal::segment::segment_path(directory(), 0), |bytes| bytes[last as usize + 70] ^= 1);
    let error = recover_from(&disk).expect_err("refuses");
    assert!(matches!(error, RecoveryError::Journal(tally_journal::RecoveryError::Lost { .. })), "{error}");
}
