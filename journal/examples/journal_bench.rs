//! The journal alone, next to the raw disk: how long until one record is durable, how many records a second
//! become durable at full speed, and what the flusher's thread costs.
//!
//! `cargo run --profile quick -p tally-journal --example journal_bench -- [DIRECTORY] [SECONDS]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tally_journal::aligned::AlignedBuffer;
use tally_journal::recovery::open_directory;
use tally_journal::{Disk, Journal, JournalOptions, OpenMode, RealDisk, RecoveryError, WriteVia, recover_groups};
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{StatusChange, Sums};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, CustomerId, Timestamp, TransferId};

fn record(id: u128) -> Record {
    let body = TransferRecord {
        id: TransferId::new(id),
        debit_account_id: AccountId::new(id % 1_000_003),
        credit_account_id: AccountId::new(id % 999_983),
        amount_asked: Amount::new(100),
        amount: Amount::new(100),
        day_spent: Amount::ZERO,
        day: 0,
        debit: Sums::default(),
        credit: Sums::default(),
        code: 1,
        currency: 978,
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        given: 15,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
    };
    Record {
        lsn: tally_protocol::Lsn::ZERO,
        timestamp: Timestamp::default(),
        actor: CustomerId::new(1),
        body: RecordBody::Transfer(body),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "journal-bench".into()));
    let seconds = arguments.next().map_or(5, |seconds| seconds.parse().expect("a number of seconds"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory to write to");
    for via in [WriteVia::Uring, WriteVia::Blocking] {
        raw(&directory);
        one_in_flight(&directory, via);
    }
    for (via, writers, rate) in [
        (WriteVia::Uring, 1, Some(100_000)),
        (WriteVia::Uring, 1, Some(400_000)),
        (WriteVia::Uring, 1, None),
        (WriteVia::Uring, 2, None),
        (WriteVia::Blocking, 1, Some(400_000)),
        (WriteVia::Blocking, 1, None),
    ] {
        throughput(&directory, via, writers, rate, Duration::from_secs(seconds));
    }
    let _ = std::fs::remove_dir_all(&directory);
}

fn options(directory: &Path, via: WriteVia, writers: usize) -> JournalOptions {
    JournalOptions { write_via: via, ..JournalOptions::new(directory.to_owned(), writers) }
}

fn start(options: JournalOptions, notify: impl Fn(u64) + Send + Sync + 'static) -> Arc<Journal> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    let began = Instant::now();
    let geometry = open_directory(&*disk, &options.directory, options.segment_len_bytes).expect("opens");
    let mut records = 0;
    let recovered = recover_groups(&*disk, &options.directory, geometry, None, &mut |_, count, mut bytes| {
        while !bytes.is_empty() {
            // The state does not matter here; only how long it takes to read back.
            let record = std::hint::black_box(Record::decode(bytes).expect("a record"));
            bytes = &bytes[record.body.len_bytes()..];
        }
        records += u64::from(count);
        Ok::<_, RecoveryError>(())
    });
    let recovered = recovered.expect("recovers");
    if records > 0 {
        let bytes = recovered.next.get() as f64;
        let took = began.elapsed().as_secs_f64();
        println!(
            "{:<34} {} records, {:.0} MB in {:.2} s: {:.0} MB/s, {:.1} M records/s",
            "  recovery of it",
            records,
            bytes / 1e6,
            took,
            bytes / 1e6 / took,
            records as f64 / 1e6 / took
        );
    }
    let on_durable = Box::new(move |durable: DurableLsn| notify(durable.end().get()));
    Arc::new(Journal::start(disk, options, &recovered, on_durable).expect("starts"))
}

fn raw(directory: &Path) {
    let disk = RealDisk::new(true);
    let path = directory.join("raw");
    let file = disk.open(&path, OpenMode::Create).expect("creates");
    let zeros = AlignedBuffer::zeroed(1 << 20);
    for offset in 0..16 {
        file.write_at(&zeros, offset << 20).expect("writes");
    }
    file.sync().expect("syncs");
    let mut nanos = Vec::new();
    for index in 0..3000 {
        let began = Instant::now();
        file.write_at(&zeros[..4096], index * 4096).expect("writes");
        file.as_std().expect("a real file").sync_data().expect("syncs");
        nanos.push(began.elapsed().as_nanos() as u64);
    }
    report("raw: write 4 KiB + fdatasync", nanos);
    let file = disk.open(&path, OpenMode::WriteDurable).expect("opens");
    let nanos = (0..3000)
        .map(|index| {
            let began = Instant::now();
            file.write_at(&zeros[..4096], index * 4096).expect("writes");
            began.elapsed().as_nanos() as u64
        })
        .collect();
    report("raw: write 4 KiB, O_DIRECT|O_DSYNC", nanos);
    std::fs::remove_file(path).expect("removes");
}

fn report(what: &str, mut nanos: Vec<u64>) {
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!("{what:<34} P50 {:>7.1} us   P99 {:>7.1} us   P99.9 {:>7.1} us", at(0.5), at(0.99), at(0.999));
}

fn one_in_flight(directory: &Path, via: WriteVia) {
    let thread = std::thread::current();
    let durable = Arc::new(AtomicU64::new(0));
    let seen = durable.clone();
    let journal = start(options(&directory.join(format!("one-{via:?}")), via, 1), move |end| {
        seen.store(end, Ordering::Release);
        thread.unpark();
    });
    let mut writer = journal.writer(0);
    // Let the segments be prepared: their zeros compete with the small writes.
    std::thread::sleep(Duration::from_millis(1500));
    let mut nanos = Vec::new();
    for id in 1..=3000 {
        let mut record = record(id);
        let len_bytes = record.body.len_bytes() as u64;
        let began = Instant::now();
        writer.secure(len_bytes).expect("there is space");
        let place = writer.reserve(len_bytes, 1, Timestamp::from_nanos(0));
        let lsn = place.lsn();
        (record.lsn, record.timestamp) = (lsn, place.timestamp());
        writer.fill(place, |bytes| record.encode_into(bytes));
        while durable.load(Ordering::Acquire) <= lsn.get() {
            std::thread::park();
        }
        nanos.push(began.elapsed().as_nanos() as u64);
    }
    report(&format!("journal {via:?}: one in flight"), nanos);
    journal.stop();
}

/// Writers that keep `rate` records a second, or as many as the log takes.
fn throughput(directory: &Path, via: WriteVia, writers: usize, rate: Option<u64>, duration: Duration) {
    let directory = directory.join(format!("full-{via:?}-{writers}-{rate:?}"));
    let done = Arc::new(AtomicBool::new(false));
    let journal = start(options(&directory, via, writers), |_| {});
    std::thread::sleep(Duration::from_millis(1500));
    let before = Sample::take(&journal);
    let threads: Vec<_> = (0..writers)
        .map(|index| {
            let (mut writer, journal, done) = (journal.writer(index), journal.clone(), done.clone());
            std::thread::spawn(move || {
                let mut record = record(index as u128);
                let len_bytes = record.body.len_bytes() as u64;
                let (began, mut count, mut latencies) = (Instant::now(), 0_u64, Vec::new());
                let mut pending: Option<(u64, Instant)> = None;
                while !done.load(Ordering::Relaxed) {
                    let due = rate.map_or(u64::MAX, |rate| (began.elapsed().as_secs_f64() * rate as f64) as u64);
                    let mut progress = false;
                    for _ in 0..64 {
                        if count >= due || writer.secure(len_bytes).is_err() {
                            break;
                        }
                        let place = writer.reserve(len_bytes, 1, Timestamp::from_nanos(0));
                        (record.lsn, record.timestamp) = (place.lsn(), place.timestamp());
                        pending.get_or_insert_with(|| (place.lsn().get(), Instant::now()));
                        writer.fill(place, |bytes| record.encode_into(bytes));
                        count += 1;
                        progress = true;
                    }
                    if let Some((lsn, since)) = pending.filter(|(lsn, _)| journal.durable().end().get() > *lsn) {
                        let _ = lsn;
                        latencies.push(since.elapsed().as_nanos() as u64);
                        pending = None;
                    }
                    if !progress {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
                latencies
            })
        })
        .collect();
    std::thread::sleep(duration);
    let after = Sample::take(&journal);
    done.store(true, Ordering::Relaxed);
    let latencies = threads.into_iter().flat_map(|thread| thread.join().expect("does not panic")).collect();
    let seconds = duration.as_secs_f64();
    println!(
        "journal {via:?}, {writers} writers, {}: {:.0} records/s, {:.0} MB/s, {:.0} flushes/s of {:.0} records, flusher {:.3} cores, {} segments of which {} unprepared, ring full {}",
        rate.map_or("full speed".into(), |rate| format!("{rate}/s offered")),
        (after.records - before.records) as f64 / seconds,
        (after.len_bytes - before.len_bytes) as f64 / seconds / 1e6,
        (after.flushes - before.flushes) as f64 / seconds,
        (after.records - before.records) as f64 / (after.flushes - before.flushes) as f64,
        (after.cpu - before.cpu) / seconds,
        after.segments - before.segments,
        after.unprepared - before.unprepared,
        after.ring_full - before.ring_full,
    );
    report("  until durable", latencies);
    journal.stop();
    drop(journal);
    start(options(&directory, via, writers), |_| {}).stop();
    let _ = std::fs::remove_dir_all(&directory);
}

struct Sample {
    records: u64,
    len_bytes: u64,
    flushes: u64,
    segments: u64,
    unprepared: u64,
    ring_full: u64,
    cpu: f64,
}

impl Sample {
    fn take(journal: &Journal) -> Self {
        let stats = journal.stats();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            records: get(&stats.records),
            len_bytes: get(&stats.written_len_bytes),
            flushes: get(&stats.flushes),
            segments: get(&stats.segments),
            unprepared: get(&stats.segments_unprepared),
            ring_full: get(&journal.refused().ring),
            cpu: flusher_cpu_seconds(),
        }
    }
}

/// User and system time of the flusher's thread, from `/proc`.
fn flusher_cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    for task in tasks.flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "journal-flusher" {
            let runtime = read("schedstat");
            return runtime.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
        }
    }
    0.0
}
