//! The machine that a benchmark ran on. Figures of different machines are not compared.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::disk;

/// How long the disk is looked at.
const FLUSHES_FOR: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Main memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Median of a 4 KiB append and `fdatasync` to a preallocated, zero-filled file, before the first row.
    pub disk_flush_p50_us: f64,
    /// Its 99th percentile.
    pub disk_flush_p99_us: f64,
    /// Processes that were running or waiting for a processor when the benchmark began, over a minute.
    pub load_average: f64,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} x {}, {:.0} GiB, Linux {}; 4 KiB flush p50 {:.0} us, p99 {:.0} us; load {}",
            self.cores,
            self.cpu,
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.disk_flush_p50_us,
            self.disk_flush_p99_us,
            self.load_average,
        )
    }
}

/// Looks at the machine, and measures the disk under `folder`.
pub(crate) fn describe(folder: &Path) -> anyhow::Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let flush = disk::flushes(folder, FLUSHES_FOR)?.latency;
    let memory_kib = first_number(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0);
    Ok(Machine {
        cpu: cpu_name(&read("/proc/cpuinfo")),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_kib * 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        disk_flush_p50_us: flush.p50_us,
        disk_flush_p99_us: flush.p99_us,
        load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
    })
}

fn cpu_name(cpuinfo: &str) -> String {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

fn first_number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: AMD EPYC\n"), "AMD EPYC");
        assert_eq!(cpu_name(""), "unknown");
        assert_eq!(first_number("MemTotal:       24 kB\n", "MemTotal:"), Some(24));
    }
}
