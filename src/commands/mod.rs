//! One file per subcommand that lives in this program.

pub(crate) mod branch_server;
mod child;
pub(crate) mod config;
mod dev_bank;
pub(crate) mod down;
mod prompt;
pub(crate) mod up;
pub(crate) mod user;
