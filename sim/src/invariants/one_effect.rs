//! One transfer id, one effect.

use std::collections::HashMap;

use tally_ledger::journal::record::{Record, RecordBody};
use tally_protocol::{Lsn, TransferId};

use super::{Violation, violated};

/// Which id was used by which record, and which request was told so first.
#[derive(Debug, Default)]
pub struct OneEffect {
    used: HashMap<TransferId, Lsn>,
    first_answer: HashMap<(Lsn, TransferId), usize>,
}

impl OneEffect {
    /// A record.
    ///
    /// # Errors
    /// When it uses an id that another record has used.
    pub fn check_record(&mut self, record: &Record) -> Result<(), Violation> {
        let id = match &record.body {
            RecordBody::Transfer(transfer) => transfer.id,
            RecordBody::Cancelled(id) => *id,
            RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
                return Ok(());
            }
        };
        if let Some(first) = self.used.insert(id, record.lsn) {
            violated!(OneEffect, "id {id} is recorded at {first} and at {}", record.lsn);
        }
        Ok(())
    }

    /// `request` was told that it, and not an earlier one, has used `id` by the record at `lsn`.
    ///
    /// # Errors
    /// When another request was told the same.
    pub fn check_answer(&mut self, id: TransferId, lsn: Lsn, request: usize) -> Result<(), Violation> {
        match self.first_answer.insert((lsn, id), request) {
            Some(other) if other != request => {
                violated!(OneEffect, "requests {other} and {request} were both told that they used {id}")
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Forgets what was recorded at or above `end`.
    pub fn rewind(&mut self, end: Lsn) {
        self.used.retain(|_, lsn| *lsn < end);
        self.first_answer.retain(|(lsn, _), _| *lsn < end);
    }
}
