//! The codes of the links' messages.

#[allow(unused_imports, reason = "the documentation links to them")]
use super::*;

macro_rules! link_types {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal; )+) => {
        /// What a frame of a link carries. `0x0100..=0x01FF`: no message of a session lies there.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum LinkType { $( $(#[doc = $doc])+ $name = $code, )+ }

        impl LinkType {
            /// Every message type of the links.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// Reads a wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $( $code => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

link_types! {
    /// The first frame of a branch. Body: [`LinkHelloPrefix`], then the endpoint for clients (UTF-8).
    LinkHello = 0x0100;
    /// The leader takes the branch. Body [`LinkWelcome`].
    LinkWelcome = 0x0101;
    /// Another node leads. Body: [`LinkRedirectPrefix`], then its endpoint (UTF-8); then the connection closes.
    LinkRedirect = 0x0102;
    /// Both ways. Body [`LinkHeartbeat`].
    LinkHeartbeat = 0x0103;
    /// Registry to branch. Body: [`LinkRoutesPrefix`], then for each branch a [`LinkRoutePrefix`] and its endpoint.
    LinkRoutes = 0x0104;

    /// Branch to registry. Body: 1 to 4,096 [`CrossTransfer`] that the branch is the source of. It votes on them once they are
    /// durable.
    LinkBegin = 0x0110;
    /// Registry to branch. Body: 1 to 4,096 [`CrossTransfer`] to prepare.
    LinkPrepare = 0x0111;
    /// Branch to registry. Body: 1 to 4,096 [`VoteItem`], each behind its durable record.
    LinkVote = 0x0112;
    /// Registry to branch. Body: 1 to 4,096 [`DecisionItem`], each behind the registry's log.
    LinkDecision = 0x0113;
    /// Branch to registry. Body: 1 to 4,096 [`MarkItem`]: carried out, durably.
    LinkAcknowledge = 0x0114;
    /// Branch to registry. Body: 1 to 4,096 [`MarkItem`]: prepared, durably; what became of it?
    LinkAsk = 0x0115;
    /// Registry to branch. Body: 1 to 4,096 [`MarkItem`] whose begin was not taken, for want of room.
    LinkBusy = 0x0116;
    /// Branch to registry to branch. Body: 1 to 4,096 [`EndItem`] of holds that the sender has ended as the payer's branch,
    /// each behind its durable record.
    LinkEnd = 0x0117;
    /// Branch to registry to branch. Body: 1 to 4,096 [`EndItem`] as they came: carried out by the payee's branch, durably.
    LinkHeard = 0x0118;
    /// Branch to registry. Body: [`LinkChainPrefix`], then 1 to 256 [`ChainMember`]: a linked chain that the branch is the
    /// source of.
    LinkBeginChain = 0x0119;
    /// Registry to branch. Body as of [`LinkType::LinkBeginChain`]: the members whose credit account is there are to be
    /// prepared.
    LinkPrepareChain = 0x011A;

    /// An operator's or branch's request. Body: JSON (UTF-8).
    LinkCall = 0x0120;
    /// The answer, with the request's id. Body: JSON (UTF-8).
    LinkCallReply = 0x0121;

    /// The first frame of a registry node to another. Body [`LinkPeerHello`].
    LinkPeerHello = 0x0130;
    /// Between registry nodes: bytes that only the registry reads.
    LinkPeerCall = 0x0131;
    /// The answer, with the request's id: bytes that only the registry reads.
    LinkPeerReply = 0x0132;

    /// Registry to branch. Body: 1 to 4,096 [`MoveOrder`]: an operator wants these accounts moved.
    LinkMoveOrder = 0x0140;
    /// Branch to registry. Body: one [`MoveItem`] and its [`MoveHold`]: sealed, durably; the source's vote.
    LinkMoveBegin = 0x0141;
    /// Registry to branch. Body: one [`MoveItem`] and its [`MoveHold`] to prepare.
    LinkMovePrepare = 0x0142;
    /// Branch to registry. Body: 1 to 4,096 [`VoteItem`]: orders that the branch refuses, and why.
    LinkMoveRefused = 0x0143;
    /// Branch to registry, and on to the branch that is asked. Body: 1 to 4,096 [`IdItem`]: was this id used?
    LinkIdAsk = 0x0144;
    /// The way back. Body: 1 to 4,096 [`IdItem`] with the answer.
    LinkIdTold = 0x0145;
    /// Registry to branch, before any decision that depends on it. Body: 1 to 4,096 [`MovedItem`].
    LinkMoved = 0x0146;
}
