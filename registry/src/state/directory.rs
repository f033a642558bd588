//! Who is in the bank, and where: nodes of the registry, branches, accounts that have moved, operators' interventions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tally_protocol::link::{BranchStatus, LINK_ROUTES_MAX};
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId};

use super::Refused;

/// As many as one frame of routes holds.
pub const BRANCHES_MAX: usize = LINK_ROUTES_MAX;
/// The newest interventions of operators; older ones are in the logs of the nodes.
const AUDIT_LEN_MAX: usize = 10_000;
/// Accounts that may ever have moved: every branch is told of each, and every node keeps them in memory.
pub const MOVED_ACCOUNTS_MAX: usize = 100_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Random; 0 until the registry was founded.
    pub cluster_id: u128,
    /// Every node that ever was, so that no number comes back.
    pub nodes: BTreeMap<u64, NodeEntry>,
    /// Every branch that ever was.
    pub branches: BTreeMap<BranchId, BranchEntry>,
    /// Rises with every change of a branch.
    pub routes_version: u64,
    /// Accounts that have ever moved. One that is back home stays: branches were told where it was.
    pub moved: Arc<BTreeMap<AccountId, MovedAccount>>,
    /// What operators have done, oldest first.
    pub audit: VecDeque<AuditEntry>,
}

/// Where an account is that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedAccount {
    /// The branch.
    pub branch_id: BranchId,
    /// The version of the routes since when it is there: who has these routes knows.
    pub version: u64,
}

/// A node of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Of its folder.
    pub incarnation: u128,
    /// Where it listens.
    pub endpoint: String,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Whether it has left for good.
    pub has_left: bool,
}

/// A branch of the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchEntry {
    /// Of its folder.
    pub incarnation: u128,
    /// Where clients reach it.
    pub endpoint: String,
    /// How it is.
    pub status: BranchStatus,
    /// Since when.
    pub since: Timestamp,
    /// Whether an operator wants it to take no new transfers.
    pub is_drained: bool,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub stamp: Timestamp,
    /// To which transfer.
    pub transfer_id: TransferId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// Whether it was done, or refused because the transfer was decided otherwise.
    pub is_done: bool,
}

impl Directory {
    pub(super) fn found(&mut self, cluster_id: u128) -> Result<(), Refused> {
        if self.cluster_id != 0 {
            return Err(Refused::FoundedBefore);
        }
        self.cluster_id = cluster_id;
        Ok(())
    }

    pub(super) fn add_node(
        &mut self,
        id: u64,
        incarnation: u128,
        endpoint: &str,
        joined_at: Timestamp,
    ) -> Result<(), Refused> {
        match self.nodes.get_mut(&id) {
            Some(node) if node.incarnation != incarnation || node.has_left => Err(Refused::NodeUsed),
            Some(node) => {
                endpoint.clone_into(&mut node.endpoint);
                Ok(())
            }
            None => {
                let endpoint = endpoint.to_owned();
                self.nodes.insert(id, NodeEntry { incarnation, endpoint, joined_at, has_left: false });
                Ok(())
            }
        }
    }

    pub(super) fn remove_node(&mut self, id: u64) -> Result<(), Refused> {
        self.nodes.get_mut(&id).ok_or(Refused::NodeUnknown)?.has_left = true;
        Ok(())
    }

    pub(super) fn add_branch(
        &mut self,
        id: BranchId,
        incarnation: u128,
        endpoint: &str,
        since: Timestamp,
    ) -> Result<(), Refused> {
        let is_full = self.branches.len() == BRANCHES_MAX;
        match self.branches.get_mut(&id) {
            Some(branch) if branch.incarnation != incarnation => return Err(Refused::BranchUsed),
            Some(branch) if branch.status == BranchStatus::Left => return Err(Refused::BranchLeft),
            Some(branch) if branch.endpoint == endpoint => return Ok(()),
            Some(branch) => endpoint.clone_into(&mut branch.endpoint),
            None if is_full => return Err(Refused::BranchesFull),
            None => {
                let (endpoint, status) = (endpoint.to_owned(), BranchStatus::Serving);
                self.branches.insert(id, BranchEntry { incarnation, endpoint, status, since, is_drained: false });
            }
        }
        self.routes_version += 1;
        Ok(())
    }

    pub(super) fn set_status(&mut self, id: BranchId, status: BranchStatus, since: Timestamp) -> Result<(), Refused> {
        let branch = self.branches.get_mut(&id).ok_or(Refused::BranchUnknown)?;
        // Its number is burnt: an empty folder under it must never be taken for the branch that held the money.
        if branch.status == BranchStatus::Left && status != BranchStatus::Left {
            return Err(Refused::BranchLeft);
        }
        if branch.status != status {
            (branch.status, branch.since) = (status, since);
            self.routes_version += 1;
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, id: BranchId, is_drained: bool, since: Timestamp) -> Result<(), Refused> {
        let branch = self.branches.get_mut(&id).ok_or(Refused::BranchUnknown)?;
        branch.is_drained = is_drained;
        let status = match (branch.status, is_drained) {
            (BranchStatus::Left, _) => return Err(Refused::BranchLeft),
            (BranchStatus::Serving, true) => BranchStatus::Draining,
            (BranchStatus::Draining, false) => BranchStatus::Serving,
            (status, _) => status,
        };
        self.set_status(id, status, since)
    }

    pub(super) fn move_account(&mut self, account_id: AccountId, branch_id: BranchId) {
        self.routes_version += 1;
        let version = self.routes_version;
        Arc::make_mut(&mut self.moved).insert(account_id, MovedAccount { branch_id, version });
    }

    /// Accounts that have moved since the routes had `version`.
    pub fn moved_since(&self, version: u64) -> impl Iterator<Item = (AccountId, MovedAccount)> + '_ {
        self.moved.iter().filter(move |(_, moved)| moved.version > version).map(|(&id, &moved)| (id, moved))
    }

    /// Whether `account_id` may move, as far as room goes.
    pub fn has_room_for(&self, account_id: AccountId) -> bool {
        self.moved.len() < MOVED_ACCOUNTS_MAX || self.moved.contains_key(&account_id)
    }

    /// Where an account is.
    pub fn branch_of(&self, account_id: AccountId) -> BranchId {
        self.moved.get(&account_id).map_or(account_id.branch(), |moved| moved.branch_id)
    }

    pub(super) fn note(&mut self, entry: AuditEntry) {
        if self.audit.len() == AUDIT_LEN_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(entry);
    }
}
