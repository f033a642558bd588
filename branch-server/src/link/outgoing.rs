//! What the branch tells the registry: gathered from the workers, as soon as its records are durable.

use std::sync::Arc;

use tally_protocol::Envelope;
use tally_protocol::link::{
    AccountMove, BranchStatus, CrossChain, CrossTransfer, EndItem, IdItem, LinkFrame, LinkHeartbeat, LinkType,
    MarkItem, VoteItem, append_items, stamp_frames,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Answers, HEARTBEAT_INTERVAL, LinkBell, LinkEnd};
use crate::clock;
use crate::journal::Journal;
use crate::replies::GatedReceiver;
use crate::two_phase::{Said, TwoPhase};

/// See the top of the file.
pub(super) struct Outgoing {
    shared: Arc<TwoPhase>,
    journal: Arc<Journal>,
    says: GatedReceiver<Said>,
    begins: GatedReceiver<Said>,
    bell: LinkBell,
    gathered: Gathered,
    answers: Answers,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Gathered {
    begins: Vec<CrossTransfer>,
    chains: Vec<CrossChain>,
    votes: Vec<VoteItem>,
    acknowledgements: Vec<MarkItem>,
    questions: Vec<MarkItem>,
    ends: Vec<EndItem>,
    heard: Vec<EndItem>,
    moves: Vec<Arc<AccountMove>>,
    refused_moves: Vec<VoteItem>,
    asked_ids: Vec<IdItem>,
    told_ids: Vec<IdItem>,
}

impl Gathered {
    fn take(&mut self, said: Said) {
        match said {
            Said::Begin(item) => self.begins.push(item),
            Said::BeginChain(chain) => self.chains.push(chain),
            Said::Vote(item) => self.votes.push(item),
            Said::Acknowledge(item) => self.acknowledgements.push(item),
            Said::Ask(item) => self.questions.push(item),
            Said::End(item) => self.ends.push(item),
            Said::Heard(item) => self.heard.push(item),
            Said::BeginMove(moving) => self.moves.push(moving),
            Said::RefuseMove(item) => self.refused_moves.push(item),
            Said::AskId(item) => self.asked_ids.push(item),
            Said::TellId(item) => self.told_ids.push(item),
        }
    }

    fn append_to(&mut self, bytes: &mut Vec<u8>) {
        append_items(bytes, LinkType::LinkBegin, self.begins.drain(..));
        for chain in self.chains.drain(..) {
            LinkFrame::BeginChain(chain.as_link()).append_to(bytes, Envelope::request(0));
        }
        append_items(bytes, LinkType::LinkVote, self.votes.drain(..));
        append_items(bytes, LinkType::LinkAcknowledge, self.acknowledgements.drain(..));
        append_items(bytes, LinkType::LinkAsk, self.questions.drain(..));
        append_items(bytes, LinkType::LinkEnd, self.ends.drain(..));
        append_items(bytes, LinkType::LinkHeard, self.heard.drain(..));
        for moving in self.moves.drain(..) {
            LinkFrame::MoveBegin(moving.body()).append_to(bytes, Envelope::request(0));
        }
        append_items(bytes, LinkType::LinkMoveRefused, self.refused_moves.drain(..));
        append_items(bytes, LinkType::LinkIdAsk, self.asked_ids.drain(..));
        append_items(bytes, LinkType::LinkIdTold, self.told_ids.drain(..));
    }
}

impl Outgoing {
    pub(super) fn new(
        shared: Arc<TwoPhase>,
        journal: Arc<Journal>,
        (says, begins): (GatedReceiver<Said>, GatedReceiver<Said>),
        bell: LinkBell,
        answers: Answers,
    ) -> Self {
        Self { shared, journal, says, begins, bell, gathered: Gathered::default(), answers, bytes: Vec::new() }
    }

    /// Writes until the link ends. What was gathered and not written is lost with it: it is told or asked again.
    pub(super) async fn run(&mut self, mut writer: impl AsyncWrite + Unpin) -> LinkEnd {
        let mut heartbeat_at = tokio::time::Instant::now();
        self.bytes.clear();
        self.answers.forget();
        loop {
            self.bell.bell.awake();
            if tokio::time::Instant::now() >= heartbeat_at {
                self.append_heartbeat();
                heartbeat_at = tokio::time::Instant::now() + HEARTBEAT_INTERVAL;
            }
            self.gather();
            if self.bytes.is_empty() {
                self.bell.bell.announce_sleep();
                // Once more: a ring before the announcement found us awake and woke nobody.
                self.gather();
            }
            if self.bytes.is_empty() {
                tokio::select! {
                    () = self.bell.notify.notified() => {}
                    () = tokio::time::sleep_until(heartbeat_at) => {}
                }
                continue;
            }
            stamp_frames(&mut self.bytes, self.shared.now(clock::wall()));
            if let Err(error) = async {
                writer.write_all(&self.bytes).await?;
                writer.flush().await
            }
            .await
            {
                return error.into();
            }
            self.bytes.clear();
        }
    }

    fn gather(&mut self) {
        let durable = self.journal.durable();
        let gathered = &mut self.gathered;
        // The begins last, for a vote that was seen here was handed over behind its begin.
        self.says.poll_ready(durable, |said| gathered.take(said));
        self.begins.poll_ready(durable, |said| gathered.take(said));
        self.gathered.append_to(&mut self.bytes);
        self.answers.append_to(&mut self.bytes);
    }

    fn append_heartbeat(&mut self) {
        let (in_doubt, _) = self.shared.doubts.summary();
        let heartbeat = LinkHeartbeat {
            stamp: self.shared.now(clock::wall()).as_nanos().into(),
            routes_version: self.shared.routes_version().into(),
            durable: self.journal.durable().end().get().into(),
            in_doubt: (in_doubt as u32).into(),
            status: BranchStatus::Serving as u8,
            reserved: [0; 3],
        };
        LinkFrame::Heartbeat(&heartbeat).append_to(&mut self.bytes, Envelope::request(0));
    }
}
