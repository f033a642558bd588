//! What writes a running journal's groups: the flusher, on a thread of its own or by hand.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::group::{Chain, Epoch};
use tally_protocol::{Lsn, Timestamp};

use crate::bell::Bell;
use crate::blocking::BlockingWriter;
use crate::disk::Disk;
use crate::flusher::{Flusher, GroupWriter, Step};
use crate::log::Log;
use crate::published::Published;
use crate::recovery::Recovered;
use crate::running::{JournalOptions, OnDurable, StartError, WriteVia};
use crate::scheduling;
use crate::segment::{SegmentOptions, Segments};
use crate::stats::JournalStats;
use crate::uring::UringWriter;

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

type Started = mpsc::Sender<Result<Arc<Log>, StartError>>;

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
        let segments = self.shared.segments.clone();
        let uring = match self.via {
            WriteVia::Blocking => None,
            WriteVia::Uring | WriteVia::Auto => Some(UringWriter::new(segments.clone())),
        };
        match uring {
            Some(Ok(writer)) => self.run_with(writer, started),
            Some(Err(error)) if self.via == WriteVia::Uring => {
                // The receiver waits for exactly this.
                let _ = started.send(Err(StartError::Uring(error)));
            }
            Some(Err(error)) => {
                tracing::warn!(stage = "journal", %error, "io_uring is not permitted here: the journal writes with blocking calls");
                self.run_with(BlockingWriter::new(segments), started);
            }
            None => self.run_with(BlockingWriter::new(segments), started),
        }
    }

    fn run_with<W: GroupWriter>(self, writer: W, started: &Started) {
        let thread = std::thread::current();
        let bell = Bell::new(move || thread.unpark());
        let (log, mut flusher) = match self.begin(writer, bell.clone()) {
            Ok(begun) => begun,
            Err(error) => {
                let _ = started.send(Err(error.into()));
                return;
            }
        };
        let _ = started.send(Ok(log));
        let result = self.flush_until_stopped(&mut flusher, &bell);
        if let Err(error) = result {
            // What the disk has kept of the group is unknown, and trying again can hide the loss: whoever
            // starts next reads what there is.
            tracing::error!(stage = "journal", %error, "a journal flush failed: stopping at once");
            std::process::abort();
        }
    }

    /// The log in memory, and its flusher behind a first mark.
    fn begin<W: GroupWriter>(&self, writer: W, bell: Bell) -> io::Result<(Arc<Log>, Flusher<W>)> {
        let log = Arc::new(Log::new(self.geometry, self.next, self.last_timestamp, self.writers, bell));
        let Shared { stats, epoch, .. } = &self.shared;
        let mut flusher = Flusher::new(log.clone(), writer, stats.clone(), self.next, *epoch, self.chain);
        self.publish(flusher.mark()?);
        Ok((log, flusher))
    }

    /// The log in memory, and who flushes it without a thread.
    pub(crate) fn by_hand(self) -> io::Result<(Arc<Log>, FlusherByHand)> {
        let (log, flusher) = self.begin(BlockingWriter::new(self.shared.segments.clone()), Bell::new(|| {}))?;
        Ok((log, FlusherByHand { flushing: self, flusher }))
    }

    fn flush_until_stopped<W: GroupWriter>(&self, flusher: &mut Flusher<W>, bell: &Bell) -> io::Result<()> {
        let mut idle_looks = 0;
        let mut mark_at = None;
        loop {
            match flusher.step()? {
                step @ Step::Flushed { .. } => {
                    idle_looks = 0;
                    mark_at = self.mark_after_idle.map(|idle| Instant::now() + idle);
                    self.publish(step);
                }
                Step::Idle if self.shared.stopping.load(Ordering::SeqCst) => {
                    let step = flusher.mark()?;
                    self.publish(step);
                    return Ok(());
                }
                Step::Idle if mark_at.is_some_and(|at| at <= Instant::now()) => {
                    mark_at = None;
                    let step = flusher.mark_if_idle()?;
                    self.publish(step);
                }
                Step::Idle | Step::Filling if idle_looks < self.spins => {
                    idle_looks += 1;
                    std::hint::spin_loop();
                }
                Step::Idle | Step::Filling => {
                    bell.announce_sleep();
                    if !flusher.is_ready() && !self.shared.stopping.load(Ordering::SeqCst) {
                        self.shared.stats.sleeps.fetch_add(1, Ordering::Relaxed);
                        match mark_at {
                            Some(at) => std::thread::park_timeout(at.saturating_duration_since(Instant::now())),
                            None => std::thread::park(),
                        }
                    }
                    bell.awake();
                }
            }
        }
    }

    fn publish(&self, step: Step) {
        match step {
            Step::Flushed { durable, chain } => {
                self.shared.published.publish(durable, chain);
                (self.on_durable)(durable);
            }
            Step::Idle | Step::Filling => {}
        }
    }
}

/// Flushes a journal that has no threads, one group at a time.
pub struct FlusherByHand {
    flushing: Flushing,
    flusher: Flusher<BlockingWriter>,
}

impl FlusherByHand {
    /// Writes the next group, if there is one, and tells who waits for it.
    ///
    /// # Errors
    /// When the disk failed: the journal must not be used any more.
    pub fn step(&mut self) -> io::Result<Step> {
        let step = self.flusher.step()?;
        self.flushing.publish(step);
        Ok(step)
    }

    /// Removes the files of segments that were given up.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn remove_retired(&self) -> io::Result<()> {
        self.flushing.shared.segments.remove_retired()
    }
}
