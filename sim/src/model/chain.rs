//! Linked transfers: all, or none.

use tally_ledger::Actor;
use tally_protocol::{Lsn, Refusal};

use super::{Ask, Model, Verdict};

/// One recorded step of a chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainRecord {
    /// What was asked.
    pub ask: Ask,
    /// Where it is recorded.
    pub lsn: Lsn,
    /// Its stamp.
    pub now: u64,
}

impl Model {
    /// A whole chain is recorded, and all of it was well formed and new. What each answer must be.
    pub fn chain(&mut self, steps: &[ChainRecord], actor: &Actor) -> Vec<Verdict> {
        let mark = self.mark();
        let before = self.at;
        let mut verdicts = Vec::with_capacity(steps.len());
        for step in steps {
            verdicts.push(self.transfer(&step.ask, actor, step.lsn, step.now));
            if verdicts.last().is_some_and(|verdict| verdict.refusal.is_some()) {
                break;
            }
        }
        let broke_at = verdicts.iter().position(|verdict| verdict.refusal.is_some());
        let Some(broke_at) = broke_at else { return verdicts };
        let why = verdicts[broke_at];
        self.back_to_mark(mark);
        self.at = before;
        verdicts.clear();
        for (index, step) in steps.iter().enumerate() {
            self.advance(step.lsn);
            let verdict = if index == broke_at { why } else { self.refused(&step.ask, Refusal::ChainBroken) };
            self.note(&step.ask, verdict, step.lsn, step.now);
            verdicts.push(verdict);
        }
        verdicts
    }
}
