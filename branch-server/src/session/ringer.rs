//! Wakes the workers once for all that the connections of one turn have pushed.
//!
//! The runtime's queue is first in, first out: a task that is woken by the first connection of a turn runs
//! behind all connections that were ready then. One wake-up of a worker instead of one per connection, and
//! the worker finds more to do at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::thread::Thread;

/// What a connection rings; the task of this file passes it on.
#[derive(Debug, Default)]
pub(super) struct Ringer {
    wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Ringer {
    /// Something was pushed.
    pub(super) fn want(&self) {
        if !self.wanted.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

/// Runs as long as its thread.
pub(super) async fn run(thread: Rc<Thread>) {
    std::future::poll_fn(|cx| {
        let ringer = &thread.ringer;
        if ringer.waker.borrow().is_none() {
            *ringer.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if ringer.wanted.replace(false) {
            thread.shared.backend.intake().ring();
        }
        Poll::<()>::Pending
    })
    .await;
}
