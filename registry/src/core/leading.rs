//! What only the leader has: the coordinators, the links of the branches, and when each branch was heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tally_protocol::link::BranchStatus;
use tally_protocol::{BranchId, Timestamp};
use tokio::sync::{Notify, oneshot};

use super::branch_calls::BranchCalls;
use crate::coordinator::Coordinators;
use crate::state::State;

/// See the module. Lost with leadership.
#[derive(Debug)]
pub struct Leading {
    /// Since which election.
    pub term: u64,
    /// Since when.
    pub since: Instant,
    /// Transfers that are not over.
    pub coordinators: Coordinators,
    /// While leadership is being handed over nothing new is begun.
    pub is_handing_over: bool,
    links: BTreeMap<BranchId, LinkSlot>,
    calls: BTreeMap<BranchId, BranchCalls>,
    heard: BTreeMap<BranchId, Heard>,
    next_link: u64,
}

/// The link of one branch.
#[derive(Clone, Debug)]
pub struct LinkSlot {
    /// Which of the branch's links it is: the newest counts.
    pub number: u64,
    /// Rung when there is something to send, and when the link is to end.
    pub bell: Arc<Notify>,
    routes_version: u64,
}

/// When a branch was heard, and what it said.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// By the wall clock.
    pub at: Timestamp,
    /// Serving or draining.
    pub status: BranchStatus,
    /// Of its journal.
    pub durable: u64,
    /// Transfers that it holds something for.
    pub in_doubt: u32,
}

impl Leading {
    pub(super) fn new(term: u64, coordinators: Coordinators, state: &State, wall: Timestamp) -> Self {
        // Nobody is suspected for having talked to another leader until now.
        let heard = state.directory.branches.iter().map(|(&id, entry)| {
            let status = if entry.status == BranchStatus::Draining { entry.status } else { BranchStatus::Serving };
            (id, Heard { at: wall, status, durable: 0, in_doubt: 0 })
        });
        Self {
            term,
            since: Instant::now(),
            coordinators,
            is_handing_over: false,
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            heard: heard.collect(),
            next_link: 0,
        }
    }

    /// A link of `branch` is up: one before it is told to end.
    pub fn connect(&mut self, branch: BranchId) -> LinkSlot {
        self.next_link += 1;
        let slot = LinkSlot { number: self.next_link, bell: Arc::new(Notify::new()), routes_version: 0 };
        if let Some(before) = self.links.insert(branch, slot.clone()) {
            before.bell.notify_one();
        }
        self.calls.remove(&branch);
        self.coordinators.connect(branch);
        slot.bell.notify_one();
        slot
    }

    /// Link `number` of `branch` is down.
    pub fn disconnect(&mut self, branch: BranchId, number: u64) {
        if self.is_current(branch, number) {
            self.links.remove(&branch);
            self.calls.remove(&branch);
            self.coordinators.disconnect(branch);
        }
    }

    /// Whether link `number` is the one that counts for `branch`.
    pub fn is_current(&self, branch: BranchId, number: u64) -> bool {
        self.links.get(&branch).is_some_and(|link| link.number == number)
    }

    /// Branches with a link.
    pub fn connected(&self) -> impl Iterator<Item = BranchId> + '_ {
        self.links.keys().copied()
    }

    /// Asks a branch something over its link; `None` where it has none, or too many wait for it.
    pub fn call(&mut self, branch: BranchId, question: String) -> Option<oneshot::Receiver<String>> {
        let link = self.links.get(&branch)?;
        let answered = self.calls.entry(branch).or_default().ask(question)?;
        link.bell.notify_one();
        Some(answered)
    }

    /// Appends the calls that wait for `branch` to `out`.
    pub fn take_calls(&mut self, branch: BranchId, out: &mut Vec<u8>) {
        if let Some(calls) = self.calls.get_mut(&branch) {
            calls.append_to(out);
        }
    }

    /// `branch` has answered its call `id`.
    pub fn answered(&mut self, branch: BranchId, id: u64, answer: &str) {
        if let Some(calls) = self.calls.get_mut(&branch) {
            calls.answered(id, answer);
        }
    }

    /// The link of `branch` has been sent the routes of `version`, or says that it has them.
    pub fn has_routes(&mut self, branch: BranchId, version: u64) {
        if let Some(link) = self.links.get_mut(&branch) {
            link.routes_version = version;
        }
    }

    /// The version of the routes that the link of `branch` has, if it lacks those of `version`.
    pub fn lacks_routes(&self, branch: BranchId, version: u64) -> Option<u64> {
        self.links.get(&branch).map(|link| link.routes_version).filter(|&has| has < version)
    }

    /// Rings for every link that has something to send.
    pub fn wake_links(&self, routes_version: u64) {
        for branch in self.coordinators.branches_with_frames() {
            if let Some(link) = self.links.get(&branch) {
                link.bell.notify_one();
            }
        }
        for link in self.links.values().filter(|link| link.routes_version < routes_version) {
            link.bell.notify_one();
        }
    }

    /// `branch` was heard.
    pub fn hear(&mut self, branch: BranchId, heard: Heard) {
        self.heard.insert(branch, heard);
    }

    /// When `branch` was heard last, and what it said.
    pub fn heard(&self, branch: BranchId) -> Option<Heard> {
        self.heard.get(&branch).copied()
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        // The links look whether somebody leads, and end.
        self.links.values().for_each(|link| link.bell.notify_one());
    }
}
