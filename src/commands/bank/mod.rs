//! The development bank: what `tally up` puts into a folder, which processes serve it, and what clients are told of it.
//!
//! ```text
//!  DIR/connect.json   where everything is, with the sample users' passwords
//!  DIR/tls            the authority of all certificates, and the operator's
//!  DIR/registry       a node of the registry; further ones in DIR/registry-2 ...
//!  DIR/branch-1 ...   the data folders of the branches
//! ```
//!
//! A bank of one branch has its data folder in DIR itself, and no registry.

pub(crate) mod connect;
pub(crate) mod layout;
mod nodes;
pub(crate) mod prepare;
pub(crate) mod process;
pub(crate) mod running;
pub(crate) mod samples;

pub(crate) use connect::{published, serving_bank};
pub(crate) use layout::Layout;
pub(crate) use running::Running;
