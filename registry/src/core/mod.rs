//! What the tasks of a node share: the applied state, the leader's coordinators, and what is proposed and not applied.
//!
//! All tasks run on one thread, and none holds the lock while it waits: it is never contended, and says to the compiler
//! what openraft asks for.

mod branch_calls;
mod leading;
mod proposals;

pub use leading::{Heard, Leading, LinkSlot};
pub use proposals::{Proposals, ProposeError};

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tally_protocol::Timestamp;
use tally_protocol::link::stamp_frames;
use tokio::sync::{Notify, oneshot};

use crate::bytes::ReadError;
use crate::clock::{Clock, wall};
use crate::coordinator::Coordinators;
use crate::raft::types::{LogId, StoredMembership};
use crate::state::{BatchBuilder, BatchReader, Command, Outcome, State};

/// Batches that wait for the log at a time: while one is being flushed the next is replicated and another gathers.
const OUTSTANDING_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    core: Mutex<Core>,
    /// There may be something to propose, and room for it.
    pub proposer: Notify,
    /// Frames whose stamp was too far ahead to be followed.
    pub stamps_refused: AtomicU64,
}

/// What is behind the lock.
#[derive(Debug)]
pub struct Core {
    /// This node.
    pub node_id: u64,
    /// This start of its process: its own proposals carry it.
    pub boot: u64,
    /// Everything that was applied.
    pub state: State,
    /// Up to here.
    pub last_applied: Option<LogId>,
    /// The last membership that was applied.
    pub membership: StoredMembership,
    /// There while this node leads and everything before it leads is applied.
    pub leading: Option<Leading>,
    /// Own proposals.
    pub proposals: Proposals,
    clock: Clock,
    /// Entries applied since the process began.
    pub entries_applied: u64,
    /// Commands in them.
    pub commands_applied: u64,
}

impl Shared {
    /// A node that has applied nothing.
    pub fn new(node_id: u64, boot: u64) -> Self {
        let core = Core {
            node_id,
            boot,
            state: State::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            leading: None,
            proposals: Proposals::default(),
            clock: Clock::default(),
            entries_applied: 0,
            commands_applied: 0,
        };
        Self { core: Mutex::new(core), proposer: Notify::new(), stamps_refused: AtomicU64::new(0) }
    }

    /// The core. Not to be held over an await.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Puts this node's clock into frames that are about to leave.
    pub fn stamp(&self, frames: &mut [u8]) {
        let now = self.lock().now();
        stamp_frames(frames, now);
    }

    /// The clock follows what has come. One that is too far ahead is not followed, and counted; what the frame says may
    /// be good all the same: Raft needs no clocks.
    pub fn follow(&self, stamp: Timestamp) {
        if let Err(error) = self.lock().heard(stamp) {
            self.stamps_refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(stage = "clock", %error, "a stamp was refused");
        }
    }

    /// Proposes a command and waits for its outcome.
    ///
    /// # Errors
    /// When this node does not lead, or stops to lead meanwhile: then the outcome is not known.
    pub async fn propose(&self, command: &Command<'_>) -> Result<Outcome, ProposeError> {
        let (done, outcome) = oneshot::channel();
        {
            let mut core = self.lock();
            if core.leading.is_none() {
                return Err(ProposeError::NotLeading);
            }
            core.proposals.push(command, done)?;
        }
        self.proposer.notify_one();
        outcome.await.map_err(|_| ProposeError::Unknown)
    }
}

impl Core {
    /// The next stamp of this node.
    pub fn now(&mut self) -> Timestamp {
        self.clock.next(wall())
    }

    /// Something with this stamp has come from another node.
    ///
    /// # Errors
    /// When it is too far ahead.
    pub fn heard(&mut self, stamp: Timestamp) -> Result<(), crate::clock::ClockAhead> {
        self.clock.observe(stamp, wall())
    }

