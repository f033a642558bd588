//! One connection: a task that drives the socket, and handles that put requests into it.
//!
//! ```text
//!  callers --append--> outbound --swap--> sending --TLS record--> branch
//!     ^                                                             |
//!     '--wake-- slots <-------- frames <-------- inbound <----------'
//! ```
//!
//! The cost of a request is per TLS record and per system call, not per byte. So callers only append to one
//! buffer, and the task writes whatever has gathered there since it last looked, in one go.
//!
//! Invariant: the requests that the branch has not answered weigh at most `in_flight_max`, so neither the table
//! nor the buffers grow without bound, however many callers there are.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tally_protocol::FRAME_LEN_BYTES_MAX;
use tally_protocol::frame::Envelope;
use tally_protocol::reply::{self, Reply};
use tally_protocol::request::Request;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_rustls::client::TlsStream;

use crate::inbound::Inbound;
use crate::slots::{NoReply, SlotKey, Slots};
use crate::{Dialed, LostReason, RequestError, Session};

/// How often deadlines are looked at: what a deadline may be late by.
const TICK: Duration = Duration::from_millis(10);
/// A branch that owes replies and sends nothing for this long is taken for gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A frame weighs one for itself and one more for each of these, so that full batches cannot fill the memory.
const WEIGHT_LEN_BYTES: usize = 64 * 1024;
/// Reads in one turn before others get theirs.
const READS_PER_TURN_MAX: usize = 8;
/// The most weight that a frame can have.
const WEIGHT_MAX: usize = 1 + FRAME_LEN_BYTES_MAX / WEIGHT_LEN_BYTES;

/// A handle to a connection. The connection ends with its last handle.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    handle: Arc<Handle>,
    session: Session,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(LostReason::ClientClosed);
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    permits: Semaphore,
}

#[derive(Debug)]
struct State {
    /// Frames that the task has not taken yet.
    outbound: Vec<u8>,
    slots: Slots,
    driver: Option<Waker>,
    /// Set once, and then no slot is taken any more.
    ended: Option<LostReason>,
}

impl Connection {
    /// Starts the task of a session that was just opened. Must be called inside a tokio runtime.
    pub(crate) fn start(dialed: Dialed) -> Self {
        let Dialed { stream, session } = dialed;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { outbound: Vec::new(), slots: Slots::default(), driver: None, ended: None }),
            permits: Semaphore::new(session.in_flight_max.max(WEIGHT_MAX)),
        });
        tokio::spawn(Driver::new(Arc::clone(&shared), stream));
        Self { handle: Arc::new(Handle { shared }), session }
    }

    /// What the branch said when the session began.
    pub(crate) fn session(&self) -> Session {
        self.session
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.handle.shared.lock().ended.is_none()
    }

    /// Sends a request and reads its reply with `read`, in place.
    ///
    /// Returns `Ok(None)` when the connection had ended before the request was put into it: it was not sent.
    /// Every error means that it was, or may have been.
    pub(crate) async fn call<T>(
        &self,
        request: &Request<'_>,
        trace_id: u128,
        deadline: Instant,
        read: impl FnOnce(Reply<'_>) -> T,
    ) -> Result<Option<T>, RequestError> {
        let shared = &*self.handle.shared;
        let weight = weight_of(request);
        let acquired = tokio::time::timeout_at(deadline.into(), shared.permits.acquire_many(weight)).await;
        match acquired {
            // The slot gives the weight back, once the branch owes nothing for it.
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_closed)) => return Ok(None),
            Err(_elapsed) => return Err(RequestError::NotSent(crate::ConnectError::DeadlinePassed)),
        }
        let Some(key) = shared.submit(request, trace_id, deadline, weight) else {
            shared.permits.add_permits(weight as usize);
            return Ok(None);
        };
        let mut waiting = WaitingCall { shared, key: Some(key) };
        let arrived = std::future::poll_fn(|cx| waiting.poll(cx)).await;
        let arrived = match arrived {
            Ok(arrived) => arrived,
            Err(NoReply::Lost(reason)) => return Err(RequestError::Lost(reason)),
            Err(NoReply::DeadlinePassed) => return Err(RequestError::DeadlinePassed),
        };
        let value = reply::decode(&arrived.header, &arrived.body).map(read);
        shared.lock().slots.give_back(key, arrived.body);
        Ok(Some(value?))
    }
}

