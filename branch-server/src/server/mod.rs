//! The process: everything put together, started in order, and stopped in the opposite one.
//!
//! ```text
//!   start:  certificates -> folder locked -> users -> admin port -> branch recovered -> client port, sessions -> ready
//!   stop:   not ready -> sessions drained -> branch stopped (all durable) -> folder unlocked
//! ```
//!
//! **Invariant:** one server per data folder: the lock is taken before anything in the folder is read
//! and kept until the last thread has ended.

mod collect;
mod folder;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;

use crate::admin::Admin;
use crate::auth::{Authenticator, UsersWatch};
use crate::branch::{Branch, BranchOptions};
use crate::config::Config;
use crate::link::{Link, LinkOptions, LinkTls};
use crate::session::{SessionBells, SessionStats, Sessions, SessionsStart};
use crate::{acceptor, tls};

pub use folder::{FolderLock, RunFile};

/// What the admin server shows, once it is there.
#[derive(Default)]
struct Shown {
    branch: OnceLock<Arc<Branch>>,
    sessions: OnceLock<Arc<SessionStats>>,
}

/// A branch that is being served.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    admin: Option<Admin>,
    sessions: Sessions,
    branch: Arc<Branch>,
    link: Option<Link>,
    // Dropped last, in this order.
    _users_watch: UsersWatch,
    run_file: RunFile,
    _lock: FolderLock,
}

impl Server {
    /// Starts to serve the configured folder. Blocks while the journal is recovered.
    ///
    /// # Errors
    /// When the folder is in use, or something in it, a port, or a file cannot be used.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        tls::install_crypto_provider();
        let dir = &config.branch.dir;
        let tls = tls::server_config(&config.tls.cert_file, &config.tls.key_file)
            .context("tls.cert_file and tls.key_file: the certificate cannot be used")?;
        let lock = FolderLock::take(dir)?;
        // Its process id may be somebody else's by now, and whoever finds the lock taken goes by it.
        RunFile::forget(dir)?;
        let auth = Authenticator::open(dir, config.branch.id, &config.limits)
            .context("users (the first one is added with `tally user add`)")?;
        let auth = Arc::new(auth);
        let shown = Arc::new(Shown::default());
        let admin = start_admin(config, &shown)?;

        let bells = SessionBells::new(config.listen.session_threads);
        let (branch, receivers) = Branch::start(BranchOptions::of(config), bells.bells())?;
        let branch = Arc::new(branch);
        // Behind the recovery: a folder that cannot be served has bound no port for clients.
        let listeners = acceptor::bind(config.listen.address, config.listen.session_threads)
            .with_context(|| format!("listening at {}", config.listen.address))?;
        let address = listeners[0].local_addr()?;
        let users_watch = UsersWatch::start(auth.clone())?;
        let sessions = Sessions::start(SessionsStart {
            branch: config.branch.id,
            limits: config.limits.clone(),
            listeners,
            tls,
            auth,
            backend: branch.clone(),
            bells,
            receivers,
        })?;
        let link = start_link(config, &branch, address)?;
        // Nobody else sets them.
        let _ = shown.branch.set(branch.clone());
        let _ = shown.sessions.set(sessions.stats());
        if let Some(admin) = &admin {
            admin.set_ready(true);
        }
        let run_file = RunFile::write(dir, address, admin.as_ref().map(Admin::address))?;
        tracing::info!(
            branch = config.branch.id.get(),
            %address,
            metrics = admin.as_ref().map(|admin| admin.address().to_string()),
            session_threads = config.listen.session_threads,
            workers = config.workers.count,
            "serving"
        );
        Ok(Self { address, admin, sessions, branch, link, _users_watch: users_watch, run_file, _lock: lock })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin server listens.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Stops accepting, refuses further requests, finishes and answers what is in flight, makes all of it
    /// durable, and ends every thread.
    pub fn stop(self) {
        tracing::info!("stopping: finishing what is in flight");
        if let Some(admin) = &self.admin {
            admin.set_ready(false);
        }
        self.sessions.drain();
        self.sessions.join();
        if let Some(link) = self.link {
            link.stop();
        }
        // The admin server's page holds on to the branch.
        drop(self.admin);
        match Arc::into_inner(self.branch) {
            Some(branch) => branch.stop(),
            // What was acknowledged is durable in any case; a restart replays it.
            None => tracing::error!("the branch is still in use; ending without a last checkpoint"),
        }
        self.run_file.remove();
        tracing::info!("stopped");
    }
}

fn start_link(config: &Config, branch: &Branch, advertised: SocketAddr) -> anyhow::Result<Option<Link>> {
    let (Some(registry), Some((parts, journal))) = (&config.registry, branch.take_link()) else { return Ok(None) };
    let tls = LinkTls::load(&registry.ca_file, &registry.cert_file, &registry.key_file, &registry.server_name)
        .context("registry.ca_file, registry.cert_file and registry.key_file: the certificate cannot be used")?;
    let options =
        LinkOptions { endpoints: registry.endpoints.clone(), tls, dir: config.branch.dir.clone(), advertised };
    Ok(Some(Link::start(options, parts, journal)?))
}

fn start_admin(config: &Config, shown: &Arc<Shown>) -> anyhow::Result<Option<Admin>> {
    let Some(address) = config.metrics_address else { return Ok(None) };
    let shown = shown.clone();
    let collect = move |page: &mut crate::metrics::Page| {
        if let Some(branch) = shown.branch.get() {
            collect::branch(page, branch);
        }
        if let Some(sessions) = shown.sessions.get() {
            collect::sessions(page, sessions);
        }
    };
    let admin = Admin::start(address, Arc::new(collect)).with_context(|| format!("listening at {address}"))?;
    Ok(Some(admin))
}

/// Serves until the process is told to stop: by SIGTERM, SIGINT, or, where `stop_on_stdin_eof`, by the end
/// of standard input (how a parent process makes sure that its child does not outlive it).
///
/// # Errors
/// As [`Server::start`].
pub fn run(config: &Config, stop_on_stdin_eof: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is started, so that a signal during a long recovery is not lost.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let server = Server::start(config)?;
    let eof = stop_on_stdin_eof.then(stdin_eof).transpose()?;
    runtime.block_on(async {
        let eof = async {
            match eof {
                // An error says that the reading thread is gone, as it is at the end of the input.
                Some(eof) => drop(eof.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "told to stop"),
            () = eof => tracing::info!("standard input ended: told to stop"),
        }
    });
    let stopping = std::thread::spawn(move || server.stop());
    runtime.block_on(async {
        let stopped = async {
            while !stopping.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = stopped => {}
            name = signals.next() => {
                tracing::warn!(signal = name, "told again: ending at once; what was acknowledged is durable");
                std::process::exit(1);
            }
        }
    });
    stopping.join().map_err(|_| anyhow::anyhow!("stopping failed"))
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn stdin_eof() -> std::io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (ended, eof) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    })?;
    Ok(eof)
}

/// Makes a development data folder ready: certificates, and the token key.
///
/// # Errors
/// When the folder cannot be written.
pub fn prepare_development_folder(dir: &Path) -> std::io::Result<tls::dev::DevCertificates> {
    std::fs::create_dir_all(dir)?;
    tls::dev::create(&dir.join("tls"))
}
