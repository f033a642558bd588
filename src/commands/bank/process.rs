//! A server of `tally up`: a real child process of the same program.
//!
//! Invariant: it is left running only on purpose. Whatever else ends `up`, the child is told to stop, and killed
//! if it does not.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tally_branch_server::server::RunFile;

use super::connect::reachable;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a server that is asked to stop may take: it writes a last checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one may take whose start has failed, before it is killed. What it acknowledged is durable either way.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an admin server may take to answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(1);
/// A recovery that takes longer than this gets a line on the terminal, and another each time again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A branch.
    Branch,
    /// A node of the registry.
    Registry,
}

impl Role {
    const fn subcommand(self) -> &'static str {
        match self {
            Self::Branch => "branch-server",
            Self::Registry => "registry",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Registry => "registry",
        }
    }

    /// Its configuration in its data folder.
    pub(crate) fn config_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.toml", self.name()))
    }

    /// Where it logs.
    pub(crate) fn log_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.name()))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    role: Role,
    dir: PathBuf,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts the server of `dir` with `settings` over its configuration file. Unless `detach`, it ends with us.
    pub(crate) fn start(role: Role, dir: &Path, settings: &[(String, String)], detach: bool) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(role.log_file(dir))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role.subcommand()).arg("--config").arg(role.config_file(dir)).arg("--dir").arg(dir);
        for (name, value) in settings {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        if detach {
            command.stdin(Stdio::null());
        } else {
            // The pipe ends when this process does, however it ends.
            command.arg("--stop-on-stdin-eof").stdin(Stdio::piped());
        }
        // In a process group of its own: Ctrl-C at the terminal is for us, and we stop it in order.
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("starting the {}", role.name()))?;
        Ok(Self { role, dir: dir.to_owned(), child: Some(child) })
    }

    /// Waits until it serves; recovery may take its time.
    pub(crate) fn wait_until_ready(&mut self) -> anyhow::Result<RunFile> {
        self.wait_until(|file| file.metrics.is_none_or(is_ready))
    }

    /// Waits until it takes connections. A node of the registry does before it belongs to one.
    pub(crate) fn wait_until_listening(&mut self) -> anyhow::Result<RunFile> {
        self.wait_until(|_| true)
    }

    fn wait_until(&mut self, is_so: impl Fn(&RunFile) -> bool) -> anyhow::Result<RunFile> {
        let child = self.child.as_mut().expect("there until it is stopped or left");
        let mut patience = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                let log = last_lines(&self.role.log_file(&self.dir));
                anyhow::bail!(
                    "the {} of {} ended at its start ({status}):\n{log}",
                    self.role.name(),
                    self.dir.display()
                );
            }
            match RunFile::read(&self.dir)? {
                Some(file) if file.pid == child.id() && is_so(&file) => return Ok(file),
                Some(_) | None => {}
            }
            if Instant::now() >= patience {
                patience += PATIENCE;
                println!("... the {} of {} reads its journal", self.role.name(), self.dir.display());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// It goes on without us.
    pub(crate) fn leave_running(mut self) {
        self.child = None;
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().expect("there until it is stopped or left");
        child.kill()?;
        child.wait()?;
        self.child = None;
        Ok(())
    }

    /// Tells it to stop and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().expect("there until it is stopped or left");
        let status = terminate(child, STOP_TIMEOUT)?;
        let name = self.role.name();
        let status = status.with_context(|| format!("the {name} has not ended after {STOP_TIMEOUT:?}"))?;
        self.child = None;
        let log = self.role.log_file(&self.dir);
        anyhow::ensure!(status.success(), "the {name} ended with {status}; see {}", log.display());
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && !matches!(terminate(child, GIVE_UP_TIMEOUT), Ok(Some(_)))
        {
            // The error that brought us here has been told; this one would only hide it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks `child` to end; `None` if it has not within `timeout`.
fn terminate(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    // It is ours and not waited for yet: the number is nobody else's.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
        // One that somebody has stopped could not end.
        kill_process(pid, Signal::CONT)?;
    }
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            None if begun.elapsed() < timeout => std::thread::sleep(POLL_INTERVAL),
            status => return Ok(status),
        }
    }
}

fn is_ready(metrics: SocketAddr) -> bool {
    http_get(metrics, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The answer of an admin server, status line and headers included.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&reachable(address), HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The end of the log, for the terminal of somebody whose bank did not start.
fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
