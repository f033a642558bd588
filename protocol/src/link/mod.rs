//! Links between services: branches and the registry, registry nodes among themselves, operators (docs/PROTOCOL.md,
//! "Links between services").
//!
//! The framing is that of a session; the message types are a range of their own ([`LinkType`]), so that a client's
//! frame on a link, or a link's on a session, is refused by its type. Frames that are pushed have request id 0.
//!
//! Most frames carry items: whole structs, one behind the other, as many as there are. What they mean, and which of
//! them wait for what, is two-phase commit's to say (`tally_ledger::two_phase`); here they are only bytes.
//!
//! Invariant: `decode` allocates nothing and never panics, and what it accepts encodes to the same bytes.

mod body;
mod chains;
mod items;
mod moves;
mod routes;
mod stamp;
mod structs;
mod types;

pub use body::{LinkError, LinkFrame, LinkHello, decode};
pub use chains::{ChainMember, CrossChain, LinkChain, LinkChainPrefix};
pub use items::{
    CrossTransfer, DecisionItem, EndItem, LINK_ITEMS_MAX, LinkItem, MarkItem, VoteItem, append_items, end, outcome,
    reason,
};
pub use moves::{
    AccountMove, FORMER_BRANCHES_MAX, IdItem, MOVE_HOLDS_MAX, MoveBody, MoveHold, MoveItem, MoveOrder, MovedItem,
    id_answer, move_side,
};
pub use routes::{Route, Routes, RoutesError};
pub use stamp::stamp_frames;
pub use structs::{
    BranchStatus, LINK_CALL_LEN_BYTES_MAX, LINK_ENDPOINT_LEN_BYTES_MAX, LINK_MAGIC, LINK_ROUTES_MAX, LINK_VERSION,
    LinkHeartbeat, LinkHelloPrefix, LinkPeerHello, LinkRedirectPrefix, LinkRoutePrefix, LinkRoutesPrefix, LinkWelcome,
};
pub use types::LinkType;

use crate::wire::FieldLayout;

/// Every wire struct of the links by name, with its size and fields.
pub const LINK_STRUCTS: &[(&str, usize, &[FieldLayout])] = &[
    ("LinkHelloPrefix", LinkHelloPrefix::LEN_BYTES, LinkHelloPrefix::FIELDS),
    ("LinkWelcome", LinkWelcome::LEN_BYTES, LinkWelcome::FIELDS),
    ("LinkRedirectPrefix", LinkRedirectPrefix::LEN_BYTES, LinkRedirectPrefix::FIELDS),
    ("LinkHeartbeat", LinkHeartbeat::LEN_BYTES, LinkHeartbeat::FIELDS),
    ("LinkRoutesPrefix", LinkRoutesPrefix::LEN_BYTES, LinkRoutesPrefix::FIELDS),
    ("LinkRoutePrefix", LinkRoutePrefix::LEN_BYTES, LinkRoutePrefix::FIELDS),
    ("CrossTransfer", CrossTransfer::LEN_BYTES, CrossTransfer::FIELDS),
    ("LinkChainPrefix", LinkChainPrefix::LEN_BYTES, LinkChainPrefix::FIELDS),
    ("ChainMember", ChainMember::LEN_BYTES, ChainMember::FIELDS),
    ("VoteItem", VoteItem::LEN_BYTES, VoteItem::FIELDS),
    ("MarkItem", MarkItem::LEN_BYTES, MarkItem::FIELDS),
    ("DecisionItem", DecisionItem::LEN_BYTES, DecisionItem::FIELDS),
    ("EndItem", EndItem::LEN_BYTES, EndItem::FIELDS),
    ("LinkPeerHello", LinkPeerHello::LEN_BYTES, LinkPeerHello::FIELDS),
    ("MoveOrder", MoveOrder::LEN_BYTES, MoveOrder::FIELDS),
    ("MoveItem", MoveItem::LEN_BYTES, MoveItem::FIELDS),
    ("MoveHold", MoveHold::LEN_BYTES, MoveHold::FIELDS),
    ("IdItem", IdItem::LEN_BYTES, IdItem::FIELDS),
    ("MovedItem", MovedItem::LEN_BYTES, MovedItem::FIELDS),
];

#[cfg(test)]
mod tests;
