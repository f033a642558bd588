//! Branch: everything behind the sessions, put together, started and stopped in order.
//!
//! ```text
//!   start:  id index opened -> journal recovered -> journal running -> workers, look-ups, feed, checkpointer
//!   stop:   (sessions drained) -> workers -> look-ups, feed -> last checkpoint -> journal
//! ```

mod options;

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam::channel;
use tally_journal::{Disk, OnDurable, RealDisk, StartError};
use tally_ledger::check;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::{Lsn, Timestamp, message};

use crate::accounts::Accounts;
use crate::audit::Auditor;
use crate::bell::Bell;
use crate::checkpointer::Checkpointer;
use crate::engine::Engine;
use crate::holds::Holds;
use crate::ids::{IdError, IdIndex, IdStats, LogPositions};
use crate::intake::{Intake, Lane};
use crate::journal::{Journal, Recovered, RecoveryError, recover};
use crate::link::LinkBell;
use crate::lookup::{LookupQueues, LookupThreads};
use crate::recovery::Rebuilding;
use crate::replies::{self, GateBell, GatedReceiver, ReplyReceiver};
use crate::session::Backend;
use crate::two_phase::{Routes, Said, TwoPhase};
use crate::worker::{Between, Worker, WorkerStats};
use crate::{affinity, clock, feed, lookup, scheduling};

pub use options::BranchOptions;

/// Why a branch does not start.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// A thread or a file could not be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The journal cannot be read back.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] StartError),
    /// The id index cannot be read.
    #[error(transparent)]
    Ids(#[from] IdError),
    /// The id index knows of records that the journal does not have.
    #[error("the id index reaches to {index}, the journal only to {journal}: records that were durable are gone")]
    JournalCutShort {
        /// The highest position in the index.
        index: Lsn,
        /// The end of the journal.
        journal: Lsn,
    },
    /// The books that were recovered do not balance.
    #[error("the recovered books are wrong: {0}")]
    Books(#[from] check::Violation),
}

/// A running branch.
pub struct Branch {
    engine: Arc<Engine>,
    journal: Arc<Journal>,
    intake: Intake,
    lanes: Vec<Arc<Lane>>,
    workers: Vec<JoinHandle<()>>,
    worker_stats: Vec<Arc<WorkerStats>>,
    lookups: LookupThreads,
    lookup_queues: Arc<LookupQueues>,
    feed: JoinHandle<()>,
    checkpointer: Checkpointer,
    recovered: Recovered,
    started_at: u64,
    /// Workers first: they may still ask the look-up threads.
    stop_workers: Arc<AtomicBool>,
    stop_helpers: Arc<AtomicBool>,
    two_phase: Option<Arc<TwoPhase>>,
    auditor: Option<(Auditor, JoinHandle<()>)>,
    link: parking_lot::Mutex<Option<LinkParts>>,
}

/// What the link to the registry is made of.
#[derive(Debug)]
pub struct LinkParts {
    /// What is in doubt, routes, clock.
    pub shared: Arc<TwoPhase>,
    /// What the registry is told behind its records.
    pub says: GatedReceiver<Said>,
    /// What it is told at once.
    pub begins: GatedReceiver<Said>,
    /// Rung when there may be something to say.
    pub bell: LinkBell,
    /// Where instructions go.
    pub lanes: Vec<Arc<Lane>>,
    /// Answers the auditors.
    pub auditor: Auditor,
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Branch({})", self.engine.branch)
    }
}

/// What the branch did and holds, for the metrics page.
#[derive(Clone, Debug, Default)]
pub struct BranchStats {
    /// Transfers posted since the start.
    pub posted: u64,
    /// Transfers refused and recorded since the start.
    pub refused: u64,
    /// Duty cycles with work.
    pub cycles: u64,
    /// Nanoseconds in them.
    pub busy_ns: u64,
    /// Accounts, closed ones included.
    pub accounts: u64,
    /// Open holds.
    pub open_holds: u64,
    /// Of them, holds between branches that stand.
    pub standing_holds: u64,
    /// Ends of holds that the payee's branch has not heard, and since when the oldest.
    pub ends_untold: (u64, Option<Timestamp>),
    /// What waits, per class: control, two-phase commit, interactive, bulk.
    pub intake_depths: [usize; 4],
    /// Questions to the disk that are out.
    pub lookups_out: usize,
    /// Records replayed by the recovery at the start.
    pub recovered_records: u64,
    /// The id index.
    pub ids: IdStats,
}

