//! What registry nodes ask of each other, as bytes of `LinkPeerCall` and `LinkPeerReply`.
//!
//! Invariant: reading never panics, and what it accepts is written as the same bytes.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::codec;
use super::types::{SnapshotMeta, Types, Vote};
use crate::bytes::{ReadError, Reader, Write};

/// A snapshot travels in pieces of this size: small enough for a frame, and not to hold a heartbeat up.
pub const SNAPSHOT_PIECE_LEN_BYTES: usize = 256 << 10;

/// A question.
#[derive(Debug)]
pub enum Call {
    /// Take these entries.
    Append(AppendEntriesRequest<Types>),
    /// May I lead?
    Vote(VoteRequest<u64>),
    /// A piece of a snapshot, which comes in order.
    SnapshotPiece {
        /// Where in the snapshot.
        offset: u64,
        /// What is there.
        bytes: Bytes,
    },
    /// The pieces that came are this snapshot.
    SnapshotEnd {
        /// The leader's.
        vote: Vote,
        /// What it is about.
        meta: SnapshotMeta,
        /// How long all pieces are together.
        len_bytes: u64,
    },
    /// Stand for election, now.
    Elect,
    /// An empty node is to belong to this registry, under the number that it has.
    Adopt {
        /// Which registry.
        cluster_id: u128,
    },
}

/// An answer.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// To [`Call::Append`].
    Append(AppendEntriesResponse<u64>),
    /// To [`Call::Vote`].
    Vote(VoteResponse<u64>),
    /// To [`Call::SnapshotEnd`].
    Snapshot(Vote),
    /// To what has no answer of its own.
    Done,
    /// It could not be done.
    Failed(String),
}

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const SNAPSHOT_PIECE: u8 = 3;
const SNAPSHOT_END: u8 = 4;
const ELECT: u8 = 5;
const ADOPT: u8 = 6;
const DONE: u8 = 7;
const FAILED: u8 = 8;

/// An entry has at least its position and its kind.
const ENTRY_LEN_BYTES_MIN: usize = 25;

impl Call {
    /// The call as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Append(rpc) => {
                out.put_u8(APPEND);
                codec::put_vote(&mut out, &rpc.vote);
                codec::put_log_id_option(&mut out, &rpc.prev_log_id);
                codec::put_log_id_option(&mut out, &rpc.leader_commit);
                out.put_count(rpc.entries.len());
                rpc.entries.iter().for_each(|entry| codec::put_entry(&mut out, entry));
            }
            Self::Vote(rpc) => {
                out.put_u8(VOTE);
                codec::put_vote(&mut out, &rpc.vote);
                codec::put_log_id_option(&mut out, &rpc.last_log_id);
            }
            Self::SnapshotPiece { offset, bytes } => {
                out.put_u8(SNAPSHOT_PIECE);
                out.put_u64(*offset);
                out.put_bytes(bytes);
            }
            Self::SnapshotEnd { vote, meta, len_bytes } => {
                out.put_u8(SNAPSHOT_END);
                codec::put_vote(&mut out, vote);
                codec::put_snapshot_meta(&mut out, meta);
                out.put_u64(*len_bytes);
            }
            Self::Elect => out.put_u8(ELECT),
            Self::Adopt { cluster_id } => {
                out.put_u8(ADOPT);
                out.put_u128(*cluster_id);
            }
        }
        out
    }

    /// What [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When `bytes` were not written by it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let call = match reader.u8()? {
            APPEND => {
                let vote = codec::vote(&mut reader)?;
                let (prev_log_id, leader_commit) =
                    (codec::log_id_option(&mut reader)?, codec::log_id_option(&mut reader)?);
                let count = reader.count(ENTRY_LEN_BYTES_MIN)?;
                let entries = (0..count).map(|_| codec::entry(&mut reader)).collect::<Result<_, _>>()?;
                Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            VOTE => Self::Vote(VoteRequest {
                vote: codec::vote(&mut reader)?,
                last_log_id: codec::log_id_option(&mut reader)?,
            }),
            SNAPSHOT_PIECE => {
                Self::SnapshotPiece { offset: reader.u64()?, bytes: Bytes::copy_from_slice(reader.bytes()?) }
            }
            SNAPSHOT_END => Self::SnapshotEnd {
                vote: codec::vote(&mut reader)?,
                meta: codec::snapshot_meta(&mut reader)?,
                len_bytes: reader.u64()?,
            },
            ELECT => Self::Elect,
            ADOPT => Self::Adopt { cluster_id: reader.u128()? },
            _ => return Err(ReadError::Field("call_kind")),
        };
        reader.end()?;
        Ok(call)
    }
}

