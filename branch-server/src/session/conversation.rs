//! What a peer says and what it is answered: handshake, login, and requests on their way to the engine.
//! No IO here: frames come in, frames are appended to the mailbox, requests go to intake.
//!
//! ```text
//!  connected --Hello--> greeted --Login--> logged in --user changed, token expired--> ended --Login--> logged in
//!      |                   |                                                            |
//!      '------ time-out ---+------------------------ time-out --------------------------'--> closed
//! ```

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tally_ledger::Actor;
use tally_protocol::link::{BranchStatus, Route, Routes};
use tally_protocol::message::{self, BATCH_LEN_MAX, ItemResult, Transfer};
use tally_protocol::reply::LoggedIn as LoginReply;
use tally_protocol::request::{self, Login};
use tally_protocol::{
    Envelope, FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, FrameError, FrameHeader, Refusal, Reply, Request,
    split_frame,
};
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::mailbox::{Mailbox, ReplyNeeds};
use super::stats::{CloseReason, add};
use super::thread::{Place, Thread};
use crate::auth::{Permissions, Secret};
use crate::clock;
use crate::intake::{self, Op, Passage, SessionKey};
use crate::limits::{FRAME_BEFORE_LOGIN_LEN_BYTES_MAX, OUTBOUND_PAUSE_LEN_BYTES, SINGLE_REPLY_LEN_BYTES_MAX};

/// How far the conversation is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing was said.
    Connected,
    /// Versions agreed.
    Greeted,
    /// Requests are taken.
    LoggedIn { actor: Actor, permissions: Permissions },
    /// Was logged in; requests are refused until the next login.
    Ended,
}

pub(super) struct Conversation {
    pub(super) key: SessionKey,
    pub(super) mailbox: Rc<Mailbox>,
    thread: Rc<Thread>,
    place: Place,
    peer: IpAddr,
    phase: Phase,
    login_pending: bool,
    draining: bool,
    /// Why the connection is closed; said when all else is answered.
    last_words: Option<(Envelope, Refusal, String)>,
    /// Since the last [`Self::end_burst`].
    frames: u64,
    pushed: u64,
    /// The clock, read once per burst and only if a frame carries a deadline.
    burst_began: u64,
}

impl Conversation {
    pub(super) fn new(key: SessionKey, mailbox: Rc<Mailbox>, thread: Rc<Thread>, place: Place, peer: IpAddr) -> Self {
        Self {
            key,
            mailbox,
            thread,
            place,
            peer,
            phase: Phase::Connected,
            login_pending: false,
            draining: false,
            last_words: None,
            frames: 0,
            pushed: 0,
            burst_began: 0,
        }
    }

    /// Whether no further frame may be taken until something was answered or sent.
    pub(super) fn is_held_back(&self) -> bool {
        let mailbox = &self.mailbox;
        mailbox.in_flight.get() >= self.thread.shared.limits.in_flight_max
            || mailbox.unsent_len_bytes() > OUTBOUND_PAUSE_LEN_BYTES
            || mailbox.room_is_full()
            || (self.login_pending && !matches!(self.phase, Phase::LoggedIn { .. }))
    }

    /// Whether the engine, or a login, will soon answer something.
    pub(super) fn expects_answers(&self) -> bool {
        self.login_pending || self.mailbox.has_work_in_flight()
    }

    /// Further requests are refused with `ShuttingDown`.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes the whole frames at the start of `bytes`, until the session is held back. Returns how many
    /// bytes that were.
    ///
    /// # Errors
    /// When the connection must be closed; the last words, which say why, are prepared.
    pub(super) fn take_frames(&mut self, bytes: &[u8]) -> Result<usize, CloseReason> {
        let mut taken = 0;
        while !self.is_held_back() {
            let rest = &bytes[taken..];
            match split_frame(rest) {
                Ok(Some((header, body))) => {
                    self.take_frame(header, body, None)?;
                    taken += FRAME_HEADER_LEN_BYTES + body.len();
                }
                Ok(None) => {
                    self.check_begun(rest)?;
                    break;
                }
                Err(error) => return Err(self.broken_frame(rest, &error)),
            }
        }
        Ok(taken)
    }

