//! Many commands in one entry of the log: what makes thirty thousand decisions a second cost a few hundred flushes.
//!
//! ```text
//!  0         8      16       24      28  32
//!  | node    | boot | number | count | 0 | commands, one behind the other |
//! ```
//!
//! Node, boot and number say whose proposal it was, so that the node that made it knows its own when it is applied.

use bytes::Bytes;

use super::Command;
use crate::bytes::{ReadError, Reader, Write};

/// In front of the commands.
pub const BATCH_HEADER_LEN_BYTES: usize = 32;

/// Whose proposal a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchHeader {
    /// The node that proposed it.
    pub node_id: u64,
    /// Drawn when that node's process started.
    pub boot: u64,
    /// Counts that process's proposals.
    pub number: u64,
    /// Commands in it.
    pub count: u32,
}

/// Gathers commands.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    commands: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// Adds a command.
    pub fn push(&mut self, command: &Command<'_>) {
        command.append_to(&mut self.commands);
        self.count += 1;
    }

    /// Adds a command that [`Command::append_to`] wrote.
    pub fn push_encoded(&mut self, command: &[u8]) {
        self.commands.extend_from_slice(command);
        self.count += 1;
    }

    /// How long the batch would be.
    pub const fn len_bytes(&self) -> usize {
        BATCH_HEADER_LEN_BYTES + self.commands.len()
    }

    /// Commands gathered.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is nothing to propose.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch of what was gathered; begins a new one.
    pub fn take(&mut self, node_id: u64, boot: u64, number: u64) -> Bytes {
        let mut out = Vec::with_capacity(self.len_bytes());
        out.put_u64(node_id);
        out.put_u64(boot);
        out.put_u64(number);
        out.put_u32(self.count);
        out.put_u32(0);
        out.append(&mut self.commands);
        self.count = 0;
        Bytes::from(out)
    }
}

/// Reads a batch, command by command.
#[derive(Clone, Copy, Debug)]
pub struct BatchReader<'a> {
    header: BatchHeader,
    left: u32,
    reader: Reader<'a>,
}

impl<'a> BatchReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is cut short, or nobody writes such a one.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let header =
            BatchHeader { node_id: reader.u64()?, boot: reader.u64()?, number: reader.u64()?, count: reader.u32()? };
        if reader.u32()? != 0 {
            return Err(ReadError::Field("reserved"));
        }
        Ok(Self { header, left: header.count, reader })
    }

    /// Whose it is.
    pub const fn header(&self) -> BatchHeader {
        self.header
    }

    /// The next command, or that there are no more.
    ///
    /// # Errors
    /// When the bytes do not hold what the header says, or more.
    pub fn next_command(&mut self) -> Result<Option<Command<'a>>, ReadError> {
        if self.left == 0 {
            self.reader.end()?;
            return Ok(None);
        }
        self.left -= 1;
        Command::read(&mut self.reader).map(Some)
    }
}
