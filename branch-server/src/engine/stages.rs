//! The stages of one transfer, each a type: a stage can only be reached through the one before it.
//!
//! **Invariants:**
//! - Space in the log is secured in `prepare`, before the first lock; after `decide_and_reserve` has taken
//!   a position nothing can fail.
//! - Accounts are locked in rising order of id.
//! - A record is filled only after its effects are published and its id is finished, so whatever lies below
//!   the journal's `accepted` position is in memory already (checkpoints and the id index rely on it).

use tally_journal::Reservation;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{
    Account, Ending, Leg, Outcome, RecordEffect, Reference, Transfer, decide, effective_accounts, permit_transfer,
    transfer_record,
};
use tally_protocol::message::{self, TransferKind};
use tally_protocol::{AccountId, Refusal, Timestamp, TransferId};

use super::{Done, Engine, Step, Writer, refusal_of};
use crate::accounts::{self, Opening, Slot};
use crate::ids::{LookedUp, Reserve};
use crate::lookup::{Asker, Looked};

/// Log space for one transfer, and for a cash account that it may open on the way.
const SECURE_LEN_BYTES: usize = 2 * tally_ledger::journal::record::RECORD_LEN_BYTES_MAX;

/// What became of the first stage.
#[derive(Debug)]
pub enum Prepare<'e> {
    /// Go on.
    Ready(Prepared<'e>),
    /// Refused without a trace.
    NotRecorded(Refusal),
    /// Another worker has the id in hand.
    InFlight,
    /// The disk has to be asked first.
    Lookup,
}

/// A well-formed transfer whose id is reserved, and whose reference and accounts are found.
#[derive(Debug)]
pub struct Prepared<'e> {
    engine: &'e Engine,
    transfer: Transfer,
    reference: Reference,
    /// As of when the disk was asked about the reference.
    reference_looked_up: Option<LookedUp>,
    asker: Asker,
    /// The accounts it is about, or why that cannot be told.
    accounts: Result<(AccountId, AccountId), Refusal>,
    debit: Option<&'e Slot>,
    credit: Option<&'e Slot>,
}

/// The same with its accounts locked.
pub struct Locked<'e> {
    prepared: Prepared<'e>,
    debit: Option<accounts::Locked<'e>>,
    credit: Option<accounts::Locked<'e>>,
    /// Where an account is missing, nobody may open it until the refusal has its position.
    _opening: Option<Opening<'e>>,
}

/// Decided, with a position in the log.
pub struct Reserved<'e> {
    locked: Locked<'e>,
    outcome: Outcome,
    debit: Option<Account>,
    credit: Option<Account>,
    reservation: Reservation,
}

/// Visible to other workers, not yet in the log.
pub struct Published {
    record: Record,
    reservation: Reservation,
}

impl Engine {
    /// Checks the form, reserves the id, finds reference and accounts, and secures what a transfer needs.
    #[inline]
    pub fn prepare(
        &self,
        writer: &mut Writer,
        wire: &message::Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Prepare<'_> {
        let transfer = match Transfer::from_wire(wire, self.branch) {
            Ok(transfer) => transfer,
            Err(refusal) => return Prepare::NotRecorded(refusal),
        };
        self.prepare_formed(writer, transfer, asker, looked, now)
    }

