//! Records and checkpoints in a journal on a disk in memory that crashes anywhere, and on the real one.

mod checkpoints;
mod reading;
mod refusals;
mod retention;

use std::sync::Arc;

use tally_journal::Disk;
use tally_journal::testing::{Manual, MemoryDisk, SEGMENT_LEN_BYTES as SEGMENT, append, body, directory};
use tally_ledger::journal::record::Record;
use tally_ledger::{Account, Hold, Sums};
use tally_protocol::{AccountId, Amount, CustomerId, Lsn, Timestamp, TransferId};

use super::CheckpointMeta;
use super::recovery::{Recovered, RecoveryError, RecoveryTarget, Unfit, recover};

/// Collects everything that recovery finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Collected {
    accounts: Vec<Account>,
    holds: Vec<Hold>,
    records: Vec<Record>,
    restarts: u32,
}

impl RecoveryTarget for Collected {
    fn restart(&mut self) {
        *self = Self { restarts: self.restarts + 1, ..Self::default() };
    }
    fn checkpoint(&mut self, _: &CheckpointMeta) {}
    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.accounts.push(account);
        Ok(())
    }
    fn hold(&mut self, hold: Hold) {
        self.holds.push(hold);
    }
    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        self.records.push(record.clone());
        Ok(())
    }
}

fn recover_from(disk: &MemoryDisk) -> Result<(Recovered, Collected), RecoveryError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut collected = Collected::default();
    let recovered = recover(&disk, directory(), SEGMENT, &mut collected)?;
    Ok((recovered, collected))
}
