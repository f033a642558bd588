//! Link: the branch's connection to the registry's leader. Mutual TLS; the branch dials.
//!
//! ```text
//!   workers --gated queues--> gather --> frames --TLS--> registry
//!   workers <==lane.two_phase==  take  <-- frames <--TLS-- registry
//! ```
//!
//! It is found by asking: any node answers with a welcome (the leader) or with where the leader is. A link that is
//! silent for [`SILENCE_MAX`] is given up, and another is made, after a pause that grows and varies.
//!
//! **Invariant:** what the registry sends waits in bounded queues; while they are full, nothing is read.

mod calls;
mod dial;
mod identity;
mod incoming;
mod outgoing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use crate::bell::Bell;
use crate::branch::LinkParts;
use crate::journal::Journal;
use crate::scheduling;
use crate::two_phase::TwoPhase;

use calls::Answers;
pub use dial::LinkTls;
pub use identity::{Identity, IdentityError};
use incoming::Incoming;
use outgoing::Outgoing;

/// How long a link may be silent: eight heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often each side says that it is there.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long one attempt to reach a node may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the link is told.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Nodes of the registry, `host:port`; at least one.
    pub endpoints: Vec<String>,
    /// How to prove who we are, and to check who they are.
    pub tls: LinkTls,
    /// The data folder, for the identity.
    pub dir: PathBuf,
    /// Where clients reach this branch.
    pub advertised: SocketAddr,
}

/// The bell that wakes the link's task.
#[derive(Debug)]
pub struct LinkBell {
    /// Rung by workers and by the journal.
    pub bell: Bell,
    notify: Arc<Notify>,
}

impl Default for LinkBell {
    fn default() -> Self {
        let notify = Arc::new(Notify::new());
        let ringing = notify.clone();
        Self { bell: Bell::new(move || ringing.notify_one()), notify }
    }
}

/// The running link.
#[derive(Debug)]
pub struct Link {
    thread: Option<JoinHandle<()>>,
    stop: Arc<Notify>,
    stopping: Arc<AtomicBool>,
}

impl Link {
    /// Starts a thread that keeps the branch linked.
    ///
    /// # Errors
    /// When the identity cannot be read or made, or the system has no thread left.
    pub fn start(options: LinkOptions, parts: LinkParts, journal: Arc<Journal>) -> anyhow::Result<Self> {
        let identity = Identity::open(&options.dir)?;
        let (stop, stopping) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (told, is_stopping) = (stop.clone(), stopping.clone());
        let thread = std::thread::Builder::new().name("link".into()).spawn(move || {
            scheduling::prompt();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a thread that is being started can make its runtime");
            let LinkParts { shared, says, begins, bell, lanes, auditor } = parts;
            let answers = Answers::new(auditor, bell.bell.clone());
            let mut keeper = Keeper {
                incoming: Incoming::new(shared.clone(), lanes, answers.clone()),
                outgoing: Outgoing::new(shared.clone(), journal, (says, begins), bell, answers),
                options,
                identity,
                shared,
                leader: None,
                stopping: is_stopping,
            };
            runtime.block_on(async {
                tokio::select! {
                    () = keeper.keep() => {}
                    () = told.notified() => {}
                }
            });
            keeper.shared.set_linked(false);
        })?;
        Ok(Self { thread: Some(thread), stop, stopping })
    }

    /// Ends the link: transfers between branches are refused from here on.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic aborts the process, so there is no other outcome than an end.
            let _ = thread.join();
        }
    }
}

/// Why a link ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("silent for too long")]
    Silent,
    #[error("the registry closed the link")]
    Closed,
    #[error("this node does not lead; the leader is {0:?}")]
    NotLeader(String),
    #[error("refused by the registry: {0}")]
    Refused(String),
    #[error("the registry's clock is more than 500 ms ahead of ours, and is not followed")]
    ClockAhead,
    #[error("not what a registry says: {0}")]
    Protocol(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Makes one link after the other.
struct Keeper {
    options: LinkOptions,
    identity: Identity,
    shared: Arc<TwoPhase>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Where the leader is, if a node said so.
    leader: Option<String>,
    stopping: Arc<AtomicBool>,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut pause = PAUSE_MIN;
        let mut next = 0;
        while !self.stopping.load(Ordering::Relaxed) {
            let endpoints = &self.options.endpoints;
            let endpoint = self.leader.take().unwrap_or_else(|| endpoints[next % endpoints.len()].clone());
            let end = self.link_once(&endpoint, &mut pause).await;
            let was_linked = self.shared.is_linked();
            self.shared.set_linked(false);
            match end {
                LinkEnd::NotLeader(leader) if !leader.is_empty() && leader != endpoint => {
                    tracing::debug!(stage = "link", %endpoint, %leader, "redirected");
                    self.leader = Some(leader);
                }
                end => {
                    if was_linked || pause == PAUSE_MIN {
                        tracing::warn!(stage = "link", %endpoint, %end, "not linked to the registry: local payments go on");
                    } else {
                        tracing::debug!(stage = "link", %endpoint, %end, "not linked to the registry");
                    }
                    next += 1;
                }
            }
            // Half of it by chance, so that many branches do not come back at the same moment.
            tokio::time::sleep(pause / 2 + part_of(pause / 2)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Links to one node and serves the link to its end.
    async fn link_once(&mut self, endpoint: &str, pause: &mut Duration) -> LinkEnd {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.dial(endpoint)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(end)) => return end,
            Err(_) => return LinkEnd::TimedOut,
        };
        *pause = PAUSE_MIN;
        self.shared.set_linked(true);
        self.shared.doubts.hurry(self.shared.now(crate::clock::wall()));
        tracing::info!(stage = "link", %endpoint, "linked to the registry");
        let (reader, writer): (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>) =
            tokio::io::split(stream);
        // Both in one task: when one ends, so does the other.
        let end = tokio::select! {
            end = self.incoming.run(reader) => end,
            end = self.outgoing.run(writer) => end,
        };
        if let LinkEnd::NotLeader(leader) = &end {
            tracing::info!(stage = "link", %endpoint, %leader, "the registry has another leader");
        }
        end
    }

    async fn dial(&mut self, endpoint: &str) -> Result<TlsStream<TcpStream>, LinkEnd> {
        let mut stream = dial::connect(endpoint, &self.options.tls).await?;
        let greeting = dial::Greeting {
            branch: self.shared.branch(),
            identity: &mut self.identity,
            routes_version: self.shared.routes_version(),
            advertised: self.options.advertised,
            now: self.shared.now(crate::clock::wall()),
        };
        let stamp = dial::greet(&mut stream, greeting).await?;
        // A registry whose stamps are not followed would see its prepares dropped: better not to begin.
        if !self.shared.observe(stamp, crate::clock::wall()) {
            return Err(LinkEnd::ClockAhead);
        }
        Ok(stream)
    }
}

/// A random part of `time`.
fn part_of(time: Duration) -> Duration {
    let mut random = [0; 4];
    getrandom::fill(&mut random).expect("the system has random numbers");
    time.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}
