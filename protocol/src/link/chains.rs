//! A linked chain whose members concern several branches: one frame each, from its source to the registry and on to every
//! other branch that has a part in it.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U64, U128};
use zerocopy::{FromBytes, IntoBytes};

use super::items::is_transfer_id;
use crate::BranchId;
use crate::message::{CHAIN_LEN_MAX, Transfer};

wire! {
    /// In front of a chain's members.
    LinkChainPrefix 64 {
        /// The chain's: that of its first member.
        0 id: U128,
        /// As in [`crate::FrameHeader::trace_id`]; 0 for none.
        16 trace_id: U128,
        /// The source's stamp when it prepared.
        32 stamp: U64,
        /// The stamp after which the registry gives up.
        40 deadline: U64,
        /// The home of all debit accounts; not 0.
        48 source: U16,
        /// Members that follow: 1 to 256.
        50 count: U16,
        /// 0.
        52 reserved: [u8; 12],
    }
}

wire! {
    /// One member of a chain, in the chain's order.
    ChainMember 128 {
        /// As the client asked for it.
        0 transfer: Transfer,
        /// The home of the credit account, the source or another branch; not 0.
        112 destination: U16,
        /// 0.
        114 reserved: [u8; 14],
    }
}

// The longest chain must fit into one frame.
const _: () = assert!(
    crate::FRAME_HEADER_LEN_BYTES + LinkChainPrefix::LEN_BYTES + CHAIN_LEN_MAX * ChainMember::LEN_BYTES
        <= crate::FRAME_LEN_BYTES_MAX
);

/// Why a body is not a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainError {
    /// The members do not fill it.
    BodyLen,
    /// None, or too many.
    Count(usize),
    /// A field holds a value that its description rules out.
    Field(&'static str),
}

/// A chain, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkChain<'a> {
    /// What goes for all of it.
    pub prefix: &'a LinkChainPrefix,
    /// The members, in order.
    pub members: &'a [ChainMember],
}

impl<'a> LinkChain<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, ChainError> {
        let (prefix, rest) = LinkChainPrefix::ref_from_prefix(body).map_err(|_| ChainError::BodyLen)?;
        let members = <[ChainMember]>::ref_from_bytes(rest).map_err(|_| ChainError::BodyLen)?;
        let count = usize::from(prefix.count.get());
        if !(1..=CHAIN_LEN_MAX).contains(&count) {
            return Err(ChainError::Count(count));
        }
        if members.len() != count {
            return Err(ChainError::BodyLen);
        }
        let chain = Self { prefix, members };
        match chain.invalid_field() {
            Some(field) => Err(ChainError::Field(field)),
            None => Ok(chain),
        }
    }

    /// The field that no sender that keeps the rules would send, if there is one.
    fn invalid_field(&self) -> Option<&'static str> {
        let Self { prefix, members } = self;
        let is_far = |member: &&ChainMember| member.destination != prefix.source;
        match () {
            () if !is_transfer_id(prefix.id.get()) || members[0].transfer.id != prefix.id => Some("id"),
            () if prefix.source.get() == 0 => Some("source"),
            () if prefix.reserved != [0; 12] => Some("reserved"),
            () if members.iter().any(|member| !is_transfer_id(member.transfer.id.get())) => Some("transfer"),
            // One that stays at its source is no other branch's business.
            () if members.iter().any(|member| member.destination.get() == 0) => Some("destination"),
            () if members.iter().find(is_far).is_none() => Some("destination"),
            () if members.iter().any(|member| member.reserved != [0; 14]) => Some("reserved"),
            () => None,
        }
    }

    /// The members' bytes.
    pub(super) fn member_bytes(&self) -> &'a [u8] {
        self.members.as_bytes()
    }

    /// The same, owned.
    pub fn to_owned(&self) -> CrossChain {
        CrossChain { prefix: *self.prefix, members: self.members.into() }
    }
}

/// A chain between branches that outlives its frame. A copy shares the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossChain {
    /// What goes for all of it.
    pub prefix: LinkChainPrefix,
    /// The members, in order: at least one.
    pub members: Arc<[ChainMember]>,
}

impl CrossChain {
    /// A chain that `source` has prepared at `stamp`: each transfer with the home of its credit account. The registry gives up
    /// after `deadline`.
    ///
    /// # Panics
    /// When there are no members, or more than [`CHAIN_LEN_MAX`].
    pub fn new(
        source: BranchId,
        members: impl IntoIterator<Item = (Transfer, BranchId)>,
        (stamp, deadline): (u64, u64),
        trace_id: u128,
    ) -> Self {
        let member = |(transfer, destination): (Transfer, BranchId)| ChainMember {
            transfer,
            destination: U16::new(destination.get()),
            reserved: [0; 14],
        };
        let members: Arc<[ChainMember]> = members.into_iter().map(member).collect();
        assert!((1..=CHAIN_LEN_MAX).contains(&members.len()), "a chain of {} members", members.len());
        let prefix = LinkChainPrefix {
            id: members[0].transfer.id,
            trace_id: U128::new(trace_id),
            stamp: U64::new(stamp),
            deadline: U64::new(deadline),
            source: U16::new(source.get()),
            count: U16::new(members.len() as u16),
            reserved: [0; 12],
        };
        Self { prefix, members }
    }

