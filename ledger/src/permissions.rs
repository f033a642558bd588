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
//!   close an account by a hold      -        x        -       x
//!   import accounts, transfers      -        -        -       x      writes history
//!   cancel an id                    x        x        -       x
//!   balance, account, transfer     own       x        x       x
//!   feed                            -        x        x       x      shows every customer's payments
//! ```

use tally_protocol::message::{self, Role, TransferKind, account_flags, transfer_flags};
use tally_protocol::{CustomerId, Refusal};

use crate::account::Account;
use crate::actor::Actor;
use crate::transfer::{RARE, Transfer};

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
    if transfer.has(RARE) {
        permit_rare(role, transfer)?;
    }
    let names_house = transfer.debit_account_id.is_house() || transfer.credit_account_id.is_house();
    if role == Role::Customer && names_house { Err(Refusal::NotPermitted) } else { Ok(()) }
}

/// Closing an account is no customer's business, by a hold either; and history is written by admins only.
#[cold]
const fn permit_rare(role: Role, transfer: &Transfer) -> Result<(), Refusal> {
    let is_imported = transfer.has(transfer_flags::IMPORTED);
    match role {
        Role::Admin => Ok(()),
        Role::Teller if !is_imported => Ok(()),
        Role::Teller | Role::Customer | Role::Auditor => Err(Refusal::NotPermitted),
    }
}

/// Whether a role that may open accounts ([`Action::ChangeAccount`]) may open this one.
///
/// # Errors
/// `NotPermitted`.
pub fn permit_opening(role: Role, open: &message::AccountOpen) -> Result<(), Refusal> {
    let is_imported = open.flags.get() & account_flags::IMPORTED != 0;
    if is_imported && role != Role::Admin { Err(Refusal::NotPermitted) } else { Ok(()) }
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
    use tally_protocol::{AccountId, BranchId};
    use zerocopy::FromZeros;

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
    fn staff_close_by_holds_and_admins_import() {
        let hold = |flags: u16| {
            let wire = message::Transfer {
                id: 1.into(),
                debit_account_id: AccountId::of_branch(BranchId::new(1), 1).get().into(),
                credit_account_id: AccountId::of_branch(BranchId::new(1), 2).get().into(),
                amount: 5.into(),
                user_data_64: 7.into(),
                currency: 978.into(),
                code: 1.into(),
                flags: flags.into(),
                kind: TransferKind::Hold as u8,
                ..message::Transfer::new_zeroed()
            };
            Transfer::from_wire(&wire, BranchId::new(1)).expect("well formed")
        };
        let open = |flags: u16| message::AccountOpen { flags: flags.into(), ..message::AccountOpen::new_zeroed() };
        for role in [Role::Customer, Role::Teller, Role::Auditor, Role::Admin] {
            let is_admin = role == Role::Admin;
            let may = |flags| permit_transfer(role, &hold(flags)).is_ok();
            assert_eq!(may(0), role != Role::Auditor, "{role:?}");
            for flags in [transfer_flags::CLOSING_DEBIT, transfer_flags::CLOSING_CREDIT] {
                assert_eq!(may(flags), is_admin || role == Role::Teller, "{role:?} closes");
            }
            assert_eq!(may(transfer_flags::IMPORTED), is_admin, "{role:?} imports");
            assert_eq!(may(transfer_flags::IMPORTED | transfer_flags::CLOSING_DEBIT), is_admin, "{role:?} does both");
            assert_eq!(permit_opening(role, &open(account_flags::IMPORTED)).is_ok(), is_admin, "{role:?} imports");
            assert!(permit_opening(role, &open(account_flags::OPENED_FROZEN)).is_ok(), "{role:?}");
        }
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
