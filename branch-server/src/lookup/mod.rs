//! Lookup: questions about the past that only the disk can answer, asked off the workers.
//!
//! ```text
//!   worker --Job--> [lookup queue] --> lookup threads --Reply--> session   (a repeat: answered as the first time)
//!      ^                                    |
//!      '------------- Returned ------------'                               (never seen: go on with the rules)
//! ```
//!
//! **Invariant:** a job that returns finds room: at most [`LookupConfig::jobs_max`] are out at a time, which
//! a worker makes sure of before it sends one, and the queue back holds as many.

mod answer;
mod legs;
mod questions;
mod resolve;
mod threads;

use bytes::Bytes;
use crossbeam::channel;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_ledger::two_phase::{Decision, ParticipantEffect};
use tally_ledger::{Actor, Reference};
use tally_protocol::link::{AccountMove, CrossChain, CrossTransfer, EndItem, IdItem};
use tally_protocol::message;
use tally_protocol::{CustomerId, Timestamp, TransferId};

use crate::ids::LookedUp;
use crate::intake::{Op, Passage, Request, SessionKey};
use crate::replies::{Reply, ReplyBody};

pub use questions::{Answer, resolve};
pub use resolve::{RecordReader, ResolveError};
pub use threads::{LookupThreads, start};

/// Bounds of the look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// Threads that read the disk.
    pub threads: usize,
    /// Jobs that may be out at a time; one more is `Busy`.
    pub jobs_max: usize,
}

impl Default for LookupConfig {
    fn default() -> Self {
        // A read that the disk takes long over holds up one of them.
        Self { threads: 4, jobs_max: 16_384 }
    }
}

/// A request without what it asks for: enough to reply to it.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Where the reply goes.
    pub session: SessionKey,
    /// The client's number for it.
    pub request_id: u64,
    /// The client's trace id.
    pub trace_id: u128,
    /// When it must have begun; 0 for never too late.
    pub deadline: u64,
    /// When it passed the stages so far.
    pub passage: Passage,
    /// On whose behalf.
    pub actor: Actor,
    /// The number of moves of its account for which all former branches have said that they do not know the id; 0 where
    /// none was asked.
    pub cleared_moves: u8,
}

impl Asker {
    /// The bank itself, which waits for no reply.
    pub fn bank() -> Self {
        let session = SessionKey { thread: u16::MAX, slot: 0, generation: 0 };
        let actor = Actor { role: message::Role::Admin, customer: CustomerId::BANK };
        Self { session, request_id: 0, trace_id: 0, deadline: 0, passage: Passage::default(), actor, cleared_moves: 0 }
    }

    /// Parts a request from what it asks for.
    pub fn of(request: Request) -> (Self, Op) {
        let Request { session, request_id, trace_id, deadline, passage, actor, cleared_moves, op } = request;
        (Self { session, request_id, trace_id, deadline, passage, actor, cleared_moves }, op)
    }

    /// The same for a worker that takes it now, unless it has come back from waiting.
    pub fn taken(request: Request, now_ns: u64) -> (Self, Op) {
        let (mut asker, op) = Self::of(request);
        if asker.passage.taken_ns == 0 {
            asker.passage.taken_ns = now_ns;
        }
        (asker, op)
    }

    /// A request that asks for `op`.
    pub fn request(self, op: Op) -> Request {
        let Self { session, request_id, trace_id, deadline, passage, actor, cleared_moves } = self;
        Request { session, request_id, trace_id, deadline, passage, actor, cleared_moves, op }
    }

    /// A reply that says `body`.
    pub fn reply(self, body: ReplyBody) -> Reply {
        let Self { session, request_id, trace_id, passage, .. } = self;
        Reply { session, request_id, trace_id, passage, body }
    }
}

/// A question for the disk.
#[derive(Debug)]
pub struct Job {
    /// The worker that it returns to.
    pub worker: usize,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[derive(Debug)]
pub enum Question {
    /// Whether a transfer, or its reference, is known.
    Transfer(Asker, message::Transfer),
    /// The same for each of a chain.
    Chain(Asker, Bytes),
    /// The same for one entry, or one linked chain, of a batch that waits for it.
    BatchEntry {
        /// Which batch of the worker.
        batch: u64,
        /// The entry, or the whole linked chain.
        transfers: Vec<message::Transfer>,
    },
    /// Which of these ids of a batch were never used.
    BatchIds {
        /// Which batch of the worker.
        batch: u64,
        /// Ids that a filter could not rule out.
        ids: Vec<TransferId>,
    },
    /// Whether the destination's part of a transfer between branches is known.
    Prepare(CrossTransfer),
    /// The same of this branch's part of a chain.
    PrepareChain(CrossChain),
    /// Whether an account under this move's id was taken in, or the id is that of something else.
    TakeIn(Arc<AccountMove>),
    /// What became of a leg that is not open and was decided.
    Decide(TransferId, Decision, Timestamp),
    /// What became of a hold that is not open, and that the payer's branch has ended.
    End(EndItem),
    /// Whether an id was ever used here.
    IdUsed(IdItem),
    /// What became of a transfer.
    GetTransfer(Asker, TransferId),
    /// Whether the id may still be burnt.
    CancelId(Asker, TransferId),
}

/// What the disk said about transfers that it does not know.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// What is known of ids, sorted, and as of when.
    pub ids: Vec<(TransferId, LookedUp)>,
    /// What is known of every id that is not among `ids`.
    pub other_ids: Option<LookedUp>,
    /// References that are not open holds, what they are, and as of when.
    pub references: Vec<(TransferId, Reference, LookedUp)>,
}

