//! Proposals that somebody waits for, and batches that are under way.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use crate::coordinator::BATCH_LEN_BYTES_MAX;
use crate::state::{BatchBuilder, Command, Outcome};

/// Commands that wait for a batch: changes of members and routes, operators. Decisions do not come this way.
const WAITING_MAX: usize = 4_096;

/// Why a proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads; nothing was proposed.
    #[error("this node does not lead the registry")]
    NotLeading,
    /// Too many wait; nothing was proposed.
    #[error("too many changes wait")]
    Busy,
    /// The leader changed meanwhile.
    #[error("the leader changed: whether it was done is not known")]
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Proposals {
    waiting: VecDeque<(Vec<u8>, oneshot::Sender<Outcome>)>,
    under_way: BTreeMap<u64, Waiters>,
    next_number: u64,
}

/// Who waits for the first commands of a batch.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Option<oneshot::Sender<Outcome>>>);

impl Waiters {
    /// Tells who waits for command `index`, if somebody does.
    pub(super) fn tell(&mut self, index: usize, outcome: Outcome) {
        if let Some(waiter) = self.0.get_mut(index).and_then(Option::take) {
            // Who has given up does not want to know.
            let _ = waiter.send(outcome);
        }
    }
}

impl Proposals {
    pub(super) fn push(&mut self, command: &Command<'_>, done: oneshot::Sender<Outcome>) -> Result<(), ProposeError> {
        if self.waiting.len() == WAITING_MAX {
            return Err(ProposeError::Busy);
        }
        let mut bytes = Vec::new();
        command.append_to(&mut bytes);
        self.waiting.push_back((bytes, done));
        Ok(())
    }

    /// Moves what waits into `batch`, as much as fits.
    pub(super) fn fill(&mut self, batch: &mut BatchBuilder) -> Waiters {
        let mut waiters = Waiters::default();
        while let Some((bytes, _)) = self.waiting.front()
            && batch.len_bytes() + bytes.len() <= BATCH_LEN_BYTES_MAX
            && let Some((bytes, done)) = self.waiting.pop_front()
        {
            batch.push_encoded(&bytes);
            waiters.0.push(Some(done));
        }
        waiters
    }

    /// A batch goes out; its number.
    pub(super) fn begin(&mut self, waiters: Waiters) -> u64 {
        self.next_number += 1;
        self.under_way.insert(self.next_number, waiters);
        self.next_number
    }

    /// Batch `number` is applied: who waits for its commands.
    pub(super) fn applied(&mut self, number: u64) -> Option<Waiters> {
        self.under_way.remove(&number)
    }

    /// Batch `number` will never be applied, or nobody can say whether: who waits hears that.
    pub fn failed(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// Batches under way.
    pub fn outstanding(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.under_way.clear();
    }
}
