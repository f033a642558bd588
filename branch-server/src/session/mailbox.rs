//! What a connection's task shares with the rest of its thread: the dispatcher puts replies in, the
//! sweeper reads deadlines and gives orders. One thread, so cells and no locks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use tally_protocol::message::{MessageType, RefusedPrefix};
use tally_protocol::{Envelope, FrameHeader, Refusal, append_frame};
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

use crate::auth::{Identity, LoggedIn, LoginRefused};
use crate::limits::{REFUSAL_TEXT_LEN_BYTES_MAX, REPLY_ROOM_LEN_BYTES_MAX, SINGLE_REPLY_LEN_BYTES_MAX};
use crate::replies::{Reply, ReplyBody};

use super::stats::CloseReason;

/// What the sweeper tells a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The user changed or the token expired: log in again.
    EndSession,
    /// Say why and close.
    Close(Refusal, CloseReason),
    /// Drop the connection; the peer does not read.
    Abandon(CloseReason),
}

/// What a request's reply may need.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyNeeds {
    /// The longest reply, header included.
    pub(super) len_bytes_max: usize,
    /// Whether the reply may wait for something to happen.
    pub(super) is_feed_read: bool,
}

/// Room that is set aside.
#[derive(Debug)]
struct Room {
    request_id: u64,
    needs: ReplyNeeds,
}

/// Times are monotonic nanoseconds, 0 for "none".
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Frames to be written.
    pub(super) outbound: RefCell<Vec<u8>>,
    /// How many bytes of `outbound` TLS has taken already.
    pub(super) sent: Cell<usize>,
    /// Requests in the engine.
    pub(super) in_flight: Cell<u32>,
    /// Room set aside for long replies, in order of the requests.
    room: RefCell<VecDeque<Room>>,
    room_len_bytes: Cell<usize>,
    /// Of those in flight: feed reads, which may wait a minute for something to happen.
    feed_reads: Cell<u32>,
    /// Wakes the connection's task.
    pub(super) waker: RefCell<Option<Waker>>,
    /// Whether this round's dispatcher has it on its list already.
    pub(super) dirty: Cell<bool>,
    pub(super) order: Cell<Option<Order>>,
    /// When the peer must have logged in.
    pub(super) login_deadline: Cell<u64>,
    /// When the frame that was begun must have arrived.
    pub(super) frame_deadline: Cell<u64>,
    /// Whether a large frame waits until others have been gathered.
    pub(super) waits_for_room: Cell<bool>,
    /// Since when the peer takes nothing of what we write.
    pub(super) write_blocked_since: Cell<u64>,
    /// When a closing connection is dropped.
    pub(super) linger_deadline: Cell<u64>,
    /// Who is logged in.
    pub(super) identity: RefCell<Option<Identity>>,
    /// How the login ended, until the connection's task has seen it.
    pub(super) login_result: RefCell<Option<(Envelope, Result<LoggedIn, LoginRefused>)>>,
}

impl Mailbox {
    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Bytes that TLS has not taken yet.
    pub(super) fn unsent_len_bytes(&self) -> usize {
        self.outbound.borrow().len() - self.sent.get()
    }

    /// Counts a request that goes to the engine, and sets room for its reply aside if that is long.
    pub(super) fn note_request(&self, request_id: u64, needs: ReplyNeeds) {
        self.in_flight.set(self.in_flight.get() + 1);
        if needs.len_bytes_max > SINGLE_REPLY_LEN_BYTES_MAX || needs.is_feed_read {
            self.room.borrow_mut().push_back(Room { request_id, needs });
            self.room_len_bytes.set(self.room_len_bytes.get() + needs.len_bytes_max);
            self.feed_reads.set(self.feed_reads.get() + u32::from(needs.is_feed_read));
        }
    }

    /// Takes back what [`Self::note_request`] counted.
    fn note_answered(&self, request_id: u64) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.room_len_bytes.get() == 0 {
            return;
        }
        let mut room = self.room.borrow_mut();
        // Long requests are answered nearly in order, so this looks at the first few.
        if let Some(index) = room.iter().position(|room| room.request_id == request_id) {
            let Room { needs, .. } = room.remove(index).expect("its index was just found");
            self.room_len_bytes.set(self.room_len_bytes.get() - needs.len_bytes_max);
            self.feed_reads.set(self.feed_reads.get() - u32::from(needs.is_feed_read));
        }
    }

    /// Whether the engine is at work for this session. A feed read that waits for something to happen is no
    /// work: nobody has to wait for it in turn.
    pub(super) fn has_work_in_flight(&self) -> bool {
        self.in_flight.get() > self.feed_reads.get()
    }

    /// Whether another long reply must not be asked for.
    pub(super) fn room_is_full(&self) -> bool {
        self.room_len_bytes.get() >= REPLY_ROOM_LEN_BYTES_MAX
    }

    /// Takes a reply of the engine.
    pub(super) fn take_reply(&self, reply: Reply) {
        self.note_answered(reply.request_id);
        let envelope = Envelope { request_id: reply.request_id, trace_id: reply.trace_id, deadline_ms: 0 };
        append_reply(&mut self.outbound.borrow_mut(), envelope, &reply.body);
    }

    /// Appends a refusal of our own.
    pub(super) fn refuse(&self, envelope: Envelope, refusal: Refusal, retry_after_ms: u32, text: &str) {
        append_refused(&mut self.outbound.borrow_mut(), envelope, refusal, retry_after_ms, text);
    }
}

