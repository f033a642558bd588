//! Two-phase commit, the branch's side: what is prepared and not decided, and what goes to the registry and comes back.
//!
//! ```text
//!   worker --begin; behind its gate each vote, acknowledge, ask--> link --TLS--> registry
//!   worker <==================== prepare, decision =============== link <--TLS-- registry
//! ```
//!
//! The states are `tally_ledger::two_phase::Participant`'s; the records are made by `engine/legs.rs`.
//!
//! **Invariant:** nothing is promised to the registry before the record that allows it is durable: the gates are those of the
//! replies. A begin promises nothing. Everything may be said twice, and anything may be lost: the registry tells again, and
//! a branch asks.

mod chains;
mod doubts;
mod former;
mod legs;
mod moves;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use tally_ledger::two_phase::{AbortReason, Decision, Objection};
use tally_protocol::link::{
    self, AccountMove, BranchStatus, CrossChain, CrossTransfer, DecisionItem, EndItem, IdItem, MarkItem, VoteItem,
};
use tally_protocol::{BranchId, Refusal, Timestamp};

pub use chains::{ChainBegun, ChainRoute};
pub use doubts::{ChainDoubt, Doubt, Doubts, Waiting, WaitingChain};
pub use former::{Former, Heard};
pub use legs::{Begun, Led};
pub use moves::MovedAccounts;
pub use stats::{ABORT_REASONS, HOLD_ENDS, TwoPhaseStats};

/// How long the registry gathers votes before it gives up, in nanoseconds.
pub const VOTES_TIMEOUT_NS: u64 = 5_000_000_000;
/// How far another clock may be ahead of ours before we refuse to follow it, in nanoseconds.
pub const CLOCK_AHEAD_NS_MAX: u64 = 500_000_000;

/// What the branch tells the registry.
#[derive(Clone, Debug)]
pub enum Said {
    /// A transfer begins: this branch is its source, and votes once its part is durable.
    Begin(CrossTransfer),
    /// A chain begins: this branch is its source and has promised its part.
    BeginChain(CrossChain),
    /// What this branch says of its part.
    Vote(VoteItem),
    /// A decision is carried out.
    Acknowledge(MarkItem),
    /// What became of it?
    Ask(MarkItem),
    /// A hold between branches has ended here, at the payer's branch.
    End(EndItem),
    /// The same has been carried out here, at the payee's branch.
    Heard(EndItem),
    /// An account moves: this branch is its source and has sealed it.
    BeginMove(Arc<AccountMove>),
    /// An account cannot move.
    RefuseMove(VoteItem),
    /// Was this id used?
    AskId(IdItem),
    /// Whether it was.
    TellId(IdItem),
}

/// Another branch, as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where clients reach it.
    pub endpoint: String,
    /// How it is.
    pub status: BranchStatus,
}

/// The branches of the bank, as the registry told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Rises with every change.
    pub version: u64,
    /// All of them, this one included.
    pub branches: BTreeMap<BranchId, Peer>,
}

/// What the threads of a branch share about transfers between branches.
#[derive(Debug)]
pub struct TwoPhase {
    branch: BranchId,
    /// What is prepared and not decided.
    pub doubts: Doubts,
    /// What happened so far.
    pub stats: TwoPhaseStats,
    /// Where accounts went.
    pub moved: MovedAccounts,
    /// Requests that wait for the former branches of their account.
    pub former: Former,
    is_linked: AtomicBool,
    /// Just behind the highest stamp that another clock has shown us.
    seen: AtomicU64,
    routes: RwLock<Routes>,
}

impl TwoPhase {
    /// A branch that has no link yet.
    pub fn new(branch: BranchId) -> Self {
        Self {
            branch,
            doubts: Doubts::default(),
            stats: TwoPhaseStats::default(),
            moved: MovedAccounts::default(),
            former: Former::default(),
            is_linked: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            routes: RwLock::default(),
        }
    }

    /// Which branch.
    pub const fn branch(&self) -> BranchId {
        self.branch
    }

    /// Whether a transfer to `peer` may begin now.
    ///
    /// # Errors
    /// `RegistryUnreachable`, `BranchUnknown`; nothing is recorded.
    pub fn admit(&self, peer: BranchId) -> Result<(), Refusal> {
        if !self.is_linked.load(Ordering::Relaxed) {
            return Err(Refusal::RegistryUnreachable);
        }
        let routes = self.routes.read();
        match routes.branches.contains_key(&peer) {
            true => Ok(()),
            // Linked, and not told yet who is in the bank: that is no reason to say that the peer is not.
            false if routes.version == 0 => Err(Refusal::RegistryUnreachable),
            false => Err(Refusal::BranchUnknown),
        }
    }

    /// Says whether the registry's leader is reached.
    pub fn set_linked(&self, is_linked: bool) {
        self.is_linked.store(is_linked, Ordering::Relaxed);
    }

    /// Whether the registry's leader is reached.
    pub fn is_linked(&self) -> bool {
        self.is_linked.load(Ordering::Relaxed)
    }

    /// The branches that are known.
    pub fn routes(&self) -> Routes {
        self.routes.read().clone()
    }

    /// Version of [`TwoPhase::routes`].
    pub fn routes_version(&self) -> u64 {
        self.routes.read().version
    }

    /// Takes over newer routes.
    pub fn set_routes(&self, routes: Routes) {
        let mut known = self.routes.write();
        if routes.version > known.version {
            *known = routes;
        }
    }

    /// A hybrid logical clock (Kulkarni et al., Logical Physical Clocks, 2014): the wall clock, never behind a stamp that
    /// was received. The log makes its stamps strictly rising.
    #[inline]
    pub fn now(&self, wall: Timestamp) -> Timestamp {
        wall.max(Timestamp::from_nanos(self.seen.load(Ordering::Relaxed)))
    }

    /// Takes notice of another clock's stamp. `false` when it is too far ahead to be followed.
    pub fn observe(&self, stamp: u64, wall: Timestamp) -> bool {
        if stamp > wall.as_nanos().saturating_add(CLOCK_AHEAD_NS_MAX) {
            return false;
        }
        // Behind it, not beside it: what is stamped next may have it as its cause.
        self.seen.fetch_max(stamp.saturating_add(1), Ordering::Relaxed);
        true
    }
}

/// What a decision on the wire says. A refusal that this build does not know is still an abort.
pub fn decision_of(item: &DecisionItem) -> Decision {
    let branch = BranchId::new(item.branch.get());
    match (item.outcome, item.reason) {
        (link::outcome::COMMIT, _) => Decision::Commit,
        (_, link::reason::REFUSED) => {
            let refusal = Refusal::from_code(item.refusal.get()).unwrap_or(Refusal::TransferAborted);
            Decision::Abort(AbortReason::Refused(branch, Objection { refusal, member: item.member }))
        }
        (_, link::reason::TIMED_OUT) => Decision::Abort(AbortReason::TimedOut(branch)),
        (_, link::reason::RESOLVED) => Decision::Abort(AbortReason::Resolved),
        _ => Decision::Abort(AbortReason::Presumed),
    }
}
