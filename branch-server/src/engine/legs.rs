//! Legs: this branch's part of a transfer between branches. Prepared as a hold that only a decision ends.
//!
//! A leg goes through the stages of every transfer; what differs is which accounts follow from it (`effective_accounts`)
//! and that it is held instead of posted. The decision is a record of its own, like the expiry of a hold; so is the end of a
//! hold that stood, at the payee's branch.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::Decision;
use tally_ledger::{Ending, Hold, HoldEnd, HoldStage, Leg, Transfer, decide_leg, end_leg, hold_end_record, leg};
use tally_protocol::message;
use tally_protocol::{Amount, BranchId, CustomerId, Refusal, Timestamp, TransferId};

use super::{Done, Engine, Moved, Step, Writer};
use crate::accounts;
use crate::lookup::{Asker, Looked};

/// How far a leg came.
#[derive(Clone, Copy, Debug)]
pub enum LegStep {
    /// Held and recorded; the registry decides.
    Prepared(Done),
    /// Refused and recorded.
    Refused(Done),
    /// It was held before, or something else under the same id: [`Hold::attempt`] says which.
    Held(Hold),
    /// Refused without a trace.
    NotRecorded(Refusal),
    /// Another worker has the id in hand.
    InFlight,
    /// The disk has to be asked first.
    Lookup,
    /// An account of it has moved. Nothing was recorded.
    Moved(Moved),
}

/// What became of a decision.
#[derive(Clone, Copy, Debug)]
pub enum Decided {
    /// The leg was ended just now, or let stand: the record, with the hold as it was.
    Now(Done, Hold),
    /// It is a hold that was let stand before.
    Standing(Hold),
    /// No such leg is open here: ended before, or never held.
    NotOpen,
    /// It is a member of a chain, or came along with an account that is not here yet: decided with that, and not alone.
    NotAlone,
    /// The log has no room just now.
    NoRoom,
}

/// What became of the end of a hold that the payer's branch has told.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// Carried out just now: the record, with the hold as it was.
    Now(Done, Hold),
    /// No such hold is open here: ended before, or never held.
    NotOpen,
    /// The log has no room just now.
    NoRoom,
    /// An account of it is on its way between branches: it will be told again.
    Later,
    /// What is open here is no hold of that branch, or less than what was posted there.
    Impossible,
}