    /// The same for a transfer whose form is checked.
    #[inline(always)]
    pub(super) fn prepare_formed(
        &self,
        writer: &mut Writer,
        transfer: Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Prepare<'_> {
        if let Err(refusal) = permit_transfer(asker.actor.role, &transfer) {
            return Prepare::NotRecorded(refusal);
        }
        if let Err(full) = writer.secure(SECURE_LEN_BYTES as u64) {
            return Prepare::NotRecorded(refusal_of(full));
        }
        let Some((reference, reference_looked_up)) = self.find_reference(&transfer, looked) else {
            return Prepare::Lookup;
        };
        if let Reference::NotNow(refusal) = reference {
            return Prepare::NotRecorded(refusal);
        }
        match self.reserve_id(transfer.id, looked.and_then(|looked| looked.id(transfer.id))) {
            Reserve::New => {}
            Reserve::InFlight => return Prepare::InFlight,
            Reserve::Known(_) | Reserve::MaybeOld => return Prepare::Lookup,
            Reserve::Full => return Prepare::NotRecorded(Refusal::Busy),
        }
        if must_stay_absent(&reference, reference_looked_up.as_ref()) {
            let reserved = self.reserve_id(transfer.reference, reference_looked_up.as_ref());
            if reserved != Reserve::New {
                self.ids.release(transfer.id);
            }
            match reserved {
                Reserve::New => {}
                Reserve::InFlight => return Prepare::InFlight,
                Reserve::Known(_) | Reserve::MaybeOld => return Prepare::Lookup,
                Reserve::Full => return Prepare::NotRecorded(Refusal::Busy),
            }
        }
        if opens_hold(transfer.kind, transfer.leg) && !self.holds.secure_room() {
            // A hold has no reference that would have to be given back.
            self.ids.release(transfer.id);
            return Prepare::NotRecorded(Refusal::CapacityReached);
        }
        let accounts = effective_accounts(&transfer, &reference, self.branch);
        let (debit, credit) = match accounts {
            Ok((debit, credit)) => {
                let guard = crossbeam::epoch::pin();
                let find = |id| self.accounts.find_pinned(id, &guard);
                (
                    find(debit).or_else(|| self.open_house(writer, debit, now)),
                    find(credit).or_else(|| self.open_house(writer, credit, now)),
                )
            }
            Err(_) => (None, None),
        };
        Prepare::Ready(Prepared {
            engine: self,
            transfer,
            reference,
            reference_looked_up,
            asker: *asker,
            accounts,
            debit,
            credit,
        })
    }

    #[inline]
    pub(super) fn reserve_id(&self, id: TransferId, looked_up: Option<&LookedUp>) -> Reserve {
        match looked_up {
            Some(looked_up) => self.ids.reserve_looked_up(id, looked_up),
            None => self.ids.reserve(id),
        }
    }

    /// What the transfer refers to; `None` when only the disk can tell.
    #[inline]
    pub(super) fn find_reference(
        &self,
        transfer: &Transfer,
        looked: Option<&Looked>,
    ) -> Option<(Reference, Option<LookedUp>)> {
        if transfer.reference.is_none() {
            return Some((Reference::NotGiven, None));
        }
        if let Some(hold) = self.holds.get(transfer.reference) {
            return Some((Reference::of_open(hold), None));
        }
        let (reference, looked_up) = looked?.reference(transfer.reference)?;
        // A hold that was open then and is not now has ended since.
        (!matches!(reference, Reference::Open(_))).then_some((reference, Some(looked_up)))
    }
}

impl<'e> Prepared<'e> {
    /// Waits for both accounts' locks.
    #[inline(always)]
    pub fn lock(self) -> Locked<'e> {
        let missing = self.accounts.is_ok() && (self.debit.is_none() || self.credit.is_none());
        let mut prepared = self;
        let opening = missing.then(|| prepared.look_again());
        let (debit, credit) = match (prepared.debit, prepared.credit) {
            (Some(debit), Some(credit)) => {
                let (debit, credit) = accounts::lock_both(debit, credit);
                (Some(debit), Some(credit))
            }
            (debit, credit) => (debit.map(Slot::lock), credit.map(Slot::lock)),
        };
        Locked { prepared, debit, credit, _opening: opening }
    }

    /// As [`Prepared::lock`], but gives itself back instead of waiting.
    #[expect(clippy::result_large_err, reason = "what could not be locked is handed back whole, to be tried again")]
    pub fn try_lock(self) -> Result<Locked<'e>, Self> {
        let mut prepared = self;
        let missing = prepared.accounts.is_ok() && (prepared.debit.is_none() || prepared.credit.is_none());
        let opening = if missing {
            let Some(opening) = prepared.engine.accounts.try_opening() else { return Err(prepared) };
            prepared.find_again();
            Some(opening)
        } else {
            None
        };
        let try_lock = |slot: Option<&'e Slot>| slot.map_or(Some(None), |slot| slot.try_lock().map(Some));
        let Some(debit) = try_lock(prepared.debit) else { return Err(prepared) };
        let Some(credit) = try_lock(prepared.credit) else { return Err(prepared) };
        Ok(Locked { prepared, debit, credit, _opening: opening })
    }

    /// Gives up before anything was locked: the id is free again.
    pub fn abandon(self) {
        self.give_back();
    }

    /// Under the opening lock, so that what is missing now stays missing.
    fn look_again(&mut self) -> Opening<'e> {
        let opening = self.engine.accounts.opening();
        self.find_again();
        opening
    }

    fn find_again(&mut self) {
        if let Ok((debit, credit)) = self.accounts {
            self.debit = self.engine.accounts.find(debit);
            self.credit = self.engine.accounts.find(credit);
        }
    }

    fn give_back(&self) {
        self.engine.ids.release(self.transfer.id);
        self.release_reference();
        if opens_hold(self.transfer.kind, self.transfer.leg) {
            self.engine.holds.give_room_back();
        }
    }
}

