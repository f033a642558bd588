//! One lane at work: a future that lives as long as its connection.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tally_protocol::reply;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_rustls::client::TlsStream;

use super::ticker::{Clock, Ticker};
use super::{Nanos, Next, RequestWriter, Traffic};
use crate::connection::SILENCE_MAX;
use crate::inbound::Inbound;

/// No more requests are asked for while this much waits to be written, so that a branch that reads slowly holds
/// back the traffic and not our memory.
const OUT_LEN_BYTES_MAX: usize = 64 * 1024;
/// Reads in one turn before other lanes get theirs.
const READS_PER_TURN_MAX: usize = 4;
/// How often it is looked whether the branch has gone silent.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How a lane's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneEnd {
    /// The traffic is finished and nothing is in flight.
    Finished,
    /// The branch hung up, went silent or sent something that is no reply.
    Lost,
}

/// A request in flight.
#[derive(Clone, Copy)]
struct InFlight<T> {
    tag: T,
    since: Nanos,
}

pub(crate) struct LaneTask<T: Traffic> {
    lane_index: usize,
    traffic: Rc<RefCell<T>>,
    ticker: Rc<Ticker>,
    clock: Clock,
    stream: TlsStream<TcpStream>,
    inbound: Inbound,
    out: Vec<u8>,
    written_len_bytes: usize,
    unflushed: bool,
    /// The request id is the index here. `None` exactly for the indices in `free`.
    slots: Vec<Option<InFlight<T::Tag>>>,
    free: Vec<u32>,
    finished: bool,
    watch: Interval,
    last_heard: Nanos,
}

impl<T: Traffic> LaneTask<T> {
    pub(crate) fn new(
        lane_index: usize,
        stream: TlsStream<TcpStream>,
        in_flight: usize,
        traffic: Rc<RefCell<T>>,
        ticker: Rc<Ticker>,
        clock: Clock,
    ) -> Self {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            lane_index,
            traffic,
            ticker,
            clock,
            stream,
            inbound: Inbound::new(),
            out: Vec::with_capacity(OUT_LEN_BYTES_MAX),
            written_len_bytes: 0,
            unflushed: false,
            slots: vec![None; in_flight],
            free: (0..in_flight as u32).rev().collect(),
            finished: false,
            watch,
            last_heard: clock.now(),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        for _ in 0..READS_PER_TURN_MAX {
            match self.inbound.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Broken),
                Poll::Ready(Ok(_)) => self.take_replies()?,
                Poll::Pending => {
                    self.fill(cx);
                    self.write(cx)?;
                    return self.rest(cx);
                }
            }
        }
        self.fill(cx);
        self.write(cx)?;
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn take_replies(&mut self) -> Result<(), Broken> {
        let now = self.clock.now();
        self.last_heard = now;
        let mut traffic = self.traffic.borrow_mut();
        while let Some((header, body)) = self.inbound.next_frame().map_err(|_| Broken)? {
            let request_id = header.request_id.get();
            let reply = reply::decode(header, body).map_err(|_| Broken)?;
            let slot = usize::try_from(request_id).ok().and_then(|index| self.slots.get_mut(index)).ok_or(Broken)?;
            let InFlight { tag, since } = slot.take().ok_or(Broken)?;
            self.free.push(request_id as u32);
            traffic.reply(self.lane_index, tag, since, now, reply);
        }
        Ok(())
    }

    fn fill(&mut self, cx: &mut Context<'_>) {
        if self.finished || self.free.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut traffic = self.traffic.borrow_mut();
        while self.out.len() - self.written_len_bytes < OUT_LEN_BYTES_MAX
            && let Some(&index) = self.free.last()
        {
            let writer = RequestWriter { out: &mut self.out, request_id: index.into() };
            match traffic.next(self.lane_index, now, writer) {
                Next::Sent { tag, since } => {
                    self.free.pop();
                    self.slots[index as usize] = Some(InFlight { tag, since });
                }
                Next::Later(at) => return self.ticker.wake_at(self.lane_index, at, cx.waker()),
                Next::Finished => {
                    self.finished = true;
                    return;
                }
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.written_len_bytes < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written_len_bytes..]) {
                Poll::Ready(Ok(len_bytes)) => {
                    self.written_len_bytes += len_bytes;
                    self.unflushed = true;
                }
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Pending => return Ok(()),
            }
            if self.written_len_bytes == self.out.len() {
                self.out.clear();
                self.written_len_bytes = 0;
                // There may be room for more than one buffer, with large requests.
                self.fill(cx);
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Nothing more can be done now: is the lane done, or has the branch gone?
    fn rest(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        let in_flight = self.slots.len() - self.free.len();
        if self.finished && in_flight == 0 {
            return Ok(Poll::Ready(()));
        }
        while self.watch.poll_tick(cx).is_ready() {
            let now = self.clock.now();
            if in_flight == 0 {
                self.last_heard = now;
            } else if now.saturating_sub(self.last_heard) > SILENCE_MAX.as_nanos() as Nanos {
                return Err(Broken);
            }
        }
        Ok(Poll::Pending)
    }

    fn hand_back(&mut self) {
        let now = self.clock.now();
        let mut traffic = self.traffic.borrow_mut();
        for InFlight { tag, since } in self.slots.iter_mut().filter_map(Option::take) {
            traffic.lost(self.lane_index, tag, since, now);
        }
    }
}

/// The connection can no longer be used.
struct Broken;

impl<T: Traffic> Unpin for LaneTask<T> {}

impl<T: Traffic> Future for LaneTask<T> {
    type Output = LaneEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LaneEnd> {
        match self.turn(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                // A word of farewell, if there is room for one: the branch then knows that nothing was cut off.
                let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
                Poll::Ready(LaneEnd::Finished)
            }
            Err(Broken) => {
                self.hand_back();
                Poll::Ready(LaneEnd::Lost)
            }
        }
    }
}
