//! Replies: from a worker back to the session, and never before what they tell is durable.
//!
//! One queue per worker and session thread, in order of the position ("gate") that each reply waits for.
//! A worker hands over what it gathered in one duty cycle at once; the session thread takes what the
//! durable position has passed. A flush wakes only those for whom something waits ([`GateBell`]): to wake a thread in vain
//! costs it and whoever it takes the core from more than the flush costs a processor.
//!
//! **Invariant:** no reply leaves before its record is durable: [`GatedReceiver::poll_ready`] is the only
//! way out (of what is said to the registry, too), and it compares each gate with a [`DurableLsn`], which only the journal can make.

use std::collections::VecDeque;

use bytes::Bytes;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::message::{self, MessageType};
use tally_protocol::{Lsn, Refusal};

use crate::bell::Bell;
use crate::intake::{Passage, SessionKey};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, fence};

/// One answer, on its way to a session.
#[derive(Debug)]
pub struct Reply {
    /// Where it goes.
    pub session: SessionKey,
    /// The client's number for the request.
    pub request_id: u64,
    /// The client's trace id.
    pub trace_id: u128,
    /// When the request passed the stages.
    pub passage: Passage,
    /// What it says.
    pub body: ReplyBody,
}

/// What a reply says.
#[derive(Debug)]
pub enum ReplyBody {
    /// About one transfer, with the sums of both accounts when they were asked for.
    Transfer {
        /// The answer.
        reply: message::TransferReply,
        /// Debit side, credit side.
        balances: Option<[message::Sums; 2]>,
    },
    /// About one account operation or cancel.
    Item(MessageType, message::ItemResult),
    /// About each entry of a batch, chain or list of accounts: whole [`message::ItemResult`]s.
    Items(MessageType, Bytes),
    /// A balance.
    Balance(message::Balance),
    /// An account.
    Account(Box<message::Account>),
    /// A transfer.
    Found(Box<message::TransferFound>),
    /// A page of the feed: [`message::FeedPagePrefix`] and its entries.
    Feed(Bytes),
    /// Nothing was done.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When to try again, in milliseconds; 0 for "not without a change".
        retry_after_ms: u32,
        /// For people.
        text: Option<Box<str>>,
    },
}

impl ReplyBody {
    /// What kind of reply it is, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transfer { .. } => "transfer",
            Self::Item(..) => "item",
            Self::Items(..) => "items",
            Self::Balance(_) => "balance",
            Self::Account(_) => "account",
            Self::Found(_) => "transfer_found",
            Self::Feed(_) => "feed_page",
            Self::Refused { .. } => "refused",
        }
    }
}

/// What is said behind its gate.
#[derive(Debug)]
struct Gated<T> {
    gate: Lsn,
    /// Whether the receiver is to be woken for it.
    wakes: bool,
    said: T,
}

/// The bell of a receiver, and how much waits for it behind gates.
///
/// **Invariant:** no wake-up is lost: whoever hands over counts, and then reads the durable position; whoever flushed raised that
/// position, and then reads the count. A fence between the two steps of each makes sure that at least one of them rings.
#[derive(Clone, Debug)]
pub struct GateBell {
    bell: Bell,
    waiting: Arc<AtomicUsize>,
}

impl GateBell {
    /// Nothing waits yet.
    pub fn new(bell: Bell) -> Self {
        Self { bell, waiting: Arc::new(AtomicUsize::new(0)) }
    }

    /// Call after the durable position has risen: rings if anything waits for that.
    #[inline]
    pub fn flushed(&self) {
        // Pairs with the fence in `GatedSender::hand_over`.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.bell.ring();
        }
    }
}

type Queue<T> = Arc<Mutex<VecDeque<Gated<T>>>>;

/// A worker's end, with one queue per receiver.
#[derive(Debug)]
pub struct GatedSender<T> {
    queues: Vec<Queue<T>>,
    gathered: Vec<Vec<Gated<T>>>,
    bells: Vec<GateBell>,
    gate_last: Lsn,
}

/// A receiver's end, with one queue per worker.
#[derive(Debug)]
pub struct GatedReceiver<T> {
    queues: Vec<Queue<T>>,
    ready: Vec<T>,
    waiting: Arc<AtomicUsize>,
}

/// A worker's end, with one queue per session thread.
pub type ReplySender = GatedSender<Reply>;
/// A session thread's end, with one queue per worker.
pub type ReplyReceiver = GatedReceiver<Reply>;

