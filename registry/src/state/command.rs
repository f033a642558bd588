//! The commands of the replicated log, as bytes. The two that come by the ten thousand have one fixed length.
//!
//! ```text
//!  0      1         2        3       4        6         8        16       32
//!  | kind | outcome | reason | count | branch | refusal | stamp  | id     | branches (8 x u16) |   decide, acknowledged: 48
//!  | kind | member  | refused | count | ...                                                     |   decide, of a chain: 48
//!  | kind | stamp u64 | fields of the kind ...                                                 |   the others
//! ```
//!
//! Invariant: reading never panics, and what it accepts is written as the same bytes.

use tally_ledger::two_phase::{Decision, PARTICIPANTS_MAX, Participants};
use tally_protocol::link::{BranchStatus, DecisionItem, LINK_ENDPOINT_LEN_BYTES_MAX, LinkItem, outcome};
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId};

use super::keys::{KEY_HASH_LEN_BYTES, Scope};
use crate::bytes::{ReadError, Reader, Write};

/// The longest text that a command carries, beside endpoints.
pub const TEXT_LEN_BYTES_MAX: usize = 256;

const DECIDE: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const RESOLVE: u8 = 3;
/// A chain is refused for the sake of a member that is not its first: its number is in the place of the outcome, an abort.
const DECIDE_MEMBER: u8 = 4;
const FOUND: u8 = 16;
const LEAD: u8 = 17;
const ADD_NODE: u8 = 18;
const REMOVE_NODE: u8 = 19;
const BRANCH: u8 = 32;
const BRANCH_STATUS: u8 = 33;
const MOVE_ACCOUNT: u8 = 34;
const DRAIN: u8 = 35;
const ADD_KEY: u8 = 48;
const REMOVE_KEY: u8 = 49;

/// A change of the replicated state. `stamp` is the leader's clock when it was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// How a transfer ends. The first decision on it stands.
    Decide {
        /// Which transfer.
        id: TransferId,
        /// How.
        decision: Decision,
        /// Who has to carry it out.
        participants: Participants,
        /// When.
        stamp: Timestamp,
    },
    /// These branches have carried the decision out, durably.
    Acknowledged {
        /// Which transfer.
        id: TransferId,
        /// Who.
        branches: Participants,
        /// When.
        stamp: Timestamp,
    },
    /// An operator ends a transfer: an abort, with a line for the auditors.
    Resolve {
        /// Which transfer.
        id: TransferId,
        /// Who has to give back.
        participants: Participants,
        /// When.
        stamp: Timestamp,
        /// Who wanted it.
        operator: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// The first command of a registry.
    Found {
        /// Random; not 0. What branches pin.
        cluster_id: u128,
        /// How many decisions are remembered beyond their last acknowledgement.
        remembered_max: u64,
        /// When.
        stamp: Timestamp,
    },
    /// A leader's barrier: once it is applied, so is everything that was ever acknowledged.
    Lead {
        /// Which node.
        node_id: u64,
        /// Which start of that node's process.
        boot: u64,
        /// When.
        stamp: Timestamp,
    },
    /// A node is to join.
    AddNode {
        /// Its number; not 0.
        id: u64,
        /// Of its folder.
        incarnation: u128,
        /// Where it listens.
        endpoint: &'a str,
        /// When.
        stamp: Timestamp,
    },
    /// A node has left for good.
    RemoveNode {
        /// Its number.
        id: u64,
        /// When.
        stamp: Timestamp,
    },
    /// A branch says where it is.
    Branch {
        /// Its number; not 0.
        id: BranchId,
        /// Of its folder.
        incarnation: u128,
        /// Where clients reach it.
        endpoint: &'a str,
        /// When.
        stamp: Timestamp,
    },
    /// A branch is seen otherwise than before.
    BranchStatus {
        /// Which branch.
        id: BranchId,
        /// How.
        status: BranchStatus,
        /// When.
        stamp: Timestamp,
    },
    /// An operator wants a branch to take no new transfers, or to take them again.
    Drain {
        /// Which branch.
        id: BranchId,
        /// Whether it is to take none.
        is_drained: bool,
        /// When.
        stamp: Timestamp,
    },
    /// A service gets a key.
    AddKey {
        /// Whose; 1 to 256 bytes.
        name: &'a str,
        /// SHA-256 of the key: the key itself is shown once, and kept nowhere.
        hash: [u8; KEY_HASH_LEN_BYTES],
        /// What it opens: bits of [`super::Scope`].
        scopes: u32,
        /// When.
        stamp: Timestamp,
    },
    /// A key opens nothing any more.
    RemoveKey {
        /// Whose.
        name: &'a str,
        /// When.
        stamp: Timestamp,
    },
    /// A move is to be carried out: its commit, unless it was decided before, and where the account is from here on.
    MoveAccount {
        /// Which move.
        id: TransferId,
        /// Which account.
        account_id: AccountId,
        /// Where it is.
        branch_id: BranchId,
        /// Who has to carry it out.
        participants: Participants,
        /// When.
        stamp: Timestamp,
    },
}

