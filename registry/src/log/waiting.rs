//! Who waits for the journal's flusher: told on its thread, in the order of the journal, once what they wrote is durable.

use std::collections::VecDeque;

use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::Lsn;
use tokio::sync::{Notify, oneshot};

use crate::raft::types::Types;

/// How one of them is told.
pub(super) enum Done {
    /// Openraft's own callback.
    Flushed(LogFlushed<Types>),
    /// A future that waits.
    Wake(oneshot::Sender<()>),
}

impl Done {
    pub(super) fn tell(self) {
        match self {
            Self::Flushed(callback) => callback.log_io_completed(Ok(())),
            // Whoever waited may have given up.
            Self::Wake(sender) => drop(sender.send(())),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    /// Positions rise. Bounded by openraft, which has one append or vote out at a time.
    queue: Mutex<VecDeque<(Lsn, Done)>>,
    /// For those who wait for room in the log, not for a position.
    flushed: Notify,
}

impl Waiting {
    /// `done` waits for the record at `lsn`. Before that record is filled, or the flush may pass it.
    pub(super) fn push(&self, lsn: Lsn, done: Done) {
        let mut queue = self.queue.lock();
        assert!(queue.back().is_none_or(|(last, _)| *last < lsn), "positions rise");
        queue.push_back((lsn, done));
    }

    /// After each flush, on the flusher's thread.
    pub(super) fn handle_durable(&self, durable: DurableLsn) {
        loop {
            let mut queue = self.queue.lock();
            let Some((_, done)) = queue.pop_front_if(|(lsn, _)| durable.covers(*lsn)) else { break };
            drop(queue);
            done.tell();
        }
        self.flushed.notify_waiters();
    }

    /// Resolves after the next flush that ends after this was first polled or enabled.
    pub(super) fn next_flush(&self) -> tokio::sync::futures::Notified<'_> {
        self.flushed.notified()
    }
}
