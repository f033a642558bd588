//! The bank's branches and where they are: the body of [`super::LinkType::LinkRoutes`], and of what clients are told
//! ([`crate::MessageType::RoutesReply`]).

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::{BranchStatus, LINK_ENDPOINT_LEN_BYTES_MAX, LINK_ROUTES_MAX, LinkRoutePrefix, LinkRoutesPrefix};
use crate::BranchId;

/// All branches: checked as a whole, read one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes<'a> {
    version: u64,
    count: u16,
    /// The routes behind the prefix.
    bytes: &'a [u8],
}

/// Where a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Which branch; not 0.
    pub branch_id: BranchId,
    /// How it is.
    pub status: BranchStatus,
    /// Where clients reach it, up to 256 bytes. A branch that answers for itself alone leaves it empty: where it
    /// was asked.
    pub endpoint: &'a str,
}

/// Why a body does not tell routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutesError {
    /// The routes do not fill the body, or go beyond it.
    #[error("the routes do not fill the body")]
    BodyLen,
    /// Over [`LINK_ROUTES_MAX`].
    #[error("{count} routes")]
    Count {
        /// How many.
        count: usize,
    },
    /// A field holds a value that its description rules out.
    #[error("field `{0}` is invalid")]
    Field(&'static str),
}

impl<'a> Routes<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`RoutesError`].
    pub fn decode(body: &'a [u8]) -> Result<Self, RoutesError> {
        let (prefix, mut rest) = LinkRoutesPrefix::ref_from_prefix(body).map_err(|_| RoutesError::BodyLen)?;
        let count = prefix.count.get();
        if usize::from(count) > LINK_ROUTES_MAX {
            return Err(RoutesError::Count { count: usize::from(count) });
        }
        field(prefix.reserved == [0; 6], "reserved")?;
        let routes = Self { version: prefix.version.get(), count, bytes: rest };
        for _ in 0..count {
            (_, rest) = split_route(rest)?;
        }
        if rest.is_empty() { Ok(routes) } else { Err(RoutesError::BodyLen) }
    }

    /// The body that tells `routes`.
    ///
    /// # Panics
    /// When there are over [`LINK_ROUTES_MAX`], or an endpoint is over [`LINK_ENDPOINT_LEN_BYTES_MAX`].
    pub fn encode<'b>(version: u64, routes: impl Iterator<Item = Route<'b>>) -> Vec<u8> {
        let mut body = Self { version, count: 0, bytes: &[] }.prefix().as_bytes().to_vec();
        let mut count = 0;
        for Route { branch_id, status, endpoint } in routes {
            let prefix = LinkRoutePrefix {
                branch_id: U16::new(branch_id.get()),
                endpoint_len_bytes: super::body::endpoint_len_bytes(endpoint),
                status: status as u8,
                reserved: [0; 3],
            };
            body.extend_from_slice(prefix.as_bytes());
            body.extend_from_slice(endpoint.as_bytes());
            count += 1;
        }
        assert!(count <= LINK_ROUTES_MAX, "{count} routes");
        let prefix = Routes { version, count: count as u16, bytes: &[] }.prefix();
        body[..LinkRoutesPrefix::LEN_BYTES].copy_from_slice(prefix.as_bytes());
        body
    }

    /// Rises with every change; 0 from a branch that stands alone.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The branches, in the order of the body.
    pub fn iter(&self) -> impl Iterator<Item = Route<'a>> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map(move |_| {
            let (route, behind) = split_route(rest).expect("checked when it was decoded");
            rest = behind;
            route
        })
    }

    /// What is in front of the routes.
    pub(crate) fn prefix(&self) -> LinkRoutesPrefix {
        LinkRoutesPrefix { version: U64::new(self.version), count: U16::new(self.count), reserved: [0; 6] }
    }

    /// What is behind it.
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn field(is_valid: bool, name: &'static str) -> Result<(), RoutesError> {
    if is_valid { Ok(()) } else { Err(RoutesError::Field(name)) }
}

/// The first route in `bytes`, and what is behind it.
fn split_route(bytes: &[u8]) -> Result<(Route<'_>, &[u8]), RoutesError> {
    let (prefix, rest) = LinkRoutePrefix::ref_from_prefix(bytes).map_err(|_| RoutesError::BodyLen)?;
    let len_bytes = usize::from(prefix.endpoint_len_bytes.get());
    field(len_bytes <= LINK_ENDPOINT_LEN_BYTES_MAX, "endpoint_len_bytes")?;
    field(prefix.branch_id.get() != 0, "branch_id")?;
    field(prefix.reserved == [0; 3], "reserved")?;
    let status = BranchStatus::from_wire(prefix.status).ok_or(RoutesError::Field("status"))?;
    let (endpoint, rest) = rest.split_at_checked(len_bytes).ok_or(RoutesError::BodyLen)?;
    let endpoint = std::str::from_utf8(endpoint).map_err(|_| RoutesError::Field("endpoint"))?;
    Ok((Route { branch_id: BranchId::new(prefix.branch_id.get()), status, endpoint }, rest))
}
