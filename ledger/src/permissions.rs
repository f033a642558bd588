//! What each role may ask for at all: the only table of rights. Whose accounts a customer may touch is a rule of the
//! ledger (`NotOwner`) and is checked with the accounts at hand; this table needs only the session.
//!
//! ```text
//!                                customer  teller  auditor  admin
//!   transfer, hold, settle,
//!   void, reverse                  own       x        -       x
//!   deposit, withdraw               -        x        -       x      cash changes hands at the till
//!   name one of the bank's own
//!   accounts in a transfer          -        x        -       x      or the till could be reached around that
//!   open, close, freeze,
//!   unfreeze, set limits            -        x        -       x
//!   cancel an id                    x        x        -       x
//!   balance, account, transfer     own       x        x       x
//!   feed                            -        x        x       x      shows every customer's payments
//! ```

use tally_protocol::message::{Role, TransferKind};
use tally_protocol::{CustomerId, Refusal};

use crate::account::Account;
use crate::actor::Actor;
use crate::transfer::Transfer;

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
        (Role::Admin | Role::Teller, _) => true,
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

/// The same for a transfer that is well formed, before anything is looked up.
///
/// # Errors
/// `NotPermitted`, which leaves no trace: the id stays free.
pub fn permit_transfer(role: Role, transfer: &Transfer) -> Result<(), Refusal> {
    permit(role, Action::Transfer(transfer.kind))?;
    let names_house = transfer.debit_account_id.is_house() || transfer.credit_account_id.is_house();
    if role == Role::Customer && names_house { Err(Refusal::NotPermitted) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The table at the top of this file, cell by cell: customer, teller, auditor, admin.
    #[test]
    fn each_role_may_what_the_table_says() {
        const ROLES: [Role; 4] = [Role::Customer, Role::Teller, Role::Auditor, Role::Admin];
        let own = [
            TransferKind::Transfer,
            TransferKind::Hold,
            TransferKind::Settle,
            TransferKind::Void,
            TransferKind::Reverse,
        ];
        let till = [TransferKind::Deposit, TransferKind::Withdraw];
        let rows = own
            .map(|kind| (Action::Transfer(kind), [true, true, false, true]))
            .into_iter()
            .chain(till.map(|kind| (Action::Transfer(kind), [false, true, false, true])))
            .chain([
                (Action::ChangeAccount, [false, true, false, true]),
                (Action::CancelId, [true, true, false, true]),
                (Action::Read, [true, true, true, true]),
                (Action::ReadFeed, [false, true, true, true]),
            ]);
        for (action, expected) in rows {
            let actual = ROLES.map(|role| permit(role, action).is_ok());
            assert!(actual == expected, "{action:?}: {actual:?}");
        }
        assert!(!Refusal::NotPermitted.consumes_id(), "what a role may not ask leaves the id free");
    }

    #[test]
    fn a_customer_sees_own_accounts_and_the_bank_s_number_opens_nothing() {
        let actor = |role, customer| Actor { role, customer: CustomerId::new(customer) };
        let till = crate::cash_account(
            tally_protocol::BranchId::new(1),
            tally_protocol::Currency::EUR,
            tally_protocol::Timestamp::default(),
        );
        let theirs = Account { owner: CustomerId::new(7), ..till.clone() };
        for (actor, account, expected) in [
            (actor(Role::Customer, 7), &theirs, true),
            (actor(Role::Customer, 8), &theirs, false),
            (actor(Role::Customer, 0), &till, false),
            (actor(Role::Auditor, 0), &theirs, true),
            (actor(Role::Teller, 9), &till, true),
            (actor(Role::Admin, 9), &theirs, true),
        ] {
            assert!(may_read(&actor, account) == expected, "{actor:?} reads an account of {:?}", account.owner);
        }
    }
}
