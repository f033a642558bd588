//! One file per subcommand that lives in this program.

pub(crate) mod branch_server;
mod child;
pub(crate) mod cluster;
pub(crate) mod config;
mod dev_bank;
pub(crate) mod down;
mod operator;
mod prompt;
pub(crate) mod registry;
pub(crate) mod txn;
pub(crate) mod up;
pub(crate) mod user;