struct Positions(Arc<Journal>);

impl LogPositions for Positions {
    // What is durable was filled before; asking for less than is accepted only delays a rotation.
    fn accepted(&self) -> Lsn {
        self.0.durable().end()
    }
    fn durable(&self) -> Lsn {
        self.0.durable().end()
    }
}

impl Branch {
    /// Recovers what the folder holds and starts serving it. `sessions` are the bells of the session
    /// threads; one [`ReplyReceiver`] comes back for each.
    ///
    /// # Errors
    /// When the files cannot be trusted or the system has no threads left. Nothing was served then.
    pub fn start(options: BranchOptions, sessions: &[Bell]) -> Result<(Self, Vec<ReplyReceiver>), BranchError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(options.direct_io));
        let (rebuilt, recovered) = rebuild(&options, &disk)?;
        let lanes = lanes(&options);
        let starving: Vec<_> = lanes.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        let shared = options.between.then(|| Arc::new(TwoPhase::new(options.branch)));
        let link_bell = LinkBell::default();
        let sessions: Vec<_> = sessions.iter().cloned().map(GateBell::new).collect();
        let link_gate = GateBell::new(link_bell.bell.clone());
        let gates: Vec<_> = sessions.iter().chain([&link_gate]).cloned().collect();
        let on_durable = on_durable(gates, &lanes, &starving);
        let journal = Journal::start(disk, options.journal.clone(), &recovered, on_durable)?;
        let Rebuilding { accounts, holds, ids, .. } = rebuilt;
        let ids: IdIndex = ids.finish(Arc::new(Positions(journal.clone())));
        let engine = Arc::new(Engine { branch: options.branch, accounts, holds, ids });

        let helpers = options.lookup.threads + 1;
        let (mut senders, receivers) = replies::channels(options.workers + helpers, &sessions);
        let auditor = shared.as_ref().map(|shared| Auditor::start(shared.clone(), journal.clone())).transpose()?;
        let mut between = Vec::new();
        let link = shared.as_ref().zip(auditor.as_ref()).map(|(shared, (auditor, _))| {
            engine
                .holds
                .iter()
                .filter(|hold| engine.awaits_decision(hold))
                .for_each(|hold| shared.doubts.insert_recovered(&hold));
            let channel = || replies::channels::<Said>(options.workers, std::slice::from_ref(&link_gate));
            let ((say, mut says), (begin, mut begins)) = (channel(), channel());
            let senders = say.into_iter().zip(begin);
            between.extend(senders.map(|(say, begin)| Between::new(shared.clone(), say, begin)));
            LinkParts {
                shared: shared.clone(),
                says: says.remove(0),
                begins: begins.remove(0),
                bell: link_bell,
                lanes: lanes.iter().map(|(lane, _)| lane.clone()).collect(),
                auditor: auditor.clone(),
            }
        });
        let mut between = between.into_iter();
        let stop_workers = Arc::new(AtomicBool::new(false));
        let stop_helpers = Arc::new(AtomicBool::new(false));
        let lookup_queues = Arc::new(LookupQueues::new(options.workers, &options.lookup));
        let worker_stats: Vec<_> = lanes.iter().map(|_| Arc::new(WorkerStats::default())).collect();
        let mut workers = Vec::new();
        for (number, (lane, bell_cell)) in lanes.iter().enumerate() {
            let worker = Worker {
                number,
                engine: engine.clone(),
                journal: journal.clone(),
                writer: journal.writer(number),
                lane: lane.clone(),
                lookups: lookup_queues.clone(),
                replies: senders.remove(0),
                idle: options.idle,
                stop: stop_workers.clone(),
                starving: starving[number].clone(),
                stats: worker_stats[number].clone(),
                between: between.next(),
            };
            let core = options.cores.get(number % options.cores.len().max(1)).copied();
            let cell = bell_cell.clone();
            let run = move || {
                cell.set(std::thread::current()).expect("a lane has one worker");
                scheduling::prompt();
                if let Some(core) = core {
                    affinity::pin(core);
                }
                worker.run();
            };
            workers.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(run)?);
        }
        let lanes: Vec<_> = lanes.into_iter().map(|(lane, _)| lane).collect();
        let bells: Vec<_> = lanes.iter().map(|lane| lane.bell.clone()).collect();
        let (feed_sender, feed_receiver) = channel::bounded(feed::WAITING_LEN_MAX);
        let feed_replies = senders.pop().expect("one for the feed");
        let feed = feed::start(journal.clone(), feed_receiver, feed_replies, stop_helpers.clone())?;
        let lookups = lookup::start(&engine, &journal, &lookup_queues, senders, &bells, &stop_helpers)?;
        let checkpointer =
            Checkpointer::start(engine.clone(), journal.clone(), options.checkpoint, recovered.checkpoint.as_ref())?;
        let branch = Self {
            engine,
            journal,
            intake: Intake::new(lanes.clone(), feed_sender),
            lanes,
            workers,
            worker_stats,
            lookups,
            lookup_queues,
            feed,
            checkpointer,
            recovered,
            started_at: clock::wall().as_nanos(),
            stop_workers,
            stop_helpers,
            two_phase: shared,
            auditor,
            link: parking_lot::Mutex::new(link),
        };
        Ok((branch, receivers))
    }

    /// The journal, for its counters.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What is shared about transfers between branches, where the branch has a registry.
    pub fn two_phase(&self) -> Option<&Arc<TwoPhase>> {
        self.two_phase.as_ref()
    }

    /// What the link to the registry needs, once; and the journal, whose durable position lets things be said.
    pub fn take_link(&self) -> Option<(LinkParts, Arc<Journal>)> {
        self.link.lock().take().map(|parts| (parts, self.journal.clone()))
    }

    /// What recovery found.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Asks for a checkpoint now.
    pub fn want_checkpoint(&self) {
        self.checkpointer.want();
    }

    /// The longest duty cycle since this was last asked, in nanoseconds.
    pub fn take_cycle_max_ns(&self) -> u64 {
        let taken = self.worker_stats.iter().map(|worker| worker.cycle_max_ns.swap(0, Ordering::Relaxed));
        taken.max().unwrap_or_default()
    }

    /// Figures for the metrics page.
    pub fn stats(&self) -> BranchStats {
        let mut stats = BranchStats {
            accounts: u64::from(self.engine.accounts.len()),
            open_holds: self.engine.holds.taken() as u64,
            standing_holds: self.engine.holds.standing() as u64,
            ends_untold: {
                let (count, oldest) = self.engine.holds.endings.summary();
                (count as u64, oldest)
            },
            intake_depths: self.intake.depths(),
            lookups_out: self.lookup_queues.out(),
            recovered_records: self.recovered.records,
            ids: self.engine.ids.stats(),
            ..BranchStats::default()
        };
        for worker in &self.worker_stats {
            stats.posted += worker.posted.load(Ordering::Relaxed);
            stats.refused += worker.refused.load(Ordering::Relaxed);
            stats.cycles += worker.cycles.load(Ordering::Relaxed);
            stats.busy_ns += worker.busy_ns.load(Ordering::Relaxed);
        }
        stats
    }

    /// Works off what is queued, makes it durable, and ends every thread. Sessions must push nothing more.
    pub fn stop(self) {
        self.stop_workers.store(true, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.bell.ring());
        for worker in self.workers {
            // A panic aborts the process, so there is no other outcome than an end.
            let _ = worker.join();
        }
        self.stop_helpers.store(true, Ordering::Release);
        self.lookups.join();
        let _ = self.feed.join();
        if let Some((auditor, thread)) = self.auditor {
            auditor.stop();
            let _ = thread.join();
        }
        self.checkpointer.stop();
        self.journal.stop();
    }
}

