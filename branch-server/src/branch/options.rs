//! What a branch is started with, from the checked configuration.

use std::path::PathBuf;

use tally_journal::{JournalOptions, WriteVia};
use tally_protocol::BranchId;

use crate::affinity;
use crate::checkpointer::CheckpointConfig;
use crate::config::{Config, Idle, JournalIo};
use crate::ids::IdConfig;
use crate::intake::IntakeConfig;
use crate::lookup::LookupConfig;
use crate::worker::IdleConfig;

/// Segments that are created and filled with zeros ahead of time: half a minute at 100,000 transfers/s.
const SEGMENTS_AHEAD: usize = 8;
/// How fast they are filled; it shares the disk with the flushes.
const ZERO_BYTES_PER_SECOND_MAX: u64 = 48 << 20;

/// Sizes, places and habits of a branch.
#[derive(Clone, Debug)]
pub struct BranchOptions {
    /// Whether it takes part in transfers between branches.
    pub between: bool,
    /// Which branch.
    pub branch: BranchId,
    /// Worker threads.
    pub workers: usize,
    /// Cores to pin them to, in turn; empty for none.
    pub cores: Vec<core_affinity::CoreId>,
    /// What a worker does without work.
    pub idle: IdleConfig,
    /// Depths of the queues.
    pub intake: IntakeConfig,
    /// Bounds of the look-ups.
    pub lookup: LookupConfig,
    /// Whether large files bypass the page cache, where the file system can.
    pub direct_io: bool,
    /// The journal.
    pub journal: JournalOptions,
    /// Where the id index lies.
    pub ids_dir: PathBuf,
    /// The id index.
    pub ids: IdConfig,
    /// When a checkpoint is due.
    pub checkpoint: CheckpointConfig,
    /// Most accounts.
    pub accounts_max: u32,
    /// Most open holds.
    pub holds_max: usize,
    /// Keeps clients from choosing account ids that collide.
    pub hash_seed: u64,
}

impl BranchOptions {
    /// Reads them off the configuration.
    pub fn of(config: &Config) -> Self {
        let cores = affinity::cores();
        let threads = config.workers.count + config.listen.session_threads;
        let sleep_max = IdleConfig::for_machine(0, 1).sleep_max;
        let idle = match config.workers.idle {
            Idle::Spin => IdleConfig { spins: u32::MAX, yields: 0, sleep_max },
            Idle::Yield => IdleConfig { spins: 0, yields: u32::MAX, sleep_max },
            Idle::Park => IdleConfig::for_machine(cores.len(), threads.max(cores.len())),
        };
        let mut ids = IdConfig { generation_len_max: config.ids.generation_len_max, ..IdConfig::default() };
        if let Some(bytes_per_second) = config.ids.merge_bytes_per_second_max {
            ids.write_bytes_per_second = bytes_per_second;
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system has random numbers");
        Self {
            branch: config.branch.id,
            between: config.registry.is_some(),
            workers: config.workers.count,
            cores: if config.workers.pin { affinity::cores_for(config.workers.count, cores) } else { Vec::new() },
            idle,
            intake: IntakeConfig {
                control_depth: config.workers.control_depth,
                two_phase_depth: config.workers.interactive_depth,
                interactive_depth: config.workers.interactive_depth,
                bulk_depth: config.workers.bulk_depth,
            },
            lookup: LookupConfig::default(),
            direct_io: true,
            journal: JournalOptions {
                directory: config.branch.dir.join("journal"),
                segment_len_bytes: config.journal.segment_len_bytes,
                write_via: match config.journal.io {
                    JournalIo::Auto => WriteVia::Auto,
                    JournalIo::Uring => WriteVia::Uring,
                    JournalIo::Blocking => WriteVia::Blocking,
                },
                free_bytes_min: config.journal.free_bytes_min,
                writers: config.workers.count,
                segments_ahead: SEGMENTS_AHEAD,
                zero_bytes_per_second_max: ZERO_BYTES_PER_SECOND_MAX,
                spins: 0,
                mark_after_idle: None,
            },
            ids_dir: config.branch.dir.join("ids"),
            ids,
            checkpoint: CheckpointConfig {
                interval: config.checkpoint.interval,
                interval_bytes: config.checkpoint.interval_bytes,
                bytes_per_second_max: config.checkpoint.bytes_per_second_max,
                retention_bytes: config.journal.retention_bytes,
                ..CheckpointConfig::default()
            },
            accounts_max: u32::try_from(config.accounts_max).unwrap_or(u32::MAX),
            holds_max: config.holds_max,
            hash_seed: u64::from_le_bytes(seed),
        }
    }
}
