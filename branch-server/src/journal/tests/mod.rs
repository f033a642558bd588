//! The journal on a disk in memory that crashes anywhere, and on the real one.

mod checkpoints;
mod crashes;
mod flushing;
mod memory_disk;
mod reading;
mod refusals;
mod space;

use std::path::Path;
use std::sync::Arc;

use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{Account, Hold, Sums};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, CustomerId, Lsn, Timestamp, TransferId};

use super::blocking::BlockingWriter;
use super::disk::Disk;
use super::flusher::{Flusher, Step};
use super::log::{Log, LogWriter};
use super::recovery::{Recovered, RecoveryError, RecoveryTarget, Unfit, recover};
use super::segment::{SegmentOptions, Segments};
use super::{CheckpointMeta, JournalStats};
use crate::bell::Bell;
use memory_disk::MemoryDisk;

const SEGMENT: u64 = 1 << 20;
const DIRECTORY: &str = "/journal";

fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

/// Collects everything that recovery finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Collected {
    accounts: Vec<Account>,
    holds: Vec<Hold>,
    records: Vec<Record>,
    restarts: u32,
}

impl RecoveryTarget for Collected {
    fn restart(&mut self) {
        *self = Self { restarts: self.restarts + 1, ..Self::default() };
    }
    fn checkpoint(&mut self, _: &CheckpointMeta) {}
    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.accounts.push(account);
        Ok(())
    }
    fn hold(&mut self, hold: Hold) {
        self.holds.push(hold);
    }
    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        self.records.push(record.clone());
        Ok(())
    }
}

fn recover_from(disk: &MemoryDisk) -> Result<(Recovered, Collected), RecoveryError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut collected = Collected::default();
    let recovered = recover(&disk, directory(), SEGMENT, &mut collected)?;
    Ok((recovered, collected))
}

/// A transfer's body; with `large`, one that takes 232 bytes instead of 184.
fn body(id: u128, large: bool) -> RecordBody {
    RecordBody::Transfer(TransferRecord {
        id: TransferId::new(id),
        debit_account_id: AccountId::new(1),
        credit_account_id: AccountId::new(2),
        amount_asked: Amount::new(5),
        amount: Amount::new(5),
        day_spent: Amount::ZERO,
        day: 0,
        debit: Sums::default(),
        credit: Sums::default(),
        code: 1,
        currency: 978,
        flags: 0,
        refusal: None,
        kind: TransferKind::Transfer,
        given: 0,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: u64::from(large),
        user_data_32: 0,
        timeout_s: 0,
    })
}

/// Appends one reservation of a record per body; returns the records.
fn append(writer: &mut LogWriter, bodies: &[RecordBody], now: u64) -> Vec<Record> {
    let len_bytes = bodies.iter().map(RecordBody::len_bytes).sum::<usize>() as u64;
    writer.secure(len_bytes).expect("the ring has space");
    let place = writer.reserve(len_bytes, bodies.len() as u32, Timestamp::from_nanos(now));
    let (mut lsn, mut stamp, mut records) = (place.lsn().get(), place.timestamp().as_nanos(), Vec::new());
    for body in bodies {
        let (at, timestamp) = (Lsn::new(lsn), Timestamp::from_nanos(stamp));
        records.push(Record { lsn: at, timestamp, actor: CustomerId::BANK, body: body.clone() });
        lsn += body.len_bytes() as u64;
        stamp += 1;
    }
    writer.fill(place, |mut bytes| {
        for record in &records {
            let (own, rest) = bytes.split_at_mut(record.body.len_bytes());
            record.encode_into(own);
            bytes = rest;
        }
    });
    records
}

/// A journal without threads: the test says when to flush.
struct Manual {
    log: Arc<Log>,
    flusher: Flusher<BlockingWriter>,
    writers: Vec<LogWriter>,
    segments: Arc<Segments>,
    written: Vec<Record>,
    next_id: u128,
}

impl Manual {
    fn start(disk: &MemoryDisk, recovered: &Recovered, writers: usize) -> std::io::Result<Self> {
        let geometry = Geometry::for_segments(SEGMENT).expect("in range");
        let stats = Arc::new(JournalStats::default());
        let options = SegmentOptions { ahead: 1, zero_bytes_per_second_max: u64::MAX, free_bytes_min: 0 };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let segments = Arc::new(Segments::open(disk, directory(), geometry, options, recovered.next, stats.clone())?);
        let bell = Bell::new(|| {});
        let log = Arc::new(Log::new(geometry, recovered.next, recovered.last_timestamp, writers, bell));
        let mut flusher = Flusher::new(
            log.clone(),
            BlockingWriter::new(segments.clone()),
            stats,
            recovered.next,
            recovered.epoch.next(),
            recovered.chain,
        );
        flusher.mark()?;
        let writers = (0..writers).map(|index| LogWriter::new(log.clone(), index)).collect();
        Ok(Self { log, flusher, writers, segments, written: Vec::new(), next_id: 1 })
    }

    /// Appends `count` records and flushes them as one group or more.
    fn write(&mut self, count: usize) -> std::io::Result<()> {
        for _ in 0..count {
            let body = body(self.next_id, self.next_id.is_multiple_of(3));
            self.next_id += 1;
            let index = self.next_id as usize % self.writers.len();
            self.written.extend(append(&mut self.writers[index], &[body], 1_000));
        }
        self.flush()
    }

    fn end(&self) -> u64 {
        self.log.end().get()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.flusher.step()? != Step::Idle {}
        Ok(())
    }
}