impl Backend for Branch {
    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn durable(&self) -> DurableLsn {
        self.journal.durable()
    }

    fn status(&self) -> message::Status {
        let stats = self.stats();
        let checkpoint = self.checkpointer.replay_from();
        message::Status {
            branch_id: self.engine.branch.get().into(),
            accepting: u8::from(self.journal.writable() && !self.stop_workers.load(Ordering::Relaxed)),
            reserved: [0; 5],
            accounts: stats.accounts.into(),
            open_holds: stats.open_holds.into(),
            durable: self.journal.durable().end().get().into(),
            checkpoint: checkpoint.get().into(),
            transfers_posted: stats.posted.into(),
            transfers_refused: stats.refused.into(),
            server_time: clock::wall().as_nanos().into(),
            started_at: self.started_at.into(),
            sessions: 0.into(),
            reserved_2: 0.into(),
            reserved_3: [0; 16],
        }
    }

    fn routes(&self) -> Option<Routes> {
        self.two_phase.as_ref().map(|shared| shared.routes())
    }

    fn feed_first(&self) -> Lsn {
        self.journal.oldest()
    }
}

fn rebuild(options: &BranchOptions, disk: &Arc<dyn Disk>) -> Result<(Rebuilding, Recovered), BranchError> {
    let ids = IdIndex::open(&options.ids_dir, options.ids.clone())?;
    let (ids_reach, ids_covered) = (ids.highest_lsn(), ids.covered_lsn());
    let (accounts_max, holds_max, seed) = (options.accounts_max, options.holds_max, options.hash_seed);
    let fresh = move || (Accounts::new(accounts_max, seed), Holds::new(holds_max));
    let mut rebuilding = Rebuilding::new(options.branch, ids, fresh);
    let started = clock::monotonic_nanos();
    let segment_len_bytes = options.journal.segment_len_bytes;
    let recovered = recover(disk, &options.journal.directory, segment_len_bytes, &mut rebuilding)?;
    let is_cut_short =
        ids_covered > recovered.journal.next || (ids_reach != Lsn::ZERO && ids_reach >= recovered.journal.next);
    if is_cut_short {
        return Err(BranchError::JournalCutShort {
            index: ids_reach.max(ids_covered),
            journal: recovered.journal.next,
        });
    }
    check::conservation(rebuilding.accounts.iter())?;
    let took_ms = (clock::monotonic_nanos() - started) / 1_000_000;
    tracing::info!(
        stage = "recovery",
        accounts = rebuilding.accounts.len(),
        records = recovered.records,
        next = %recovered.journal.next,
        torn_tail_bytes = recovered.journal.torn_tail.map_or(0, |tail| tail.len_bytes),
        took_ms,
        "the books are in memory and balance"
    );
    Ok((rebuilding, recovered))
}