impl Answer {
    /// The answer as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Append(answer) => {
                out.put_u8(APPEND);
                match answer {
                    AppendEntriesResponse::Success => out.put_u8(0),
                    AppendEntriesResponse::PartialSuccess(log_id) => {
                        out.put_u8(1);
                        codec::put_log_id_option(&mut out, log_id);
                    }
                    AppendEntriesResponse::Conflict => out.put_u8(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.put_u8(3);
                        codec::put_vote(&mut out, vote);
                    }
                }
            }
            Self::Vote(answer) => {
                out.put_u8(VOTE);
                codec::put_vote(&mut out, &answer.vote);
                out.put_u8(u8::from(answer.vote_granted));
                codec::put_log_id_option(&mut out, &answer.last_log_id);
            }
            Self::Snapshot(vote) => {
                out.put_u8(SNAPSHOT_END);
                codec::put_vote(&mut out, vote);
            }
            Self::Done => out.put_u8(DONE),
            Self::Failed(why) => {
                out.put_u8(FAILED);
                out.put_bytes(why.as_bytes());
            }
        }
        out
    }

    /// What [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When `bytes` were not written by it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            APPEND => Self::Append(match reader.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(codec::log_id_option(&mut reader)?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(codec::vote(&mut reader)?),
                _ => return Err(ReadError::Field("append")),
            }),
            VOTE => Self::Vote(VoteResponse {
                vote: codec::vote(&mut reader)?,
                vote_granted: reader.flag("vote_granted")?,
                last_log_id: codec::log_id_option(&mut reader)?,
            }),
            SNAPSHOT_END => Self::Snapshot(codec::vote(&mut reader)?),
            DONE => Self::Done,
            FAILED => Self::Failed(reader.text("why")?.to_owned()),
            _ => return Err(ReadError::Field("answer_kind")),
        };
        reader.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, LeaderId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::types::{Batch, Entry, LogId, StoredMembership};

    fn calls() -> Vec<Call> {
        let at = |index| LogId::new(LeaderId::new(3, 1), index);
        let vote = Vote { leader_id: LeaderId::new(3, 1), committed: true };
        let meta = SnapshotMeta {
            last_log_id: Some(at(4)),
            last_membership: StoredMembership::default(),
            snapshot_id: "3-1-4".to_owned(),
        };
        let entries = vec![
            Entry { log_id: at(5), payload: EntryPayload::Normal(Batch(Bytes::from_static(b"batch"))) },
            Entry { log_id: at(6), payload: EntryPayload::Blank },
        ];
        vec![
            Call::Append(AppendEntriesRequest { vote, prev_log_id: Some(at(4)), entries, leader_commit: None }),
            Call::Vote(VoteRequest { vote, last_log_id: Some(at(9)) }),
            Call::SnapshotPiece { offset: 7, bytes: Bytes::from_static(b"piece") },
            Call::SnapshotEnd { vote, meta, len_bytes: 12 },
            Call::Elect,
            Call::Adopt { cluster_id: 77 },
        ]
    }

    fn answers() -> Vec<Answer> {
        let log_id = LogId::new(LeaderId::new(3, 1), 5);
        let vote = Vote { leader_id: LeaderId::new(3, 1), committed: false };
        vec![
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id))),
            Answer::Append(AppendEntriesResponse::Conflict),
            Answer::Append(AppendEntriesResponse::HigherVote(vote)),
            Answer::Vote(VoteResponse { vote, vote_granted: true, last_log_id: None }),
            Answer::Snapshot(vote),
            Answer::Done,
            Answer::Failed("no".to_owned()),
        ]
    }

    #[test]
    fn what_was_asked_and_answered_is_read_again_and_no_cut_of_it_is() {
        for call in calls() {
            let bytes = call.encode();
            assert_eq!(format!("{:?}", Call::decode(&bytes).expect("written")), format!("{call:?}"));
            assert!((0..bytes.len()).all(|len| Call::decode(&bytes[..len]).is_err()), "{call:?}");
        }
        for answer in answers() {
            let bytes = answer.encode();
            assert!((0..bytes.len()).all(|len| Answer::decode(&bytes[..len]).is_err()), "{answer:?}");
            assert_eq!(Answer::decode(&bytes), Ok(answer));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_are_written_alike(kind in 0u8..10, mut bytes in vec(prop_oneof![Just(0u8), any::<u8>()], 1..120)) {
            bytes[0] = kind;
            if let Ok(call) = Call::decode(&bytes) {
                prop_assert_eq!(call.encode(), &bytes[..]);
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), &bytes[..]);
            }
        }
    }
}
