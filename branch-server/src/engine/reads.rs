//! Reads: without a lock, and answered only when the last record that they show is durable.

use tally_ledger::{Account, Actor};
use tally_protocol::message::Role;
use tally_protocol::{AccountId, Refusal};

use super::Engine;

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
        if id.branch() != self.branch {
            return Read::Refused(Refusal::WrongBranch);
        }
        let Some(slot) = self.accounts.find(id) else {
            // Who may not see an account may not learn whether it exists either, but ids are no secret:
            // the payer has to know the payee's.
            return Read::Refused(Refusal::AccountNotFound);
        };
        let account = slot.read();
        if actor.role == Role::Customer && account.owner != actor.customer {
            return Read::Refused(Refusal::NotPermitted);
        }
        Read::Found(account)
    }
}
