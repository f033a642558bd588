//! One process of the bank, in its own network.
//!
//! **Invariant:** none outlives this process: each is killed when its handle is dropped, and by the kernel if we are killed
//! ourselves.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::net::{Namespace, Site};
use crate::torture::server::die_with_us;

/// Where every process takes connections, and where it tells of itself.
const PORT: u16 = 7_400;
const METRICS_PORT: u16 = 7_401;
/// How long a metrics page may take.
const PAGE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a process that is told to end may take.
const END_PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    site: Site,
    namespace: Namespace,
    dir: PathBuf,
    child: Option<Child>,
    is_stopped: bool,
}

impl Process {
    /// The process at `site`, with its data in `dir`; not started.
    pub(crate) fn new(site: Site, namespace: Namespace, dir: &Path) -> Self {
        Self { site, namespace, dir: dir.to_owned(), child: None, is_stopped: false }
    }

    /// Where.
    pub(crate) fn site(&self) -> Site {
        self.site
    }

    /// Where others reach it.
    pub(crate) fn endpoint(site: Site) -> String {
        format!("{}:{PORT}", site.address())
    }

    /// Whether it is there and can move.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && !self.is_stopped
    }

    /// Starts it with `settings`; it may not serve yet when this returns.
    pub(crate) fn start(&mut self, settings: &[String]) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        let (role, address, metrics) = match self.site {
            Site::Node(_) => ("registry", "node.address", "node.metrics_address"),
            Site::Branch(_) => ("branch-server", "listen.address", "metrics.address"),
            Site::Clients => bail!("the clients are this process"),
        };
        command.args([role, "--dir"]).arg(&self.dir);
        let place = [
            format!("{address}={}", Self::endpoint(self.site)),
            format!("{metrics}={}:{METRICS_PORT}", self.site.address()),
        ];
        for setting in place.iter().chain(settings) {
            command.arg("--set").arg(setting);
        }
        self.namespace.enter(&mut command);
        die_with_us(&mut command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("start {command:?}"))?);
        self.is_stopped = false;
        Ok(())
    }

    /// `kill -9`. Returns once it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.check()?;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        self.is_stopped = false;
        Ok(())
    }

    /// SIGTERM: it ends in order.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let Some(child) = &mut self.child else { return Ok(()) };
        let begun = Instant::now();
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => break,
                Some(status) => bail!("{} was told to end, and ended with {status}", self.site),
                None if begun.elapsed() > END_PATIENCE => bail!("{} does not end", self.site),
                None => tokio::time::sleep(LOOK).await,
            }
        }
        self.child = None;
        Ok(())
    }

    /// SIGSTOP: it hangs; or SIGCONT: it goes on.
    pub(crate) fn freeze(&mut self, is_stopped: bool) -> anyhow::Result<()> {
        self.is_stopped = is_stopped && self.child.is_some();
        self.signal(if is_stopped { Signal::STOP } else { Signal::CONT })
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("{} has ended by itself, with {status}; see {}", self.site, self.dir.join("log").display());
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill_process(Pid::from_child(child), signal).with_context(|| format!("{signal:?} to {}", self.site))
    }

    /// A value of its metrics page, `None` while it does not answer or has no such metric.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        if !self.is_running() {
            return None;
        }
        let page = self.get("/metrics").ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
    }

    /// Whether it says that it serves.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_running() && self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let address = SocketAddr::from((self.site.address(), METRICS_PORT));
        let mut stream = TcpStream::connect_timeout(&address, PAGE_TIMEOUT)?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bank\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
