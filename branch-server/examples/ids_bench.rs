//! What the id index costs: `cargo run --profile quick --example ids_bench -p tally-branch-server -- [ids] [generation] [dir]`.
//!
//! Uses that many ids (default 20 million), written out and merged while they come, and prints what a worker pays
//! per id, what the background thread pays, what a look-up on disk takes, and the memory. Needs 30 bytes of disk
//! per id, twice that while merging, in `dir` (default: a directory of its own that it removes).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tally_branch_server::ids::{IdConfig, IdIndex, LogPositions, Reserve};
use tally_protocol::{Lsn, TransferId};

/// As a worker drains its queue.
const BATCH_LEN: u64 = 64;
const RECORD_LEN_BYTES: u64 = 184;

/// A journal that is always flushed.
struct Journal(AtomicU64);

impl LogPositions for Journal {
    fn accepted(&self) -> Lsn {
        Lsn::new(self.0.load(Ordering::Acquire))
    }
    fn durable(&self) -> Lsn {
        self.accepted()
    }
}

/// The `n`th of an endless row of ids that look random.
fn id(n: u64) -> TransferId {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    TransferId::new((u128::from(mix(n + 1)) << 64) | u128::from(mix(!n)))
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(64 + n * RECORD_LEN_BYTES)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |arg| arg.parse().expect("a count"));
    let count = number(20_000_000) / BATCH_LEN * BATCH_LEN;
    let generation_len_max = usize::try_from(number(2 << 20)).expect("fits memory");
    let own_dir = std::env::temp_dir().join(format!("ids-bench-{}", std::process::id()));
    let dir = args.next().map_or(own_dir.clone(), PathBuf::from);
    let config = IdConfig { generation_len_max, ..IdConfig::default() };

    let journal = Arc::new(Journal(AtomicU64::new(0)));
    let recovery = IdIndex::open(&dir, config.clone()).expect("opens");
    let index = recovery.finish(Arc::clone(&journal) as Arc<dyn LogPositions>);
    use_ids(&index, &journal, count);
    settle(&index, count);

    check_new(&index, count, true);
    check_new(&index, count, false);
    look_up(&index, count, "first look-ups");
    look_up(&index, count, "again");
    let stats = index.stats();
    println!("{stats:#?}");
    println!(
        "memory: {:.2} bytes per id on disk (filters and indexes), {} MiB recent table, {} MiB resident in all",
        stats.filter_len_bytes as f64 / stats.disk_entry_count.max(1) as f64,
        stats.recent_len_bytes >> 20,
        status_kib("VmRSS") >> 10,
    );
    drop(index);
    replay(&dir, config, count);
    if dir == own_dir {
        std::fs::remove_dir_all(&dir).expect("removes its own directory");
    }
}

/// Reserves and finishes `count` new ids as one worker does.
fn use_ids(index: &IdIndex, journal: &Journal, count: u64) {
    let (started, cpu, mut retried) = (Instant::now(), thread_cpu_s("thread-self"), 0u64);
    let mut took = Vec::new();
    for batch in 0..count / BATCH_LEN {
        let ids = batch * BATCH_LEN..(batch + 1) * BATCH_LEN;
        let began = Instant::now();
        ids.clone().for_each(|n| index.prefetch(id(n), None));
        for n in ids {
            retried += u64::from(!use_id(index, n));
            journal.0.store(lsn(n + 1).get(), Ordering::Release);
        }
        took.push(began.elapsed());
    }
    println!(
        "use {count} ids: {}; CPU {:.0} ns each; {retried} went by the disk; {:.2} s in all",
        per_id(took),
        (thread_cpu_s("thread-self") - cpu) * 1e9 / count as f64,
        started.elapsed().as_secs_f64(),
    );
}

/// Whether it went without the disk.
fn use_id(index: &IdIndex, n: u64) -> bool {
    let mut plain = true;
    let mut answer = index.reserve(id(n));
    loop {
        match answer {
            Reserve::New => break,
            Reserve::MaybeOld => {
                plain = false;
                let looked_up = index.lookup_on_disk(id(n)).expect("readable");
                answer = index.reserve_looked_up(id(n), &looked_up);
            }
            Reserve::Full => {
                std::thread::sleep(Duration::from_millis(10));
                answer = index.reserve(id(n));
            }
            Reserve::InFlight | Reserve::Known(_) => panic!("id {n} was never used, yet: {answer:?}"),
        }
    }
    index.finish(id(n), lsn(n));
    plain
}

