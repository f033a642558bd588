//! The oracle: the ledger's rules once more, written the simple way and sharing nothing with `tally_ledger`.
//!
//! It is told what was asked, in the order of the journal, and says what the answer must be. Every state that
//! it was ever in can be had again: what a crash took back is taken back here too.
//!
//! **Invariant:** `at` never goes back but by [`Model::rewind`].

mod account;
mod account_change;
mod chain;
mod content;
mod form;
mod transfer;

use std::collections::HashMap;

use tally_protocol::{Lsn, Refusal, TransferId};

pub use account::{ModelAccount, ModelSums};
pub use account_change::AccountAsk;
pub use chain::ChainRecord;
pub use content::repeat_answer;
pub use form::form_of;
pub use transfer::{Ask, Verdict};

/// An open hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelHold {
    /// Raw id of the account that pays.
    pub debit: u128,
    /// Raw id of the account that is paid.
    pub credit: u128,
    /// Minor units.
    pub amount: u64,
    /// ISO 4217.
    pub currency: u16,
    /// Reason code.
    pub code: u16,
    /// Nanoseconds; `u64::MAX` for never.
    pub expires_at: u64,
    /// The day on which it was made.
    pub day: u64,
    /// Whether it closes the account that pays, and the one that is paid.
    pub closes: (bool, bool),
}

/// How a used id came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelEnd {
    /// A hold that was posted.
    Settled,
    /// A hold that was given back on request.
    Voided,
    /// A hold that was given back by time.
    Expired,
    /// A transfer that was sent back.
    Reversed,
}

/// What was recorded under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Used {
    /// A transfer, done or refused.
    Transfer {
        /// What was asked, and what followed from it.
        ask: Ask,
        /// The answer.
        verdict: Verdict,
        /// Where it is recorded.
        lsn: Lsn,
        /// When, in nanoseconds.
        timestamp: u64,
    },
    /// Burnt.
    Cancelled {
        /// Where it is recorded.
        lsn: Lsn,
        /// When, in nanoseconds.
        timestamp: u64,
    },
}

impl Used {
    /// Where the record lies.
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::Transfer { lsn, .. } | Self::Cancelled { lsn, .. } => *lsn,
        }
    }
}

/// One change, so that it can be taken back.
#[derive(Debug)]
enum Change {
    /// The account got another version.
    Account(u128),
    /// The hold was opened.
    HoldOpened(TransferId),
    /// The hold was ended; it was this.
    HoldEnded(TransferId, ModelHold),
    /// The id was used.
    Used(TransferId),
    /// The id came to an end.
    Ended(TransferId),
}

/// See the top of the file.
#[derive(Debug)]
pub struct Model {
    branch: u16,
    accounts: HashMap<u128, Vec<ModelAccount>>,
    holds: HashMap<TransferId, ModelHold>,
    used: HashMap<TransferId, Used>,
    ended: HashMap<TransferId, (ModelEnd, Lsn)>,
    changes: Vec<(Lsn, Change)>,
    at: Lsn,
}

impl Model {
    /// A ledger in which nothing has happened.
    pub fn new(branch: u16) -> Self {
        Self {
            branch,
            accounts: HashMap::new(),
            holds: HashMap::new(),
            used: HashMap::new(),
            ended: HashMap::new(),
            changes: Vec::new(),
            at: Lsn::ZERO,
        }
    }

    /// The last record that it was told of.
    pub const fn at(&self) -> Lsn {
        self.at
    }

    /// The account as it is.
    pub fn account(&self, id: u128) -> Option<&ModelAccount> {
        self.accounts.get(&id)?.last()
    }

    /// Every version that the account had, oldest first.
    pub fn versions(&self, id: u128) -> &[ModelAccount] {
        self.accounts.get(&id).map_or(&[], Vec::as_slice)
    }

    /// All accounts as they are, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &ModelAccount> {
        self.accounts.values().filter_map(|versions| versions.last())
    }

    /// All open holds, in no order.
    pub fn holds(&self) -> impl Iterator<Item = (TransferId, &ModelHold)> {
        self.holds.iter().map(|(&id, hold)| (id, hold))
    }

    /// The open hold with this id.
    pub fn hold(&self, id: TransferId) -> Option<&ModelHold> {
        self.holds.get(&id)
    }

    /// What was recorded under an id.
    pub fn used(&self, id: TransferId) -> Option<&Used> {
        self.used.get(&id)
    }

    /// How a used id ended, and where that is recorded.
    pub fn ended(&self, id: TransferId) -> Option<(ModelEnd, Lsn)> {
        self.ended.get(&id).copied()
    }

    /// Every id that was used, in no order.
    pub fn used_ids(&self) -> impl Iterator<Item = TransferId> {
        self.used.keys().copied()
    }

    /// Takes back everything recorded at or above `end`.
    pub fn rewind(&mut self, end: Lsn) {
        while self.changes.last().is_some_and(|(lsn, _)| *lsn >= end) {
            let (_, change) = self.changes.pop().expect("its last was just seen");
            self.take_back(change);
        }
        self.at = self.at.min(Lsn::new(end.get().saturating_sub(1)));
    }

    /// The branch burns an id at `lsn`. What the answer must be.
    pub fn cancel(&mut self, id: TransferId, lsn: Lsn, timestamp: u64) -> Option<Refusal> {
        self.advance(lsn);
        match self.used.get(&id) {
            Some(Used::Transfer { .. }) => Some(Refusal::IdAlreadyUsed),
            Some(Used::Cancelled { .. }) => None,
            None => {
                self.set_used(id, Used::Cancelled { lsn, timestamp });
                None
            }
        }
    }

    fn advance(&mut self, lsn: Lsn) {
        assert!(lsn > self.at, "the model is at {} and is told of {lsn}", self.at);
        self.at = lsn;
    }

    fn mark(&self) -> usize {
        self.changes.len()
    }

    fn back_to_mark(&mut self, mark: usize) {
        while self.changes.len() > mark {
            let (_, change) = self.changes.pop().expect("longer than the mark");
            self.take_back(change);
        }
    }

    fn take_back(&mut self, change: Change) {
        match change {
            Change::Account(id) => {
                let versions = self.accounts.get_mut(&id).expect("it was changed");
                versions.pop();
                if versions.is_empty() {
                    self.accounts.remove(&id);
                }
            }
            Change::HoldOpened(id) => {
                self.holds.remove(&id);
            }
            Change::HoldEnded(id, hold) => {
                self.holds.insert(id, hold);
            }
            Change::Used(id) => {
                self.used.remove(&id);
            }
            Change::Ended(id) => {
                self.ended.remove(&id);
            }
        }
    }

    fn set_account(&mut self, account: ModelAccount) {
        self.changes.push((self.at, Change::Account(account.id)));
        self.accounts.entry(account.id).or_default().push(account);
    }

    fn open_hold(&mut self, id: TransferId, hold: ModelHold) {
        self.changes.push((self.at, Change::HoldOpened(id)));
        self.holds.insert(id, hold);
    }

    fn end_hold(&mut self, id: TransferId, end: ModelEnd) {
        if let Some(hold) = self.holds.remove(&id) {
            self.changes.push((self.at, Change::HoldEnded(id, hold)));
        }
        self.set_ended(id, end);
    }

    fn set_ended(&mut self, id: TransferId, end: ModelEnd) {
        self.changes.push((self.at, Change::Ended(id)));
        self.ended.insert(id, (end, self.at));
    }

    fn set_used(&mut self, id: TransferId, used: Used) {
        self.changes.push((self.at, Change::Used(id)));
        self.used.insert(id, used);
    }
}
