//! This branch's members of a chain between branches: prepared in one stretch of the log, and ended in one.
//!
//! Preparing goes through the stages of every chain (`chain.rs`); what differs is which members are this branch's, and that
//! they are held instead of posted.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::{Decision, Objection};
use tally_ledger::{
    Account, ChainPlace, Guests, Hold, HoldStage, Transfer, chain_form, decide_leg, hold_end_record, member_refusal,
};
use tally_protocol::link::CrossChain;
use tally_protocol::message;
use tally_protocol::{AccountId, BranchId, CustomerId, Lsn, Refusal, Timestamp, TransferId};

use super::{ChainStep, Done, Engine, Writer};
use crate::accounts::{Locked, Slot};
use crate::lookup::{Asker, Looked};

/// How far the destination's part of a chain came.
#[derive(Debug)]
pub enum ChainLegStep {
    /// Held and recorded, all of it; the registry decides.
    Prepared(Vec<Done>),
    /// Refused and recorded, all of it: at the last record, for this reason.
    Refused(Done, Objection),
    /// It was held before, up to this position.
    Held(Lsn),
    /// Refused without a trace.
    NotRecorded(Objection),
    /// Another worker has one of the ids in hand.
    InFlight,
    /// The disk has to be asked first.
    Lookup,
}

/// What became of the decision on a chain.
#[derive(Debug)]
pub enum ChainDecided {
    /// Its members were ended just now, or let stand: each with the hold as it was, in the chain's order.
    Now(Vec<(Done, Hold)>),
    /// No member is open here.
    NotOpen,
    /// The log has no room just now.
    NoRoom,
}

impl Engine {
    /// Prepares the source's part of a chain: `peers` names, for each transfer, the home of its credit account where that is
    /// another branch.
    pub fn prepare_chain_source(
        &self,
        writer: &mut Writer,
        (wires, peers): (&[message::Transfer], &[Option<BranchId>]),
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
        now_ns: impl FnOnce() -> u64,
    ) -> ChainStep {
        let id = wires.first().map_or(TransferId::NONE, |first| TransferId::new(first.id.get()));
        let form = |index: usize, wire: &message::Transfer| {
            // A chain has at most 256 members.
            let place = ChainPlace { id, member: index as u8, is_head: index == 0 };
            chain_form(wire, place, (self.branch, peers[index]))
        };
        match self.well_formed(wires, asker, form) {
            Ok(transfers) => self.carry_chain(writer, transfers, None, asker, looked, now, now_ns),
            Err(refusals) => ChainStep::NotRecorded(refusals),
        }
    }

    /// This branch's members of a chain that another one has begun, in typed form.
    ///
    /// # Errors
    /// Why the chain cannot be, and the member that is to blame.
    pub(crate) fn members_of(&self, chain: &CrossChain) -> Result<Vec<Transfer>, Objection> {
        let id = TransferId::new(chain.prefix.id.get());
        let mut transfers = Vec::new();
        for (index, member) in chain.members_at(self.branch) {
            let guests = Guests { debit: false, ..self.guests_of(&member.transfer) };
            let formed = Transfer::from_source(&member.transfer, self.branch, chain.source(), guests);
            let transfer = formed.map_err(|refusal| Objection {
                // Its source believes that the account is here.
                refusal: if refusal == Refusal::WrongBranch { Refusal::CreditAccountMoved } else { refusal },
                member: index as u8,
            })?;
            if transfers.iter().any(|earlier: &Transfer| earlier.id == transfer.id) {
                return Err(Objection { refusal: Refusal::IdAlreadyUsed, member: index as u8 });
            }
            let place = ChainPlace { id, member: index as u8, is_head: transfers.is_empty() };
            transfers.push(Transfer { chain: Some(place), ..transfer });
        }
        Ok(transfers)
    }

