//! Positions and stamps rise, over restarts too.

use tally_ledger::journal::record::Record;
use tally_protocol::{Lsn, Timestamp};

use super::{Violation, hold};

/// The records so far.
#[derive(Debug, Default)]
pub struct Rising {
    stamps: Vec<(Lsn, Timestamp)>,
}

impl Rising {
    /// The next record of the journal.
    ///
    /// # Errors
    /// When its position or its stamp is not above the last one's.
    pub fn check(&mut self, record: &Record) -> Result<(), Violation> {
        if let Some(&(lsn, timestamp)) = self.stamps.last() {
            hold!(Rising, record.lsn > lsn, "position {} after {lsn}", record.lsn);
            hold!(
                Rising,
                record.timestamp > timestamp,
                "stamp {} at {} after {} at {lsn}",
                record.timestamp.as_nanos(),
                record.lsn,
                timestamp.as_nanos()
            );
        }
        self.stamps.push((record.lsn, record.timestamp));
        Ok(())
    }

    /// The positions of the records from `from` on.
    pub fn positions(&self, from: Lsn) -> impl Iterator<Item = Lsn> {
        let first = self.stamps.partition_point(|(lsn, _)| *lsn < from);
        self.stamps[first..].iter().map(|(lsn, _)| *lsn)
    }

    /// Forgets what was recorded at or above `end`. What is recorded there next must still be stamped later than
    /// what stays.
    pub fn rewind(&mut self, end: Lsn) {
        while self.stamps.last().is_some_and(|(lsn, _)| *lsn >= end) {
            self.stamps.pop();
        }
    }
}
