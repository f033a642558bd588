//! Taking turns with the flusher: its own thread, and a writer that has nothing else to do than wait for its record.
//!
//! Waking another thread to write one record, and being woken by it, costs as much as a fast disk needs for the write.
//! So a writer may flush its only record itself, if the flusher is at rest; whoever comes meanwhile wakes the flusher,
//! which waits for its turn and writes all that gathered.
//!
//! **Invariants:** as the [`Flusher`]'s: one group in flight, in order, no second try. A position is published under
//! the same lock, so that it only rises.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::blocking::BlockingWriter;
use crate::flusher::{Flusher, Step};
use crate::published::Published;
use crate::running::OnDurable;

/// A disk that took longer for the last group is no place for a writer to wait at.
const TOOK_MAX: Duration = Duration::from_micros(500);

/// See the module.
pub(crate) struct Turns {
    turn: Mutex<Turn>,
    published: Arc<Published>,
    on_durable: OnDurable,
}

/// What whoever has the turn works with.
struct Turn {
    flusher: Flusher<BlockingWriter>,
    /// When a group was flushed that no mark follows.
    unmarked_since: Option<Instant>,
}

impl Turns {
    pub(crate) const fn new(
        flusher: Flusher<BlockingWriter>,
        published: Arc<Published>,
        on_durable: OnDurable,
    ) -> Self {
        Self { turn: Mutex::new(Turn { flusher, unmarked_since: None }), published, on_durable }
    }

    /// Waits for its turn, takes one step and tells who waits for it.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn take(&self, step: impl FnOnce(&mut Flusher<BlockingWriter>) -> io::Result<Step>) -> io::Result<Step> {
        self.take_in(&mut self.turn.lock(), step)
    }

    /// Takes one step on the calling thread, if that is quick: nobody has the turn, and the disk does not dawdle. Returns
    /// whether a group was flushed.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn take_if_quick(&self) -> io::Result<bool> {
        let Some(mut turn) = self.turn.try_lock() else { return Ok(false) };
        if turn.flusher.last_took() > TOOK_MAX {
            return Ok(false);
        }
        Ok(matches!(self.take_in(&mut turn, Flusher::step)?, Step::Flushed { .. }))
    }

    /// Says in the log that the last group is durable.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn mark(&self) -> io::Result<()> {
        let mut turn = self.turn.lock();
        self.take_in(&mut turn, Flusher::mark)?;
        turn.unmarked_since = None;
        Ok(())
    }

    /// As [`Self::mark`], if nothing was flushed for `idle`, and no mark follows the last group yet. Returns whether the
    /// disk was written to.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn mark_after(&self, idle: Duration) -> io::Result<bool> {
        let mut turn = self.turn.lock();
        if turn.unmarked_since.is_none_or(|since| since.elapsed() < idle) {
            return Ok(false);
        }
        let step = self.take_in(&mut turn, Flusher::mark_if_idle)?;
        turn.unmarked_since = None;
        Ok(matches!(step, Step::Flushed { .. }))
    }

    fn take_in(
        &self,
        turn: &mut Turn,
        step: impl FnOnce(&mut Flusher<BlockingWriter>) -> io::Result<Step>,
    ) -> io::Result<Step> {
        let step = step(&mut turn.flusher)?;
        if let Step::Flushed { .. } = step {
            turn.unmarked_since = Some(Instant::now());
        }
        self.tell(step);
        Ok(step)
    }

    /// Whether the next step may get further than the last.
    pub(crate) fn is_ready(&self) -> bool {
        self.turn.lock().flusher.is_ready()
    }

    fn tell(&self, step: Step) {
        if let Step::Flushed { durable, chain } = step {
            self.published.publish(durable, chain);
            (self.on_durable)(durable);
        }
    }
}

/// What the disk has kept of the group is unknown, and trying again can hide the loss: whoever starts next reads what
/// there is.
pub(crate) fn give_up(error: &io::Error) -> ! {
    tracing::error!(stage = "journal", %error, "a journal flush failed: stopping at once");
    std::process::abort()
}