impl Engine {
    /// Prepares the source's part: takes one transfer to an account at `peer` through all stages.
    pub fn prepare_source(
        &self,
        writer: &mut Writer,
        (wire, peer): (&message::Transfer, BranchId),
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> LegStep {
        let transfer = match Transfer::from_wire_between(wire, self.branch, peer, self.guests_of(wire)) {
            Ok(transfer) => transfer,
            Err(refusal) => return LegStep::NotRecorded(refusal),
        };
        self.leg(writer, transfer, asker, looked, now)
    }

    /// Prepares the destination's part of a transfer that `wire` tells as its source, `peer`, recorded it.
    pub fn prepare_destination(
        &self,
        writer: &mut Writer,
        (wire, peer): (&message::Transfer, BranchId),
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> LegStep {
        let transfer = match Transfer::from_source(wire, self.branch, peer, self.guests_of(wire)) {
            Ok(transfer) => transfer,
            // Its source believes that the account is here.
            Err(Refusal::WrongBranch) => return LegStep::NotRecorded(Refusal::CreditAccountMoved),
            Err(refusal) => return LegStep::NotRecorded(refusal),
        };
        if let Some(hold) = self.holds.get(transfer.id) {
            if !self.is_alone(&hold) {
                return LegStep::NotRecorded(Refusal::IdAlreadyUsed);
            }
            // Its payer has come since, or it stands, or it is another hold: its record knows.
            if hold.has_joined() || hold.leg == transfer.leg && !hold.is_in_doubt() {
                return LegStep::Lookup;
            }
            return if hold.leg == transfer.leg {
                LegStep::Held(hold)
            } else {
                LegStep::NotRecorded(Refusal::IdAlreadyUsed)
            };
        }
        match self.leg(writer, transfer, &Asker::bank(), looked, now) {
            // The source's id is used up whatever it hears, so it must hear something that stays.
            LegStep::NotRecorded(Refusal::AccountMoving) | LegStep::Moved(_) => {
                LegStep::NotRecorded(Refusal::CreditAccountMoved)
            }
            step => step,
        }
    }

    /// Whether nothing but its own id decides it, or did: not a chain, nor the move of an account that it came along with.
    fn is_alone(&self, hold: &Hold) -> bool {
        hold.chain.is_none() && (!hold.is_in_doubt() || self.awaits_decision(hold))
    }

    #[inline(never)]
    fn leg(
        &self,
        writer: &mut Writer,
        transfer: Transfer,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> LegStep {
        match self.carry_through(writer, transfer, asker, looked, now) {
            Step::Done(done) if done.is_prepared => LegStep::Prepared(done),
            Step::Done(done) => LegStep::Refused(done),
            Step::NotRecorded(refusal) => LegStep::NotRecorded(refusal),
            Step::InFlight => LegStep::InFlight,
            Step::Lookup => LegStep::Lookup,
            Step::Moved(moved) => LegStep::Moved(moved),
        }
    }

    /// Ends the prepared leg `id` as the registry decided, at the stamp that is given with the decision, or lets it stand.
    pub fn decide(
        &self,
        writer: &mut Writer,
        id: TransferId,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
    ) -> Decided {
        let len_bytes = TransferRecord::len_bytes_of(false);
        if writer.secure(len_bytes as u64).is_err() {
            return Decided::NoRoom;
        }
        let Some(hold) = self.holds.get(id).filter(|hold| hold.leg.awaits_decision()) else {
            return Decided::NotOpen;
        };
        if !self.is_alone(&hold) {
            return Decided::NotAlone;
        }
        if !hold.is_in_doubt() {
            return Decided::Standing(hold);
        }
        if hold.moves_account() {
            return self.decide_move(writer, hold, (decision, decided_at), now);
        }
        let find = |id| self.accounts.find(id).expect("a hold's accounts exist");
        let (debit_slot, credit_slot) = (find(hold.debit_account_id), find(hold.credit_account_id));
        let (debit_lock, credit_lock) = accounts::lock_both(debit_slot, credit_slot);
        // Decided by another copy of the message before the locks were there.
        match self.holds.get(id) {
            Some(hold) if hold.is_in_doubt() => {}
            Some(hold) => return Decided::Standing(hold),
            None => return Decided::NotOpen,
        }
        let (mut debit, mut credit) = (debit_lock.load(), credit_lock.load());
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let (lsn, timestamp) = (reservation.lsn(), reservation.timestamp());
        let outcome = decide_leg(&hold, decision, &debit, &credit);
        outcome.apply(&mut debit, &mut credit, lsn, timestamp);
        debit_lock.publish_sums(&debit);
        credit_lock.publish_sums(&credit);
        if hold.stage == HoldStage::AwaitsKeeping && decision == Decision::Commit {
            self.holds.keep(id, lsn);
        } else {
            self.holds.remove(id).expect("it was open under these locks");
            self.ids.note_ended(id, lsn);
        }
        drop((debit_lock, credit_lock));
        let (refusal, transfer) = (leg::refusal_of(decision), hold_end_record(&hold, &outcome).decided(decided_at));
        let done = Done { refusal, is_prepared: false, ..Done::of(lsn, timestamp, &transfer) };
        let record = Record { lsn, timestamp, actor: CustomerId::BANK, body: RecordBody::Decided(refusal, transfer) };
        writer.fill(reservation, |space| record.encode_into(space));
        Decided::Now(done, hold)
    }

    /// Ends the payee's part of the hold `id` as `source`, the payer's branch, has: `posted` of it is posted.
    pub fn end_hold(
        &self,
        writer: &mut Writer,
        (id, source): (TransferId, BranchId),
        (end, posted, ended_at): (HoldEnd, Amount, Timestamp),
        now: Timestamp,
    ) -> Ended {
        let len_bytes = TransferRecord::len_bytes_of(false);
        if writer.secure(len_bytes as u64).is_err() {
            return Ended::NoRoom;
        }
        let Some(hold) = self.holds.get(id) else { return Ended::NotOpen };
        let is_its_hold = hold.leg == Leg::Destination && hold.debit_account_id.settlement_peer() == Some(source);
        if !is_its_hold || hold.stage == HoldStage::AwaitsPosting {
            return Ended::Impossible;
        }
        let find = |id| self.accounts.find(id).expect("a hold's accounts exist");
        let (debit_slot, credit_slot) = (find(hold.debit_account_id), find(hold.credit_account_id));
        let (debit_lock, credit_lock) = accounts::lock_both(debit_slot, credit_slot);
        // Ended by another copy of the message before the locks were there; or let stand, which changes nothing here.
        let before = hold;
        let Some(hold) = self.holds.get(id) else { return Ended::NotOpen };
        let (mut debit, mut credit) = (debit_lock.load(), credit_lock.load());
        // On its way, or gone or come since: then these are not its accounts' locks. Or somebody is to join it.
        let has_its_locks = hold.is_on(before.debit_account_id) && hold.is_on(before.credit_account_id);
        if !has_its_locks || !credit.status.is_here() || hold.joined_by().is_some() {
            return Ended::Later;
        }
        let Some((outcome, body)) = end_leg(&hold, end, (posted, ended_at), &debit, &credit) else {
            return Ended::Impossible;
        };
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let (lsn, timestamp) = (reservation.lsn(), reservation.timestamp());
        outcome.apply(&mut debit, &mut credit, lsn, timestamp);
        debit_lock.publish_sums(&debit);
        credit_lock.publish_sums(&credit);
        self.holds.remove(id).expect("it was open under these locks");
        self.ids.note_ended(id, lsn);
        // It is passed on to the branch where its payee is.
        if let Some(ending) = Ending::of_record(&body, lsn, timestamp) {
            self.holds.note_ending(ending);
        }
        drop((debit_lock, credit_lock));
        let done = Done { is_prepared: false, ..Done::of(lsn, timestamp, &hold_end_record(&hold, &outcome)) };
        let record = Record { lsn, timestamp, actor: CustomerId::BANK, body };
        writer.fill(reservation, |space| record.encode_into(space));
        Ended::Now(done, hold)
    }
}
