//! Limits on a bank: memory, or a share of a processor, by a control group.
//!
//! Version 2 groups are used where the hierarchy is mounted, else version 1. Where neither may be made, a weaker
//! limit is used and said so in the row's notes: `prlimit --data` for memory, one processor by `taskset` for half
//! of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// The period that a processor share is measured over: short, so that a bank is slowed and not stopped.
const PERIOD_US: u64 = 10_000;
/// A group can go only when its processes have.
const REMOVE_ATTEMPTS: u32 = 100;

/// What a bank may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// This many bytes, page cache included.
    Memory(u64),
    /// This part of one processor.
    Cpu(f64),
}

/// A limit that is in force for whatever is started by [`Limited::command`].
#[derive(Debug)]
pub(crate) struct Limited {
    /// To be removed afterwards.
    group: Option<PathBuf>,
    wrapper: Vec<String>,
    note: String,
}

impl Limited {
    /// Sets `limit` up. `name` must not be in use.
    pub(crate) fn new(limit: Limit, name: &str) -> Self {
        match Self::in_group(limit, name) {
            Some(limited) => limited,
            None => Self::weaker(limit),
        }
    }

    fn in_group(limit: Limit, name: &str) -> Option<Self> {
        let (group, settings) = group(Path::new(ROOT), limit, name);
        fs::create_dir(&group).ok()?;
        let limited = Self {
            // The shell enters the group and becomes the program: all its memory and time is counted.
            wrapper: ["sh", "-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"", &group.to_string_lossy()]
                .map(str::to_owned)
                .to_vec(),
            note: format!("{} by control group", describe(limit)),
            group: Some(group.clone()),
        };
        for (file, value) in settings {
            fs::write(group.join(file), value).ok()?;
        }
        Some(limited)
    }

    fn weaker(limit: Limit) -> Self {
        let (wrapper, note) = match limit {
            Limit::Memory(bytes) => {
                (vec!["prlimit".to_owned(), format!("--data={bytes}")], "by prlimit --data: page cache not counted")
            }
            Limit::Cpu(_) => {
                (["taskset", "-c", "0"].map(str::to_owned).to_vec(), "not possible here: one whole processor instead")
            }
        };
        Self { group: None, wrapper, note: format!("{} {note}", describe(limit)) }
    }

    /// A command that starts `program` under the limit.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.wrapper[0]);
        command.args(&self.wrapper[1..]).arg(program);
        command
    }

    /// How it is limited, for the report.
    pub(crate) fn note(&self) -> &str {
        &self.note
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        for _ in 0..REMOVE_ATTEMPTS {
            if fs::remove_dir(group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The folder of a new group, and what to write into its files.
fn group(root: &Path, limit: Limit, name: &str) -> (PathBuf, Vec<(&'static str, String)>) {
    let quota = |share: f64| (share * PERIOD_US as f64) as u64;
    if root.join("cgroup.controllers").exists() {
        // The root passes controllers on only where told so; without the right, the group will lack the file.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory +cpu");
        let settings = match limit {
            Limit::Memory(bytes) => vec![("memory.max", bytes.to_string()), ("memory.swap.max", "0".to_owned())],
            Limit::Cpu(share) => vec![("cpu.max", format!("{} {PERIOD_US}", quota(share)))],
        };
        return (root.join(name), settings);
    }
    match limit {
        Limit::Memory(bytes) => (root.join("memory").join(name), vec![("memory.limit_in_bytes", bytes.to_string())]),
        Limit::Cpu(share) => (
            root.join("cpu").join(name),
            vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota(share).to_string())],
        ),
    }
}

fn describe(limit: Limit) -> String {
    match limit {
        Limit::Memory(bytes) => format!("memory limited to {} MiB", bytes >> 20),
        Limit::Cpu(share) => format!("processor limited to {share} of a core"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (folder, settings) = group(root.path(), Limit::Cpu(0.5), "x");
        assert_eq!(folder, root.path().join("cpu/x"));
        assert_eq!(settings[1], ("cpu.cfs_quota_us", "5000".to_owned()));
        let (folder, _) = group(root.path(), Limit::Memory(1 << 32), "x");
        assert_eq!(folder, root.path().join("memory/x"));

        fs::write(root.path().join("cgroup.controllers"), "cpu memory").expect("a file");
        let (folder, settings) = group(root.path(), Limit::Memory(1 << 32), "x");
        assert_eq!(folder, root.path().join("x"));
        assert_eq!(settings[0], ("memory.max", "4294967296".to_owned()));
    }

    #[test]
    fn without_groups_the_weaker_limit_says_so() {
        let limited = Limited::weaker(Limit::Memory(4 << 30));
        assert_eq!(limited.note(), "memory limited to 4096 MiB by prlimit --data: page cache not counted");
        let output = limited.command(Path::new("/bin/echo")).arg("hello").output();
        if let Ok(output) = output {
            assert_eq!(output.stdout, b"hello\n");
        }
    }
}
