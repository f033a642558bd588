//! What writes a running journal's groups: the flusher, on a thread of its own or by hand.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::group::{Chain, Epoch};
use tally_protocol::{Lsn, Timestamp};

use crate::bell::Bell;
use crate::blocking::BlockingWriter;
use crate::disk::Disk;
use crate::flusher::{Flusher, GroupWriter, Step};
use crate::log::{Log, SealedBytes};
use crate::published::Published;
use crate::recovery::Recovered;
use crate::running::{JournalOptions, OnDurable, StartError, WriteVia};
use crate::scheduling;
use crate::segment::{SegmentOptions, Segments};
use crate::stats::JournalStats;
use crate::turns::{self, Turns};
use crate::uring::Uring;

/// What the journal and its flusher share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) segments: Arc<Segments>,
    pub(crate) stats: Arc<JournalStats>,
    pub(crate) published: Arc<Published>,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) epoch: Epoch,
}

/// What the flusher begins with.
pub(crate) struct Flushing {
    pub(crate) shared: Shared,
    geometry: Geometry,
    next: Lsn,
    last_timestamp: Timestamp,
    chain: Chain,
    writers: usize,
    via: WriteVia,
    spins: u32,
    mark_after_idle: Option<Duration>,
    on_durable: OnDurable,
}

type Started = mpsc::Sender<Result<(Arc<Log>, Arc<Turns>), StartError>>;

impl Flushing {
    /// Opens the segments behind what was recovered.
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        options: &JournalOptions,
        recovered: &Recovered,
        on_durable: OnDurable,
    ) -> Result<Self, StartError> {
        let geometry = Geometry::for_segments(options.segment_len_bytes)
            .ok_or(StartError::SegmentLen(options.segment_len_bytes))?;
        disk.create_directory(&options.directory)?;
        let stats = Arc::new(JournalStats::default());
        let segments = Segments::open(
            disk.clone(),
            &options.directory,
            geometry,
            SegmentOptions {
                ahead: options.segments_ahead,
                zero_bytes_per_second_max: options.zero_bytes_per_second_max,
                free_bytes_min: options.free_bytes_min,
            },
            recovered.next,
            stats.clone(),
        )?;
        let shared = Shared {
            segments: Arc::new(segments),
            stats,
            published: Arc::new(Published::new(recovered.next, recovered.chain)),
            stopping: Arc::new(AtomicBool::new(false)),
            epoch: recovered.epoch.next(),
        };
        Ok(Self {
            shared,
            geometry,
            next: recovered.next,
            last_timestamp: recovered.last_timestamp,
            chain: recovered.chain,
            writers: options.writers,
            via: options.write_via,
            spins: options.spins,
            mark_after_idle: options.mark_after_idle,
            on_durable,
        })
    }

    /// The flusher's thread: says that it has started once a first mark is durable.
    pub(crate) fn run(self, started: &Started) {
        scheduling::prompt();
        let uring = match self.via {
            WriteVia::Blocking => None,
            WriteVia::Uring | WriteVia::Auto => Some(Uring::new()),
        };
        match uring {
            Some(Ok(mut uring)) => self.run_with(|files, start, bytes| uring.write(files, start, bytes), started),
            Some(Err(error)) if self.via == WriteVia::Uring => {
                // The receiver waits for exactly this.
                let _ = started.send(Err(StartError::Uring(error)));
            }
            Some(Err(error)) => {
                tracing::warn!(stage = "journal", %error, "io_uring is not permitted here: the journal writes with blocking calls");
                self.run_with(BlockingWriter::write, started);
            }
            None => self.run_with(BlockingWriter::write, started),
        }
    }

    fn run_with(self, write: impl Write, started: &Started) {
        let thread = std::thread::current();
        let bell = Bell::new(move || thread.unpark());
        let waiting = Waiting {
            stats: self.shared.stats.clone(),
            stopping: self.shared.stopping.clone(),
            spins: self.spins,
            mark_after_idle: self.mark_after_idle,
        };
        let (log, turns) = match self.begin(bell.clone()) {
            Ok(begun) => begun,
            Err(error) => {
                let _ = started.send(Err(error.into()));
                return;
            }
        };
        let turns = Arc::new(turns);
        let _ = started.send(Ok((log, turns.clone())));
        waiting.flush_until_stopped(&turns, write, &bell).unwrap_or_else(|error| turns::give_up(&error));
    }

    /// The log in memory, and its flusher behind a first mark.
    fn begin(self, bell: Bell) -> io::Result<(Arc<Log>, Turns)> {
        let log = Arc::new(Log::new(self.geometry, self.next, self.last_timestamp, self.writers, bell));
        let Shared { segments, stats, epoch, published, .. } = self.shared;
        let writer = BlockingWriter::new(segments);
        let flusher = Flusher::new(log.clone(), writer, stats, self.next, epoch, self.chain);
        let turns = Turns::new(flusher, published, self.on_durable);
        turns.mark()?;
        Ok((log, turns))
    }

    /// The log in memory, and who flushes it without a thread.
    pub(crate) fn by_hand(self) -> io::Result<(Arc<Log>, FlusherByHand)> {
        let segments = self.shared.segments.clone();
        let (log, turns) = self.begin(Bell::new(|| {}))?;
        Ok((log, FlusherByHand { turns, segments }))
    }
}

/// How the flusher's thread writes a group to the files that the flusher keeps open.
trait Write: FnMut(&mut BlockingWriter, Lsn, SealedBytes) -> io::Result<()> {}
impl<W: FnMut(&mut BlockingWriter, Lsn, SealedBytes) -> io::Result<()>> Write for W {}

/// What the flusher's thread does without work.
struct Waiting {
    stats: Arc<JournalStats>,
    stopping: Arc<AtomicBool>,
    spins: u32,
    mark_after_idle: Option<Duration>,
}

impl Waiting {
    fn flush_until_stopped(&self, turns: &Turns, mut write: impl Write, bell: &Bell) -> io::Result<()> {
        let mut idle_looks = 0;
        loop {
            match turns.take(|flusher| flusher.step_with(&mut write))? {
                Step::Flushed { .. } => idle_looks = 0,
                Step::Idle if self.stopping.load(Ordering::SeqCst) => return turns.mark(),
                Step::Idle | Step::Filling if idle_looks < self.spins => {
                    idle_looks += 1;
                    std::hint::spin_loop();
                }
                Step::Idle | Step::Filling => {
                    bell.announce_sleep();
                    if !turns.is_ready() && !self.stopping.load(Ordering::SeqCst) {
                        self.stats.sleeps.fetch_add(1, Ordering::Relaxed);
                        match self.mark_after_idle {
                            Some(idle) => std::thread::park_timeout(idle),
                            None => std::thread::park(),
                        }
                    }
                    bell.awake();
                    if let Some(idle) = self.mark_after_idle {
                        turns.mark_after(idle)?;
                    }
                }
            }
        }
    }
}

/// Flushes a journal that has no threads, one group at a time.
pub struct FlusherByHand {
    turns: Turns,
    segments: Arc<Segments>,
}

impl FlusherByHand {
    /// Writes the next group, if there is one, and tells who waits for it.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub fn step(&mut self) -> io::Result<Step> {
        self.turns.take(Flusher::step)
    }

    /// Removes the files of segments that were given up.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn remove_retired(&self) -> io::Result<()> {
        self.segments.remove_retired()
    }
}
