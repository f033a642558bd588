//! What the links' messages carry beside items.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

/// [`LinkHelloPrefix::magic`] and [`LinkPeerHello::magic`].
pub const LINK_MAGIC: [u8; 8] = *b"TALLYLNK";
/// The only version of the links that this build speaks.
pub const LINK_VERSION: u8 = 2;
/// The longest endpoint, as text `host:port`: a host name has at most 253 bytes.
pub const LINK_ENDPOINT_LEN_BYTES_MAX: usize = 256;
/// The most branches in one [`super::LinkType::LinkRoutes`].
pub const LINK_ROUTES_MAX: usize = 1_024;
/// The longest JSON of a call or its answer: what fits into one frame.
pub const LINK_CALL_LEN_BYTES_MAX: usize = crate::FRAME_LEN_BYTES_MAX - crate::FRAME_HEADER_LEN_BYTES;

// All routes must fit into one frame.
const _: () = assert!(
    crate::FRAME_HEADER_LEN_BYTES
        + LinkRoutesPrefix::LEN_BYTES
        + LINK_ROUTES_MAX * (LinkRoutePrefix::LEN_BYTES + LINK_ENDPOINT_LEN_BYTES_MAX)
        <= crate::FRAME_LEN_BYTES_MAX
);

wire! {
    /// In front of the endpoint that a branch tells to the registry.
    LinkHelloPrefix 64 {
        /// [`LINK_MAGIC`].
        0 magic: [u8; 8],
        /// [`LINK_VERSION`].
        8 version: u8,
        /// 0.
        9 reserved: u8,
        /// Who dials; not 0.
        10 branch_id: U16,
        /// Bytes of the endpoint that follows: 1 to 256.
        12 endpoint_len_bytes: U16,
        /// 0.
        14 reserved_2: U16,
        /// The registry that the branch has pinned; 0 while it knows none.
        16 cluster_id: U128,
        /// Drawn when the branch's folder was made; not 0.
        32 incarnation: U128,
        /// The branch's clock.
        48 stamp: U64,
        /// The version of the routes that it has; 0 for none.
        56 routes_version: U64,
    }
}

wire! {
    /// The leader's answer to a hello.
    LinkWelcome 48 {
        /// To be pinned by a branch that knew none.
        0 cluster_id: U128,
        /// The registry node that leads.
        16 node_id: U64,
        /// Since which election.
        24 term: U64,
        /// The registry's clock.
        32 stamp: U64,
        /// 0.
        40 reserved: [u8; 8],
    }
}

wire! {
    /// In front of the leader's endpoint.
    LinkRedirectPrefix 8 {
        /// Bytes of the endpoint that follows; 0 while nobody leads: try again.
        0 endpoint_len_bytes: U16,
        /// 0.
        2 reserved: U16,
        /// When to try again, in milliseconds; 0 for at once.
        4 retry_after_ms: U32,
    }
}

/// How a branch is. The value of [`LinkHeartbeat::status`] and [`LinkRoutePrefix::status`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BranchStatus {
    /// It takes new transfers.
    Serving = 1,
    /// It takes no new transfers and ends those that it has.
    Draining = 2,
    /// No heartbeat for a while: it may be down.
    Suspect = 3,
    /// No heartbeat for longer.
    Down = 4,
    /// It has left the bank.
    Left = 5,
}

impl BranchStatus {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Serving,
            2 => Self::Draining,
            3 => Self::Suspect,
            4 => Self::Down,
            5 => Self::Left,
            _ => return None,
        })
    }

    /// The name in logs, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

wire! {
    /// Both ways, every 250 ms.
    LinkHeartbeat 32 {
        /// The sender's clock.
        0 stamp: U64,
        /// The version of the routes that it has.
        8 routes_version: U64,
        /// From a branch: everything before this position of its journal is durable. From the registry: 0.
        16 durable: U64,
        /// From a branch: transfers that are prepared and not decided. From the registry: of all branches.
        24 in_doubt: U32,
        /// [`BranchStatus`], of the sender: serving or draining.
        28 status: u8,
        /// 0.
        29 reserved: [u8; 3],
    }
}

wire! {
    /// In front of the routes.
    LinkRoutesPrefix 16 {
        /// Rises with every change.
        0 version: U64,
        /// Branches that follow.
        8 count: U16,
        /// 0.
        10 reserved: [u8; 6],
    }
}

wire! {
    /// In front of one branch's endpoint.
    LinkRoutePrefix 8 {
        /// Which branch.
        0 branch_id: U16,
        /// Bytes of the endpoint that follows.
        2 endpoint_len_bytes: U16,
        /// [`BranchStatus`].
        4 status: u8,
        /// 0.
        5 reserved: [u8; 3],
    }
}

wire! {
    /// The first frame from one registry node to another.
    LinkPeerHello 80 {
        /// [`LINK_MAGIC`].
        0 magic: [u8; 8],
        /// [`LINK_VERSION`].
        8 version: u8,
        /// 0.
        9 reserved: [u8; 7],
        /// The registry that both belong to; 0 from a node that has not joined one.
        16 cluster_id: U128,
        /// Drawn when the dialling node's folder was made; not 0.
        32 incarnation: U128,
        /// What the dialling node takes the other's to be; 0 for not known.
        48 to_incarnation: U128,
        /// Who dials; 0 from a node that has not joined.
        64 node_id: U64,
        /// Who is dialled; 0 for whoever answers.
        72 to_node_id: U64,
    }
}
