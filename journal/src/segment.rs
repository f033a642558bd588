//! The journal's files: `segment-<number>.log`, one segment long from the start, filled with zeros ahead of
//! time, because a write into blocks that the file system has never seen costs half as much again.
//!
//! **Invariants:** a file has its final name only once its length and its zeros are durable, so that a crash
//! at any step leaves whole segments and files with temporary names, which the next start removes; numbers
//! have no gap.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tally_ledger::journal::cursor::Geometry;
use tally_protocol::Lsn;

use crate::aligned::AlignedBuffer;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::log::Log;
use crate::stats::JournalStats;
use std::sync::atomic::Ordering;

/// Zeros are written in pieces of this size: short enough that a flush need not wait long behind one.
const ZERO_LEN_BYTES: usize = 64 << 10;
/// With fewer than this many ready, the next one is handed over as it is, zeros or not: writing to it costs a
/// metadata commit now and then, but a flusher that has to make its own segment stands still for 100 ms.
const READY_LEN_MIN: usize = 2;
/// After zeros were overtaken by the need for segments, this long none are written: they would be overtaken again, and
/// take from the disk what the journal lacks.
const PRESSED: Duration = Duration::from_secs(2);
/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The file of segment `number`.
pub fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:020}.log"))
}

/// The number of a segment's file; `None` for other files.
pub fn segment_number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("segment-")?.strip_suffix(".log")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// The numbers of the segments in `directory`, in order.
pub fn list_segments(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    Ok(disk.list(directory)?.iter().filter_map(|path| segment_number(path)).collect())
}

