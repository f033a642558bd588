//! Moves of accounts between branches: sealing one, taking one in, and what the registry decided about either.
//!
//! Each step is two records, and one for each open hold that goes along, in one stretch of the log: a crash leaves all or none
//! (`tally_ledger::moving`).
//!
//! **Invariant:** the account's status is published under its lock before anything is said, and every way of recording
//! something looks at it under that lock ([`Engine::whereabouts`]).

use tally_ledger::journal::record::{AccountChange, Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::Decision;
use tally_ledger::{
    Account, Hold, Leg, MoveStep, RecordEffect, Reference, Residence, Sums, Transfer, arrive, end_move, leg, may_join,
    seal, settlement_account, settlement_account_id,
};
use tally_protocol::link::{AccountMove, MoveHold, MoveItem, MoveOrder};
use tally_protocol::message::{self, TransferKind, account_flags};
use tally_protocol::{AccountId, AccountStatus, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId};

use super::{Decided, Done, Engine, Step, Writer, refusal_of};
use crate::accounts::{self, Locked, Slot};
use crate::ids::Reserve;
use crate::lookup::{Asker, Looked};

const ACCOUNT_LEN_BYTES: usize = RecordBody::account_len_bytes(AccountChange::Moved);
const MONEY_LEN_BYTES: usize = TransferRecord::len_bytes_of(false);
const STRETCH_LEN_BYTES: usize = ACCOUNT_LEN_BYTES + MONEY_LEN_BYTES;
/// The most that a step takes for each hold that goes along.
const HOLD_LEN_BYTES: usize = TransferRecord::len_bytes_of(false);
/// Room for a step, and for the settlement account that it may open on the way.
const SECURE_LEN_BYTES: usize = STRETCH_LEN_BYTES + ACCOUNT_LEN_BYTES;

/// An account of a transfer that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The account that the request belongs to is at this branch.
    Away(BranchId),
    /// The payee's account is at this branch.
    PayeeAway(BranchId),
    /// The account is here, and was at others: they have to be asked whether they know the id.
    Here(Residence),
    /// The same, where what the transfer refers to is not here: they have to be asked about that as well.
    HereAlone(Residence),
}

/// What became of the destination's prepare.
#[derive(Clone, Copy, Debug)]
pub enum TakenIn {
    /// Recorded just now.
    Now(Done),
    /// Recorded before.
    Before(Hold),
    /// The disk has to be asked first whether the ids are known here.
    Lookup,
}

/// Where a payee's account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payee {
    /// At this branch, as far as its id tells, or surely.
    Here,
    /// At another one.
    At(BranchId),
    /// On its way.
    Moving,
}

impl Engine {
    /// Seals the account that `order` names: from here on nobody uses it until the move is decided. `deadline_ns` is how
    /// long the registry may wait for votes.
    ///
    /// # Errors
    /// Those of [`seal`]; `IdAlreadyUsed` for a known order, `Busy`, `DiskFull`, `CapacityReached`. Nothing is recorded.
    pub fn seal_account(
        &self,
        writer: &mut Writer,
        order: &MoveOrder,
        deadline_ns: u64,
        now: Timestamp,
    ) -> Result<(Done, AccountMove), Refusal> {
        let id = TransferId::new(order.id.get());
        let between = (self.branch, BranchId::new(order.destination.get()));
        if between.0 == between.1 {
            return Err(Refusal::WrongBranch);
        }
        writer.secure(SECURE_LEN_BYTES as u64).map_err(refusal_of)?;
        let slot = self.accounts.find(AccountId::new(order.account_id.get())).ok_or(Refusal::AccountNotFound)?;
        let draft = slot.read();
        // Nothing is opened for a move that cannot be.
        seal(id, Some(&draft), &settlement_account(self.branch, between.1, draft.currency, now), between, &[])?;
        let settlement_slot = self.settlement_slot(writer, between.1, draft.currency, now)?;
        match self.claim_id(id, None) {
            Ok(true) => {}
            // A random id is new; where a filter cannot say so, the operator's next attempt has another one.
            Ok(false) => return Err(Refusal::IdAlreadyUsed),
            Err(refusal) => return Err(refusal),
        }
        let (account_lock, settlement_lock) = accounts::lock_both(slot, settlement_slot);
        // Under the account's lock nothing is held on it, and nothing given back.
        let holds = self.holds.on_account(slot.read().id);
        let sealed = seal(id, Some(&account_lock.load_all()), &settlement_lock.load_all(), between, &holds);
        let (step, moving) = sealed.inspect_err(|_| self.give_back_id(id))?;
        let (done, records, reservation) = self.begin_move(writer, step, now, |account, settlement| {
            account_lock.publish_all(account);
            settlement_lock.publish_sums(settlement);
        });
        drop((account_lock, settlement_lock));
        fill(writer, reservation, &records);
        let stamp = done.timestamp.as_nanos();
        let deadline = stamp.saturating_add(deadline_ns);
        let account = MoveItem { stamp: stamp.into(), deadline: deadline.into(), ..moving.account };
        Ok((done, AccountMove { account, ..moving }))
    }

