//! What the tests that drive a branch without sockets have in common.

use std::path::Path;
use std::time::Duration;

use tally_branch_server::branch::BranchOptions;
use tally_branch_server::checkpointer::CheckpointConfig;
use tally_branch_server::ids::IdConfig;
use tally_branch_server::intake::IntakeConfig;
use tally_branch_server::lookup::LookupConfig;
use tally_branch_server::worker::IdleConfig;
use tally_journal::JournalOptions;
use tally_protocol::BranchId;

/// A small branch of two workers in `dir`; `between`: whether it has a registry.
pub(crate) fn options(dir: &Path, branch: BranchId, between: bool) -> BranchOptions {
    let mut journal = JournalOptions::new(dir.join("journal"), 2);
    journal.segment_len_bytes = 8 << 20;
    journal.free_bytes_min = 1 << 20;
    journal.segments_ahead = 1;
    BranchOptions {
        between,
        branch,
        workers: 2,
        cores: Vec::new(),
        idle: IdleConfig { spins: 0, yields: 0, sleep_max: Duration::from_millis(5) },
        intake: IntakeConfig::default(),
        lookup: LookupConfig::default(),
        direct_io: true,
        journal,
        ids_dir: dir.join("ids"),
        // Small, so that ids go to disk and are looked up there.
        ids: IdConfig { generation_len_max: 256, shard_count: 4, ..IdConfig::default() },
        checkpoint: CheckpointConfig { interval: Duration::from_millis(300), ..CheckpointConfig::default() },
        accounts_max: 1_000,
        holds_max: 100,
        hash_seed: 42,
    }
}
