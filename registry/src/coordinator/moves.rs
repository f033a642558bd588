//! Moves of accounts, and questions about transfer ids between branches.
//!
//! A move is a transfer between two branches that begins with an order of ours: the same machine collects the votes, and
//! its commit changes in the same command where the account is. An order is kept in memory only; the operator who wants the
//! move asks for it until the directory says that it is done.

use std::sync::Arc;

use tally_ledger::two_phase::{Attempt, Contradiction, CoordinatorEvent, Participants};
use tally_protocol::link::{CrossTransfer, IdItem, MarkItem, MoveBody, MoveItem, MoveOrder, VoteItem, id_answer};
use tally_protocol::message::{Transfer, TransferKind};
use tally_protocol::{AccountId, BranchId, Refusal, Timestamp, TransferId};

use super::{Coordinators, DEADLINE_NANOS_MAX};
use crate::state::State;

/// Orders that operators wait for at a time.
const ORDERS_MAX: usize = 256;

/// How far an order came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The branch has not answered.
    Waiting,
    /// The branch refuses; the code of a [`Refusal`].
    Refused(u16),
    /// The account is sealed, and the move is being decided, or was.
    Begun,
}

impl Coordinators {
    /// Has `branch` told to seal the account. `false` when it has no link, or there is no room.
    pub fn order_move(&mut self, branch: BranchId, order: MoveOrder) -> bool {
        let id = TransferId::new(order.id.get());
        if self.orders.len() >= ORDERS_MAX && !self.orders.contains_key(&id) {
            return false;
        }
        let Some(outbox) = self.outboxes.get_mut(&branch) else { return false };
        self.orders.insert(id, Ordered::Waiting);
        outbox.order(order)
    }

    /// How far an order came; `None` when nobody waits for it.
    pub fn ordered(&self, id: TransferId) -> Option<Ordered> {
        self.orders.get(&id).copied()
    }

    /// Nobody waits for the order any more.
    pub fn forget_order(&mut self, id: TransferId) {
        self.orders.remove(&id);
    }

    /// `from` has sealed an account.
    pub fn begin_move(&mut self, from: BranchId, moving: MoveBody<'_>, state: &State, now: Timestamp) {
        let item = moving.account;
        let (id, account_id) = (TransferId::new(item.id.get()), AccountId::new(item.account_id.get()));
        let (source, destination) = (BranchId::new(item.source.get()), BranchId::new(item.destination.get()));
        if source != from {
            self.contradiction(id, Contradiction::Stranger(from));
            return;
        }
        let is_known = self.table.contains_key(&id) || state.decisions.get(id).is_some();
        let is_possible = || {
            let is_here = state.directory.branch_of(account_id) == source;
            is_here && state.directory.has_room_for(account_id) && self.is_there(destination, state)
        };
        if !is_known
            && (self.is_closed || self.table.len() + self.chain_members >= self.transfers_max || !is_possible())
        {
            // The source asks in time, and hears of an abort.
            if let Some(ordered) = self.orders.get_mut(&id) {
                *ordered = Ordered::Refused(Refusal::Busy.code());
            }
            self.counters.busy += 1;
            self.outbox(from, |outbox| outbox.busy(MarkItem::new(id.get(), now.as_nanos())));
            return;
        }
        if let Some(ordered) = self.orders.get_mut(&id) {
            *ordered = Ordered::Begun;
        }
        if !is_known {
            self.moves.insert(id, Arc::new(moving.to_owned()));
            self.counters.begun += 1;
        }
        let deadline = item.deadline.get().min(now.as_nanos().saturating_add(DEADLINE_NANOS_MAX));
        let participants = Participants::one(source).with(destination).expect("two are few");
        let deadline = Timestamp::from_nanos(deadline);
        let attempt = Attempt::ONLY;
        let event = CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised: true };
        self.step(id, event, Some(&shown(item)), state, now);
    }

    /// `from` refuses orders.
    pub fn refuse_moves(&mut self, items: &[VoteItem]) {
        for item in items {
            if let Some(ordered @ Ordered::Waiting) = self.orders.get_mut(&TransferId::new(item.id.get())) {
                *ordered = Ordered::Refused(item.refusal.get());
            }
        }
    }

    /// Branch `from` wants to know whether ids were used at others: passed on, or answered that it cannot be asked.
    pub fn ask_ids(&mut self, from: BranchId, items: &[IdItem]) {
        for &item in items.iter().filter(|item| item.asker.get() == from.get()) {
            let asked = self.outboxes.get_mut(&BranchId::new(item.asked.get()));
            if !asked.is_some_and(|outbox| outbox.ask_id(item)) {
                self.outbox(from, |outbox| outbox.tell_id(item.answered(id_answer::UNREACHABLE)));
            }
        }
    }

    /// Branch `from` answers: passed on. Who asked and is gone will ask again.
    pub fn tell_ids(&mut self, from: BranchId, items: &[IdItem]) {
        for &item in items.iter().filter(|item| item.asked.get() == from.get()) {
            self.outbox(BranchId::new(item.asker.get()), |outbox| outbox.tell_id(item));
        }
    }
}

/// The move as a transfer, for people: from the account to itself.
fn shown(item: &MoveItem) -> CrossTransfer {
    let (debits, credits) = (item.debits_posted.get(), item.credits_posted.get());
    let transfer = Transfer {
        id: item.id,
        debit_account_id: item.account_id,
        credit_account_id: item.account_id,
        reference: 0.into(),
        user_data_128: 0.into(),
        amount: debits.abs_diff(credits).into(),
        user_data_64: 0.into(),
        user_data_32: 0.into(),
        timeout_s: 0.into(),
        currency: item.currency,
        code: item.code,
        flags: 0.into(),
        kind: TransferKind::Transfer as u8,
        reserved: 0,
    };
    let (source, destination) = (BranchId::new(item.source.get()), BranchId::new(item.destination.get()));
    CrossTransfer::new(transfer, item.stamp.get(), item.deadline.get(), 0, source, destination)
}

/// The name of a refusal that a branch sent.
pub fn refusal_name(code: u16) -> &'static str {
    Refusal::from_code(code).map_or("unknown_refusal", Refusal::name)
}
