//! Two-phase commit: every state with every event, and every way in which messages, flushes and crashes can interleave.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test accepts its table when asked to, and tells how much it has explored"
)]

mod heal;
mod model;
mod table;