    /// Prepares this branch's part of a chain that another one has begun.
    pub fn prepare_chain_destination(
        &self,
        writer: &mut Writer,
        chain: &CrossChain,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> ChainLegStep {
        let id = TransferId::new(chain.prefix.id.get());
        let transfers = match self.members_of(chain) {
            Ok(transfers) => transfers,
            Err(why) => return ChainLegStep::NotRecorded(why),
        };
        let Some(head) = transfers.first() else {
            return ChainLegStep::NotRecorded(Refusal::WrongBranch.into());
        };
        let open = self.holds.chain(id);
        if !open.is_empty() {
            return match are_among(&open, &transfers) {
                true => ChainLegStep::Held(open.iter().map(|hold| hold.lsn).max().unwrap_or_default()),
                false => ChainLegStep::NotRecorded(Refusal::IdAlreadyUsed.into()),
            };
        }
        let members: Vec<u8> = transfers.iter().filter_map(|transfer| Some(transfer.chain?.member)).collect();
        let alias = (head.id != id).then_some(id);
        let objection = |refusals: &[Option<Refusal>]| {
            let is_reason = |refusal: &Option<Refusal>| refusal.is_some_and(|refusal| refusal != Refusal::ChainBroken);
            let at = refusals.iter().position(is_reason).unwrap_or(0);
            Objection { refusal: refusals[at].unwrap_or(Refusal::ChainBroken), member: members[at] }
        };
        match self.carry_chain(writer, transfers, alias, &Asker::bank(), looked, now, || 0) {
            ChainStep::Done(dones) if dones.iter().all(|done| done.is_prepared) => ChainLegStep::Prepared(dones),
            ChainStep::Done(dones) => {
                let refusals: Vec<_> = dones.iter().map(|done| done.refusal).collect();
                ChainLegStep::Refused(*dones.last().expect("it has a member"), objection(&refusals))
            }
            ChainStep::NotRecorded(refusals) => {
                let refusals: Vec<_> = refusals.into_iter().map(Some).collect();
                ChainLegStep::NotRecorded(objection(&refusals))
            }
            ChainStep::Refused(refusal) => ChainLegStep::NotRecorded(objection(&[Some(refusal)])),
            ChainStep::InFlight => ChainLegStep::InFlight,
            ChainStep::Lookup => ChainLegStep::Lookup,
        }
    }

    /// Ends what is prepared of chain `id` as the registry decided, at the stamp that is given with the decision: all of it at
    /// once.
    pub fn decide_chain(
        &self,
        writer: &mut Writer,
        id: TransferId,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
    ) -> ChainDecided {
        let open = self.holds.chain(id);
        if open.is_empty() {
            return ChainDecided::NotOpen;
        }
        let len_bytes = TransferRecord::LEN_BYTES_IN_CHAIN;
        if writer.secure((open.len() * len_bytes) as u64).is_err() {
            return ChainDecided::NoRoom;
        }
        let mut ids: Vec<AccountId> =
            open.iter().flat_map(|hold| [hold.debit_account_id, hold.credit_account_id]).collect();
        ids.sort_unstable();
        ids.dedup();
        let find = |&id: &AccountId| self.accounts.find(id).expect("a hold's accounts exist");
        // In rising order of id.
        let locks: Vec<Locked<'_>> = ids.iter().map(find).map(Slot::lock).collect();
        // Decided by another copy of the message before the locks were there, or a hold among them ended by its payer's
        // branch, which has heard earlier.
        let open = self.holds.chain(id);
        if open.is_empty() {
            return ChainDecided::NotOpen;
        }
        let mut accounts: Vec<Account> = locks.iter().map(Locked::load).collect();
        let reservation = writer.reserve((open.len() * len_bytes) as u64, open.len() as u32, now);
        let mut ended = Vec::with_capacity(open.len());
        let mut records = Vec::with_capacity(open.len());
        for (index, &hold) in open.iter().enumerate() {
            let lsn = Lsn::new(reservation.lsn().get() + (index * len_bytes) as u64);
            let timestamp = Timestamp::from_nanos(reservation.timestamp().as_nanos() + index as u64);
            let at = |id: AccountId| ids.binary_search(&id).expect("its accounts are locked");
            let [debit, credit] = accounts
                .get_disjoint_mut([at(hold.debit_account_id), at(hold.credit_account_id)])
                .expect("a hold's two accounts differ");
            let outcome = decide_leg(&hold, decision, debit, credit);
            outcome.apply(debit, credit, lsn, timestamp);
            let member = hold.chain.expect("it is a member of this chain").member;
            let refusal = member_refusal(decision, member);
            let transfer = hold_end_record(&hold, &outcome).decided(decided_at);
            let done = Done { refusal, is_prepared: false, ..Done::of(lsn, timestamp, &transfer) };
            ended.push((done, hold));
            let body = RecordBody::Decided(refusal, transfer);
            records.push(Record { lsn, timestamp, actor: CustomerId::BANK, body });
        }
        locks.iter().zip(&accounts).for_each(|(lock, account)| lock.publish_sums(account));
        for (done, hold) in &ended {
            if hold.stage == HoldStage::AwaitsKeeping && decision == Decision::Commit {
                self.holds.keep(hold.id, done.lsn);
            } else {
                self.holds.remove(hold.id).expect("it was open under these locks");
                self.ids.note_ended(hold.id, done.lsn);
            }
        }
        drop(locks);
        writer.fill(reservation, |space| {
            for (record, space) in records.iter().zip(space.chunks_mut(len_bytes)) {
                record.encode_into(space);
            }
        });
        ChainDecided::Now(ended)
    }
}

/// Whether what is open is of what is asked for. Holds among it may have ended: their payer's branch hears of the decision
/// earlier than this one.
fn are_among(open: &[Hold], transfers: &[Transfer]) -> bool {
    let is_its_hold = |hold: &Hold, transfer: &Transfer| {
        (hold.id, hold.leg, hold.far_account_id) == (transfer.id, transfer.leg, transfer.debit_account_id)
            && (hold.credit_account_id, hold.amount) == (transfer.credit_account_id, transfer.amount)
            && hold.chain == transfer.chain
    };
    open.iter().all(|hold| transfers.iter().any(|transfer| is_its_hold(hold, transfer)))
}
