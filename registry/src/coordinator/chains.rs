//! Chains between branches: one machine each, under the id of the first member. What their members say is for the branches;
//! here it is passed on.

use std::collections::BTreeMap;

use tally_ledger::two_phase::{Attempt, Contradiction, CoordinatorEvent, Participants};
use tally_protocol::link::{CrossChain, CrossTransfer, MarkItem};
use tally_protocol::{BranchId, Timestamp, TransferId};

use super::{Coordinators, DEADLINE_NANOS_MAX};
use crate::state::State;

/// A chain of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainInHand {
    /// As the source began it.
    pub chain: CrossChain,
    /// When each branch voted, where this leader heard that.
    pub voted_at: BTreeMap<BranchId, Timestamp>,
}

impl Coordinators {
    /// `from` begins a chain.
    pub fn begin_chain(&mut self, from: BranchId, chain: &CrossChain, state: &State, now: Timestamp) {
        let id = TransferId::new(chain.prefix.id.get());
        let source = chain.source();
        if source != from {
            self.contradiction(id, Contradiction::Stranger(from));
            return;
        }
        if self.is_of_others(id, from, state) {
            return;
        }
        let is_known = self.table.contains_key(&id) || state.decisions.get(id).is_some();
        let participants = Participants::of(chain.branches());
        let is_possible = || {
            let has_room = self.table.len() + self.chain_members + chain.members.len() <= self.transfers_max;
            let are_there = |all: &Participants| all.without(source).iter().all(|branch| self.is_there(branch, state));
            !self.is_closed && has_room && participants.as_ref().is_ok_and(are_there)
        };
        let participants = match participants {
            Ok(participants) if is_known || is_possible() => participants,
            Ok(_) | Err(_) => {
                // The source asks in time, and hears of an abort.
                self.counters.busy += 1;
                self.outbox(from, |outbox| outbox.busy(MarkItem::new(id.get(), now.as_nanos())));
                return;
            }
        };
        if !is_known {
            self.chain_members += chain.members.len();
            self.chains.insert(id, ChainInHand { chain: chain.clone(), voted_at: BTreeMap::new() });
            self.counters.begun += 1;
        }
        let deadline = chain.prefix.deadline.get().min(now.as_nanos().saturating_add(DEADLINE_NANOS_MAX));
        let deadline = Timestamp::from_nanos(deadline);
        // It begins behind its records: that is the source's promise, and no crash can take what it is of.
        let (attempt, is_promised) = (Attempt::of_chain(source), true);
        let event = CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised };
        self.step(id, event, Some(&shown(chain)), state, now);
    }

    /// The chain in hand that has `id` as one of its members: what it is decided under.
    pub fn chain_of(&self, id: TransferId) -> Option<TransferId> {
        let has_it = |chain: &CrossChain| chain.members.iter().any(|member| member.transfer.id.get() == id.get());
        self.chains.iter().find(|(_, in_hand)| has_it(&in_hand.chain)).map(|(&chain, _)| chain)
    }

    pub(super) fn forget_chain(&mut self, id: TransferId) {
        if let Some(in_hand) = self.chains.remove(&id) {
            self.chain_members -= in_hand.chain.members.len();
        }
    }
}

/// The first member that goes to another branch, for people.
fn shown(chain: &CrossChain) -> CrossTransfer {
    let source = chain.source();
    let is_far = |member: &&tally_protocol::link::ChainMember| member.destination.get() != source.get();
    let member = chain.members.iter().find(is_far).expect("a chain between branches has such a member");
    let destination = BranchId::new(member.destination.get());
    let (stamp, deadline) = (chain.prefix.stamp.get(), chain.prefix.deadline.get());
    CrossTransfer::new(member.transfer, stamp, deadline, chain.prefix.trace_id.get(), source, destination)
}
