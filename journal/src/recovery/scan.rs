//! Walks over the journal's groups, checks each, and hands them on in order.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use tally_ledger::journal::cursor::{Geometry, RESERVATION_LEN_BYTES_MAX};
use tally_ledger::journal::group::{Chain, Epoch, GROUP_HEADER_LEN_BYTES, GroupError, GroupHeader};
use tally_ledger::journal::recovery::{Behind, Found, KnownDurable, Loss, Verdict, verdict};
use tally_protocol::{Lsn, Timestamp};

use super::RecoveryError;
use crate::aligned::AlignedBuffer;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::segment::segment_path;

/// What is read at once; the largest group fits.
const WINDOW_LEN_BYTES: usize = 8 << 20;
/// Windows that are read ahead of the one that is being replayed.
const READ_AHEAD: usize = 2;

const _: () = assert!(WINDOW_LEN_BYTES as u64 > RESERVATION_LEN_BYTES_MAX + 8192);

/// Where the walk is, and what it knows.
pub(super) struct Scan<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) directory: &'a Path,
    pub(super) geometry: Geometry,
    pub(super) at: u64,
    /// The checksum of the group before `at`; `None` where replay begins and it was not read.
    pub(super) chain: Option<Chain>,
    pub(super) epoch: Epoch,
    pub(super) last_timestamp: Timestamp,
    pub(super) known: KnownDurable,
    /// What the checkpoint knew of a later place of the log.
    pub(super) anchor: Option<(Lsn, Chain)>,
}

/// Groups that follow each other, in one buffer.
struct Window {
    buffer: AlignedBuffer,
    groups: Vec<(Lsn, u32, Range<usize>)>,
}

enum Stop {
    /// The walk is at the end of a segment.
    SegmentEnd,
    /// The next group is not in this window; there may be more in the next.
    WindowEnd,
    /// No group follows here.
    At(Found),
}

