//! Reads durable records back: one by its position, or all from a position on.
//!
//! A position alone is enough to go on from: behind a record there is another record, or zeros up to the
//! next block, where the next group begins, or the next segment. No index is kept.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use tally_journal::{ReadError, Reader};
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::group::{Chain, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::{RECORD_LEN_BYTES_MAX, Record, RecordError};
use tally_protocol::Lsn;

/// What a scan reads at once.
const SCAN_LEN_BYTES: usize = 256 << 10;
/// Readers that go on where they stopped find their place at once; so many are remembered.
const RETURNED_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Records {
    reader: Arc<Reader>,
    returned: Mutex<Returned>,
}

impl Records {
    /// The records of the journal that `reader` reads.
    pub fn new(reader: Arc<Reader>) -> Self {
        Self { reader, returned: Mutex::default() }
    }

    /// Reads the bytes they are made of.
    pub const fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// The record at `lsn`.
    ///
    /// # Errors
    /// When none begins there, or it is not durable yet, was removed or cannot be read.
    pub fn record(&self, lsn: Lsn, durable: DurableLsn) -> Result<Record, ReadError> {
        if !durable.covers(lsn) || lsn == Lsn::ZERO {
            return Err(ReadError::NotDurable(lsn));
        }
        let mut buffer = [0; RECORD_LEN_BYTES_MAX];
        let len_bytes = self.reader.read(lsn.get(), &mut buffer)?;
        match Record::decode(&buffer[..len_bytes]) {
            Ok(record) if record.lsn == lsn => Ok(record),
            // No position that was handed out leads here, so it is not known whether one was meant.
            Ok(_) | Err(RecordError::Short | RecordError::Check | RecordError::Field(_)) => {
                Err(ReadError::NoRecord(lsn))
            }
        }
    }

    /// Passes the records from `from` on to `visit`. `from` may be any position: if it is not a record's,
    /// the first record behind it is the first visited. Returns where to go on.
    pub fn scan(
        &self,
        from: Lsn,
        durable: DurableLsn,
        visit: &mut dyn FnMut(&Record) -> ControlFlow<()>,
    ) -> Result<Lsn, ReadError> {
        let end = durable.end().get();
        if from.get() >= end {
            return Ok(from);
        }
        let mut place = if self.returned.lock().contains(from) {
            Place { at: from.get(), chain: None }
        } else {
            self.first_record_from(from.get(), end)?
        };
        let mut window = Window { bytes: vec![0; SCAN_LEN_BYTES], start: place.at, len_bytes: 0 };
        while place.at < end {
            match window.look(self.reader.geometry(), place.at) {
                Found::Record(record) => {
                    place.at += record.body.len_bytes() as u64;
                    if visit(&record).is_break() {
                        break;
                    }
                }
                Found::Padding(behind) => place.at = behind,
                Found::Group(header, chain) => {
                    place.enter(&header, chain)?;
                    place.at += GROUP_HEADER_LEN_BYTES as u64;
                }
                Found::NoGroup => place.skip(self.reader.geometry(), end)?,
                Found::Nothing => return Err(place.damaged()),
                Found::MoreNeeded => {
                    let len_bytes =
                        window.bytes.len().min((self.reader.geometry().next_segment(place.at) - place.at) as usize);
                    window.start = place.at;
                    window.len_bytes = self.reader.read(place.at, &mut window.bytes[..len_bytes])?;
                    if window.len_bytes < len_bytes {
                        return Err(place.damaged());
                    }
                }
            }
        }
        let next = Lsn::new(place.at);
        self.returned.lock().insert(next);
        Ok(next)
    }

    /// The first record, or end of a group, at or behind `from`: walks over the headers of the segment's
    /// groups. A position from outside is not believed, for the bytes there may be what a client wrote.
    fn first_record_from(&self, from: u64, end: u64) -> Result<Place, ReadError> {
        let mut place = Place {
            at: self.reader.geometry().next_segment(from) - self.reader.geometry().segment_len_bytes,
            chain: None,
        };
        while place.at < from {
            let mut bytes = [0; GROUP_HEADER_LEN_BYTES];
            let len_bytes = self.reader.read(place.at, &mut bytes)?;
            match GroupHeader::peek(&bytes[..len_bytes]) {
                Ok((header, chain)) if header.start.get() == place.at => {
                    place.enter(&header, chain)?;
                    let group_end = place.at + header.len_bytes() as u64;
                    if from < group_end {
                        place.at = self.record_in_group(place.at + GROUP_HEADER_LEN_BYTES as u64, group_end, from)?;
                        return Ok(place);
                    }
                    place.at = self.reader.geometry().block_end(group_end);
                }
                Ok(_) | Err(_) => {
                    place.skip(self.reader.geometry(), end)?;
                    return Ok(place);
                }
            }
        }
        Ok(place)
    }

    fn record_in_group(&self, first: u64, end: u64, from: u64) -> Result<u64, ReadError> {
        let mut bytes = vec![0; (end - first) as usize];
        let len_bytes = self.reader.read(first, &mut bytes)?;
        let mut at = first;
        while at < from && at < end {
            let record = bytes[..len_bytes]
                .get((at - first) as usize..)
                .and_then(|bytes| Record::decode(bytes).ok())
                .ok_or(ReadError::Damaged(Lsn::new(at)))?;
            at += record.body.len_bytes() as u64;
        }
        Ok(at)
    }
}

/// Where a walk over the log is.
struct Place {
    at: u64,
    /// The checksum of the group that it passed last.
    chain: Option<Chain>,
}

impl Place {
    fn damaged(&self) -> ReadError {
        ReadError::Damaged(Lsn::new(self.at))
    }

    /// A group begins here: it must follow the one before.
    fn enter(&mut self, header: &GroupHeader, chain: Chain) -> Result<(), ReadError> {
        if self.chain.is_some_and(|before| before != header.previous) {
            return Err(self.damaged());
        }
        self.chain = Some(chain);
        Ok(())
    }

    /// No group begins here, though what is durable goes on: the log skipped the rest of the segment. The
    /// next group's `previous` tells if it did not.
    fn skip(&mut self, geometry: &Geometry, end: u64) -> Result<(), ReadError> {
        let next = geometry.next_segment(self.at);
        if geometry.offset_of(self.at) == 0 || next >= end {
            return Err(self.damaged());
        }
        self.at = next;
        Ok(())
    }
}

/// Positions that scans returned: these are known to be a record's or a group's end, without a walk.
#[derive(Debug, Default)]
struct Returned {
    known: HashSet<Lsn>,
    in_order: VecDeque<Lsn>,
}

impl Returned {
    fn contains(&self, lsn: Lsn) -> bool {
        self.known.contains(&lsn)
    }

    fn insert(&mut self, lsn: Lsn) {
        if self.known.insert(lsn) {
            self.in_order.push_back(lsn);
        }
        if self.in_order.len() > RETURNED_MAX {
            self.in_order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

/// What lies at a place that is a record's or a group's end.
enum Found {
    Record(Box<Record>),
    Padding(u64),
    Group(GroupHeader, Chain),
    /// A block's boundary where no group begins.
    NoGroup,
    /// Not enough was read to tell.
    MoreNeeded,
    /// Nothing that was ever written.
    Nothing,
}

/// A piece of the log in memory.
struct Window {
    bytes: Vec<u8>,
    start: u64,
    len_bytes: usize,
}

impl Window {
    fn look(&self, geometry: &Geometry, at: u64) -> Found {
        let read = at.checked_sub(self.start).and_then(|offset| self.bytes[..self.len_bytes].get(offset as usize..));
        let Some(bytes) = read else { return Found::MoreNeeded };
        let enough = (geometry.next_segment(at) - at).min(geometry.block_len_bytes);
        if (bytes.len() as u64) < enough {
            return Found::MoreNeeded;
        }
        match Record::decode(bytes) {
            Ok(record) if record.lsn.get() == at => return Found::Record(Box::new(record)),
            Ok(_) | Err(RecordError::Short | RecordError::Check | RecordError::Field(_)) => {}
        }
        let padding = (geometry.block_end(at) - at) as usize;
        match GroupHeader::peek(bytes) {
            _ if padding > 0 && bytes[..padding].iter().all(|&byte| byte == 0) => {
                Found::Padding(geometry.block_end(at))
            }
            _ if padding > 0 => Found::Nothing,
            Ok((header, chain)) if header.start.get() == at => Found::Group(header, chain),
            Ok(_) | Err(_) => Found::NoGroup,
        }
    }
}
