//! Models of the log in memory, explored by loom: writers reserve and fill while the flusher closes, seals
//! and releases. Every byte of the ring is watched: two threads on one of them are found out.
#![cfg(feature = "loom")]

use std::io;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use tally_journal::bell::Bell;
use tally_journal::flusher::{Flusher, GroupWriter, Step};
use tally_journal::log::{Log, LogWriter, SealedBytes};
use tally_journal::stats::JournalStats;
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::group::{Chain, Epoch, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_protocol::{Lsn, Timestamp};

/// Small enough that the ring is full, and is used again, within a few steps.
const SMALL: Geometry = Geometry {
    segment_len_bytes: 1024,
    block_len_bytes: 64,
    group_len_bytes_soft_max: 1024,
    reservation_len_bytes_max: 64,
};

fn model(preemption_bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(body);
}

/// A record of the model: its position and stamp, twice.
const RECORD_LEN_BYTES: usize = 32;

/// Keeps the records of the groups that it is given, after a look at each.
struct Disk {
    records: Arc<Mutex<Vec<(u64, u64)>>>,
    chain: Chain,
}

impl GroupWriter for Disk {
    fn write(&mut self, start: Lsn, bytes: SealedBytes) -> io::Result<()> {
        bytes.read(|bytes| {
            let (header, payload, chain) = GroupHeader::open(bytes).expect("a sealed group is whole");
            assert_eq!((header.start, header.previous), (start, self.chain));
            assert_eq!(header.durable, start, "one group is in flight at a time");
            self.chain = chain;
            assert!(bytes[header.len_bytes()..].iter().all(|&byte| byte == 0), "padding is zero");
            let mut records = self.records.lock().expect("no thread panics in a model");
            let mut at = start.get() + GROUP_HEADER_LEN_BYTES as u64;
            for record in payload.chunks_exact(RECORD_LEN_BYTES) {
                let word = |index: usize| u64::from_le_bytes(record[index * 8..][..8].try_into().expect("eight bytes"));
                assert_eq!((word(0), word(2)), (at, at), "every byte of it was filled");
                assert_eq!(word(1), word(3));
                records.push((word(0), word(1)));
                at += RECORD_LEN_BYTES as u64;
            }
        });
        Ok(())
    }
}

/// `park` and `unpark` as the standard library has them. Loom's own forgets an `unpark` that meets a thread
/// which waits for a mutex at that moment.
#[derive(Default)]
struct Token {
    given: Mutex<bool>,
    changed: Condvar,
}

impl Token {
    fn park(&self) {
        let mut given = self.given.lock().expect("no thread panics in a model");
        while !*given {
            given = self.changed.wait(given).expect("no thread panics in a model");
        }
        *given = false;
    }

    fn unpark(&self) {
        *self.given.lock().expect("no thread panics in a model") = true;
        self.changed.notify_one();
    }
}

/// What the flusher does without work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Idle {
    Sleep,
    /// With more than one ringer, sleep would need more than loom knows: it does not order the bell's `swap`
    /// before a store that came later on another thread, though the two cannot be in another order.
    LookAgain,
}

struct Model {
    log: Arc<Log>,
    bell: Bell,
    token: Arc<Token>,
    flusher: Flusher<Disk>,
    records: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Model {
    /// The calling thread is the flusher's.
    fn new(writers: usize) -> Self {
        let token = Arc::new(Token::default());
        let sleeper = token.clone();
        let bell = Bell::new(move || sleeper.unpark());
        let log = Arc::new(Log::new(SMALL, Lsn::ZERO, Timestamp::default(), writers, bell.clone()));
        let records = Arc::new(Mutex::new(Vec::new()));
        let disk = Disk { records: records.clone(), chain: Chain::START };
        let stats = std::sync::Arc::new(JournalStats::default());
        let flusher = Flusher::new(log.clone(), disk, stats, Lsn::ZERO, Epoch::new(1), Chain::START);
        Self { log, bell, token, flusher, records }
    }

    /// Flushes until `count` records are durable, and sleeps or looks again whenever there is nothing to do.
    /// A lost wake-up leaves this thread asleep for ever, which loom reports as a deadlock.
    fn flush(&mut self, count: usize, idle: Idle) {
        loop {
            match self.flusher.step().expect("the model's disk does not fail") {
                Step::Flushed { durable, .. } => {
                    let records = self.records.lock().expect("no thread panics in a model");
                    let last = records.last().expect("a flush brings records");
                    assert!(durable.covers(Lsn::new(last.0)));
                    if records.len() == count {
                        return;
                    }
                }
                Step::Idle | Step::Filling if idle == Idle::LookAgain => thread::yield_now(),
                Step::Idle | Step::Filling => {
                    self.bell.announce_sleep();
                    if !self.flusher.is_ready() {
                        self.token.park();
                    }
                    self.bell.awake();
                }
            }
        }
    }
}

fn append(writer: &mut LogWriter) -> (u64, u64) {
    while writer.secure(RECORD_LEN_BYTES as u64).is_err() {
        thread::yield_now();
    }
    let place = writer.reserve(RECORD_LEN_BYTES as u64, 1, Timestamp::from_nanos(5));
    let record = (place.lsn().get(), place.timestamp().as_nanos());
    writer.fill(place, |bytes| {
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(if index % 2 == 0 { record.0 } else { record.1 }).to_le_bytes());
        }
    });
    record
}