impl Scan<'_> {
    /// Hands on every group up to the first place where none follows, and tells what lies there.
    pub(super) fn replay<E: From<RecoveryError>>(
        &mut self,
        apply: &mut dyn FnMut(Lsn, u32, &[u8]) -> Result<(), E>,
    ) -> Result<Found, E> {
        std::thread::scope(|scope| {
            let (full_sender, full) = mpsc::sync_channel(READ_AHEAD);
            let (empty_sender, empty) = mpsc::channel();
            let len_bytes = WINDOW_LEN_BYTES.min(self.geometry.segment_len_bytes as usize);
            for _ in 0..READ_AHEAD + 1 {
                empty_sender.send(AlignedBuffer::zeroed(len_bytes)).expect("its receiver is right here");
            }
            let reader = scope.spawn(move || self.walk(&empty, &full_sender));
            let applied = apply_windows(&full, &empty_sender, apply);
            // Tells the reader, should it still be reading, or waiting for a buffer.
            drop((full, empty_sender));
            let found = reader.join().expect("the reading thread does not panic");
            applied?;
            Ok(found?)
        })
    }

    fn walk(&mut self, empty: &Receiver<AlignedBuffer>, full: &SyncSender<Window>) -> Result<Found, RecoveryError> {
        loop {
            self.meet_anchor()?;
            let found = match self.open(self.geometry.segment_of(self.at))? {
                Some(file) => match self.walk_segment(&*file, empty, full)? {
                    Some(found) => found,
                    None => continue,
                },
                None => Found::None,
            };
            if !self.skipped_to_next_segment()? {
                return Ok(found);
            }
        }
    }

    /// Hands on the groups from `at` to the segment's end or the first place where none follows. `None` at
    /// the segment's end.
    fn walk_segment(
        &mut self,
        file: &dyn DiskFile,
        empty: &Receiver<AlignedBuffer>,
        full: &SyncSender<Window>,
    ) -> Result<Option<Found>, RecoveryError> {
        loop {
            // Replay failed; it tells why.
            let Ok(mut buffer) = empty.recv() else { return Ok(Some(Found::None)) };
            let start = self.at;
            let left = (self.geometry.next_segment(start) - start) as usize;
            let want = buffer.len().min(left);
            let len_bytes = file.read_at(&mut buffer[..want], self.geometry.offset_of(start))?;
            if len_bytes == 0 {
                return Ok(Some(Found::None));
            }
            let mut groups = Vec::new();
            let stop = self.walk_window(&buffer[..len_bytes], start, len_bytes == left, &mut groups)?;
            if full.send(Window { buffer, groups }).is_err() {
                return Ok(Some(Found::None));
            }
            match stop {
                Stop::SegmentEnd => return Ok(None),
                Stop::At(found) => return Ok(Some(found)),
                Stop::WindowEnd => {}
            }
        }
    }

    fn walk_window(
        &mut self,
        bytes: &[u8],
        start: u64,
        to_segment_end: bool,
        groups: &mut Vec<(Lsn, u32, Range<usize>)>,
    ) -> Result<Stop, RecoveryError> {
        loop {
            let offset = (self.at - start) as usize;
            if offset == bytes.len() {
                return Ok(if to_segment_end { Stop::SegmentEnd } else { Stop::WindowEnd });
            }
            let (header, chain) = match group_at(&bytes[offset..], self.at) {
                Ok(group) => group,
                Err(Unread::CutShort) if !to_segment_end && offset > 0 => return Ok(Stop::WindowEnd),
                Err(Unread::CutShort | Unread::Damaged) => return Ok(Stop::At(Found::Damaged)),
                Err(Unread::None) => return Ok(Stop::At(Found::None)),
            };
            let found = Found::whole(&header, self.epoch, self.chain);
            if !follows(found) {
                self.known.saw(&header);
                return Ok(Stop::At(found));
            }
            let payload = offset + GROUP_HEADER_LEN_BYTES..offset + header.len_bytes();
            groups.push((Lsn::new(self.at + GROUP_HEADER_LEN_BYTES as u64), header.record_count, payload));
            self.known.saw(&header);
            self.chain = Some(chain);
            self.epoch = header.epoch;
            self.last_timestamp = self.last_timestamp.max(header.last_timestamp);
            self.at = self.geometry.block_end(self.at + header.len_bytes() as u64);
            self.meet_anchor()?;
        }
    }

    /// What the checkpoint knew of this place must be what was found.
    fn meet_anchor(&mut self) -> Result<(), RecoveryError> {
        let Some((at, chain)) = self.anchor.filter(|(at, _)| at.get() == self.at) else { return Ok(()) };
        match self.chain {
            Some(found) if found != chain => Err(RecoveryError::Lost { at, loss: Loss::Replaced }),
            Some(_) => Ok(()),
            None => {
                self.chain = Some(chain);
                Ok(())
            }
        }
    }

    /// A group that did not fit into the rest of a segment lies at the start of the next.
    fn skipped_to_next_segment(&mut self) -> Result<bool, RecoveryError> {
        if self.geometry.offset_of(self.at) == 0 {
            return Ok(false);
        }
        let next = self.geometry.next_segment(self.at);
        let Some(file) = self.open(self.geometry.segment_of(next))? else { return Ok(false) };
        let Some(header) = self.read_whole_group(&*file, next)? else { return Ok(false) };
        self.known.saw(&header);
        // Had there been a group in between, it would have been durable before this one was written.
        let nothing_between = header.durable.get() <= self.at;
        let skipped = nothing_between && follows(Found::whole(&header, self.epoch, self.chain));
        if skipped {
            self.at = next;
        }
        Ok(skipped)
    }

    /// The header of the whole group at `at`, if there is one that belongs there.
    pub(super) fn read_whole_group(&self, file: &dyn DiskFile, at: u64) -> io::Result<Option<GroupHeader>> {
        let offset = self.geometry.offset_of(at);
        let mut first = AlignedBuffer::zeroed(self.geometry.block_len_bytes as usize);
        let len_bytes = file.read_at(&mut first, offset)?;
        let Ok((header, _)) = GroupHeader::peek(&first[..len_bytes]) else { return Ok(None) };
        let longest = self.geometry.segment_len_bytes - offset;
        if header.start.get() != at || header.len_bytes() as u64 > longest {
            return Ok(None);
        }
        let mut whole = AlignedBuffer::zeroed(header.len_bytes());
        let len_bytes = file.read_at(&mut whole, offset)?;
        Ok(group_at(&whole[..len_bytes], at).ok().map(|(header, _)| header))
    }

    /// A segment's file, if it exists.
    pub(super) fn open(&self, number: u64) -> io::Result<Option<Box<dyn DiskFile>>> {
        match self.disk.open(&segment_path(self.directory, number), OpenMode::ReadDirect) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn follows(found: Found) -> bool {
    verdict(found, Behind { known_durable: false, anything: true }) == Verdict::GoOn
}

/// Why there is no group.
enum Unread {
    /// The start of one, and the bytes end.
    CutShort,
    /// The start of one, and the rest is not what was written.
    Damaged,
    /// Nothing, or something that belongs elsewhere.
    None,
}

fn group_at(bytes: &[u8], at: u64) -> Result<(GroupHeader, Chain), Unread> {
    match GroupHeader::open(bytes) {
        Ok((header, _, chain)) if header.start.get() == at => Ok((header, chain)),
        Ok(_) => Err(Unread::None),
        Err(GroupError::NotAGroup) => Err(Unread::None),
        Err(GroupError::Format(_) | GroupError::Short | GroupError::Check) => match GroupHeader::peek(bytes) {
            // A recycled segment's, cut through by what was written since.
            Ok((header, _)) if header.start.get() != at => Err(Unread::None),
            Ok((header, _)) if header.len_bytes() > bytes.len() => Err(Unread::CutShort),
            Ok(_) | Err(_) => Err(Unread::Damaged),
        },
    }
}

fn apply_windows<E>(
    full: &Receiver<Window>,
    empty: &Sender<AlignedBuffer>,
    apply: &mut dyn FnMut(Lsn, u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for window in full {
        for (first, count, range) in window.groups {
            apply(first, count, &window.buffer[range])?;
        }
        // The reader may be through.
        let _ = empty.send(window.buffer);
    }
    Ok(())
}
