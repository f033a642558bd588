//! Intake: from a session to the worker that serves the account, through bounded lock-free queues.
//!
//! One queue per worker and priority class. Full means `Busy`, at once; nothing here grows.
//!
//! ```text
//!   session threads ==push==> [control | interactive | bulk] ==pop==> worker
//!   link            ==push==> [two_phase] ==============pop==^   behind control, before interactive
//! ```

use std::sync::Arc;

use bytes::Bytes;
use tally_ledger::Actor;
use tally_ledger::two_phase::Decision;
use tally_protocol::link::{AccountMove, CrossChain, CrossTransfer, EndItem, IdItem, MoveOrder};
use tally_protocol::message;
use tally_protocol::request::Lookup;
use tally_protocol::{AccountId, Timestamp, TransferId};

use crate::bell::Bell;
use crate::sync::ArrayQueue;

/// Which session a request came from, so that its reply finds the way back, or finds that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The session thread.
    pub thread: u16,
    /// The place in that thread's table of sessions.
    pub slot: u32,
    /// Which user of that place: a reply for an earlier one is dropped.
    pub generation: u32,
}

/// When a request passed the stages, by [`crate::clock::monotonic_nanos`]; 0 where nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Read from the socket.
    pub received_ns: u64,
    /// Taken by a worker for the first time.
    pub taken_ns: u64,
}

/// One request, checked for form and permitted by role, on its way to a worker.
#[derive(Debug)]
pub struct Request {
    /// Where the reply goes.
    pub session: SessionKey,
    /// The client's number for it.
    pub request_id: u64,
    /// The client's trace id, for logs.
    pub trace_id: u128,
    /// When it must have begun, by [`crate::clock::monotonic_nanos`]; 0 for never too late.
    pub deadline: u64,
    /// When it passed the stages so far.
    pub passage: Passage,
    /// On whose behalf.
    pub actor: Actor,
    /// See [`crate::lookup::Asker::cleared_moves`].
    pub cleared_moves: u8,
    /// What is wanted.
    pub op: Op,
}

/// What is wanted.
#[derive(Debug)]
pub enum Op {
    /// One transfer of any kind.
    Transfer(message::Transfer),
    /// Whole [`message::Transfer`]s, all or nothing.
    Chain(Bytes),
    /// Whole [`message::Transfer`]s.
    Batch(Bytes),
    /// Whole [`message::AccountOpen`]s.
    OpenAccounts(Bytes),
    /// Close an account.
    CloseAccount(AccountId),
    /// Freeze an account.
    FreezeAccount(AccountId),
    /// Unfreeze an account.
    UnfreezeAccount(AccountId),
    /// Give an account other limits.
    SetLimits(message::LimitsSet),
    /// Burn a transfer id.
    CancelId(TransferId),
    /// Read a balance.
    GetBalance(AccountId),
    /// Read an account.
    GetAccount(AccountId),
    /// Read a transfer.
    GetTransfer(TransferId),
    /// One of the three before, once everything that has this stamp can be shown.
    ReadAfter(Timestamp, Lookup),
    /// Read durable outcomes.
    ReadFeed(message::FeedRead),
}

/// What the registry wants done.
#[derive(Clone, Debug)]
pub enum Instruction {
    /// Hold the destination's part.
    Prepare(CrossTransfer),
    /// Hold this branch's part of a chain.
    PrepareChain(CrossChain),
    /// End what is held, as was decided at this stamp of the registry.
    Decide(TransferId, Decision, Timestamp),
    /// End a hold as its payer's branch has.
    End(EndItem),
    /// The payee's branch knows how a hold has ended.
    Heard(TransferId),
    /// Seal an account that is to move.
    Leave(MoveOrder),
    /// Take an account in.
    TakeIn(Arc<AccountMove>),
    /// Say whether an id was used here.
    AskId(IdItem),
    /// Whether an id was used at another branch.
    IdTold(IdItem),
}

impl Instruction {
    /// The transfer or move that it is about: its instructions go through one worker, in order.
    pub fn id(&self) -> u128 {
        match self {
            Self::Prepare(cross) => cross.transfer.id.get(),
            Self::PrepareChain(chain) => chain.prefix.id.get(),
            Self::Decide(id, ..) | Self::Heard(id) => id.get(),
            Self::End(item) => item.id.get(),
            Self::Leave(order) => order.id.get(),
            Self::TakeIn(moving) => moving.account.id.get(),
            Self::AskId(item) | Self::IdTold(item) => item.id.get(),
        }
    }
}

/// Who goes first when a worker has more than one kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Operations on accounts.
    Control,
    /// One payment, one read.
    Interactive,
    /// Batches and pages.
    Bulk,
}

impl Op {
    /// The class that this operation waits in.
    pub const fn class(&self) -> Class {
        match self {
            Self::CloseAccount(_)
            | Self::FreezeAccount(_)
            | Self::UnfreezeAccount(_)
            | Self::SetLimits(_)
            | Self::CancelId(_) => Class::Control,
            Self::Transfer(_)
            | Self::Chain(_)
            | Self::GetBalance(_)
            | Self::GetAccount(_)
            | Self::GetTransfer(_)
            | Self::ReadAfter(..) => Class::Interactive,
            Self::Batch(_) | Self::OpenAccounts(_) | Self::ReadFeed(_) => Class::Bulk,
        }
    }

