//! What a client has asked for: kept for ever, so that records and replies can be traced back to it.

use bytes::Bytes;
use tally_branch_server::intake::Op;
use tally_ledger::Actor;
use tally_protocol::message;
use tally_protocol::{AccountId, Lsn, TransferId};
use zerocopy::IntoBytes;

use crate::model::AccountAsk;

/// What was asked.
#[derive(Clone, Debug)]
pub enum Asked {
    /// One transfer.
    Transfer(message::Transfer),
    /// All or nothing.
    Chain(Vec<message::Transfer>),
    /// One after the other, with chains in it.
    Batch(Vec<message::Transfer>),
    /// Accounts to open.
    Open(Vec<message::AccountOpen>),
    /// Another change of one account.
    Change(AccountAsk),
    /// Burn an id.
    Cancel(TransferId),
    /// Read a balance.
    Balance(AccountId),
    /// Read an account.
    Account(AccountId),
    /// Read what became of an id.
    Find(TransferId),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// On whose behalf.
    pub actor: Actor,
    /// Monotonic nanoseconds; 0 for none.
    pub deadline: u64,
    /// What was asked.
    pub asked: Asked,
    /// What the client already knew when it asked.
    pub knew: Knew,
    /// Whether it was answered.
    pub is_answered: bool,
}

/// What somebody had been told before a request was sent: the answer must not be older.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knew {
    /// The newest record of the account in question.
    pub account_lsn: Lsn,
    /// The id in question is used.
    pub id_is_used: bool,
    /// The id in question came to its end.
    pub id_has_ended: bool,
}

impl Asked {
    /// As the session hands it to the intake.
    pub fn to_op(&self) -> Op {
        match self {
            Self::Transfer(transfer) => Op::Transfer(*transfer),
            Self::Chain(transfers) => Op::Chain(Bytes::copy_from_slice(transfers.as_bytes())),
            Self::Batch(transfers) => Op::Batch(Bytes::copy_from_slice(transfers.as_bytes())),
            Self::Open(opens) => Op::OpenAccounts(Bytes::copy_from_slice(opens.as_bytes())),
            Self::Change(AccountAsk::Open(open)) => Op::OpenAccounts(Bytes::copy_from_slice(open.as_bytes())),
            Self::Change(AccountAsk::Close(id)) => Op::CloseAccount(AccountId::new(*id)),
            Self::Change(AccountAsk::Freeze(id)) => Op::FreezeAccount(AccountId::new(*id)),
            Self::Change(AccountAsk::Unfreeze(id)) => Op::UnfreezeAccount(AccountId::new(*id)),
            Self::Change(AccountAsk::SetLimits(limits)) => Op::SetLimits(*limits),
            Self::Cancel(id) => Op::CancelId(*id),
            Self::Balance(id) => Op::GetBalance(*id),
            Self::Account(id) => Op::GetAccount(*id),
            Self::Find(id) => Op::GetTransfer(*id),
        }
    }

    /// The transfers in it.
    pub fn transfers(&self) -> &[message::Transfer] {
        match self {
            Self::Transfer(transfer) => std::slice::from_ref(transfer),
            Self::Chain(transfers) | Self::Batch(transfers) => transfers,
            Self::Open(_) | Self::Change(_) | Self::Cancel(_) | Self::Balance(_) | Self::Account(_) | Self::Find(_) => {
                &[]
            }
        }
    }

    /// A few words for the trace.
    pub fn words(&self) -> String {
        let transfer = |t: &message::Transfer| {
            format!(
                "kind {} id {:x} {:x}->{:x} ref {:x} amount {} flags {:x}",
                t.kind,
                t.id.get(),
                short(t.debit_account_id.get()),
                short(t.credit_account_id.get()),
                t.reference.get(),
                t.amount.get(),
                t.flags.get()
            )
        };
        match self {
            Self::Transfer(one) => transfer(one),
            Self::Chain(all) => format!("chain of {}: {}", all.len(), all.first().map(transfer).unwrap_or_default()),
            Self::Batch(all) => format!("batch of {}: {}", all.len(), all.first().map(transfer).unwrap_or_default()),
            Self::Open(opens) => {
                let ids: Vec<String> = opens.iter().map(|open| format!("{:x}", short(open.id.get()))).collect();
                format!("open {}", ids.join(" "))
            }
            Self::Change(AccountAsk::Open(open)) => format!("open {:x}", short(open.id.get())),
            Self::Change(AccountAsk::Close(id)) => format!("close {:x}", short(*id)),
            Self::Change(AccountAsk::Freeze(id)) => format!("freeze {:x}", short(*id)),
            Self::Change(AccountAsk::Unfreeze(id)) => format!("unfreeze {:x}", short(*id)),
            Self::Change(AccountAsk::SetLimits(limits)) => format!(
                "limits {:x} overdraft {} day {}",
                short(limits.id.get()),
                limits.overdraft.get(),
                limits.day_limit.get()
            ),
            Self::Cancel(id) => format!("cancel {:x}", id.get()),
            Self::Balance(id) => format!("balance {:x}", short(id.get())),
            Self::Account(id) => format!("account {:x}", short(id.get())),
            Self::Find(id) => format!("find {:x}", id.get()),
        }
    }
}

/// An account's id without its branch, for the trace.
pub fn short(id: u128) -> u128 {
    id & ((1 << 112) - 1)
}
