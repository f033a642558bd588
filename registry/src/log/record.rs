//! What the journal of a registry node holds, as bytes.
//!
//! ```text
//!  0  len_bytes u32   of the body
//!  4  kind u8         5  reserved [3], zero
//!  8  check u64       xxh3 of the body, seeded with the eight bytes before it
//!  16 body            as written by `raft::codec`; then zeros to a multiple of 8
//! ```
//!
//! The groups of the journal have checksums of their own; the one here is for an entry that is read back alone, on its
//! way to another node.
//!
//! Invariant: decoding never panics, and what it accepts is written as the same bytes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::bytes::{ReadError, Reader, Write};
use crate::raft::codec;
use crate::raft::types::{Entry, LogId, Vote};

/// In front of every body.
pub(super) const RECORD_HEADER_LEN_BYTES: usize = 16;

const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;

/// One thing that openraft asked to be remembered.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// This node's vote.
    Vote(Vote),
    /// An entry; those at its index and behind it are gone.
    Entry(Entry),
    /// The entries from this index on are gone.
    Truncate {
        /// The first that is gone.
        since: u64,
    },
    /// The entries up to this one are gone: a snapshot has them.
    Purge(LogId),
    /// Everything up to this one was known to be committed.
    Committed(LogId),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end before the record does.
    #[error("the record is cut short")]
    Short,
    /// They are not what was written.
    #[error("the record has the wrong checksum")]
    Check,
    /// The checksum is right, but nobody writes this.
    #[error("the record makes no sense: {0}")]
    Body(#[from] ReadError),
}

