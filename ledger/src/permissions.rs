//! What each role may ask for at all. Whose accounts a customer may touch is a rule of the ledger
//! (`NotOwner`) and is checked with the accounts at hand; this table needs only the session.
//!
//! ```text
//!                                customer  teller  auditor  admin
//!   transfer, hold, settle,
//!   void, reverse                  own       x        -       x
//!   deposit, withdraw               -        x        -       x      cash changes hands at the till
//!   open, close, freeze,
//!   unfreeze, set limits            -        x        -       x
//!   cancel an id                    x        x        -       x
//!   balance, account, transfer     own       x        x       x
//!   feed                            -        -        x       x      shows every customer's payments
//! ```

use tally_protocol::message::{Role, TransferKind};
use tally_protocol::{CustomerId, Refusal};

use crate::account::Account;
use crate::actor::Actor;

/// Something that a session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A transfer of this kind, alone or in a chain or batch.
    Transfer(TransferKind),
    /// Open, close, freeze or unfreeze an account, or set its limits.
    ChangeAccount,
    /// Burn a transfer id.
    CancelId,
    /// Read a balance, an account or a transfer.
    Read,
    /// Read the feed of all outcomes.
    ReadFeed,
}

/// Whether a role may ask for it.
///
/// # Errors
/// `NotPermitted`, which leaves no trace: the id stays free.
pub const fn permit(role: Role, action: Action) -> Result<(), Refusal> {
    let permitted = match (role, action) {
        (Role::Admin, _) => true,
        (Role::Teller, Action::ReadFeed) => false,
        (Role::Teller, Action::Transfer(_) | Action::ChangeAccount | Action::CancelId | Action::Read) => true,
        (Role::Auditor, Action::Read | Action::ReadFeed) => true,
        (Role::Auditor, Action::Transfer(_) | Action::ChangeAccount | Action::CancelId) => false,
        (Role::Customer, Action::Transfer(kind)) => match kind {
            TransferKind::Deposit | TransferKind::Withdraw => false,
            TransferKind::Transfer
            | TransferKind::Hold
            | TransferKind::Settle
            | TransferKind::Void
            | TransferKind::Reverse => true,
        },
        (Role::Customer, Action::CancelId | Action::Read) => true,
        (Role::Customer, Action::ChangeAccount | Action::ReadFeed) => false,
    };
    if permitted { Ok(()) } else { Err(Refusal::NotPermitted) }
}

/// Whether the actor may see this account, and with it every transfer on it.
pub fn may_read(actor: &Actor, account: &Account) -> bool {
    match actor.role {
        Role::Teller | Role::Auditor | Role::Admin => true,
        Role::Customer => owns(actor, account.owner),
    }
}

/// Whether a customer's session acts for `owner`. Customer 0 is the bank: a session without a number must
/// not act for it.
pub(crate) fn owns(actor: &Actor, owner: CustomerId) -> bool {
    owner == actor.customer && actor.customer != CustomerId::BANK
}