fn weight_of(request: &Request<'_>) -> u32 {
    let len_bytes = match request {
        Request::OpenAccounts(opens) => size_of_val(*opens),
        Request::Chain(transfers) | Request::Batch(transfers) => size_of_val(*transfers),
        Request::Hello(_)
        | Request::Login(_)
        | Request::Ping
        | Request::GetStatus
        | Request::GetRoutes
        | Request::CloseAccount(_)
        | Request::FreezeAccount(_)
        | Request::UnfreezeAccount(_)
        | Request::SetLimits(_)
        | Request::Transfer(_)
        | Request::CancelId(_)
        | Request::GetBalance(_)
        | Request::GetAccount(_)
        | Request::GetTransfer(_)
        | Request::ReadAfter(..)
        | Request::ReadFeed(_) => 0,
    };
    (1 + len_bytes / WEIGHT_LEN_BYTES) as u32
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the connection's state")
    }

    fn submit(&self, request: &Request<'_>, trace_id: u128, deadline: Instant, weight: u32) -> Option<SlotKey> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut state = self.lock();
        if state.ended.is_some() {
            return None;
        }
        let key = state.slots.insert(deadline, weight);
        let envelope = Envelope {
            request_id: key.request_id(),
            trace_id,
            // 0 would mean none.
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        request.append_to(&mut state.outbound, envelope);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(key)
    }

    fn free(&self, weight: u32) {
        if weight > 0 {
            self.permits.add_permits(weight as usize);
        }
    }

    /// Ends the connection for `reason`, unless it has ended.
    fn end(&self, reason: LostReason) {
        let mut wake = Vec::new();
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(reason);
            state.outbound = Vec::new();
            state.slots.fail_all(reason, &mut wake);
            wake.extend(state.driver.take());
        }
        drop(state);
        self.permits.close();
        wake.into_iter().for_each(Waker::wake);
    }
}

/// A request that waits for its reply; dropping it gives it up.
struct WaitingCall<'a> {
    shared: &'a Shared,
    key: Option<SlotKey>,
}

impl WaitingCall<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<crate::slots::Arrived, NoReply>> {
        let key = self.key.expect("a call is polled only until it is ready");
        let polled = self.shared.lock().slots.poll(key, cx.waker());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready((result, weight)) => {
                self.key = None;
                self.shared.free(weight);
                Poll::Ready(result)
            }
        }
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let weight = self.shared.lock().slots.abandon(key);
            self.shared.free(weight);
        }
    }
}

/// The task: moves bytes between the socket and the shared state until the connection ends.
struct Driver {
    shared: Arc<Shared>,
    stream: TlsStream<TcpStream>,
    sending: Vec<u8>,
    sent_len_bytes: usize,
    /// Whether bytes may still lie in the TLS layer.
    unflushed: bool,
    inbound: Inbound,
    wake: Vec<Waker>,
    tick: Interval,
    /// Whether replies were owed when it was last looked.
    watching: bool,
    last_heard: Instant,
}

impl Driver {
    fn new(shared: Arc<Shared>, stream: TlsStream<TcpStream>) -> Self {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            shared,
            stream,
            sending: Vec::new(),
            sent_len_bytes: 0,
            unflushed: false,
            inbound: Inbound::new(),
            wake: Vec::new(),
            tick,
            watching: false,
            last_heard: Instant::now(),
        }
    }

    /// Everything that can be done now; the waker is registered with whatever could make more possible.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), LostReason> {
        self.read(cx)?;
        self.write(cx)?;
        self.watch(cx)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), LostReason> {
        for _ in 0..READS_PER_TURN_MAX {
            match self.inbound.poll_fill(&mut self.stream, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(LostReason::Closed),
                Poll::Ready(Ok(_)) => self.deliver()?,
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), LostReason> {
        self.last_heard = Instant::now();
        let mut weight = 0;
        let mut state = self.shared.lock();
        let result = loop {
            match self.inbound.next_frame() {
                Ok(Some((header, body))) => weight += state.slots.complete(header, body, &mut self.wake),
                Ok(None) => break Ok(()),
                Err(_) => break Err(LostReason::NotAFrame),
            }
        };
        drop(state);
        self.shared.free(weight);
        self.wake.drain(..).for_each(Waker::wake);
        result
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), LostReason> {
        loop {
            if self.sent_len_bytes == self.sending.len() {
                self.sending.clear();
                self.sent_len_bytes = 0;
                let mut state = self.shared.lock();
                if let Some(reason) = state.ended {
                    return Err(reason);
                }
                std::mem::swap(&mut self.sending, &mut state.outbound);
                if self.sending.is_empty() {
                    state.driver = Some(cx.waker().clone());
                    break;
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.sending[self.sent_len_bytes..]) {
                Poll::Ready(Ok(len_bytes)) => {
                    self.sent_len_bytes += len_bytes;
                    self.unflushed = true;
                }
                Poll::Ready(Err(_)) => return Err(LostReason::Closed),
                // Whoever ends the connection must still be able to wake us.
                Poll::Pending => {
                    let mut state = self.shared.lock();
                    state.driver = Some(cx.waker().clone());
                    return state.ended.map_or(Ok(()), Err);
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(LostReason::Closed),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> Result<(), LostReason> {
        // With nothing owed there is nothing to watch, and an idle connection costs no wake-ups.
        let owed = self.shared.lock().slots.taken() > 0;
        if owed && !self.watching {
            self.last_heard = Instant::now();
            self.tick.reset();
        }
        self.watching = owed;
        while self.watching && self.tick.poll_tick(cx).is_ready() {
            let now = Instant::now();
            let mut state = self.shared.lock();
            state.slots.expire(now, &mut self.wake);
            drop(state);
            self.wake.drain(..).for_each(Waker::wake);
            if now.duration_since(self.last_heard) > SILENCE_MAX {
                return Err(LostReason::Silent);
            }
        }
        Ok(())
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                self.shared.end(reason);
                // A word of farewell, if there is room for one: the branch then knows that nothing was cut off.
                let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Driver {
    /// The runtime may drop the task before the connection ended by itself.
    fn drop(&mut self) {
        self.shared.end(LostReason::ClientClosed);
    }
}