    /// A number that is the same for requests about the same account, to pick the worker by.
    fn affinity(&self) -> u64 {
        let raw = match self {
            Self::Transfer(transfer) if transfer.debit_account_id.get() != 0 => transfer.debit_account_id.get(),
            Self::Transfer(transfer) => transfer.credit_account_id.get(),
            Self::CloseAccount(id)
            | Self::FreezeAccount(id)
            | Self::UnfreezeAccount(id)
            | Self::GetBalance(id)
            | Self::GetAccount(id) => id.get(),
            Self::SetLimits(limits) => limits.id.get(),
            Self::CancelId(id) | Self::GetTransfer(id) => id.get(),
            Self::ReadAfter(_, lookup) => lookup.id(),
            Self::Chain(bytes) | Self::Batch(bytes) | Self::OpenAccounts(bytes) => {
                bytes.get(..16).map_or(0, |id| u128::from_le_bytes(id.try_into().expect("sixteen bytes")))
            }
            Self::ReadFeed(_) => 0,
        };
        // Fibonacci hashing (Knuth, TAOCP 3, 6.4): account numbers are often consecutive.
        ((raw as u64) ^ (raw >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
    }
}

/// How many requests may wait for one worker.
#[derive(Clone, Copy, Debug)]
pub struct IntakeConfig {
    /// Operations on accounts.
    pub control_depth: usize,
    /// Prepares and decisions.
    pub two_phase_depth: usize,
    /// Single payments and reads.
    pub interactive_depth: usize,
    /// Batches and pages; each may be a megabyte.
    pub bulk_depth: usize,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self { control_depth: 1_024, two_phase_depth: 16_384, interactive_depth: 16_384, bulk_depth: 64 }
    }
}

/// The queue was full. Try again after the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeFull {
    /// Milliseconds after which there may be room.
    pub retry_after_ms: u32,
}

/// The worker's end: its queues, and the bell that wakes it.
#[derive(Debug)]
pub struct Lane {
    /// Popped first.
    pub control: ArrayQueue<Request>,
    /// What the registry wants done: popped before what clients want, for it ends what others wait for.
    pub two_phase: ArrayQueue<Instruction>,
    /// Popped third.
    pub interactive: ArrayQueue<Request>,
    /// Popped last, in slices.
    pub bulk: ArrayQueue<Request>,
    /// Wakes the worker.
    pub bell: Bell,
}

impl Lane {
    /// An empty lane behind `bell`.
    pub fn new(config: &IntakeConfig, bell: Bell) -> Self {
        Self {
            control: ArrayQueue::new(config.control_depth),
            two_phase: ArrayQueue::new(config.two_phase_depth),
            interactive: ArrayQueue::new(config.interactive_depth),
            bulk: ArrayQueue::new(config.bulk_depth),
            bell,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.two_phase.is_empty() && self.control.is_empty() && self.bulk.is_empty()
    }

    /// Whether all that waits is one request that is no bulk.
    pub fn has_one(&self) -> bool {
        self.bulk.is_empty() && self.control.len() + self.two_phase.len() + self.interactive.len() == 1
    }
}

/// The sessions' end: all lanes.
#[derive(Debug)]
pub struct Intake {
    lanes: Vec<std::sync::Arc<Lane>>,
    /// Pages of the feed are read by a thread of their own.
    feed: crossbeam::channel::Sender<Request>,
}

impl Intake {
    /// An intake in front of `lanes`, one per worker, and of the feed's thread.
    pub fn new(lanes: Vec<std::sync::Arc<Lane>>, feed: crossbeam::channel::Sender<Request>) -> Self {
        assert!(!lanes.is_empty(), "a branch has at least one worker");
        Self { lanes, feed }
    }

    /// Queues a request for its worker. Call [`Intake::ring`] after the last one of a burst.
    pub fn push(&self, request: Request) -> Result<(), IntakeFull> {
        if matches!(request.op, Op::ReadFeed(_)) {
            return self.feed.try_send(request).map_err(|_| IntakeFull { retry_after_ms: 20 });
        }
        let lane = if self.lanes.len() == 1 {
            &self.lanes[0]
        } else {
            &self.lanes[request.op.affinity() as usize % self.lanes.len()]
        };
        let (queue, retry_after_ms) = match request.op.class() {
            Class::Control => (&lane.control, 2),
            Class::Interactive => (&lane.interactive, 5),
            Class::Bulk => (&lane.bulk, 20),
        };
        queue.push(request).map_err(|_| IntakeFull { retry_after_ms })
    }

    /// Wakes the workers that sleep.
    pub fn ring(&self) {
        for lane in &self.lanes {
            lane.bell.ring();
        }
    }

    /// What waits, per class: control, two-phase commit, interactive, bulk.
    pub fn depths(&self) -> [usize; 4] {
        let mut depths = [0; 4];
        for lane in &self.lanes {
            depths[0] += lane.control.len();
            depths[1] += lane.two_phase.len();
            depths[2] += lane.interactive.len();
            depths[3] += lane.bulk.len();
        }
        depths
    }
}
