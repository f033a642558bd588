//! The messages of a session: client to branch and back. One struct per message; each is read in place.
//!
//! A reply's type is its request's with bit 15 set; a request that could not be done is answered by
//! [`MessageType::Refused`]. What a frame must hold for each type is checked in [`crate::request`] and
//! [`crate::reply`]; this folder only says where each field lies.
//!
//! Invariant: the offset written in front of each field is where it lies, which the compiler asserts, and
//! every struct has alignment 1 and no padding, so that any bytes of the right length can be read in place.

/// The most transfers in one batch.
pub const BATCH_LEN_MAX: usize = 8_190;
/// The most transfers in one [`MessageType::Chain`].
pub const CHAIN_LEN_MAX: usize = 256;

// A full batch must fit into one frame, and a chain into a batch.
const _: () = assert!(
    crate::FRAME_HEADER_LEN_BYTES + BATCH_LEN_MAX * Transfer::LEN_BYTES <= crate::FRAME_LEN_BYTES_MAX
        && CHAIN_LEN_MAX <= BATCH_LEN_MAX
);

mod account;
mod feed;
mod session;
mod transfer;
mod types;

pub use crate::wire::FieldLayout;
pub use account::{Account, AccountOpen, AccountRef, Balance, LimitsSet, ReadAfter, Sums, account_flags};
pub use feed::{FEED_WAIT_MS_MAX, FeedEntry, FeedKind, FeedPagePrefix, FeedRead};
pub use session::{
    HELLO_MAGIC, Hello, HelloReply, LOGIN_PASSWORD, LOGIN_TOKEN, LoginPrefix, LoginReplyPrefix, RefusedPrefix, Role,
    SECRET_LEN_BYTES_MAX, Status, USER_LEN_BYTES_MAX,
};
pub use transfer::{
    ItemResult, RESULT_REPEATED, Transfer, TransferFound, TransferKind, TransferRef, TransferReply, TransferState,
    transfer_flags,
};
pub use types::MessageType;

/// Every wire struct by name, with its size and fields.
pub const STRUCTS: &[(&str, usize, &[FieldLayout])] = &[
    ("FrameHeader", crate::FRAME_HEADER_LEN_BYTES, crate::FrameHeader::FIELDS),
    ("Hello", Hello::LEN_BYTES, Hello::FIELDS),
    ("HelloReply", HelloReply::LEN_BYTES, HelloReply::FIELDS),
    ("LoginPrefix", LoginPrefix::LEN_BYTES, LoginPrefix::FIELDS),
    ("LoginReplyPrefix", LoginReplyPrefix::LEN_BYTES, LoginReplyPrefix::FIELDS),
    ("RefusedPrefix", RefusedPrefix::LEN_BYTES, RefusedPrefix::FIELDS),
    ("Status", Status::LEN_BYTES, Status::FIELDS),
    ("AccountOpen", AccountOpen::LEN_BYTES, AccountOpen::FIELDS),
    ("AccountRef", AccountRef::LEN_BYTES, AccountRef::FIELDS),
    ("ReadAfter", ReadAfter::LEN_BYTES, ReadAfter::FIELDS),
    ("LimitsSet", LimitsSet::LEN_BYTES, LimitsSet::FIELDS),
    ("Sums", Sums::LEN_BYTES, Sums::FIELDS),
    ("Balance", Balance::LEN_BYTES, Balance::FIELDS),
    ("Account", Account::LEN_BYTES, Account::FIELDS),
    ("Transfer", Transfer::LEN_BYTES, Transfer::FIELDS),
    ("TransferRef", TransferRef::LEN_BYTES, TransferRef::FIELDS),
    ("TransferReply", TransferReply::LEN_BYTES, TransferReply::FIELDS),
    ("ItemResult", ItemResult::LEN_BYTES, ItemResult::FIELDS),
    ("TransferFound", TransferFound::LEN_BYTES, TransferFound::FIELDS),
    ("FeedRead", FeedRead::LEN_BYTES, FeedRead::FIELDS),
    ("FeedPagePrefix", FeedPagePrefix::LEN_BYTES, FeedPagePrefix::FIELDS),
    ("FeedEntry", FeedEntry::LEN_BYTES, FeedEntry::FIELDS),
];
