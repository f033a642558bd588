//! Which role may send which message: what each message asks for, looked up in the ledger's table of rights.

use tally_ledger::{Action, permit};
use tally_protocol::MessageType;
use tally_protocol::message::{Role, TransferKind};

/// Whether a session of `role` may send `message_type`. Replies are never sent by a client.
pub const fn permits(role: Role, message_type: MessageType) -> bool {
    let action = match message_type {
        MessageType::Hello
        | MessageType::Login
        | MessageType::Ping
        | MessageType::GetStatus
        | MessageType::GetRoutes => return true,
        // Some kind, at least; which ones is [`permits_kind`].
        MessageType::Transfer | MessageType::Chain | MessageType::Batch => Action::Transfer(TransferKind::Transfer),
        MessageType::CancelId => Action::CancelId,
        MessageType::GetBalance | MessageType::GetAccount | MessageType::GetTransfer => Action::Read,
        MessageType::ReadFeed => Action::ReadFeed,
        MessageType::OpenAccounts
        | MessageType::CloseAccount
        | MessageType::FreezeAccount
        | MessageType::UnfreezeAccount
        | MessageType::SetLimits => Action::ChangeAccount,
        MessageType::HelloReply
        | MessageType::LoginReply
        | MessageType::Pong
        | MessageType::StatusReply
        | MessageType::RoutesReply
        | MessageType::OpenAccountsReply
        | MessageType::CloseAccountReply
        | MessageType::FreezeAccountReply
        | MessageType::UnfreezeAccountReply
        | MessageType::SetLimitsReply
        | MessageType::TransferReply
        | MessageType::ChainReply
        | MessageType::BatchReply
        | MessageType::CancelIdReply
        | MessageType::BalanceReply
        | MessageType::AccountReply
        | MessageType::TransferFoundReply
        | MessageType::FeedPage
        | MessageType::Refused => return false,
    };
    permit(role, action).is_ok()
}

/// Whether a session of `role` that may send transfers may send one of `kind`.
pub const fn permits_kind(role: Role, kind: TransferKind) -> bool {
    permit(role, Action::Transfer(kind)).is_ok()
}

// Evaluated while compiling, so a request type that does not fit cannot be added unnoticed.
const _: Permissions = Permissions::of(Role::Admin);

/// A role's rights, looked up once at login so that a payment costs two bit tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Bit `n` for the request type `n`; every request type is below 128.
    types: u128,
    /// Bit `n` for the transfer kind with wire value `n`. Unknown kinds pass: the ledger refuses them by
    /// a better name.
    kinds: u16,
}

impl Permissions {
    /// The rights of a role.
    pub const fn of(role: Role) -> Self {
        let mut types = 0;
        let mut index = 0;
        while index < MessageType::ALL.len() {
            let message_type = MessageType::ALL[index];
            if permits(role, message_type) {
                assert!((message_type as u16) < 128, "a request type fits the set");
                types |= 1 << message_type as u16;
            }
            index += 1;
        }
        let mut kinds = 0;
        let mut raw = 0;
        while raw < 16 {
            let permitted = match TransferKind::from_wire(raw) {
                Some(kind) => permits_kind(role, kind),
                None => true,
            };
            if permitted {
                kinds |= 1 << raw;
            }
            raw += 1;
        }
        Self { types, kinds }
    }

    /// Whether this request type may be sent; replies never.
    pub const fn permits(self, message_type: MessageType) -> bool {
        let code = message_type as u16;
        code < 128 && self.types >> code & 1 != 0
    }

    /// Whether a transfer with this raw kind may be sent.
    pub const fn permits_kind(self, raw_kind: u8) -> bool {
        raw_kind >= 16 || self.kinds >> raw_kind & 1 != 0
    }

    /// Whether there is any kind that may not be sent, so that batches have to be looked through.
    pub const fn permits_every_kind(self) -> bool {
        self.kinds == u16::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 4] = [Role::Customer, Role::Teller, Role::Auditor, Role::Admin];

    /// One line per request: who may send it, in the order of `ROLES`.
    #[test]
    fn the_table() {
        use MessageType::*;
        let table = [
            (Hello, "ctua"),
            (Login, "ctua"),
            (Ping, "ctua"),
            (GetStatus, "ctua"),
            (GetRoutes, "ctua"),
            (OpenAccounts, ".t.a"),
            (CloseAccount, ".t.a"),
            (FreezeAccount, ".t.a"),
            (UnfreezeAccount, ".t.a"),
            (SetLimits, ".t.a"),
            (Transfer, "ct.a"),
            (Chain, "ct.a"),
            (Batch, "ct.a"),
            (CancelId, "ct.a"),
            (GetBalance, "ctua"),
            (GetAccount, "ctua"),
            (GetTransfer, "ctua"),
            (ReadFeed, ".tua"),
        ];
        for &message_type in MessageType::ALL {
            let line = table.iter().find(|(listed, _)| *listed == message_type).map_or("....", |&(_, line)| line);
            for (role, may) in ROLES.into_iter().zip(line.chars()) {
                let expected = may != '.';
                assert_eq!(permits(role, message_type), expected, "{role:?} {message_type:?}");
                assert_eq!(Permissions::of(role).permits(message_type), expected, "{role:?} {message_type:?}");
            }
        }
    }

    #[test]
    fn cash_goes_over_the_counter_only() {
        for (kind, may) in [
            (TransferKind::Transfer, true),
            (TransferKind::Deposit, false),
            (TransferKind::Withdraw, false),
            (TransferKind::Hold, true),
            (TransferKind::Settle, true),
            (TransferKind::Void, true),
            (TransferKind::Reverse, true),
        ] {
            assert_eq!(Permissions::of(Role::Customer).permits_kind(kind as u8), may, "{kind:?}");
            assert!(Permissions::of(Role::Teller).permits_kind(kind as u8));
        }
        assert!(Permissions::of(Role::Teller).permits_every_kind());
        assert!(!Permissions::of(Role::Customer).permits_every_kind());
        assert!(Permissions::of(Role::Customer).permits_kind(99), "left to the ledger, which names it");
    }
}
