//! Votes, entries and memberships as bytes, on disk and between nodes. Our own, so that the layout does not follow
//! openraft's structs.
//!
//! Invariant: reading never panics, and what it accepts is written as the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{EntryPayload, LeaderId};

use super::types::{Batch, Entry, LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::bytes::{ReadError, Reader, Write};

const LOG_ID_LEN_BYTES: usize = 24;

/// Appends `log_id`: term, node, index.
pub fn put_log_id(out: &mut Vec<u8>, log_id: &LogId) {
    out.put_u64(log_id.leader_id.term);
    out.put_u64(log_id.leader_id.node_id);
    out.put_u64(log_id.index);
}

/// Reads what [`put_log_id`] wrote.
///
/// # Errors
/// When the bytes are too short.
pub fn log_id(reader: &mut Reader<'_>) -> Result<LogId, ReadError> {
    let leader_id = LeaderId::new(reader.u64()?, reader.u64()?);
    Ok(LogId::new(leader_id, reader.u64()?))
}

/// Appends `log_id`, or that there is none.
pub fn put_log_id_option(out: &mut Vec<u8>, log_id: &Option<LogId>) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(out, log_id);
    }
}

/// Reads what [`put_log_id_option`] wrote.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn log_id_option(reader: &mut Reader<'_>) -> Result<Option<LogId>, ReadError> {
    Ok(if reader.flag("has_log_id")? { Some(log_id(reader)?) } else { None })
}

/// Appends `vote`: term, node, whether it is committed.
pub fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
}

/// Reads what [`put_vote`] wrote.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn vote(reader: &mut Reader<'_>) -> Result<Vote, ReadError> {
    Ok(Vote { leader_id: LeaderId::new(reader.u64()?, reader.u64()?), committed: reader.flag("committed")? })
}

/// Appends `membership`: the sets of voters (two while it changes), then every node with its place.
pub fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_count(configs.len());
    for voters in configs {
        out.put_count(voters.len());
        voters.iter().for_each(|&id| out.put_u64(id));
    }
    out.put_count(membership.nodes().count());
    for (&id, member) in membership.nodes() {
        out.put_u64(id);
        out.put_u128(member.incarnation);
        out.put_bytes(member.endpoint.as_bytes());
    }
}

/// Reads what [`put_membership`] wrote.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn membership(reader: &mut Reader<'_>) -> Result<Membership, ReadError> {
    let rising = |ids: &[u64]| ids.is_sorted_by(|a, b| a < b);
    let mut configs = Vec::new();
    for _ in 0..reader.count(4)? {
        let count = reader.count(8)?;
        let ids = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        if !rising(&ids) {
            return Err(ReadError::Field("voters"));
        }
        configs.push(ids.into_iter().collect::<BTreeSet<_>>());
    }
    let (mut nodes, mut ids) = (BTreeMap::new(), Vec::new());
    for _ in 0..reader.count(28)? {
        let (id, incarnation) = (reader.u64()?, reader.u128()?);
        nodes.insert(id, Member { endpoint: reader.text("endpoint")?.to_owned(), incarnation });
        ids.push(id);
    }
    // openraft would add a nameless node for a voter without one; nobody writes that.
    if !rising(&ids) || configs.iter().flatten().any(|id| !nodes.contains_key(id)) {
        return Err(ReadError::Field("nodes"));
    }
    Ok(Membership::new(configs, nodes))
}

/// Appends `membership` with the entry that it is from.
pub fn put_stored_membership(out: &mut Vec<u8>, membership: &StoredMembership) {
    put_log_id_option(out, membership.log_id());
    put_membership(out, membership.membership());
}

/// Reads what [`put_stored_membership`] wrote.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn stored_membership(reader: &mut Reader<'_>) -> Result<StoredMembership, ReadError> {
    Ok(StoredMembership::new(log_id_option(reader)?, membership(reader)?))
}

/// Appends what a snapshot is about.
pub fn put_snapshot_meta(out: &mut Vec<u8>, meta: &SnapshotMeta) {
    put_log_id_option(out, &meta.last_log_id);
    put_stored_membership(out, &meta.last_membership);
    out.put_bytes(meta.snapshot_id.as_bytes());
}

