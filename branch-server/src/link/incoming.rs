//! What the registry sends: instructions to the workers, routes and stamps to all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tally_protocol::link::{self, CrossTransfer, LinkFrame, MoveOrder};
use tally_protocol::{Timestamp, TransferId, split_frame};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Answers, LinkEnd, SILENCE_MAX};
use crate::clock;
use crate::intake::{Instruction, Lane};
use crate::two_phase::{Peer, Routes, TwoPhase, decision_of};

const READ_LEN_BYTES: usize = 64 << 10;
/// How long to wait for room in a worker's queue before looking again.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// See the top of the file.
pub(super) struct Incoming {
    shared: Arc<TwoPhase>,
    lanes: Vec<Arc<Lane>>,
    buffer: BytesMut,
    /// Of the frame that was read, and finds no room yet.
    pending: Vec<Instruction>,
    answers: Answers,
}

impl Incoming {
    pub(super) fn new(shared: Arc<TwoPhase>, lanes: Vec<Arc<Lane>>, answers: Answers) -> Self {
        Self { shared, lanes, buffer: BytesMut::new(), pending: Vec::new(), answers }
    }

    /// Reads until the link ends.
    pub(super) async fn run(&mut self, mut reader: impl AsyncRead + Unpin) -> LinkEnd {
        self.buffer.clear();
        loop {
            loop {
                match self.take_frame() {
                    Ok(true) => self.hand_over().await,
                    Ok(false) => break,
                    Err(end) => return end,
                }
            }
            self.buffer.reserve(READ_LEN_BYTES);
            match tokio::time::timeout(SILENCE_MAX, reader.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return LinkEnd::Closed,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return LinkEnd::Silent,
            }
        }
    }

    /// Takes one whole frame off the buffer. `false` when there is none.
    fn take_frame(&mut self) -> Result<bool, LinkEnd> {
        let split = split_frame(&self.buffer).map_err(|error| LinkEnd::Protocol(error.to_string()))?;
        let Some((header, body)) = split else { return Ok(false) };
        let len_bytes = header.len_bytes.get() as usize;
        let frame = link::decode(header, body).map_err(|error| LinkEnd::Protocol(error.to_string()))?;
        let (shared, wall) = (&self.shared, clock::wall());
        let follow = |stamp: u64| {
            let follows = shared.observe(stamp, wall);
            if !follows {
                shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
            }
            follows
        };
        follow(header.link_stamp().as_nanos());
        match frame {
            LinkFrame::Prepare(items) => {
                let here = shared.branch().get();
                let is_ours = |cross: &&CrossTransfer| cross.destination.get() == here && follow(cross.stamp.get());
                self.pending.extend(items.iter().filter(is_ours).map(|cross| Instruction::Prepare(*cross)));
            }
            LinkFrame::PrepareChain(chain) => {
                let here = shared.branch();
                let chain = chain.to_owned();
                let is_ours = chain.source() != here && chain.members_at(here).next().is_some();
                if is_ours && follow(chain.prefix.stamp.get()) {
                    self.pending.push(Instruction::PrepareChain(chain));
                }
            }
            LinkFrame::Decision(items) => {
                // A decision stands, whatever its stamp: only the clock does not follow it.
                self.pending.extend(items.iter().map(|item| {
                    follow(item.stamp.get());
                    let decided_at = Timestamp::from_nanos(item.stamp.get());
                    Instruction::Decide(TransferId::new(item.id.get()), decision_of(item), decided_at)
                }));
            }
            LinkFrame::End(items) => {
                let here = shared.branch().get();
                self.pending.extend(items.iter().filter(|item| item.destination.get() == here).map(|item| {
                    follow(item.stamp.get());
                    Instruction::End(*item)
                }));
            }
            LinkFrame::Heard(items) => {
                let here = shared.branch().get();
                self.pending.extend(items.iter().filter(|item| item.source.get() == here).map(|item| {
                    follow(item.stamp.get());
                    Instruction::Heard(TransferId::new(item.id.get()))
                }));
            }
            LinkFrame::Heartbeat(heartbeat) => drop(follow(heartbeat.stamp.get())),
            LinkFrame::Routes(routes) => {
                let branches = routes
                    .iter()
                    .map(|route| (route.branch_id, Peer { endpoint: route.endpoint.to_owned(), status: route.status }));
                shared.set_routes(Routes { version: routes.version(), branches: branches.collect() });
            }
            // Those that could not be begun are asked about in time, and aborted then.
            LinkFrame::Busy(items) => {
                shared.stats.dropped.fetch_add(items.len() as u64, Ordering::Relaxed);
            }
            LinkFrame::Call(question) => self.answers.answer(header.request_id.get(), question),
            LinkFrame::MoveOrder(items) => {
                let is_followed = |order: &&MoveOrder| follow(order.stamp.get());
                self.pending.extend(items.iter().filter(is_followed).map(|order| Instruction::Leave(*order)));
            }
            LinkFrame::MovePrepare(moving) => {
                let account = moving.account;
                if account.destination.get() == shared.branch().get() && follow(account.stamp.get()) {
                    self.pending.push(Instruction::TakeIn(Arc::new(moving.to_owned())));
                }
            }
            LinkFrame::IdAsk(items) => self.pending.extend(items.iter().map(|item| Instruction::AskId(*item))),
            LinkFrame::IdTold(items) => self.pending.extend(items.iter().map(|item| Instruction::IdTold(*item))),
            LinkFrame::Moved(items) => shared.moved.learn(items),
            LinkFrame::Redirect { endpoint, .. } => return Err(LinkEnd::NotLeader(endpoint.to_owned())),
            other => return Err(LinkEnd::Protocol(format!("{:?} on a branch's link", other.link_type()))),
        }
        self.buffer.advance(len_bytes);
        Ok(true)
    }

    /// Gives the instructions to the workers; waits for room where there is none.
    async fn hand_over(&mut self) {
        while !self.pending.is_empty() {
            let lanes = &self.lanes;
            let pending = std::mem::take(&mut self.pending);
            self.pending.extend(pending.into_iter().filter_map(|instruction| {
                // A transfer's instructions go through one worker, in order.
                let lane = &lanes[instruction.id() as usize % lanes.len()];
                lane.two_phase.push(instruction).err()
            }));
            lanes.iter().for_each(|lane| lane.bell.ring());
            if !self.pending.is_empty() {
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    }
}
