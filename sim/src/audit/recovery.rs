//! Recoveries: what is back must be what was served, and nothing that anybody was told may be missing.

use tally_ledger::{Account, Hold, StateHash};
use tally_protocol::{Lsn, TransferId};

use super::Audit;
use crate::invariants::{Violation, conservation, hold, replay_equals_served};
use crate::model::{ModelEnd, Used};

/// What the branch must know of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdFacts {
    /// Where it was used.
    pub record: Option<Lsn>,
    /// Where it came to its end.
    pub ended: Option<Lsn>,
}

impl Audit {
    /// The branch is back, with this state, and its journal goes on at `next`.
    ///
    /// # Errors
    /// When something is missing, or there that was not.
    pub fn recovered(&mut self, next: Lsn, accounts: &[Account], holds: &[Hold]) -> Result<(), Violation> {
        self.durable.check_recovered(next)?;
        self.model.rewind(next);
        self.images.rewind(next);
        self.one_effect.rewind(next);
        self.rising.rewind(next);
        replay_equals_served::check(accounts, holds, &self.model)?;
        conservation::check_state(&self.images)?;
        let by_records = StateHash::of(self.images.iter(), []);
        let recovered = StateHash::of(accounts, []);
        hold!(
            ReplayEqualsServed,
            by_records == recovered,
            "the journal's records say {by_records:?}, recovered {recovered:?}"
        );
        Ok(())
    }

    /// What the branch must know of `id`.
    pub fn id_facts(&self, id: TransferId) -> IdFacts {
        IdFacts {
            record: self.model.used(id).map(Used::lsn),
            ended: self.model.ended(id).map(|(_, lsn): (ModelEnd, Lsn)| lsn),
        }
    }

    /// Every id that any request has carried, in order.
    pub fn ids(&self) -> Vec<TransferId> {
        let mut ids: Vec<TransferId> =
            self.by_id.keys().copied().filter(|id| !id.is_none() && id.get() != u128::MAX).collect();
        ids.sort_unstable();
        ids
    }

    /// The positions of all records from `from` to below `to`, in order.
    pub fn record_positions(&self, from: Lsn, to: Lsn) -> impl Iterator<Item = Lsn> {
        self.rising.positions(from).take_while(move |lsn| *lsn < to)
    }
}
