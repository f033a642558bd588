//! A branch's running journal: the journal, its records, and the checkpoints that shorten it.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tally_journal::{Disk, JournalOptions, OnDurable, ReadError, StartError};
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold};
use tally_protocol::Lsn;

use super::checkpoint::{self, CheckpointError, CheckpointMeta, CheckpointRequest};
use super::records::Records;
use super::recovery::Recovered;

/// Everything that a journal does, and what makes it a branch's.
#[derive(Debug)]
pub struct Journal {
    journal: tally_journal::Journal,
    records: Records,
    checkpoint_lsn: Mutex<Lsn>,
    checkpointing: Mutex<()>,
}

impl Deref for Journal {
    type Target = tally_journal::Journal;

    fn deref(&self) -> &tally_journal::Journal {
        &self.journal
    }
}

impl Journal {
    /// Goes on where `recovered` ended; see [`tally_journal::Journal::start`].
    ///
    /// # Errors
    /// When the disk does not take writes, or the options cannot be met.
    pub fn start(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        recovered: &Recovered,
        on_durable: OnDurable,
    ) -> Result<Arc<Self>, StartError> {
        let journal = tally_journal::Journal::start(disk, options, &recovered.journal, on_durable)?;
        let records = Records::new(journal.reader().clone());
        let checkpoint_lsn = recovered.checkpoint.as_ref().map_or(Lsn::ZERO, |meta| meta.replay_from);
        let (checkpoint_lsn, checkpointing) = (Mutex::new(checkpoint_lsn), Mutex::new(()));
        Ok(Arc::new(Self { journal, records, checkpoint_lsn, checkpointing }))
    }

    /// The durable record at `lsn`.
    ///
    /// # Errors
    /// When none begins there, or it is not durable yet, was removed or cannot be read.
    pub fn read_record(&self, lsn: Lsn) -> Result<Record, ReadError> {
        self.records.record(lsn, self.durable())
    }

    /// Passes the durable records from `from` on to `visit`, in order, until it breaks or they end.
    /// `from` may be any position. Returns where to go on: behind the last record visited.
    ///
    /// # Errors
    /// When some of them were removed or cannot be read.
    pub fn scan(&self, from: Lsn, visit: &mut dyn FnMut(&Record) -> ControlFlow<()>) -> Result<Lsn, ReadError> {
        self.records.scan(from, self.durable(), visit)
    }

    /// Writes a checkpoint while the branch serves, and retires what it makes unnecessary. `replay_from` is
    /// [`tally_journal::Journal::durable`], taken before the first account is read. Blocks for seconds: for a helper
    /// thread.
    ///
    /// # Errors
    /// When there is no new checkpoint. The last one stands.
    pub fn write_checkpoint(
        &self,
        request: CheckpointRequest,
        replay_from: DurableLsn,
        accounts: &mut dyn Iterator<Item = Account>,
        holds: &mut dyn Iterator<Item = Hold>,
    ) -> Result<CheckpointMeta, CheckpointError> {
        // One at a time.
        let _alone = self.checkpointing.lock();
        let (disk, options) = (&**self.disk(), self.options());
        let rate = request.bytes_per_second_max;
        let written = checkpoint::write_blocks(disk, &options.directory, rate, accounts, holds)?;
        // All that the iterators saw was reserved before they ended.
        let complete_at = self.end();
        let last_timestamp = self.last_timestamp();
        checkpoint::verify(disk, &options.directory, &written, rate)?;
        if !self.wait_durable_end(complete_at) {
            return Err(CheckpointError::Stopped);
        }
        let (durable, chain) = self.anchor();
        let meta = CheckpointMeta {
            branch: request.branch,
            number: 0,
            segment_len_bytes: options.segment_len_bytes,
            replay_from: replay_from.end(),
            complete_at,
            durable: durable.end(),
            chain,
            epoch: self.epoch(),
            last_timestamp,
            ids_covered: request.ids_covered,
            blocks: 0,
            blocks_check: 0,
            accounts: 0,
            holds: 0,
            counters: request.counters,
        };
        let meta = checkpoint::complete(meta, &written)?;
        checkpoint::publish(disk, &options.directory, &meta)?;
        *self.checkpoint_lsn.lock() = meta.replay_from;
        if let Some(oldest) = checkpoint::remove_older(disk, &options.directory)?
            && let Some(retention_bytes) = request.retention_bytes
        {
            self.retire_below_checkpoint(oldest, retention_bytes)?;
        }
        Ok(meta)
    }

    /// Gives up segments that no kept checkpoint needs, if they are more than is to be retained.
    fn retire_below_checkpoint(&self, oldest: u64, retention_bytes: u64) -> Result<(), CheckpointError> {
        let Ok(meta) = checkpoint::read_manifest(&**self.disk(), &self.options().directory, oldest)? else {
            return Ok(());
        };
        self.retire_below(Lsn::new(meta.replay_from.get().saturating_sub(retention_bytes)))?;
        Ok(())
    }

    /// While this is held no checkpoint is published or removed.
    pub fn hold_checkpoints(&self) -> MutexGuard<'_, ()> {
        self.checkpointing.lock()
    }

    /// Where replay would begin: the newest checkpoint's `replay_from`, or 0.
    pub fn checkpoint_lsn(&self) -> Lsn {
        *self.checkpoint_lsn.lock()
    }
}
