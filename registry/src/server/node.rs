//! What the tasks of one process know of each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::{Config as RaftConfig, SnapshotPolicy};
use tokio::sync::watch;

use crate::core::Shared;
use crate::link::Tls;
use crate::log::{Identity, LogHandle, LogOptions, LogStore};
use crate::raft::machine::Machine;
use crate::raft::network::{Myself, Peers};
use crate::raft::snapshots::Snapshots;
use crate::raft::types::{Member, Raft};

/// Raft's beat, in milliseconds: an append, with its flush at the other end, has to be answered within it.
const HEARTBEAT_MS: u64 = 150;
/// Three beats may be lost. Also for how long voters stay true to a leader.
pub(super) const ELECTION_MS_MAX: u64 = 750;
const ELECTION_MS_MIN: u64 = 450;

/// How a node is run.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its number; its certificate says the same.
    pub node_id: u64,
    /// Its data folder.
    pub dir: PathBuf,
    /// Where other nodes, branches and operators reach it.
    pub endpoint: String,
    /// Whether an empty folder founds a registry; else it waits to be joined to one.
    pub found: bool,
    /// The log.
    pub log: LogOptions,
    /// Transfers in hand, at most.
    pub transfers_max: usize,
    /// Decisions remembered beyond their last acknowledgement, where this node founds the registry.
    pub remembered_max: u64,
    /// Silence of a branch after which it is suspected.
    pub suspect_after: Duration,
    /// Silence after which it is taken to be down.
    pub down_after: Duration,
    /// Entries applied between two snapshots.
    pub snapshot_entries: u64,
    /// Bytes of the log between two snapshots.
    pub snapshot_bytes: u64,
    /// Connections at a time.
    pub connections_max: usize,
}

#[cfg(test)]
impl NodeOptions {
    pub(super) fn for_tests() -> Self {
        crate::config::Config::load(None, &[]).expect("the defaults are valid").node
    }
}

/// One process.
#[derive(Debug)]
pub struct Node {
    /// How it is run.
    pub options: NodeOptions,
    /// What is applied, and more.
    pub shared: Arc<Shared>,
    /// For every link.
    pub tls: Tls,
    /// Of the folder. Drawn anew at each start of a node that has not joined.
    pub incarnation: u128,
    /// Rung when the process is to end.
    pub stopping: watch::Sender<bool>,
    running: OnceLock<Running>,
    /// Counted by the tasks.
    pub counters: Counters,
    is_joining: AtomicBool,
}

/// Counted for the metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub connections: AtomicU64,
    /// Those that are open.
    pub connections_open: AtomicU64,
    /// Frames read from branches.
    pub frames: AtomicU64,
    /// Items in them.
    pub items: AtomicU64,
    /// Bytes written to branches.
    pub written_bytes: AtomicU64,
    /// Links and calls that were refused.
    pub refused: AtomicU64,
    /// Changes of leadership seen by this node: times that it began to lead.
    pub led: AtomicU64,
    /// Batches proposed.
    pub batches: AtomicU64,
    /// Bytes in them.
    pub batch_bytes: AtomicU64,
    /// From proposal to application.
    pub commit: crate::metrics::Timing,
}

/// A node that belongs to a registry.
#[derive(Clone)]
pub struct Running {
    /// To which, and as whom.
    pub identity: Identity,
    /// Its Raft.
    pub raft: Raft,
    /// To the other nodes.
    pub peers: Peers,
    /// Its log, to stop it and to count.
    pub log: LogHandle,
    /// Snapshots made.
    pub snapshots_built: Arc<AtomicU64>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that does not run yet.
    pub fn new(options: NodeOptions, tls: Tls, incarnation: u128, boot: u64) -> Self {
        let shared = Arc::new(Shared::new(options.node_id, boot));
        Self {
            options,
            shared,
            tls,
            incarnation,
            stopping: watch::Sender::new(false),
            running: OnceLock::new(),
            counters: Counters::default(),
            is_joining: AtomicBool::new(false),
        }
    }

    /// Of the folder as it is now.
    pub fn own_incarnation(&self) -> u128 {
        self.running().map_or(self.incarnation, |running| running.identity.incarnation)
    }

    /// The Raft and what belongs to it; `None` while it belongs to no registry.
    pub fn running(&self) -> Option<&Running> {
        self.running.get()
    }

    /// Starts Raft on `log`.
    ///
    /// # Errors
    /// When the snapshots or the log cannot be used.
    pub async fn start_raft(&self, log: LogStore, handle: LogHandle, identity: Identity) -> anyhow::Result<()> {
        let snapshots = Snapshots::open(self.options.dir.join("snapshots"))?;
        let machine = Machine::open(self.shared.clone(), snapshots)?;
        let snapshots_built = machine.built();
        let Identity { cluster_id, node_id, incarnation } = identity;
        let peers = Peers::new(Myself { node_id, incarnation, cluster_id }, self.tls.clone(), self.shared.clone());
        let config = RaftConfig {
            cluster_name: format!("{cluster_id:032x}"),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: ELECTION_MS_MIN,
            election_timeout_max: ELECTION_MS_MAX,
            max_payload_entries: 64,
            replication_lag_threshold: 200,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 500,
            purge_batch_size: 256,
            install_snapshot_timeout: 10_000,
            ..RaftConfig::default()
        };
        let raft = Raft::new(node_id, Arc::new(config.validate()?), peers.clone(), log, machine).await?;
        if self.options.found && !raft.is_initialized().await? {
            let myself = Member { endpoint: self.options.endpoint.clone(), incarnation };
            raft.initialize(BTreeMap::from([(node_id, myself)])).await?;
        }
        let running = Running { identity, raft, peers, log: handle, snapshots_built };
        let first = self.running.set(running).is_ok();
        assert!(first, "a node joins once");
        Ok(())
    }

    /// Takes the right to join: only one may try.
    pub fn begin_to_join(&self) -> bool {
        !self.is_joining.swap(true, Ordering::AcqRel)
    }

    /// It did not work out.
    pub fn give_up_joining(&self) {
        self.is_joining.store(false, Ordering::Release);
    }

    /// Where the leader listens, as far as this node knows.
    pub fn leader(&self) -> Option<(u64, Member)> {
        let raft = &self.running()?.raft;
        let metrics = raft.server_metrics().borrow().clone();
        let id = metrics.current_leader?;
        Some((id, metrics.membership_config.membership().get_node(&id)?.clone()))
    }

    /// Waits until the process is to end.
    pub async fn stopped(&self) {
        // An error says that nobody can stop it any more, for it has stopped.
        let _ = self.stopping.subscribe().wait_for(|&stopping| stopping).await;
    }
}
