//! Moves of accounts between branches: sealing one, taking one in, and what the registry decided about either.
//!
//! Each step is two records in one stretch of the log, so a crash leaves both or neither (`tally_ledger::moving`).
//!
//! **Invariant:** the account's status is published under its lock before anything is said, and every way of recording
//! something looks at it under that lock ([`Engine::whereabouts`]).

use tally_ledger::journal::record::{AccountChange, Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::Decision;
use tally_ledger::{
    Account, Hold, Leg, MoveStep, Residence, Transfer, arrive, end_move, leg, seal, settlement_account,
    settlement_account_id,
};
use tally_protocol::link::{MoveItem, MoveOrder};
use tally_protocol::message::{self, TransferKind, account_flags};
use tally_protocol::{AccountId, AccountStatus, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId};

use super::{Decided, Done, Engine, Step, Writer, refusal_of};
use crate::accounts::{self, Slot};
use crate::ids::Reserve;
use crate::lookup::Asker;

const ACCOUNT_LEN_BYTES: usize = RecordBody::account_len_bytes(AccountChange::Moved);
const MONEY_LEN_BYTES: usize = TransferRecord::len_bytes_of(false);
const STRETCH_LEN_BYTES: usize = ACCOUNT_LEN_BYTES + MONEY_LEN_BYTES;
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
    ) -> Result<(Done, MoveItem), Refusal> {
        let id = TransferId::new(order.id.get());
        let between = (self.branch, BranchId::new(order.destination.get()));
        if between.0 == between.1 {
            return Err(Refusal::WrongBranch);
        }
        writer.secure(SECURE_LEN_BYTES as u64).map_err(refusal_of)?;
        let slot = self.accounts.find(AccountId::new(order.account_id.get())).ok_or(Refusal::AccountNotFound)?;
        let draft = slot.read();
        // Nothing is opened for a move that cannot be.
        seal(id, Some(&draft), &settlement_account(self.branch, between.1, draft.currency, now), between)?;
        let settlement_slot = self.settlement_slot(writer, between.1, draft.currency, now)?;
        self.claim_move(id)?;
        let (account_lock, settlement_lock) = accounts::lock_both(slot, settlement_slot);
        let sealed = seal(id, Some(&account_lock.load_all()), &settlement_lock.load_all(), between);
        let (step, item) = sealed.inspect_err(|_| self.give_move_back(id))?;
        let (done, records, reservation) = self.begin_move(writer, step, now, |account, settlement| {
            account_lock.publish_all(account);
            settlement_lock.publish_sums(settlement);
        });
        drop((account_lock, settlement_lock));
        fill(writer, reservation, &records);
        let stamp = done.timestamp.as_nanos();
        let item = MoveItem { stamp: stamp.into(), deadline: stamp.saturating_add(deadline_ns).into(), ..item };
        Ok((done, item))
    }

    /// Takes an account in that its branch has sealed; it stays closed to everybody until the move is decided.
    ///
    /// # Errors
    /// `AccountMoving`, `IdAlreadyUsed`, `Busy`, `DiskFull`, `CapacityReached`, and those of [`arrive`]. Nothing is
    /// recorded.
    pub fn take_account_in(&self, writer: &mut Writer, item: &MoveItem, now: Timestamp) -> Result<TakenIn, Refusal> {
        let (id, account_id) = (TransferId::new(item.id.get()), AccountId::new(item.account_id.get()));
        if let Some(hold) = self.holds.get(id) {
            let is_same = hold.moves_account() && hold.far_account_id == account_id;
            return if is_same { Ok(TakenIn::Before(hold)) } else { Err(Refusal::IdAlreadyUsed) };
        }
        writer.secure(SECURE_LEN_BYTES as u64).map_err(refusal_of)?;
        let currency = Currency::new(item.currency.get()).ok_or(Refusal::CurrencyInvalid)?;
        let settlement_slot = self.settlement_slot(writer, BranchId::new(item.source.get()), currency, now)?;
        self.claim_move(id)?;
        // Nobody opens an account with this id meanwhile.
        let opening = self.accounts.opening();
        let known = self.accounts.find(account_id);
        let locks = match known {
            Some(slot) => {
                let (account, settlement) = accounts::lock_both(slot, settlement_slot);
                (Some(account), settlement)
            }
            None => (None, settlement_slot.lock()),
        };
        let is_free = match &locks.0 {
            Some(account) if account.load().status != AccountStatus::Moved => Err(Refusal::AccountMoving),
            Some(_) => Ok(()),
            None => opening.secure(1).map_err(|_| Refusal::CapacityReached),
        };
        let step = is_free.and_then(|()| arrive(item, &locks.1.load_all()));
        let step = step.inspect_err(|_| self.give_move_back(id))?;
        let (done, records, reservation) = self.begin_move(writer, step, now, |account, settlement| {
            match &locks.0 {
                Some(lock) => lock.publish_all(account),
                None => drop(opening.open(account)),
            }
            locks.1.publish_sums(settlement);
        });
        drop((locks, opening));
        fill(writer, reservation, &records);
        Ok(TakenIn::Now(done))
    }

    /// Ends a move as the registry decided. `hold` is open, or was a moment ago.
    pub(super) fn decide_move(
        &self,
        writer: &mut Writer,
        hold: Hold,
        (decision, decided_at): (Decision, Timestamp),
        now: Timestamp,
    ) -> Decided {
        if writer.secure(STRETCH_LEN_BYTES as u64).is_err() {
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
        let MoveStep { mut account, mut settlement, money } = end_move(&hold, decision, &account, &settlement, peer);
        let reservation = writer.reserve(STRETCH_LEN_BYTES as u64, 2, now);
        let (first, second) = places(&reservation, MONEY_LEN_BYTES);
        (settlement.lsn, settlement.timestamp) = first;
        (account.lsn, account.timestamp) = second;
        near_lock.publish_all(&account);
        settlement_lock.publish_sums(&settlement);
        self.holds.remove(hold.id).expect("it was open under these locks");
        self.ids.note_ended(hold.id, first.0);
        drop((near_lock, settlement_lock));
        let refusal = leg::refusal_of(decision);
        let done = Done { refusal, is_prepared: false, ..Done::of(first.0, first.1, &money) };
        let records = [
            record(first, RecordBody::Decided(refusal, money.decided(decided_at))),
            record(second, RecordBody::Account(AccountChange::Moved, account)),
        ];
        fill(writer, reservation, &records);
        Decided::Now(done, hold)
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
        transfer: &Transfer,
        asker: &Asker,
        debit: Option<&Account>,
        credit: Option<&Account>,
    ) -> Option<Step> {
        let is_plain = |account: Option<&Account>| {
            account.is_none_or(|account| account.status.is_here() && !account.has(account_flags::HAS_MOVED))
        };
        if is_plain(debit) && is_plain(credit) { None } else { self.moved(transfer, asker, debit, credit) }
    }

    #[cold]
    fn moved(
        &self,
        transfer: &Transfer,
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

    /// The move's id, and room for its hold.
    fn claim_move(&self, id: TransferId) -> Result<(), Refusal> {
        match self.ids.reserve(id) {
            Reserve::New => {}
            // A random id is new; where a filter cannot say so, the operator's next attempt has another one.
            Reserve::InFlight | Reserve::Known(_) | Reserve::MaybeOld => return Err(Refusal::IdAlreadyUsed),
            Reserve::Full => return Err(Refusal::Busy),
        }
        if self.holds.secure_room() {
            return Ok(());
        }
        self.ids.release(id);
        Err(Refusal::CapacityReached)
    }

    fn give_move_back(&self, id: TransferId) {
        self.ids.release(id);
        self.holds.give_room_back();
    }

    /// Publishes a prepare: first the account as it is without the money, then the money.
    fn begin_move(
        &self,
        writer: &mut Writer,
        step: MoveStep,
        now: Timestamp,
        publish: impl FnOnce(&Account, &Account),
    ) -> (Done, [Record; 2], tally_journal::Reservation) {
        let MoveStep { mut account, mut settlement, money } = step;
        let reservation = writer.reserve(STRETCH_LEN_BYTES as u64, 2, now);
        let (first, second) = places(&reservation, ACCOUNT_LEN_BYTES);
        let mut bare = account.clone();
        // Nothing else is held on it.
        (bare.sums.debits_held, bare.sums.credits_held) = Default::default();
        (bare.lsn, bare.timestamp) = first;
        (account.lsn, account.timestamp) = second;
        (settlement.lsn, settlement.timestamp) = second;
        publish(&account, &settlement);
        self.note_effects(&money, second.0, second.1);
        let done = Done::of(second.0, second.1, &money);
        let records = [
            record(first, RecordBody::Account(AccountChange::Moved, bare)),
            record(second, RecordBody::Transfer(money)),
        ];
        (done, records, reservation)
    }
}

/// Position and stamp of two records, the first of which takes `first_len_bytes`.
fn places(reservation: &tally_journal::Reservation, first_len_bytes: usize) -> ((Lsn, Timestamp), (Lsn, Timestamp)) {
    let (lsn, stamp) = (reservation.lsn(), reservation.timestamp());
    let second = (Lsn::new(lsn.get() + first_len_bytes as u64), Timestamp::from_nanos(stamp.as_nanos() + 1));
    ((lsn, stamp), second)
}

fn record((lsn, timestamp): (Lsn, Timestamp), body: RecordBody) -> Record {
    Record { lsn, timestamp, actor: CustomerId::BANK, body }
}

fn fill(writer: &mut Writer, reservation: tally_journal::Reservation, records: &[Record; 2]) {
    writer.fill(reservation, |space| {
        let (first, second) = space.split_at_mut(records[0].body.len_bytes());
        records[0].encode_into(first);
        records[1].encode_into(second);
    });
}
