//! What the disk does by itself: flushes of 4 KiB, and reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tally_client::load::{Latencies, LatencySummary};

/// One write of the probe.
const BLOCK_LEN_BYTES: usize = 4096;
/// What is read at once.
const READ_LEN_BYTES: usize = 1 << 20;

/// The file that probes write: once around, and then over again.
const PROBE_BLOCKS: u64 = 8_192;
/// So many flushes are measured, however long they take.
const FLUSHES_MIN: u64 = 5;
/// A flush that takes longer is no flush any more but a disk that stands still: no bank on it can answer in time.
pub(crate) const STALL: Duration = Duration::from_millis(10);

/// Flushes of 4 KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flushes {
    pub(crate) latency: LatencySummary,
    /// The share of the time that was spent in flushes longer than [`STALL`]: who comes by at any instant meets one with
    /// this probability.
    pub(crate) stalled_share: f64,
}

/// For `time`: write 4 KiB to a preallocated, zero-filled file and `fdatasync` it, one after the other.
pub(crate) fn flushes(folder: &Path, time: Duration) -> io::Result<Flushes> {
    let path = folder.join(format!("flush-probe-{}", std::process::id()));
    let result = flush_probe(&path, time);
    fs::remove_file(&path)?;
    result
}

fn flush_probe(path: &Path, time: Duration) -> io::Result<Flushes> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let zeros = vec![0; READ_LEN_BYTES];
    for offset in (0..PROBE_BLOCKS * BLOCK_LEN_BYTES as u64).step_by(READ_LEN_BYTES) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let block = [0x5a; BLOCK_LEN_BYTES];
    let (mut latencies, mut stalled) = (Latencies::default(), Duration::ZERO);
    let begun = Instant::now();
    for index in 0.. {
        if index >= FLUSHES_MIN && begun.elapsed() >= time {
            break;
        }
        let flush_begun = Instant::now();
        file.write_all_at(&block, index % PROBE_BLOCKS * BLOCK_LEN_BYTES as u64)?;
        file.sync_data()?;
        let took = flush_begun.elapsed();
        latencies.record(took.as_nanos() as u64);
        if took > STALL {
            stalled += took;
        }
    }
    let stalled_share = stalled.as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(Flushes { latency: latencies.summary(), stalled_share })
}

/// How long it takes to read `bytes` out of `files`, one behind the other, with nothing cached.
pub(crate) fn raw_read_time(files: &[PathBuf], bytes: u64) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut buffer = vec![0; READ_LEN_BYTES];
    let mut left = bytes;
    for path in files {
        let mut file = match File::open(path) {
            Ok(file) => file,
            // A bank goes on tidying up while its files are listed: what was merged or renamed is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        while left > 0 {
            match file.read(&mut buffer)? {
                0 => break,
                len_bytes => left = left.saturating_sub(len_bytes as u64),
            }
        }
    }
    Ok(begun.elapsed())
}

/// All files below `folder`, the last written first.
pub(crate) fn files_by_age(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                files.push((metadata.modified()?, entry.path()));
            }
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// A disk is calm when for so long
const CALM: Duration = Duration::from_secs(3);
/// no flush took longer.
const CALM_MAX_US: f64 = 5_000.0;
/// A disk that is not calm after so many tries is measured as it is.
const CALM_TRIES: usize = 20;

/// Waits for what the row before left to the disk: removing gigabytes makes work for the file system's journal, and
/// discards where it is mounted so, which flushes would otherwise meet for seconds.
pub(crate) fn settle(folder: &Path) -> io::Result<()> {
    // Without `sync` the probes alone have to do.
    let _ = std::process::Command::new("sync").status();
    for _ in 0..CALM_TRIES {
        if flushes(folder, CALM)?.latency.max_us < CALM_MAX_US {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Makes the kernel forget what it has read. `false` where that is not permitted.
pub(crate) fn drop_caches() -> bool {
    let synced = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    synced && fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_measures_and_cleans_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let flushes = flushes(folder.path(), Duration::ZERO).expect("a disk");
        assert_eq!(flushes.latency.count, FLUSHES_MIN);
        assert!((0.0..=1.0).contains(&flushes.stalled_share));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn reading_stops_after_the_bytes_asked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["a", "b"] {
            fs::write(folder.path().join(name), vec![1; 3 << 20]).expect("a file");
        }
        let files = files_by_age(folder.path()).expect("readable");
        assert_eq!(files.len(), 2);
        raw_read_time(&files, 4 << 20).expect("readable");
    }
}
