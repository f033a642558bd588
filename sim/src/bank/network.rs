//! The network between branches and registry: every item by itself, late, lost, twice, and in any order.

use tally_branch_server::intake::Instruction;
use tally_branch_server::two_phase::Said;

use crate::random::Random;

/// What is under way.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// From the branch with this index.
    FromBranch(usize, Said),
    /// To the branch with this index.
    ToBranch(usize, Instruction),
}

impl Item {
    /// The branch at one of its ends.
    pub(super) const fn branch(&self) -> usize {
        match self {
            Self::FromBranch(at, _) | Self::ToBranch(at, _) => *at,
        }
    }
}

/// See the top of the file.
#[derive(Debug, Default)]
pub(super) struct Network {
    under_way: Vec<Item>,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// Once in so many items is lost, and as many come twice; 0 for never.
    pub(super) bad_once_in: u64,
    /// Branches that cannot be reached just now.
    pub(super) cut_off: Vec<bool>,
}

impl Network {
    pub(super) fn new(branches: usize, bad_once_in: u64) -> Self {
        Self { cut_off: vec![false; branches], bad_once_in, ..Self::default() }
    }

    pub(super) fn send(&mut self, item: Item, random: &mut Random) {
        let is_bad = self.bad_once_in > 0;
        if self.cut_off[item.branch()] || (is_bad && random.one_in(self.bad_once_in)) {
            self.lost += 1;
            return;
        }
        if is_bad && random.one_in(self.bad_once_in) {
            self.repeated += 1;
            self.under_way.push(item.clone());
        }
        self.under_way.push(item);
    }

    /// Some item arrives.
    pub(super) fn take(&mut self, random: &mut Random) -> Option<Item> {
        if self.under_way.is_empty() {
            return None;
        }
        let at = random.index(self.under_way.len());
        Some(self.under_way.swap_remove(at))
    }

    /// The link of `branch` breaks: what was on it may be lost.
    pub(super) fn break_link(&mut self, branch: usize, random: &mut Random) {
        let before = self.under_way.len();
        self.under_way.retain(|item| item.branch() != branch || random.one_in(3));
        self.lost += (before - self.under_way.len()) as u64;
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}
