//! `tally up`: a whole development bank in a folder. The branch is a real child process of the same
//! program, reached over real TLS; this process is only its first client.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tally_branch_server::server::{FolderLock, RunFile};

use super::dev_bank::{self, ConnectFile};
use super::{down, prompt};

/// Starts a development bank: makes the folder on the first start, recovers it on later ones
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Data folder
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
    /// Leave the bank running and return
    #[arg(long)]
    detach: bool,
    /// Port for clients; by default the one that the folder had before, or a free one
    #[arg(long)]
    port: Option<u16>,
    /// Overrides one configuration key of the branch
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    assignments: Vec<String>,
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long the folder's last server may take to let go of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// A recovery that takes longer than this gets a line on the terminal, and another each time again.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("{}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    anyhow::ensure!(
        FolderLock::try_take(&dir)?.is_some(),
        "a bank is running in {} already; its connect.json says where",
        dir.display()
    );
    let is_new = ConnectFile::read(&dir)?.is_none_or(|file| file.accounts.is_empty());
    let users = dev_bank::prepare(&dir)?;
    let mut bank = Bank::start(&dir, &args)?;
    let run_file = bank.wait_until_ready()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let file = runtime.block_on(dev_bank::publish(&dir, &run_file, &users))?;
    introduce(&dir, &file, is_new);
    if args.detach {
        bank.leave_running();
        println!("Stop it with `tally down --dir {}`.", args.dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let client = runtime.block_on(file.client())?;
    prompt::run(&runtime, &client, &file)?;
    client.close();
    bank.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn introduce(dir: &Path, file: &ConnectFile, is_new: bool) {
    let what = if is_new { "A new bank" } else { "The bank" };
    println!("{what} serves at {} (TLS 1.3), process {}.", file.endpoint, file.pid);
    if let Some(metrics) = &file.metrics {
        println!("Metrics: {metrics}");
    }
    println!("Log in with these users (they are in {}, too):", ConnectFile::path(dir).display());
    for user in &file.users {
        println!("  {:<8} {}  {}", user.name, user.password, user.role);
    }
}

/// The child process; stopped when dropped, unless it was left running.
struct Bank {
    dir: PathBuf,
    child: Option<Child>,
}

impl Bank {
    fn start(dir: &Path, args: &Args) -> anyhow::Result<Self> {
        let log_path = dir.join("branch.log");
        let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("branch-server").arg("--config").arg(dir.join("branch.toml"));
        command.arg("--set").arg(format!("listen.address=127.0.0.1:{}", choose_port(dir, args.port)?));
        for assignment in &args.assignments {
            command.arg("--set").arg(assignment);
        }
        if !args.detach {
            // The pipe ends when this process does, however it ends.
            command.arg("--stop-on-stdin-eof").stdin(Stdio::piped());
        } else {
            command.stdin(Stdio::null());
        }
        // In a process group of its own: Ctrl-C at the terminal is for us, and we stop it in order.
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("starting the branch")?;
        Ok(Self { dir: dir.to_owned(), child: Some(child) })
    }

    /// Waits until the child serves; recovery may take its time.
    fn wait_until_ready(&mut self) -> anyhow::Result<RunFile> {
        let child = self.child.as_mut().expect("there until it is stopped or left");
        let mut patience = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                anyhow::bail!(
                    "the branch ended at its start ({status}):\n{}",
                    last_lines(&self.dir.join("branch.log"))
                );
            }
            match RunFile::read(&self.dir)? {
                Some(file) if file.pid == child.id() && file.metrics.is_none_or(is_ready) => return Ok(file),
                Some(_) | None => {}
            }
            if Instant::now() >= patience {
                patience += PATIENCE;
                println!("... the branch reads its journal");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn leave_running(mut self) {
        self.child = None;
    }

    fn stop(mut self) -> anyhow::Result<()> {
        println!("stopping ...");
        down::stop(&self.dir, STOP_TIMEOUT)?;
        if let Some(mut child) = self.child.take() {
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "the branch ended with {status}; see branch.log");
        }
        Ok(())
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ends it by the end of its standard input; an error was reported before we came here.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// The port asked for; else the one that clients of this folder know, if it is free; else 0 for any.
fn choose_port(dir: &Path, wanted: Option<u16>) -> anyhow::Result<u16> {
    if let Some(port) = wanted {
        return Ok(port);
    }
    let before = ConnectFile::read(dir)?.and_then(|file| file.endpoint.parse::<SocketAddr>().ok());
    let is_free = |address: &SocketAddr| tally_branch_server::acceptor::bind(*address, 1).is_ok();
    Ok(before.filter(is_free).map_or(0, |address| address.port()))
}

fn is_ready(metrics: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// The end of the log, for the terminal of somebody whose bank did not start.
fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Whether a person sits at the other end.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