    /// Takes one large frame that has a buffer of its own.
    ///
    /// # Errors
    /// As [`Self::take_frames`].
    pub(super) fn take_large_frame(&mut self, frame: &Bytes) -> Result<(), CloseReason> {
        match split_frame(frame) {
            Ok(Some((header, body))) => self.take_frame(header, body, Some(frame)),
            Ok(None) => unreachable!("a gathered frame is whole"),
            Err(error) => Err(self.broken_frame(frame, &error)),
        }
    }

    /// Sees to it that the workers wake, and counts; after each read.
    pub(super) fn end_burst(&mut self) {
        self.burst_began = 0;
        if self.frames > 0 {
            add(&self.thread.stats().frames, self.frames);
            self.frames = 0;
        }
        if self.pushed > 0 {
            self.thread.ringer.want();
            add(&self.thread.stats().in_flight, self.pushed);
            self.pushed = 0;
        }
    }

    /// A frame that has only begun: strangers may not begin large ones.
    fn check_begun(&mut self, begun: &[u8]) -> Result<(), CloseReason> {
        match (self.phase, frame_len_bytes(begun)) {
            (Phase::LoggedIn { .. }, _) | (_, None) => Ok(()),
            (_, Some(len_bytes)) if len_bytes <= FRAME_BEFORE_LOGIN_LEN_BYTES_MAX => Ok(()),
            (_, Some(_)) => self.close(Envelope::default(), Refusal::LoginRequired, "frame too long before login"),
        }
    }

    fn take_frame(&mut self, header: &FrameHeader, body: &[u8], whole: Option<&Bytes>) -> Result<(), CloseReason> {
        self.frames += 1;
        let envelope = Envelope::reply_to(header);
        let request = match request::decode(header, body) {
            Ok(request) => request,
            // Before the handshake it is not even clear that this is a peer of ours.
            Err(_) if matches!(self.phase, Phase::Connected) => {
                return self.close(envelope, Refusal::HelloExpected, "the first frame must be a hello");
            }
            Err(refusal) => return self.refuse(envelope, refusal),
        };
        match (self.phase, request) {
            (Phase::Connected, Request::Hello(hello)) => self.greet(envelope, hello),
            (Phase::Connected, _) => self.close(envelope, Refusal::HelloExpected, "the first frame must be a hello"),
            (_, Request::Hello(_)) => self.refuse(envelope, Refusal::FieldInvalid),
            (_, Request::Login(login)) => self.begin_login(envelope, login),
            (_, Request::Ping) => self.answer(envelope, &Reply::Pong),
            (Phase::Greeted, _) => self.refuse(envelope, Refusal::LoginRequired),
            (Phase::Ended, _) => self.refuse(envelope, Refusal::SessionEnded),
            (Phase::LoggedIn { .. }, Request::GetStatus) => self.answer_status(envelope),
            (Phase::LoggedIn { .. }, Request::GetRoutes) => self.answer_routes(envelope),
            (Phase::LoggedIn { actor, permissions }, request) => {
                self.forward(header, actor, permissions, request, body, whole)
            }
        }
    }

    fn greet(&mut self, envelope: Envelope, hello: &message::Hello) -> Result<(), CloseReason> {
        let version = match hello.choose_version() {
            Ok(version) => version,
            Err(refusal) => return self.close(envelope, refusal, "this branch speaks version 1"),
        };
        self.phase = Phase::Greeted;
        let shared = &self.thread.shared;
        let reply = message::HelloReply {
            version,
            reserved: 0,
            branch_id: U16::new(shared.branch.get()),
            frame_len_bytes_max: U32::new(FRAME_LEN_BYTES_MAX as u32),
            batch_len_max: U32::new(BATCH_LEN_MAX as u32),
            in_flight_max: U32::new(shared.limits.in_flight_max),
            server_time: U64::new(clock::wall().as_nanos()),
            feed_first: U64::new(shared.backend.feed_first().get()),
            routes_version: U64::new(shared.backend.routes().map_or(0, |routes| routes.version)),
        };
        self.answer(envelope, &Reply::Hello(&reply))
    }

