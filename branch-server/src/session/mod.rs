//! Sessions: TLS records in, requests out; replies in, TLS records out.
//!
//! ```text
//!  session thread (tokio, current thread)
//!    accept ---> one task per connection: read, split frames, push into intake; write what is outbound
//!                     ^
//!                     | wakes each connection once per round
//!    dispatcher ------' takes the replies that are durable and appends them to their sessions' outbound
//!    sweeper            looks at deadlines, changed users and draining a few times a second
//! ```
//!
//! The cost of TLS is per record and per system call, not per byte, so both directions coalesce: a read
//! takes all there is, and a write carries every reply of a round. Nothing on the way of a payment
//! allocates in steady state or takes a lock that is shared with another session thread.
//!
//! **Invariant:** what one peer can make us hold is bounded (see [`crate::limits`]): requests by
//! `in_flight_max`, unsent replies by `OUTBOUND_LEN_BYTES_MAX`, half a frame by its length and deadline.
//! A peer that is over a bound is not read from, which TCP tells it.

mod connection;
mod conversation;
mod dispatch;
mod gather;
mod mailbox;
mod ringer;
mod stats;
mod sweep;
mod table;
mod thread;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::ServerConfig;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::{BranchId, Lsn, message};
use tokio::sync::Notify;

use crate::auth::Authenticator;
use crate::bell::Bell;
use crate::intake::Intake;
use crate::limits::SessionLimits;
use crate::replies::ReplyReceiver;
use crate::two_phase;

pub use stats::{CloseReason, SessionStats, ThreadStats};

/// What sessions need of the engine behind them.
pub trait Backend: Send + Sync + 'static {
    /// Where requests go.
    fn intake(&self) -> &Intake;
    /// How far the journal is durable.
    fn durable(&self) -> DurableLsn;
    /// How the branch is. The sessions fill in their own number.
    fn status(&self) -> message::Status;
    /// The branches of the bank, if this one has a registry.
    fn routes(&self) -> Option<two_phase::Routes>;
    /// The oldest position that the feed still holds.
    fn feed_first(&self) -> Lsn;
}

/// The bells of the session threads, made before the engine, which rings them.
#[derive(Debug)]
pub struct SessionBells {
    bells: Vec<Bell>,
    notifies: Vec<Arc<Notify>>,
}

impl SessionBells {
    /// One bell for each of `threads` session threads.
    pub fn new(threads: usize) -> Self {
        let notifies: Vec<_> = (0..threads).map(|_| Arc::new(Notify::new())).collect();
        let bell = |notify: &Arc<Notify>| {
            let notify = notify.clone();
            Bell::new(move || notify.notify_one())
        };
        Self { bells: notifies.iter().map(bell).collect(), notifies }
    }

    /// The bells, by session thread.
    pub fn bells(&self) -> &[Bell] {
        &self.bells
    }
}

/// What all session threads share.
pub(crate) struct Shared {
    pub(crate) branch: BranchId,
    pub(crate) limits: SessionLimits,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) tls: tokio_rustls::TlsAcceptor,
    pub(crate) draining: AtomicBool,
    /// Connections, and those of them that have not logged in.
    pub(crate) connections: AtomicUsize,
    pub(crate) unauthenticated: AtomicUsize,
    /// Bytes of large frames that are half received.
    pub(crate) gathering: AtomicUsize,
    pub(crate) stats: Arc<SessionStats>,
}

/// The running session threads.
pub struct Sessions {
    shared: Arc<Shared>,
    /// Ends the accepting, per thread.
    stops: Vec<Arc<Notify>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What [`Sessions::start`] needs.
pub struct SessionsStart {
    /// This branch.
    pub branch: BranchId,
    /// Bounds.
    pub limits: SessionLimits,
    /// One per session thread.
    pub listeners: Vec<TcpListener>,
    /// TLS.
    pub tls: Arc<ServerConfig>,
    /// Who may log in.
    pub auth: Arc<Authenticator>,
    /// The engine.
    pub backend: Arc<dyn Backend>,
    /// Made before the engine.
    pub bells: SessionBells,
    /// One per session thread.
    pub receivers: Vec<ReplyReceiver>,
}

impl Sessions {
    /// Starts one thread per listener, which accepts from now on.
    ///
    /// # Errors
    /// When a thread cannot be started.
    ///
    /// # Panics
    /// When there are not as many listeners as bells and receivers.
    pub fn start(start: SessionsStart) -> io::Result<Self> {
        let count = start.listeners.len();
        assert!(
            count == start.bells.bells.len() && count == start.receivers.len(),
            "one bell and one receiver per listener: {count}, {}, {}",
            start.bells.bells.len(),
            start.receivers.len()
        );
        let shared = Arc::new(Shared {
            branch: start.branch,
            limits: start.limits,
            backend: start.backend,
            auth: start.auth,
            tls: start.tls.into(),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            unauthenticated: AtomicUsize::new(0),
            gathering: AtomicUsize::new(0),
            stats: Arc::new(SessionStats::new(count)),
        });
        let mut stops = Vec::new();
        let mut threads = Vec::new();
        let bells = start.bells.bells.into_iter().zip(start.bells.notifies);
        for (index, ((listener, (bell, notify)), receiver)) in
            start.listeners.into_iter().zip(bells).zip(start.receivers).enumerate()
        {
            let stop = Arc::new(Notify::new());
            let parts = thread::Parts {
                index: index as u16,
                shared: shared.clone(),
                listener,
                receiver,
                bell,
                notify,
                stop: stop.clone(),
            };
            stops.push(stop);
            threads.push(std::thread::Builder::new().name(format!("session-{index}")).spawn(|| thread::run(parts))?);
        }
        Ok(Self { shared, stops, threads })
    }

    /// Counters of all threads.
    pub fn stats(&self) -> Arc<SessionStats> {
        self.shared.stats.clone()
    }

    /// Stops accepting, refuses further requests with `ShuttingDown`, and lets what is in flight finish;
    /// connections are closed as they fall silent. Returns at once; see [`Self::join`].
    pub fn drain(&self) {
        // Pairs with the `Acquire` loads of the session threads.
        self.shared.draining.store(true, Ordering::Release);
        for stop in &self.stops {
            stop.notify_one();
        }
    }

    /// Waits until every session thread has ended, at most the drain time-out after [`Self::drain`].
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!(stage = "session", "a session thread panicked");
            }
        }
    }
}
