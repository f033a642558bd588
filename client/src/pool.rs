//! A few connections to one branch, opened when they are needed and again when they were lost.
//!
//! Invariant: at most one task opens a given connection at a time, and after a failure nobody tries again before
//! the backoff has passed, however many callers ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Mutex as AsyncMutex;

use crate::connection::Connection;
use crate::{ConnectError, Dialer, Random, RetryPolicy};

#[derive(Debug)]
pub(crate) struct Pool {
    dialer: Dialer,
    policy: RetryPolicy,
    lines: Box<[Line]>,
    next: AtomicUsize,
}

/// One connection of the pool, open or not.
#[derive(Debug)]
struct Line {
    connection: Mutex<Option<Connection>>,
    /// Held by whoever opens the connection.
    opening: AsyncMutex<Opening>,
}

#[derive(Debug)]
struct Opening {
    failures: u32,
    not_before: Instant,
    last_error: Option<ConnectError>,
    random: Random,
}

impl Pool {
    /// A pool of `connections` lines (at least one). Opens nothing yet.
    pub(crate) fn new(dialer: Dialer, connections: usize, policy: RetryPolicy) -> Self {
        let line = || Line {
            connection: Mutex::new(None),
            opening: AsyncMutex::new(Opening {
                failures: 0,
                not_before: Instant::now(),
                last_error: None,
                random: Random::from_system(),
            }),
        };
        Self { dialer, policy, lines: (0..connections.max(1)).map(|_| line()).collect(), next: AtomicUsize::new(0) }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.dialer.endpoint()
    }

    /// An open connection: the lines take turns.
    pub(crate) async fn get(&self, deadline: Instant) -> Result<Connection, ConnectError> {
        // Only spreads the load: no other memory depends on it.
        let line_index = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len();
        let line = &self.lines[line_index];
        if let Some(connection) = line.open() {
            return Ok(connection);
        }
        match tokio::time::timeout_at(deadline.into(), self.reopen(line)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectError::DeadlinePassed),
        }
    }

    async fn reopen(&self, line: &Line) -> Result<Connection, ConnectError> {
        let mut opening = line.opening.lock().await;
        if let Some(connection) = line.open() {
            return Ok(connection);
        }
        if let Some(error) = &opening.last_error
            && Instant::now() < opening.not_before
        {
            return Err(error.clone());
        }
        match self.dialer.dial().await {
            Ok(dialed) => {
                let connection = Connection::start(dialed);
                opening.failures = 0;
                opening.last_error = None;
                *line.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let Opening { failures, random, .. } = &mut *opening;
                let unending = RetryPolicy { attempts_max: u32::MAX, ..self.policy };
                let wait = unending.backoff(*failures, None, random).unwrap_or(self.policy.backoff_max);
                *failures = failures.saturating_add(1).min(u32::BITS - 1);
                opening.not_before = Instant::now() + wait;
                opening.last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Closes every connection; what is in flight is lost.
    pub(crate) fn close(&self) {
        for line in &self.lines {
            *line.lock() = None;
        }
    }
}

impl Line {
    fn open(&self) -> Option<Connection> {
        self.lock().as_ref().filter(|connection| connection.is_open()).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection.lock().expect("nothing panics while it holds the connection")
    }
}