#[test]
fn what_two_writers_filled_is_flushed_whole_and_in_order() {
    model(3, || {
        let mut model = Model::new(2);
        let writers: Vec<_> = (0..2)
            .map(|index| {
                let mut writer = LogWriter::new(model.log.clone(), index);
                thread::spawn(move || append(&mut writer))
            })
            .collect();
        model.flush(2, Idle::LookAgain);
        let mut written: Vec<_> = writers.into_iter().map(|writer| writer.join().expect("no panic")).collect();
        written.sort_unstable();
        assert_eq!(*model.records.lock().expect("no panic"), written);
        assert!(written[0].1 < written[1].1, "stamps rise with positions");
    });
}

#[test]
fn a_full_ring_is_used_again_only_when_durable() {
    model(2, || {
        const COUNT: usize = 9;
        let mut model = Model::new(1);
        let mut writer = LogWriter::new(model.log.clone(), 0);
        let writer = thread::spawn(move || (0..COUNT).map(|_| append(&mut writer)).collect::<Vec<_>>());
        model.flush(COUNT, Idle::Sleep);
        let written = writer.join().expect("no panic");
        assert_eq!(*model.records.lock().expect("no panic"), written);
    });
}

#[test]
fn nothing_behind_a_gap_is_accepted() {
    model(3, || {
        let model = Model::new(2);
        let mut slow = LogWriter::new(model.log.clone(), 0);
        slow.secure(RECORD_LEN_BYTES as u64).expect("an empty ring has space");
        let place = slow.reserve(RECORD_LEN_BYTES as u64, 1, Timestamp::from_nanos(1));
        let gap = place.lsn();
        let quick = {
            let mut writer = LogWriter::new(model.log.clone(), 1);
            thread::spawn(move || append(&mut writer))
        };
        assert!(model.log.accepted() <= gap);
        slow.fill(place, |bytes| bytes.fill(1));
        let (lsn, _) = quick.join().expect("no panic");
        assert!(model.log.accepted() > Lsn::new(lsn));
    });
}

/// A writer that hushed its record takes the flusher's turn if nobody has it, else rings. Whoever flushes, nothing stays
/// behind: a lost wake-up leaves the flusher's thread asleep for ever.
#[test]
fn a_writer_that_flushes_itself_leaves_nothing_behind() {
    model(2, || {
        let Model { log, bell, token, flusher, records } = Model::new(1);
        let turns = Arc::new(Mutex::new(flusher));
        let writer = {
            let (turns, bell, mut writer) = (turns.clone(), bell.clone(), LogWriter::new(log, 0));
            thread::spawn(move || {
                writer.hush();
                append(&mut writer);
                assert!(writer.unhush());
                let flushed = turns.try_lock().is_ok_and(|mut flusher| {
                    matches!(flusher.step().expect("the model's disk does not fail"), Step::Flushed { .. })
                });
                if !flushed {
                    bell.ring();
                }
                append(&mut writer);
            })
        };
        while records.lock().expect("no panic").len() < 2 {
            let step = turns.lock().expect("no panic").step().expect("the model's disk does not fail");
            if !matches!(step, Step::Flushed { .. }) {
                bell.announce_sleep();
                if !turns.lock().expect("no panic").is_ready() && records.lock().expect("no panic").len() < 2 {
                    token.park();
                }
                bell.awake();
            }
        }
        writer.join().expect("no panic");
    });
}