impl Record {
    /// Appends the record's bytes, a multiple of 8.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vote(vote) => put(out, VOTE, |out| codec::put_vote(out, vote)),
            Self::Entry(entry) => Self::put_entry(out, entry),
            Self::Truncate { since } => put(out, TRUNCATE, |out| out.put_u64(*since)),
            Self::Purge(log_id) => put(out, PURGE, |out| codec::put_log_id(out, log_id)),
            Self::Committed(log_id) => put(out, COMMITTED, |out| codec::put_log_id(out, log_id)),
        }
    }

    /// [`Record::put`] of an entry.
    pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
        put(out, ENTRY, |out| codec::put_entry(out, entry));
    }

    /// The record in front of `bytes`, and its length.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), RecordError> {
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or(RecordError::Short)?;
        let (check, rest) = rest.split_first_chunk::<8>().ok_or(RecordError::Short)?;
        let [l0, l1, l2, l3, kind, reserved @ ..] = *head;
        let len_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (body, rest) = rest.split_at_checked(len_bytes).ok_or(RecordError::Short)?;
        if xxh3_64_with_seed(body, u64::from_le_bytes(*head)) != u64::from_le_bytes(*check) {
            return Err(RecordError::Check);
        }
        let padding = len_bytes.next_multiple_of(8) - len_bytes;
        let padding = rest.get(..padding).ok_or(RecordError::Short)?;
        if reserved != [0; 3] || padding.iter().any(|&byte| byte != 0) {
            return Err(ReadError::Field("reserved").into());
        }
        let mut reader = Reader::new(body);
        let record = match kind {
            VOTE => Self::Vote(codec::vote(&mut reader)?),
            ENTRY => Self::Entry(codec::entry(&mut reader)?),
            TRUNCATE => Self::Truncate { since: reader.u64()? },
            PURGE => Self::Purge(codec::log_id(&mut reader)?),
            COMMITTED => Self::Committed(codec::log_id(&mut reader)?),
            _ => return Err(ReadError::Field("kind").into()),
        };
        reader.end()?;
        Ok((record, RECORD_HEADER_LEN_BYTES + len_bytes + padding.len()))
    }
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_LEN_BYTES]);
    let body_start = out.len();
    body(out);
    let len_bytes = out.len() - body_start;
    let mut head = [0; 8];
    head[..4].copy_from_slice(&u32::try_from(len_bytes).expect("an entry is far below 4 GiB").to_le_bytes());
    head[4] = kind;
    let check = xxh3_64_with_seed(&out[body_start..], u64::from_le_bytes(head));
    out[start..start + 8].copy_from_slice(&head);
    out[start + 8..body_start].copy_from_slice(&check.to_le_bytes());
    out.resize(start + (RECORD_HEADER_LEN_BYTES + len_bytes).next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::{EntryPayload, LeaderId};
    use proptest::prelude::*;

    use super::*;
    use crate::raft::types::Batch;

    fn log_id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, node_id), index)
    }

    fn normal(log_id: LogId, bytes: &[u8]) -> Entry {
        Entry { log_id, payload: EntryPayload::Normal(Batch(Bytes::copy_from_slice(bytes))) }
    }

    fn all_kinds() -> Vec<Record> {
        vec![
            Record::Vote(Vote { leader_id: LeaderId::new(3, 2), committed: true }),
            Record::Entry(normal(log_id(3, 2, 10), b"abc")),
            Record::Entry(Entry { log_id: log_id(3, 2, 11), payload: EntryPayload::Blank }),
            Record::Truncate { since: 11 },
            Record::Purge(log_id(2, 1, 5)),
            Record::Committed(log_id(3, 2, 10)),
        ]
    }

    fn bytes_of(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.put(&mut out);
        out
    }

    /// `hex` may have spaces between its parts.
    fn unhex(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| str::from_utf8(pair).expect("digits"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
    }

    #[test]
    fn every_kind_keeps_its_bytes() {
        let golden = [GOLDEN_VOTE, GOLDEN_ENTRY, GOLDEN_BLANK, GOLDEN_TRUNCATE, GOLDEN_PURGE, GOLDEN_COMMITTED];
        for (record, golden) in all_kinds().iter().zip(golden) {
            let golden = unhex(golden);
            assert_eq!(bytes_of(record), golden, "{record:?}");
            assert_eq!(Record::decode(&golden), Ok((record.clone(), golden.len())));
        }
    }

    // Head (length, kind), checksum, body, padding.
    const GOLDEN_VOTE: &str = "1100000001000000 05a2d1b2f3129fd3 0300000000000000 0200000000000000 0100000000000000";
    const GOLDEN_ENTRY: &str =
        "2000000002000000 f441a16181e3e33e 0300000000000000 0200000000000000 0a00000000000000 0103000000616263";
    const GOLDEN_BLANK: &str =
        "1900000002000000 e3b38cfe7a1371a0 0300000000000000 0200000000000000 0b00000000000000 0000000000000000";
    const GOLDEN_TRUNCATE: &str = "0800000003000000 e579f048ba5688ec 0b00000000000000";
    const GOLDEN_PURGE: &str = "1800000004000000 c90b878e3c5122da 0200000000000000 0100000000000000 0500000000000000";
    const GOLDEN_COMMITTED: &str =
        "1800000005000000 5e78d17ca86aad69 0300000000000000 0200000000000000 0a00000000000000";

    #[test]
    fn no_cut_and_no_changed_bit_is_taken() {
        for record in all_kinds() {
            let bytes = bytes_of(&record);
            assert_eq!(bytes.len() % 8, 0);
            for len in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..len]), Err(RecordError::Short), "{len} bytes of {record:?}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(&bytes).is_err(), "bit {bit} of {record:?}");
            }
        }
    }

    #[test]
    fn what_nobody_writes_is_refused_though_its_checksum_is_right() {
        let put_body = |kind, body: &[u8]| {
            let mut out = Vec::new();
            put(&mut out, kind, |out| out.extend_from_slice(body));
            Record::decode(&out).expect_err("nobody writes this")
        };
        assert_eq!(put_body(9, &[]), RecordError::Body(ReadError::Field("kind")));
        assert_eq!(put_body(TRUNCATE, &[0; 9]), RecordError::Body(ReadError::TooLong(1)));
        assert_eq!(put_body(TRUNCATE, &[0; 7]), RecordError::Body(ReadError::TooShort));
        let mut committed = [0; 17];
        committed[16] = 2;
        assert_eq!(put_body(VOTE, &committed), RecordError::Body(ReadError::Field("committed")));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0_u8..8,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let _ = Record::decode(&bytes);
            // With the right checksum it gets further.
            let mut out = Vec::new();
            put(&mut out, kind, |out| out.extend_from_slice(&body));
            if let Ok((record, len_bytes)) = Record::decode(&out) {
                prop_assert_eq!(len_bytes, out.len());
                prop_assert_eq!(bytes_of(&record), out);
            }
        }
    }
}