    fn begin_login(&mut self, envelope: Envelope, login: Login<'_>) -> Result<(), CloseReason> {
        if self.login_pending {
            return self.refuse(envelope, Refusal::Busy);
        }
        if self.draining {
            return self.refuse(envelope, Refusal::ShuttingDown);
        }
        let secret = match login {
            Login::Password { user, password } => {
                Secret::Password { user: user.to_owned(), password: password.to_vec() }
            }
            Login::Token(token) => Secret::Token(token.as_bytes().to_vec()),
        };
        self.login_pending = true;
        let (auth, mailbox, peer) = (self.thread.shared.auth.clone(), self.mailbox.clone(), self.peer);
        tokio::task::spawn_local(async move {
            let result = auth.login(secret, peer).await;
            *mailbox.login_result.borrow_mut() = Some((envelope, result));
            mailbox.wake();
        });
        Ok(())
    }

    /// Takes the end of a login, if there is one. A login on a live session replaces who it is; what
    /// is in flight goes on.
    pub(super) fn finish_login(&mut self) {
        let Some((envelope, result)) = self.mailbox.login_result.borrow_mut().take() else { return };
        self.login_pending = false;
        let login = match result {
            Ok(login) => login,
            Err(refused) => {
                tracing::info!(stage = "session", peer = %self.peer, reason = %refused.refusal, "login refused");
                self.note_refused(refused.refusal);
                self.mailbox.refuse(envelope, refused.refusal, refused.retry_after_ms, "");
                return;
            }
        };
        let identity = login.identity;
        let actor = identity.actor;
        let reply = LoginReply {
            role: actor.role,
            customer_id: actor.customer,
            expires_at: identity.expires_at,
            token: &login.token,
        };
        Reply::Login(reply).append_to(&mut self.mailbox.outbound.borrow_mut(), envelope);
        tracing::debug!(stage = "session", peer = %self.peer, user = &*identity.name, "logged in");
        self.phase = Phase::LoggedIn { actor, permissions: Permissions::of(actor.role) };
        self.place.authenticated();
        self.mailbox.login_deadline.set(0);
        if self.mailbox.identity.replace(Some(identity)).is_none() {
            add(&self.thread.stats().sessions_open, 1);
        }
        add(&self.thread.stats().logins, 1);
    }

    /// Ends the session but not the connection: what is in flight is answered, and a login goes on with
    /// it. Tells the peer in a frame with request id 0.
    pub(super) fn end_session(&mut self) {
        if self.mailbox.identity.take().is_some() {
            super::stats::sub(&self.thread.stats().sessions_open, 1);
        }
        self.phase = Phase::Ended;
        let login_timeout = self.thread.shared.limits.login_timeout;
        self.mailbox.login_deadline.set(clock::monotonic_nanos() + login_timeout.as_nanos() as u64);
        self.note_refused(Refusal::SessionEnded);
        self.mailbox.refuse(Envelope::default(), Refusal::SessionEnded, 0, "log in again");
    }

    fn answer_status(&mut self, envelope: Envelope) -> Result<(), CloseReason> {
        let shared = &self.thread.shared;
        let mut status = shared.backend.status();
        status.sessions = U32::new(shared.stats.total(|thread| &thread.sessions_open) as u32);
        if self.draining {
            status.accepting = 0;
        }
        self.answer(envelope, &Reply::Status(&status))
    }

    /// The bank's branches, as the registry told last; a branch that has none, or has not heard of it yet, knows itself.
    fn answer_routes(&mut self, envelope: Envelope) -> Result<(), CloseReason> {
        let shared = &self.thread.shared;
        let routes = shared.backend.routes().unwrap_or_default();
        let body = if routes.version == 0 {
            let here = Route { branch_id: shared.branch, status: BranchStatus::Serving, endpoint: "" };
            Routes::encode(0, std::iter::once(here))
        } else {
            let told = routes.branches.iter().map(|(&branch_id, peer)| Route {
                branch_id,
                status: peer.status,
                endpoint: &peer.endpoint,
            });
            Routes::encode(routes.version, told)
        };
        self.answer(envelope, &Reply::Routes(Routes::decode(&body).expect("just written")))
    }

