//! What openraft is told about this registry.

use bytes::Bytes;

openraft::declare_raft_types!(
    /// The registry's Raft group.
    pub Types:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = SnapshotBytes,
        AsyncRuntime = openraft::TokioRuntime,
        Responder = openraft::impls::OneshotResponder<Types>,
);

/// One entry of the log: many commands, encoded once by who proposes them and only copied from there on
/// . A clone shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Bytes);

/// A node of the registry, as the log's membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Where it listens, for nodes, branches and operators alike.
    pub endpoint: String,
    /// Drawn when its folder was made. A node with another one is not this member, whatever its number.
    pub incarnation: u128,
}

/// A snapshot on its way: the bytes of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotBytes(pub Bytes);

/// A position in the log, with the leader that wrote it.
pub type LogId = openraft::LogId<u64>;
/// A vote, given or asked for.
pub type Vote = openraft::Vote<u64>;
/// An entry of the log.
pub type Entry = openraft::Entry<Types>;
/// Who is in the group.
pub type Membership = openraft::Membership<u64, Member>;
/// The same, with the entry that said so.
pub type StoredMembership = openraft::StoredMembership<u64, Member>;
/// What a snapshot is about.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Member>;
/// A running node of the group.
pub type Raft = openraft::Raft<Types>;
