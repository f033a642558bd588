//! Requests, from client to branch: a frame's body read in place as what its type says, or refused by name.
//!
//! What is checked here depends on the frame alone: lengths, counts, reserved fields, and values that no
//! state of the branch could make valid. What a transfer or an account to open says is the ledger's to check,
//! each entry of a batch by itself, its reserved fields too: one bad entry must not take the others with it.
//!
//! Invariant: `decode` allocates nothing and never panics, and what it accepts encodes to the same bytes.

use std::fmt;

use zerocopy::byteorder::little_endian::{U16, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::{Envelope, append_frame};
use crate::message::{
    AccountOpen, AccountRef, BATCH_LEN_MAX, CHAIN_LEN_MAX, FEED_WAIT_MS_MAX, FeedRead, HELLO_MAGIC, Hello,
    LOGIN_PASSWORD, LOGIN_TOKEN, LimitsSet, LoginPrefix, ReadAfter, SECRET_LEN_BYTES_MAX, Transfer, TransferRef,
    USER_LEN_BYTES_MAX,
};
use crate::{AccountId, FrameHeader, MessageType, Refusal, Timestamp, TransferId};

/// A request, borrowed from the frame that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// See [`MessageType::Hello`].
    Hello(&'a Hello),
    /// See [`MessageType::Login`].
    Login(Login<'a>),
    /// See [`MessageType::Ping`].
    Ping,
    /// See [`MessageType::GetStatus`].
    GetStatus,
    /// See [`MessageType::GetRoutes`].
    GetRoutes,
    /// See [`MessageType::OpenAccounts`].
    OpenAccounts(&'a [AccountOpen]),
    /// See [`MessageType::CloseAccount`].
    CloseAccount(AccountId),
    /// See [`MessageType::FreezeAccount`].
    FreezeAccount(AccountId),
    /// See [`MessageType::UnfreezeAccount`].
    UnfreezeAccount(AccountId),
    /// See [`MessageType::SetLimits`].
    SetLimits(&'a LimitsSet),
    /// See [`MessageType::Transfer`].
    Transfer(&'a Transfer),
    /// See [`MessageType::Chain`].
    Chain(&'a [Transfer]),
    /// See [`MessageType::Batch`].
    Batch(&'a [Transfer]),
    /// See [`MessageType::CancelId`].
    CancelId(TransferId),
    /// See [`MessageType::GetBalance`].
    GetBalance(AccountId),
    /// See [`MessageType::GetAccount`].
    GetAccount(AccountId),
    /// See [`MessageType::GetTransfer`].
    GetTransfer(TransferId),
    /// A look-up with [`ReadAfter`] behind its id: it shows everything up to this stamp.
    ReadAfter(Timestamp, Lookup),
    /// See [`MessageType::ReadFeed`].
    ReadFeed(&'a FeedRead),
}

/// What a look-up is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// See [`MessageType::GetBalance`].
    Balance(AccountId),
    /// See [`MessageType::GetAccount`].
    Account(AccountId),
    /// See [`MessageType::GetTransfer`].
    Transfer(TransferId),
}

/// How a user proves who it is. Printing it shows no secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login<'a> {
    /// By name and password.
    Password {
        /// 1 to 64 bytes.
        user: &'a str,
        /// 1 to 4,096 bytes.
        password: &'a [u8],
    },
    /// By an access token from an earlier login: 1 to 4,096 bytes.
    Token(&'a str),
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

/// Reads the body that came behind `header`.
///
/// Refuses in this order: an unknown type, a length that does not fit the type, a count out of range, a
/// reserved or otherwise impossible field.
pub fn decode<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<Request<'a>, Refusal> {
    let message_type = header.message_type().ok_or(Refusal::MessageTypeUnknown)?;
    Ok(match message_type {
        MessageType::Hello => Request::Hello(decode_hello(body)?),
        MessageType::Login => Request::Login(decode_login(body)?),
        MessageType::Ping => empty(body, Request::Ping)?,
        MessageType::GetStatus => empty(body, Request::GetStatus)?,
        MessageType::GetRoutes => empty(body, Request::GetRoutes)?,
        MessageType::OpenAccounts => Request::OpenAccounts(many(body, BATCH_LEN_MAX)?),
        MessageType::CloseAccount => Request::CloseAccount(account_id(body)?),
        MessageType::FreezeAccount => Request::FreezeAccount(account_id(body)?),
        MessageType::UnfreezeAccount => Request::UnfreezeAccount(account_id(body)?),
        MessageType::SetLimits => {
            let limits = one::<LimitsSet>(body)?;
            id_in_range(limits.id.get())?;
            Request::SetLimits(limits)
        }
        MessageType::Transfer => Request::Transfer(one(body)?),
        MessageType::Chain => Request::Chain(many(body, CHAIN_LEN_MAX)?),
        MessageType::Batch => Request::Batch(many(body, BATCH_LEN_MAX)?),
        MessageType::CancelId => Request::CancelId(transfer_id(body)?),
        MessageType::GetBalance | MessageType::GetAccount | MessageType::GetTransfer => {
            decode_lookup(message_type, body)?
        }
        MessageType::ReadFeed => {
            let read = one::<FeedRead>(body)?;
            if read.wait_ms.get() > FEED_WAIT_MS_MAX {
                return Err(Refusal::FieldInvalid);
            }
            Request::ReadFeed(read)
        }
        MessageType::HelloReply
        | MessageType::LoginReply
        | MessageType::Pong
        | MessageType::StatusReply
        | MessageType::RoutesReply
        | MessageType::OpenAccountsReply
        | MessageType::CloseAccountReply
        | MessageType::FreezeAccountReply
        | MessageType::UnfreezeAccountReply
        | MessageType::SetLimitsReply
        | MessageType::TransferReply
        | MessageType::ChainReply
        | MessageType::BatchReply
        | MessageType::CancelIdReply
        | MessageType::BalanceReply
        | MessageType::AccountReply
        | MessageType::TransferFoundReply
        | MessageType::FeedPage
        | MessageType::Refused => return Err(Refusal::MessageTypeUnknown),
    })
}

impl Request<'_> {
    /// What a frame with this request carries.
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::Hello,
            Self::Login(_) => MessageType::Login,
            Self::Ping => MessageType::Ping,
            Self::GetStatus => MessageType::GetStatus,
            Self::GetRoutes => MessageType::GetRoutes,
            Self::OpenAccounts(_) => MessageType::OpenAccounts,
            Self::CloseAccount(_) => MessageType::CloseAccount,
            Self::FreezeAccount(_) => MessageType::FreezeAccount,
            Self::UnfreezeAccount(_) => MessageType::UnfreezeAccount,
            Self::SetLimits(_) => MessageType::SetLimits,
            Self::Transfer(_) => MessageType::Transfer,
            Self::Chain(_) => MessageType::Chain,
            Self::Batch(_) => MessageType::Batch,
            Self::CancelId(_) => MessageType::CancelId,
            Self::GetBalance(_) => MessageType::GetBalance,
            Self::GetAccount(_) => MessageType::GetAccount,
            Self::GetTransfer(_) => MessageType::GetTransfer,
            Self::ReadAfter(_, lookup) => lookup.message_type(),
            Self::ReadFeed(_) => MessageType::ReadFeed,
        }
    }

    /// Appends the request as one frame. The lengths and counts must be those that [`decode`] accepts: the
    /// server refuses others.
    ///
    /// # Panics
    /// When the frame would be over the limit, or a name or secret over 65,535 bytes.
    pub fn append_to(&self, out: &mut Vec<u8>, envelope: Envelope) {
        let (id, after);
        let parts: &[&[u8]] = match self {
            Self::Hello(hello) => &[hello.as_bytes()],
            Self::Login(login) => return login.append_to(out, envelope),
            Self::Ping | Self::GetStatus | Self::GetRoutes => &[],
            Self::OpenAccounts(opens) => &[opens.as_bytes()],
            Self::CloseAccount(account_id)
            | Self::FreezeAccount(account_id)
            | Self::UnfreezeAccount(account_id)
            | Self::GetBalance(account_id)
            | Self::GetAccount(account_id) => {
                id = U128::new(account_id.get());
                &[id.as_bytes()]
            }
            Self::SetLimits(limits) => &[limits.as_bytes()],
            Self::Transfer(transfer) => &[transfer.as_bytes()],
            Self::Chain(transfers) | Self::Batch(transfers) => &[transfers.as_bytes()],
            Self::CancelId(transfer_id) | Self::GetTransfer(transfer_id) => {
                id = U128::new(transfer_id.get());
                &[id.as_bytes()]
            }
            Self::ReadAfter(stamp, lookup) => {
                id = U128::new(lookup.id());
                after = ReadAfter { stamp: stamp.as_nanos().into() };
                &[id.as_bytes(), after.as_bytes()]
            }
            Self::ReadFeed(read) => &[read.as_bytes()],
        };
        append_frame(out, envelope, self.message_type(), parts);
    }
}

impl Lookup {
    const fn message_type(self) -> MessageType {
        match self {
            Self::Balance(_) => MessageType::GetBalance,
            Self::Account(_) => MessageType::GetAccount,
            Self::Transfer(_) => MessageType::GetTransfer,
        }
    }

    /// Of the account or transfer.
    pub const fn id(self) -> u128 {
        match self {
            Self::Balance(id) | Self::Account(id) => id.get(),
            Self::Transfer(id) => id.get(),
        }
    }
}

impl Login<'_> {
    fn append_to(&self, out: &mut Vec<u8>, envelope: Envelope) {
        let (method, user, secret) = match self {
            Self::Password { user, password } => (LOGIN_PASSWORD, user.as_bytes(), *password),
            Self::Token(token) => (LOGIN_TOKEN, &b""[..], token.as_bytes()),
        };
        let len = |bytes: &[u8]| U16::new(u16::try_from(bytes.len()).expect("a name or secret is at most 4,096 bytes"));
        let prefix = LoginPrefix {
            method,
            reserved: 0,
            user_len_bytes: len(user),
            secret_len_bytes: len(secret),
            reserved_2: U16::new(0),
        };
        append_frame(out, envelope, MessageType::Login, &[prefix.as_bytes(), user, secret]);
    }
}

impl Hello {
    /// The hello of a client that speaks only this build's version.
    pub const fn current() -> Self {
        Self {
            magic: HELLO_MAGIC,
            version_min: crate::PROTOCOL_VERSION,
            version_max: crate::PROTOCOL_VERSION,
            reserved: [0; 6],
        }
    }

    /// The version that both sides speak: the only one there is, or a refusal.
    pub const fn choose_version(&self) -> Result<u8, Refusal> {
        if self.version_min <= crate::PROTOCOL_VERSION && crate::PROTOCOL_VERSION <= self.version_max {
            Ok(crate::PROTOCOL_VERSION)
        } else {
            Err(Refusal::VersionUnsupported)
        }
    }
}

fn decode_lookup(message_type: MessageType, body: &[u8]) -> Result<Request<'_>, Refusal> {
    let (id, after) = match body.len().checked_sub(ReadAfter::LEN_BYTES) {
        Some(at) if at == AccountRef::LEN_BYTES => {
            let (id, after) = body.split_at(at);
            (id, Some(Timestamp::from_nanos(one::<ReadAfter>(after)?.stamp.get())))
        }
        Some(_) | None => (body, None),
    };
    let lookup = match message_type {
        MessageType::GetBalance => Lookup::Balance(account_id(id)?),
        MessageType::GetAccount => Lookup::Account(account_id(id)?),
        _ => Lookup::Transfer(transfer_id(id)?),
    };
    Ok(match (after, lookup) {
        (Some(stamp), lookup) => Request::ReadAfter(stamp, lookup),
        (None, Lookup::Balance(id)) => Request::GetBalance(id),
        (None, Lookup::Account(id)) => Request::GetAccount(id),
        (None, Lookup::Transfer(id)) => Request::GetTransfer(id),
    })
}

fn decode_hello(body: &[u8]) -> Result<&Hello, Refusal> {
    let hello = one::<Hello>(body)?;
    if hello.magic != HELLO_MAGIC || hello.version_min > hello.version_max || hello.reserved != [0; 6] {
        return Err(Refusal::FieldInvalid);
    }
    Ok(hello)
}

fn decode_login(body: &[u8]) -> Result<Login<'_>, Refusal> {
    let (prefix, rest) = LoginPrefix::ref_from_prefix(body).map_err(|_| Refusal::BodyLenInvalid)?;
    let user_len_bytes = usize::from(prefix.user_len_bytes.get());
    let secret_len_bytes = usize::from(prefix.secret_len_bytes.get());
    if rest.len() != user_len_bytes + secret_len_bytes {
        return Err(Refusal::BodyLenInvalid);
    }
    let (user, secret) = rest.split_at(user_len_bytes);
    let secret_fits = (1..=SECRET_LEN_BYTES_MAX).contains(&secret_len_bytes);
    if prefix.reserved != 0 || prefix.reserved_2.get() != 0 || !secret_fits {
        return Err(Refusal::FieldInvalid);
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Refusal::FieldInvalid);
    match (prefix.method, user_len_bytes) {
        (LOGIN_PASSWORD, 1..=USER_LEN_BYTES_MAX) => Ok(Login::Password { user: text(user)?, password: secret }),
        (LOGIN_TOKEN, 0) => Ok(Login::Token(text(secret)?)),
        _ => Err(Refusal::FieldInvalid),
    }
}

fn empty<'a>(body: &[u8], request: Request<'a>) -> Result<Request<'a>, Refusal> {
    if body.is_empty() { Ok(request) } else { Err(Refusal::BodyLenInvalid) }
}

fn one<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> Result<&T, Refusal> {
    T::ref_from_bytes(body).map_err(|_| Refusal::BodyLenInvalid)
}

fn many<T: FromBytes + Immutable + Unaligned>(body: &[u8], count_max: usize) -> Result<&[T], Refusal> {
    let entries = <[T]>::ref_from_bytes(body).map_err(|_| Refusal::BodyLenInvalid)?;
    if (1..=count_max).contains(&entries.len()) { Ok(entries) } else { Err(Refusal::CountInvalid) }
}

fn account_id(body: &[u8]) -> Result<AccountId, Refusal> {
    Ok(AccountId::new(id_in_range(one::<AccountRef>(body)?.id.get())?))
}

fn transfer_id(body: &[u8]) -> Result<TransferId, Refusal> {
    Ok(TransferId::new(id_in_range(one::<TransferRef>(body)?.id.get())?))
}

fn id_in_range(id: u128) -> Result<u128, Refusal> {
    match id {
        0 => Err(Refusal::IdMustNotBeZero),
        u128::MAX => Err(Refusal::IdMustNotBeMax),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests;