impl Prepared<'_> {
    fn release_reference(&self) {
        if must_stay_absent(&self.reference, self.reference_looked_up.as_ref()) {
            self.engine.ids.release(self.transfer.reference);
        }
    }
}

impl<'e> Locked<'e> {
    /// Looks again at what may have changed before the locks were there, runs the rules, and takes a
    /// position in the log.
    #[inline(always)]
    #[expect(clippy::result_large_err, reason = "both ways are taken apart at once, on the stack")]
    pub fn decide_and_reserve(
        self,
        writer: &mut Writer,
        now: Timestamp,
        now_ns: impl FnOnce() -> u64,
    ) -> Result<Reserved<'e>, Step> {
        let prepared = &self.prepared;
        let deadline = prepared.asker.deadline;
        if deadline != 0 && now_ns() > deadline {
            prepared.give_back();
            return Err(Step::NotRecorded(Refusal::DeadlinePassed));
        }
        let looked_up = prepared.reference_looked_up.as_ref();
        if !prepared.engine.still_holds(&prepared.transfer, &prepared.reference, looked_up) {
            prepared.give_back();
            return Err(Step::Lookup);
        }
        let debit = self.debit.as_ref().map(accounts::Locked::load);
        let credit = self.credit.as_ref().map(accounts::Locked::load);
        let (engine, transfer, asker) = (prepared.engine, &prepared.transfer, &prepared.asker);
        let whereabouts = match prepared.reference {
            Reference::Absent => engine.whereabouts_of_named(transfer, asker),
            ref reference => engine.whereabouts((transfer, reference), asker, debit.as_ref(), credit.as_ref()),
        };
        if let Some(step) = whereabouts {
            prepared.give_back();
            return Err(step);
        }
        // The position comes first, because the rules need the stamp that the record will bear. Its length
        // is known whatever they decide, and whatever they decide is recorded.
        let len_bytes = TransferRecord::len_bytes_of(prepared.transfer.is_plain());
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let outcome = match prepared.accounts {
            Ok(_) => decide(
                &prepared.transfer,
                &prepared.reference,
                debit.as_ref(),
                credit.as_ref(),
                &prepared.asker.actor,
                reservation.timestamp(),
            ),
            Err(refusal) => Outcome::refused(refusal, None, None),
        };
        assert!(outcome.refusal.is_none_or(Refusal::consumes_id), "{:?} leaves no trace", outcome.refusal);
        Ok(Reserved { locked: self, outcome, debit, credit, reservation })
    }
}

/// Whether it needs room among the open holds.
pub(super) const fn opens_hold(kind: TransferKind, leg: Leg) -> bool {
    matches!(kind, TransferKind::Hold) || leg.awaits_decision()
}

