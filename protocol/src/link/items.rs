//! The items of two-phase commit, and the one way to write many of them.

use zerocopy::byteorder::little_endian::{U16, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LinkType;
use crate::message::Transfer;
use crate::{BranchId, Envelope, FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, FrameHeader};

/// The most items in one frame.
pub const LINK_ITEMS_MAX: usize = 4_096;

// A full frame of the longest items must be a frame.
const _: () = assert!(FRAME_HEADER_LEN_BYTES + LINK_ITEMS_MAX * CrossTransfer::LEN_BYTES <= FRAME_LEN_BYTES_MAX);

/// Values of [`DecisionItem::outcome`].
pub mod outcome {
    /// Every branch settles.
    pub const COMMIT: u8 = 1;
    /// Every branch gives back.
    pub const ABORT: u8 = 2;
}

/// Values of [`DecisionItem::reason`].
pub mod reason {
    /// Of a commit.
    pub const NONE: u8 = 0;
    /// `branch` refused it, with `refusal`.
    pub const REFUSED: u8 = 1;
    /// The vote of `branch` did not come in time.
    pub const TIMED_OUT: u8 = 2;
    /// Somebody asked about what the registry's log does not know.
    pub const PRESUMED: u8 = 3;
    /// An operator ended it.
    pub const RESOLVED: u8 = 4;
}

wire! {
    /// A transfer between two branches.
    CrossTransfer 160 {
        /// As the client asked for it.
        0 transfer: Transfer,
        /// The source's stamp when it prepared.
        112 stamp: U64,
        /// The stamp after which the registry gives up.
        120 deadline: U64,
        /// As in [`FrameHeader::trace_id`]; 0 for none.
        128 trace_id: U128,
        /// The home of the debit account; not 0.
        144 source: U16,
        /// The home of the credit account; not 0, not the source.
        146 destination: U16,
        /// 0.
        148 reserved: [u8; 12],
    }
}

wire! {
    /// A branch's vote.
    VoteItem 40 {
        /// The transfer's.
        0 id: U128,
        /// The stamp of the record behind it.
        16 stamp: U64,
        /// Of a yes: what is held, as a digest; of a no 0.
        24 attempt: U64,
        /// 0 for yes, else the [`crate::Refusal`] that is a no.
        32 refusal: U16,
        /// 0.
        34 reserved: [u8; 5],
        /// Of a no to a chain: which member is refused, from 0; else 0.
        39 member: u8,
    }
}

wire! {
    /// A transfer and a time: an acknowledgement, a question, or a begin that was not taken.
    MarkItem 32 {
        /// The transfer's.
        0 id: U128,
        /// The sender's stamp.
        16 stamp: U64,
        /// Of a question: what is held, as in [`VoteItem`]; else 0.
        24 attempt: U64,
    }
}

wire! {
    /// How a transfer ends, everywhere and for ever.
    DecisionItem 48 {
        /// The transfer's.
        0 id: U128,
        /// When it was decided.
        16 stamp: U64,
        /// 1 commit, 2 abort.
        24 outcome: u8,
        /// Of an abort: 1 refused, 2 timed out, 3 presumed, 4 resolved by an operator. Of a commit: 0.
        25 reason: u8,
        /// Who refused, or was late; else 0.
        26 branch: U16,
        /// The [`crate::Refusal`] of that branch; else 0.
        28 refusal: U16,
        /// 0.
        30 reserved: [u8; 17],
        /// Of a chain that was refused: which member, from 0; else 0.
        47 member: u8,
    }
}

/// Values of [`EndItem::end`].
pub mod end {
    /// Posted, in full or in part; the rest was given back.
    pub const SETTLED: u8 = 1;
    /// Given back on request.
    pub const VOIDED: u8 = 2;
    /// Given back because its time ran out.
    pub const EXPIRED: u8 = 3;
}

wire! {
    /// How the payer's branch ended a hold between branches; back from the payee's branch: that it knows.
    EndItem 48 {
        /// The hold's.
        0 id: U128,
        /// When it ended; back: the sender's stamp.
        16 stamp: U64,
        /// What was posted, in minor units; 0 unless settled.
        24 posted: U64,
        /// The payer's branch; not 0.
        32 source: U16,
        /// The payee's branch; not 0, not the source.
        34 destination: U16,
        /// 1 settled, 2 voided, 3 expired.
        36 end: u8,
        /// 0.
        37 reserved: [u8; 11],
    }
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// What frames carry many of.
pub trait LinkItem: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + sealed::Sealed {
    /// The field that no sender that keeps the rules would send, if there is one.
    fn invalid_field(&self) -> Option<&'static str>;
}

pub(super) const fn is_transfer_id(id: u128) -> bool {
    id != 0 && id != u128::MAX
}

impl sealed::Sealed for CrossTransfer {}
impl LinkItem for CrossTransfer {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.transfer.id.get()) => Some("transfer"),
            _ if self.source.get() == 0 => Some("source"),
            _ if self.destination.get() == 0 || self.destination == self.source => Some("destination"),
            _ if self.reserved != [0; 12] => Some("reserved"),
            _ => None,
        }
    }
}

