//! Transfers on the wire: what a client asks for, the answer, and what is found later.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

use super::Sums;
use crate::Refusal;

/// What a transfer does. The value of [`Transfer::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TransferKind {
    /// Posts at once, from the debit to the credit account.
    Transfer = 1,
    /// From the branch's cash account; `debit_account_id` must be 0.
    Deposit = 2,
    /// To the branch's cash account; `credit_account_id` must be 0.
    Withdraw = 3,
    /// Reserves the amount until it is settled, voided, or `timeout_s` has passed.
    Hold = 4,
    /// Posts a hold (`reference`) in full, or in part and gives the rest back.
    Settle = 5,
    /// Gives a hold (`reference`) back.
    Void = 6,
    /// Posts the opposite of a posted transfer (`reference`), once, in full.
    Reverse = 7,
}

impl TransferKind {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Transfer,
            2 => Self::Deposit,
            3 => Self::Withdraw,
            4 => Self::Hold,
            5 => Self::Settle,
            6 => Self::Void,
            7 => Self::Reverse,
            _ => return None,
        })
    }
}

/// Bits of [`Transfer::flags`].
pub mod transfer_flags {
    /// Joined to the next transfer of the batch: all of the chain, or none.
    pub const LINKED: u16 = 1 << 0;
    /// Take at most what the debit account's limit leaves, instead of refusing.
    pub const BALANCING_DEBIT: u16 = 1 << 1;
    /// Take at most what the credit account's limit leaves, instead of refusing.
    pub const BALANCING_CREDIT: u16 = 1 << 2;
    /// Holds only: the debit account takes nothing new while the hold is open, and is closed for good when it is
    /// settled. For staff.
    pub const CLOSING_DEBIT: u16 = 1 << 3;
    /// The same for the credit account.
    pub const CLOSING_CREDIT: u16 = 1 << 4;
    /// Happened elsewhere at the time in `user_data_64` (nanoseconds since 1970-01-01 UTC). All transfers of a
    /// batch or chain are imported, or none; for admins.
    pub const IMPORTED: u16 = 1 << 5;
    /// The reply carries both accounts' sums after the transfer. Says nothing about the transfer itself,
    /// so a repeat may set it otherwise.
    pub const WANT_BALANCES: u16 = 1 << 15;
    /// Every bit that has a meaning.
    pub const ALL: u16 =
        LINKED | BALANCING_DEBIT | BALANCING_CREDIT | CLOSING_DEBIT | CLOSING_CREDIT | IMPORTED | WANT_BALANCES;
}

wire! {
    /// A transfer, as the client asks for it.
    Transfer 112 {
        /// Chosen by the client; not 0, not all ones.
        0 id: U128,
        /// Whose debits grow; see [`TransferKind`] for when it is 0.
        16 debit_account_id: U128,
        /// Whose credits grow.
        32 credit_account_id: U128,
        /// The hold to settle or void, or the transfer to reverse; else 0.
        48 reference: U128,
        /// The client's own.
        64 user_data_128: U128,
        /// Minor units. Settle: 0 means all. Void, reverse: 0 or the whole amount. Closing hold: may be 0.
        80 amount: U64,
        /// The client's own.
        88 user_data_64: U64,
        /// The client's own.
        96 user_data_32: U32,
        /// Holds only: seconds until it expires; 0 for never.
        100 timeout_s: U32,
        /// ISO 4217 numeric. Settle, void, reverse: 0 means that of the reference.
        104 currency: U16,
        /// The client's reason code, not 0. Settle, void, reverse: 0 means that of the reference.
        106 code: U16,
        /// [`transfer_flags`].
        108 flags: U16,
        /// [`TransferKind`].
        110 kind: u8,
        /// Must be 0.
        111 reserved: u8,
    }
}

wire! {
    /// Names a transfer.
    TransferRef 16 {
        /// Its id.
        0 id: U128,
    }
}

wire! {
    /// The answer about one account or transfer out of many.
    ItemResult 16 {
        /// The ledger's time stamp of the outcome, in nanoseconds; 0 where nothing was recorded.
        0 timestamp: U64,
        /// 0 for done, else a [`crate::Refusal`].
        8 refusal: U16,
        /// Bit 0: the id was known already, and this is its first answer again.
        10 flags: U16,
        /// 0.
        12 reserved: U32,
    }
}

/// Bit of [`ItemResult::flags`] and [`TransferReply::flags`]: a repeat, answered as the first time.
pub const RESULT_REPEATED: u16 = 1 << 0;

wire! {
    /// The answer to one transfer.
    TransferReply 32 {
        /// The ledger's time stamp of the outcome, in nanoseconds; 0 where nothing was recorded.
        0 timestamp: U64,
        /// The record's position in the journal; 0 where nothing was recorded.
        8 lsn: U64,
        /// What was moved: differs from what was asked for by balancing, settle and void.
        16 amount: U64,
        /// 0 for done, else a [`crate::Refusal`].
        24 refusal: U16,
        /// [`RESULT_REPEATED`].
        26 flags: U16,
        /// 0.
        28 reserved: U32,
    }
}

/// What is known of a transfer id. The value of [`TransferFound::state`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TransferState {
    /// Posted; for a hold: held and not yet resolved.
    Done = 1,
    /// Refused for good, with the recorded reason.
    Refused = 2,
    /// Accepted, not yet durable.
    InFlight = 3,
    /// A hold that was settled.
    Settled = 4,
    /// A hold that was voided.
    Voided = 5,
    /// A hold whose time ran out.
    Expired = 6,
    /// Burnt by a cancel.
    Cancelled = 7,
    /// Posted, then reversed.
    Reversed = 8,
    /// Between two branches: held here, and not yet decided.
    Prepared = 9,
}

impl TransferState {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Done,
            2 => Self::Refused,
            3 => Self::InFlight,
            4 => Self::Settled,
            5 => Self::Voided,
            6 => Self::Expired,
            7 => Self::Cancelled,
            8 => Self::Reversed,
            9 => Self::Prepared,
            _ => return None,
        })
    }
}

wire! {
    /// What became of a transfer.
    TransferFound 216 {
        /// As it was asked for.
        0 transfer: Transfer,
        /// As it was answered.
        112 reply: TransferReply,
        /// The debit account's sums after it.
        144 debit: Sums,
        /// The credit account's sums after it.
        176 credit: Sums,
        /// [`TransferState`].
        208 state: u8,
        /// 0.
        209 reserved: [u8; 7],
    }
}

impl ItemResult {
    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        self.refusal.get() == 0
    }

    /// Why it was not done; `None` when it was, or when a newer branch gave a code that this build does not know.
    pub const fn known_refusal(&self) -> Option<Refusal> {
        Refusal::from_code(self.refusal.get())
    }

    /// Whether this is the first answer again.
    pub const fn is_repeat(&self) -> bool {
        self.flags.get() & RESULT_REPEATED != 0
    }
}

impl TransferReply {
    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        self.refusal.get() == 0
    }

    /// Why it was not done; `None` when it was, or when a newer branch gave a code that this build does not know.
    pub const fn known_refusal(&self) -> Option<Refusal> {
        Refusal::from_code(self.refusal.get())
    }

    /// Whether this is the first answer again.
    pub const fn is_repeat(&self) -> bool {
        self.flags.get() & RESULT_REPEATED != 0
    }
}