impl<'a> Command<'a> {
    /// When it was proposed.
    pub const fn stamp(&self) -> Timestamp {
        match *self {
            Self::Decide { stamp, .. }
            | Self::Acknowledged { stamp, .. }
            | Self::Resolve { stamp, .. }
            | Self::Found { stamp, .. }
            | Self::Lead { stamp, .. }
            | Self::AddNode { stamp, .. }
            | Self::RemoveNode { stamp, .. }
            | Self::Branch { stamp, .. }
            | Self::BranchStatus { stamp, .. }
            | Self::Drain { stamp, .. }
            | Self::AddKey { stamp, .. }
            | Self::RemoveKey { stamp, .. }
            | Self::MoveAccount { stamp, .. } => stamp,
        }
    }

    /// Appends the command.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Decide { id, decision, participants, stamp } => {
                put_fixed(out, DECIDE, &decision.to_item(id, stamp), participants);
            }
            Self::Acknowledged { id, branches, stamp } => {
                let mut item = Decision::Commit.to_item(id, stamp);
                item.outcome = 0;
                put_fixed(out, ACKNOWLEDGED, &item, branches);
            }
            Self::Resolve { id, participants, stamp, operator, reason } => {
                put_head(out, RESOLVE, stamp);
                out.put_u128(id.get());
                put_participants(out, participants);
                out.put_bytes(operator.as_bytes());
                out.put_bytes(reason.as_bytes());
            }
            Self::Found { cluster_id, remembered_max, stamp } => {
                put_head(out, FOUND, stamp);
                out.put_u128(cluster_id);
                out.put_u64(remembered_max);
            }
            Self::Lead { node_id, boot, stamp } => {
                put_head(out, LEAD, stamp);
                out.put_u64(node_id);
                out.put_u64(boot);
            }
            Self::AddNode { id, incarnation, endpoint, stamp } => {
                put_head(out, ADD_NODE, stamp);
                out.put_u64(id);
                out.put_u128(incarnation);
                out.put_bytes(endpoint.as_bytes());
            }
            Self::RemoveNode { id, stamp } => {
                put_head(out, REMOVE_NODE, stamp);
                out.put_u64(id);
            }
            Self::Branch { id, incarnation, endpoint, stamp } => {
                put_head(out, BRANCH, stamp);
                out.put_u16(id.get());
                out.put_u128(incarnation);
                out.put_bytes(endpoint.as_bytes());
            }
            Self::BranchStatus { id, status, stamp } => {
                put_head(out, BRANCH_STATUS, stamp);
                out.put_u16(id.get());
                out.put_u8(status as u8);
            }
            Self::Drain { id, is_drained, stamp } => {
                put_head(out, DRAIN, stamp);
                out.put_u16(id.get());
                out.put_u8(u8::from(is_drained));
            }
            Self::AddKey { name, hash, scopes, stamp } => {
                put_head(out, ADD_KEY, stamp);
                out.extend_from_slice(&hash);
                out.put_u32(scopes);
                out.put_bytes(name.as_bytes());
            }
            Self::RemoveKey { name, stamp } => {
                put_head(out, REMOVE_KEY, stamp);
                out.put_bytes(name.as_bytes());
            }
            Self::MoveAccount { id, account_id, branch_id, participants, stamp } => {
                put_head(out, MOVE_ACCOUNT, stamp);
                out.put_u128(id.get());
                put_participants(out, participants);
                out.put_u128(account_id.get());
                out.put_u16(branch_id.get());
            }
        }
    }

    /// Reads the next command.
    ///
    /// # Errors
    /// When the bytes are too short, or were not written by [`Self::append_to`].
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, ReadError> {
        let kind = reader.u8()?;
        if matches!(kind, DECIDE | DECIDE_MEMBER | ACKNOWLEDGED) {
            return fixed(kind, reader);
        }
        let stamp = Timestamp::from_nanos(reader.u64()?);
        Ok(match kind {
            RESOLVE => Self::Resolve {
                id: transfer_id(reader.u128()?)?,
                participants: participants(reader)?,
                stamp,
                operator: text(reader, "operator", TEXT_LEN_BYTES_MAX)?,
                reason: text(reader, "reason", TEXT_LEN_BYTES_MAX)?,
            },
            FOUND => Self::Found {
                cluster_id: not_zero(reader.u128()?, "cluster_id")?,
                remembered_max: reader.u64()?,
                stamp,
            },
            LEAD => Self::Lead { node_id: reader.u64()?, boot: reader.u64()?, stamp },
            ADD_NODE => Self::AddNode {
                id: node_id(reader)?,
                incarnation: not_zero(reader.u128()?, "incarnation")?,
                endpoint: text(reader, "endpoint", LINK_ENDPOINT_LEN_BYTES_MAX)?,
                stamp,
            },
            REMOVE_NODE => Self::RemoveNode { id: node_id(reader)?, stamp },
            BRANCH => Self::Branch {
                id: branch_id(reader)?,
                incarnation: not_zero(reader.u128()?, "incarnation")?,
                endpoint: text(reader, "endpoint", LINK_ENDPOINT_LEN_BYTES_MAX)?,
                stamp,
            },
            BRANCH_STATUS => Self::BranchStatus {
                id: branch_id(reader)?,
                status: BranchStatus::from_wire(reader.u8()?).ok_or(ReadError::Field("status"))?,
                stamp,
            },
            DRAIN => Self::Drain { id: branch_id(reader)?, is_drained: reader.flag("is_drained")?, stamp },
            ADD_KEY => {
                let hash = reader.take(KEY_HASH_LEN_BYTES)?.try_into().map_err(|_| ReadError::TooShort)?;
                let scopes = reader.u32()?;
                if scopes & !Scope::ALL_BITS != 0 {
                    return Err(ReadError::Field("scopes"));
                }
                Self::AddKey { name: key_name(reader)?, hash, scopes, stamp }
            }
            REMOVE_KEY => Self::RemoveKey { name: key_name(reader)?, stamp },
            MOVE_ACCOUNT => Self::MoveAccount {
                id: transfer_id(reader.u128()?)?,
                participants: participants(reader)?,
                account_id: AccountId::new(not_zero(reader.u128()?, "account_id")?),
                branch_id: branch_id(reader)?,
                stamp,
            },
            _ => return Err(ReadError::Field("command_kind")),
        })
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, stamp: Timestamp) {
    out.put_u8(kind);
    out.put_u64(stamp.as_nanos());
}