    /// Passes a request to the engine, if the role permits it.
    fn forward(
        &mut self,
        header: &FrameHeader,
        actor: Actor,
        permissions: Permissions,
        request: Request<'_>,
        body: &[u8],
        whole: Option<&Bytes>,
    ) -> Result<(), CloseReason> {
        let envelope = Envelope::reply_to(header);
        if !permissions.permits(request.message_type()) || !permits_kinds(permissions, &request) {
            return self.refuse(envelope, Refusal::NotPermitted);
        }
        if self.draining {
            return self.refuse(envelope, Refusal::ShuttingDown);
        }
        let needs = reply_needs(&request);
        // A large frame's buffer goes along; a small one is cheaper to copy than to keep alive.
        let owned = |body: &[u8]| whole.map_or_else(|| Bytes::copy_from_slice(body), |whole| whole.slice_ref(body));
        let op = match request {
            Request::Transfer(transfer) => Op::Transfer(*transfer),
            Request::Chain(_) => Op::Chain(owned(body)),
            Request::Batch(_) => Op::Batch(owned(body)),
            Request::OpenAccounts(_) => Op::OpenAccounts(owned(body)),
            Request::CloseAccount(id) => Op::CloseAccount(id),
            Request::FreezeAccount(id) => Op::FreezeAccount(id),
            Request::UnfreezeAccount(id) => Op::UnfreezeAccount(id),
            Request::SetLimits(limits) => Op::SetLimits(*limits),
            Request::CancelId(id) => Op::CancelId(id),
            Request::GetBalance(id) => Op::GetBalance(id),
            Request::GetAccount(id) => Op::GetAccount(id),
            Request::GetTransfer(id) => Op::GetTransfer(id),
            Request::ReadAfter(stamp, lookup) => Op::ReadAfter(stamp, lookup),
            Request::ReadFeed(read) => Op::ReadFeed(*read),
            Request::Hello(_) | Request::Login(_) | Request::Ping | Request::GetStatus | Request::GetRoutes => {
                unreachable!("answered by the session itself")
            }
        };
        let request = intake::Request {
            session: self.key,
            request_id: envelope.request_id,
            trace_id: envelope.trace_id,
            deadline: self.deadline(header),
            passage: Passage { received_ns: self.burst_began(), taken_ns: 0 },
            actor,
            cleared_moves: 0,
            op,
        };
        match self.thread.shared.backend.intake().push(request) {
            Ok(()) => {
                self.mailbox.note_request(envelope.request_id, needs);
                self.pushed += 1;
            }
            Err(full) => {
                self.note_refused(Refusal::Busy);
                self.mailbox.refuse(envelope, Refusal::Busy, full.retry_after_ms, "");
            }
        }
        Ok(())
    }

    /// By [`clock::monotonic_nanos`]; 0 for none.
    fn deadline(&mut self, header: &FrameHeader) -> u64 {
        let deadline_ms = header.deadline_ms.get();
        if deadline_ms == 0 {
            return 0;
        }
        self.burst_began() + u64::from(deadline_ms) * 1_000_000
    }

    /// When the read that brought this burst of frames was done.
    fn burst_began(&mut self) -> u64 {
        if self.burst_began == 0 {
            self.burst_began = clock::monotonic_nanos();
        }
        self.burst_began
    }

    fn answer(&mut self, envelope: Envelope, reply: &Reply<'_>) -> Result<(), CloseReason> {
        reply.append_to(&mut self.mailbox.outbound.borrow_mut(), envelope);
        Ok(())
    }

    /// Refuses one frame and goes on: where the next one starts is known.
    fn refuse(&mut self, envelope: Envelope, refusal: Refusal) -> Result<(), CloseReason> {
        tracing::debug!(
            stage = "session", peer = %self.peer,
            request_id = envelope.request_id,
            trace_id = format_args!("{:032x}", envelope.trace_id),
            reason = %refusal,
            "frame refused"
        );
        self.note_refused(refusal);
        self.mailbox.refuse(envelope, refusal, 0, "");
        Ok(())
    }

    fn broken_frame(&mut self, bytes: &[u8], error: &FrameError) -> CloseReason {
        // A header that is there in full but wrong may still name the request; one that claims another
        // version is laid out in a way that we do not know.
        let envelope = match error {
            FrameError::TooShort { .. } | FrameError::TooLong { .. } | FrameError::Reserved => {
                bytes.first_chunk().map_or(Envelope::default(), |raw: &[u8; FRAME_HEADER_LEN_BYTES]| {
                    Envelope::reply_to(zerocopy::transmute_ref!(raw))
                })
            }
            FrameError::Version { .. } => Envelope::default(),
        };
        let refusal = match error {
            FrameError::Version { .. } => Refusal::VersionUnsupported,
            FrameError::TooShort { .. } | FrameError::TooLong { .. } | FrameError::Reserved => Refusal::FrameInvalid,
        };
        match self.close(envelope, refusal, &error.to_string()) {
            Ok(()) => unreachable!("closing always ends the conversation"),
            Err(reason) => reason,
        }
    }

