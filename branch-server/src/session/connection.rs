//! One connection: reads, writes, and its end. A single hand-written poll function does all of it, so
//! that a wake-up costs one task switch, whatever it was for.
//!
//! ```text
//!  Serving --peer broke the protocol, session not renewed, draining--> Closing --sent, shut down, peer done--> gone
//!     '--- peer closed: what is in flight is still answered --------------^
//! ```

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tally_protocol::{Envelope, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::conversation::{Conversation, frame_len_bytes};
use super::gather::{Gathering, Held};
use super::mailbox::{Mailbox, Order};
use super::stats::{CloseReason, add};
use super::thread::{Place, Thread};
use crate::clock;
use crate::limits::{LARGE_FRAME_LEN_BYTES, LINGER, LINGER_LEN_BYTES_MAX, READ_LEN_BYTES_MAX};

/// Takes a connection through TLS and serves it to its end.
pub(super) async fn serve(thread: Rc<Thread>, stream: TcpStream, peer: SocketAddr, place: Place) {
    let limits = &thread.shared.limits;
    let login_deadline = clock::monotonic_nanos() + limits.login_timeout.as_nanos() as u64;
    if crate::acceptor::prepare(&stream, limits.keepalive).is_err() {
        thread.stats().note_closed(CloseReason::Broken);
        return;
    }
    let stream = match tokio::time::timeout(limits.login_timeout, thread.shared.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(stage = "tls", %peer, %error, "TLS handshake failed");
            thread.stats().note_closed(CloseReason::Handshake);
            return;
        }
        Err(_) => {
            thread.stats().note_closed(CloseReason::LoginTimeout);
            return;
        }
    };
    let mailbox = Rc::new(Mailbox::default());
    mailbox.login_deadline.set(login_deadline);
    let key = thread.table.borrow_mut().insert(mailbox.clone());
    let mut connection = Connection {
        conversation: Conversation::new(key, mailbox.clone(), thread.clone(), place, peer.ip()),
        mailbox,
        thread: thread.clone(),
        stream,
        held: Held::default(),
        gathering: None,
        peer_closed: false,
        unflushed: false,
        phase: Phase::Serving,
    };
    let reason = std::future::poll_fn(|cx| connection.poll(cx)).await;
    thread.stats().note_closed(reason);
    tracing::debug!(stage = "session", %peer, reason = reason.name(), "connection closed");
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Serving,
    Closing { reason: CloseReason, discarded_len_bytes: usize },
}

struct Connection {
    conversation: Conversation,
    mailbox: Rc<Mailbox>,
    thread: Rc<Thread>,
    stream: TlsStream<TcpStream>,
    held: Held,
    gathering: Option<Gathering>,
    peer_closed: bool,
    /// Whether TLS holds records that the socket has not taken.
    unflushed: bool,
    phase: Phase,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.thread.table.borrow_mut().remove(self.conversation.key);
    }
}

