//! One life of the branch: recovery, then steps until power fails or all is done.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tally_branch_server::accounts::Accounts;
use tally_branch_server::engine::Engine;
use tally_branch_server::holds::Holds;
use tally_branch_server::ids::{KeeperByHand, LogPositions};
use tally_branch_server::journal::Records;
use tally_branch_server::journal::{Recovered, RecoveryError, recover};
use tally_branch_server::recovery::Rebuilding;
use tally_journal::Reader;
use tally_journal::bell::Bell;
use tally_journal::blocking::BlockingWriter;
use tally_journal::flusher::{Flusher, Step};
use tally_journal::log::Log;
use tally_journal::published::Published;
use tally_journal::segment::{SegmentOptions, Segments, segment_path};
use tally_journal::{Disk, JournalStats};
use tally_ledger::journal::cursor::{BLOCK_LEN_BYTES, Geometry};
use tally_ledger::journal::group::{GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::{Account, Hold};
use tally_protocol::{Lsn, Timestamp};

use super::flush::{Line, ListeningWriter};
use super::recovery::Target;
use super::running::Running;
use super::{End, World};
use crate::disk::Faults;
use crate::invariants::{Violation, hold, violated};
use crate::planted::Bug;
use crate::trace::trace;

/// The smallest that the journal allows, so that a run crosses several.
pub(super) const SEGMENT_LEN_BYTES: u64 = 1 << 20;
pub(super) const ACCOUNTS_MAX: u32 = 512;

/// The journal, without its threads.
pub(super) struct Journal {
    pub(super) log: Arc<Log>,
    pub(super) flusher: Flusher<ListeningWriter>,
    pub(super) published: Arc<Published>,
    pub(super) records: Records,
    pub(super) line: Line,
    pub(super) recovered: Recovered,
    pub(super) ids_keeper: KeeperByHand,
}

struct Positions {
    published: Arc<Published>,
}

impl LogPositions for Positions {
    fn accepted(&self) -> Lsn {
        self.published.durable().end()
    }
    fn durable(&self) -> Lsn {
        self.published.durable().end()
    }
}

pub(super) fn geometry() -> Geometry {
    Geometry::for_segments(SEGMENT_LEN_BYTES).expect("it is one that the journal allows")
}

impl World {
    /// One life.
    pub(super) fn boot(&mut self) -> Result<End, Violation> {
        self.plan_recovery_faults();
        let Some((engine, mut journal)) = self.start()? else { return Ok(End::Crashed) };
        self.plan_faults();
        let steps = self.random.between(self.setting.steps_per_boot / 2, self.setting.steps_per_boot * 2);
        let is_last = self.crashes > 0 && self.trace.count() + steps >= self.options.events_min;
        let mut running = Running::new(self, &engine, &mut journal);
        if is_last { running.run_to_the_end(self, steps) } else { running.run_until_crash(self, steps) }
    }

    /// A life that only looks at what is there.
    pub(super) fn boot_once_more(&mut self) -> Result<(), Violation> {
        match self.start()? {
            Some(_) => Ok(()),
            None => violated!(Recoverable, "the branch does not start on an undamaged disk"),
        }
    }

    fn plan_recovery_faults(&mut self) {
        if self.crashes > 0 && self.random.one_in(3) {
            let faults = Faults { power_off_after: Some(self.random.below(12)), error_after: None };
            self.disk.set_faults(faults);
        }
    }

    fn plan_faults(&mut self) {
        let steps = self.setting.steps_per_boot;
        let power_off_after = self.random.one_in(2).then(|| self.random.below(steps));
        let error_after = self.random.one_in(6).then(|| self.random.below(steps));
        self.disk.set_faults(Faults { power_off_after, error_after });
    }

    /// Recovers the branch, and audits what it has recovered. `None` when power failed meanwhile.
    fn start(&mut self) -> Result<Option<(Engine, Journal)>, Violation> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        match self.try_start(&disk) {
            Ok(started) => started.map(Some),
            Err(_) if self.disk.is_down() => Ok(None),
            Err(error) => violated!(Recoverable, "the branch does not start: {error}"),
        }
    }

    #[allow(clippy::type_complexity)]
    fn try_start(&mut self, disk: &Arc<dyn Disk>) -> Result<Result<(Engine, Journal), Violation>, RecoveryError> {
        let directory = self.setting.directory.clone();
        disk.create_directory(&directory)?;
        let bug = self.options.bug;
        self.repair_last_group();
        let (ids, ids_keeper) = self.ids.open().map_err(|error| io::Error::other(error.to_string()))?;
        let holds_max = self.setting.holds_max;
        let fresh = move || (Accounts::new(ACCOUNTS_MAX, 1), Holds::new(holds_max));
        let mut target = Target::new(Rebuilding::new(self.setting.branch, ids, fresh), bug);
        let mut recovered = recover(disk, &directory, SEGMENT_LEN_BYTES, &mut target)?;
        let rebuilt = target.inner;
        if bug == Some(Bug::StampsGoBack) {
            recovered.journal.last_timestamp = Timestamp::default();
        }
        trace!(
            self.trace,
            "recovered to {}: {} records, checkpoint {:?}, torn tail {:?}",
            recovered.journal.next,
            recovered.records,
            recovered.checkpoint.as_ref().map(|meta| meta.number),
            recovered.journal.torn_tail.map(|tail| tail.len_bytes)
        );
        let (mut next, chain) = (recovered.journal.next, recovered.journal.chain);
        let audited = next;
        if bug == Some(Bug::TailOverwritten) && next.get() > 2 * BLOCK_LEN_BYTES {
            next = Lsn::new(next.get() - BLOCK_LEN_BYTES);
        }
        let stats = Arc::new(JournalStats::default());
        let options = SegmentOptions { ahead: 1, zero_bytes_per_second_max: u64::MAX, free_bytes_min: 0 };
        let segments = Segments::open(disk.clone(), &directory, geometry(), options, next, stats.clone())?;
        let segments = Arc::new(segments);
        let bell = Bell::new(|| {});
        let log = Arc::new(Log::new(geometry(), next, recovered.journal.last_timestamp, self.setting.workers, bell));
        let line: Line = Rc::default();
        let writer = ListeningWriter::new(BlockingWriter::new(segments.clone()), line.clone(), bug);
        let mut flusher = Flusher::new(log.clone(), writer, stats, next, recovered.journal.epoch.next(), chain);
        let published = Arc::new(Published::new(next, chain));
        let records = Records::new(Arc::new(Reader::open(disk.clone(), directory, geometry())?));
        let Rebuilding { accounts, holds, ids, .. } = rebuilt;
        let positions = Positions { published: published.clone() };
        let ids = ids.finish(Arc::new(positions));
        let engine = Engine { branch: self.setting.branch, accounts, holds, ids };
        if let Err(violation) = self.check_recovered(&engine, audited) {
            return Ok(Err(violation));
        }
        if let Step::Flushed { durable, chain } = flusher.mark()? {
            published.publish(durable, chain);
        }
        line.borrow_mut().clear();
        self.last_group = None;
        self.audit.handle_durable(published.durable().end());
        if self.random.one_in(4)
            && let Err(violation) = self.damage_a_copy(next)
        {
            return Ok(Err(violation));
        }
        Ok(Ok((engine, Journal { log, flusher, published, records, line, recovered, ids_keeper })))
    }

    /// The planted bug "torn tail accepted": as if the checksum of a torn group were right.
    fn repair_last_group(&self) {
        let Some((start, group, false)) = &self.last_group else { return };
        if !self.is_planted(Bug::TornTailAccepted) {
            return;
        }
        let path = segment_path(&self.setting.directory, start / SEGMENT_LEN_BYTES);
        let offset = (start % SEGMENT_LEN_BYTES) as usize;
        let Some(bytes) = self.disk.contents(&path) else { return };
        let Ok((header, _)) = GroupHeader::peek(group) else { return };
        let mut head = [0; GROUP_HEADER_LEN_BYTES];
        header.seal(&mut head, &bytes[offset + GROUP_HEADER_LEN_BYTES..offset + header.len_bytes()]);
        self.disk.put(&path, offset, &head);
    }

    fn check_recovered(&mut self, engine: &Engine, next: Lsn) -> Result<(), Violation> {
        let accounts: Vec<Account> = engine.accounts.iter().collect();
        let holds: Vec<Hold> = engine.holds.iter().collect();
        self.audit.recovered(next, &accounts, &holds)?;
        for id in self.audit.ids() {
            let facts = self.audit.id_facts(id);
            let known = match engine.ids.lookup_on_disk(id) {
                Ok(looked_up) => looked_up.facts,
                Err(error) => violated!(Recoverable, "id {id} cannot be looked up: {error}"),
            };
            hold!(
                ReplayEqualsServed,
                (known.record, known.ended) == (facts.record, facts.ended),
                "id {id}: served {facts:?}, recovered {known:?}"
            );
        }
        Ok(())
    }
}