type LaneCell = (Arc<Lane>, Arc<OnceLock<std::thread::Thread>>);

/// One lane per worker, with a bell that wakes the worker's thread once it runs.
fn lanes(options: &BranchOptions) -> Vec<LaneCell> {
    let lane = |_| {
        let cell = Arc::new(OnceLock::<std::thread::Thread>::new());
        let sleeper = cell.clone();
        let bell = Bell::new(move || {
            if let Some(thread) = sleeper.get() {
                thread.unpark();
            }
        });
        (Arc::new(Lane::new(&options.intake, bell)), cell)
    };
    (0..options.workers).map(lane).collect()
}

/// After each flush: replies may leave, and a worker that found the log full may go on.
fn on_durable(gates: Vec<GateBell>, lanes: &[LaneCell], starving: &[Arc<AtomicBool>]) -> OnDurable {
    let workers: Vec<_> =
        lanes.iter().zip(starving).map(|((lane, _), starving)| (lane.bell.clone(), starving.clone())).collect();
    Box::new(move |_durable| {
        gates.iter().for_each(GateBell::flushed);
        // Pairs with the fence of a worker that starves: it sees this flush, or its wish is seen here.
        fence(Ordering::SeqCst);
        for (bell, starving) in &workers {
            if starving.load(Ordering::Relaxed) && starving.swap(false, Ordering::Relaxed) {
                bell.ring();
            }
        }
    })
}