impl Connection {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.register(cx);
        if let Some(reason) = self.obey() {
            return Poll::Ready(reason);
        }
        self.conversation.finish_login();
        if matches!(self.phase, Phase::Serving) {
            ready!(self.poll_serving(cx));
        }
        self.poll_closing(cx)
    }

    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.mailbox.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Does what the sweeper ordered. Returns a reason to drop the connection at once.
    fn obey(&mut self) -> Option<CloseReason> {
        match self.mailbox.order.take()? {
            Order::EndSession if matches!(self.phase, Phase::Serving) => self.conversation.end_session(),
            Order::Close(refusal, reason) if matches!(self.phase, Phase::Serving) => {
                self.conversation.log_end(reason);
                self.conversation.prepare_last_words(Envelope::default(), refusal, "");
                self.begin_closing(reason);
            }
            Order::EndSession | Order::Close(..) => {}
            Order::Abandon(reason) => {
                self.conversation.log_end(reason);
                return Some(match self.phase {
                    Phase::Serving => reason,
                    Phase::Closing { reason, .. } => reason,
                });
            }
        }
        None
    }

    /// Ready when the phase is no longer `Serving`.
    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let read = self.read(cx);
            self.conversation.end_burst();
            if let Err(reason) = read {
                self.begin_closing(reason);
                return Poll::Ready(());
            }
            let was_held_back = self.conversation.is_held_back();
            let Ok(sent) = self.write(cx) else {
                self.begin_closing(CloseReason::Broken);
                return Poll::Ready(());
            };
            // Sending may have made room; nobody else would wake us for what is held.
            if was_held_back && !self.conversation.is_held_back() {
                continue;
            }
            let draining = self.thread.shared.draining.load(Ordering::Acquire);
            if draining {
                self.conversation.drain();
            }
            if sent && !self.conversation.expects_answers() {
                if self.peer_closed {
                    self.begin_closing(CloseReason::Peer);
                    return Poll::Ready(());
                }
                if draining {
                    self.conversation.prepare_last_words(Envelope::default(), Refusal::ShuttingDown, "");
                    self.begin_closing(CloseReason::Draining);
                    return Poll::Ready(());
                }
            }
            return Poll::Pending;
        }
    }

    /// Reads and takes frames until there is nothing more, the session is held back, or others on this
    /// thread should have their turn.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let thread = self.thread.clone();
        let mut scratch = thread.scratch.borrow_mut();
        let mut read_len_bytes = 0;
        loop {
            self.take_held()?;
            if self.conversation.is_held_back() {
                // It is us who do not read: no frame is late.
                self.mailbox.frame_deadline.set(0);
                return Ok(());
            }
            if self.peer_closed || self.mailbox.waits_for_room.get() {
                return Ok(());
            }
            if read_len_bytes >= READ_LEN_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let read = match &mut self.gathering {
                Some(gathering) => poll_read(&mut self.stream, cx, gathering.rest()),
                None => poll_read(&mut self.stream, cx, &mut scratch[self.held.len()..]),
            };
            match read {
                Poll::Pending => return Ok(()),
                // Without TLS' own goodbye the stream may have been cut short; but frames say their length,
                // so nobody can pass half of one off as whole.
                Poll::Ready(Err(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(CloseReason::Broken);
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.peer_closed = true;
                    self.mailbox.frame_deadline.set(0);
                }
                Poll::Ready(Ok(count)) => {
                    read_len_bytes += count;
                    add(&thread.stats().reads, 1);
                    add(&thread.stats().read_bytes, count as u64);
                    self.take_read(&mut scratch, count)?;
                }
            }
        }
    }

    /// Takes what was left of an earlier read.
    fn take_held(&mut self) -> Result<(), CloseReason> {
        if self.held.is_empty() || self.conversation.is_held_back() {
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        let taken = self.conversation.take_frames(held.bytes())?;
        held.take(taken);
        let is_known = taken == 0 && self.mailbox.frame_deadline.get() != 0;
        if held.is_empty() || is_known || self.conversation.is_held_back() {
            self.held = held;
            return Ok(());
        }
        self.hold(held.bytes(), taken > 0);
        Ok(())
    }

    /// Takes `count` bytes that were read behind what is held, or into the frame that is gathered.
    fn take_read(&mut self, scratch: &mut [u8], count: usize) -> Result<(), CloseReason> {
        if let Some(gathering) = &mut self.gathering {
            gathering.advance(count);
            if gathering.is_complete() {
                let frame = self.gathering.take().expect("it was just looked at").into_frame();
                self.mailbox.frame_deadline.set(0);
                self.conversation.take_large_frame(&frame)?;
            }
            return Ok(());
        }
        let held_len_bytes = self.held.len();
        scratch[..held_len_bytes].copy_from_slice(self.held.bytes());
        self.held.clear();
        let bytes = &scratch[..held_len_bytes + count];
        let taken = self.conversation.take_frames(bytes)?;
        self.hold(&bytes[taken..], taken > 0);
        Ok(())
    }

    /// Keeps the bytes of a frame that has only begun, or all there is if the session is held back.
    fn hold(&mut self, rest: &[u8], is_another_frame: bool) {
        self.mailbox.waits_for_room.set(false);
        if rest.is_empty() || self.conversation.is_held_back() {
            self.mailbox.frame_deadline.set(0);
            self.held.keep(rest);
            return;
        }
        let len_bytes = frame_len_bytes(rest).unwrap_or(0);
        if len_bytes > LARGE_FRAME_LEN_BYTES {
            self.gathering = Gathering::begin(&self.thread.shared, len_bytes, rest);
            if self.gathering.is_none() {
                // It is us who do not read: the frame is not late. The sweeper wakes us to try again.
                self.mailbox.waits_for_room.set(true);
                self.mailbox.frame_deadline.set(0);
                self.held.keep(rest);
                return;
            }
        } else {
            self.held.keep(rest);
        }
        if is_another_frame || self.mailbox.frame_deadline.get() == 0 || self.gathering.is_some() {
            let deadline = self.thread.shared.limits.frame_deadline(clock::monotonic_nanos(), len_bytes);
            self.mailbox.frame_deadline.set(deadline);
        }
    }

    /// Writes what is outbound, in as few records as it fits. Returns whether all of it is on its way.
    fn write(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        let mut outbound = self.mailbox.outbound.borrow_mut();
        let mut sent = self.mailbox.sent.get();
        if sent == outbound.len() && !self.unflushed {
            return Ok(true);
        }
        let sent_before = sent;
        while sent < outbound.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &outbound[sent..]) {
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        let progressed = sent > sent_before;
        if progressed {
            add(&self.thread.stats().writes, 1);
            add(&self.thread.stats().written_bytes, (sent - sent_before) as u64);
        }
        let all_taken = sent == outbound.len();
        if all_taken {
            outbound.clear();
            outbound.shrink_to(crate::limits::OUTBOUND_PAUSE_LEN_BYTES);
            sent = 0;
        } else if sent > crate::limits::OUTBOUND_PAUSE_LEN_BYTES {
            outbound.drain(..sent);
            sent = 0;
        }
        self.mailbox.sent.set(sent);
        // What TLS holds must reach the socket too, else the peer waits for bytes that we think are sent.
        self.unflushed = match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(result) => {
                result?;
                false
            }
            Poll::Pending => true,
        };
        let is_blocked = !all_taken || self.unflushed;
        if !is_blocked {
            self.mailbox.write_blocked_since.set(0);
        } else if progressed || self.mailbox.write_blocked_since.get() == 0 {
            self.mailbox.write_blocked_since.set(clock::monotonic_nanos());
        }
        Ok(!is_blocked)
    }

    fn begin_closing(&mut self, reason: CloseReason) {
        self.phase = Phase::Closing { reason, discarded_len_bytes: 0 };
        self.mailbox.login_deadline.set(0);
        self.mailbox.frame_deadline.set(0);
        self.mailbox.linger_deadline.set(clock::monotonic_nanos() + LINGER.as_nanos() as u64);
        self.gathering = None;
        self.held.clear();
    }

    /// Sends what is left, shuts down our side, and reads (and drops) until the peer has closed its side:
    /// a socket that is closed with unread bytes resets the connection, and the reset overtakes our last
    /// frame. The sweeper ends it when it takes too long.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Phase::Closing { reason, mut discarded_len_bytes } = self.phase else {
            unreachable!("called when closing has begun");
        };
        if reason == CloseReason::Broken {
            return Poll::Ready(reason);
        }
        // What is in flight has happened or will; better that the peer hears of it.
        let expects_answers = self.conversation.expects_answers();
        if !expects_answers {
            self.conversation.say_last_words();
        }
        match self.write(cx) {
            Ok(sent) if sent && !expects_answers => {}
            Ok(_) => return Poll::Pending,
            Err(_) => return Poll::Ready(reason),
        }
        if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(reason);
        }
        let thread = self.thread.clone();
        let mut scratch = thread.scratch.borrow_mut();
        while !self.peer_closed && discarded_len_bytes < LINGER_LEN_BYTES_MAX {
            match ready!(poll_read(&mut self.stream, cx, &mut scratch)) {
                Ok(0) | Err(_) => self.peer_closed = true,
                Ok(count) => discarded_len_bytes += count,
            }
            self.phase = Phase::Closing { reason, discarded_len_bytes };
        }
        Poll::Ready(reason)
    }
}

fn poll_read(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<std::io::Result<usize>> {
    let mut buffer = ReadBuf::new(into);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
