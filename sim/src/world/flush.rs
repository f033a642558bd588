//! The last step to the disk: the journal's own blocking writer, with an ear on the line.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tally_journal::blocking::BlockingWriter;
use tally_journal::flusher::GroupWriter;
use tally_journal::log::SealedBytes;
use tally_protocol::Lsn;

use crate::planted::Bug;

/// A group that was handed to the disk.
#[derive(Debug)]
pub(super) struct Heard {
    /// Header, records and padding.
    pub(super) bytes: Vec<u8>,
    /// Where it ends; durable when the disk said so.
    pub(super) end: Lsn,
    /// Whether the disk said that it is durable.
    pub(super) is_durable: bool,
}

/// What was handed to the disk since it was last asked.
pub(super) type Line = Rc<RefCell<Vec<Heard>>>;

/// Writes as the branch does, and tells what it wrote.
pub(super) struct ListeningWriter {
    inner: BlockingWriter,
    line: Line,
    bug: Option<Bug>,
    groups: u64,
}

impl ListeningWriter {
    pub(super) fn new(inner: BlockingWriter, line: Line, bug: Option<Bug>) -> Self {
        Self { inner, line, bug, groups: 0 }
    }
}

impl GroupWriter for ListeningWriter {
    fn write(&mut self, start: Lsn, bytes: SealedBytes) -> io::Result<()> {
        self.groups += 1;
        let copy = bytes.read(<[u8]>::to_vec);
        let end = Lsn::new(start.get() + copy.len() as u64);
        let is_skipped = self.bug == Some(Bug::GroupSkipped) && self.groups.is_multiple_of(40);
        let result = if is_skipped { Ok(()) } else { self.inner.write(start, bytes) };
        self.line.borrow_mut().push(Heard { bytes: copy, end, is_durable: result.is_ok() && !is_skipped });
        if self.bug == Some(Bug::WriteErrorIgnored) { Ok(()) } else { result }
    }
}
