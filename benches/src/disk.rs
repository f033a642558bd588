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

/// `count` times: append 4 KiB to a preallocated, zero-filled file and `fdatasync` it.
pub(crate) fn flush_latency(folder: &Path, count: usize) -> io::Result<LatencySummary> {
    let path = folder.join(format!("flush-probe-{}", std::process::id()));
    let result = flush_probe(&path, count);
    fs::remove_file(&path)?;
    result
}

fn flush_probe(path: &Path, count: usize) -> io::Result<LatencySummary> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let zeros = vec![0; READ_LEN_BYTES];
    for offset in (0..(count * BLOCK_LEN_BYTES) as u64).step_by(READ_LEN_BYTES) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let block = [0x5a; BLOCK_LEN_BYTES];
    let mut latencies = Latencies::default();
    for index in 0..count {
        let begun = Instant::now();
        file.write_all_at(&block, (index * BLOCK_LEN_BYTES) as u64)?;
        file.sync_data()?;
        latencies.record(begun.elapsed().as_nanos() as u64);
    }
    Ok(latencies.summary())
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

/// A disk is calm when none of this many flushes in a row, a second's worth,
const CALM_FLUSHES: usize = 8_000;
/// took longer.
const CALM_MAX_US: f64 = 5_000.0;
/// A disk that is not calm after so many tries is measured as it is.
const CALM_TRIES: usize = 20;

/// Waits for what the row before left to the disk: removing gigabytes makes work for the file system's journal, and
/// discards where it is mounted so, which flushes would otherwise meet for seconds.
pub(crate) fn settle(folder: &Path) -> io::Result<()> {
    // Without `sync` the probes alone have to do.
    let _ = std::process::Command::new("sync").status();
    for _ in 0..CALM_TRIES {
        if flush_latency(folder, CALM_FLUSHES)?.max_us < CALM_MAX_US {
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
        let summary = flush_latency(folder.path(), 5).expect("a disk");
        assert_eq!(summary.count, 5);
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
