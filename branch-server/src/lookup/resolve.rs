//! What the id index and the journal together know of a transfer id. Blocking: for look-up threads only.

use tally_journal::ReadError;
use tally_ledger::journal::record::{Record, RecordBody};
use tally_ledger::{Ended, Leg, Reference};
use tally_protocol::message::TransferKind;
use tally_protocol::{BranchId, Lsn, Refusal, TransferId};

use crate::engine::Engine;
use crate::ids::LookedUp;
use crate::journal::Journal;

/// The disk did not give what the id index says is there.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The id index could not be read.
    #[error("id index: {0}")]
    Ids(#[from] crate::ids::IdError),
    /// The journal could not be read.
    #[error("journal: {0}")]
    Journal(#[from] ReadError),
    /// The record at that position is of another kind than the index says.
    #[error("the record at {lsn} does not belong to transfer {id}")]
    Mismatch {
        /// The id that was asked for.
        id: TransferId,
        /// Where its record should be.
        lsn: Lsn,
    },
}

/// What became of a transfer id, durably.
#[derive(Debug)]
pub(super) struct Known {
    /// The record that used it: a transfer, posted or refused, or a cancel. `None`: never used.
    pub(super) record: Option<Record>,
    /// What a later record did to it, and that record.
    pub(super) ended: Option<(Ended, Record)>,
    /// Whether it is a part of a hold between branches that stands, or stood.
    pub(super) is_kept: bool,
    /// Whether the record is that of another id: this one is the id of its chain, of which the first member here is another
    /// one.
    pub(super) is_alias: bool,
    /// As of when.
    pub(super) looked_up: LookedUp,
}

/// A transfer id that was used.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The record that used it.
    pub(super) record: Record,
    /// What a later record did to it, and that record.
    pub(super) ended: Option<(Ended, Record)>,
    /// See [`Known::is_kept`].
    pub(super) is_kept: bool,
}

/// Where records are read from: the journal, or the simulator's disk.
pub trait RecordReader {
    /// The record at `lsn`, once it is durable.
    ///
    /// # Errors
    /// When it cannot be read, or never becomes durable.
    fn read_durable(&self, lsn: Lsn) -> Result<Record, ReadError>;
}

impl RecordReader for Journal {
    fn read_durable(&self, lsn: Lsn) -> Result<Record, ReadError> {
        self.wait_durable(lsn);
        self.read_record(lsn)
    }
}

/// Reads the past.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a, R> {
    /// Ids and open holds.
    pub(super) engine: &'a Engine,
    /// The records.
    pub(super) reader: &'a R,
}

