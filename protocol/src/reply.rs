//! Replies, from branch to client: the other half of [`crate::request`], with the same rules.
//!
//! A refusal code that this build does not know is not an error: a newer branch may have more of them, and
//! the ranges still tell whether the id was used up (docs/PROTOCOL.md, "Refusals").
//!
//! Invariant: `decode` allocates nothing and never panics, and what it accepts encodes to the same bytes.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::{Envelope, append_frame};
use crate::link::{Routes, RoutesError};
use crate::message::{
    Account, Balance, FeedEntry, FeedPagePrefix, HelloReply, ItemResult, LoginReplyPrefix, RefusedPrefix, Role, Status,
    Sums, TransferFound, TransferReply,
};
use crate::{CustomerId, FrameHeader, MessageType, Refusal, Timestamp};

/// A reply, borrowed from the frame that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// See [`MessageType::HelloReply`].
    Hello(&'a HelloReply),
    /// See [`MessageType::LoginReply`].
    Login(LoggedIn<'a>),
    /// See [`MessageType::Pong`].
    Pong,
    /// See [`MessageType::StatusReply`].
    Status(&'a Status),
    /// See [`MessageType::RoutesReply`].
    Routes(Routes<'a>),
    /// See [`MessageType::OpenAccountsReply`].
    OpenAccounts(&'a [ItemResult]),
    /// See [`MessageType::CloseAccountReply`].
    CloseAccount(&'a ItemResult),
    /// See [`MessageType::FreezeAccountReply`].
    FreezeAccount(&'a ItemResult),
    /// See [`MessageType::UnfreezeAccountReply`].
    UnfreezeAccount(&'a ItemResult),
    /// See [`MessageType::SetLimitsReply`].
    SetLimits(&'a ItemResult),
    /// See [`MessageType::TransferReply`].
    Transfer {
        /// What became of it.
        reply: &'a TransferReply,
        /// Debit account, credit account: their sums after it, when asked for.
        balances: Option<&'a [Sums; 2]>,
    },
    /// See [`MessageType::ChainReply`].
    Chain(&'a [ItemResult]),
    /// See [`MessageType::BatchReply`].
    Batch(&'a [ItemResult]),
    /// See [`MessageType::CancelIdReply`].
    CancelId(&'a ItemResult),
    /// See [`MessageType::BalanceReply`].
    Balance(&'a Balance),
    /// See [`MessageType::AccountReply`].
    Account(&'a Account),
    /// See [`MessageType::TransferFoundReply`].
    TransferFound(&'a TransferFound),
    /// See [`MessageType::FeedPage`].
    Feed(FeedPage<'a>),
    /// See [`MessageType::Refused`].
    Refused(Refused<'a>),
}

/// A login that succeeded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LoggedIn<'a> {
    /// What the session may do.
    pub role: Role,
    /// Whom it acts for.
    pub customer_id: CustomerId,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// Logs in again without the password, until then. Not shown when printed.
    pub token: &'a str,
}

impl std::fmt::Debug for LoggedIn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { role, customer_id, expires_at, token: _ } = self;
        write!(f, "LoggedIn {{ role: {role:?}, customer_id: {customer_id:?}, expires_at: {expires_at:?}, .. }}")
    }
}

/// A page of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPage<'a> {
    /// Where the next page starts.
    pub next: u64,
    /// The durable position when the page was read.
    pub durable: u64,
    /// In the order of the journal.
    pub entries: &'a [FeedEntry],
}

/// A request that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The wire code; see [`Self::refusal`].
    pub code: u16,
    /// When it makes sense to try again, in milliseconds; 0 for "not without a change".
    pub retry_after_ms: u32,
    /// For people.
    pub text: &'a str,
}

impl Refused<'_> {
    /// The refusal, if this build knows its code.
    pub const fn refusal(&self) -> Option<Refusal> {
        Refusal::from_code(self.code)
    }
}

/// Why a frame is not a reply: the server is not one, or speaks another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The type is unknown, or that of a request.
    #[error("message type {code:#06x} is not a reply")]
    NotAReply {
        /// What the header said.
        code: u16,
    },
    /// The body's length does not fit the type.
    #[error("a body of {len_bytes} bytes does not fit {message_type:?}")]
    BodyLen {
        /// What the header said.
        message_type: MessageType,
        /// Bytes behind the header.
        len_bytes: usize,
    },
    /// A field holds a value that its description rules out.
    #[error("field `{0}` of the reply is invalid")]
    Field(&'static str),
}

/// Reads the body that came behind `header`.
pub fn decode<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<Reply<'a>, ReplyError> {
    let code = header.message_type.get();
    let message_type = MessageType::from_code(code).ok_or(ReplyError::NotAReply { code })?;
    let body = Body { message_type, bytes: body };
    Ok(match message_type {
        MessageType::HelloReply => Reply::Hello(body.one()?),
        MessageType::LoginReply => Reply::Login(body.logged_in()?),
        MessageType::Pong => body.empty(Reply::Pong)?,
        MessageType::StatusReply => Reply::Status(body.one()?),
        MessageType::RoutesReply => Reply::Routes(body.routes()?),
        MessageType::OpenAccountsReply => Reply::OpenAccounts(body.many()?),
        MessageType::CloseAccountReply => Reply::CloseAccount(body.one()?),
        MessageType::FreezeAccountReply => Reply::FreezeAccount(body.one()?),
        MessageType::UnfreezeAccountReply => Reply::UnfreezeAccount(body.one()?),
        MessageType::SetLimitsReply => Reply::SetLimits(body.one()?),
        MessageType::TransferReply => body.transfer()?,
        MessageType::ChainReply => Reply::Chain(body.many()?),
        MessageType::BatchReply => Reply::Batch(body.many()?),
        MessageType::CancelIdReply => Reply::CancelId(body.one()?),
        MessageType::BalanceReply => Reply::Balance(body.one()?),
        MessageType::AccountReply => Reply::Account(body.one()?),
        MessageType::TransferFoundReply => Reply::TransferFound(body.one()?),
        MessageType::FeedPage => Reply::Feed(body.feed()?),
        MessageType::Refused => Reply::Refused(body.refused()?),
        MessageType::Hello
        | MessageType::Login
        | MessageType::Ping
        | MessageType::GetStatus
        | MessageType::GetRoutes
        | MessageType::OpenAccounts
        | MessageType::CloseAccount
        | MessageType::FreezeAccount
        | MessageType::UnfreezeAccount
        | MessageType::SetLimits
        | MessageType::Transfer
        | MessageType::Chain
        | MessageType::Batch
        | MessageType::CancelId
        | MessageType::GetBalance
        | MessageType::GetAccount
        | MessageType::GetTransfer
        | MessageType::ReadFeed => return Err(ReplyError::NotAReply { code }),
    })
}

/// A body with the type that it must fit.
#[derive(Clone, Copy)]
struct Body<'a> {
    message_type: MessageType,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn len_error(self) -> ReplyError {
        ReplyError::BodyLen { message_type: self.message_type, len_bytes: self.bytes.len() }
    }

    fn empty(self, reply: Reply<'a>) -> Result<Reply<'a>, ReplyError> {
        if self.bytes.is_empty() { Ok(reply) } else { Err(self.len_error()) }
    }

    fn one<T: FromBytes + KnownLayout + Immutable + Unaligned>(self) -> Result<&'a T, ReplyError> {
        T::ref_from_bytes(self.bytes).map_err(|_| self.len_error())
    }

    fn many<T: FromBytes + Immutable + Unaligned>(self) -> Result<&'a [T], ReplyError> {
        <[T]>::ref_from_bytes(self.bytes).map_err(|_| self.len_error())
    }

    fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(self) -> Result<(&'a T, &'a [u8]), ReplyError> {
        T::ref_from_prefix(self.bytes).map_err(|_| self.len_error())
    }

    fn transfer(self) -> Result<Reply<'a>, ReplyError> {
        let (reply, rest) = self.prefix::<TransferReply>()?;
        let balances = match rest {
            [] => None,
            rest => Some(<[Sums; 2]>::ref_from_bytes(rest).map_err(|_| self.len_error())?),
        };
        Ok(Reply::Transfer { reply, balances })
    }

    fn logged_in(self) -> Result<LoggedIn<'a>, ReplyError> {
        let (prefix, token) = self.prefix::<LoginReplyPrefix>()?;
        if token.len() != usize::from(prefix.token_len_bytes.get()) {
            return Err(self.len_error());
        }
        if prefix.reserved != [0; 5] {
            return Err(ReplyError::Field("reserved"));
        }
        Ok(LoggedIn {
            role: Role::from_wire(prefix.role).ok_or(ReplyError::Field("role"))?,
            customer_id: CustomerId::new(prefix.customer_id.get()),
            expires_at: Timestamp::from_nanos(prefix.expires_at.get()),
            token: std::str::from_utf8(token).map_err(|_| ReplyError::Field("token"))?,
        })
    }

    fn routes(self) -> Result<Routes<'a>, ReplyError> {
        Routes::decode(self.bytes).map_err(|error| match error {
            RoutesError::BodyLen => self.len_error(),
            RoutesError::Count { .. } => ReplyError::Field("count"),
            RoutesError::Field(field) => ReplyError::Field(field),
        })
    }

    fn feed(self) -> Result<FeedPage<'a>, ReplyError> {
        let (prefix, rest) = self.prefix::<FeedPagePrefix>()?;
        let entries = <[FeedEntry]>::ref_from_bytes(rest).map_err(|_| self.len_error())?;
        if entries.len() != prefix.count.get() as usize {
            return Err(self.len_error());
        }
        if prefix.reserved.get() != 0 {
            return Err(ReplyError::Field("reserved"));
        }
        Ok(FeedPage { next: prefix.next.get(), durable: prefix.durable.get(), entries })
    }

    fn refused(self) -> Result<Refused<'a>, ReplyError> {
        let (prefix, text) = self.prefix::<RefusedPrefix>()?;
        if text.len() != usize::from(prefix.text_len_bytes.get()) {
            return Err(self.len_error());
        }
        Ok(Refused {
            code: prefix.refusal.get(),
            retry_after_ms: prefix.retry_after_ms.get(),
            text: std::str::from_utf8(text).map_err(|_| ReplyError::Field("text"))?,
        })
    }
}

impl Reply<'_> {
    /// What a frame with this reply carries.
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::HelloReply,
            Self::Login(_) => MessageType::LoginReply,
            Self::Pong => MessageType::Pong,
            Self::Status(_) => MessageType::StatusReply,
            Self::Routes(_) => MessageType::RoutesReply,
            Self::OpenAccounts(_) => MessageType::OpenAccountsReply,
            Self::CloseAccount(_) => MessageType::CloseAccountReply,
            Self::FreezeAccount(_) => MessageType::FreezeAccountReply,
            Self::UnfreezeAccount(_) => MessageType::UnfreezeAccountReply,
            Self::SetLimits(_) => MessageType::SetLimitsReply,
            Self::Transfer { .. } => MessageType::TransferReply,
            Self::Chain(_) => MessageType::ChainReply,
            Self::Batch(_) => MessageType::BatchReply,
            Self::CancelId(_) => MessageType::CancelIdReply,
            Self::Balance(_) => MessageType::BalanceReply,
            Self::Account(_) => MessageType::AccountReply,
            Self::TransferFound(_) => MessageType::TransferFoundReply,
            Self::Feed(_) => MessageType::FeedPage,
            Self::Refused(_) => MessageType::Refused,
        }
    }

    /// Appends the reply as one frame. A refusal's text is cut at 65,535 bytes, between two characters.
    ///
    /// # Panics
    /// When the frame would be over the limit, or a token over 65,535 bytes.
    pub fn append_to(&self, out: &mut Vec<u8>, envelope: Envelope) {
        let (login, routes, feed, refused);
        let parts: &[&[u8]] = match self {
            Self::Hello(hello) => &[hello.as_bytes()],
            Self::Login(logged_in) => {
                login = logged_in.prefix();
                &[login.as_bytes(), logged_in.token.as_bytes()]
            }
            Self::Pong => &[],
            Self::Status(status) => &[status.as_bytes()],
            Self::Routes(told) => {
                routes = told.prefix();
                &[routes.as_bytes(), told.bytes()]
            }
            Self::OpenAccounts(items) | Self::Chain(items) | Self::Batch(items) => &[items.as_bytes()],
            Self::CloseAccount(item)
            | Self::FreezeAccount(item)
            | Self::UnfreezeAccount(item)
            | Self::SetLimits(item)
            | Self::CancelId(item) => &[item.as_bytes()],
            Self::Transfer { reply, balances: None } => &[reply.as_bytes()],
            Self::Transfer { reply, balances: Some(sums) } => &[reply.as_bytes(), sums.as_bytes()],
            Self::Balance(balance) => &[balance.as_bytes()],
            Self::Account(account) => &[account.as_bytes()],
            Self::TransferFound(found) => &[found.as_bytes()],
            Self::Feed(page) => {
                feed = page.prefix();
                &[feed.as_bytes(), page.entries.as_bytes()]
            }
            Self::Refused(body) => {
                let text = &body.text[..body.text.floor_char_boundary(usize::from(u16::MAX))];
                refused = RefusedPrefix {
                    refusal: U16::new(body.code),
                    text_len_bytes: U16::new(text.len() as u16),
                    retry_after_ms: U32::new(body.retry_after_ms),
                };
                &[refused.as_bytes(), text.as_bytes()]
            }
        };
        append_frame(out, envelope, self.message_type(), parts);
    }
}

impl LoggedIn<'_> {
    fn prefix(&self) -> LoginReplyPrefix {
        let token_len_bytes = u16::try_from(self.token.len()).expect("a token is a few hundred bytes");
        LoginReplyPrefix {
            role: self.role as u8,
            reserved: [0; 5],
            token_len_bytes: U16::new(token_len_bytes),
            customer_id: U64::new(self.customer_id.get()),
            expires_at: U64::new(self.expires_at.as_nanos()),
        }
    }
}

impl FeedPage<'_> {
    fn prefix(&self) -> FeedPagePrefix {
        FeedPagePrefix {
            next: U64::new(self.next),
            durable: U64::new(self.durable),
            count: U32::new(self.entries.len() as u32),
            reserved: U32::new(0),
        }
    }
}

#[cfg(test)]
mod tests;
