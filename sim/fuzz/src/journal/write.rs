//! A branch in small: accounts, transfers, holds, restarts and checkpoints, drawn from a seed and written by the
//! journal's own code. The threads are left out: each step is flushed before the next.

use std::sync::Arc;

use tally_journal::bell::Bell;
use tally_journal::blocking::BlockingWriter;
use tally_branch_server::journal::checkpoint;
use tally_journal::flusher::{Flusher, Step};
use tally_journal::segment::{SegmentOptions, Segments, segment_path};
use tally_branch_server::journal::{CheckpointMeta, Recovered, RecoveryTarget, Unfit, recover};
use tally_journal::{Disk, JournalStats, Log, LogWriter};
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::record::{AccountChange, Record, RecordBody, TransferRecord};
use tally_ledger::{Account, Actor, Hold, Reference, Transfer, cash_account, decide, expire_hold, hold_end_record};
use tally_ledger::{effective_accounts, transfer_record};
use tally_protocol::message::{Role, TransferKind};
use tally_protocol::{AccountId, AccountKind, Amount, BranchId, Currency, CustomerId, Lsn, Timestamp, TransferId};
use tally_sim::disk::SimDisk;
use tally_sim::random::Random;

use super::{Books, JournalFolder, SEGMENT_LEN_BYTES, directory, empty_disk, files_of};

/// Whose journal it is.
pub const BRANCH: BranchId = BranchId::new(1);
const STEPS_MAX: u64 = 24;
/// One more than recovery reads ahead, and the one that it reads from.
const LONG_SEGMENTS: u64 = 5;

/// The folder of a branch whose life follows from `seed`.
pub(super) fn folder(seed: u64) -> JournalFolder {
    let disk = empty_disk();
    let mut branch = Branch {
        random: Random::new(seed),
        life: Life::start(&disk),
        disk,
        records: Vec::new(),
        books: Books::default(),
        group_starts: Vec::new(),
    };
    branch.open_account(cash_account(BRANCH, Currency::EUR, Timestamp::from_nanos(1)));
    branch.life.flush();
    branch.group_starts.push(branch.life.log.end());
    let steps = branch.random.between(1, STEPS_MAX);
    let is_long = branch.random.one_in(6);
    for step in 0..steps {
        branch.step();
        if is_long && step == steps / 2 {
            branch.go_far();
        }
    }
    JournalFolder { files: files_of(&branch.disk), records: branch.records }
}

struct Branch {
    random: Random,
    disk: SimDisk,
    life: Life,
    records: Vec<Record>,
    books: Books,
    group_starts: Vec<Lsn>,
}

impl Branch {
    fn step(&mut self) {
        match self.random.weighted(&[4, 8, 2, 2, 1]) {
            0 => {
                let local = self.books.accounts.len() as u128;
                let id = AccountId::of_branch(BRANCH, local);
                let cash = cash_account(BRANCH, Currency::EUR, Timestamp::from_nanos(1));
                let owner = CustomerId::new(local as u64);
                self.open_account(Account { id, owner, kind: AccountKind::Customer, user_data_64: 7, ..cash });
            }
            1 => {
                // Several records to a group.
                for _ in 0..self.random.between(1, 6) {
                    self.transfer();
                }
            }
            2 => self.checkpoint(),
            3 => self.restart(),
            _ => self.prepare_segment(),
        }
        self.life.flush();
        self.group_starts.push(self.life.log.end());
    }

    /// A checkpoint reaches back to the start of its run at most.
    fn restart(&mut self) {
        self.life = Life::start(&self.disk);
        self.group_starts.clear();
    }

    fn open_account(&mut self, account: Account) {
        let body = RecordBody::Account(AccountChange::Opened, account);
        self.append(body.len_bytes(), |_, _, _| body);
    }