/// What batches took, per id. The median is what remains when other programs use the machine as well.
fn per_id(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let nanos = |batch: Duration| batch.as_nanos() as f64 / BATCH_LEN as f64;
    let mean = nanos(took.iter().sum::<Duration>()) / took.len() as f64;
    let median = nanos(took[took.len() / 2]);
    let worst = took.last().copied().unwrap_or_default();
    format!("median {median:.0} ns, mean {mean:.0} ns each, worst batch of {BATCH_LEN} {worst:?}")
}

/// Waits for the last generation and for the merges.
fn settle(index: &IdIndex, count: u64) {
    let started = Instant::now();
    index.persist_until(lsn(count)).expect("is written");
    let mut last = index.stats().written_len_bytes;
    loop {
        std::thread::sleep(Duration::from_millis(3000));
        let now = index.stats().written_len_bytes;
        if now == last {
            break;
        }
        last = now;
    }
    println!(
        "settled after {:.1} s: background thread {:.2} s of CPU in all, {:.0} ns per id, {} merges, {} MiB written",
        started.elapsed().as_secs_f64(),
        keeper_cpu_s(),
        keeper_cpu_s() * 1e9 / count as f64,
        index.stats().merges,
        last >> 20
    );
}

/// What the check of a new id costs, which is the common case.
fn check_new(index: &IdIndex, count: u64, prefetched: bool) {
    let checks = 4_000_000 / BATCH_LEN;
    let (cpu, mut took, mut maybe_old) = (thread_cpu_s("thread-self"), Vec::new(), 0u64);
    for batch in 0..checks {
        let ids = (batch * BATCH_LEN..(batch + 1) * BATCH_LEN).map(|n| id(2 * count + n));
        let began = Instant::now();
        if prefetched {
            ids.clone().for_each(|id| index.prefetch(id, None));
        }
        for id in ids {
            match index.reserve(id) {
                Reserve::New => index.release(id),
                Reserve::MaybeOld => maybe_old += 1,
                answer @ (Reserve::InFlight | Reserve::Known(_) | Reserve::Full) => panic!("{answer:?}"),
            }
        }
        took.push(began.elapsed());
    }
    println!(
        "check a new id and give it back, {} runs, {}: {}; CPU {:.0} ns each; {:.4} % would go by the disk",
        index.stats().run_count,
        if prefetched { "prefetched" } else { "not prefetched" },
        per_id(took),
        (thread_cpu_s("thread-self") - cpu) * 1e9 / (checks * BATCH_LEN) as f64,
        maybe_old as f64 * 100.0 / (checks * BATCH_LEN) as f64,
    );
}

fn look_up(index: &IdIndex, count: u64, label: &str) {
    let mut took: Vec<Duration> = (0..20_000u64)
        .map(|k| {
            let n = k.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
            let began = Instant::now();
            let found = index.lookup_on_disk(id(n)).expect("readable");
            assert_eq!(found.facts.record, Some(lsn(n)), "id {n}");
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |share: f64| took[(took.len() as f64 * share) as usize];
    println!("look up an old id on disk, {label}: P50 {:?}, P99 {:?}, P99.9 {:?}", at(0.5), at(0.99), at(0.999));
}

/// Opens the index and replays as many records again as a crash could leave behind.
fn replay(dir: &std::path::Path, config: IdConfig, count: u64) {
    let began = Instant::now();
    let mut recovery = IdIndex::open(dir, config).expect("opens");
    println!("open with {count} ids on disk: {:?}", began.elapsed());
    let replayed = 6_000_000;
    let (began, cpu) = (Instant::now(), thread_cpu_s("thread-self"));
    (count..count + replayed).for_each(|n| recovery.record(id(n), lsn(n)));
    let took = began.elapsed();
    let cpu_ns = (thread_cpu_s("thread-self") - cpu) * 1e9 / replayed as f64;
    println!("replay {replayed} records: {took:?}; CPU {cpu_ns:.0} ns each");
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of the index's thread, in seconds.
fn keeper_cpu_s() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ids = tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "ids\n"));
    ids.map(|task| thread_cpu_s(&format!("self/task/{}", task.file_name().display()))).sum()
}

/// CPU time of a thread, in seconds: the first field of its schedstat, in nanoseconds.
fn thread_cpu_s(thread: &str) -> f64 {
    let schedstat = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    schedstat.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0) as f64 / 1e9
}
