//! Lanes: many connections kept full from one thread, for tools that must cost less than what they measure.
//!
//! [`crate::Client`] gives every request a future of its own. A lane has none: it is one task that reads replies
//! in place, hands each to a [`Traffic`] with the small tag that was kept for it, asks the traffic for as many
//! new requests as the window has room for, and writes all of them in one go.
//!
//! ```text
//!          .--------- Traffic (one for all lanes of a thread) ---------.
//!          | next(lane) -> request + tag          reply(tag, since, now) |
//!          '------v-------------------------------------^--------------'
//!   lane:      out buffer -- one TLS record --> branch --> in buffer
//! ```
//!
//! Invariant: every request that was sent is handed back exactly once, with its reply or as lost.

mod jobs;
mod runner;
mod task;
mod ticker;

use tally_protocol::frame::Envelope;
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;

pub use jobs::{JobResult, Jobs, run_jobs};
pub use runner::{LaneOptions, LaneRun, LaneStats, run_lanes};
pub use ticker::Clock;

/// Nanoseconds since the [`Clock`] was started.
pub type Nanos = u64;

/// What is sent over lanes, and what becomes of it.
pub trait Traffic {
    /// Kept for each request until its reply comes.
    type Tag: Copy;

    /// Asked whenever lane `lane_index` has room for a request.
    fn next(&mut self, lane_index: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<Self::Tag>;

    /// The reply to the request with `tag`, whose latency counts from `since`.
    fn reply(&mut self, lane_index: usize, tag: Self::Tag, since: Nanos, now: Nanos, reply: Reply<'_>);

    /// The request with `tag` was sent, and there will be no reply: the connection is gone.
    fn lost(&mut self, lane_index: usize, tag: Self::Tag, since: Nanos, now: Nanos);
}

/// Where a traffic puts its request: one frame, at once.
#[derive(Debug)]
pub struct RequestWriter<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) request_id: u64,
}

impl RequestWriter<'_> {
    /// Appends the request. Latency counts from `since`. It carries no trace id: nobody looks for one request of
    /// a million in a log, and what is measured is not to pay for it.
    #[inline]
    pub fn send<T>(self, request: &Request<'_>, tag: T, since: Nanos) -> Next<T> {
        request.append_to(self.out, Envelope::request(self.request_id));
        Next::Sent { tag, since }
    }
}

/// What a traffic wants of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A request was written.
    Sent {
        /// Comes back with the reply.
        tag: T,
        /// From when its latency counts.
        since: Nanos,
    },
    /// Nothing before this time.
    Later(Nanos),
    /// Nothing any more, on this lane.
    Finished,
}
