//! How far the journal has come: `accepted >= submitted >= durable`, moved as one checked value.
//!
//! ```text
//!   0 ......... durable ......... submitted ......... accepted ......... reserved
//!   | survives a crash | being written | filled, waits for | being filled by |
//!   |                  | by the disk   | the next flush    | the workers     |
//! ```
//!
//! **Invariant:** a [`DurableLsn`] says what the disk has said: it comes out of
//! [`Positions::handle_flushed`] (or of a recovery that read the bytes back), so that a reply cannot
//! leave early by mistake.

use tally_protocol::Lsn;

/// Everything in the log below this position survives a crash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DurableLsn(Lsn);

impl DurableLsn {
    /// Whether the record that begins at `lsn` is durable. [`Lsn::ZERO`], "before every record", always is.
    pub const fn covers(self, lsn: Lsn) -> bool {
        lsn.get() < self.0.get() || lsn.get() == 0
    }

    /// Whether every record that begins below `end` is durable.
    pub const fn reaches(self, end: Lsn) -> bool {
        end.get() <= self.0.get()
    }

    /// The end of what is durable: always the start of a group, written or to be written.
    pub const fn end(self) -> Lsn {
        self.0
    }

    /// Takes a position back out of the one atomic word through which the journal publishes it. Only
    /// [`DurableLsn::end`] of an existing value may have been put there.
    pub const fn from_published(word: u64) -> Self {
        Self(Lsn::new(word))
    }
}

/// The journal's three positions. Invariant: `durable <= submitted <= accepted`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions {
    accepted: Lsn,
    submitted: Lsn,
    durable: DurableLsn,
}

impl Positions {
    /// A log that was read back up to `end` from a disk that had been told to flush.
    pub const fn recovered(end: Lsn) -> Self {
        Self { accepted: end, submitted: end, durable: DurableLsn(end) }
    }

    /// The highest position without a gap of unfilled records below it.
    pub const fn accepted(&self) -> Lsn {
        self.accepted
    }

    /// The end of what was handed to the disk.
    pub const fn submitted(&self) -> Lsn {
        self.submitted
    }

    /// The end of what survives a crash.
    pub const fn durable(&self) -> DurableLsn {
        self.durable
    }

    /// Every record below `end` has been filled.
    ///
    /// # Panics
    /// When the position would go back.
    pub fn handle_accepted(&mut self, end: Lsn) {
        assert!(end >= self.accepted, "accepted went back from {} to {end}", self.accepted);
        self.accepted = end;
    }

    /// Everything below `end` is on its way to the disk.
    ///
    /// # Panics
    /// When it was not accepted, or the position would go back.
    pub fn handle_submitted(&mut self, end: Lsn) {
        assert!(end >= self.submitted, "submitted went back from {} to {end}", self.submitted);
        assert!(end <= self.accepted, "submitted {end} beyond accepted {}", self.accepted);
        self.submitted = end;
    }

    /// The disk has said that everything below `end` will survive a crash. The one way to a newer
    /// [`DurableLsn`].
    ///
    /// # Panics
    /// When it was not submitted, or the position would go back.
    pub fn handle_flushed(&mut self, end: Lsn) -> DurableLsn {
        assert!(end >= self.durable.0, "durable went back from {} to {end}", self.durable.0);
        assert!(end <= self.submitted, "durable {end} beyond submitted {}", self.submitted);
        self.durable = DurableLsn(end);
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(raw: u64) -> Lsn {
        Lsn::new(raw)
    }

    #[test]
    fn covers_what_lies_below_its_end_and_nothing_at_it() {
        // (durable end, record's position, covered)
        for (end, record, covered) in [
            (0, 0, true),
            (0, 64, false),
            (4096, 0, true),
            (4096, 4095, true),
            (4096, 4096, false),
            (4096, 4160, false),
        ] {
            assert_eq!(Positions::recovered(lsn(end)).durable().covers(lsn(record)), covered, "{record} in {end}");
        }
        let durable = Positions::recovered(lsn(4096)).durable();
        assert!(durable.reaches(lsn(4096)) && !durable.reaches(lsn(4097)));
    }

    #[test]
    fn a_position_moves_through_all_three() {
        let mut positions = Positions::recovered(lsn(4096));
        positions.handle_accepted(lsn(12288));
        positions.handle_submitted(lsn(8192));
        assert_eq!(positions.handle_flushed(lsn(8192)).end(), lsn(8192));
        assert_eq!([positions.accepted(), positions.submitted()], [lsn(12288), lsn(8192)]);
        assert_eq!(DurableLsn::from_published(positions.durable().end().get()), positions.durable());
    }

    #[test]
    #[should_panic(expected = "beyond submitted")]
    fn nothing_is_durable_that_was_not_submitted() {
        let mut positions = Positions::recovered(lsn(0));
        positions.handle_accepted(lsn(4096));
        positions.handle_flushed(lsn(4096));
    }

    #[test]
    #[should_panic(expected = "beyond accepted")]
    fn nothing_is_submitted_that_was_not_accepted() {
        Positions::recovered(lsn(0)).handle_submitted(lsn(1));
    }

    #[test]
    #[should_panic(expected = "went back")]
    fn durable_does_not_go_back() {
        let mut positions = Positions::recovered(lsn(4096));
        positions.handle_flushed(lsn(0));
    }
}
