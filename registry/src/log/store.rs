//! The log as openraft sees it.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, AsyncRuntime, LogState, OptionalSend, RaftLogReader, RaftTypeConfig, StorageIOError};
use parking_lot::Mutex;
use tally_journal::{Journal, JournalStats, LogFull, LogWriter, ReadError};
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::{Lsn, Timestamp};
use tokio::sync::oneshot;

use super::identity::Identity;
use super::index::{Found, Index, Place};
use super::record::{RECORD_HEADER_LEN_BYTES, Record};
use super::retention::{Retention, Wanted};
use super::waiting::{Done, Waiting};
use crate::raft::types::{Entry, LogId, Types, Vote};

type StorageError = openraft::StorageError<u64>;

/// What one message to a follower may carry: it must arrive within a heartbeat.
const READ_LEN_BYTES_MAX: usize = 1 << 20;
/// What is reserved at once when many entries are appended, so that the flusher can begin with the first of them.
const WRITE_LEN_BYTES_MAX: usize = 1 << 20;
/// A group this small is all that there is to do: one decision or two.
const ALONE_LEN_BYTES_MAX: usize = 512;
/// How often it is looked whether the disk has space again.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// What the store, its readers and the thread for retention share.
pub(super) struct Shared {
    pub(super) index: Mutex<Index>,
    pub(super) journal: Journal,
    pub(super) waiting: Arc<Waiting>,
    pub(super) wanted: Wanted,
    /// Whether no other node is to be told meanwhile: then a small group is flushed by who appends it.
    pub(super) is_only_voter: AtomicBool,
}

impl Shared {
    pub(super) fn new(index: Index, journal: Journal, waiting: Arc<Waiting>) -> Self {
        Self {
            index: Mutex::new(index),
            journal,
            waiting,
            wanted: Wanted::default(),
            is_only_voter: AtomicBool::new(false),
        }
    }

    /// The entries of `range`, as many as take `len_bytes_max`, but one at least. Those that are not in memory are read
    /// from the journal here and now: they are old, few are asked for at a time, and most lie in the page cache.
    #[allow(clippy::result_large_err, reason = "the error is openraft's")]
    fn entries(&self, range: impl RangeBounds<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let found = self.index.lock().find(range, len_bytes_max);
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            match found {
                Found::InMemory(entry) => entries.push(entry),
                Found::OnDisk(log_id, place) => match self.read(log_id, place) {
                    Ok(entry) => entries.push(entry),
                    // Purged since it was found, and its segment given up: it is as absent as if it had been so before.
                    Err(ReadError::Retired { .. }) => {}
                    Err(error) => return Err(StorageIOError::read_log_entry(log_id, AnyError::new(&error)).into()),
                },
            }
        }
        Ok(entries)
    }

    fn read(&self, log_id: LogId, place: Place) -> Result<Entry, ReadError> {
        let bytes = self.journal.reader().bytes(place.lsn, place.len_bytes, self.journal.durable())?;
        match Record::decode(&bytes) {
            Ok((Record::Entry(entry), _)) if entry.log_id == log_id => Ok(entry),
            Ok(_) | Err(_) => Err(ReadError::Damaged(place.lsn)),
        }
    }
}

/// What others than openraft may ask of a log, and how it is stopped.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
    /// `None` where it is done by hand.
    retention: Option<Arc<Retention>>,
    identity: Identity,
}

impl LogHandle {
    pub(super) const fn new(shared: Arc<Shared>, retention: Option<Arc<Retention>>, identity: Identity) -> Self {
        Self { shared, retention, identity }
    }

    /// Whose log it is.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// The largest commands that one entry can carry.
    pub fn batch_len_bytes_max(&self) -> usize {
        // The position, the kind, and the length in front of the commands.
        record_len_bytes_max(&self.shared.journal) - RECORD_HEADER_LEN_BYTES - 32
    }

    /// Whether there is disk space for more entries. A leader that looks refuses new commands in time; an append does not
    /// fail, it waits.
    pub fn writable(&self) -> bool {
        self.shared.journal.writable()
    }

    /// Says whether this node is the only one that votes.
    pub fn set_only_voter(&self, is_only_voter: bool) {
        self.shared.is_only_voter.store(is_only_voter, Ordering::Relaxed);
    }

    /// Counters of the journal.
    pub fn stats(&self) -> &JournalStats {
        self.shared.journal.stats()
    }

    /// What survives a crash.
    pub fn durable(&self) -> DurableLsn {
        self.shared.journal.durable()
    }

    /// Where the journal begins, since older segments were given up.
    pub fn oldest(&self) -> Lsn {
        self.shared.journal.reader().oldest()
    }

    /// Ends the threads; what was written is durable then. The store does it itself when openraft drops it.
    pub fn stop(&self) {
        if let Some(retention) = &self.retention {
            retention.stop();
        }
        self.shared.journal.stop();
    }
}

