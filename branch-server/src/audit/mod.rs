//! Audit: this branch's part of `tally audit balance`. Adds up all accounts as of a stamp, out of the files, while the
//! branch serves.
//!
//! ```text
//!   registry --"audit at T"--> ask --> [ wanted ] --> thread `audit`: pass T, wait until durable, read back, add up
//!            <----"running"---- '
//!            <----the books---- [ done ] <----------------------------------'
//! ```
//!
//! What is added up, and what is compared with whom, is `tally_ledger::audit`'s.
//!
//! **Invariant:** nothing of the served state is believed: the sums come from the newest checkpoint that is old enough
//! and the journal behind it, every account by itself. The thread has a lower priority than all that serve.
//!
//! **Invariant:** one audit at a time, and of a done one its books alone are kept.

mod answer;
mod read;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tally_protocol::{BranchId, Timestamp};

use crate::journal::Journal;
use crate::scheduling;
use crate::two_phase::TwoPhase;
use read::{AuditError, Taken};

/// See the top of the file. A clone asks the same thread.
#[derive(Clone, Debug)]
pub struct Auditor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    branch: BranchId,
    /// Its clock follows the auditors' stamps.
    clock: Arc<TwoPhase>,
    journal: Arc<Journal>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

/// How far the audit is.
#[derive(Debug, Default)]
enum State {
    /// None was asked for.
    #[default]
    Idle,
    /// One is asked for; with `Some`, what was read is to be read on from where it ended.
    Wanted(Timestamp, Option<Box<Taken>>),
    /// The thread is at it.
    Running(Timestamp),
    /// The books.
    Done(Timestamp, Box<Taken>),
    /// Why there are none.
    Failed(Timestamp, AuditError),
}

impl State {
    /// As of when.
    const fn stamp(&self) -> Option<Timestamp> {
        match self {
            Self::Idle => None,
            Self::Wanted(stamp, _) | Self::Running(stamp) | Self::Done(stamp, _) | Self::Failed(stamp, _) => {
                Some(*stamp)
            }
        }
    }
}

impl Auditor {
    /// Starts the thread. It ends when [`Self::stop`] says so.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(clock: Arc<TwoPhase>, journal: Arc<Journal>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            branch: clock.branch(),
            clock,
            journal,
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let running = shared.clone();
        let thread = scheduling::spawn_background("audit", move || running.run())?;
        Ok((Self { shared }, thread))
    }

    /// Ends the thread, whatever it is doing.
    pub fn stop(&self) {
        let _state = self.shared.state.lock();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        while let Some((stamp, before)) = self.next() {
            let is_stopping = || self.stop.load(Ordering::Acquire);
            let taken = match before {
                Some(mut taken) => taken.go_on(&self.journal, &is_stopping).map(|()| taken),
                None => Taken::take(&self.journal, self.branch, stamp, &is_stopping).map(Box::new),
            };
            *self.state.lock() = match taken {
                Ok(taken) => State::Done(stamp, taken),
                Err(error) => {
                    tracing::warn!(stage = "audit", %error, "the books could not be added up");
                    State::Failed(stamp, error)
                }
            };
        }
    }

    /// Waits for something to do; `None` when the branch stops.
    fn next(&self) -> Option<(Timestamp, Option<Box<Taken>>)> {
        let mut state = self.state.lock();
        loop {
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            if let State::Wanted(stamp, _) = *state {
                let State::Wanted(_, before) = std::mem::replace(&mut *state, State::Running(stamp)) else {
                    unreachable!("just looked")
                };
                return Some((stamp, before));
            }
            self.changed.wait(&mut state);
        }
    }
}
