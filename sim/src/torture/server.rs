//! The real server as a child process: made, started, killed, started again on the same folder.
//!
//! **Invariant:** no server outlives this process: each is killed when its handle is dropped, and by the
//! kernel if we are killed ourselves.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tally_client::{Client, ClientOptions, ConnectFile, RetryPolicy};

/// A server that has not come up by then never will.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(5);
/// How much of the server's log is shown when it does not come up.
const LOG_TAIL_LEN_BYTES: u64 = 4_096;

/// Settings under which much happens in little time: small files, checkpoints and id files all the time.
const SETTINGS: &[(&str, &str)] = &[
    ("TALLY_JOURNAL_SEGMENT_LEN_BYTES", "4194304"),
    ("TALLY_JOURNAL_FREE_BYTES_MIN", "0"),
    ("TALLY_CHECKPOINT_INTERVAL_S", "1"),
    ("TALLY_CHECKPOINT_INTERVAL_BYTES", "2097152"),
    ("TALLY_IDS_GENERATION_LEN_MAX", "4096"),
    ("TALLY_WORKERS_COUNT", "2"),
    ("TALLY_ACCOUNTS_MAX", "10000"),
    ("TALLY_HOLDS_MAX", "100000"),
];

/// Where a server lives: its folder, its port and its log.
#[derive(Debug)]
pub(crate) struct Site {
    program: PathBuf,
    dir: PathBuf,
    log: PathBuf,
    address: SocketAddr,
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Site {
    /// Makes a bank in the new folder `dir`, started and stopped once; its servers log into the file `log`.
    pub(crate) fn create(dir: &Path, log: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        // A port that is free now; nobody else takes it in the moments while the server is down.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let site = Self { program, dir: dir.to_owned(), log: log.to_owned(), address };
        site.tool(&["up", "--branches", "1", "--detach"])?;
        if let Err(error) = site.tool(&["down"]) {
            site.kill_detached();
            return Err(error);
        }
        Ok(site)
    }

    /// The server of `up --detach` is no child of ours: its number is all that we have.
    fn kill_detached(&self) {
        let file = fs::read(self.dir.join("connect.json")).unwrap_or_default();
        let pid = serde_json::from_slice::<serde_json::Value>(&file).ok().and_then(|file| file.get("pid")?.as_i64());
        if let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            // An error means that it is gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    fn tool(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.command()?;
        command.args(arguments).arg("--dir").arg(&self.dir);
        let status = command.status().with_context(|| format!("run {command:?}"))?;
        ensure!(status.success(), "`tally {}` ended with {status}\n{}", arguments.join(" "), self.log_tail());
        Ok(())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.envs(SETTINGS.iter().copied()).env("TALLY_LISTEN_ADDRESS", self.address.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Starts the server; it may still be recovering when this returns.
    pub(crate) fn start(&self) -> anyhow::Result<Server> {
        let mut command = self.command()?;
        command.arg("branch-server").arg("--config").arg(self.dir.join("branch.toml"));
        die_with_us(&mut command);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Server { child })
    }

    /// A client that does not try again by itself.
    pub(crate) fn client(&self, connections: usize) -> anyhow::Result<Client> {
        let mut info = ConnectFile::read(&self.dir.join("connect.json"))?.connect_info(None)?;
        info.endpoint = self.address.to_string();
        let options = ClientOptions { connections, deadline: Duration::from_secs(20), retry: RetryPolicy::NEVER };
        Ok(Client::new(info, options)?)
    }

    /// Waits until the server takes logins. Returns how long that took.
    pub(crate) async fn wait_until_up(&self, server: &mut Server, client: &Client) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status} instead of recovering\n{}", self.log_tail());
            }
            if client.status().await.is_ok() {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < START_PATIENCE, "the server does not come up\n{}", self.log_tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The end of the servers' log.
    pub(crate) fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let len = fs::metadata(&self.log)?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_LEN_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

/// Has the kernel kill what `command` starts when the thread that starts it has ended.
pub(crate) fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call, and touches no memory.
    unsafe {
        command.pre_exec(|| {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(io::Error::from)
        });
    }
}

impl Server {
    /// `kill -9`. Returns once the process is gone.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server had ended by itself, with {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the process to end by itself; `None` if it does not.
    pub(crate) async fn wait_for_end(&mut self, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(Some(status)),
                None if begun.elapsed() > patience => return Ok(None),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