/// Reads entries, while the store writes.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// The log, for openraft: there is one.
pub struct LogStore {
    shared: Arc<Shared>,
    writer: LogWriter,
    handle: LogHandle,
    /// Records that go into the log together.
    bytes: Vec<u8>,
    /// Known to be committed, and not yet written: it goes in front of the next record, since a flush of its own would
    /// cost more than what it saves a restart.
    committed: Option<LogId>,
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl LogStore {
    pub(super) const fn new(shared: Arc<Shared>, writer: LogWriter, handle: LogHandle) -> Self {
        Self { shared, writer, handle, bytes: Vec::new(), committed: None }
    }

    /// What others may ask.
    pub const fn handle(&self) -> &LogHandle {
        &self.handle
    }

    /// Appends `entries`; `done` is told once all of them are durable.
    pub(super) async fn append_with<I>(&mut self, entries: I, done: Done) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let len_bytes_max = record_len_bytes_max(&self.shared.journal);
        let mut group = self.new_group();
        for entry in entries {
            let mut record = self.begin(&mut group);
            Record::put_entry(&mut self.bytes, &entry);
            let mut len_bytes = self.bytes.len() - record;
            if len_bytes > len_bytes_max {
                let why = format!("entry of {len_bytes} bytes, at most {len_bytes_max} can be stored");
                return Err(StorageIOError::write_log_entry(entry.log_id, AnyError::error(why)).into());
            }
            if self.bytes.len() > len_bytes_max.min(WRITE_LEN_BYTES_MAX) && record > 0 {
                // All but this one.
                let rest = self.bytes.split_off(record);
                self.write(std::mem::take(&mut group), None).await;
                record = 0;
                len_bytes = rest.len();
                self.bytes = rest;
            }
            group.add_entry(entry, record, len_bytes);
        }
        if group.count == 0 {
            done.tell();
        } else {
            self.write(group, Some(done)).await;
        }
        Ok(())
    }

    /// Begins with nothing, whatever a future that was dropped has left.
    fn new_group(&mut self) -> Group {
        self.bytes.clear();
        Group::default()
    }

    /// Where the next record begins; in front of the first goes what is known to be committed.
    fn begin(&mut self, group: &mut Group) -> usize {
        if let Some(log_id) = self.committed.take() {
            Record::Committed(log_id).put(&mut self.bytes);
            group.count += 1;
        }
        self.bytes.len()
    }

    /// Writes a record that is no entry, and says so to the index at the moment when its place in the log is known.
    async fn write_record(&mut self, record: Record, done: Option<Done>, update: impl FnOnce(&mut Index) + Send) {
        let mut group = self.new_group();
        self.begin(&mut group);
        record.put(&mut self.bytes);
        group.count += 1;
        self.room(self.bytes.len()).await;
        self.fill(group, done, update);
    }

    async fn write(&mut self, group: Group, done: Option<Done>) {
        self.room(self.bytes.len()).await;
        self.fill(group, done, |_| {});
    }

    /// Makes sure that `len_bytes` can be reserved. Waits for a flush where the ring is full, and for an operator where the
    /// disk is: an error would end openraft for good.
    async fn room(&mut self, len_bytes: usize) {
        loop {
            let mut flushed = pin!(self.shared.waiting.next_flush());
            // Before the look, so that no flush in between is missed.
            flushed.as_mut().enable();
            match self.writer.secure(len_bytes as u64) {
                Ok(()) => return,
                Err(LogFull::Ring) => flushed.await,
                Err(LogFull::Disk) => <Types as RaftTypeConfig>::AsyncRuntime::sleep(SPACE_INTERVAL).await,
            }
        }
    }

    /// Puts `self.bytes` into the log. Durable in one flush: a reservation lies in one group.
    fn fill(&mut self, group: Group, done: Option<Done>, update: impl FnOnce(&mut Index)) {
        // No clock: the log's order is all that is asked of the stamps.
        let place = self.writer.reserve(self.bytes.len() as u64, group.count, Timestamp::default());
        {
            let durable = self.shared.journal.durable();
            let mut index = self.shared.index.lock();
            for (entry, offset, len_bytes) in group.entries {
                let lsn = Lsn::new(place.lsn().get() + offset as u64);
                index.append(entry, Place { lsn, len_bytes }, durable);
            }
            update(&mut index);
        }
        if let Some(done) = done {
            // Before it is filled, or the flush might pass it.
            self.shared.waiting.push(place.lsn(), done);
        }
        let is_alone = self.bytes.len() <= ALONE_LEN_BYTES_MAX && self.shared.is_only_voter.load(Ordering::Relaxed);
        if is_alone {
            self.writer.hush();
        }
        self.writer.fill(place, |bytes| bytes.copy_from_slice(&self.bytes));
        if self.writer.unhush() {
            self.shared.journal.flush_here();
        }
        self.bytes.clear();
    }
}

/// Records that go into the log together.
#[derive(Default)]
struct Group {
    count: u32,
    /// The entries among them, with where they begin and how long they are.
    entries: Vec<(Entry, usize, usize)>,
}

impl Group {
    fn add_entry(&mut self, entry: Entry, offset: usize, len_bytes: usize) {
        self.count += 1;
        self.entries.push((entry, offset, len_bytes));
    }
}

fn record_len_bytes_max(journal: &Journal) -> usize {
    journal.reader().geometry().reservation_len_bytes_max as usize
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.shared.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.shared.entries(start..end, READ_LEN_BYTES_MAX)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.shared.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.shared.entries(start..end, READ_LEN_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let index = self.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.state().purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let (sender, told) = oneshot::channel();
        let vote = *vote;
        self.write_record(Record::Vote(vote), Some(Done::Wake(sender)), move |index| index.set_vote(vote)).await;
        told.await.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.shared.index.lock().state().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.shared.index.lock().set_committed(committed);
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.shared.index.lock().state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.append_with(entries, Done::Flushed(callback)).await
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let since = log_id.index;
        if self.shared.index.lock().reaches(since) {
            self.write_record(Record::Truncate { since }, None, move |index| index.truncate(since)).await;
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.write_record(Record::Purge(log_id), None, move |index| index.purge(log_id)).await;
        self.shared.wanted.want();
        Ok(())
    }
}
