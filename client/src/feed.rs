//! Reads the feed of durable outcomes, page by page, from any position on.
//!
//! Invariant: the position moves on only when a page was taken, so a reader that stores [`FeedReader::position`]
//! after its own work is done sees each entry at least once, whatever happens in between.

use std::collections::VecDeque;
use std::time::Duration;

use tally_protocol::Lsn;
use tally_protocol::message::{FEED_WAIT_MS_MAX, FeedEntry, FeedPagePrefix, FeedRead};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use zerocopy::byteorder::little_endian::{U32, U64};

use crate::client::{Answer, BODY_LEN_BYTES_MAX};
use crate::{Client, RequestError};

/// How long the branch waits for the first entry of a page: well below the silence that is taken for death.
const WAIT: Duration = Duration::from_secs(5);
/// What an answer may take beyond that.
const WAIT_GRACE: Duration = Duration::from_secs(5);
/// Entries that fit on a page.
const PAGE_COUNT_MAX: usize = (BODY_LEN_BYTES_MAX - FeedPagePrefix::LEN_BYTES) / FeedEntry::LEN_BYTES;

const _: () = assert!(WAIT.as_millis() <= FEED_WAIT_MS_MAX as u128);
const _: () = assert!(WAIT.as_secs() + WAIT_GRACE.as_secs() < crate::connection::SILENCE_MAX.as_secs());

/// Entries that follow each other in the journal.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// Where the next page starts.
    pub next: Lsn,
    /// The durable position when the page was read.
    pub durable: Lsn,
    /// May be empty.
    pub entries: Vec<FeedEntry>,
}

/// A place in the feed.
#[derive(Debug)]
pub struct FeedReader {
    client: Client,
    next_page: Lsn,
    /// Entries of the page that was read last, not yet handed out.
    page: VecDeque<FeedEntry>,
    position: Lsn,
}

impl Client {
    /// A reader of the feed from `position` on: [`Lsn::ZERO`] for the oldest entry that is kept, or what
    /// [`FeedReader::position`] said before.
    pub fn read_feed(&self, position: Lsn) -> FeedReader {
        FeedReader { client: self.clone(), next_page: position, page: VecDeque::new(), position }
    }

    /// One page of at most `count_max` entries from `from` on. With nothing there, waits up to `wait` for it and
    /// then answers an empty page.
    pub async fn feed_page(&self, from: Lsn, count_max: usize, wait: Duration) -> Result<FeedPage, RequestError> {
        let wait = wait.min(WAIT);
        let read = FeedRead {
            from: U64::new(from.get()),
            count_max: U32::new(count_max.min(PAGE_COUNT_MAX) as u32),
            wait_ms: U32::new(wait.as_millis() as u32),
        };
        let request = Request::ReadFeed(&read);
        let ended = self.request_until(&request, wait + WAIT_GRACE, |reply| match reply {
            Reply::Feed(page) => Answer::Value(FeedPage {
                next: Lsn::new(page.next),
                durable: Lsn::new(page.durable),
                entries: page.entries.to_vec(),
            }),
            other => Answer::other(other),
        });
        ended.await.result
    }
}

impl FeedReader {
    /// Where to go on from, once everything that [`Self::next`] handed out has been dealt with.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The next entry, waiting for it as long as it takes.
    ///
    /// Cancel safe: an entry that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<FeedEntry, RequestError> {
        loop {
            if let Some(entry) = self.try_next() {
                return Ok(entry);
            }
            self.fill(WAIT).await?;
        }
    }

    /// The next entry, or `None` when `wait` passes without one.
    pub async fn next_within(&mut self, wait: Duration) -> Result<Option<FeedEntry>, RequestError> {
        if self.page.is_empty() {
            self.fill(wait).await?;
        }
        Ok(self.try_next())
    }

    async fn fill(&mut self, wait: Duration) -> Result<(), RequestError> {
        let page = self.client.feed_page(self.next_page, PAGE_COUNT_MAX, wait).await?;
        if page.entries.is_empty() {
            self.position = page.next;
        }
        self.next_page = page.next;
        self.page = page.entries.into();
        Ok(())
    }

    fn try_next(&mut self) -> Option<FeedEntry> {
        let entry = self.page.pop_front()?;
        self.position = match self.page.front() {
            Some(following) => Lsn::new(following.lsn.get()),
            None => self.next_page,
        };
        Some(entry)
    }
}
