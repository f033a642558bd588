//! What a test branch knows: what it holds, and how what it held has ended. It survives the branch's links.

use std::collections::{BTreeMap, BTreeSet};

use tally_ledger::two_phase::Decision;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Prepared, and not decided as far as the branch knows.
    pub(crate) held: BTreeMap<u128, u64>,
    /// How transfers ended.
    pub(crate) decided: BTreeMap<u128, Decision>,
    /// Ids whose begin found no room.
    pub(crate) busy: BTreeSet<u128>,
    /// Answers that changed: there must be none.
    pub(crate) changed: Vec<String>,
    /// Links that were welcomed.
    pub(crate) welcomes: u64,
    /// The registry that the branch has pinned.
    pub(crate) cluster_id: u128,
    /// The version of the routes that came last.
    pub(crate) routes_version: u64,
    /// What it answers an auditor, by the name of the call.
    pub(crate) audit: BTreeMap<String, serde_json::Value>,
    /// The branches that they name.
    pub(crate) routes: Vec<(u16, String)>,
}

impl Books {
    /// The registry has decided.
    pub(crate) fn tell(&mut self, id: u128, decision: Decision) {
        self.held.remove(&id);
        if let Some(before) = self.decided.insert(id, decision)
            && before != decision
        {
            self.changed.push(format!("{id}: {before:?}, then {decision:?}"));
        }
    }

    /// Ids that were committed.
    pub(crate) fn committed(&self) -> BTreeSet<u128> {
        self.decided.iter().filter(|(_, decision)| **decision == Decision::Commit).map(|(id, _)| *id).collect()
    }
}
