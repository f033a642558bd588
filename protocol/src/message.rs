//! The messages of a session: client to branch and back. One struct per message; each is read in place.
//!
//! A reply's type is its request's with bit 15 set; a request that could not be done is answered by
//! [`MessageType::Refused`].

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most transfers in one batch.
pub const BATCH_LEN_MAX: usize = 8_190;
/// The most transfers in one [`MessageType::Chain`].
pub const CHAIN_LEN_MAX: usize = 256;

macro_rules! message_types {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal; )+) => {
        /// What a frame carries.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum MessageType { $( $(#[doc = $doc])+ $name = $code, )+ }

        impl MessageType {
            /// Every message type.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// Reads a wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $( $code => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

message_types! {
    /// Version handshake: the first frame of a connection. Body [`Hello`].
    Hello = 0x0001;
    /// Password or token. Body: [`LoginPrefix`], then the user name, then the secret.
    Login = 0x0002;
    /// Answered at once with an empty [`MessageType::Pong`].
    Ping = 0x0003;
    /// Empty body; answered with [`Status`].
    GetStatus = 0x0004;
    /// Body: 1 to 8,190 [`AccountOpen`].
    OpenAccounts = 0x0010;
    /// Body [`AccountRef`].
    CloseAccount = 0x0011;
    /// Body [`AccountRef`].
    FreezeAccount = 0x0012;
    /// Body [`AccountRef`].
    UnfreezeAccount = 0x0013;
    /// Body [`LimitsSet`].
    SetLimits = 0x0014;
    /// One transfer of any kind. Body [`Transfer`].
    Transfer = 0x0020;
    /// All or nothing: 1 to 256 [`Transfer`].
    Chain = 0x0021;
    /// 1 to 8,190 [`Transfer`], each on its own unless its `LINKED` flag joins it to the next.
    Batch = 0x0022;
    /// Body [`TransferRef`]: burns an id that was never used.
    CancelId = 0x0023;
    /// Body [`AccountRef`]; answered with [`Balance`].
    GetBalance = 0x0030;
    /// Body [`AccountRef`]; answered with [`Account`].
    GetAccount = 0x0031;
    /// Body [`TransferRef`]; answered with [`TransferFound`].
    GetTransfer = 0x0032;
    /// Body [`FeedRead`]: durable outcomes from a position on.
    ReadFeed = 0x0040;

    /// Body [`HelloReply`].
    HelloReply = 0x8001;
    /// Body: [`LoginReplyPrefix`], then the access token (a JWT in ASCII).
    LoginReply = 0x8002;
    /// Empty.
    Pong = 0x8003;
    /// Body [`Status`].
    StatusReply = 0x8004;
    /// One [`ItemResult`] for each account, in order.
    OpenAccountsReply = 0x8010;
    /// Body [`ItemResult`].
    CloseAccountReply = 0x8011;
    /// Body [`ItemResult`].
    FreezeAccountReply = 0x8012;
    /// Body [`ItemResult`].
    UnfreezeAccountReply = 0x8013;
    /// Body [`ItemResult`].
    SetLimitsReply = 0x8014;
    /// Body [`TransferReply`], followed by two [`Sums`] (debit side, credit side) when asked for.
    TransferReply = 0x8020;
    /// One [`ItemResult`] for each transfer, in order.
    ChainReply = 0x8021;
    /// One [`ItemResult`] for each transfer, in order.
    BatchReply = 0x8022;
    /// Body [`ItemResult`].
    CancelIdReply = 0x8023;
    /// Body [`Balance`].
    BalanceReply = 0x8030;
    /// Body [`Account`].
    AccountReply = 0x8031;
    /// Body [`TransferFound`].
    TransferFoundReply = 0x8032;
    /// Body: [`FeedPagePrefix`], then the entries.
    FeedPage = 0x8040;
    /// Body: [`RefusedPrefix`], then a text for people (UTF-8).
    Refused = 0xFFFF;
}

macro_rules! wire {
    ($(#[$meta:meta])* $name:ident $len:literal { $( $(#[$fmeta:meta])* $field:ident : $ty:ty, )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )+ }
        const _: () = assert!(size_of::<$name>() == $len);
        impl $name {
            /// Bytes on the wire.
            pub const LEN_BYTES: usize = $len;
        }
    };
}

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
    /// The reply carries both accounts' sums after the transfer. Says nothing about the transfer itself,
    /// so a repeat may set it otherwise.
    pub const WANT_BALANCES: u16 = 1 << 15;
    /// Every bit that has a meaning.
    pub const ALL: u16 = LINKED | BALANCING_DEBIT | BALANCING_CREDIT | WANT_BALANCES;
}

/// Bits of [`AccountOpen::flags`].
pub mod account_flags {
    /// Debits, held ones included, may exceed posted credits by no more than the overdraft.
    pub const DEBITS_LIMITED: u16 = 1 << 0;
    /// Credits, held ones included, may not exceed posted debits.
    pub const CREDITS_LIMITED: u16 = 1 << 1;
    /// Every bit that has a meaning.
    pub const ALL: u16 = DEBITS_LIMITED | CREDITS_LIMITED;
}

wire! {
    /// A transfer, as the client asks for it.
    Transfer 112 {
        /// Chosen by the client; not 0, not all ones.
        id: U128,
        /// Whose debits grow; see [`TransferKind`] for when it is 0.
        debit_account_id: U128,
        /// Whose credits grow.
        credit_account_id: U128,
        /// The hold to settle or void, or the transfer to reverse; else 0.
        reference: U128,
        /// The client's own.
        user_data_128: U128,
        /// Minor units. Settle: 0 means all. Void, reverse: 0 or the whole amount.
        amount: U64,
        /// The client's own.
        user_data_64: U64,
        /// The client's own.
        user_data_32: U32,
        /// Holds only: seconds until it expires; 0 for never.
        timeout_s: U32,
        /// ISO 4217 numeric. Settle, void, reverse: 0 means that of the reference.
        currency: U16,
        /// The client's reason code, not 0. Settle, void, reverse: 0 means that of the reference.
        code: U16,
        /// [`transfer_flags`].
        flags: U16,
        /// [`TransferKind`].
        kind: u8,
        /// Must be 0.
        reserved: u8,
    }
}

wire! {
    /// Names a transfer.
    TransferRef 16 {
        /// Its id.
        id: U128,
    }
}

wire! {
    /// Names an account.
    AccountRef 16 {
        /// Its id.
        id: U128,
    }
}

wire! {
    /// An account to open.
    AccountOpen 80 {
        /// Chosen by the client; the top 16 bits name this branch.
        id: U128,
        /// The client's own.
        user_data_128: U128,
        /// [`crate::CustomerId`]; 0 for the bank.
        owner: U64,
        /// The client's own.
        user_data_64: U64,
        /// How far debits may exceed credits, in minor units, where `DEBITS_LIMITED` is set.
        overdraft: U64,
        /// The most debits in one day (UTC), in minor units; all ones for no limit.
        day_limit: U64,
        /// The client's own.
        user_data_32: U32,
        /// ISO 4217 numeric.
        currency: U16,
        /// The client's own class of account, not 0.
        code: U16,
        /// [`account_flags`].
        flags: U16,
        /// [`crate::AccountKind`].
        kind: u8,
        /// Must be 0.
        reserved: [u8; 5],
    }
}

wire! {
    /// New limits of an account.
    LimitsSet 32 {
        /// The account.
        id: U128,
        /// As in [`AccountOpen`].
        overdraft: U64,
        /// As in [`AccountOpen`].
        day_limit: U64,
    }
}

wire! {
    /// An account's four running sums, in minor units. Balance = credits - debits.
    Sums 32 {
        /// Held, not yet posted.
        debits_held: U64,
        /// Posted.
        debits_posted: U64,
        /// Held, not yet posted.
        credits_held: U64,
        /// Posted.
        credits_posted: U64,
    }
}

wire! {
    /// The answer about one account or transfer out of many.
    ItemResult 16 {
        /// The ledger's time stamp of the outcome, in nanoseconds; 0 where nothing was recorded.
        timestamp: U64,
        /// 0 for done, else a [`crate::Refusal`].
        refusal: U16,
        /// Bit 0: the id was known already, and this is its first answer again.
        flags: U16,
        /// 0.
        reserved: U32,
    }
}

/// Bit of [`ItemResult::flags`] and [`TransferReply::flags`]: a repeat, answered as the first time.
pub const RESULT_REPEATED: u16 = 1 << 0;

wire! {
    /// The answer to one transfer.
    TransferReply 32 {
        /// The ledger's time stamp of the outcome, in nanoseconds; 0 where nothing was recorded.
        timestamp: U64,
        /// The record's position in the journal; 0 where nothing was recorded.
        lsn: U64,
        /// What was moved: differs from what was asked for by balancing, settle and void.
        amount: U64,
        /// 0 for done, else a [`crate::Refusal`].
        refusal: U16,
        /// [`RESULT_REPEATED`].
        flags: U16,
        /// 0.
        reserved: U32,
    }
}

wire! {
    /// An account's balance at one instant.
    Balance 88 {
        /// The account.
        id: U128,
        /// The four sums.
        sums: Sums,
        /// What can be debited now under the limit; all ones where there is none.
        available: U64,
        /// The position of the last record that touched the account; durable before this was sent.
        lsn: U64,
        /// The ledger's time stamp of that record.
        timestamp: U64,
        /// How far debits may exceed credits.
        overdraft: U64,
        /// ISO 4217 numeric.
        currency: U16,
        /// [`crate::AccountStatus`].
        status: u8,
        /// 0.
        reserved: [u8; 5],
    }
}

wire! {
    /// All about an account.
    Account 160 {
        /// What it was opened with; limits as they are now.
        open: AccountOpen,
        /// The four sums.
        sums: Sums,
        /// Debits posted or held on `day`.
        day_spent: U64,
        /// When it was opened, in nanoseconds.
        opened_at: U64,
        /// The position of the last record that touched the account.
        lsn: U64,
        /// The ledger's time stamp of that record.
        timestamp: U64,
        /// The day that `day_spent` counts, since 1970-01-01 UTC.
        day: U32,
        /// [`crate::AccountStatus`].
        status: u8,
        /// 0.
        reserved: [u8; 11],
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
}

wire! {
    /// What became of a transfer.
    TransferFound 216 {
        /// As it was asked for.
        transfer: Transfer,
        /// As it was answered.
        reply: TransferReply,
        /// The debit account's sums after it.
        debit: Sums,
        /// The credit account's sums after it.
        credit: Sums,
        /// [`TransferState`].
        state: u8,
        /// 0.
        reserved: [u8; 7],
    }
}

wire! {
    /// The first frame of a connection.
    Hello 16 {
        /// [`HELLO_MAGIC`].
        magic: [u8; 8],
        /// The lowest version the client speaks.
        version_min: u8,
        /// The highest.
        version_max: u8,
        /// 0.
        reserved: [u8; 6],
    }
}

/// The first eight bytes of a hello's body.
pub const HELLO_MAGIC: [u8; 8] = *b"TALLYSTK";

wire! {
    /// The server's half of the handshake, with the limits that a client must keep.
    HelloReply 40 {
        /// The version that both sides use from here on.
        version: u8,
        /// 0.
        reserved: u8,
        /// The branch behind this connection.
        branch_id: U16,
        /// The largest frame it takes.
        frame_len_bytes_max: U32,
        /// The most transfers in one batch.
        batch_len_max: U32,
        /// The most requests of one session that may wait for their replies.
        in_flight_max: U32,
        /// The branch's clock, in nanoseconds since 1970.
        server_time: U64,
        /// The oldest position that the feed still holds.
        feed_first: U64,
        /// 0.
        reserved_2: U64,
    }
}

wire! {
    /// In front of a login's user name and secret.
    LoginPrefix 8 {
        /// 1: user name and password. 2: an access token, no user name.
        method: u8,
        /// 0.
        reserved: u8,
        /// Bytes of the user name.
        user_len_bytes: U16,
        /// Bytes of the password or token.
        secret_len_bytes: U16,
        /// 0.
        reserved_2: U16,
    }
}

/// [`LoginPrefix::method`]: user name and password.
pub const LOGIN_PASSWORD: u8 = 1;
/// [`LoginPrefix::method`]: an access token.
pub const LOGIN_TOKEN: u8 = 2;

/// What a session may do. The value of [`LoginReplyPrefix::role`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// Own accounts only.
    Customer = 1,
    /// Opens and serves any account.
    Teller = 2,
    /// Reads all, changes nothing.
    Auditor = 3,
    /// Everything.
    Admin = 4,
}

impl Role {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Customer,
            2 => Self::Teller,
            3 => Self::Auditor,
            4 => Self::Admin,
            _ => return None,
        })
    }
}