    /// Applies the commands of one entry.
    ///
    /// # Errors
    /// When the bytes were not written by a proposer: nothing can go on from there.
    pub fn apply_batch(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let mut reader = BatchReader::new(bytes)?;
        let header = reader.header();
        let mut own = None;
        if (header.node_id, header.boot) == (self.node_id, self.boot) {
            own = self.proposals.applied(header.number);
        }
        let mut index = 0;
        let now = self.clock.next(wall());
        while let Some(command) = reader.next_command()? {
            let outcome = self.state.apply(&command);
            self.commands_applied += 1;
            if let Some(waiters) = &mut own {
                waiters.tell(index, outcome);
            }
            index += 1;
            self.tell_coordinators(&command, outcome, own.is_some(), now);
        }
        self.clock.follow(self.state.stamp);
        self.entries_applied += 1;
        if let Some(leading) = &mut self.leading {
            leading.wake_links(self.state.directory.routes_version);
        }
        Ok(())
    }

    fn tell_coordinators(&mut self, command: &Command<'_>, outcome: Outcome, is_own: bool, now: Timestamp) {
        let (Some(leading), true) = (&mut self.leading, is_own) else { return };
        let decided = match (*command, outcome) {
            (
                Command::Decide { id, participants, .. } | Command::MoveAccount { id, participants, .. },
                Outcome::Decided(known),
            ) => Some((id, known, participants)),
            (Command::Resolve { id, participants, .. }, Outcome::Decided(known)) => Some((id, known, participants)),
            // Refused because it is committed: those who wait for an answer get that one.
            (Command::Resolve { id, participants, .. }, Outcome::Refused(_)) => {
                self.state.decisions.get(id).map(|known| (id, known, participants))
            }
            _ => None,
        };
        if let Some((id, known, participants)) = decided {
            leading.coordinators.replicated(id, known, participants, &self.state, now);
        }
    }

    /// Begins to lead: everything before is applied.
    pub fn lead(&mut self, term: u64, transfers_max: usize) {
        self.clock.follow(self.state.stamp);
        let now = self.now();
        let coordinators = Coordinators::new(transfers_max, &self.state, now);
        self.leading = Some(Leading::new(term, coordinators, &self.state, wall()));
    }

    /// Stops to lead: what was in memory is gone, and nobody is told anything more.
    pub fn follow(&mut self) {
        self.leading = None;
        self.proposals.clear();
    }

    /// The next batch for the log, if there is something to propose and not too much under way: its number and bytes.
    pub fn next_batch(&mut self) -> Option<(u64, bytes::Bytes)> {
        if self.proposals.outstanding() >= OUTSTANDING_MAX {
            return None;
        }
        let now = self.now();
        // What is proposed while leadership goes elsewhere would be in doubt until the heir leads.
        let leading = self.leading.as_mut().filter(|leading| !leading.is_handing_over)?;
        let mut batch = BatchBuilder::default();
        let waiters = self.proposals.fill(&mut batch);
        leading.coordinators.fill(&mut batch, now);
        if batch.is_empty() {
            return None;
        }
        let number = self.proposals.begin(waiters);
        Some((number, batch.take(self.node_id, self.boot, number)))
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::link::LinkFrame;
    use tally_protocol::{Envelope, split_frame};

    use super::*;

    #[test]
    fn what_is_stamped_after_a_frame_came_is_later_unless_its_clock_is_wrong() {
        let (here, there) = (Shared::new(1, 1), Shared::new(2, 1));
        let stamped = |shared: &Shared| {
            let mut frame = Vec::new();
            LinkFrame::Call("{}").append_to(&mut frame, Envelope::request(1));
            shared.stamp(&mut frame);
            split_frame(&frame).expect("valid").expect("whole").0.link_stamp()
        };
        // A clock that is 0.4 s ahead is followed, at once.
        let ahead = |nanos: u64| Timestamp::from_nanos(wall().as_nanos() + nanos);
        let heard = ahead(400_000_000);
        there.follow(heard);
        let said = stamped(&there);
        assert!(said > heard);
        here.follow(said);
        assert!(stamped(&here) > said);
        // One that is 0.6 s ahead is not.
        let wrong = ahead(600_000_000);
        here.follow(wrong);
        assert!(stamped(&here) < wrong);
        assert_eq!(here.stamps_refused.load(Ordering::Relaxed), 1);
        assert_eq!(there.stamps_refused.load(Ordering::Relaxed), 0);
    }
}
