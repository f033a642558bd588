//! The life of a session: handshake, login, status, and the frame that refuses.

use zerocopy::byteorder::little_endian::{U16, U32, U64};

wire! {
    /// The first frame of a connection.
    Hello 16 {
        /// [`HELLO_MAGIC`].
        0 magic: [u8; 8],
        /// The lowest version the client speaks.
        8 version_min: u8,
        /// The highest.
        9 version_max: u8,
        /// 0.
        10 reserved: [u8; 6],
    }
}

/// The first eight bytes of a hello's body.
pub const HELLO_MAGIC: [u8; 8] = *b"TALLYSTK";

wire! {
    /// The server's half of the handshake, with the limits that a client must keep.
    HelloReply 40 {
        /// The version that both sides use from here on.
        0 version: u8,
        /// 0.
        1 reserved: u8,
        /// The branch behind this connection.
        2 branch_id: U16,
        /// The largest frame it takes.
        4 frame_len_bytes_max: U32,
        /// The most transfers in one batch.
        8 batch_len_max: U32,
        /// The most requests of one session that may wait for their replies.
        12 in_flight_max: U32,
        /// The branch's clock, in nanoseconds since 1970.
        16 server_time: U64,
        /// The oldest position that the feed still holds.
        24 feed_first: U64,
        /// Of the routes that the branch has ([`super::MessageType::GetRoutes`]); 0 for a branch that stands alone.
        32 routes_version: U64,
    }
}

/// The longest user name.
pub const USER_LEN_BYTES_MAX: usize = 64;
/// The longest password or token; a token is about 300 bytes.
pub const SECRET_LEN_BYTES_MAX: usize = 4_096;

/// [`LoginPrefix::method`]: user name and password.
pub const LOGIN_PASSWORD: u8 = 1;

/// [`LoginPrefix::method`]: an access token.
pub const LOGIN_TOKEN: u8 = 2;

wire! {
    /// In front of a login's user name and secret.
    LoginPrefix 8 {
        /// 1: user name and password. 2: an access token, no user name.
        0 method: u8,
        /// 0.
        1 reserved: u8,
        /// Bytes of the user name.
        2 user_len_bytes: U16,
        /// Bytes of the password or token.
        4 secret_len_bytes: U16,
        /// 0.
        6 reserved_2: U16,
    }
}

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
        0 role: u8,
        /// 0.
        1 reserved: [u8; 5],
        /// Bytes of the token that follows.
        6 token_len_bytes: U16,
        /// Whom the session acts for.
        8 customer_id: U64,
        /// When the token ends, in nanoseconds since 1970.
        16 expires_at: U64,
    }
}

wire! {
    /// How the branch is.
    Status 96 {
        /// The branch.
        0 branch_id: U16,
        /// 1 while it takes writes, 0 while it is draining or its disk is full.
        2 accepting: u8,
        /// 0.
        3 reserved: [u8; 5],
        /// Accounts, closed ones included.
        8 accounts: U64,
        /// Holds that are neither settled, voided nor expired.
        16 open_holds: U64,
        /// Everything before this position survives a power cut.
        24 durable: U64,
        /// Everything before this position is in the newest checkpoint.
        32 checkpoint: U64,
        /// Transfers posted since the process began to serve.
        40 transfers_posted: U64,
        /// Transfers refused and recorded since the process began to serve.
        48 transfers_refused: U64,
        /// The branch's clock, in nanoseconds since 1970.
        56 server_time: U64,
        /// When the process began to serve, in nanoseconds since 1970.
        64 started_at: U64,
        /// Sessions that are logged in.
        72 sessions: U32,
        /// 0.
        76 reserved_2: U32,
        /// 0.
        80 reserved_3: [u8; 16],
    }
}

wire! {
    /// In front of a refusal's text.
    RefusedPrefix 8 {
        /// A [`crate::Refusal`].
        0 refusal: U16,
        /// Bytes of the text that follows.
        2 text_len_bytes: U16,
        /// When it makes sense to try again, in milliseconds; 0 for "not without a change". Where
        /// [`crate::Refusal::names_branch`]: the number of that branch, 0 where it is not known just now.
        4 retry_after_ms: U32,
    }
}
