//! Reads: without a lock, and answered only when the last record that they show is durable.

use tally_ledger::wire::{NO_SUMS, recorded_reply, sums_message};
use tally_ledger::{Account, Actor, Sums, is_here, may_read};
use tally_protocol::message::{self, Role, transfer_flags};
use tally_protocol::{AccountId, Refusal};

use super::{Done, Engine};
use crate::lookup::Asker;
use crate::replies::ReplyBody;

/// What a read found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Read {
    /// The account at one instant; its `lsn` is the reply's gate.
    Found(Account),
    /// Why there is nothing to show.
    Refused(Refusal),
}

impl Engine {
    /// An account, for whoever may see it.
    pub fn read(&self, id: AccountId, actor: Actor) -> Read {
        if id.branch() != self.branch && !self.is_guest(id) {
            return Read::Refused(Refusal::WrongBranch);
        }
        let Some(slot) = self.accounts.find(id) else {
            // Who may not see an account may not learn whether it exists either, but ids are no secret:
            // the payer has to know the payee's.
            return Read::Refused(Refusal::AccountNotFound);
        };
        let account = slot.read();
        if let Err(refusal) = is_here(&account) {
            return Read::Refused(refusal);
        }
        if !may_read(&actor, &account) {
            return Read::Refused(Refusal::NotPermitted);
        }
        Read::Found(account)
    }

    /// Whether the actor may see this account, and with it every transfer on it.
    pub fn may_read(&self, actor: &Actor, id: AccountId) -> bool {
        actor.role != Role::Customer || self.accounts.find(id).is_some_and(|slot| may_read(actor, &slot.read()))
    }

    /// The reply to a transfer that was recorded just now.
    #[inline]
    pub fn transfer_body(&self, wire: &message::Transfer, done: &Done, asker: &Asker) -> ReplyBody {
        let wanted = wire.flags.get() & transfer_flags::WANT_BALANCES != 0;
        let balances = wanted.then(|| {
            [
                self.sums_for(&asker.actor, done.debit_account_id, &done.debit),
                self.sums_for(&asker.actor, done.credit_account_id, &done.credit),
            ]
        });
        let reply = recorded_reply(done.amount, done.refusal, (done.lsn, done.timestamp), false);
        ReplyBody::Transfer { reply, balances }
    }

    /// An account's sums after a transfer for one of its parties: zeros where the account is not theirs to see.
    pub fn sums_for(&self, actor: &Actor, id: AccountId, sums: &Sums) -> message::Sums {
        if self.may_read(actor, id) { sums_message(sums) } else { NO_SUMS }
    }
}