fn put_fixed(out: &mut Vec<u8>, kind: u8, item: &DecisionItem, branches: Participants) {
    let branches = branches.as_slice();
    let (kind, outcome) = match item.member {
        0 => (kind, item.outcome),
        member => (DECIDE_MEMBER, member),
    };
    out.extend_from_slice(&[kind, outcome, item.reason, branches.len() as u8]);
    out.put_u16(item.branch.get());
    out.put_u16(item.refusal.get());
    out.put_u64(item.stamp.get());
    out.put_u128(item.id.get());
    for at in 0..PARTICIPANTS_MAX {
        out.put_u16(branches.get(at).map_or(0, |branch| branch.get()));
    }
}

fn fixed<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Command<'a>, ReadError> {
    let (outcome, reason, count) = (reader.u8()?, reader.u8()?, usize::from(reader.u8()?));
    let (branch, refusal, stamp) = (reader.u16()?, reader.u16()?, reader.u64()?);
    let id = transfer_id(reader.u128()?)?;
    let branches = branches_of(reader.take(2 * PARTICIPANTS_MAX)?, count)?;
    let stamp_read = Timestamp::from_nanos(stamp);
    if kind == ACKNOWLEDGED {
        let is_plain = (outcome, reason, branch, refusal) == (0, 0, 0, 0);
        return if is_plain {
            Ok(Command::Acknowledged { id, branches, stamp: stamp_read })
        } else {
            Err(ReadError::Field("acknowledged"))
        };
    }
    let (outcome, member) = match kind {
        DECIDE_MEMBER if outcome == 0 => return Err(ReadError::Field("member")),
        DECIDE_MEMBER => (outcome::ABORT, outcome),
        _ => (outcome, 0),
    };
    let item = DecisionItem {
        id: id.get().into(),
        stamp: stamp.into(),
        outcome,
        reason,
        branch: branch.into(),
        refusal: refusal.into(),
        reserved: [0; 17],
        member,
    };
    if item.invalid_field().is_some() {
        return Err(ReadError::Field("decision"));
    }
    let decision = Decision::of_item(&item).map_err(|_| ReadError::Field("decision"))?;
    Ok(Command::Decide { id, decision, participants: branches, stamp: stamp_read })
}

