//! What one branch's books say at a cut.

use std::collections::BTreeMap;

use tally_protocol::{AccountId, Amount, BranchId, Currency, TransferId};

use crate::account::Sums;
use crate::hold::{Hold, HoldStage};

/// One branch at the cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BranchBooks {
    /// Which.
    pub branch: BranchId,
    /// Sums over all its accounts, closed and house accounts included.
    pub currencies: BTreeMap<Currency, Totals>,
    /// Its settlement accounts, by the other branch and currency.
    pub settlements: BTreeMap<(BranchId, Currency), Settlement>,
    /// Parts of transfers between branches that it had prepared by the cut, and of which its own journal, as far as it
    /// was read, does not say how they ended.
    pub open: Vec<OpenLeg>,
}

/// Sums over accounts, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many accounts.
    pub accounts: u64,
    /// All that was ever debited.
    pub debits_posted: u128,
    /// All that was ever credited.
    pub credits_posted: u128,
    /// Reserved on the debit side.
    pub debits_held: u128,
    /// Reserved on the credit side.
    pub credits_held: u128,
    /// What the open holds add up to.
    pub holds: u128,
}

impl Totals {
    /// Adds an account.
    pub const fn add(&mut self, sums: &Sums) {
        // 2^64 accounts with full sums would be needed to overflow.
        self.accounts += 1;
        self.debits_posted += sums.debits_posted.get() as u128;
        self.credits_posted += sums.credits_posted.get() as u128;
        self.debits_held += sums.debits_held.get() as u128;
        self.credits_held += sums.credits_held.get() as u128;
    }

    /// Adds what others add up to.
    pub const fn add_all(&mut self, other: &Self) {
        self.accounts += other.accounts;
        self.debits_posted += other.debits_posted;
        self.credits_posted += other.credits_posted;
        self.debits_held += other.debits_held;
        self.credits_held += other.credits_held;
        self.holds += other.holds;
    }
}

/// A settlement account: what this branch owes another one (credits), and is owed by it (debits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Money that came from the other branch.
    pub debits: Side,
    /// Money that went to the other branch.
    pub credits: Side,
}

/// One side of a settlement account, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The account's posted sum, as of the cut.
    pub posted: u128,
    /// In `posted`, but decided after the cut: only where the branch's clock lies far behind the registry's.
    pub early: u128,
    /// Decided by the cut, and posted after it.
    pub late: u128,
}

impl Side {
    /// What counts at the cut, without the legs that are still open.
    ///
    /// Negative only where the figures contradict each other.
    pub const fn counted(&self) -> i128 {
        self.posted as i128 - self.early as i128 + self.late as i128
    }
}

/// A leg that was open at the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLeg {
    /// The transfer's id.
    pub id: TransferId,
    /// What the registry decides it under: its own id, or its chain's.
    pub decided_under: TransferId,
    /// The other branch.
    pub peer: BranchId,
    /// What it is counted in.
    pub currency: Currency,
    /// What is held.
    pub amount: Amount,
    /// Whether the money goes to the other branch; else it comes from there.
    pub is_outgoing: bool,
    /// Whether it is a hold's: the payer's branch ends it, and not the registry's decision.
    pub is_hold: bool,
}

impl OpenLeg {
    /// The leg that this hold is; `None` where neither account is a settlement account.
    pub fn of(hold: &Hold) -> Option<Self> {
        let (peer, is_outgoing) = peer_of(hold.debit_account_id, hold.credit_account_id)?;
        let is_hold = hold.stage != HoldStage::AwaitsPosting;
        let (id, decided_under) = (hold.id, hold.decision_id());
        Some(Self { id, decided_under, peer, currency: hold.currency, amount: hold.amount, is_outgoing, is_hold })
    }
}

impl OpenLeg {
    /// The transfer, the branch that the money comes from, and the one that it goes to, where the leg is `branch`'s. A hold that
    /// is passed on has legs in several branches, and each of them posts at its own time; and where its payee went from one
    /// branch to another, the branch of the payer may have ended it towards either.
    pub const fn key(&self, branch: BranchId) -> LegKey {
        if self.is_outgoing { (self.id, branch, self.peer) } else { (self.id, self.peer, branch) }
    }
}

/// See [`OpenLeg::key`].
pub type LegKey = (TransferId, BranchId, BranchId);

/// The other branch, and whether money between these accounts goes there.
fn peer_of(debit: AccountId, credit: AccountId) -> Option<(BranchId, bool)> {
    // Where it is passed on, what comes in waits for another branch; what goes out is this one's own doing.
    match (debit.settlement_peer(), credit.settlement_peer()) {
        (Some(peer), _) => Some((peer, false)),
        (None, Some(peer)) => Some((peer, true)),
        (None, None) => None,
    }
}

impl BranchBooks {
    /// The side of a settlement account that money between these accounts is posted to.
    pub(super) fn side_of(&mut self, debit: AccountId, credit: AccountId, currency: Currency) -> Option<&mut Side> {
        let (peer, is_outgoing) = peer_of(debit, credit)?;
        let settlement = self.settlements.entry((peer, currency)).or_default();
        Some(if is_outgoing { &mut settlement.credits } else { &mut settlement.debits })
    }
}
