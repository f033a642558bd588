//! The checkpointer's part, cut into steps: the accounts are read a few at a time while transfers go on, then the
//! holds, then the file is written, verified, waited for and published.

use tally_branch_server::engine::Engine;
use tally_branch_server::journal::checkpoint::{self, CheckpointMeta, WrittenBlocks};
use tally_ledger::{Account, Hold};
use tally_protocol::{Lsn, Timestamp};

use super::World;
use super::boot::SEGMENT_LEN_BYTES;
use super::running::Running;
use crate::planted::Bug;
use crate::trace::trace;

/// How far the checkpoint has come.
#[derive(Default)]
pub(super) enum Checkpointing {
    /// None is being made.
    #[default]
    Idle,
    /// The id index is to write out what lies below.
    Ids { replay_from: Lsn },
    /// Accounts are read, in order of opening.
    Reading { replay_from: Lsn, accounts: Vec<Account> },
    /// All was read.
    Read { replay_from: Lsn, accounts: Vec<Account>, holds: Vec<Hold> },
    /// The blocks are in the file.
    Written { replay_from: Lsn, complete_at: Lsn, last_timestamp: Timestamp, written: WrittenBlocks, is_verified: bool },
}

impl Running<'_> {
    /// One step of the checkpointer.
    pub(super) fn checkpoint_step(&mut self, world: &mut World) -> bool {
        let next = match std::mem::take(&mut self.checkpointing) {
            Checkpointing::Idle if self.is_draining => Some(Checkpointing::Idle),
            Checkpointing::Idle => {
                let replay_from = self.journal.published.durable().end();
                trace!(world.trace, "checkpoint begins, replay from {replay_from}");
                Some(Checkpointing::Ids { replay_from })
            }
            Checkpointing::Ids { replay_from } if self.engine.ids.covered_lsn() < replay_from => {
                self.checkpointing = Checkpointing::Ids { replay_from };
                return false;
            }
            Checkpointing::Ids { replay_from } => Some(Checkpointing::Reading { replay_from, accounts: Vec::new() }),
            Checkpointing::Reading { replay_from, accounts } => {
                Some(read_some(world, self.engine, replay_from, accounts))
            }
            Checkpointing::Read { replay_from, accounts, holds } => self.write(world, replay_from, accounts, holds),
            Checkpointing::Written { replay_from, complete_at, last_timestamp, written, is_verified: false } => {
                let directory = &world.setting.directory;
                let verified = checkpoint::verify(&world.disk, directory, &written, None);
                verified.is_ok().then_some(Checkpointing::Written {
                    replay_from,
                    complete_at,
                    last_timestamp,
                    written,
                    is_verified: true,
                })
            }
            Checkpointing::Written { replay_from, complete_at, last_timestamp, written, is_verified: true } => {
                let is_early = world.is_planted(Bug::CheckpointTooEarly);
                if !is_early && !self.journal.published.durable().reaches(complete_at) {
                    self.checkpointing =
                        Checkpointing::Written { replay_from, complete_at, last_timestamp, written, is_verified: true };
                    return false;
                }
                self.publish(world, replay_from, complete_at, last_timestamp, &written);
                Some(Checkpointing::Idle)
            }
        };
        // A checkpoint that failed is given up; the last one stands.
        self.checkpointing = next.unwrap_or_default();
        true
    }

    fn write(
        &self,
        world: &mut World,
        replay_from: Lsn,
        mut accounts: Vec<Account>,
        mut holds: Vec<Hold>,
    ) -> Option<Checkpointing> {
        if world.is_planted(Bug::CheckpointSkipsAccount) {
            accounts.pop();
        }
        if world.is_planted(Bug::CheckpointSkipsHolds) {
            holds.clear();
        }
        let directory = &world.setting.directory;
        let (mut accounts, mut holds) = (accounts.into_iter(), holds.into_iter());
        let written = checkpoint::write_blocks(&world.disk, directory, None, &mut accounts, &mut holds).ok()?;
        let (complete_at, last_timestamp) = (self.journal.log.end(), self.journal.log.last_timestamp());
        trace!(world.trace, "checkpoint written, complete at {complete_at}");
        Some(Checkpointing::Written { replay_from, complete_at, last_timestamp, written, is_verified: false })
    }

    fn publish(
        &self,
        world: &mut World,
        replay_from: Lsn,
        complete_at: Lsn,
        last_timestamp: Timestamp,
        written: &WrittenBlocks,
    ) {
        let (durable, chain) = self.journal.published.anchor();
        let mut meta = CheckpointMeta {
            branch: self.engine.branch,
            number: 0,
            segment_len_bytes: SEGMENT_LEN_BYTES,
            replay_from,
            complete_at,
            durable: durable.end(),
            chain,
            epoch: self.journal.recovered.journal.epoch.next(),
            last_timestamp,
            ids_covered: self.engine.ids.covered_lsn(),
            blocks: 0,
            blocks_check: 0,
            accounts: 0,
            holds: 0,
            counters: Vec::new(),
        };
        if world.is_planted(Bug::CheckpointTooEarly) {
            meta.complete_at = meta.durable.min(complete_at);
        }
        if world.is_planted(Bug::ReplayFromTooLate) {
            meta.replay_from = meta.complete_at;
        }
        let directory = &world.setting.directory;
        let Ok(meta) = checkpoint::complete(meta, written) else { return };
        let published = checkpoint::publish(&world.disk, directory, &meta);
        let published = published.and_then(|()| checkpoint::remove_older(&world.disk, directory).map(|_| ()));
        trace!(world.trace, "checkpoint {} published: {}", meta.number, published.is_ok());
    }
}

fn read_some(world: &mut World, engine: &Engine, replay_from: Lsn, mut accounts: Vec<Account>) -> Checkpointing {
    let count = world.random.between(1, 4) as usize;
    let from = accounts.len();
    accounts.extend(engine.accounts.iter().skip(from).take(count));
    if accounts.len() < engine.accounts.len() as usize {
        return Checkpointing::Reading { replay_from, accounts };
    }
    let mut holds: Vec<Hold> = engine.holds.iter().collect();
    // The table's order is by a hash that differs from run to run; the file's must not.
    holds.sort_by_key(|hold| hold.id);
    trace!(world.trace, "checkpoint has read {} accounts, {} holds", accounts.len(), holds.len());
    Checkpointing::Read { replay_from, accounts, holds }
}