impl<R: RecordReader> Resolver<'_, R> {
    /// What became of `id`; waits until that is durable.
    pub(super) fn known(&self, id: TransferId) -> Result<Known, ResolveError> {
        let known = self.known_once(id)?;
        if let Some(member) = known.record.as_ref().and_then(|record| member_of(id, record)) {
            // What became of the chain is what became of that member.
            return Ok(Known { looked_up: known.looked_up, is_alias: true, ..self.known(member)? });
        }
        if known.is_kept || known.ended.is_some() || !known.record.as_ref().is_some_and(is_part_of_hold) {
            return Ok(known);
        }
        match self.engine.holds.get(id) {
            Some(hold) if hold.is_in_doubt() => Ok(known),
            Some(hold) => {
                // What let it stand has to be durable before anybody is told.
                self.reader.read_durable(hold.lsn)?;
                Ok(Known { is_kept: true, ..known })
            }
            // It has ended since it was looked up.
            None => self.known_once(id),
        }
    }

    fn known_once(&self, id: TransferId) -> Result<Known, ResolveError> {
        let looked_up = self.engine.ids.lookup_on_disk(id)?;
        let record = looked_up.facts.record.map(|lsn| self.record_of(id, lsn)).transpose()?;
        let ended = looked_up.facts.ended.map(|lsn| self.ended(id, lsn)).transpose()?;
        let is_kept =
            matches!(ended, Some((Ended::Hold(_) | Ended::Gone(_), _))) && record.as_ref().is_some_and(is_part_of_hold);
        Ok(Known { record, ended, is_kept, is_alias: false, looked_up })
    }

    /// What a settle, void or reversal finds under its `reference`; with the branch that ends it, where that is another one.
    pub(super) fn reference(
        &self,
        reference: TransferId,
    ) -> Result<(Reference, LookedUp, Option<BranchId>), ResolveError> {
        let known = self.known(reference)?;
        let ender = ender_of(&known);
        let found = match &known.record {
            // What was sent there is known there.
            Some(_) if ender.is_some() => Reference::NotNow(Refusal::HoldElsewhere),
            Some(record) => Reference::of_record(
                &record.body,
                record.lsn,
                record.timestamp,
                known.ended.as_ref().map(|(ended, _)| *ended),
            ),
            None => Reference::Absent,
        };
        Ok((found, known.looked_up, ender))
    }

    fn record_of(&self, id: TransferId, lsn: Lsn) -> Result<Record, ResolveError> {
        let record = self.reader.read_durable(lsn)?;
        let is_it = match &record.body {
            RecordBody::Transfer(transfer) => transfer.id == id || member_of(id, &record).is_some(),
            RecordBody::Cancelled(cancelled) => *cancelled == id,
            RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
                false
            }
        };
        if is_it { Ok(record) } else { Err(ResolveError::Mismatch { id, lsn }) }
    }

    fn ended(&self, id: TransferId, lsn: Lsn) -> Result<(Ended, Record), ResolveError> {
        let record = self.reader.read_durable(lsn)?;
        let is_it = match &record.body {
            RecordBody::Transfer(transfer) => transfer.reference == id,
            RecordBody::Expired(hold) | RecordBody::Decided(_, hold) => hold.id == id,
            RecordBody::Rehomed(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => false,
        };
        let ended = Ended::of_record(&record.body).filter(|_| is_it).ok_or(ResolveError::Mismatch { id, lsn })?;
        Ok((ended, record))
    }
}

/// The first member here of chain `id`, if the record is that member's and it has another id.
fn member_of(id: TransferId, record: &Record) -> Option<TransferId> {
    match &record.body {
        RecordBody::Transfer(transfer) if transfer.id != id => {
            transfer.chain.filter(|place| place.is_head && place.id == id).map(|_| transfer.id)
        }
        _ => None,
    }
}

/// The branch that ended a hold, or will, where this one has only the payee's part.
fn ender_of(known: &Known) -> Option<BranchId> {
    let part = match (&known.record.as_ref()?.body, known.ended.as_ref()) {
        (_, Some((Ended::Gone(branch), _))) => return Some(*branch),
        // A client has ended it here: whatever it was made as, this has become its payer's branch.
        (_, Some((Ended::Hold(_), Record { body: RecordBody::Transfer(_), .. }))) => return None,
        // It was to come here with an account, and did not.
        (RecordBody::Transfer(record), Some((Ended::Decided(Some(_)), _))) if record.came_along() => {
            return Some(record.peer());
        }
        // Given back: it is nowhere.
        (RecordBody::Transfer(_), Some((Ended::Decided(Some(_)), _))) => return None,
        // An account of it has moved since it was made here.
        (_, Some((Ended::Hold(_), Record { body: RecordBody::Decided(_, last) | RecordBody::Expired(last), .. }))) => {
            last
        }
        (RecordBody::Transfer(record), _) if record.kind == TransferKind::Hold && record.refusal.is_none() => record,
        _ => return None,
    };
    (part.leg == Leg::Destination).then(|| part.peer())
}

/// Whether the record is of a hold whose other account is at another branch, and was not refused here.
fn is_part_of_hold(record: &Record) -> bool {
    matches!(&record.body, RecordBody::Transfer(transfer) if transfer.is_prepared() && transfer.kind == TransferKind::Hold)
}
