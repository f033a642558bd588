//! Between recovery and [`Rebuilding`]: ends the replay where a record gives an id a second use.
//!
//! Records are trusted once their checksum fits, and an id with two records stops the branch by an assertion: two
//! effects of one id must not be served. That is a refusal to start and no finding; without this target many inputs with
//! refitted checksums would end there.

use std::collections::HashMap;

use tally_branch_server::journal::{CheckpointMeta, RecoveryTarget, Unfit};
use tally_branch_server::recovery::Rebuilding;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{Account, Hold};
use tally_protocol::{Lsn, TransferId};

/// See the top of the file.
pub struct Careful {
    /// What is filled.
    pub inner: Rebuilding,
    /// A record was met that would stop the branch; it and those behind it were left out.
    pub has_stopped: bool,
    used: HashMap<TransferId, Lsn>,
}

impl Careful {
    /// Fills `inner`.
    pub fn new(inner: Rebuilding) -> Self {
        Self { inner, has_stopped: false, used: HashMap::new() }
    }

    /// The id index takes one record for each id.
    fn is_first_use(&mut self, record: &Record) -> bool {
        let (id, head) = match &record.body {
            // The id of a chain leads to its first member here.
            RecordBody::Transfer(TransferRecord { id, chain, .. }) => (*id, chain.filter(|place| place.is_head)),
            RecordBody::Cancelled(id) => (*id, None),
            RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
                return true;
            }
        };
        let mut ids = [id, head.map_or(id, |place| place.id)].into_iter();
        ids.all(|id| *self.used.entry(id).or_insert(record.lsn) == record.lsn)
    }
}

impl RecoveryTarget for Careful {
    fn restart(&mut self) {
        self.inner.restart();
        self.has_stopped = false;
    }

    fn checkpoint(&mut self, meta: &CheckpointMeta) {
        self.inner.checkpoint(meta);
    }

    fn prefetch_accounts(&self, accounts: &[Account]) {
        self.inner.prefetch_accounts(accounts);
    }

    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.inner.account(account)
    }

    fn hold(&mut self, hold: Hold) {
        self.inner.hold(hold);
    }

    fn prefetch_records(&self, records: &[Record]) {
        self.inner.prefetch_records(records);
    }

    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        self.has_stopped |= !self.is_first_use(record);
        if self.has_stopped { Ok(()) } else { self.inner.record(record) }
    }
}
