//! Accounts on the wire: opening them, their limits, and what is read of them.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

/// Bits of [`AccountOpen::flags`].
pub mod account_flags {
    /// Debits, held ones included, may exceed posted credits by no more than the overdraft.
    pub const DEBITS_LIMITED: u16 = 1 << 0;
    /// Credits, held ones included, may not exceed posted debits.
    pub const CREDITS_LIMITED: u16 = 1 << 1;
    /// The account was opened elsewhere at the time in `user_data_64` (nanoseconds since 1970-01-01 UTC), which
    /// becomes its `opened_at`. All accounts of a request are imported, or none; for admins.
    pub const IMPORTED: u16 = 1 << 2;
    /// Opened frozen.
    pub const OPENED_FROZEN: u16 = 1 << 3;
    /// Opened closed: the id is taken, and no account with another meaning will ever have it.
    pub const OPENED_CLOSED: u16 = 1 << 4;
    /// Set by the bank: the account has been moved from one branch to another, once or more often.
    pub const HAS_MOVED: u16 = 1 << 14;
    /// Joined to the next account of the request: all of the chain are opened, or none. Says nothing about the
    /// account itself and is not kept.
    pub const LINKED: u16 = 1 << 15;
    /// Every bit that a client may set.
    pub const ALL: u16 = DEBITS_LIMITED | CREDITS_LIMITED | IMPORTED | OPENED_FROZEN | OPENED_CLOSED | LINKED;
}

wire! {
    /// Behind the id of a look-up: it is to show everything that has this stamp or an earlier one.
    ReadAfter 8 {
        /// A time stamp that any branch of the bank has given out.
        0 stamp: U64,
    }
}

wire! {
    /// Names an account.
    AccountRef 16 {
        /// Its id.
        0 id: U128,
    }
}

wire! {
    /// An account to open.
    AccountOpen 80 {
        /// Chosen by the client; the top 16 bits name this branch.
        0 id: U128,
        /// The client's own.
        16 user_data_128: U128,
        /// [`crate::CustomerId`]; 0 for the bank.
        32 owner: U64,
        /// The client's own.
        40 user_data_64: U64,
        /// How far debits may exceed credits, in minor units, where `DEBITS_LIMITED` is set.
        48 overdraft: U64,
        /// The most debits in one day (UTC), in minor units; all ones for no limit.
        56 day_limit: U64,
        /// The client's own.
        64 user_data_32: U32,
        /// ISO 4217 numeric.
        68 currency: U16,
        /// The client's own class of account, not 0.
        70 code: U16,
        /// [`account_flags`].
        72 flags: U16,
        /// [`crate::AccountKind`].
        74 kind: u8,
        /// Must be 0.
        75 reserved: [u8; 5],
    }
}

wire! {
    /// New limits of an account.
    LimitsSet 32 {
        /// The account.
        0 id: U128,
        /// As in [`AccountOpen`].
        16 overdraft: U64,
        /// As in [`AccountOpen`].
        24 day_limit: U64,
    }
}

wire! {
    /// An account's four running sums, in minor units. Balance = credits - debits.
    Sums 32 {
        /// Held, not yet posted.
        0 debits_held: U64,
        /// Posted.
        8 debits_posted: U64,
        /// Held, not yet posted.
        16 credits_held: U64,
        /// Posted.
        24 credits_posted: U64,
    }
}

wire! {
    /// An account's balance at one instant.
    Balance 88 {
        /// The account.
        0 id: U128,
        /// The four sums.
        16 sums: Sums,
        /// What can be debited now under the limit; all ones where there is none.
        48 available: U64,
        /// The position of the last record that touched the account; durable before this was sent.
        56 lsn: U64,
        /// The ledger's time stamp of that record.
        64 timestamp: U64,
        /// How far debits may exceed credits.
        72 overdraft: U64,
        /// ISO 4217 numeric.
        80 currency: U16,
        /// [`crate::AccountStatus`].
        82 status: u8,
        /// 0.
        83 reserved: [u8; 5],
    }
}

wire! {
    /// All about an account.
    Account 160 {
        /// What it was opened with; limits as they are now.
        0 open: AccountOpen,
        /// The four sums.
        80 sums: Sums,
        /// Debits posted or held on `day`.
        112 day_spent: U64,
        /// When it was opened, in nanoseconds.
        120 opened_at: U64,
        /// The position of the last record that touched the account.
        128 lsn: U64,
        /// The ledger's time stamp of that record.
        136 timestamp: U64,
        /// The day that `day_spent` counts, since 1970-01-01 UTC.
        144 day: U32,
        /// [`crate::AccountStatus`].
        148 status: u8,
        /// 0.
        149 reserved: [u8; 11],
    }
}
