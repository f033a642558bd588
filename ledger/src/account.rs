//! An account: who owns it, what bounds it, and the four sums from which its balance is derived.

use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Timestamp};

/// Running sums that only ever add up; the balance is derived.
///
/// Invariants, in a valid account: `debits_held + debits_posted` and `credits_held + credits_posted`
/// each fit in 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Reserved by open holds that would debit this account.
    pub debits_held: Amount,
    /// Posted.
    pub debits_posted: Amount,
    /// Reserved by open holds that would credit this account.
    pub credits_held: Amount,
    /// Posted.
    pub credits_posted: Amount,
}

/// One account, as a plain value. The rules work on copies; the shell publishes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id; the top 16 bits name the home branch.
    pub id: AccountId,
    /// Who may debit it.
    pub owner: CustomerId,
    /// The client's own.
    pub user_data_128: u128,
    /// The client's own.
    pub user_data_64: u64,
    /// The client's own.
    pub user_data_32: u32,
    /// What it is counted in.
    pub currency: Currency,
    /// The client's own class of account.
    pub code: u16,
    /// [`tally_protocol::message::account_flags`].
    pub flags: u16,
    /// What it is for.
    pub kind: AccountKind,
    /// Whether it takes part in transfers.
    pub status: AccountStatus,
    /// How far debits may exceed posted credits, where the flags limit debits.
    pub overdraft: Amount,
    /// The most debits on one day; [`Amount::MAX`] for no limit.
    pub day_limit: Amount,
    /// Debits posted or held on `day`.
    pub day_spent: Amount,
    /// The day that `day_spent` counts, since 1970-01-01 UTC.
    pub day: u32,
    /// The running sums.
    pub sums: Sums,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The last record that touched it.
    pub lsn: Lsn,
    /// The time stamp of that record.
    pub timestamp: Timestamp,
}
