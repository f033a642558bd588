//! How programs talk to a bank: a client library, a load generator, and a player of payment files.
//!
//! - [`Bank`] is the library: it finds the branch of each account, and has a [`Client`] for each: pooled, pipelined connections over TLS 1.3, retries that reuse the transfer's
//!   id, and an [`Outcome`] that never claims more than is known.
//! - [`load`] and [`replay`] are the tools `tally load` and `tally replay`. They share [`lane`], a cheaper way
//!   to keep many connections full from one thread.
//!
//! **Invariant:** nothing here decides what a transfer does; it only says what the branch answered, or that it
//! is not known what the branch did.

mod bank;
mod bulk;
mod client;
mod connect_file;
mod connect_info;
mod connection;
mod dial;
mod directory;
mod error;
mod feed;
mod inbound;
mod outcome;
mod output;
mod pool;
mod random;
mod requests;
mod retry;
mod slots;
mod tls;
mod transfer_id;
mod transfers;

pub mod cli;
pub mod lane;
pub mod load;
pub mod replay;

pub use bank::Bank;
pub use client::{Client, ClientOptions};
pub use connect_file::{
    ConnectFile, ConnectFileAccount, ConnectFileBranch, ConnectFileNode, ConnectFileRegistry, ConnectFileUser,
};
pub use connect_info::{ConnectInfo, Credentials};
pub use dial::{Dialed, Dialer, Session};
pub use directory::{BranchRoute, Routes};
pub use error::{ConnectError, LostReason, Refused, RequestError};
pub use feed::{FeedPage, FeedReader};
pub use outcome::{Cancelled, ChainOutcome, Final, ItemOutcome, Outcome, Receipt, Resolution, UnknownReason};
pub use random::Random;
pub use retry::RetryPolicy;
pub use transfer_id::next_transfer_id;
pub use transfers::{Between, CODE_DEFAULT, Money, Overdraft, customer_account};