impl Looked {
    /// What was found out about `id`.
    pub fn id(&self, id: TransferId) -> Option<&LookedUp> {
        match self.ids.binary_search_by_key(&id, |(known, _)| *known) {
            Ok(at) => Some(&self.ids[at].1),
            Err(_) => self.other_ids.as_ref(),
        }
    }

    /// What was found out about `reference`.
    pub fn reference(&self, reference: TransferId) -> Option<(Reference, LookedUp)> {
        self.references.iter().find(|(id, ..)| *id == reference).map(|&(_, found, looked_up)| (found, looked_up))
    }
}

/// A job on its way back to its worker.
#[derive(Debug)]
pub enum Returned {
    /// The transfer is new: go on.
    Transfer(Asker, message::Transfer, Looked),
    /// The chain is new: go on.
    Chain(Asker, Bytes, Looked),
    /// The entry (or chain) of the batch is new: go on.
    BatchEntryNew(u64, Looked),
    /// The entry (or chain) of the batch was known: these are its answers.
    BatchEntryKnown(u64, Vec<message::ItemResult>),
    /// What is known of these ids of the batch, sorted.
    BatchIds(u64, Vec<(TransferId, LookedUp)>),
    /// The destination's part is new: go on.
    Prepare(CrossTransfer, Looked),
    /// This branch's part of the chain is new: go on.
    PrepareChain(CrossChain, Looked),
    /// The move is new: go on.
    TakeIn(Arc<AccountMove>, Looked),
    /// The leg is open after all: go on.
    Decide(TransferId, Decision, Timestamp),
    /// The hold is open after all: go on.
    End(EndItem),
    /// How the hold ended was known here before: its payer's branch is told so.
    Heard(EndItem),
    /// The registry is told this about a leg. Everything in it was durable before it was read.
    Leg(TransferId, ParticipantEffect),
    /// The transfer is prepared: its answer comes with the decision, which is made under this id.
    InDoubt(Asker, message::Transfer, TransferId),
    /// The same of a chain.
    ChainInDoubt(Asker, Bytes, TransferId),
    /// Whether an id was used here.
    IdTold(IdItem),
    /// A decision that cannot be; it is logged.
    Contradiction,
    /// Nothing is to be said.
    Nothing,
    /// The id was never used: burn it.
    CancelId(Asker, TransferId, LookedUp),
}

/// The queues between the workers and the look-up threads.
#[derive(Debug)]
pub struct LookupQueues {
    jobs: (channel::Sender<Job>, channel::Receiver<Job>),
    returned: Vec<ArrayQueue<Returned>>,
    /// Jobs that are out: asked and not yet taken back or answered. `0 <= out <= jobs_max`
    out: AtomicUsize,
    jobs_max: usize,
}

impl LookupQueues {
    /// Queues for `workers` workers.
    pub fn new(workers: usize, config: &LookupConfig) -> Self {
        Self {
            jobs: channel::bounded(config.jobs_max),
            returned: (0..workers).map(|_| ArrayQueue::new(config.jobs_max)).collect(),
            out: AtomicUsize::new(0),
            jobs_max: config.jobs_max,
        }
    }

    /// Sends a job, or gives it back when as many as allowed are out.
    #[expect(clippy::result_large_err, reason = "a refused job is taken apart at once, on a path that is rare")]
    pub fn ask(&self, job: Job) -> Result<(), Job> {
        if self.out.fetch_add(1, Ordering::Relaxed) >= self.jobs_max {
            self.out.fetch_sub(1, Ordering::Relaxed);
            return Err(job);
        }
        self.jobs.0.try_send(job).map_err(|refused| refused.into_inner())
    }

    /// The next job that came back for `worker`.
    pub fn take_back(&self, worker: usize) -> Option<Returned> {
        let returned = self.returned[worker].pop()?;
        self.out.fetch_sub(1, Ordering::Relaxed);
        Some(returned)
    }

    /// Whether something came back for `worker`.
    pub fn has_returned(&self, worker: usize) -> bool {
        !self.returned[worker].is_empty()
    }

    /// Jobs that are out.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// The jobs, for a look-up thread to wait on.
    fn jobs(&self) -> &channel::Receiver<Job> {
        &self.jobs.1
    }

    fn give_back(&self, worker: usize, returned: Returned) {
        self.returned[worker].push(returned).expect("as many places as jobs may be out");
    }

    /// The job was answered here and does not go back.
    fn answered(&self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }
}
