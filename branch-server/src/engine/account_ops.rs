//! Changing accounts, and burning transfer ids.

use tally_journal::Reservation;
use tally_ledger::journal::record::{AccountChange, RECORD_LEN_BYTES_MAX, Record, RecordBody};
use tally_ledger::wire::item_result;
use tally_ledger::{Account, Actor, close_account, freeze_account, set_limits, unfreeze_account};
use tally_protocol::message::{self, MessageType};
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp, TransferId};

use super::{Engine, Writer, refusal_of};
use crate::ids::{LookedUp, Reserve};

/// What is done to an account.
#[derive(Clone, Copy, Debug)]
pub enum AccountOp {
    /// Close it for good.
    Close,
    /// Let it take no transfers.
    Freeze,
    /// Let it take transfers again.
    Unfreeze,
    /// Give it other limits.
    SetLimits(message::LimitsSet),
}

impl AccountOp {
    /// The type of the reply.
    pub const fn reply_type(&self) -> MessageType {
        match self {
            Self::Close => MessageType::CloseAccountReply,
            Self::Freeze => MessageType::FreezeAccountReply,
            Self::Unfreeze => MessageType::UnfreezeAccountReply,
            Self::SetLimits(_) => MessageType::SetLimitsReply,
        }
    }

    fn change(&self) -> AccountChange {
        match self {
            Self::Close => AccountChange::Closed,
            Self::Freeze => AccountChange::Frozen,
            Self::Unfreeze => AccountChange::Unfrozen,
            Self::SetLimits(_) => AccountChange::LimitsSet,
        }
    }
}

/// What became of an operation on an account.
#[derive(Clone, Copy, Debug)]
pub enum AccountOutcome {
    /// Done, at this time; or done before, when it was repeated.
    Done {
        /// What the reply waits for.
        gate: Lsn,
        /// The ledger's time of it.
        timestamp: Timestamp,
        /// The account was there already, just so.
        repeated: bool,
    },
    /// Refused because of what the account is.
    Refused {
        /// What the reply waits for: the record that made the account what it is.
        gate: Lsn,
        /// Why.
        refusal: Refusal,
    },
    /// Not taken at all.
    NotTaken(Refusal),
}

impl AccountOutcome {
    /// The answer about the account, and what it waits for.
    pub fn item(self) -> (Lsn, message::ItemResult) {
        match self {
            Self::Done { gate, timestamp, repeated } => (gate, item_result(None, timestamp, repeated)),
            Self::Refused { gate, refusal } => (gate, item_result(Some(refusal), Timestamp::default(), false)),
            Self::NotTaken(refusal) => (Lsn::ZERO, item_result(Some(refusal), Timestamp::default(), false)),
        }
    }
}

/// What became of burning an id.
#[derive(Clone, Copy, Debug)]
pub enum Cancel {
    /// Burnt.
    Done {
        /// What the reply waits for.
        lsn: Lsn,
        /// The ledger's time of it.
        timestamp: Timestamp,
    },
    /// The id was used, or may have been, since the disk was asked.
    AskAgain,
    /// Not taken.
    Refused(Refusal),
}

impl Engine {
    /// Changes an account.
    pub fn change_account(
        &self,
        writer: &mut Writer,
        id: AccountId,
        op: AccountOp,
        actor: Actor,
        now: Timestamp,
    ) -> AccountOutcome {
        if id.branch() != self.branch && !self.is_guest(id) {
            return AccountOutcome::NotTaken(Refusal::WrongBranch);
        }
        if let Err(full) = writer.secure(RECORD_LEN_BYTES_MAX as u64) {
            return AccountOutcome::NotTaken(refusal_of(full));
        }
        let locked = self.accounts.find(id).map(|slot| slot.lock());
        let existing = locked.as_ref().map(|locked| locked.load_all());
        let gate = existing.as_ref().map_or(Lsn::ZERO, |account| account.lsn);
        let after = match &op {
            AccountOp::Close => close_account(existing.as_ref()),
            AccountOp::Freeze => freeze_account(existing.as_ref()),
            AccountOp::Unfreeze => unfreeze_account(existing.as_ref()),
            AccountOp::SetLimits(limits) => set_limits(limits, existing.as_ref()),
        };
        let mut account = match after {
            Ok(account) => account,
            Err(refusal @ (Refusal::AccountMoved | Refusal::AccountMoving)) => {
                return AccountOutcome::NotTaken(refusal);
            }
            Err(refusal) => return AccountOutcome::Refused { gate, refusal },
        };
        let reservation = writer.reserve(RecordBody::account_len_bytes(op.change()) as u64, 1, now);
        (account.lsn, account.timestamp) = (reservation.lsn(), reservation.timestamp());
        locked.expect("it was found").publish_all(&account);
        fill(writer, reservation, actor, op.change(), account)
    }

    /// Burns an id that the disk does not know.
    pub fn cancel(
        &self,
        writer: &mut Writer,
        id: TransferId,
        looked_up: &LookedUp,
        actor: Actor,
        now: Timestamp,
    ) -> Cancel {
        let body = RecordBody::Cancelled(id);
        let len_bytes = body.len_bytes();
        if let Err(full) = writer.secure(len_bytes as u64) {
            return Cancel::Refused(refusal_of(full));
        }
        match self.ids.reserve_looked_up(id, looked_up) {
            Reserve::New => {}
            Reserve::InFlight | Reserve::Known(_) | Reserve::MaybeOld => return Cancel::AskAgain,
            Reserve::Full => return Cancel::Refused(Refusal::Busy),
        }
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let (lsn, timestamp) = (reservation.lsn(), reservation.timestamp());
        self.ids.finish(id, lsn);
        let record = Record { lsn, timestamp, actor: actor.customer, body };
        writer.fill(reservation, |space| record.encode_into(space));
        Cancel::Done { lsn, timestamp }
    }
}

fn fill(
    writer: &mut Writer,
    reservation: Reservation,
    actor: Actor,
    change: AccountChange,
    account: Account,
) -> AccountOutcome {
    let (lsn, timestamp) = (account.lsn, account.timestamp);
    let record = Record { lsn, timestamp, actor: actor.customer, body: RecordBody::Account(change, account) };
    writer.fill(reservation, |space| record.encode_into(space));
    AccountOutcome::Done { gate: lsn, timestamp, repeated: false }
}
