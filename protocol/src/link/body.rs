//! A frame of a link, read in place, and written.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::chains::ChainError;
use super::{
    BranchStatus, CrossTransfer, DecisionItem, EndItem, IdItem, LINK_ENDPOINT_LEN_BYTES_MAX, LINK_ITEMS_MAX,
    LINK_MAGIC, LINK_VERSION, LinkChain, LinkHeartbeat, LinkHelloPrefix, LinkItem, LinkPeerHello, LinkRedirectPrefix,
    LinkType, LinkWelcome, MarkItem, MoveBody, MoveHold, MoveItem, MoveOrder, MovedItem, Route, Routes, RoutesError,
    VoteItem,
};
use crate::{BranchId, Envelope, FrameHeader, Refusal, Timestamp};

/// A frame of a link, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFrame<'a> {
    /// See [`LinkType::LinkHello`].
    Hello(LinkHello<'a>),
    /// See [`LinkType::LinkWelcome`].
    Welcome(&'a LinkWelcome),
    /// See [`LinkType::LinkRedirect`].
    Redirect {
        /// Who leads; empty while nobody does.
        endpoint: &'a str,
        /// When to try again; 0 for at once.
        retry_after_ms: u32,
    },
    /// See [`LinkType::LinkHeartbeat`].
    Heartbeat(&'a LinkHeartbeat),
    /// See [`LinkType::LinkRoutes`].
    Routes(Routes<'a>),
    /// See [`LinkType::LinkBegin`].
    Begin(&'a [CrossTransfer]),
    /// See [`LinkType::LinkPrepare`].
    Prepare(&'a [CrossTransfer]),
    /// See [`LinkType::LinkVote`].
    Vote(&'a [VoteItem]),
    /// See [`LinkType::LinkDecision`].
    Decision(&'a [DecisionItem]),
    /// See [`LinkType::LinkAcknowledge`].
    Acknowledge(&'a [MarkItem]),
    /// See [`LinkType::LinkAsk`].
    Ask(&'a [MarkItem]),
    /// See [`LinkType::LinkBusy`].
    Busy(&'a [MarkItem]),
    /// See [`LinkType::LinkEnd`].
    End(&'a [EndItem]),
    /// See [`LinkType::LinkHeard`].
    Heard(&'a [EndItem]),
    /// See [`LinkType::LinkBeginChain`].
    BeginChain(LinkChain<'a>),
    /// See [`LinkType::LinkPrepareChain`].
    PrepareChain(LinkChain<'a>),
    /// See [`LinkType::LinkCall`]: JSON.
    Call(&'a str),
    /// See [`LinkType::LinkCallReply`]: JSON.
    CallReply(&'a str),
    /// See [`LinkType::LinkPeerHello`].
    PeerHello(&'a LinkPeerHello),
    /// See [`LinkType::LinkPeerCall`].
    PeerCall(&'a [u8]),
    /// See [`LinkType::LinkPeerReply`].
    PeerReply(&'a [u8]),
    /// See [`LinkType::LinkMoveOrder`].
    MoveOrder(&'a [MoveOrder]),
    /// See [`LinkType::LinkMoveBegin`].
    MoveBegin(MoveBody<'a>),
    /// See [`LinkType::LinkMovePrepare`].
    MovePrepare(MoveBody<'a>),
    /// See [`LinkType::LinkMoveRefused`].
    MoveRefused(&'a [VoteItem]),
    /// See [`LinkType::LinkIdAsk`].
    IdAsk(&'a [IdItem]),
    /// See [`LinkType::LinkIdTold`].
    IdTold(&'a [IdItem]),
    /// See [`LinkType::LinkMoved`].
    Moved(&'a [MovedItem]),
}

/// What a branch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHello<'a> {
    /// Who it is; not 0.
    pub branch_id: BranchId,
    /// Which registry it has pinned; 0 for none.
    pub cluster_id: u128,
    /// Drawn when its folder was made; not 0.
    pub incarnation: u128,
    /// Its clock.
    pub stamp: Timestamp,
    /// The version of the routes that it has.
    pub routes_version: u64,
    /// Where clients reach it, 1 to 256 bytes.
    pub endpoint: &'a str,
}

/// Why a frame is not one of a link. The peer breaks the rules: nothing of the frame counts, and the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The type is unknown, or that of a session.
    #[error("message type {code:#06x} is not one of a link")]
    NotALink {
        /// What the header said.
        code: u16,
    },
    /// The body's length does not fit the type.
    #[error("a body of {len_bytes} bytes does not fit {link_type:?}")]
    BodyLen {
        /// What the header said.
        link_type: LinkType,
        /// Bytes behind the header.
        len_bytes: usize,
    },
    /// No items, or too many.
    #[error("{count} items in one {link_type:?}")]
    Count {
        /// What the header said.
        link_type: LinkType,
        /// How many there are.
        count: usize,
    },
    /// The peer speaks another version of the links.
    #[error("version {version} of the links is not spoken here")]
    Version {
        /// What it said.
        version: u8,
    },
    /// A field holds a value that its description rules out.
    #[error("field `{field}` of a {link_type:?} is invalid")]
    Field {
        /// What the header said.
        link_type: LinkType,
        /// Which.
        field: &'static str,
    },
}

impl LinkError {
    /// The code that the peer is told before the link is closed.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::NotALink { .. } => Refusal::MessageTypeUnknown,
            Self::BodyLen { .. } => Refusal::BodyLenInvalid,
            Self::Count { .. } => Refusal::CountInvalid,
            Self::Version { .. } => Refusal::VersionUnsupported,
            Self::Field { .. } => Refusal::FieldInvalid,
        }
    }
}

/// Reads the body that came behind `header`.
///
/// # Errors
/// See [`LinkError`].
pub fn decode<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<LinkFrame<'a>, LinkError> {
    let code = header.message_type.get();
    let link_type = LinkType::from_code(code).ok_or(LinkError::NotALink { code })?;
    let body = Body { link_type, bytes: body };
    Ok(match link_type {
        LinkType::LinkHello => LinkFrame::Hello(body.hello()?),
        LinkType::LinkWelcome => LinkFrame::Welcome(body.welcome()?),
        LinkType::LinkRedirect => body.redirect()?,
        LinkType::LinkHeartbeat => LinkFrame::Heartbeat(body.heartbeat()?),
        LinkType::LinkRoutes => LinkFrame::Routes(body.routes()?),
        LinkType::LinkBegin => LinkFrame::Begin(body.items()?),
        LinkType::LinkPrepare => LinkFrame::Prepare(body.items()?),
        LinkType::LinkVote => LinkFrame::Vote(body.items()?),
        LinkType::LinkDecision => LinkFrame::Decision(body.items()?),
        LinkType::LinkAcknowledge => LinkFrame::Acknowledge(body.items()?),
        LinkType::LinkAsk => LinkFrame::Ask(body.items()?),
        LinkType::LinkBusy => LinkFrame::Busy(body.items()?),
        LinkType::LinkEnd => LinkFrame::End(body.items()?),
        LinkType::LinkHeard => LinkFrame::Heard(body.items()?),
        LinkType::LinkBeginChain => LinkFrame::BeginChain(body.chain()?),
        LinkType::LinkPrepareChain => LinkFrame::PrepareChain(body.chain()?),
        LinkType::LinkCall => LinkFrame::Call(body.text(body.bytes, "json")?),
        LinkType::LinkCallReply => LinkFrame::CallReply(body.text(body.bytes, "json")?),
        LinkType::LinkPeerHello => LinkFrame::PeerHello(body.peer_hello()?),
        LinkType::LinkPeerCall => LinkFrame::PeerCall(body.bytes),
        LinkType::LinkPeerReply => LinkFrame::PeerReply(body.bytes),
        LinkType::LinkMoveOrder => LinkFrame::MoveOrder(body.items()?),
        LinkType::LinkMoveBegin => LinkFrame::MoveBegin(body.moving()?),
        LinkType::LinkMovePrepare => LinkFrame::MovePrepare(body.moving()?),
        LinkType::LinkMoveRefused => LinkFrame::MoveRefused(body.items()?),
        LinkType::LinkIdAsk => LinkFrame::IdAsk(body.items()?),
        LinkType::LinkIdTold => LinkFrame::IdTold(body.items()?),
        LinkType::LinkMoved => LinkFrame::Moved(body.items()?),
    })
}

/// A body with the type that it must fit.
#[derive(Clone, Copy)]
struct Body<'a> {
    link_type: LinkType,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn len_error(self) -> LinkError {
        LinkError::BodyLen { link_type: self.link_type, len_bytes: self.bytes.len() }
    }

    fn field(self, is_valid: bool, field: &'static str) -> Result<(), LinkError> {
        if is_valid { Ok(()) } else { Err(LinkError::Field { link_type: self.link_type, field }) }
    }

    fn one<T: FromBytes + KnownLayout + Immutable + Unaligned>(self) -> Result<&'a T, LinkError> {
        T::ref_from_bytes(self.bytes).map_err(|_| self.len_error())
    }

    fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(self) -> Result<(&'a T, &'a [u8]), LinkError> {
        T::ref_from_prefix(self.bytes).map_err(|_| self.len_error())
    }

    fn text(self, bytes: &'a [u8], field: &'static str) -> Result<&'a str, LinkError> {
        std::str::from_utf8(bytes).map_err(|_| LinkError::Field { link_type: self.link_type, field })
    }

    fn items<T: LinkItem>(self) -> Result<&'a [T], LinkError> {
        let items = <[T]>::ref_from_bytes(self.bytes).map_err(|_| self.len_error())?;
        if !(1..=LINK_ITEMS_MAX).contains(&items.len()) {
            return Err(LinkError::Count { link_type: self.link_type, count: items.len() });
        }
        match items.iter().find_map(T::invalid_field) {
            Some(field) => Err(LinkError::Field { link_type: self.link_type, field }),
            None => Ok(items),
        }
    }

    fn moving(self) -> Result<MoveBody<'a>, LinkError> {
        let (account, holds) = self.prefix::<MoveItem>()?;
        let holds = <[MoveHold]>::ref_from_bytes(holds).map_err(|_| self.len_error())?;
        let body = MoveBody { account, holds };
        match body.invalid_field() {
            Some(field) => Err(LinkError::Field { link_type: self.link_type, field }),
            None => Ok(body),
        }
    }

    fn hello(self) -> Result<LinkHello<'a>, LinkError> {
        let (prefix, endpoint) = self.prefix::<LinkHelloPrefix>()?;
        self.greeting(prefix.magic, prefix.version)?;
        if endpoint.len() != usize::from(prefix.endpoint_len_bytes.get()) {
            return Err(self.len_error());
        }
        self.field((1..=LINK_ENDPOINT_LEN_BYTES_MAX).contains(&endpoint.len()), "endpoint_len_bytes")?;
        self.field(prefix.reserved == 0, "reserved")?;
        self.field(prefix.reserved_2.get() == 0, "reserved_2")?;
        self.field(prefix.branch_id.get() != 0, "branch_id")?;
        self.field(prefix.incarnation.get() != 0, "incarnation")?;
        Ok(LinkHello {
            branch_id: BranchId::new(prefix.branch_id.get()),
            cluster_id: prefix.cluster_id.get(),
            incarnation: prefix.incarnation.get(),
            stamp: Timestamp::from_nanos(prefix.stamp.get()),
            routes_version: prefix.routes_version.get(),
            endpoint: self.text(endpoint, "endpoint")?,
        })
    }

    fn greeting(self, magic: [u8; 8], version: u8) -> Result<(), LinkError> {
        self.field(magic == LINK_MAGIC, "magic")?;
        if version == LINK_VERSION { Ok(()) } else { Err(LinkError::Version { version }) }
    }

    fn welcome(self) -> Result<&'a LinkWelcome, LinkError> {
        let welcome = self.one::<LinkWelcome>()?;
        self.field(welcome.cluster_id.get() != 0, "cluster_id")?;
        self.field(welcome.reserved == [0; 8], "reserved")?;
        Ok(welcome)
    }

    fn redirect(self) -> Result<LinkFrame<'a>, LinkError> {
        let (prefix, endpoint) = self.prefix::<LinkRedirectPrefix>()?;
        if endpoint.len() != usize::from(prefix.endpoint_len_bytes.get()) {
            return Err(self.len_error());
        }
        self.field(endpoint.len() <= LINK_ENDPOINT_LEN_BYTES_MAX, "endpoint_len_bytes")?;
        self.field(prefix.reserved.get() == 0, "reserved")?;
        Ok(LinkFrame::Redirect {
            endpoint: self.text(endpoint, "endpoint")?,
            retry_after_ms: prefix.retry_after_ms.get(),
        })
    }

    fn heartbeat(self) -> Result<&'a LinkHeartbeat, LinkError> {
        let heartbeat = self.one::<LinkHeartbeat>()?;
        self.field(heartbeat.reserved == [0; 3], "reserved")?;
        let status = BranchStatus::from_wire(heartbeat.status);
        self.field(matches!(status, Some(BranchStatus::Serving | BranchStatus::Draining)), "status")?;
        Ok(heartbeat)
    }

    fn routes(self) -> Result<Routes<'a>, LinkError> {
        Routes::decode(self.bytes).map_err(|error| match error {
            RoutesError::BodyLen => self.len_error(),
            RoutesError::Count { count } => LinkError::Count { link_type: self.link_type, count },
            RoutesError::Field(field) => LinkError::Field { link_type: self.link_type, field },
        })
    }

    fn chain(self) -> Result<LinkChain<'a>, LinkError> {
        LinkChain::decode(self.bytes).map_err(|error| match error {
            ChainError::BodyLen => self.len_error(),
            ChainError::Count(count) => LinkError::Count { link_type: self.link_type, count },
            ChainError::Field(field) => LinkError::Field { link_type: self.link_type, field },
        })
    }

    fn peer_hello(self) -> Result<&'a LinkPeerHello, LinkError> {
        let hello = self.one::<LinkPeerHello>()?;
        self.greeting(hello.magic, hello.version)?;
        self.field(hello.reserved == [0; 7], "reserved")?;
        self.field(hello.incarnation.get() != 0, "incarnation")?;
        Ok(hello)
    }
}

impl Routes<'_> {
    /// Appends the frame that tells `routes`.
    ///
    /// # Panics
    /// As [`Routes::encode`].
    pub fn append<'b>(out: &mut Vec<u8>, version: u64, routes: impl Iterator<Item = Route<'b>>) {
        let body = Routes::encode(version, routes);
        let routes = Routes::decode(&body).expect("just written");
        LinkFrame::Routes(routes).append_to(out, Envelope::request(0));
    }
}

pub(super) fn endpoint_len_bytes(endpoint: &str) -> U16 {
    assert!(endpoint.len() <= LINK_ENDPOINT_LEN_BYTES_MAX, "an endpoint of {} bytes", endpoint.len());
    U16::new(endpoint.len() as u16)
}

impl LinkFrame<'_> {
    /// What a frame with this carries.
    pub const fn link_type(&self) -> LinkType {
        match self {
            Self::Hello(_) => LinkType::LinkHello,
            Self::Welcome(_) => LinkType::LinkWelcome,
            Self::Redirect { .. } => LinkType::LinkRedirect,
            Self::Heartbeat(_) => LinkType::LinkHeartbeat,
            Self::Routes(_) => LinkType::LinkRoutes,
            Self::Begin(_) => LinkType::LinkBegin,
            Self::Prepare(_) => LinkType::LinkPrepare,
            Self::Vote(_) => LinkType::LinkVote,
            Self::Decision(_) => LinkType::LinkDecision,
            Self::Acknowledge(_) => LinkType::LinkAcknowledge,
            Self::Ask(_) => LinkType::LinkAsk,
            Self::Busy(_) => LinkType::LinkBusy,
            Self::End(_) => LinkType::LinkEnd,
            Self::Heard(_) => LinkType::LinkHeard,
            Self::BeginChain(_) => LinkType::LinkBeginChain,
            Self::PrepareChain(_) => LinkType::LinkPrepareChain,
            Self::Call(_) => LinkType::LinkCall,
            Self::CallReply(_) => LinkType::LinkCallReply,
            Self::PeerHello(_) => LinkType::LinkPeerHello,
            Self::PeerCall(_) => LinkType::LinkPeerCall,
            Self::PeerReply(_) => LinkType::LinkPeerReply,
            Self::MoveOrder(_) => LinkType::LinkMoveOrder,
            Self::MoveBegin(_) => LinkType::LinkMoveBegin,
            Self::MovePrepare(_) => LinkType::LinkMovePrepare,
            Self::MoveRefused(_) => LinkType::LinkMoveRefused,
            Self::IdAsk(_) => LinkType::LinkIdAsk,
            Self::IdTold(_) => LinkType::LinkIdTold,
            Self::Moved(_) => LinkType::LinkMoved,
        }
    }

    /// Appends it as one frame. Counts and lengths must be those that [`decode`] accepts: the peer refuses others.
    ///
    /// # Panics
    /// When the frame would be over the limit, or an endpoint over [`LINK_ENDPOINT_LEN_BYTES_MAX`].
    pub fn append_to(&self, out: &mut Vec<u8>, envelope: Envelope) {
        let (hello, redirect, routes);
        let parts: [&[u8]; 2] = match self {
            Self::Hello(said) => {
                hello = said.prefix();
                [hello.as_bytes(), said.endpoint.as_bytes()]
            }
            Self::Welcome(welcome) => [welcome.as_bytes(), &[]],
            Self::Redirect { endpoint, retry_after_ms } => {
                redirect = LinkRedirectPrefix {
                    endpoint_len_bytes: endpoint_len_bytes(endpoint),
                    reserved: U16::new(0),
                    retry_after_ms: U32::new(*retry_after_ms),
                };
                [redirect.as_bytes(), endpoint.as_bytes()]
            }
            Self::Heartbeat(heartbeat) => [heartbeat.as_bytes(), &[]],
            Self::Routes(known) => {
                routes = known.prefix();
                [routes.as_bytes(), known.bytes()]
            }
            Self::Begin(items) | Self::Prepare(items) => [items.as_bytes(), &[]],
            Self::Vote(items) => [items.as_bytes(), &[]],
            Self::Decision(items) => [items.as_bytes(), &[]],
            Self::Acknowledge(items) | Self::Ask(items) | Self::Busy(items) => [items.as_bytes(), &[]],
            Self::End(items) | Self::Heard(items) => [items.as_bytes(), &[]],
            Self::BeginChain(chain) | Self::PrepareChain(chain) => [chain.prefix.as_bytes(), chain.member_bytes()],
            Self::Call(json) | Self::CallReply(json) => [json.as_bytes(), &[]],
            Self::PeerHello(hello) => [hello.as_bytes(), &[]],
            Self::PeerCall(bytes) | Self::PeerReply(bytes) => [bytes, &[]],
            Self::MoveOrder(items) => [items.as_bytes(), &[]],
            Self::MoveBegin(body) | Self::MovePrepare(body) => [body.account.as_bytes(), body.holds.as_bytes()],
            Self::MoveRefused(items) => [items.as_bytes(), &[]],
            Self::IdAsk(items) | Self::IdTold(items) => [items.as_bytes(), &[]],
            Self::Moved(items) => [items.as_bytes(), &[]],
        };
        let header = envelope.link_header(self.link_type(), parts[0].len() + parts[1].len());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(parts[0]);
        out.extend_from_slice(parts[1]);
    }
}

impl LinkHello<'_> {
    fn prefix(&self) -> LinkHelloPrefix {
        LinkHelloPrefix {
            magic: LINK_MAGIC,
            version: LINK_VERSION,
            reserved: 0,
            branch_id: U16::new(self.branch_id.get()),
            endpoint_len_bytes: endpoint_len_bytes(self.endpoint),
            reserved_2: U16::new(0),
            cluster_id: U128::new(self.cluster_id),
            incarnation: U128::new(self.incarnation),
            stamp: U64::new(self.stamp.as_nanos()),
            routes_version: U64::new(self.routes_version),
        }
    }
}