/// Appends a reply of the engine as a frame.
fn append_reply(out: &mut Vec<u8>, envelope: Envelope, body: &ReplyBody) {
    match body {
        ReplyBody::Transfer { reply, balances: None } => {
            // The one that there are hundreds of thousands of a second: one reservation, two copies of
            // known length.
            let header: FrameHeader = envelope.header(MessageType::TransferReply, size_of_val(reply));
            out.reserve(size_of_val(&header) + size_of_val(reply));
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(reply.as_bytes());
        }
        ReplyBody::Transfer { reply, balances: Some(sums) } => {
            append_frame(out, envelope, MessageType::TransferReply, &[reply.as_bytes(), sums.as_bytes()]);
        }
        ReplyBody::Item(message_type, item) => append_frame(out, envelope, *message_type, &[item.as_bytes()]),
        ReplyBody::Items(message_type, items) => append_frame(out, envelope, *message_type, &[items]),
        ReplyBody::Balance(balance) => append_frame(out, envelope, MessageType::BalanceReply, &[balance.as_bytes()]),
        ReplyBody::Account(account) => append_frame(out, envelope, MessageType::AccountReply, &[account.as_bytes()]),
        ReplyBody::Found(found) => append_frame(out, envelope, MessageType::TransferFoundReply, &[found.as_bytes()]),
        ReplyBody::Feed(page) => append_frame(out, envelope, MessageType::FeedPage, &[page]),
        ReplyBody::Refused { refusal, retry_after_ms, text } => {
            append_refused(out, envelope, *refusal, *retry_after_ms, text.as_deref().unwrap_or_default());
        }
    }
}

fn append_refused(out: &mut Vec<u8>, envelope: Envelope, refusal: Refusal, retry_after_ms: u32, text: &str) {
    let text = &text[..text.floor_char_boundary(REFUSAL_TEXT_LEN_BYTES_MAX)];
    let prefix = RefusedPrefix {
        refusal: U16::new(refusal.code()),
        text_len_bytes: U16::new(text.len() as u16),
        retry_after_ms: U32::new(retry_after_ms),
    };
    append_frame(out, envelope, MessageType::Refused, &[prefix.as_bytes(), text.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use tally_protocol::{FRAME_LEN_BYTES_MAX, reply, split_frame};

    use super::*;

    #[test]
    fn room_for_long_replies_is_set_aside_and_comes_back() {
        let mailbox = Mailbox::default();
        let long = ReplyNeeds { len_bytes_max: FRAME_LEN_BYTES_MAX, is_feed_read: false };
        for id in 0..4 {
            assert!(!mailbox.room_is_full());
            mailbox.note_request(id, long);
        }
        assert!(mailbox.room_is_full());
        mailbox.note_request(9, ReplyNeeds { len_bytes_max: 72, is_feed_read: false });
        mailbox.note_answered(9);
        assert!(mailbox.room_is_full(), "a short reply frees none");
        mailbox.note_answered(2);
        assert!(!mailbox.room_is_full());
        for id in [0, 1, 3] {
            assert!(mailbox.has_work_in_flight());
            mailbox.note_answered(id);
        }
        assert_eq!((mailbox.in_flight.get(), mailbox.room_len_bytes.get()), (0, 0));
    }

    #[test]
    fn a_feed_read_that_waits_is_no_work() {
        let mailbox = Mailbox::default();
        mailbox.note_request(1, ReplyNeeds { len_bytes_max: 288, is_feed_read: true });
        assert!(!mailbox.has_work_in_flight());
        mailbox.note_request(2, ReplyNeeds { len_bytes_max: 72, is_feed_read: false });
        assert!(mailbox.has_work_in_flight());
        mailbox.note_answered(2);
        assert!(!mailbox.has_work_in_flight());
        mailbox.note_answered(1);
        assert_eq!((mailbox.in_flight.get(), mailbox.feed_reads.get(), mailbox.room_len_bytes.get()), (0, 0, 0));
    }

    #[test]
    fn a_refusals_text_is_cut_between_characters() {
        let mailbox = Mailbox::default();
        let text = "x".repeat(REFUSAL_TEXT_LEN_BYTES_MAX - 1) + "é";
        mailbox.refuse(Envelope::request(5), Refusal::Busy, 7, &text);
        let outbound = mailbox.outbound.borrow();
        let (header, body) = split_frame(&outbound).expect("valid").expect("whole");
        let Ok(reply::Reply::Refused(refused)) = reply::decode(header, body) else { panic!("a refusal") };
        assert_eq!((refused.refusal(), refused.retry_after_ms), (Some(Refusal::Busy), 7));
        assert_eq!(refused.text.len(), REFUSAL_TEXT_LEN_BYTES_MAX - 1);
    }
}
