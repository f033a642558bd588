//! The branches of one transfer, a few of them, without an allocation.

use std::fmt;

use tally_protocol::BranchId;

/// Branches that may take part in one transfer: as many as a chain is likely to name, and few enough for a mask of
/// one byte.
pub const PARTICIPANTS_MAX: usize = 8;

/// A set of branches. Invariant: `branches[..count]` rise; the rest are 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participants {
    branches: [BranchId; PARTICIPANTS_MAX],
    count: u8,
}

impl fmt::Debug for Participants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// More than [`PARTICIPANTS_MAX`] branches in one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {PARTICIPANTS_MAX} branches take part")]
pub struct TooManyParticipants;

impl Participants {
    /// The set of `branches`, in any order; repeated ones count once.
    ///
    /// # Errors
    /// When there are more than [`PARTICIPANTS_MAX`].
    pub fn of(branches: impl IntoIterator<Item = BranchId>) -> Result<Self, TooManyParticipants> {
        let mut set = Self::default();
        branches.into_iter().try_for_each(|branch| set.insert(branch))?;
        Ok(set)
    }

    /// The set of one branch.
    pub fn one(branch: BranchId) -> Self {
        let mut set = Self::default();
        (set.branches[0], set.count) = (branch, 1);
        set
    }

    /// The set with `branch`.
    ///
    /// # Errors
    /// When there are [`PARTICIPANTS_MAX`] others.
    pub fn with(mut self, branch: BranchId) -> Result<Self, TooManyParticipants> {
        self.insert(branch)?;
        Ok(self)
    }

    fn insert(&mut self, branch: BranchId) -> Result<(), TooManyParticipants> {
        let Err(at) = self.as_slice().binary_search(&branch) else { return Ok(()) };
        let count = usize::from(self.count);
        if count == PARTICIPANTS_MAX {
            return Err(TooManyParticipants);
        }
        self.branches.copy_within(at..count, at + 1);
        self.branches[at] = branch;
        self.count += 1;
        Ok(())
    }

    /// The set without `branch`.
    #[must_use]
    pub fn without(mut self, branch: BranchId) -> Self {
        if let Ok(at) = self.as_slice().binary_search(&branch) {
            let count = usize::from(self.count);
            self.branches.copy_within(at + 1..count, at);
            self.branches[count - 1] = BranchId::default();
            self.count -= 1;
        }
        self
    }

    /// Whether `branch` is in it.
    pub fn contains(&self, branch: BranchId) -> bool {
        self.as_slice().binary_search(&branch).is_ok()
    }

    /// Whether nobody is in it.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, rising.
    pub fn as_slice(&self) -> &[BranchId] {
        &self.branches[..usize::from(self.count)]
    }

    /// All of them, rising.
    pub fn iter(&self) -> impl Iterator<Item = BranchId> + '_ {
        self.as_slice().iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 1u16..12), 0..60)) {
            let (mut set, mut model) = (Participants::default(), BTreeSet::new());
            for (adds, raw) in steps {
                let branch = BranchId::new(raw);
                if !adds {
                    set = set.without(branch);
                    model.remove(&branch);
                } else if model.len() < PARTICIPANTS_MAX || model.contains(&branch) {
                    prop_assert_eq!(set.insert(branch), Ok(()));
                    model.insert(branch);
                } else {
                    prop_assert_eq!(set.insert(branch), Err(TooManyParticipants));
                }
                prop_assert!(set.iter().eq(model.iter().copied()));
                prop_assert_eq!(set.contains(branch), model.contains(&branch));
                prop_assert_eq!(set, Participants::of(model.iter().rev().copied()).expect("as many as fit"));
            }
        }
    }
}
