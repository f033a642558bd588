//! Reads durable records back: one by its position, or all from a position on.
//!
//! A position alone is enough to go on from: behind a record there is another record, or zeros up to the
//! next block, where the next group begins, or the next segment. No index is kept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::group::{Chain, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::{RECORD_LEN_BYTES_MAX, Record, RecordError};
use tally_protocol::Lsn;

use super::disk::{Disk, DiskFile, OpenMode};
use super::segment::{list_segments, segment_path};

/// Segments whose files are kept open for reading. Each costs a descriptor.
const OPEN_FILES_MAX: usize = 512;
/// What a scan reads at once.
const SCAN_LEN_BYTES: usize = 256 << 10;
/// Readers that go on where they stopped find their place at once; so many are remembered.
const RETURNED_MAX: usize = 4096;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    /// Nothing there is durable yet.
    #[error("{0} is beyond the durable end of the journal")]
    NotDurable(Lsn),
    /// No record begins there.
    #[error("no record begins at {0}")]
    NoRecord(Lsn),
    /// Removed by retention.
    #[error("{at} was removed; the journal begins at {oldest}")]
    Retired {
        /// What was asked for.
        at: Lsn,
        /// What there is.
        oldest: Lsn,
    },
    /// A durable part of the journal cannot be read back.
    #[error("the journal is damaged at {0}")]
    Damaged(Lsn),
}

/// See the module.
pub struct Reader {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    geometry: Geometry,
    files: RwLock<HashMap<u64, Arc<dyn DiskFile>>>,
    /// Where the oldest segment that is kept begins.
    oldest: AtomicU64,
    returned: Mutex<Returned>,
}

impl Reader {
    /// Reads the segments in `directory`.
    pub fn open(disk: Arc<dyn Disk>, directory: PathBuf, geometry: Geometry) -> io::Result<Self> {
        let oldest = list_segments(&*disk, &directory)?.first().map_or(0, |first| first * geometry.segment_len_bytes);
        Ok(Self {
            disk,
            directory,
            geometry,
            files: RwLock::new(HashMap::new()),
            oldest: AtomicU64::new(oldest),
            returned: Mutex::default(),
        })
    }

    /// Where the oldest segment begins.
    pub fn oldest(&self) -> Lsn {
        Lsn::new(self.oldest.load(Ordering::Relaxed))
    }

    /// Forgets everything below `oldest`, the start of a segment, before it is removed.
    pub fn forget_below(&self, oldest: Lsn) {
        self.oldest.store(oldest.get(), Ordering::Relaxed);
        self.files.write().retain(|&number, _| number >= self.geometry.segment_of(oldest.get()));
    }

    /// The record at `lsn`.
    pub fn record(&self, lsn: Lsn, durable: DurableLsn) -> Result<Record, ReadError> {
        if !durable.covers(lsn) || lsn == Lsn::ZERO {
            return Err(ReadError::NotDurable(lsn));
        }
        let mut buffer = [0; RECORD_LEN_BYTES_MAX];
        let len_bytes = self.read(lsn.get(), &mut buffer)?;
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
            match window.look(&self.geometry, place.at) {
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
                Found::NoGroup => place.skip(&self.geometry, end)?,
                Found::Nothing => return Err(place.damaged()),
                Found::MoreNeeded => {
                    let len_bytes = window.bytes.len().min((self.geometry.next_segment(place.at) - place.at) as usize);
                    window.start = place.at;
                    window.len_bytes = self.read(place.at, &mut window.bytes[..len_bytes])?;
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
        let mut place = Place { at: self.geometry.next_segment(from) - self.geometry.segment_len_bytes, chain: None };
        while place.at < from {
            let mut bytes = [0; GROUP_HEADER_LEN_BYTES];
            let len_bytes = self.read(place.at, &mut bytes)?;
            match GroupHeader::peek(&bytes[..len_bytes]) {
                Ok((header, chain)) if header.start.get() == place.at => {
                    place.enter(&header, chain)?;
                    let group_end = place.at + header.len_bytes() as u64;
                    if from < group_end {
                        place.at = self.record_in_group(place.at + GROUP_HEADER_LEN_BYTES as u64, group_end, from)?;
                        return Ok(place);
                    }
                    place.at = self.geometry.block_end(group_end);
                }
                Ok(_) | Err(_) => {
                    place.skip(&self.geometry, end)?;
                    return Ok(place);
                }
            }
        }
        Ok(place)
    }

    fn record_in_group(&self, first: u64, end: u64, from: u64) -> Result<u64, ReadError> {
        let mut bytes = vec![0; (end - first) as usize];
        let len_bytes = self.read(first, &mut bytes)?;
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

    /// Reads at a position, not beyond its segment's end.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let oldest = self.oldest();
        if at < oldest.get() {
            return Err(ReadError::Retired { at: Lsn::new(at), oldest });
        }
        let offset = self.geometry.offset_of(at);
        let len_bytes = buffer.len().min((self.geometry.segment_len_bytes - offset) as usize);
        Ok(self.file(self.geometry.segment_of(at))?.read_at(&mut buffer[..len_bytes], offset)?)
    }

    fn file(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.read().get(&number) {
            return Ok(file.clone());
        }
        let file: Arc<dyn DiskFile> = self.disk.open(&segment_path(&self.directory, number), OpenMode::Read)?.into();
        let mut files = self.files.write();
        if files.len() >= OPEN_FILES_MAX {
            // Any other: look-ups of old ids are spread evenly, so no choice is better for long.
            let victim = files.keys().next().copied();
            victim.map(|victim| files.remove(&victim));
        }
        files.insert(number, file.clone());
        Ok(file)
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
#[derive(Default)]
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
