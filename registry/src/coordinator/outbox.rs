//! What waits for one branch's link.

use tally_protocol::LinkType;
use tally_protocol::link::{CrossTransfer, DecisionItem, EndItem, MarkItem, append_items};

/// The most items of one kind that wait for a link: two seconds of the bank's traffic. A link that is slower than that is
/// as good as gone.
pub const OUTBOX_ITEMS_MAX: usize = 65_536;

/// See the module. The methods that add say whether there was room.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    prepares: Vec<CrossTransfer>,
    decisions: Vec<DecisionItem>,
    busy: Vec<MarkItem>,
    ends: Vec<EndItem>,
    heard: Vec<EndItem>,
}

impl Outbox {
    pub(super) fn prepare(&mut self, item: &CrossTransfer) -> bool {
        push(&mut self.prepares, *item)
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

    pub(super) const fn is_empty(&self) -> bool {
        let Self { prepares, decisions, busy, ends, heard } = self;
        prepares.is_empty() && decisions.is_empty() && busy.is_empty() && ends.is_empty() && heard.is_empty()
    }

    /// Appends everything as frames: decisions first, somebody's client waits for them.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        append_items(out, LinkType::LinkDecision, self.decisions.drain(..));
        append_items(out, LinkType::LinkPrepare, self.prepares.drain(..));
        append_items(out, LinkType::LinkEnd, self.ends.drain(..));
        append_items(out, LinkType::LinkHeard, self.heard.drain(..));
        append_items(out, LinkType::LinkBusy, self.busy.drain(..));
    }
}

fn push<T>(items: &mut Vec<T>, item: T) -> bool {
    let has_room = items.len() < OUTBOX_ITEMS_MAX;
    if has_room {
        items.push(item);
    }
    has_room
}
