//! The log on a disk in memory that crashes anywhere, and on the real one.

mod by_hand;
mod crashes;
mod keeping;
mod model;
mod raft;
mod suite;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, LeaderId, RaftLogReader};
use tally_journal::testing::{MemoryDisk, SEGMENT_LEN_BYTES, directory};
use tally_journal::{Disk, WriteVia};

use super::*;
use crate::raft::types::{Batch, Entry, LogId, Vote};

const IDENTITY: Identity = Identity { cluster_id: 7, node_id: 1, incarnation: 70 };

/// Small segments, and next to nothing kept in memory.
fn options(directory: &Path) -> LogOptions {
    LogOptions {
        segment_len_bytes: SEGMENT_LEN_BYTES,
        cache_len_bytes_max: 10_000,
        write_via: WriteVia::Blocking,
        free_bytes_min: 0,
        ..LogOptions::new(directory.to_owned())
    }
}

fn created(disk: MemoryDisk) -> MemoryDisk {
    create(&disk, &options(directory()), IDENTITY).expect("an empty directory");
    disk
}

fn open_on(disk: &MemoryDisk) -> Result<(LogStore, LogHandle), OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    open(disk, &options(directory()))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 1), index)
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId::new(term, 1), committed: true }
}

/// An entry whose bytes tell it from any other.
fn entry(term: u64, index: u64, len_bytes: usize) -> Entry {
    let bytes: Vec<u8> = (0..len_bytes).map(|at| (term as u8).wrapping_mul(31) ^ index as u8 ^ at as u8).collect();
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Batch(Bytes::from(bytes))) }
}

/// What a log should say.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn purge(&mut self, log_id: LogId) {
        self.entries = self.entries.split_off(&(log_id.index + 1));
        self.purged = self.purged.max(Some(log_id));
    }
}

/// Everything that the store says.
async fn said(store: &mut LogStore) -> Model {
    let state = store.get_log_state().await.expect("is known");
    let entries = store.try_get_log_entries(..).await.expect("can be read");
    let model = Model {
        vote: store.read_vote().await.expect("is known"),
        committed: store.read_committed().await.expect("is known"),
        purged: state.last_purged_log_id,
        entries: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
    };
    assert_eq!(state.last_log_id, model.last());
    model
}