/// All ends, for `senders` workers and one receiver per bell.
pub fn channels<T>(senders: usize, bells: &[GateBell]) -> (Vec<GatedSender<T>>, Vec<GatedReceiver<T>>) {
    let receiver = |bell: &GateBell| GatedReceiver {
        queues: Vec::with_capacity(senders),
        ready: Vec::new(),
        waiting: bell.waiting.clone(),
    };
    let mut receivers: Vec<_> = bells.iter().map(receiver).collect();
    let senders = (0..senders)
        .map(|_| {
            let queues: Vec<Queue<T>> = bells.iter().map(|_| Arc::new(Mutex::new(VecDeque::new()))).collect();
            for (receiver, queue) in receivers.iter_mut().zip(&queues) {
                receiver.queues.push(queue.clone());
            }
            GatedSender {
                gathered: queues.iter().map(|_| Vec::new()).collect(),
                queues,
                bells: bells.to_vec(),
                gate_last: Lsn::ZERO,
            }
        })
        .collect();
    (senders, receivers)
}

impl ReplySender {
    /// Gathers a reply that may leave once everything up to and including the record at `gate` is durable.
    pub fn push(&mut self, gate: Lsn, reply: Reply) {
        self.push_to(reply.session.thread as usize, gate, reply);
    }
}

impl<T> GatedSender<T> {
    /// Gathers something for `receiver` that may leave once everything up to and including the record at `gate` is
    /// durable. It waits at least as long as what came before it, so that the queue stays in order.
    pub fn push_to(&mut self, receiver: usize, gate: Lsn, said: T) {
        self.gather(receiver, gate, true, said);
    }

    /// The same, but the receiver is not woken for it: it goes with what comes next, or when the receiver looks by itself.
    pub fn push_in_passing(&mut self, receiver: usize, gate: Lsn, said: T) {
        self.gather(receiver, gate, false, said);
    }

    fn gather(&mut self, receiver: usize, gate: Lsn, wakes: bool, said: T) {
        self.gate_last = self.gate_last.max(gate);
        self.gathered[receiver].push(Gated { gate: self.gate_last, wakes, said });
    }

    /// Hands over what was gathered. Rings a session thread only if something of it can already leave;
    /// for the rest the journal's next flush rings.
    ///
    /// `durable` is asked *after* the hand-over: a flush that ended before it could find nothing to ring for, and
    /// nobody would ring again.
    pub fn hand_over(&mut self, durable: impl Fn() -> DurableLsn) {
        for ((gathered, queue), bell) in self.gathered.iter_mut().zip(&self.queues).zip(&self.bells) {
            if gathered.is_empty() {
                continue;
            }
            let mut waking = gathered.iter().filter(|gated| gated.wakes).map(|gated| gated.gate);
            let first = waking.next();
            // Before the receiver can see any of it, and takes it off again.
            bell.waiting.fetch_add(usize::from(first.is_some()) + waking.count(), Ordering::Relaxed);
            queue.lock().extend(gathered.drain(..));
            // Pairs with the fence in `GateBell::flushed`, which the journal calls after it raised `durable`.
            fence(Ordering::SeqCst);
            if first.is_some_and(|first| durable().covers(first)) {
                bell.bell.ring();
            }
        }
    }
}

impl<T> GatedReceiver<T> {
    /// Passes every reply that may leave to `take`, in order per worker. Returns whether there were any.
    ///
    /// After a `false` the thread may sleep: `durable` was read before the queues were looked at, and a
    /// flush or a hand-over that came later rings.
    pub fn poll_ready(&mut self, durable: DurableLsn, mut take: impl FnMut(T)) -> bool {
        let mut any = false;
        for queue in &self.queues {
            let mut taken = 0;
            {
                let mut queue = queue.lock();
                while queue.front().is_some_and(|first| durable.covers(first.gate)) {
                    let Gated { wakes, said, .. } = queue.pop_front().expect("its front was just seen");
                    taken += usize::from(wakes);
                    self.ready.push(said);
                }
            }
            if taken > 0 {
                self.waiting.fetch_sub(taken, Ordering::Relaxed);
            }
            any |= !self.ready.is_empty();
            self.ready.drain(..).for_each(&mut take);
        }
        any
    }

    /// Replies that wait for the disk or for this thread.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.lock().len()).sum()
    }
}
