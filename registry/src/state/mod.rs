//! The replicated state: what every node of the registry knows alike, because each applies the same commands in the
//! same order.
//!
//! **Invariant:** [`State::apply`] is a function of the state and the command. Stamps and random numbers come in with
//! the command; nothing here reads a clock or depends on the order of a hash table.
//!
//! **Invariant:** the first decision on a transfer stands. A later one changes nothing and is answered by the first.

pub mod batch;
mod command;
mod decisions;
mod directory;
mod keys;
mod snapshot;

#[cfg(test)]
mod tests;

pub use batch::{BATCH_HEADER_LEN_BYTES, BatchBuilder, BatchHeader, BatchReader};
pub use command::{Command, TEXT_LEN_BYTES_MAX};
pub use decisions::{Decisions, Known};
pub use directory::{AuditEntry, BRANCHES_MAX, BranchEntry, Directory, MOVED_ACCOUNTS_MAX, MovedAccount, NodeEntry};
pub use keys::{KEY_HASH_LEN_BYTES, KeyEntry, Keys, Scope};
pub use snapshot::SnapshotError;

use tally_ledger::two_phase::{AbortReason, Decision};
use tally_protocol::Timestamp;

/// See the module. A clone shares what is large and costs little: it is the frozen view that a snapshot is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Who and where everybody is.
    pub directory: Directory,
    /// What services may ask.
    pub keys: Keys,
    /// How transfers ended.
    pub decisions: Decisions,
    /// The highest stamp that any command has carried: no later leader hands out an earlier one.
    pub stamp: Timestamp,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the state.
    Done,
    /// A decision is known; it may be an earlier one.
    Decided(Known),
    /// It would break a rule; the state is as before.
    Refused(Refused),
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The registry has an id already.
    #[error("the registry was founded before")]
    FoundedBefore,
    /// A node with this number and another folder exists, or existed: numbers never come back.
    #[error("the node number was used before, by another data folder")]
    NodeUsed,
    /// No such node.
    #[error("no such node")]
    NodeUnknown,
    /// A branch with this number and another folder exists.
    #[error("the branch number is used by another data folder")]
    BranchUsed,
    /// No such branch.
    #[error("no such branch")]
    BranchUnknown,
    /// The branch has left the bank for good.
    #[error("the branch has left the bank")]
    BranchLeft,
    /// As many branches as there may be.
    #[error("there is no room for more branches")]
    BranchesFull,
    /// The service has a key.
    #[error("the service has a key; remove that first")]
    KeyExists,
    /// The service has no key.
    #[error("the service has no key")]
    KeyUnknown,
    /// As many keys as there may be.
    #[error("there is no room for more keys")]
    KeysFull,
    /// The transfer is decided otherwise.
    #[error("the transfer was decided before, and a decision never changes")]
    DecidedBefore,
}

impl Default for State {
    /// The state before the first command.
    fn default() -> Self {
        Self {
            directory: Directory::default(),
            keys: Keys::default(),
            decisions: Decisions::new(0),
            stamp: Timestamp::from_nanos(0),
        }
    }
}

impl State {
    /// Applies one command of the log.
    pub fn apply(&mut self, command: &Command<'_>) -> Outcome {
        self.stamp = self.stamp.max(command.stamp());
        let changed = match *command {
            Command::Decide { id, decision, participants, stamp } => {
                return Outcome::Decided(self.decisions.decide(id, Known::new(decision, participants, stamp)));
            }
            Command::Acknowledged { id, branches, .. } => {
                self.decisions.acknowledge(id, branches);
                Ok(())
            }
            Command::Resolve { id, participants, stamp, operator, reason } => {
                return self.resolve(
                    id,
                    Known::new(Decision::Abort(AbortReason::Resolved), participants, stamp),
                    operator,
                    reason,
                );
            }
            Command::Found { cluster_id, remembered_max, .. } => {
                let founded = self.directory.found(cluster_id);
                if founded.is_ok() {
                    self.decisions = Decisions::new(remembered_max);
                }
                founded
            }
            // Its place in the log is all that it says.
            Command::Lead { .. } => Ok(()),
            Command::AddNode { id, incarnation, endpoint, stamp } => {
                self.directory.add_node(id, incarnation, endpoint, stamp)
            }
            Command::RemoveNode { id, .. } => self.directory.remove_node(id),
            Command::Branch { id, incarnation, endpoint, stamp } => {
                self.directory.add_branch(id, incarnation, endpoint, stamp)
            }
            Command::BranchStatus { id, status, stamp } => self.directory.set_status(id, status, stamp),
            Command::Drain { id, is_drained, stamp } => self.directory.drain(id, is_drained, stamp),
            Command::AddKey { name, hash, scopes, stamp } => {
                self.keys.add(name, KeyEntry { hash, scopes, since: stamp })
            }
            Command::RemoveKey { name, .. } => self.keys.remove(name),
            Command::MoveAccount { id, account_id, branch_id, participants, stamp } => {
                // The place changes with the decision, or not at all.
                let is_first = self.decisions.get(id).is_none();
                let wanted = Known::new(Decision::Commit, participants, stamp);
                let known = self.decisions.decide(id, wanted);
                if is_first {
                    self.directory.move_account(account_id, branch_id);
                }
                return Outcome::Decided(known);
            }
        };
        match changed {
            Ok(()) => Outcome::Done,
            Err(refused) => Outcome::Refused(refused),
        }
    }

    /// An operator's end of a transfer is a decision like any other, with a line for the auditors.
    fn resolve(&mut self, id: tally_protocol::TransferId, wanted: Known, operator: &str, reason: &str) -> Outcome {
        let known = self.decisions.decide(id, wanted);
        self.directory.note(AuditEntry {
            stamp: wanted.stamp,
            transfer_id: id,
            operator: operator.to_owned(),
            reason: reason.to_owned(),
            is_done: matches!(known.decision, Decision::Abort(_)),
        });
        match known.decision {
            Decision::Abort(_) => Outcome::Decided(known),
            Decision::Commit => Outcome::Refused(Refused::DecidedBefore),
        }
    }
}
