//! What lies behind the last group that follows: evidence that more was durable, or something to be zeroed.

use std::io;

use tally_ledger::journal::group::GroupHeader;
use tally_ledger::journal::recovery::{Behind, Found, Verdict, verdict};
use tally_protocol::Lsn;

use super::scan::Scan;
use super::{RecoveryError, TornTail};
use crate::aligned::AlignedBuffer;
use crate::disk::{DiskFile, OpenMode};
use crate::segment::segment_path;

const READ_LEN_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The end of the last block of the current segment that is not zeros; 0 for none.
    dirty_end: u64,
    /// The first later segment that holds something, and all behind it.
    given_up: Vec<u64>,
    /// The end of the last block that is not zeros, in any segment.
    last_end: u64,
    /// Groups of other positions lie there: the segment is a recycled one, not a torn one.
    recycled: bool,
}

/// Looks at everything behind `scan.at`.
pub(super) fn survey(scan: &mut Scan<'_>, segments: &[u64]) -> Result<Tail, RecoveryError> {
    let mut tail = Tail::default();
    let current = scan.geometry.segment_of(scan.at);
    for &number in segments.iter().filter(|&&number| number >= current) {
        let Some(file) = scan.open(number)? else { continue };
        let start = scan.at.max(number * scan.geometry.segment_len_bytes);
        if let Some(end) = tail.survey_segment(scan, &*file, start)? {
            tail.last_end = end;
            if number == current {
                tail.dirty_end = end;
                continue;
            }
        } else if tail.given_up.is_empty() {
            continue;
        }
        // Those behind it as well, though they may be clean: numbers must have no gap.
        tail.given_up.push(number);
    }
    Ok(tail)
}

impl Tail {
    /// The end of the last block that is not zeros.
    fn survey_segment(&mut self, scan: &mut Scan<'_>, file: &dyn DiskFile, start: u64) -> io::Result<Option<u64>> {
        let block = scan.geometry.block_len_bytes as usize;
        let mut buffer = AlignedBuffer::zeroed(READ_LEN_BYTES);
        let mut last = None;
        let mut at = start;
        let end = scan.geometry.next_segment(start);
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            let len_bytes = file.read_at(&mut buffer[..want], scan.geometry.offset_of(at))?;
            if len_bytes == 0 {
                break;
            }
            for (index, bytes) in buffer[..len_bytes].chunks(block).enumerate() {
                if bytes.iter().all(|&byte| byte == 0) {
                    continue;
                }
                let place = at + (index * block) as u64;
                last = Some(place + block as u64);
                match GroupHeader::peek(bytes) {
                    Ok((header, _)) if header.start.get() == place => {
                        if let Some(header) = scan.read_whole_group(file, place)? {
                            scan.known.saw(&header);
                            // A later run may have begun here, and have been cut: its number is taken.
                            scan.epoch = scan.epoch.max(header.epoch);
                        }
                    }
                    Ok(_) => self.recycled = true,
                    Err(_) => {}
                }
            }
            at += len_bytes as u64;
        }
        Ok(last)
    }

    /// What is to be cut, or why the branch must not start.
    pub(super) fn judge(&self, scan: &Scan<'_>, found: Found) -> Result<Option<TornTail>, RecoveryError> {
        let at = Lsn::new(scan.at);
        let behind = Behind { known_durable: scan.known.beyond(at), anything: self.last_end > 0 };
        let torn = TornTail { at, len_bytes: self.last_end.saturating_sub(scan.at) };
        match verdict(found, behind) {
            Verdict::Refuse(loss) => Err(RecoveryError::Lost { at, loss }),
            Verdict::End => Ok(None),
            Verdict::Cut if found == Found::None && self.recycled => Ok(None),
            Verdict::Cut => Ok(Some(torn)),
            Verdict::GoOn => unreachable!("the walk would have gone on at {at}"),
        }
    }

    /// Zeros what is cut, and makes sure that what was read is durable: after a crash of the process alone
    /// it may still be in a cache.
    pub(super) fn repair(&self, scan: &Scan<'_>) -> io::Result<()> {
        // The highest first: numbers must have no gap at any step.
        for &number in self.given_up.iter().rev() {
            scan.disk.remove(&segment_path(scan.directory, number))?;
            scan.disk.sync_directory(scan.directory)?;
        }
        let last_read = scan.geometry.segment_of(scan.at.saturating_sub(1));
        for number in [last_read, scan.geometry.segment_of(scan.at)] {
            let file = match scan.disk.open(&segment_path(scan.directory, number), OpenMode::WriteDurable) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if scan.geometry.segment_of(scan.at) == number && self.dirty_end > scan.at {
                zero(scan, &*file, self.dirty_end)?;
            }
            file.sync()?;
        }
        scan.disk.sync_directory(scan.directory)
    }
}

fn zero(scan: &Scan<'_>, file: &dyn DiskFile, end: u64) -> io::Result<()> {
    let zeros = AlignedBuffer::zeroed(READ_LEN_BYTES);
    let mut at = scan.at;
    while at < end {
        let len_bytes = zeros.len().min((end - at) as usize);
        file.write_at(&zeros[..len_bytes], scan.geometry.offset_of(at))?;
        at += len_bytes as u64;
    }
    Ok(())
}