    fn transfer(&mut self) {
        if self.books.accounts.len() < 2 {
            return;
        }
        let id = TransferId::new(u128::from(self.random.next_u64()) << 64 | self.records.len() as u128 + 1);
        if self.random.one_in(12) {
            let body = RecordBody::Cancelled(id);
            return self.append(body.len_bytes(), |_, _, _| body);
        }
        let hold = self.books.holds.values().next().copied().filter(|_| self.random.one_in(2));
        if let Some(hold) = hold
            && self.random.one_in(3)
        {
            return self.append(TransferRecord::len_bytes_of(true), |books, _, _| {
                let [debit, credit] = [hold.debit_account_id, hold.credit_account_id].map(|id| &books.accounts[&id]);
                RecordBody::Expired(hold_end_record(&hold, &expire_hold(&hold, debit, credit)))
            });
        }
        let transfer = self.draw_transfer(id, hold.as_ref());
        let reference = hold.map_or(Reference::NotGiven, Reference::Open);
        self.append(TransferRecord::len_bytes_of(transfer.is_plain()), |books, _, now| {
            let (debit, credit) = effective_accounts(&transfer, &reference, BRANCH).expect("the reference is open");
            let (debit, credit) = (books.accounts.get(&debit), books.accounts.get(&credit));
            let actor = Actor { role: Role::Teller, customer: CustomerId::BANK };
            let outcome = decide(&transfer, &reference, debit, credit, &actor, now);
            RecordBody::Transfer(transfer_record(&transfer, &reference, BRANCH, &outcome))
        });
    }

    fn draw_transfer(&mut self, id: TransferId, hold: Option<&Hold>) -> Transfer {
        // The till has the highest id.
        let ids: Vec<AccountId> = self.books.accounts.keys().copied().collect();
        let credit = self.random.index(ids.len() - 1);
        let debit = (credit + 1 + self.random.index(ids.len() - 1)) % ids.len();
        let (debit_account_id, credit_account_id) = (ids[debit], ids[credit]);
        let kind = match hold {
            Some(_) => *self.random.pick(&[TransferKind::Settle, TransferKind::Void]),
            None => *self.random.pick(&[TransferKind::Transfer, TransferKind::Deposit, TransferKind::Hold]),
        };
        Transfer {
            id,
            debit_account_id: hold.map_or(debit_account_id, |hold| hold.debit_account_id),
            credit_account_id: hold.map_or(credit_account_id, |hold| hold.credit_account_id),
            reference: hold.map_or(TransferId::NONE, |hold| hold.id),
            user_data_128: u128::from(self.random.below(2)),
            amount: hold.map_or_else(|| Amount::new(self.random.between(1, 50)), |hold| hold.amount),
            user_data_64: 0,
            user_data_32: 0,
            timeout_s: if kind == TransferKind::Hold { 60 } else { 0 },
            currency: Some(Currency::EUR),
            code: 1,
            flags: 0,
            kind,
            leg: tally_ledger::Leg::Whole,
            peer: BranchId::default(),
            chain: None,
        }
    }

    /// Appends one record of `len_bytes`, which `decide` knows once it has its place and time.
    fn append(&mut self, len_bytes: usize, decide: impl FnOnce(&Books, Lsn, Timestamp) -> RecordBody) {
        let writer = &mut self.life.writer;
        writer.secure(len_bytes as u64).expect("each step is flushed");
        let place = writer.reserve(len_bytes as u64, 1, Timestamp::from_nanos(1_000));
        let (lsn, timestamp) = (place.lsn(), place.timestamp());
        let body = decide(&self.books, lsn, timestamp);
        let record = Record { lsn, timestamp, actor: CustomerId::BANK, body };
        writer.fill(place, |bytes| record.encode_into(bytes));
        self.books.redo(&record);
        self.records.push(record);
    }

