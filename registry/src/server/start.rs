//! The process: started in order, and stopped in the opposite one.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tally_journal::{Disk, RealDisk};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::{accept, health, leader, membership, node::Node, proposer};
use crate::config::Config;
use crate::link::Tls;
use crate::log::{self, Identity, LogHandle, LogOptions, LogStore};

/// How long the tasks may take to end before the process does without them: what was acknowledged is durable.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that is being served.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    run_file: RunFile,
    _lock: File,
}

/// `server.json`: the process of a folder and the ports that it chose. There while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// The process id.
    pub pid: u32,
    /// Where nodes, branches and operators connect.
    pub address: SocketAddr,
    /// Where the admin server listens.
    pub metrics: Option<SocketAddr>,
}

impl RunFile {
    fn path(dir: &Path) -> PathBuf {
        dir.join("server.json")
    }

    /// What the process of `dir` said last; `None` when there is no such file, or only half of one.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(dir)).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("numbers and addresses are always JSON");
        let tmp = dir.join("server.json.tmp");
        std::fs::write(&tmp, text)?;
        std::fs::rename(tmp, Self::path(dir))
    }
}

/// Opens the log of `options`.
///
/// # Errors
/// When it cannot be used.
fn open_log(options: &LogOptions) -> anyhow::Result<(LogStore, LogHandle)> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
    Ok(log::open(disk, options)?)
}

/// Makes the log of a new node, and opens it.
///
/// # Errors
/// When there is one, or the disk fails.
pub(super) fn create_log(options: &LogOptions, identity: Identity) -> anyhow::Result<(LogStore, LogHandle)> {
    log::create(&RealDisk::new(true), options, identity)?;
    open_log(options)
}

/// 128 random bits that are not 0.
fn random() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(u128::from_le_bytes(bytes) | 1)
}

/// Starts what a node of a registry does beside answering.
pub(super) fn spawn_tasks(node: &Arc<Node>) {
    let running = node.running().expect("it has joined").clone();
    tokio::spawn(proposer::run(node.clone(), running.clone()));
    tokio::spawn(leader::run(node.clone(), running.clone()));
    tokio::spawn(health::run(node.clone(), running));
}

impl Server {
    /// Starts to serve. Blocks while the log is read.
    ///
    /// # Errors
    /// When the folder is in use, or something in it, a port, or a file cannot be used.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let mut options = config.node.clone();
        let dir = options.dir.clone();
        let tls = Tls::load(&config.cert_file, &config.key_file, &config.ca_file)
            .context("node.cert_file, node.key_file and node.ca_file: the certificate cannot be used")?;
        std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
        lock.try_lock().with_context(|| format!("{} is in use by another process", dir.display()))?;
        let listener = TcpListener::bind(config.address).await.with_context(|| format!("{}", config.address))?;
        let address = listener.local_addr()?;
        if options.endpoint.is_empty() {
            options.endpoint = address.to_string();
        }
        let known = log::identity_of(&RealDisk::new(true), &options.log.directory)?;
        if let Some(known) = known.filter(|known| known.node_id != options.node_id) {
            anyhow::bail!("{} is the folder of node {}, not {}", dir.display(), known.node_id, options.node_id);
        }
        let incarnation = match known {
            Some(known) => known.incarnation,
            None => random()?,
        };
        let boot = random()? as u64;
        let node = Arc::new(Node::new(options, tls, incarnation, boot));
        let metrics = match config.metrics_address {
            None => None,
            Some(wanted) => {
                let listener = TcpListener::bind(wanted).await.with_context(|| format!("{wanted}"))?;
                let address = listener.local_addr()?;
                tokio::spawn(crate::admin::run(node.clone(), listener));
                Some(address)
            }
        };
        match known {
            Some(identity) => {
                let (store, handle) = open_log(&node.options.log)?;
                node.start_raft(store, handle, identity).await?;
                spawn_tasks(&node);
            }
            None if node.options.found => {
                let identity = Identity { cluster_id: random()?, node_id: node.options.node_id, incarnation };
                let (store, handle) = create_log(&node.options.log, identity)?;
                node.start_raft(store, handle, identity).await?;
                spawn_tasks(&node);
            }
            None => tracing::info!(stage = "raft", "waiting to be joined to a registry"),
        }
        let run_file = RunFile { pid: std::process::id(), address, metrics };
        run_file.write(&dir)?;
        tokio::spawn(accept::run(node.clone(), listener));
        tracing::info!(
            node = node.options.node_id,
            %address,
            endpoint = node.options.endpoint,
            metrics = metrics.map(|address| address.to_string()),
            "serving"
        );
        Ok(Self { node, run_file, _lock: lock })
    }

    /// Where nodes, branches and operators connect.
    pub fn address(&self) -> SocketAddr {
        self.run_file.address
    }

    /// The node, for tests and metrics.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Waits until the node itself has to stop.
    pub async fn failed(&self) {
        self.node.stopped().await;
    }

    /// Hands leadership over where there is somebody to take it, ends every task, and closes the log.
    pub async fn stop(self) {
        tracing::info!("stopping");
        if let Some(running) = self.node.running() {
            let leads = self.node.shared.lock().leading.is_some();
            let voters = running.raft.server_metrics().borrow().membership_config.membership().voter_ids().count();
            if leads
                && voters > 1
                && let Err(error) = membership::hand_over(&self.node, running, None).await
            {
                tracing::warn!(stage = "leader", %error, "leadership was not handed over: the others elect");
            }
            self.node.stopping.send_replace(true);
            if tokio::time::timeout(STOP_TIMEOUT, running.raft.shutdown()).await.is_err() {
                tracing::warn!(stage = "raft", "raft did not end in time");
            }
            running.log.stop();
        }
        self.node.stopping.send_replace(true);
        // One that was killed leaves it behind as well.
        let _ = std::fs::remove_file(RunFile::path(&self.node.options.dir));
        tracing::info!("stopped");
    }
}

/// Installs the process's logger. A second call does nothing.
fn init_logs(config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(true);
    // An error says that there is a logger already.
    let _ = match config.logs_json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.try_init(),
    };
}

/// Resolves when standard input ends: the parent process is gone. Reading it blocks, so a thread does.
fn stdin_eof() -> io::Result<oneshot::Receiver<()>> {
    let (ended, eof) = oneshot::channel::<()>();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // Until the end or an error; what comes in between means nothing.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(ended);
    })?;
    Ok(eof)
}

/// Serves until SIGTERM or SIGINT, or, where `stop_on_stdin_eof`, the end of standard input.
///
/// # Errors
/// As [`Server::start`], and when the log fails while it serves.
pub fn run(config: &Config, stop_on_stdin_eof: bool) -> anyhow::Result<()> {
    init_logs(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Server::start(config).await?;
        let eof = stop_on_stdin_eof.then(stdin_eof).transpose()?;
        let eof = async {
            match eof {
                // An error says that the reading thread is gone, as it is at the end of the input.
                Some(eof) => drop(eof.await),
                None => std::future::pending().await,
            }
        };
        let has_failed = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = eof => false,
            () = server.failed() => true,
        };
        tokio::select! {
            () = server.stop() => {}
            _ = terminate.recv() => tracing::warn!("told again: ending at once; what was acknowledged is durable"),
            _ = interrupt.recv() => tracing::warn!("told again: ending at once; what was acknowledged is durable"),
        }
        anyhow::ensure!(!has_failed, "raft has ended; the log lines say why");
        Ok(())
    });
    runtime.shutdown_background();
    ended
}