    /// The caller then closes the connection, with a last frame that says why.
    fn close(&mut self, envelope: Envelope, refusal: Refusal, text: &str) -> Result<(), CloseReason> {
        tracing::info!(stage = "session", peer = %self.peer, reason = %refusal, text, "closing a connection");
        self.prepare_last_words(envelope, refusal, text);
        Err(CloseReason::Protocol)
    }

    /// What the peer hears last, for whatever reason the connection is about to be closed.
    pub(super) fn prepare_last_words(&mut self, envelope: Envelope, refusal: Refusal, text: &str) {
        self.last_words = Some((envelope, refusal, text.to_owned()));
    }

    /// Says what was prepared, once.
    pub(super) fn say_last_words(&mut self) {
        if let Some((envelope, refusal, text)) = self.last_words.take() {
            self.note_refused(refusal);
            self.mailbox.refuse(envelope, refusal, 0, &text);
        }
    }

    /// Tells the operator of a peer that was given up.
    pub(super) fn log_end(&self, reason: CloseReason) {
        tracing::info!(stage = "session", peer = %self.peer, reason = reason.name(), in_flight = self.mailbox.in_flight.get(), "closing a connection");
    }

    fn note_refused(&self, refusal: Refusal) {
        self.thread.stats().note_refused(refusal);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.mailbox.identity.take().is_some() {
            super::stats::sub(&self.thread.stats().sessions_open, 1);
        }
    }
}

/// The length that the frame at the start of `begun` says it has, once its header is there.
pub(super) fn frame_len_bytes(begun: &[u8]) -> Option<usize> {
    begun.first_chunk().filter(|_| begun.len() >= FRAME_HEADER_LEN_BYTES).map(|raw| u32::from_le_bytes(*raw) as usize)
}

fn permits_kinds(permissions: Permissions, request: &Request<'_>) -> bool {
    let all = |transfers: &[Transfer]| transfers.iter().all(|transfer| permissions.permits_kind(transfer.kind));
    match request {
        Request::Transfer(transfer) => permissions.permits_kind(transfer.kind),
        Request::Chain(transfers) | Request::Batch(transfers) => permissions.permits_every_kind() || all(transfers),
        Request::Hello(_)
        | Request::Login(_)
        | Request::Ping
        | Request::GetStatus
        | Request::GetRoutes
        | Request::OpenAccounts(_)
        | Request::CloseAccount(_)
        | Request::FreezeAccount(_)
        | Request::UnfreezeAccount(_)
        | Request::SetLimits(_)
        | Request::CancelId(_)
        | Request::GetBalance(_)
        | Request::GetAccount(_)
        | Request::GetTransfer(_)
        | Request::ReadAfter(..)
        | Request::ReadFeed(_) => true,
    }
}

fn reply_needs(request: &Request<'_>) -> ReplyNeeds {
    ReplyNeeds { len_bytes_max: reply_len_bytes_max(request), is_feed_read: matches!(request, Request::ReadFeed(_)) }
}

/// How long the reply to a request can be.
fn reply_len_bytes_max(request: &Request<'_>) -> usize {
    let items = |count: usize| FRAME_HEADER_LEN_BYTES + count * ItemResult::LEN_BYTES;
    match request {
        Request::Chain(transfers) | Request::Batch(transfers) => items(transfers.len()),
        Request::OpenAccounts(opens) => items(opens.len()),
        Request::ReadFeed(read) if read.count_max.get() == 0 => FRAME_LEN_BYTES_MAX,
        Request::ReadFeed(read) => {
            let entries = (read.count_max.get() as usize).saturating_mul(message::FeedEntry::LEN_BYTES);
            entries.saturating_add(FRAME_HEADER_LEN_BYTES + message::FeedPagePrefix::LEN_BYTES).min(FRAME_LEN_BYTES_MAX)
        }
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
        | Request::ReadAfter(..) => SINGLE_REPLY_LEN_BYTES_MAX,
    }
}
