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
use std::time::Duration;

use parking_lot::Mutex;

use crate::blocking::BlockingWriter;
use crate::flusher::{Flusher, Step};
use crate::published::Published;
use crate::running::OnDurable;

/// A disk that took longer for the last group is no place for a writer to wait at.
const TOOK_MAX: Duration = Duration::from_micros(500);

/// See the module.
pub(crate) struct Turns {
    flusher: Mutex<Flusher<BlockingWriter>>,
    published: Arc<Published>,
    on_durable: OnDurable,
}

impl Turns {
    pub(crate) const fn new(
        flusher: Flusher<BlockingWriter>,
        published: Arc<Published>,
        on_durable: OnDurable,
    ) -> Self {
        Self { flusher: Mutex::new(flusher), published, on_durable }
    }

    /// Waits for its turn, takes one step and tells who waits for it.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn take(&self, step: impl FnOnce(&mut Flusher<BlockingWriter>) -> io::Result<Step>) -> io::Result<Step> {
        let mut flusher = self.flusher.lock();
        let step = step(&mut flusher)?;
        self.tell(step);
        Ok(step)
    }

    /// Takes one step on the calling thread, if that is quick: nobody has the turn, and the disk does not dawdle. Returns
    /// whether a group was flushed.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub(crate) fn take_if_quick(&self) -> io::Result<bool> {
        let Some(mut flusher) = self.flusher.try_lock() else { return Ok(false) };
        if flusher.last_took() > TOOK_MAX {
            return Ok(false);
        }
        let step = flusher.step()?;
        self.tell(step);
        Ok(matches!(step, Step::Flushed { .. }))
    }

    /// Whether the next step may get further than the last.
    pub(crate) fn is_ready(&self) -> bool {
        self.flusher.lock().is_ready()
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