    /// Replay begins at one of the last groups: of what the checkpoint holds, some comes again.
    fn checkpoint(&mut self) {
        let oldest = self.group_starts.len().saturating_sub(4);
        let replay_from = *self.random.pick(&self.group_starts[oldest..]);
        let mut accounts = self.books.accounts.values().cloned();
        let mut holds = self.books.holds.values().copied();
        let written = checkpoint::write_blocks(&self.disk, directory(), None, &mut accounts, &mut holds);
        let written = written.expect("there is room");
        checkpoint::verify(&self.disk, directory(), &written, None).expect("it was just written");
        let durable = self.life.log.end();
        let meta = CheckpointMeta {
            branch: BRANCH,
            number: 0,
            segment_len_bytes: SEGMENT_LEN_BYTES,
            replay_from,
            complete_at: durable,
            durable,
            chain: self.life.flusher.chain(),
            epoch: self.life.recovered.journal.epoch.next(),
            last_timestamp: self.life.log.last_timestamp(),
            ids_covered: Lsn::ZERO,
            blocks: 0,
            blocks_check: 0,
            accounts: 0,
            holds: 0,
            counters: vec![1, 2, 3],
        };
        let meta = checkpoint::complete(meta, &written).expect("three counters fit");
        checkpoint::publish(&self.disk, directory(), &meta).expect("there is room");
        checkpoint::remove_older(&self.disk, directory()).expect("nothing is planned to go wrong");
    }

    /// A segment that lies ready before it is needed; at times a recycled one, still with what it held.
    fn prepare_segment(&mut self) {
        let current = self.life.segments.number_of(self.life.log.end());
        let number = current + 1;
        if self.disk.files().contains(&segment_path(directory(), current))
            && self.life.segments.take(number).is_ok()
            && self.random.one_in(2)
            && let Some(first) = self.disk.contents(&segment_path(directory(), 0))
        {
            self.disk.put(&segment_path(directory(), number), 0, &first);
        }
    }

    /// Groups without a record, until several segments are full: starts of a branch that had nothing to do.
    fn go_far(&mut self) {
        self.life.flush();
        let end = self.life.log.end().get() + LONG_SEGMENTS * SEGMENT_LEN_BYTES;
        while self.life.log.end().get() < end {
            self.life.flusher.mark().expect("there is room");
        }
        self.group_starts.push(self.life.log.end());
    }
}

/// From one start of the branch to the next.
struct Life {
    recovered: Recovered,
    segments: Arc<Segments>,
    log: Arc<Log>,
    flusher: Flusher<BlockingWriter>,
    writer: LogWriter,
}

impl Life {
    fn start(disk: &SimDisk) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let recovered = recover(&disk, directory(), SEGMENT_LEN_BYTES, &mut Nothing).expect("nothing is damaged yet");
        let place = recovered.journal.clone();
        let geometry = Geometry::for_segments(SEGMENT_LEN_BYTES).expect("one that the journal allows");
        let stats = Arc::new(JournalStats::default());
        let options = SegmentOptions { ahead: 1, zero_bytes_per_second_max: u64::MAX, free_bytes_min: 0 };
        let segments = Segments::open(disk, directory(), geometry, options, place.next, stats.clone());
        let segments = Arc::new(segments.expect("nothing is planned to go wrong"));
        let log = Arc::new(Log::new(geometry, place.next, place.last_timestamp, 1, Bell::new(|| {})));
        let group_writer = BlockingWriter::new(segments.clone());
        let epoch = place.epoch.next();
        let mut flusher = Flusher::new(log.clone(), group_writer, stats, place.next, epoch, place.chain);
        flusher.mark().expect("there is room");
        let writer = LogWriter::new(log.clone(), 0);
        Self { recovered, segments, log, flusher, writer }
    }

    fn flush(&mut self) {
        while self.flusher.step().expect("there is room") != Step::Idle {}
    }
}

/// Where the journal goes on is all that a restart needs here.
struct Nothing;

impl RecoveryTarget for Nothing {
    fn restart(&mut self) {}
    fn checkpoint(&mut self, _: &CheckpointMeta) {}
    fn account(&mut self, _: Account) -> Result<(), Unfit> {
        Ok(())
    }
    fn hold(&mut self, _: Hold) {}
    fn record(&mut self, _: &Record) -> Result<(), Unfit> {
        Ok(())
    }
}
