//! One file per subcommand that lives in this program.

pub(crate) mod audit;
mod bank;
pub(crate) mod branch_server;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod down;
mod operator;
mod prompt;
pub(crate) mod registry;
pub(crate) mod shell;
pub(crate) mod txn;
pub(crate) mod up;
pub(crate) mod user;