    /// Takes an account in that its branch has sealed, with its holds; it stays closed to everybody until the move is decided.
    ///
    /// # Errors
    /// `AccountMoving`, `IdAlreadyUsed`, `AccountHoldsStay` (the id of a hold is known here), those of [`may_join`], `Busy`, `DiskFull`, `CapacityReached`, and those of [`arrive`]. Nothing is
    /// recorded.
    pub fn take_account_in(
        &self,
        writer: &mut Writer,
        moving: &AccountMove,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<TakenIn, Refusal> {
        let item = &moving.account;
        let (id, account_id) = (TransferId::new(item.id.get()), AccountId::new(item.account_id.get()));
        if let Some(hold) = self.holds.get(id) {
            let is_same = hold.moves_account() && hold.far_account_id == account_id;
            return if is_same { Ok(TakenIn::Before(hold)) } else { Err(Refusal::IdAlreadyUsed) };
        }
        let secure_len_bytes = SECURE_LEN_BYTES + HOLD_LEN_BYTES * moving.holds.len();
        writer.secure(secure_len_bytes as u64).map_err(refusal_of)?;
        let currency = Currency::new(item.currency.get()).ok_or(Refusal::CurrencyInvalid)?;
        let settlement_slot = self.settlement_slot(writer, BranchId::new(item.source.get()), currency, now)?;
        if !self.claim_ids(moving, looked)? {
            return Ok(TakenIn::Lookup);
        }
        // Nobody opens an account with this id meanwhile.
        let opening = self.accounts.opening();
        let joined = self.joined_by(moving);
        // None of the accounts whose holds it joins leaves meanwhile.
        let held_on = joined.iter().flatten().flat_map(|hold| [hold.debit_account_id, hold.credit_account_id]);
        let others = held_on.filter_map(|id| self.accounts.find(id));
        let mut slots: Vec<&Slot> =
            self.accounts.find(account_id).into_iter().chain([settlement_slot]).chain(others).collect();
        slots.sort_unstable_by_key(|slot| slot.id());
        slots.dedup_by_key(|slot| slot.id());
        let locks: Vec<Locked<'_>> = slots.iter().map(|slot| slot.lock()).collect();
        let lock_of = |id| slots.binary_search_by_key(&id, |slot| slot.id()).ok().map(|at| &locks[at]);
        let account_lock = lock_of(account_id);
        let settlement_lock = lock_of(settlement_slot.id()).expect("it is one of them");
        let is_free = match account_lock {
            Some(account) if account.load().status != AccountStatus::Moved => Err(Refusal::AccountMoving),
            Some(_) => Ok(()),
            None => opening.secure(1).map_err(|_| Refusal::CapacityReached),
        };
        let is_here = |id| lock_of(id).is_some_and(|lock| lock.load().status.is_here());
        let can_join = || {
            // Where a hold has changed before the locks were there, they may be those of other accounts.
            let is_same = |(hold, now): (&Option<Hold>, &Option<Hold>)| hold == now;
            let now_open = self.joined_by(moving);
            if !joined.iter().zip(&now_open).all(is_same) {
                return Err(Refusal::AccountHasHolds);
            }
            joins_of(moving)
                .zip(&joined)
                .try_for_each(|(wanted, hold)| may_join((item, wanted), hold.as_ref(), settlement_slot.id(), is_here))
        };
        let step = is_free.and_then(|()| can_join()).and_then(|()| arrive(moving, &settlement_lock.load_all()));
        let step = step.inspect_err(|_| ids_of(moving).for_each(|id| self.give_back_id(id)))?;
        let (done, records, reservation) = self.begin_move(writer, step, now, |account, settlement| {
            match account_lock {
                Some(lock) => lock.publish_all(account),
                None => drop(opening.open(account)),
            }
            settlement_lock.publish_sums(settlement);
        });
        drop((locks, opening));
        fill(writer, reservation, &records);
        Ok(TakenIn::Now(done))
    }

    /// The holds here that the account joins, as far as they are open.
    fn joined_by(&self, moving: &AccountMove) -> Vec<Option<Hold>> {
        joins_of(moving).map(|hold| self.holds.get(TransferId::new(hold.id.get()))).collect()
    }

    /// Ends a move as the registry decided. `hold` is open, or was a moment ago.
    pub(super) fn decide_move(
        &self,
        writer: &mut Writer,
        hold: Hold,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
    ) -> Decided {
        // Nobody but this decision changes what is held on an account that moves, or stands still until it comes.
        let held = || {
            let mut holds = self.holds.on_account(hold.near_account_id());
            holds.retain(|hold| !hold.moves_account());
            holds
        };
        if writer.secure((STRETCH_LEN_BYTES + HOLD_LEN_BYTES * held().len()) as u64).is_err() {
            return Decided::NoRoom;
        }
        let find = |id| self.accounts.find(id).expect("a hold's accounts exist");
        let (near, settlement) = (find(hold.near_account_id()), find(hold.settlement_account_id()));
        let (near_lock, settlement_lock) = accounts::lock_both(near, settlement);
        if self.holds.get(hold.id).is_none() {
            return Decided::NotOpen;
        }
        let (account, settlement) = (near_lock.load_all(), settlement_lock.load_all());
        let peer = settlement.id.settlement_peer().expect("the other side of a move is a settlement account");
        let held = held();
        let MoveStep { mut account, mut settlement, money, holds, .. } =
            end_move(&hold, decision, &account, &settlement, peer, &held);
        let refusal = leg::refusal_of(decision);
        let mut bodies: Vec<RecordBody> = holds.into_iter().map(|body| stamped(body, decided_at)).collect();
        bodies.push(RecordBody::Decided(refusal, money.decided(decided_at)));
        bodies.push(RecordBody::Account(AccountChange::Moved, account.clone()));
        let (mut records, reservation) = reserve(writer, bodies, now);
        let [.., first, second] = &mut records[..] else { unreachable!("two are there") };
        (settlement.lsn, settlement.timestamp) = (first.lsn, first.timestamp);
        (account.lsn, account.timestamp) = (second.lsn, second.timestamp);
        second.body = RecordBody::Account(AccountChange::Moved, account.clone());
        let done = Done { refusal, is_prepared: false, ..Done::of(first.lsn, first.timestamp, &money) };
        near_lock.publish_all(&account);
        settlement_lock.publish_sums(&settlement);
        for record in &records {
            self.note_move(record);
        }
        // Where the account stays, the clock was not looked at meanwhile.
        held.iter().filter(|hold| self.holds.get(hold.id) == Some(**hold)).for_each(|hold| self.holds.thaw(hold));
        drop((near_lock, settlement_lock));
        fill(writer, reservation, &records);
        Decided::Now(done, hold)
    }

    /// Holds and ids after a record of a move that is none of a transfer. Under the locks of account and settlement account.
    fn note_move(&self, record: &Record) {
        match RecordEffect::of(&record.body, record.lsn, record.timestamp) {
            RecordEffect::Decided(id) => {
                self.holds.remove(id).expect("it was open under these locks");
                self.ids.note_ended(id, record.lsn);
            }
            RecordEffect::HoldKept(id) => self.holds.keep(id, record.lsn),
            RecordEffect::HoldRehomed { id, from, to } => self.holds.rehome(id, from, to),
            RecordEffect::HoldJoining(id, joining) => self.holds.await_joining(id, joining),
            RecordEffect::None
            | RecordEffect::HoldOpened(_)
            | RecordEffect::HoldEnded(..)
            | RecordEffect::Reversed(_) => {}
        }
    }

    /// Whether the registry decides on this hold by its own id. What has come along with an account waits for the decision on
    /// that account's move.
    pub fn awaits_decision(&self, hold: &Hold) -> bool {
        let is_arriving = |id| self.accounts.find(id).is_some_and(|slot| slot.read().status == AccountStatus::Arriving);
        hold.is_in_doubt() && (hold.moves_account() || !is_arriving(hold.near_account_id()))
    }

    /// The branch that ends an open hold of which this one has only the payee's part.
    pub fn ender_of(&self, hold: TransferId) -> Option<BranchId> {
        let hold = self.holds.get(hold).filter(|hold| hold.leg == Leg::Destination)?;
        hold.debit_account_id.settlement_peer()
    }

    /// Where the payee of a plain transfer or a hold is. `moved` knows where accounts went.
    #[inline]
    pub fn payee(&self, wire: &message::Transfer, moved: impl Fn(AccountId) -> Option<BranchId>) -> Payee {
        let payee = AccountId::new(wire.credit_account_id.get());
        let goes = wire.kind == TransferKind::Transfer as u8 || wire.kind == TransferKind::Hold as u8;
        if !goes || payee.is_none() || payee.branch() == self.branch {
            // One that has moved away is found out under its lock.
            return Payee::Here;
        }
        self.foreign_payee(payee, moved)
    }

    fn foreign_payee(&self, payee: AccountId, moved: impl Fn(AccountId) -> Option<BranchId>) -> Payee {
        let account = self.accounts.find(payee).map(Slot::read);
        let gone_to = match account {
            Some(account) if account.status.is_here() => return Payee::Here,
            Some(account) if account.status != AccountStatus::Moved => return Payee::Moving,
            Some(account) => account.residence.known().next(),
            None => None,
        };
        match moved(payee).or(gone_to).unwrap_or(payee.branch()) {
            branch if branch == self.branch => Payee::Moving,
            branch => Payee::At(branch),
        }
    }

    /// Where an account went that was here, as far as this branch has heard.
    pub fn gone_to(&self, id: AccountId) -> Option<BranchId> {
        let account = self.accounts.find(id)?.read();
        account.residence.known().next().filter(|_| account.status == AccountStatus::Moved)
    }

    /// Whether an account whose id names another branch is, or was, here.
    pub(super) fn is_guest(&self, id: AccountId) -> bool {
        id.branch() != self.branch && !id.is_none() && self.accounts.find(id).is_some()
    }

    /// What is to be done instead of a transfer whose accounts, which are locked, cannot be used here; `None` where they can.
    #[inline]
    pub(super) fn whereabouts(
        &self,
        (transfer, reference): (&Transfer, &Reference),
        asker: &Asker,
        debit: Option<&Account>,
        credit: Option<&Account>,
    ) -> Option<Step> {
        let is_plain = |account: Option<&Account>| {
            account.is_none_or(|account| account.status.is_here() && !account.has(account_flags::HAS_MOVED))
        };
        if is_plain(debit) && is_plain(credit) { None } else { self.moved((transfer, reference), asker, debit, credit) }
    }

    #[cold]
    fn moved(
        &self,
        (transfer, reference): (&Transfer, &Reference),
        asker: &Asker,
        debit: Option<&Account>,
        credit: Option<&Account>,
    ) -> Option<Step> {
        // The cold half of an account was not loaded with the rest.
        let residence = |account: &Account| {
            self.accounts.find(account.id).map_or_else(Residence::default, |slot| slot.read().residence)
        };
        let belongs_to_credit = transfer.kind == TransferKind::Deposit;
        for (account, is_credit) in [(debit, false), (credit, true)] {
            let Some(account) = account else { continue };
            match account.status {
                AccountStatus::Moving | AccountStatus::Arriving => {
                    return Some(Step::NotRecorded(Refusal::AccountMoving));
                }
                // What is named is over, or never was, and that is known here, wherever its accounts have gone since. The branch
                // where they are may have a part of it, and would send the client back.
                AccountStatus::Moved if is_over(reference) => {}
                AccountStatus::Moved => {
                    let branch = residence(account).known().next().unwrap_or_default();
                    let is_payee = is_credit && !belongs_to_credit;
                    return Some(Step::Moved(if is_payee { Moved::PayeeAway(branch) } else { Moved::Away(branch) }));
                }
                AccountStatus::Open | AccountStatus::Frozen | AccountStatus::Closed | AccountStatus::Closing => {}
            }
        }
        // What ends or undoes an earlier transfer belongs to that one's branch, and a destination's part to the branch
        // that began it: their ids were never sent elsewhere.
        let belongs_to = match transfer.kind {
            _ if transfer.leg == Leg::Destination => None,
            // But a hold that is between branches, or was, may have come here with its payer: what ends it may have been sent there
            // before.
            TransferKind::Settle | TransferKind::Void if is_between(reference) => debit,
            TransferKind::Settle | TransferKind::Void | TransferKind::Reverse => None,
            TransferKind::Deposit => credit,
            TransferKind::Transfer | TransferKind::Withdraw | TransferKind::Hold => debit,
        };
        let residence = belongs_to.filter(|account| account.has(account_flags::HAS_MOVED)).map(residence)?;
        (residence.moves != asker.cleared_moves).then_some(Step::Moved(Moved::Here(residence)))
    }

    /// The same for what would end or undo something that is not here. Where the account that it names is, or was, there
    /// that something may be, and this very transfer may have been done.
    ///
    /// The account is not locked. If it leaves now, its new branch asks this one about the id, which is reserved.
    #[cold]
    pub(super) fn whereabouts_of_named(&self, transfer: &Transfer, asker: &Asker) -> Option<Step> {
        let account = self.accounts.find(transfer.debit_account_id)?.read();
        match account.status {
            AccountStatus::Moving | AccountStatus::Arriving => Some(Step::NotRecorded(Refusal::AccountMoving)),
            AccountStatus::Moved => {
                Some(Step::Moved(Moved::Away(account.residence.known().next().unwrap_or_default())))
            }
            AccountStatus::Open | AccountStatus::Frozen | AccountStatus::Closed | AccountStatus::Closing => {
                let may_be_known =
                    account.has(account_flags::HAS_MOVED) && account.residence.moves != asker.cleared_moves;
                may_be_known.then_some(Step::Moved(Moved::HereAlone(account.residence)))
            }
        }
    }

    /// The settlement account for `peer`, opened now if need be.
    fn settlement_slot(
        &self,
        writer: &mut Writer,
        peer: BranchId,
        currency: Currency,
        now: Timestamp,
    ) -> Result<&Slot, Refusal> {
        let id = settlement_account_id(self.branch, peer, currency);
        let found = self.accounts.find(id).or_else(|| self.open_house(writer, id, now));
        found.ok_or(Refusal::CapacityReached)
    }

    /// An id, and room for its hold. `false` when only the disk knows whether it is new.
    fn claim_id(&self, id: TransferId, looked: Option<&Looked>) -> Result<bool, Refusal> {
        match self.reserve_id(id, looked.and_then(|looked| looked.id(id))) {
            Reserve::New => {}
            Reserve::InFlight => return Err(Refusal::Busy),
            Reserve::Known(_) if looked.is_some() => return Err(Refusal::IdAlreadyUsed),
            Reserve::Known(_) | Reserve::MaybeOld => return Ok(false),
            Reserve::Full => return Err(Refusal::Busy),
        }
        if self.holds.secure_room() {
            return Ok(true);
        }
        self.ids.release(id);
        Err(Refusal::CapacityReached)
    }

    /// The move's id and those of all holds, or none.
    fn claim_ids(&self, moving: &AccountMove, looked: Option<&Looked>) -> Result<bool, Refusal> {
        for (claimed, id) in ids_of(moving).enumerate() {
            let is_claimed = self.claim_id(id, looked);
            if is_claimed != Ok(true) {
                ids_of(moving).take(claimed).for_each(|id| self.give_back_id(id));
                return match is_claimed {
                    Err(Refusal::IdAlreadyUsed) if claimed > 0 => Err(Refusal::AccountHoldsStay),
                    other => other,
                };
            }
        }
        Ok(true)
    }

    fn give_back_id(&self, id: TransferId) {
        self.ids.release(id);
        self.holds.give_room_back();
    }

    /// Publishes a prepare: first the account as it is without the move, then what it holds, then the money.
    fn begin_move(
        &self,
        writer: &mut Writer,
        step: MoveStep,
        now: Timestamp,
        publish: impl FnOnce(&Account, &Account),
    ) -> (Done, Vec<Record>, tally_journal::Reservation) {
        let MoveStep { mut account, mut settlement, money, holds, before } = step;
        let bare = |account: &Account, before: Sums| Account { sums: before, ..account.clone() };
        let mut bodies = vec![RecordBody::Account(AccountChange::Moved, bare(&account, before))];
        bodies.extend(holds);
        bodies.push(RecordBody::Transfer(money));
        let (mut records, reservation) = reserve(writer, bodies, now);
        let (first, last) = (&records[0], &records[records.len() - 1]);
        let (begun, ended) = ((first.lsn, first.timestamp), (last.lsn, last.timestamp));
        let first = Account { lsn: begun.0, timestamp: begun.1, ..bare(&account, before) };
        records[0].body = RecordBody::Account(AccountChange::Moved, first);
        (account.lsn, account.timestamp) = ended;
        (settlement.lsn, settlement.timestamp) = ended;
        publish(&account, &settlement);
        for record in &records {
            if let RecordBody::Transfer(transfer) = &record.body {
                self.note_effects(transfer, record.lsn, record.timestamp);
            } else {
                self.note_move(record);
            }
        }
        (Done::of(ended.0, ended.1, &money), records, reservation)
    }
}

/// The move's, and those of all holds that go along and are not here.
fn ids_of(moving: &AccountMove) -> impl Iterator<Item = TransferId> + '_ {
    let new = moving.holds.iter().filter(|hold| hold.joins == 0);
    std::iter::once(moving.account.id.get()).chain(new.map(|hold| hold.id.get())).map(TransferId::new)
}

