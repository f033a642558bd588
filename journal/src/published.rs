//! The durable position, for everyone: one atomic word for those who only look, a condition variable for
//! helper threads that wait.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

use tally_ledger::journal::group::Chain;
use tally_ledger::journal::position::{DurableLsn, Positions};
use tally_protocol::Lsn;

/// See the module.
#[derive(Debug)]
pub struct Published {
    /// [`DurableLsn::end`] of `state`'s. Stored with Release after the flush, loaded with Acquire.
    word: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    durable: DurableLsn,
    chain: Chain,
    waiting: usize,
    stopped: bool,
}

impl Published {
    /// A log that was recovered up to `end`.
    pub fn new(end: Lsn, chain: Chain) -> Self {
        let durable = Positions::recovered(end).durable();
        Self {
            word: AtomicU64::new(end.get()),
            state: Mutex::new(State { durable, chain, waiting: 0, stopped: false }),
            changed: Condvar::new(),
        }
    }

    /// What is durable.
    #[inline]
    pub fn durable(&self) -> DurableLsn {
        DurableLsn::from_published(self.word.load(Ordering::Acquire))
    }

    /// What is durable, and the checksum of the group before its end.
    pub fn anchor(&self) -> (DurableLsn, Chain) {
        let state = self.state.lock();
        (state.durable, state.chain)
    }

    /// After each flush.
    pub fn publish(&self, durable: DurableLsn, chain: Chain) {
        let mut state = self.state.lock();
        state.durable = durable;
        state.chain = chain;
        self.word.store(durable.end().get(), Ordering::Release);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// There will be no further flush.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until `enough` is satisfied; false when the journal stopped before.
    pub fn wait(&self, enough: impl Fn(DurableLsn) -> bool) -> bool {
        if enough(self.durable()) {
            return true;
        }
        let mut state = self.state.lock();
        while !enough(state.durable) {
            if state.stopped {
                return false;
            }
            state.waiting += 1;
            self.changed.wait(&mut state);
            state.waiting -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn durable(end: u64) -> DurableLsn {
        Positions::recovered(Lsn::new(end)).durable()
    }

    #[test]
    fn a_waiter_goes_on_at_its_position_or_when_the_journal_stops() {
        let published = Arc::new(Published::new(Lsn::ZERO, Chain::START));
        let waiters: Vec<_> = [100, 5000, 9000]
            .map(|lsn| {
                let published = published.clone();
                std::thread::spawn(move || published.wait(|durable| durable.covers(Lsn::new(lsn))))
            })
            .into_iter()
            .collect();
        published.publish(durable(4096), Chain::new(1));
        published.publish(durable(8192), Chain::new(2));
        published.stop();
        let passed: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().expect("does not panic")).collect();
        assert_eq!(passed, [true, true, false]);
        assert_eq!(published.anchor(), (durable(8192), Chain::new(2)));
    }
}