impl sealed::Sealed for VoteItem {}
impl LinkItem for VoteItem {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if self.refusal.get() != 0 && self.attempt.get() != 0 => Some("attempt"),
            _ if self.reserved != [0; 5] => Some("reserved"),
            _ if self.refusal.get() == 0 && self.member != 0 => Some("member"),
            _ => None,
        }
    }
}

impl sealed::Sealed for MarkItem {}
impl LinkItem for MarkItem {
    fn invalid_field(&self) -> Option<&'static str> {
        (!is_transfer_id(self.id.get())).then_some("id")
    }
}

impl sealed::Sealed for DecisionItem {}
impl LinkItem for DecisionItem {
    fn invalid_field(&self) -> Option<&'static str> {
        let (branch, refusal) = (self.branch.get(), self.refusal.get());
        match (self.outcome, self.reason) {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            (outcome::COMMIT, reason::NONE) | (outcome::ABORT, reason::PRESUMED | reason::RESOLVED) if branch != 0 => {
                Some("branch")
            }
            (outcome::ABORT, reason::REFUSED | reason::TIMED_OUT) if branch == 0 => Some("branch"),
            (outcome::ABORT, reason::REFUSED) if refusal == 0 => Some("refusal"),
            (outcome::ABORT, reason::REFUSED) => self.invalid_reserved(),
            (outcome::COMMIT, reason::NONE)
            | (outcome::ABORT, reason::TIMED_OUT | reason::PRESUMED | reason::RESOLVED) => {
                if refusal != 0 {
                    Some("refusal")
                } else if self.member != 0 {
                    Some("member")
                } else {
                    self.invalid_reserved()
                }
            }
            (outcome::COMMIT | outcome::ABORT, _) => Some("reason"),
            _ => Some("outcome"),
        }
    }
}

impl sealed::Sealed for EndItem {}
impl LinkItem for EndItem {
    fn invalid_field(&self) -> Option<&'static str> {
        match self.end {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if self.source.get() == 0 => Some("source"),
            _ if self.destination.get() == 0 || self.destination == self.source => Some("destination"),
            end::VOIDED | end::EXPIRED if self.posted.get() != 0 => Some("posted"),
            end::SETTLED | end::VOIDED | end::EXPIRED => (self.reserved != [0; 11]).then_some("reserved"),
            _ => Some("end"),
        }
    }
}

impl DecisionItem {
    fn invalid_reserved(&self) -> Option<&'static str> {
        (self.reserved != [0; 17]).then_some("reserved")
    }
}

impl MarkItem {
    /// The mark of transfer `id` at `stamp`.
    pub const fn new(id: u128, stamp: u64) -> Self {
        Self::question(id, stamp, 0)
    }

    /// The question about transfer `id` at `stamp`, of which `attempt` is held.
    pub const fn question(id: u128, stamp: u64, attempt: u64) -> Self {
        Self { id: U128::new(id), stamp: U64::new(stamp), attempt: U64::new(attempt) }
    }
}

impl VoteItem {
    /// The vote for transfer `id`, of which `attempt` is held by the record of `stamp`.
    pub const fn yes(id: u128, stamp: u64, attempt: u64) -> Self {
        let (id, stamp, attempt) = (U128::new(id), U64::new(stamp), U64::new(attempt));
        Self { id, stamp, attempt, refusal: U16::new(0), reserved: [0; 5], member: 0 }
    }

    /// The vote against transfer `id`: `refusal` is not 0.
    pub const fn no(id: u128, stamp: u64, refusal: u16) -> Self {
        let (id, stamp, refusal) = (U128::new(id), U64::new(stamp), U16::new(refusal));
        Self { id, stamp, attempt: U64::new(0), refusal, reserved: [0; 5], member: 0 }
    }
}

impl CrossTransfer {
    /// `transfer` from `source` to `destination`. `deadline` is the stamp after which the registry gives up.
    pub const fn new(
        transfer: Transfer,
        stamp: u64,
        deadline: u64,
        trace_id: u128,
        source: BranchId,
        destination: BranchId,
    ) -> Self {
        Self {
            transfer,
            stamp: U64::new(stamp),
            deadline: U64::new(deadline),
            trace_id: U128::new(trace_id),
            source: U16::new(source.get()),
            destination: U16::new(destination.get()),
            reserved: [0; 12],
        }
    }
}

/// Appends `items` to `out` in frames of `link_type`, each with up to [`LINK_ITEMS_MAX`] of them; no items, no frame.
/// The items are written straight into `out`.
pub fn append_items<T: LinkItem>(out: &mut Vec<u8>, link_type: LinkType, items: impl IntoIterator<Item = T>) {
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let frame_at = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_LEN_BYTES]);
        for item in items.by_ref().take(LINK_ITEMS_MAX) {
            out.extend_from_slice(item.as_bytes());
        }
        let body_len_bytes = out.len() - frame_at - FRAME_HEADER_LEN_BYTES;
        let header: FrameHeader = Envelope::request(0).link_header(link_type, body_len_bytes);
        out[frame_at..frame_at + FRAME_HEADER_LEN_BYTES].copy_from_slice(header.as_bytes());
    }
}