/// Removes what a crash left half made.
pub fn remove_temporary(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    for path in disk.list(directory)? {
        if path.to_str().is_some_and(|path| path.ends_with(TEMPORARY_SUFFIX)) {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// How segments are prepared.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOptions {
    /// Segments that are ready before they are needed.
    pub ahead: usize,
    /// How fast they are filled with zeros.
    pub zero_bytes_per_second_max: u64,
    /// Free space below which no more is promised to writers.
    pub free_bytes_min: u64,
}

/// Hands segments to the flusher, and keeps some ready.
pub struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    geometry: Geometry,
    options: SegmentOptions,
    stats: Arc<JournalStats>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ready: VecDeque<(u64, Box<dyn DiskFile>)>,
    /// One above the highest number that has a file.
    next: u64,
    /// Retired files that may become new segments, the oldest last: they go in order.
    retired: Vec<PathBuf>,
    /// Until then only as many as must be ready are prepared.
    pressed_until: Option<Instant>,
    stopping: bool,
}

impl Segments {
    /// The segments in `directory`, of which the one that holds `start` is the next to be written.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        geometry: Geometry,
        options: SegmentOptions,
        start: Lsn,
        stats: Arc<JournalStats>,
    ) -> io::Result<Self> {
        remove_temporary(&*disk, directory)?;
        let current = geometry.segment_of(start.get());
        let next = list_segments(&*disk, directory)?.last().map_or(current, |&last| (last + 1).max(current));
        let mut ready = VecDeque::new();
        // Prepared by the run before, and found by recovery to hold nothing.
        for number in current + 1..next {
            ready.push_back((number, disk.open(&segment_path(directory, number), OpenMode::WriteDurable)?));
        }
        let state = State { ready, next, retired: Vec::new(), pressed_until: None, stopping: false };
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            geometry,
            options,
            stats,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// The number of the segment that holds `position`.
    pub fn number_of(&self, position: Lsn) -> u64 {
        self.geometry.segment_of(position.get())
    }

    /// Where in its segment `position` lies.
    pub fn offset_of(&self, position: Lsn) -> u64 {
        self.geometry.offset_of(position.get())
    }

    /// The file of segment `number`, for durable writes. Numbers rise by one.
    pub fn take(&self, number: u64) -> io::Result<Box<dyn DiskFile>> {
        self.stats.segments.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        if let Some((first, file)) = state.ready.pop_front() {
            assert!(first >= number, "segment {number} was asked for after {first}");
            if first == number {
                self.changed.notify_all();
                return Ok(file);
            }
            // The segment that recovery left half full; what is ready comes after it.
            state.ready.push_front((first, file));
        }
        let path = segment_path(&self.directory, number);
        if number >= state.next {
            assert!(number == state.next, "segment {number} was asked for after {}", state.next);
            self.stats.segments_unprepared.fetch_add(1, Ordering::Relaxed);
            let temporary = self.temporary("unprepared");
            let file = self.disk.open(&temporary, OpenMode::Create)?;
            file.allocate(self.geometry.segment_len_bytes)?;
            file.sync()?;
            drop(file);
            self.name(&temporary, number)?;
            state.next = number + 1;
        }
        self.disk.open(&path, OpenMode::WriteDurable)
    }

    /// Files that are not needed any more; their blocks may become new segments. What they still hold is
    /// harmless: the positions and the chain in it are not those of its new place.
    pub fn retire(&self, numbers: &[u64]) {
        self.state.lock().retired = numbers.iter().rev().map(|&number| segment_path(&self.directory, number)).collect();
        self.changed.notify_all();
    }

    /// Removes the retired files here and now, where no thread makes new segments of them.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn remove_retired(&self) -> io::Result<()> {
        loop {
            // Lowest first: numbers have no gap.
            let Some(path) = self.state.lock().retired.pop() else { return Ok(()) };
            self.disk.remove(&path)?;
        }
    }

    /// Ends [`prepare_until_stopped`](Self::prepare_until_stopped).
    pub fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Keeps segments ready and watches the free space, until [`stop`](Self::stop).
    pub fn prepare_until_stopped(&self, log: &Log) {
        let mut failing = false;
        loop {
            let (wanted, retired) = {
                let mut state = self.state.lock();
                if state.stopping {
                    return;
                }
                if !self.wants_more(&state) && state.retired.is_empty() {
                    self.changed.wait_for(&mut state, SPACE_INTERVAL);
                }
                if state.stopping {
                    return;
                }
                (self.wants_more(&state), state.retired.pop())
            };
            match self.tend(log, wanted, retired) {
                Ok(()) => failing = false,
                Err(error) => {
                    // The flusher makes its own segments, so this costs speed only.
                    if !failing {
                        tracing::warn!(stage = "journal", %error, "cannot prepare journal segments ahead of time");
                    }
                    failing = true;
                    self.pause(SPACE_INTERVAL);
                }
            }
        }
    }

    fn wants_more(&self, state: &State) -> bool {
        let is_pressed = state.pressed_until.is_some_and(|until| Instant::now() < until);
        state.ready.len() < if is_pressed { READY_LEN_MIN.min(self.options.ahead) } else { self.options.ahead }
    }

    fn tend(&self, log: &Log, wanted: bool, retired: Option<PathBuf>) -> io::Result<()> {
        let free = self.disk.free_bytes(&self.directory)?;
        let segment = self.geometry.segment_len_bytes;
        let reserve = self.options.free_bytes_min;
        let comfortable = free >= reserve.saturating_add(segment);
        match (log.writable(), free >= reserve, comfortable) {
            (true, false, _) => {
                tracing::error!(
                    stage = "journal",
                    free,
                    reserve,
                    "disk nearly full: writes are refused until there is space again"
                );
                log.set_writable(false);
            }
            (false, _, true) => {
                tracing::info!(stage = "journal", free, reserve, "disk space is back: writes are taken again");
                log.set_writable(true);
            }
            (true, true, _) | (false, _, false) => {}
        }
        if let Some(retired) = retired {
            let done = if wanted && comfortable { self.recycle(&retired) } else { self.disk.remove(&retired) };
            // It may have been named twice.
            return done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        }
        match (wanted, comfortable) {
            (true, true) => self.prepare(),
            (true, false) => {
                self.pause(SPACE_INTERVAL);
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    fn prepare(&self) -> io::Result<()> {
        let temporary = self.temporary("preparing");
        let file = self.disk.open(&temporary, OpenMode::Create)?;
        file.allocate(self.geometry.segment_len_bytes)?;
        let zeros = AlignedBuffer::zeroed(ZERO_LEN_BYTES.min(self.geometry.segment_len_bytes as usize));
        let begun = Instant::now();
        for offset in (0..self.geometry.segment_len_bytes).step_by(zeros.len()) {
            let mut state = self.state.lock();
            if state.ready.len() < READY_LEN_MIN {
                if offset > 0 {
                    state.pressed_until = Some(Instant::now() + PRESSED);
                }
                break;
            }
            drop(state);
            file.write_at(&zeros, offset)?;
            let due = Duration::from_nanos(
                (u128::from(offset) * 1_000_000_000 / u128::from(self.options.zero_bytes_per_second_max.max(1))) as u64,
            );
            if !self.pause(due.saturating_sub(begun.elapsed())) {
                return self.disk.remove(&temporary);
            }
        }
        file.sync()?;
        drop(file);
        self.make_ready(&temporary)
    }

    fn recycle(&self, retired: &Path) -> io::Result<()> {
        let temporary = self.temporary("recycling");
        self.disk.rename(retired, &temporary)?;
        let file = self.disk.open(&temporary, OpenMode::WriteDurable)?;
        if file.len_bytes()? != self.geometry.segment_len_bytes {
            return self.disk.remove(&temporary);
        }
        drop(file);
        self.make_ready(&temporary)
    }

    fn make_ready(&self, temporary: &Path) -> io::Result<()> {
        // Held over the rename: the flusher, were it to need this very segment, would have to do the same.
        let mut state = self.state.lock();
        let number = state.next;
        self.name(temporary, number)?;
        state.next = number + 1;
        let file = self.disk.open(&segment_path(&self.directory, number), OpenMode::WriteDurable)?;
        state.ready.push_back((number, file));
        Ok(())
    }

    fn name(&self, temporary: &Path, number: u64) -> io::Result<()> {
        self.disk.rename(temporary, &segment_path(&self.directory, number))?;
        self.disk.sync_directory(&self.directory)
    }

    fn temporary(&self, what: &str) -> PathBuf {
        self.directory.join(format!("{what}{TEMPORARY_SUFFIX}"))
    }

    /// Sleeps; false when it is time to stop.
    fn pause(&self, duration: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.stopping && duration > Duration::from_micros(100) {
            self.changed.wait_for(&mut state, duration);
        }
        !state.stopping
    }
}
