//! The state as bytes, for a restart and for a node that has fallen behind.
//!
//! ```text
//!  | magic 8 | directory | keys | stamp | remembered_max | open decisions | remembered ones | xxh3 64 of all before |
//! ```
//!
//! Invariant: two equal states have the same bytes; what is in hash tables is written in the order of the ids.

use std::sync::Arc;

use tally_ledger::two_phase::Participants;
use tally_protocol::link::BranchStatus;
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId};
use xxhash_rust::xxh3::xxh3_64;

use super::decisions::Acknowledged;
use super::{
    AuditEntry, BranchEntry, Command, Decisions, Directory, KeyEntry, Keys, Known, MovedAccount, NodeEntry, State,
};
use crate::bytes::{ReadError, Reader, Write};

const MAGIC: &[u8; 8] = b"TALLYST3";
const CHECKSUM_LEN_BYTES: usize = 8;

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is damaged, or no snapshot.
    #[error("the checksum of the snapshot does not fit")]
    Checksum,
    /// It was written by another version, or has a bug.
    #[error("the snapshot cannot be read: {0}")]
    Read(#[from] ReadError),
}

impl State {
    /// The state as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 48 * (self.decisions.open_count() + self.decisions.done_count()));
        out.extend_from_slice(MAGIC);
        put_directory(&mut out, &self.directory);
        put_keys(&mut out, &self.keys);
        out.put_u64(self.stamp.as_nanos());
        out.put_u64(self.decisions.remembered_max());
        let mut open: Vec<_> = self.decisions.open().collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        out.put_count(open.len());
        for (id, Known { decision, participants, unacknowledged, stamp }) in open {
            Command::Decide { id, decision, participants, stamp }.append_to(&mut out);
            let branches = unacknowledged.iter().fold(participants, Participants::without);
            Command::Acknowledged { id, branches, stamp }.append_to(&mut out);
        }
        out.put_count(self.decisions.done_count());
        for (id, Acknowledged { decision, participants, stamp }) in self.decisions.done() {
            Command::Decide { id, decision, participants, stamp }.append_to(&mut out);
        }
        let checksum = xxh3_64(&out);
        out.put_u64(checksum);
        out
    }

    /// The state that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let len_bytes = bytes.len().checked_sub(CHECKSUM_LEN_BYTES).ok_or(SnapshotError::Checksum)?;
        let (bytes, checksum) = bytes.split_at(len_bytes);
        if xxh3_64(bytes).to_le_bytes() != checksum {
            return Err(SnapshotError::Checksum);
        }
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ReadError::Field("magic").into());
        }
        let directory = directory(&mut reader)?;
        let keys = keys(&mut reader)?;
        let stamp = Timestamp::from_nanos(reader.u64()?);
        let mut decisions = Decisions::new(reader.u64()?);
        for _ in 0..reader.count(1)? {
            let (id, known) = decided(&mut reader)?;
            let Command::Acknowledged { id: again, branches, .. } = Command::read(&mut reader)? else {
                return Err(ReadError::Field("acknowledged").into());
            };
            if again != id {
                return Err(ReadError::Field("acknowledged").into());
            }
            let unacknowledged = branches.iter().fold(known.participants, Participants::without);
            decisions.restore_open(id, Known { unacknowledged, ..known });
        }
        for _ in 0..reader.count(1)? {
            let (id, known) = decided(&mut reader)?;
            decisions.restore_done(id, known.into());
        }
        reader.end()?;
        Ok(Self { directory, keys, decisions, stamp })
    }
}

fn put_keys(out: &mut Vec<u8>, keys: &Keys) {
    out.put_count(keys.0.len());
    for (name, &KeyEntry { hash, scopes, since: stamp }) in keys.iter() {
        Command::AddKey { name, hash, scopes, stamp }.append_to(out);
    }
}

