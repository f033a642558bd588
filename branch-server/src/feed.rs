//! Feed: durable outcomes in the order of the journal, by the page, from a position on.
//!
//! A reader that has seen everything may wait for the next outcome. Waiting costs a place in a bounded list,
//! no thread; whoever stops asking is forgotten, so a slow reader blocks nobody.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use tally_journal::ReadError;
use tally_ledger::wire::feed_entry;
use tally_protocol::message::{FeedEntry, FeedPagePrefix, FeedRead};
use tally_protocol::{FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, Lsn, Refusal};
use zerocopy::IntoBytes;

use crate::clock;
use crate::intake::{Op, Request};
use crate::journal::Journal;
use crate::lookup::Asker;
use crate::replies::{ReplyBody, ReplySender};

/// Readers that may wait at a time; one more is `Busy`.
pub const WAITING_LEN_MAX: usize = 4_096;
/// The longest that a reader may ask to wait.
const WAIT_MS_MAX: u32 = 60_000;
/// How soon a waiting reader hears of something new.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How often a thread without readers looks whether it should stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Entries that fit into one frame.
const PAGE_LEN_MAX: usize =
    (FRAME_LEN_BYTES_MAX - FRAME_HEADER_LEN_BYTES - FeedPagePrefix::LEN_BYTES) / FeedEntry::LEN_BYTES;

struct Waiting {
    asker: Asker,
    read: FeedRead,
    /// By the monotonic clock.
    until: u64,
}

struct Feed {
    journal: Arc<Journal>,
    requests: Receiver<Request>,
    replies: ReplySender,
    waiting: Vec<Waiting>,
    stop: Arc<AtomicBool>,
}

/// Starts the feed's thread.
///
/// # Errors
/// When the system has no thread left.
pub fn start(
    journal: Arc<Journal>,
    requests: Receiver<Request>,
    replies: ReplySender,
    stop: Arc<AtomicBool>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let feed = Feed { journal, requests, replies, waiting: Vec::new(), stop };
    std::thread::Builder::new().name("feed".into()).spawn(move || feed.run())
}

impl Feed {
    fn run(mut self) {
        loop {
            let patience = if self.waiting.is_empty() { STOP_INTERVAL } else { POLL_INTERVAL };
            match self.requests.recv_timeout(patience) {
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let stopping = self.stop.load(Ordering::Acquire);
            let now = clock::monotonic_nanos();
            for waiting in std::mem::take(&mut self.waiting) {
                if !self.try_answer(&waiting, stopping || now >= waiting.until) {
                    self.waiting.push(waiting);
                }
            }
            let journal = &self.journal;
            self.replies.hand_over(|| journal.durable());
            if stopping && self.requests.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self, request: Request) {
        let (asker, op) = Asker::of(request);
        let Op::ReadFeed(read) = op else { unreachable!("the intake sends only feed requests here") };
        if asker.deadline != 0 && clock::monotonic_nanos() > asker.deadline {
            return self.refuse(asker, Refusal::DeadlinePassed, 0);
        }
        if self.waiting.len() >= WAITING_LEN_MAX {
            return self.refuse(asker, Refusal::Busy, 100);
        }
        let wait_ms = u64::from(read.wait_ms.get().min(WAIT_MS_MAX));
        let until = clock::monotonic_nanos() + wait_ms * 1_000_000;
        self.waiting.push(Waiting { asker, read, until });
    }

    /// Answers with what there is, or with an empty page once the time is up.
    fn try_answer(&mut self, waiting: &Waiting, time_is_up: bool) -> bool {
        let from = Lsn::new(waiting.read.from.get());
        let durable = self.journal.durable();
        if !durable.reaches(from) {
            self.refuse(waiting.asker, Refusal::PositionOutOfRange, 0);
            return true;
        }
        if durable.end() == from && !time_is_up {
            return false;
        }
        match self.page(from, waiting.read.count_max.get()) {
            Ok((0, _)) if !time_is_up => return false,
            Ok((_, page)) => self.reply(waiting.asker, ReplyBody::Feed(page.into())),
            Err(ReadError::NotDurable(_) | ReadError::NoRecord(_) | ReadError::Retired { .. }) => {
                self.refuse(waiting.asker, Refusal::PositionOutOfRange, 0);
            }
            Err(error @ (ReadError::Io(_) | ReadError::Damaged(_))) => {
                tracing::error!(stage = "feed", %error, "the journal could not be read");
                self.refuse(waiting.asker, Refusal::Busy, 1_000);
            }
        }
        true
    }

    fn page(&self, from: Lsn, count_max: u32) -> Result<(u32, Vec<u8>), ReadError> {
        let count_max = match count_max as usize {
            0 => PAGE_LEN_MAX,
            wanted => wanted.min(PAGE_LEN_MAX),
        };
        let durable = self.journal.durable();
        let mut count = 0u32;
        let mut page = vec![0; FeedPagePrefix::LEN_BYTES];
        let next = if durable.end() == from {
            from
        } else {
            self.journal.scan(from, &mut |record| {
                page.extend_from_slice(feed_entry(record).as_bytes());
                count += 1;
                if (count as usize) < count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?
        };
        let prefix = FeedPagePrefix {
            next: next.get().into(),
            durable: durable.end().get().into(),
            count: count.into(),
            reserved: 0.into(),
        };
        page[..FeedPagePrefix::LEN_BYTES].copy_from_slice(prefix.as_bytes());
        Ok((count, page))
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal, retry_after_ms: u32) {
        self.reply(asker, ReplyBody::Refused { refusal, retry_after_ms, text: None });
    }

    fn reply(&mut self, asker: Asker, body: ReplyBody) {
        self.replies.push(Lsn::ZERO, asker.reply(body));
    }
}
