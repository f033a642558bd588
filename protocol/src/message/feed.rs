//! The feed of durable outcomes: a position in, a page of entries out.

use zerocopy::byteorder::little_endian::{U32, U64};

use super::{Sums, Transfer, TransferReply};

/// The longest [`FeedRead::wait_ms`]: one minute, well below what middle boxes take for a dead connection.
pub const FEED_WAIT_MS_MAX: u32 = 60_000;

wire! {
    /// Asks for durable outcomes.
    FeedRead 16 {
        /// The position to go on from: 0, or `next` of the last page.
        0 from: U64,
        /// The most entries wanted; 0 for as many as fit.
        8 count_max: U32,
        /// How long to wait for the first one, in milliseconds; at most 60,000.
        12 wait_ms: U32,
    }
}

wire! {
    /// In front of a page of outcomes.
    FeedPagePrefix 24 {
        /// Where the next page starts.
        0 next: U64,
        /// The durable position when the page was read.
        8 durable: U64,
        /// Entries on this page.
        16 count: U32,
        /// 0.
        20 reserved: U32,
    }
}

/// What a feed entry is about. The value of [`FeedEntry::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FeedKind {
    /// A transfer, posted or refused.
    Transfer = 1,
    /// A hold ran out; `transfer.id` names it.
    Expired = 2,
    /// A transfer id was cancelled; `transfer.id` names it.
    Cancelled = 3,
    /// An account was opened, closed, frozen, unfrozen or given other limits; `transfer.debit_account_id` names it.
    Account = 4,
    /// This branch's part of a transfer between branches was held; what becomes of it is a [`FeedKind::Decided`].
    Prepared = 5,
    /// What was prepared was posted, or given back (`reply.refusal` says why); `transfer.id` names it.
    Decided = 6,
    /// An account has gone to another branch with its open holds: in the one that `transfer.id` names, `transfer.debit_account_id`
    /// has taken the place of `transfer.credit_account_id`. Nothing was posted. Or an account has come, or is on its way, to where the
    /// rest of its hold is: with `reply.refusal` this branch's part has gone there; with one account on both sides that stays in its place.
    Rehomed = 7,
}

impl FeedKind {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Transfer,
            2 => Self::Expired,
            3 => Self::Cancelled,
            4 => Self::Account,
            5 => Self::Prepared,
            6 => Self::Decided,
            7 => Self::Rehomed,
            _ => return None,
        })
    }
}

wire! {
    /// One durable outcome.
    FeedEntry 224 {
        /// The record's position.
        0 lsn: U64,
        /// [`FeedKind`].
        8 kind: u8,
        /// What was done to the account (`FeedKind::Account`): 1 opened, 2 closed, 3 frozen, 4 unfrozen,
        /// 5 given other limits, 6 a step of its move to another branch; else 0.
        9 account_change: u8,
        /// 0.
        10 reserved: [u8; 6],
        /// As it was asked for.
        16 transfer: Transfer,
        /// As it was answered.
        128 reply: TransferReply,
        /// The debit account's sums after it.
        160 debit: Sums,
        /// The credit account's sums after it.
        192 credit: Sums,
    }
}