/// The holds of which this branch has the other part.
fn joins_of(moving: &AccountMove) -> impl Iterator<Item = &MoveHold> + '_ {
    moving.holds.iter().filter(|hold| hold.joins != 0)
}

/// Whether nothing can be done to it any more: the refusal is the same whatever its accounts are.
const fn is_over(reference: &Reference) -> bool {
    matches!(reference, Reference::Ended(_) | Reference::Refused | Reference::Neither | Reference::ReversedBefore)
}

/// Whether it is a hold of which another branch has a part, or had.
fn is_between(reference: &Reference) -> bool {
    matches!(reference, Reference::Open(hold) if !hold.far_account_id.is_none())
}

/// The registry's stamp goes with what it decided.
fn stamped(body: RecordBody, decided_at: Timestamp) -> RecordBody {
    match body {
        RecordBody::Decided(refusal, of) => RecordBody::Decided(refusal, of.decided(decided_at)),
        other => other,
    }
}

/// One stretch of the log for all of `bodies`.
fn reserve(writer: &mut Writer, bodies: Vec<RecordBody>, now: Timestamp) -> (Vec<Record>, tally_journal::Reservation) {
    let len_bytes: usize = bodies.iter().map(RecordBody::len_bytes).sum();
    let reservation = writer.reserve(len_bytes as u64, bodies.len() as u32, now);
    let (mut lsn, stamp) = (reservation.lsn().get(), reservation.timestamp().as_nanos());
    let records = bodies.into_iter().zip(stamp..).map(|(body, stamp)| {
        let at = Lsn::new(lsn);
        lsn += body.len_bytes() as u64;
        Record { lsn: at, timestamp: Timestamp::from_nanos(stamp), actor: CustomerId::BANK, body }
    });
    (records.collect(), reservation)
}

fn fill(writer: &mut Writer, reservation: tally_journal::Reservation, records: &[Record]) {
    writer.fill(reservation, |space| {
        let mut rest = space;
        for record in records {
            let (own, behind) = rest.split_at_mut(record.body.len_bytes());
            record.encode_into(own);
            rest = behind;
        }
    });
}