/// Whether the reference's id has to be reserved: it must not come while we refuse because of its absence. An
/// id that a cancel burnt is absent for good, and cannot be reserved.
pub(super) fn must_stay_absent(reference: &Reference, looked_up: Option<&LookedUp>) -> bool {
    *reference == Reference::Absent && looked_up.is_none_or(|looked_up| looked_up.facts.record.is_none())
}

impl Engine {
    /// Whether the reference is what it was when it was looked up: the accounts that follow from it are
    /// locked by now, and without these locks no hold ends and no transfer is reversed.
    pub(super) fn still_holds(&self, transfer: &Transfer, reference: &Reference, looked_up: Option<&LookedUp>) -> bool {
        match reference {
            // Nor has an account of it gone to another branch.
            Reference::Open(hold) => self.holds.get(hold.id).is_some_and(|open| open == *hold),
            // What the past says does not change, except that a posted transfer may be reversed.
            Reference::Posted(_) => {
                let looked_up = looked_up.expect("posted transfers are found by looking up");
                let known = self.ids.reserve_looked_up(transfer.reference, looked_up);
                matches!(known, Reserve::Known(facts) if facts.ended.is_none())
            }
            // An absent one cannot come: its id is burnt, or reserved by us.
            Reference::NotGiven
            | Reference::Absent
            | Reference::Ended(_)
            | Reference::ReversedBefore
            | Reference::Refused
            | Reference::Neither
            | Reference::NotNow(_) => true,
        }
    }
}

impl Reserved<'_> {
    /// Makes the effects visible and gives the locks back.
    #[inline(always)]
    pub fn publish(self) -> Published {
        let Self { locked, outcome, mut debit, mut credit, reservation } = self;
        let prepared = &locked.prepared;
        let (engine, transfer) = (prepared.engine, &prepared.transfer);
        let (lsn, timestamp) = (reservation.lsn(), reservation.timestamp());
        if let (true, Some(debit), Some(credit)) = (outcome.is_done(), &mut debit, &mut credit) {
            outcome.apply(debit, credit, lsn, timestamp);
            locked.debit.as_ref().expect("it was loaded").publish_sums(debit);
            locked.credit.as_ref().expect("it was loaded").publish_sums(credit);
        }
        let record = transfer_record(transfer, &prepared.reference, engine.branch, &outcome);
        engine.note_effects(&record, lsn, timestamp);
        prepared.release_reference();
        let actor = prepared.asker.actor.customer;
        Published { record: Record { lsn, timestamp, actor, body: RecordBody::Transfer(record) }, reservation }
    }
}

impl Engine {
    /// Holds and ids after a record. Under the locks of both accounts.
    pub(super) fn note_effects(&self, record: &TransferRecord, lsn: tally_protocol::Lsn, timestamp: Timestamp) {
        match RecordEffect::of_transfer(record, lsn, timestamp) {
            RecordEffect::HoldOpened(hold) => self.holds.insert(hold),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => {
                self.holds.remove(id).expect("it was open under these locks");
                self.ids.note_ended(id, lsn);
                if let Some(ending) = Ending::of_transfer(record, lsn, timestamp) {
                    self.holds.note_ending(ending);
                }
            }
            RecordEffect::HoldKept(_) | RecordEffect::HoldRehomed { .. } | RecordEffect::HoldJoining(..) => {
                unreachable!("a decision's record, not a transfer's")
            }
            RecordEffect::Reversed(id) => self.ids.note_ended(id, lsn),
            RecordEffect::None if opens_hold(record.kind, record.leg) => self.holds.give_room_back(),
            RecordEffect::None => {}
        }
        self.ids.finish(record.id, lsn);
    }
}

impl Published {
    /// Writes the record to its place in the log. Its reply may be gated from here on.
    #[inline(always)]
    pub fn fill(self, writer: &mut Writer) -> Done {
        let Self { record, reservation } = self;
        let (lsn, timestamp) = (record.lsn, record.timestamp);
        writer.fill(reservation, |space| record.encode_into(space));
        let RecordBody::Transfer(transfer) = record.body else { unreachable!("built by `publish`") };
        Done::of(lsn, timestamp, &transfer)
    }
}
