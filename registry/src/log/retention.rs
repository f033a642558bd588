//! Gives up what the log does not need any more, on a thread of its own: openraft purges often, and must not wait for a
//! file to be renamed.
//!
//! **Invariant:** what the manifest says is durable in the journal before the manifest is, and the manifest before the
//! first segment is given up.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tally_journal::{Anchor, scheduling};
use tally_ledger::journal::group::Epoch;
use tally_protocol::Lsn;

use super::manifest::{self, Manifest};
use super::store::Shared;

/// What the thread is to do.
#[derive(Default)]
pub(super) struct Wanted {
    state: Mutex<WantedState>,
    changed: Condvar,
}

#[derive(Default)]
struct WantedState {
    look: bool,
    stop: bool,
}

impl Wanted {
    /// Something was purged.
    pub(super) fn want(&self) {
        self.state.lock().look = true;
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits for something to do; false when it is time to stop.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.look && !state.stop {
            self.changed.wait(&mut state);
        }
        state.look = false;
        !state.stop
    }
}

/// The thread.
pub(super) struct Retention {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Retention {
    /// Starts it, once `before` has been replaced by a manifest that names what was recovered: from here on that is
    /// missed if it gets lost.
    ///
    /// # Errors
    /// When the disk fails, or the system has no thread left.
    pub(super) fn start(shared: Arc<Shared>, before: Manifest) -> io::Result<Self> {
        let mut work = Work::begin(shared.clone(), before)?;
        let run = move || {
            while work.shared.wanted.wait() {
                if let Err(error) = work.retire() {
                    // Nothing is lost: the next purge tries again.
                    tracing::error!(stage = "raft-log", %error, "journal segments cannot be given up");
                }
            }
        };
        let thread = scheduling::spawn_background("raft-log-purge", run)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn stop(&self) {
        self.shared.wanted.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported, and has stopped the process in a release build.
            let _ = thread.join();
        }
    }
}

/// What the thread does.
pub(super) struct Work {
    shared: Arc<Shared>,
    /// The one on disk.
    manifest: Manifest,
}

impl Work {
    /// Publishes what was recovered. The last run may have had no time to give up all that its manifest freed.
    pub(super) fn begin(shared: Arc<Shared>, before: Manifest) -> io::Result<Self> {
        let mut work = Self { shared, manifest: before };
        work.publish_and_retire()?;
        Ok(work)
    }

    /// As [`Work::retire`], if that need not wait for a flush; false if it would.
    pub(super) fn retire_if_flushed(&mut self) -> io::Result<bool> {
        let journal = &self.shared.journal;
        if !journal.durable().reaches(journal.end()) {
            return Ok(false);
        }
        self.retire().map(|()| true)
    }

    /// Gives up the segments below the first entry that is left.
    fn retire(&mut self) -> io::Result<()> {
        let journal = &self.shared.journal;
        let geometry = *journal.reader().geometry();
        let needed = self.shared.index.lock().first_lsn().unwrap_or_else(|| journal.end());
        if geometry.segment_of(needed.get()) <= geometry.segment_of(journal.reader().oldest().get()) {
            return Ok(());
        }
        self.publish_and_retire()
    }

    fn publish_and_retire(&mut self) -> io::Result<()> {
        match self.publish()? {
            Some(replay_from) => self.shared.journal.retire_below(replay_from),
            None => Ok(()),
        }
    }

    /// Writes a manifest of what the log says now; returns from where the journal is to be read from now on. `None` when
    /// the journal has stopped.
    fn publish(&mut self) -> io::Result<Option<Lsn>> {
        let journal = &self.shared.journal;
        // What the index knows was reserved before, so it lies below the end.
        let (state, first, end) = {
            let index = self.shared.index.lock();
            (index.state(), index.first_lsn(), journal.end())
        };
        if !journal.wait_durable_end(end) {
            return Ok(None);
        }
        let (durable, chain) = journal.anchor();
        let geometry = journal.reader().geometry();
        let first_segment = geometry.segment_of(first.unwrap_or(end).get());
        // A group never reaches from one segment into the next, so one begins there.
        let replay_from = Lsn::new(first_segment * geometry.segment_len_bytes);
        let anchor = Anchor {
            replay_from,
            durable: durable.end(),
            chain,
            // What is read again may be from any run; its order is known by the chain that must lead to this place.
            epoch: if replay_from == durable.end() { journal.epoch() } else { Epoch::NONE },
            last_timestamp: journal.last_timestamp(),
        };
        let manifest = Manifest { anchor: Some(anchor), state, ..self.manifest };
        manifest::publish(&**journal.disk(), &journal.options().directory, &manifest)?;
        self.manifest = manifest;
        Ok(Some(anchor.replay_from))
    }
}