fn branches_of(bytes: &[u8], count: usize) -> Result<Participants, ReadError> {
    let raw = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
    let rises = |at: usize| raw(at) > if at == 0 { 0 } else { raw(at - 1) };
    if count > PARTICIPANTS_MAX || !(0..count).all(rises) || (count..PARTICIPANTS_MAX).any(|at| raw(at) != 0) {
        return Err(ReadError::Field("branches"));
    }
    Participants::of((0..count).map(|at| BranchId::new(raw(at)))).map_err(|_| ReadError::Field("branches"))
}

fn put_participants(out: &mut Vec<u8>, participants: Participants) {
    out.put_u8(participants.as_slice().len() as u8);
    for at in 0..PARTICIPANTS_MAX {
        out.put_u16(participants.as_slice().get(at).map_or(0, |branch| branch.get()));
    }
}

fn participants(reader: &mut Reader<'_>) -> Result<Participants, ReadError> {
    let count = usize::from(reader.u8()?);
    branches_of(reader.take(2 * PARTICIPANTS_MAX)?, count)
}

fn transfer_id(raw: u128) -> Result<TransferId, ReadError> {
    if raw == 0 || raw == u128::MAX { Err(ReadError::Field("id")) } else { Ok(TransferId::new(raw)) }
}

fn branch_id(reader: &mut Reader<'_>) -> Result<BranchId, ReadError> {
    match reader.u16()? {
        0 => Err(ReadError::Field("branch_id")),
        raw => Ok(BranchId::new(raw)),
    }
}

fn node_id(reader: &mut Reader<'_>) -> Result<u64, ReadError> {
    match reader.u64()? {
        0 => Err(ReadError::Field("node_id")),
        id => Ok(id),
    }
}

fn not_zero(raw: u128, field: &'static str) -> Result<u128, ReadError> {
    if raw == 0 { Err(ReadError::Field(field)) } else { Ok(raw) }
}

fn key_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, ReadError> {
    let name = text(reader, "name", TEXT_LEN_BYTES_MAX)?;
    if name.is_empty() { Err(ReadError::Field("name")) } else { Ok(name) }
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str, len_bytes_max: usize) -> Result<&'a str, ReadError> {
    let text = reader.text(field)?;
    if text.len() <= len_bytes_max { Ok(text) } else { Err(ReadError::Field(field)) }
}