wire! {
    /// In front of the access token.
    LoginReplyPrefix 24 {
        /// [`Role`].
        role: u8,
        /// 0.
        reserved: [u8; 5],
        /// Bytes of the token that follows.
        token_len_bytes: U16,
        /// Whom the session acts for.
        customer_id: U64,
        /// When the token ends, in nanoseconds since 1970.
        expires_at: U64,
    }
}

wire! {
    /// Asks for durable outcomes.
    FeedRead 16 {
        /// The position to go on from: 0, or `next` of the last page.
        from: U64,
        /// The most entries wanted; 0 for as many as fit.
        count_max: U32,
        /// How long to wait for the first one, in milliseconds; at most 60,000.
        wait_ms: U32,
    }
}

wire! {
    /// In front of a page of outcomes.
    FeedPagePrefix 24 {
        /// Where the next page starts.
        next: U64,
        /// The durable position when the page was read.
        durable: U64,
        /// Entries on this page.
        count: U32,
        /// 0.
        reserved: U32,
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
}

wire! {
    /// One durable outcome.
    FeedEntry 224 {
        /// The record's position.
        lsn: U64,
        /// [`FeedKind`].
        kind: u8,
        /// 0.
        reserved: [u8; 7],
        /// As it was asked for.
        transfer: Transfer,
        /// As it was answered.
        reply: TransferReply,
        /// The debit account's sums after it.
        debit: Sums,
        /// The credit account's sums after it.
        credit: Sums,
    }
}

wire! {
    /// How the branch is.
    Status 96 {
        /// The branch.
        branch_id: U16,
        /// 1 while it takes writes, 0 while it is draining or its disk is full.
        accepting: u8,
        /// 0.
        reserved: [u8; 5],
        /// Accounts, closed ones included.
        accounts: U64,
        /// Holds that are neither settled, voided nor expired.
        open_holds: U64,
        /// Everything before this position survives a power cut.
        durable: U64,
        /// Everything before this position is in the newest checkpoint.
        checkpoint: U64,
        /// Transfers posted since the ledger began.
        transfers_posted: U64,
        /// Transfers refused and recorded since the ledger began.
        transfers_refused: U64,
        /// The branch's clock, in nanoseconds since 1970.
        server_time: U64,
        /// When the process began to serve, in nanoseconds since 1970.
        started_at: U64,
        /// Sessions that are logged in.
        sessions: U32,
        /// 0.
        reserved_2: U32,
        /// 0.
        reserved_3: [u8; 16],
    }
}

wire! {
    /// In front of a refusal's text.
    RefusedPrefix 8 {
        /// A [`crate::Refusal`].
        refusal: U16,
        /// Bytes of the text that follows.
        text_len_bytes: U16,
        /// When it makes sense to try again, in milliseconds; 0 for "not without a change".
        retry_after_ms: U32,
    }
}
