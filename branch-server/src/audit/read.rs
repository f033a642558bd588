//! From the files to the books of a cut.

use std::io;
use std::ops::ControlFlow;

use tally_journal::ReadError;
use tally_ledger::audit::{BranchBooks, Cut};
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold};
use tally_protocol::{Amount, BranchId, Lsn, Timestamp, TransferId};

use crate::journal::checkpoint::{CheckpointMeta, list_manifests, read_manifest};
use crate::journal::recovery::load;
use crate::journal::{Journal, RecoveryTarget, Unfit};

/// Why there are no books.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The journal cannot be read back.
    #[error("{0}")]
    Journal(#[from] ReadError),
    /// Neither checkpoint can be used, and the journal does not reach back to the beginning.
    #[error("no checkpoint from before the cut can be read, and the journal begins at {0}")]
    NoCheckpoint(Lsn),
    /// The branch stops.
    #[error("the branch stops")]
    Stopping,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Taken {
    cut: Cut,
    /// Records up to here were read.
    next: Lsn,
    /// The journal was durable up to here when the cut was passed.
    pub(super) durable: Lsn,
    /// Accounts of the checkpoint that it began from; 0 for none.
    pub(super) from_checkpoint: u64,
    /// Records read behind that, up to the cut.
    pub(super) records: u64,
}

impl Taken {
    /// Adds the books up as of `stamp`, and reads on as far as the journal is durable.
    pub(super) fn take(
        journal: &Journal,
        branch: BranchId,
        stamp: Timestamp,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Self, AuditError> {
        // What is recorded from here on is younger than the cut.
        let end = journal.pass(stamp);
        if !journal.wait_durable_end(end) {
            return Err(AuditError::Stopping);
        }
        let _kept = journal.hold_checkpoints();
        let (disk, directory) = (&**journal.disk(), &journal.options().directory);
        for &number in list_manifests(disk, directory)?.iter().rev() {
            let meta = match read_manifest(disk, directory, number)? {
                Ok(meta) if meta.last_timestamp <= stamp => meta,
                // It holds what came after the cut.
                Ok(_) => continue,
                Err(damage) => {
                    tracing::error!(stage = "audit", number, %damage, "checkpoint cannot be used: trying the one before");
                    continue;
                }
            };
            if let Some(taken) = Self::from_checkpoint(journal, branch, stamp, &meta, end, is_stopping)? {
                return Ok(taken);
            }
        }
        if journal.oldest() > Lsn::ZERO {
            return Err(AuditError::NoCheckpoint(journal.oldest()));
        }
        let mut taken = Self::new(branch, stamp, Lsn::ZERO, Lsn::ZERO, end);
        let behind = taken.read_until_cut(journal, is_stopping)?;
        taken.finish(journal, behind.as_ref(), is_stopping)?;
        Ok(taken)
    }

    /// As [`Self::take`], from one checkpoint; `None` where it is damaged.
    fn from_checkpoint(
        journal: &Journal,
        branch: BranchId,
        stamp: Timestamp,
        meta: &CheckpointMeta,
        end: Lsn,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, AuditError> {
        let mut taken = Self::new(branch, stamp, meta.complete_at, meta.replay_from, end);
        let behind = taken.read_until_cut(journal, is_stopping)?;
        let (disk, directory) = (&**journal.disk(), &journal.options().directory);
        if let Err(error) = load::load(disk, directory, meta.number, &mut Adding(&mut taken.cut)) {
            let number = meta.number;
            tracing::error!(stage = "audit", number, %error, "checkpoint cannot be used: trying the one before");
            return Ok(None);
        }
        taken.from_checkpoint = meta.accounts;
        taken.finish(journal, behind.as_ref(), is_stopping)?;
        Ok(Some(taken))
    }

    fn new(branch: BranchId, stamp: Timestamp, complete_at: Lsn, replay_from: Lsn, durable: Lsn) -> Self {
        let cut = Cut::new(branch, stamp, complete_at);
        Self { cut, next: replay_from, durable, from_checkpoint: 0, records: 0 }
    }

    /// Reads records up to the cut. Returns the first behind it, if there is one.
    fn read_until_cut(
        &mut self,
        journal: &Journal,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<Record>, AuditError> {
        let (cut, records) = (&mut self.cut, &mut self.records);
        let mut behind = None;
        self.next = journal.scan(self.next, &mut |record| {
            if is_stopping() {
                return ControlFlow::Break(());
            }
            if !cut.before(record) {
                behind = Some(record.clone());
                return ControlFlow::Break(());
            }
            *records += 1;
            ControlFlow::Continue(())
        })?;
        if is_stopping() { Err(AuditError::Stopping) } else { Ok(behind) }
    }

    fn finish(
        &mut self,
        journal: &Journal,
        behind: Option<&Record>,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<(), AuditError> {
        self.cut.close();
        if let Some(record) = behind {
            self.cut.after(record);
        }
        self.go_on(journal, is_stopping)
    }

    /// Reads on: how did the legs end that are open so far?
    pub(super) fn go_on(&mut self, journal: &Journal, is_stopping: &dyn Fn() -> bool) -> Result<(), AuditError> {
        if !self.cut.has_open() {
            return Ok(());
        }
        let cut = &mut self.cut;
        self.next = journal.scan(self.next, &mut |record| {
            cut.after(record);
            // What was read stays read, so going on later is as good.
            if is_stopping() || !cut.has_open() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }

    /// How much of a hold the branch had posted by the cut, as the payer's.
    pub(super) fn ended_with(&self, id: TransferId, payee: BranchId) -> Amount {
        self.cut.ended_with(id, payee)
    }

    /// The books, with the legs that are open so far.
    pub(super) fn books(&self) -> BranchBooks {
        self.cut.books()
    }
}

/// Takes what a checkpoint gives.
struct Adding<'a>(&'a mut Cut);

impl RecoveryTarget for Adding<'_> {
    fn restart(&mut self) {}
    fn checkpoint(&mut self, _: &CheckpointMeta) {}
    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.0.account(&account);
        Ok(())
    }
    fn hold(&mut self, hold: Hold) {
        self.0.hold(hold);
    }
    fn record(&mut self, _: &Record) -> Result<(), Unfit> {
        Ok(())
    }
}
