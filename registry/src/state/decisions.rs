//! How transfers ended: those that somebody still has to carry out, and the newest of those that everybody has.
//!
//! A decision is forgotten only when every participant has acknowledged it, and then only once `remembered_max` others
//! have been acknowledged after it. That is safe: an acknowledgement leaves a branch behind the durable settle or void,
//! so nobody is left who could act on another answer. What can still come is a late copy of a vote or question; asked
//! about a forgotten id, the registry decides an abort that the branch, which has carried out the first decision,
//! refuses and counts as a contradiction. A memory of a minute's decisions outlives every copy on a link.
//!
//! The table is in shards that a clone shares; applying copies a shard only while a clone of it lives. So a snapshot is
//! written from a frozen view, and the registry goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tally_ledger::two_phase::{Decision, Participants};
use tally_protocol::{BranchId, Timestamp, TransferId};

/// A power of two, so that a shard is some bits of the hash.
const SHARDS: usize = 64;
/// Which shard an id is in must be the same on every node.
const SHARD_SEED: u64 = 0x5eed_7a11;

/// What is known of a decided transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How it ends.
    pub decision: Decision,
    /// Whom the log named with it. Of a commit: everybody who has a part in it.
    pub participants: Participants,
    /// Who has not acknowledged.
    pub unacknowledged: Participants,
    /// When it was decided.
    pub stamp: Timestamp,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Decisions {
    shards: Vec<Arc<Shard>>,
    remembered_max: u64,
}

/// A decision that everybody has carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) decision: Decision,
    pub(super) participants: Participants,
    pub(super) stamp: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    open: HashMap<TransferId, Known, RandomState>,
    done: HashMap<TransferId, Acknowledged, RandomState>,
    /// Of `done`, in the order in which they came. Invariant: the same ids.
    order: VecDeque<TransferId>,
}

impl Decisions {
    /// No decisions; `remembered_max` acknowledged ones are kept, spread evenly over the shards.
    pub fn new(remembered_max: u64) -> Self {
        Self { shards: vec![Arc::default(); SHARDS], remembered_max }
    }

    /// How many acknowledged decisions are kept.
    pub const fn remembered_max(&self) -> u64 {
        self.remembered_max
    }

    /// What is known of `id`.
    pub fn get(&self, id: TransferId) -> Option<Known> {
        let shard = &self.shards[shard_of(id)];
        if let Some(known) = shard.open.get(&id) {
            return Some(*known);
        }
        let &Acknowledged { decision, participants, stamp } = shard.done.get(&id)?;
        Some(Known { decision, participants, unacknowledged: Participants::default(), stamp })
    }

    /// The first decision on `id`: `wanted`, unless there is one already.
    pub(super) fn decide(&mut self, id: TransferId, wanted: Known) -> Known {
        if let Some(known) = self.get(id) {
            return known;
        }
        let remembered_max = self.shard_remembered_max();
        let shard = Arc::make_mut(&mut self.shards[shard_of(id)]);
        if wanted.unacknowledged.is_empty() {
            shard.remember(id, wanted.into(), remembered_max);
        } else {
            shard.open.insert(id, wanted);
        }
        wanted
    }

    /// `branches` have carried out the decision on `id`.
    pub(super) fn acknowledge(&mut self, id: TransferId, branches: Participants) {
        let at = shard_of(id);
        if !self.shards[at].open.contains_key(&id) {
            return;
        }
        let remembered_max = self.shard_remembered_max();
        let shard = Arc::make_mut(&mut self.shards[at]);
        let known = shard.open.get_mut(&id).expect("looked up above");
        known.unacknowledged = branches.iter().fold(known.unacknowledged, Participants::without);
        if known.unacknowledged.is_empty() {
            let acknowledged = Acknowledged::from(*known);
            shard.open.remove(&id);
            shard.remember(id, acknowledged, remembered_max);
        }
    }

    /// Decisions that somebody has to carry out, in no order.
    pub fn open(&self) -> impl Iterator<Item = (TransferId, Known)> + '_ {
        self.shards.iter().flat_map(|shard| shard.open.iter().map(|(&id, &known)| (id, known)))
    }

    /// How many decisions somebody has to carry out.
    pub fn open_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.open.len()).sum()
    }

    /// How many acknowledged ones are remembered.
    pub fn done_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.order.len()).sum()
    }

    /// Acknowledged ones by shard, each in the order in which they came: what [`Self::restore_done`] takes.
    pub(super) fn done(&self) -> impl Iterator<Item = (TransferId, Acknowledged)> + '_ {
        self.shards
            .iter()
            .flat_map(|shard| shard.order.iter().map(|id| (*id, *shard.done.get(id).expect("the same ids"))))
    }

    /// Puts back what [`Self::open`] gave.
    pub(super) fn restore_open(&mut self, id: TransferId, known: Known) {
        Arc::make_mut(&mut self.shards[shard_of(id)]).open.insert(id, known);
    }

    /// Puts back what [`Self::done`] gave, in its order.
    pub(super) fn restore_done(&mut self, id: TransferId, acknowledged: Acknowledged) {
        let remembered_max = self.shard_remembered_max();
        Arc::make_mut(&mut self.shards[shard_of(id)]).remember(id, acknowledged, remembered_max);
    }

    /// Rounded up: a small memory is still one per shard.
    fn shard_remembered_max(&self) -> usize {
        usize::try_from(self.remembered_max.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX)
    }
}

impl Shard {
    fn remember(&mut self, id: TransferId, acknowledged: Acknowledged, remembered_max: usize) {
        if self.done.insert(id, acknowledged).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > remembered_max {
            let oldest = self.order.pop_front().expect("more than the most");
            self.done.remove(&oldest);
        }
    }
}

impl From<Known> for Acknowledged {
    fn from(Known { decision, participants, stamp, .. }: Known) -> Self {
        Self { decision, participants, stamp }
    }
}

impl Known {
    /// A decision that nobody has acknowledged.
    pub const fn new(decision: Decision, participants: Participants, stamp: Timestamp) -> Self {
        Self { decision, participants, unacknowledged: participants, stamp }
    }

    /// Whether `branch` has no part in what was committed. What it holds under this id is something else.
    pub fn excludes(&self, branch: BranchId) -> bool {
        self.decision == Decision::Commit && !self.participants.contains(branch)
    }
}

impl PartialEq for Decisions {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<Shard>, b: &Arc<Shard>| a.open == b.open && a.done == b.done && a.order == b.order;
        self.remembered_max == other.remembered_max && self.shards.iter().zip(&other.shards).all(|(a, b)| same(a, b))
    }
}

fn shard_of(id: TransferId) -> usize {
    id.hash64(SHARD_SEED) as usize % SHARDS
}