    /// As it is written.
    pub fn as_link(&self) -> LinkChain<'_> {
        LinkChain { prefix: &self.prefix, members: &self.members }
    }

    /// The home of all debit accounts.
    pub const fn source(&self) -> BranchId {
        BranchId::new(self.prefix.source.get())
    }

    /// Every branch that has a part in it, the source first; some more than once.
    pub fn branches(&self) -> impl Iterator<Item = BranchId> + '_ {
        let destinations = self.members.iter().map(|member| BranchId::new(member.destination.get()));
        std::iter::once(self.source()).chain(destinations)
    }

    /// The members whose credit account is at `branch`, each with its place in the chain, from 0.
    pub fn members_at(&self, branch: BranchId) -> impl Iterator<Item = (usize, &ChainMember)> + '_ {
        self.members.iter().enumerate().filter(move |(_, member)| member.destination.get() == branch.get())
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::link::{LinkError, LinkFrame, LinkType, decode};
    use crate::{Envelope, FrameHeader, split_frame};

    const HERE: BranchId = BranchId::new(1);
    const THERE: BranchId = BranchId::new(2);

    fn chain(destinations: &[BranchId]) -> CrossChain {
        let transfer = |at: usize| Transfer { id: (at as u128 + 5).into(), ..Transfer::new_zeroed() };
        let members = destinations.iter().enumerate().map(|(at, &destination)| (transfer(at), destination));
        CrossChain::new(HERE, members, (7, 9), 3)
    }

    fn body_of(chain: &CrossChain) -> Vec<u8> {
        let mut frame = Vec::new();
        LinkFrame::BeginChain(chain.as_link()).append_to(&mut frame, Envelope::request(0));
        frame.split_off(crate::FRAME_HEADER_LEN_BYTES)
    }

    fn error_of(body: &[u8]) -> Option<LinkError> {
        decode(&FrameHeader::of_link(LinkType::LinkBeginChain, 0, body.len()), body).err()
    }

    #[test]
    fn a_chain_comes_back_and_says_who_has_a_part_in_it() {
        let sent = chain(&[HERE, THERE, THERE]);
        let mut frame = Vec::new();
        LinkFrame::PrepareChain(sent.as_link()).append_to(&mut frame, Envelope::request(0));
        let (header, body) = split_frame(&frame).expect("valid").expect("whole");
        let Ok(LinkFrame::PrepareChain(read)) = decode(header, body) else { panic!("no chain") };
        assert_eq!(read.to_owned(), sent);
        assert_eq!(sent.members_at(THERE).map(|(at, _)| at).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(sent.branches().collect::<Vec<_>>(), [HERE, HERE, THERE, THERE]);
    }

    #[test]
    fn a_chain_that_cannot_be_is_refused_by_its_field() {
        let good = chain(&[HERE, THERE]);
        assert_eq!(error_of(&body_of(&good)), None);
        let field = |field| Some(LinkError::Field { link_type: LinkType::LinkBeginChain, field });
        let with = |change: &dyn Fn(&mut LinkChainPrefix, &mut [ChainMember])| {
            let (mut prefix, mut members) = (good.prefix, good.members.to_vec());
            change(&mut prefix, &mut members);
            error_of(&body_of(&CrossChain { prefix, members: members.into() }))
        };
        assert_eq!(with(&|prefix, _| prefix.id = 6.into()), field("id"));
        assert_eq!(with(&|_, members| members[0].transfer.id = 0.into()), field("id"));
        assert_eq!(with(&|prefix, _| prefix.source = 0.into()), field("source"));
        assert_eq!(with(&|prefix, _| prefix.reserved[11] = 1), field("reserved"));
        assert_eq!(with(&|_, members| members[1].transfer.id = u128::MAX.into()), field("transfer"));
        assert_eq!(with(&|_, members| members[0].destination = 0.into()), field("destination"));
        assert_eq!(with(&|_, members| members[1].destination = 1.into()), field("destination"));
        assert_eq!(with(&|_, members| members[1].reserved[0] = 1), field("reserved"));
        let count = |count| Some(LinkError::Count { link_type: LinkType::LinkBeginChain, count });
        assert_eq!(with(&|prefix, _| prefix.count = 0.into()), count(0));
        assert_eq!(with(&|prefix, _| prefix.count = 257.into()), count(257));
        let len_bytes = body_of(&good).len();
        let short = Some(LinkError::BodyLen { link_type: LinkType::LinkBeginChain, len_bytes });
        assert_eq!(with(&|prefix, _| prefix.count = 3.into()), short);
        let cut = &body_of(&good)[..len_bytes - 1];
        let short = LinkError::BodyLen { link_type: LinkType::LinkBeginChain, len_bytes: len_bytes - 1 };
        assert_eq!(error_of(cut), Some(short));
    }
}
