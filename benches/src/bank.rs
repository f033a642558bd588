//! A bank that a row measures: a fresh data folder and a real process, stopped and removed afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use tally_client::cli::ConnectArgs;

use crate::limit::Limited;
use crate::metrics::Metrics;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Bank {
    program: PathBuf,
    dir: PathBuf,
    keep: bool,
    running: Option<Running>,
}

/// What `connect.json` says of a running bank.
#[derive(Clone, Debug, Deserialize)]
struct Running {
    pid: u32,
    metrics: Option<String>,
    /// All of them, where there are several.
    #[serde(default)]
    branches: Vec<Process>,
    registry: Option<Registry>,
}

#[derive(Clone, Debug, Deserialize)]
struct Registry {
    nodes: Vec<Process>,
}

/// One of several processes of a bank.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    metrics: Option<String>,
    /// Its data folder.
    dir: PathBuf,
}

impl Process {
    /// Its metrics now; empty where it does not answer.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.as_deref().and_then(|url| Metrics::fetch(url).ok()).unwrap_or_default()
    }

    /// Ends it as a crash would, and returns when it is gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        kill(self.pid)
    }

    /// What serves its folder by now, if that is another process.
    pub(crate) fn successor(&self) -> Option<Self> {
        let text = fs::read(self.dir.join("server.json")).ok()?;
        let file: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let pid = u32::try_from(file["pid"].as_u64()?).ok().filter(|&pid| pid != self.pid)?;
        let metrics = file["metrics"].as_str().map(|address| format!("http://{address}/metrics"));
        Some(Self { pid, metrics, dir: self.dir.clone() })
    }
}

/// How a bank is started.
#[derive(Clone, Debug)]
pub(crate) struct Start<'a> {
    /// `section.key=value`.
    pub(crate) set: Vec<String>,
    pub(crate) limited: Option<&'a Limited>,
    /// One has no registry.
    pub(crate) branches: u32,
    /// Nodes of the registry.
    pub(crate) nodes: u32,
}

impl Start<'_> {
    pub(crate) fn with_branches(self, branches: u32) -> Self {
        Self { branches, ..self }
    }

    pub(crate) fn with_nodes(self, nodes: u32) -> Self {
        Self { nodes, ..self }
    }
}

impl Bank {
    /// A bank in `dir`, which must not exist. Nothing is started yet.
    pub(crate) fn new(program: &Path, dir: PathBuf, keep: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { program: program.to_owned(), dir, keep, running: None })
    }

    /// Starts it and waits until it serves. Returns how long that took.
    pub(crate) fn up(&mut self, start: &Start<'_>) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let output = self.up_command(start).output().context("starting `tally up`")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("`tally up` ended with {}: {text}{}", output.status, self.last_log_lines());
        }
        let took = begun.elapsed();
        self.look_again()?;
        Ok(took)
    }

    /// `tally up` for this bank: it starts what does not run.
    pub(crate) fn up_command(&self, start: &Start<'_>) -> Command {
        let mut command = match start.limited {
            Some(limited) => limited.command(&self.program),
            None => Command::new(&self.program),
        };
        command.args(["up", "--detach", "--branches", &start.branches.to_string(), "--dir"]).arg(&self.dir);
        if start.branches > 1 {
            command.args(["--registry-nodes", &start.nodes.to_string()]);
        }
        for assignment in &start.set {
            command.arg("--set").arg(assignment);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Reads where everything is by now.
    pub(crate) fn look_again(&mut self) -> anyhow::Result<()> {
        let connect = fs::read(self.connect_file())?;
        self.running = Some(serde_json::from_slice(&connect).context("connect.json")?);
        Ok(())
    }

    /// Stops it in order.
    pub(crate) fn down(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        let output = command.arg("down").arg("--dir").arg(&self.dir).output().context("starting `tally down`")?;
        anyhow::ensure!(output.status.success(), "`tally down`: {}", String::from_utf8_lossy(&output.stderr));
        self.running = None;
        Ok(())
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        kill(self.pid()?)?;
        self.running = None;
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.running.as_ref().context("the bank is not running")?.pid)
    }

    /// All its processes: of a bank of several branches, the registry's as well.
    pub(crate) fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let mut pids: Vec<u32> = self.branches()?.iter().chain(self.nodes()?).map(|process| process.pid).collect();
        if pids.is_empty() {
            pids.push(self.pid()?);
        }
        Ok(pids)
    }

    /// Its branches, where there are several.
    pub(crate) fn branches(&self) -> anyhow::Result<&[Process]> {
        Ok(&self.running.as_ref().context("the bank is not running")?.branches)
    }

    /// The nodes of its registry.
    pub(crate) fn nodes(&self) -> anyhow::Result<&[Process]> {
        let running = self.running.as_ref().context("the bank is not running")?;
        Ok(running.registry.as_ref().map_or(&[], |registry| &registry.nodes))
    }

    /// Its metrics now; those of the first branch, where there are several; empty where it has none.
    pub(crate) fn metrics(&self) -> Metrics {
        let url = self.running.as_ref().and_then(|running| running.metrics.as_deref());
        url.and_then(|url| Metrics::fetch(url).ok()).unwrap_or_default()
    }

    /// How to reach it.
    pub(crate) fn connect(&self) -> ConnectArgs {
        ConnectArgs::from_file(self.connect_file())
    }

    /// Its data folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn connect_file(&self) -> PathBuf {
        self.dir.join("connect.json")
    }

    fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.dir.join("branch.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        if self.running.is_some() && self.down().is_err() {
            // It does not stop in order: it must not go on beside the next row.
            let _ = self.kill();
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// SIGKILL; returns when the process is gone.
fn kill(pid: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").arg("-KILL").arg(pid.to_string()).status()?;
    anyhow::ensure!(status.success(), "kill -KILL {pid}");
    let begun = Instant::now();
    while is_alive(pid) {
        anyhow::ensure!(begun.elapsed() < GONE_WITHIN, "process {pid} does not end");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether there is such a process that has not ended. A process whose first thread is gone still has its files open while
/// another one waits for the disk.
fn is_alive(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
            threads > 1 || !matches!(state, Some(b'Z' | b'X'))
        }
        Err(_) => false,
    }
}
