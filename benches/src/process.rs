//! What the kernel knows of a process: processor time, memory, bytes read.

use std::fs;
use std::io;
use std::time::Duration;

/// Clock ticks per second in `/proc/PID/stat`: fixed by the kernel's interface to user space.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time used by all threads of `pid`, user and system.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_cpu_time(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name may hold blanks and brackets; fields are counted from its end. utime and stime are 14 and 15.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(14 - 3);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// Memory in use, in bytes: what is resident, shared pages included.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:").map(|kib| kib * 1024)
}

/// Bytes that the process made the disk read so far.
pub(crate) fn disk_read_bytes(pid: u32) -> io::Result<u64> {
    field(&format!("/proc/{pid}/io"), "read_bytes:")
}

fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name() {
        let stat = "42 (a) b) R 1 42 42 0 -1 4194304 1 0 0 0 250 150 0 0 20 0 4 0 100 1 1";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(4)));
        assert_eq!(parse_cpu_time("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).expect("readable") > 1 << 20);
        cpu_time(pid).expect("readable");
    }
}
