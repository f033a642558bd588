//! Openraft's own tests for storage, with a state machine in memory beside the log on a real disk.

use std::path::PathBuf;

use openraft::storage::RaftStateMachine;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{RaftSnapshotBuilder, Snapshot, StorageError};
use parking_lot::Mutex;
use tally_journal::RealDisk;

use super::*;
use crate::raft::types::{SnapshotBytes, SnapshotMeta, StoredMembership, Types};

#[derive(Clone, Debug, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<(SnapshotMeta, SnapshotBytes)>,
}

/// Remembers how far it got, and nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct StateMachine(Arc<Mutex<State>>);

impl StateMachine {
    pub(super) fn applied(&self) -> Option<LogId> {
        self.0.lock().applied
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        let state = self.0.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        let mut state = self.0.lock();
        let mut replies = Vec::new();
        for entry in entries {
            state.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBytes>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotBytes>,
    ) -> Result<(), StorageError<u64>> {
        let mut state = self.0.lock();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some((meta.clone(), *snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let snapshot = self.0.lock().snapshot.clone();
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(bytes) }))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let mut state = self.0.lock();
        let snapshot_id = state.applied.map_or("empty".to_owned(), |applied| applied.to_string());
        let last_membership = state.membership.clone();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership, snapshot_id };
        state.snapshot = Some((meta.clone(), SnapshotBytes::default()));
        Ok(Snapshot { meta, snapshot: Box::default() })
    }
}

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<u64>> {
        let place = tempfile::tempdir().expect("a directory");
        let directory: PathBuf = place.path().join("raft");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(true));
        let options = LogOptions { write_via: WriteVia::Auto, ..options(&directory) };
        create(&*disk, &options, IDENTITY).expect("an empty directory");
        let (store, _) = open(disk, &options).expect("opens");
        Ok((place, store, StateMachine::default()))
    }
}

#[test]
fn openraft_is_satisfied() {
    Suite::test_all(Builder).expect("no storage error");
}