/// Reads what [`put_snapshot_meta`] wrote.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn snapshot_meta(reader: &mut Reader<'_>) -> Result<SnapshotMeta, ReadError> {
    Ok(SnapshotMeta {
        last_log_id: log_id_option(reader)?,
        last_membership: stored_membership(reader)?,
        snapshot_id: reader.text("snapshot_id")?.to_owned(),
    })
}

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Appends `entry`: its position, what kind it is, and the commands behind their length, or the membership.
pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(BLANK),
        EntryPayload::Normal(Batch(bytes)) => {
            out.put_u8(NORMAL);
            out.put_bytes(bytes);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            put_membership(out, membership);
        }
    }
}

/// How many bytes [`put_entry`] writes for `entry`, or a little less for one with a membership.
pub fn entry_len_bytes(entry: &Entry) -> usize {
    LOG_ID_LEN_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 1,
            EntryPayload::Normal(Batch(bytes)) => 1 + 4 + bytes.len(),
            EntryPayload::Membership(membership) => 1 + membership.nodes().count() * 64,
        }
}

/// Reads what [`put_entry`] wrote. The commands are copied out of `reader`'s bytes.
///
/// # Errors
/// When the bytes are too short, or were not written by it.
pub fn entry(reader: &mut Reader<'_>) -> Result<Entry, ReadError> {
    let log_id = log_id(reader)?;
    let payload = match reader.u8()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Batch(Bytes::copy_from_slice(reader.bytes()?))),
        MEMBERSHIP => EntryPayload::Membership(membership(reader)?),
        _ => return Err(ReadError::Field("entry_kind")),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64) -> Member {
        Member { endpoint: format!("registry-{number}:7100"), incarnation: 0x1000 + u128::from(number) }
    }

    fn joint() -> Membership {
        let nodes: BTreeMap<_, _> = (1..=4).map(|id| (id, member(id))).collect();
        Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])], nodes)
    }

    fn entries() -> Vec<Entry> {
        let at = |index| LogId::new(LeaderId::new(5, 2), index);
        vec![
            Entry { log_id: at(7), payload: EntryPayload::Blank },
            Entry { log_id: at(8), payload: EntryPayload::Normal(Batch(Bytes::from_static(b"commands"))) },
            Entry { log_id: at(9), payload: EntryPayload::Membership(joint()) },
        ]
    }

    #[test]
    fn entries_have_the_bytes_that_are_written_down() {
        let mut out = Vec::new();
        put_entry(&mut out, &entries()[1]);
        let mut expected = Vec::new();
        expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[1, 8, 0, 0, 0]);
        expected.extend_from_slice(b"commands");
        assert_eq!(out, expected);
        assert_eq!(entry_len_bytes(&entries()[1]), out.len());

        out.clear();
        put_vote(&mut out, &Vote { leader_id: LeaderId::new(5, 2), committed: true });
        assert_eq!(out, [5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_was_written_is_read_again_and_no_cut_of_it_is() {
        for entry in entries() {
            let mut out = Vec::new();
            put_entry(&mut out, &entry);
            let mut reader = Reader::new(&out);
            assert_eq!(super::entry(&mut reader).as_ref(), Ok(&entry));
            assert_eq!(reader.end(), Ok(()));
            for len in 0..out.len() {
                assert!(super::entry(&mut Reader::new(&out[..len])).is_err(), "{len} bytes of {entry:?}");
            }
        }
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new(LeaderId::new(5, 2), 9)),
            last_membership: StoredMembership::new(None, joint()),
            snapshot_id: "5-2-9-1".to_owned(),
        };
        let mut out = Vec::new();
        put_snapshot_meta(&mut out, &meta);
        assert_eq!(snapshot_meta(&mut Reader::new(&out)), Ok(meta));
        for len in 0..out.len() {
            assert!(snapshot_meta(&mut Reader::new(&out[..len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_membership_that_nobody_writes_is_refused() {
        let mut out = Vec::new();
        out.put_count(1);
        out.put_count(1);
        out.put_u64(9);
        out.put_count(0);
        assert_eq!(membership(&mut Reader::new(&out)), Err(ReadError::Field("nodes")));
        let mut endless = Vec::new();
        endless.put_u32(u32::MAX);
        assert_eq!(membership(&mut Reader::new(&endless)), Err(ReadError::TooShort));
        let mut twice = Vec::new();
        twice.put_count(1);
        twice.put_count(2);
        twice.put_u64(1);
        twice.put_u64(1);
        twice.put_count(0);
        assert_eq!(membership(&mut Reader::new(&twice)), Err(ReadError::Field("voters")));
    }
}
