//! Openraft itself on this log: a node that loses power comes back with everything that it had acknowledged, without
//! being asked for anything new.

use std::time::Duration;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, Config, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, SnapshotPolicy};
use tally_journal::testing::Unsynced;

use super::suite::StateMachine;
use super::*;
use crate::raft::types::{Member, Raft, Types};

/// There is nobody else.
struct Alone;

type Refused = RPCError<u64, Member, RaftError<u64>>;

fn alone() -> Refused {
    RPCError::Network(NetworkError::new(&AnyError::error("there is one node")))
}

impl RaftNetworkFactory<Types> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &Member) -> Self {
        Self
    }
}

impl RaftNetwork<Types> for Alone {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        Err(alone())
    }

    async fn vote(&mut self, _: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Refused> {
        Err(alone())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<Types>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        Err(StreamingError::Network(NetworkError::new(&AnyError::error("there is one node"))))
    }
}

async fn start(disk: &MemoryDisk) -> (Raft, StateMachine) {
    let (store, _) = open_on(disk).expect("opens");
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 100,
        election_timeout_max: 200,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let machine = StateMachine::default();
    let raft = Raft::new(1, Arc::new(config), Alone, store, machine.clone()).await.expect("starts");
    (raft, machine)
}

#[test]
fn what_one_node_acknowledged_is_applied_after_its_power_was_cut() {
    let disk = created(MemoryDisk::default());
    block_on(async {
        let (raft, _) = start(&disk).await;
        raft.initialize(BTreeMap::from([(1, Member::default())])).await.expect("a pristine node");
        raft.wait(Some(Duration::from_secs(20))).current_leader(1, "the only one").await.expect("leads");
        let mut last = None;
        for number in 0..100_u8 {
            let batch = Batch(Bytes::from(vec![number; 5_000]));
            last = Some(raft.client_write(batch).await.expect("is committed").log_id);
        }
        let crashed = disk.after_crash(Unsynced::Lost);
        raft.shutdown().await.expect("ends");

        let (raft, machine) = start(&crashed).await;
        let last = last.expect("a hundred");
        let wait = raft.wait(Some(Duration::from_secs(20)));
        wait.applied_index_at_least(Some(last.index), "without a new write").await.expect("is applied");
        assert!(machine.applied() >= Some(last));
        // And it goes on.
        let log_id = raft.client_write(Batch::default()).await.expect("is committed").log_id;
        assert!(log_id > last);
        raft.shutdown().await.expect("ends");
    });
}
