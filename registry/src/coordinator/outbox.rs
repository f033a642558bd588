//! What waits for one branch's link.

use std::sync::Arc;

use tally_protocol::link::{
    AccountMove, CrossChain, CrossTransfer, DecisionItem, EndItem, IdItem, LinkFrame, MarkItem, MoveOrder, append_items,
};
use tally_protocol::{Envelope, LinkType};

/// The most items of one kind that wait for a link: two seconds of the bank's traffic. A link that is slower than that is
/// as good as gone.
pub const OUTBOX_ITEMS_MAX: usize = 65_536;

/// See the module. The methods that add say whether there was room.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    prepares: Vec<CrossTransfer>,
    chains: Vec<CrossChain>,
    /// Members of all of them: so many items they count for.
    chain_members: usize,
    decisions: Vec<DecisionItem>,
    busy: Vec<MarkItem>,
    ends: Vec<EndItem>,
    heard: Vec<EndItem>,
    orders: Vec<MoveOrder>,
    moves: Vec<Arc<AccountMove>>,
    asked_ids: Vec<IdItem>,
    told_ids: Vec<IdItem>,
}

impl Outbox {
    pub(super) fn prepare(&mut self, item: &CrossTransfer) -> bool {
        push(&mut self.prepares, *item)
    }

    pub(super) fn prepare_chain(&mut self, chain: &CrossChain) -> bool {
        let has_room = self.chain_members + chain.members.len() <= OUTBOX_ITEMS_MAX;
        if has_room {
            self.chain_members += chain.members.len();
            self.chains.push(chain.clone());
        }
        has_room
    }

    pub(super) fn tell(&mut self, item: DecisionItem) -> bool {
        push(&mut self.decisions, item)
    }

    pub(super) fn busy(&mut self, item: MarkItem) -> bool {
        push(&mut self.busy, item)
    }

    pub(super) fn end(&mut self, item: EndItem) -> bool {
        push(&mut self.ends, item)
    }

    pub(super) fn heard(&mut self, item: EndItem) -> bool {
        push(&mut self.heard, item)
    }

    pub(super) fn order(&mut self, item: MoveOrder) -> bool {
        push(&mut self.orders, item)
    }

    pub(super) fn prepare_move(&mut self, moving: &Arc<AccountMove>) -> bool {
        push(&mut self.moves, moving.clone())
    }

    pub(super) fn ask_id(&mut self, item: IdItem) -> bool {
        push(&mut self.asked_ids, item)
    }

    pub(super) fn tell_id(&mut self, item: IdItem) -> bool {
        push(&mut self.told_ids, item)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.prepares.is_empty()
            && self.chains.is_empty()
            && self.decisions.is_empty()
            && self.busy.is_empty()
            && self.ends.is_empty()
            && self.heard.is_empty()
            && self.orders.is_empty()
            && self.moves.is_empty()
            && self.asked_ids.is_empty()
            && self.told_ids.is_empty()
    }

    /// Appends everything as frames: decisions first, somebody's client waits for them.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        append_items(out, LinkType::LinkDecision, self.decisions.drain(..));
        append_items(out, LinkType::LinkPrepare, self.prepares.drain(..));
        for chain in self.chains.drain(..) {
            LinkFrame::PrepareChain(chain.as_link()).append_to(out, Envelope::request(0));
        }
        self.chain_members = 0;
        append_items(out, LinkType::LinkEnd, self.ends.drain(..));
        append_items(out, LinkType::LinkHeard, self.heard.drain(..));
        append_items(out, LinkType::LinkBusy, self.busy.drain(..));
        append_items(out, LinkType::LinkMoveOrder, self.orders.drain(..));
        for moving in self.moves.drain(..) {
            LinkFrame::MovePrepare(moving.body()).append_to(out, Envelope::request(0));
        }
        append_items(out, LinkType::LinkIdAsk, self.asked_ids.drain(..));
        append_items(out, LinkType::LinkIdTold, self.told_ids.drain(..));
    }
}

fn push<T>(items: &mut Vec<T>, item: T) -> bool {
    let has_room = items.len() < OUTBOX_ITEMS_MAX;
    if has_room {
        items.push(item);
    }
    has_room
}