fn keys(reader: &mut Reader<'_>) -> Result<Keys, ReadError> {
    let mut keys = Keys::default();
    for _ in 0..reader.count(1)? {
        match Command::read(reader)? {
            Command::AddKey { name, hash, scopes, stamp } => {
                keys.0.insert(name.to_owned(), KeyEntry { hash, scopes, since: stamp });
            }
            _ => return Err(ReadError::Field("key")),
        }
    }
    Ok(keys)
}

fn decided(reader: &mut Reader<'_>) -> Result<(TransferId, Known), ReadError> {
    match Command::read(reader)? {
        Command::Decide { id, decision, participants, stamp } => Ok((id, Known::new(decision, participants, stamp))),
        _ => Err(ReadError::Field("decision")),
    }
}

fn put_directory(out: &mut Vec<u8>, directory: &Directory) {
    let Directory { cluster_id, nodes, branches, routes_version, moved, audit } = directory;
    out.put_u128(*cluster_id);
    out.put_count(nodes.len());
    for (&id, node) in nodes {
        out.put_u64(id);
        out.put_u128(node.incarnation);
        out.put_u64(node.joined_at.as_nanos());
        out.put_u8(u8::from(node.has_left));
        out.put_bytes(node.endpoint.as_bytes());
    }
    out.put_count(branches.len());
    for (&id, branch) in branches {
        out.put_u16(id.get());
        out.put_u128(branch.incarnation);
        out.put_u64(branch.since.as_nanos());
        out.put_u8(branch.status as u8);
        out.put_u8(u8::from(branch.is_drained));
        out.put_bytes(branch.endpoint.as_bytes());
    }
    out.put_u64(*routes_version);
    out.put_count(moved.len());
    for (&account_id, &MovedAccount { branch_id, version }) in moved.iter() {
        out.put_u128(account_id.get());
        out.put_u16(branch_id.get());
        out.put_u64(version);
    }
    out.put_count(audit.len());
    for entry in audit {
        out.put_u64(entry.stamp.as_nanos());
        out.put_u128(entry.transfer_id.get());
        out.put_u8(u8::from(entry.is_done));
        out.put_bytes(entry.operator.as_bytes());
        out.put_bytes(entry.reason.as_bytes());
    }
}

fn directory(reader: &mut Reader<'_>) -> Result<Directory, ReadError> {
    let mut directory = Directory { cluster_id: reader.u128()?, ..Directory::default() };
    for _ in 0..reader.count(37)? {
        let id = reader.u64()?;
        let node = NodeEntry {
            incarnation: reader.u128()?,
            joined_at: Timestamp::from_nanos(reader.u64()?),
            has_left: reader.flag("has_left")?,
            endpoint: reader.text("endpoint")?.to_owned(),
        };
        directory.nodes.insert(id, node);
    }
    for _ in 0..reader.count(32)? {
        let id = BranchId::new(reader.u16()?);
        let branch = BranchEntry {
            incarnation: reader.u128()?,
            since: Timestamp::from_nanos(reader.u64()?),
            status: BranchStatus::from_wire(reader.u8()?).ok_or(ReadError::Field("status"))?,
            is_drained: reader.flag("is_drained")?,
            endpoint: reader.text("endpoint")?.to_owned(),
        };
        directory.branches.insert(id, branch);
    }
    directory.routes_version = reader.u64()?;
    let moved = Arc::make_mut(&mut directory.moved);
    for _ in 0..reader.count(26)? {
        let account_id = AccountId::new(reader.u128()?);
        moved.insert(account_id, MovedAccount { branch_id: BranchId::new(reader.u16()?), version: reader.u64()? });
    }
    for _ in 0..reader.count(33)? {
        directory.audit.push_back(AuditEntry {
            stamp: Timestamp::from_nanos(reader.u64()?),
            transfer_id: TransferId::new(reader.u128()?),
            is_done: reader.flag("is_done")?,
            operator: reader.text("operator")?.to_owned(),
            reason: reader.text("reason")?.to_owned(),
        });
    }
    Ok(directory)
}
