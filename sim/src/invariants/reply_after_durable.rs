//! No reply leaves before what it tells is durable, and nothing that was told is ever taken back.

use tally_protocol::Lsn;

use super::{Violation, hold};

/// What the disk has said, and what the clients were told.
#[derive(Debug, Default)]
pub struct ReplyAfterDurable {
    /// Everything below survives a crash: known from the disk itself, not from the server.
    durable: Lsn,
    /// The newest record that a client was told of.
    told: Lsn,
}

impl ReplyAfterDurable {
    /// The disk has taken everything below `end`.
    pub fn handle_durable(&mut self, end: Lsn) {
        self.durable = self.durable.max(end);
    }

    /// A client was told of the record at `lsn`.
    ///
    /// # Errors
    /// When a crash could still take it back.
    pub fn check_told(&mut self, lsn: Lsn) -> Result<(), Violation> {
        hold!(ReplyAfterDurable, lsn < self.durable, "{lsn} was told, but the disk has only {}", self.durable);
        self.told = self.told.max(lsn);
        Ok(())
    }

    /// The journal goes on at `next` after a crash.
    ///
    /// # Errors
    /// When that loses something durable, or something that a client was told.
    pub fn check_recovered(&mut self, next: Lsn) -> Result<(), Violation> {
        hold!(
            ReplyAfterDurable,
            self.told < next || self.told == Lsn::ZERO,
            "{} was told, but the journal goes on at {next}",
            self.told
        );
        hold!(
            ReplyAfterDurable,
            self.durable <= next,
            "{} was durable, but the journal goes on at {next}",
            self.durable
        );
        self.durable = next;
        Ok(())
    }
}
