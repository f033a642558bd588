//! The state machine that openraft feeds: entries are applied to the core, snapshots are made of frozen views.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError, StorageIOError};

use super::snapshots::Snapshots;
use super::types::{Batch, Entry, LogId, SnapshotBytes, SnapshotMeta, StoredMembership, Types};
use crate::core::Shared;
use crate::state::State;

/// See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    snapshots: Snapshots,
    built: Arc<AtomicU64>,
}

/// Makes one snapshot, of the state as it was when this was made.
#[derive(Debug)]
pub struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Snapshots,
}

impl Machine {
    /// The machine of a node, with the state of its newest snapshot.
    ///
    /// # Errors
    /// When the snapshots cannot be read.
    pub fn open(shared: Arc<Shared>, snapshots: Snapshots) -> anyhow::Result<Self> {
        if let Some((meta, bytes)) = snapshots.newest()? {
            let mut core = shared.lock();
            core.state = State::decode(&bytes)?;
            core.last_applied = meta.last_log_id;
            core.membership = meta.last_membership;
        }
        Ok(Self { shared, snapshots, built: Arc::new(AtomicU64::new(0)) })
    }

    /// How many snapshots were made since the process began.
    pub fn built(&self) -> Arc<AtomicU64> {
        self.built.clone()
    }
}

fn read_error(error: &(impl std::error::Error + 'static)) -> StorageError<u64> {
    StorageIOError::read_state_machine(AnyError::new(error)).into()
}

fn write_error(error: &(impl std::error::Error + 'static)) -> StorageError<u64> {
    StorageIOError::write_snapshot(None, AnyError::new(error)).into()
}

/// Runs what waits for the disk beside the tasks.
async fn off_the_thread<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, StorageError<u64>> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| write_error(&error)),
        Err(error) => Err(write_error(&error)),
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        let core = self.shared.lock();
        Ok((core.last_applied, core.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = Vec::new();
        {
            let mut core = self.shared.lock();
            for Entry { log_id, payload } in entries {
                match payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(Batch(bytes)) => {
                        core.apply_batch(&bytes).map_err(|error| read_error(&error))?;
                    }
                    EntryPayload::Membership(membership) => {
                        core.membership = StoredMembership::new(Some(log_id), membership);
                    }
                }
                core.last_applied = Some(log_id);
                applied.push(());
            }
        }
        self.shared.proposer.notify_one();
        Ok(applied)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let core = self.shared.lock();
        let number = self.built.fetch_add(1, Ordering::Relaxed);
        let at = core.last_applied.map_or("0-0-0".to_owned(), |log_id| {
            format!("{}-{}-{}", log_id.leader_id.term, log_id.leader_id.node_id, log_id.index)
        });
        let meta = SnapshotMeta {
            last_log_id: core.last_applied,
            last_membership: core.membership.clone(),
            snapshot_id: format!("{at}-{:x}-{number}", core.boot),
        };
        Builder { state: core.state.clone(), meta, snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBytes>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotBytes>,
    ) -> Result<(), StorageError<u64>> {
        let state = State::decode(&snapshot.0).map_err(|error| read_error(&error))?;
        let (snapshots, about, bytes) = (self.snapshots.clone(), meta.clone(), snapshot.0);
        let len_bytes = bytes.len();
        off_the_thread(move || snapshots.publish(&about, &bytes)).await?;
        let mut core = self.shared.lock();
        core.state = state;
        core.last_applied = meta.last_log_id;
        core.membership = meta.last_membership.clone();
        let index = meta.last_log_id.map(|log_id| log_id.index);
        tracing::info!(stage = "snapshot", index, len_bytes, "taken over a snapshot of the leader");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let snapshots = self.snapshots.clone();
        let newest = off_the_thread(move || snapshots.newest()).await?;
        Ok(newest.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(SnapshotBytes(bytes)) }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let (state, meta, snapshots) = (std::mem::take(&mut self.state), self.meta.clone(), self.snapshots.clone());
        let bytes = off_the_thread(move || {
            let bytes = Bytes::from(state.encode());
            snapshots.publish(&meta, &bytes)?;
            Ok(bytes)
        });
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(SnapshotBytes(bytes.await?)) })
    }
}
