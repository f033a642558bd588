//! A session thread: its runtime, its listener, and what its tasks share.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;

use super::mailbox::Mailbox;
use super::stats::{CloseReason, ThreadStats, add, sub};
use super::table::Table;
use super::{Shared, connection, dispatch, ringer, sweep};
use crate::bell::Bell;
use crate::limits::READ_LEN_BYTES_MAX;
use crate::replies::ReplyReceiver;

/// How long to wait after the process ran out of file descriptors (or the like) before accepting again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a stopping thread looks whether its last connection is gone.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a thread is started with.
pub(super) struct Parts {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) listener: TcpListener,
    pub(super) receiver: ReplyReceiver,
    pub(super) bell: Bell,
    pub(super) notify: Arc<Notify>,
    pub(super) stop: Arc<Notify>,
}

/// What the tasks of one thread share.
pub(super) struct Thread {
    index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) table: RefCell<Table>,
    /// What every connection reads into: one buffer that stays in the cache.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Sessions that got replies in this round.
    pub(super) dirty: RefCell<Vec<Rc<Mailbox>>>,
    pub(super) ringer: ringer::Ringer,
}

impl Thread {
    pub(super) fn stats(&self) -> &ThreadStats {
        self.shared.stats.thread(self.index)
    }
}

/// Serves until drained.
pub(super) fn run(parts: Parts) {
    crate::scheduling::prompt();
    // The session tasks are the thread's only work and each is short: look at the sockets less often than
    // tokio's default, so that a round gathers more and costs fewer system calls.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(256)
        .max_blocking_threads(crate::limits::PASSWORD_HASHES_MAX + 1)
        .build_local(LocalOptions::default())
        .expect("a thread that is being started can make its runtime");
    let thread = Rc::new(Thread {
        index: parts.index as usize,
        shared: parts.shared,
        table: RefCell::new(Table::new(parts.index)),
        scratch: RefCell::new(vec![0; READ_LEN_BYTES_MAX].into_boxed_slice()),
        dirty: RefCell::default(),
        ringer: ringer::Ringer::default(),
    });
    runtime.block_on(async {
        tokio::task::spawn_local(dispatch::run(thread.clone(), parts.receiver, parts.bell, parts.notify));
        tokio::task::spawn_local(sweep::run(thread.clone()));
        tokio::task::spawn_local(ringer::run(thread.clone()));
        tokio::select! {
            () = accept(&thread, parts.listener) => {}
            () = parts.stop.notified() => {}
        }
        drain(&thread).await;
    });
    // A password hash may still be running; nobody waits for it any more.
    runtime.shutdown_background();
}

/// Waits until the last connection is gone, but not longer than the configured time.
async fn drain(thread: &Thread) {
    // The next sweep would tell them too; this way a drain does not wait for it.
    thread.table.borrow().iter().for_each(|mailbox| mailbox.wake());
    let limit = tokio::time::Instant::now() + thread.shared.limits.drain_timeout;
    while !thread.table.borrow().is_empty() {
        if tokio::time::Instant::now() >= limit {
            let left = thread.table.borrow().iter().count();
            tracing::warn!(stage = "session", connections = left, "drain time-out: closing what is left");
            return;
        }
        tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
    }
}

async fn accept(thread: &Rc<Thread>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(stage = "acceptor", %error, "the listener cannot be used; this session thread accepts nobody");
            return std::future::pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                add(&thread.stats().connections, 1);
                match Place::take(thread) {
                    Some(place) => {
                        tokio::task::spawn_local(connection::serve(thread.clone(), stream, peer, place));
                    }
                    // Closed at once: an answer would cost a handshake, which is what we cannot afford.
                    None => thread.stats().note_closed(CloseReason::Capacity),
                }
            }
            Err(error) => {
                tracing::warn!(stage = "acceptor", %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection's place among those that are allowed; given back when dropped.
pub(super) struct Place {
    thread: Rc<Thread>,
    authenticated: bool,
}

impl Place {
    /// `None` when there are too many connections, or too many that have not logged in.
    fn take(thread: &Rc<Thread>) -> Option<Self> {
        let shared = &thread.shared;
        if !take_one(&shared.connections, shared.limits.connections_max) {
            return None;
        }
        if !take_one(&shared.unauthenticated, shared.limits.unauthenticated_max) {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        add(&thread.stats().connections_open, 1);
        Some(Self { thread: thread.clone(), authenticated: false })
    }

    /// Makes room for the next stranger.
    pub(super) fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            self.thread.shared.unauthenticated.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.authenticated();
        self.thread.shared.connections.fetch_sub(1, Ordering::Relaxed);
        sub(&self.thread.stats().connections_open, 1);
    }
}

fn take_one(count: &AtomicUsize, max: usize) -> bool {
    if count.fetch_add(1, Ordering::Relaxed) >= max {
        count.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    true
}
