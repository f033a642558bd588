//! Engine: the state of the branch in memory, and the stages by which a transfer changes it.
//!
//! The rules themselves are `tally_ledger`'s and work on copies; here is what they need around them: which
//! ids are taken, which accounts are locked, where in the log the record goes, and what is published when.
//!
//! ```text
//!   prepare            lock             decide_and_reserve        publish               fill
//!   form, id, ---->    both accounts -> rules on copies,   ---->  slots, holds, ids, -> record into the
//!   reference          in id order      position and stamp        unlock                log ring
//! ```

mod account_ops;
mod chain;
mod chain_legs;
mod expiry;
mod house;
mod legs;
mod moves;
mod opening;
mod reads;
mod stages;

use tally_journal::{LogFull, LogWriter};
use tally_ledger::journal::record::TransferRecord;
use tally_ledger::{Guests, Sums, Transfer};
use tally_protocol::message;
use tally_protocol::{AccountId, Amount, BranchId, Lsn, Refusal, Timestamp, TransferId};

use crate::accounts::Accounts;
use crate::clock;
use crate::holds::Holds;
use crate::ids::{IdIndex, LookedUp};
use crate::lookup::{Asker, Looked};

pub use account_ops::{AccountOp, AccountOutcome, Cancel};
pub use chain::ChainStep;
pub use chain_legs::{ChainDecided, ChainLegStep};
pub use legs::{Decided, Ended, LegStep};
pub use moves::{Moved, Payee, TakenIn};
pub use reads::Read;
pub use stages::{Locked, Prepare, Prepared, Published, Reserved};

/// A worker's own end of the log.
pub type Writer = LogWriter;

/// All of the branch's state that a transfer can touch.
pub struct Engine {
    /// Which branch.
    pub branch: BranchId,
    /// Its accounts.
    pub accounts: Accounts,
    /// Its open holds.
    pub holds: Holds,
    /// Every transfer id that was ever used.
    pub ids: IdIndex,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine(branch {}, {:?}, {:?})", self.branch, self.accounts, self.holds)
    }
}

/// A transfer that was recorded: posted, or refused for good.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Where the record lies; the reply waits until it is durable.
    pub lsn: Lsn,
    /// Its time stamp.
    pub timestamp: Timestamp,
    /// What was moved.
    pub amount: Amount,
    /// Why nothing was moved.
    pub refusal: Option<Refusal>,
    /// Whether it is a leg that waits for the registry's decision.
    pub is_prepared: bool,
    /// The account that was debited, or would have been.
    pub debit_account_id: AccountId,
    /// The account that was credited, or would have been.
    pub credit_account_id: AccountId,
    /// The debit account's sums after it.
    pub debit: Sums,
    /// The credit account's sums after it.
    pub credit: Sums,
}

impl Done {
    /// What the record at `lsn` says.
    #[inline]
    fn of(lsn: Lsn, timestamp: Timestamp, transfer: &TransferRecord) -> Self {
        Self {
            lsn,
            timestamp,
            amount: transfer.amount,
            refusal: transfer.refusal,
            is_prepared: transfer.is_prepared(),
            debit_account_id: transfer.debit_account_id,
            credit_account_id: transfer.credit_account_id,
            debit: transfer.debit,
            credit: transfer.credit,
        }
    }
}

/// How far a transfer came.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Recorded.
    Done(Done),
    /// Refused without a trace.
    NotRecorded(Refusal),
    /// Another worker has the id in hand.
    InFlight,
    /// The disk has to be asked first: about the id, or about the reference.
    Lookup,
    /// An account of it has moved. Nothing was recorded.
    Moved(Moved),
}

impl Engine {
    /// Takes one transfer through all stages.
    #[inline]
    pub fn transfer(
        &self,
        writer: &mut Writer,
        wire: &message::Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Step {
        match Transfer::from_wire(wire, self.branch) {
            Ok(transfer) => self.carry_through(writer, transfer, asker, looked, now),
            Err(Refusal::WrongBranch) => self.transfer_of_guests(writer, wire, asker, looked, now),
            Err(refusal) => Step::NotRecorded(refusal),
        }
    }

    /// The same where accounts may be here whose ids name another branch.
    #[cold]
    fn transfer_of_guests(
        &self,
        writer: &mut Writer,
        wire: &message::Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Step {
        match Transfer::from_wire_with(wire, self.branch, self.guests_of(wire)) {
            Ok(transfer) => self.carry_through(writer, transfer, asker, looked, now),
            Err(refusal) => Step::NotRecorded(refusal),
        }
    }

    fn guests_of(&self, wire: &message::Transfer) -> Guests {
        let is_guest = |id: u128| self.is_guest(AccountId::new(id));
        Guests { debit: is_guest(wire.debit_account_id.get()), credit: is_guest(wire.credit_account_id.get()) }
    }

    /// Takes a transfer whose form is checked through all stages.
    ///
    /// The only caller of the stages for single transfers; they are inlined here by force, so that what one stage hands to
    /// the next is not copied through memory (measured: 300 to 400 bytes, six times for each transfer).
    #[inline]
    fn carry_through(
        &self,
        writer: &mut Writer,
        transfer: Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Step {
        let prepared = match self.prepare_formed(writer, transfer, asker, looked, now) {
            Prepare::Ready(prepared) => prepared,
            Prepare::NotRecorded(refusal) => return Step::NotRecorded(refusal),
            Prepare::InFlight => return Step::InFlight,
            Prepare::Lookup => return Step::Lookup,
        };
        match prepared.lock().decide_and_reserve(writer, now, clock::monotonic_nanos) {
            Ok(reserved) => Step::Done(reserved.publish().fill(writer)),
            Err(step) => step,
        }
    }

    /// Starts the cache misses that `transfers` will cause, in two rounds: the second round follows what
    /// the first one brought.
    #[inline]
    pub fn prefetch<'a, T: Iterator<Item = &'a message::Transfer>>(
        &self,
        transfers: impl Fn() -> T,
        looked_up: Option<&LookedUp>,
    ) {
        let guard = crossbeam::epoch::pin();
        let accounts = |transfer: &message::Transfer| {
            [transfer.debit_account_id.get(), transfer.credit_account_id.get()].map(AccountId::new)
        };
        for transfer in transfers() {
            self.ids.prefetch(TransferId::new(transfer.id.get()), looked_up);
            for id in accounts(transfer) {
                self.accounts.prefetch_index(self.accounts.hash(id), &guard);
            }
        }
        for transfer in transfers() {
            for id in accounts(transfer) {
                self.accounts.prefetch_slot(self.accounts.hash(id), &guard);
            }
        }
    }
}

/// What a full log means to a client.
fn refusal_of(full: LogFull) -> Refusal {
    match full {
        LogFull::Ring => Refusal::Busy,
        LogFull::Disk => Refusal::DiskFull,
    }
}
