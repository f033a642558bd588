//! Linked transfers through the same stages: every id reserved, every account locked, one stretch of the log.

use std::ops::Range;

use tally_ledger::journal::record::{RECORD_LEN_BYTES_MAX, Record, RecordBody};
use tally_ledger::{
    Account, ChainOutcome, ChainStep as Link, Guests, Leg, Reference, Transfer, chain_accounts, decide_chain, is_here,
    mixed, permit_transfer, transfer_record,
};
use tally_protocol::message::{self, account_flags};
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp, TransferId};

use super::stages::{must_stay_absent, opens_hold};
use super::{Done, Engine, Writer, refusal_of};
use crate::accounts::{Locked, Slot};
use crate::ids::{LookedUp, Reserve};
use crate::lookup::{Asker, Looked};

/// How far a chain came.
#[derive(Debug)]
pub enum ChainStep {
    /// Recorded: all posted, or all refused for good.
    Done(Vec<Done>),
    /// Refused without a trace, each for the reason given.
    NotRecorded(Vec<Refusal>),
    /// Not taken at all.
    Refused(Refusal),
    /// Another worker has one of the ids in hand.
    InFlight,
    /// The disk has to be asked first.
    Lookup,
}

/// What a chain holds on to before its accounts are locked, and gives back if it gets no further.
struct Claims<'e> {
    engine: &'e Engine,
    ids: Vec<TransferId>,
    /// References that are absent and must stay so, until the refusal has its position.
    absent: Vec<TransferId>,
    hold_rooms: usize,
}

/// Why an account that has moved, or is about to, takes part in no chain: its ids may be known at another branch, and one
/// id is asked about at a time.
fn moved_refusal(account: &Account) -> Option<Refusal> {
    let has_moved = account.has(account_flags::HAS_MOVED);
    is_here(account).err().or(has_moved.then_some(Refusal::MovedAccountSinglesOnly))
}

/// What becomes of a chain with an account that is not here, or was elsewhere before.
fn away(transfers: &[Transfer], accounts: &[Account]) -> Option<ChainStep> {
    if transfers.first().is_none_or(|first| first.leg != Leg::Destination) {
        return accounts.iter().find_map(moved_refusal).map(ChainStep::Refused);
    }
    // The source believes that they are here, and has used the ids up: it must hear something that stays.
    let is_away = |transfer: &Transfer| {
        accounts.iter().any(|account| account.id == transfer.credit_account_id && is_here(account).is_err())
    };
    let at = transfers.iter().position(is_away)?;
    let refusal = |index| if index == at { Refusal::CreditAccountMoved } else { Refusal::ChainBroken };
    Some(ChainStep::NotRecorded((0..transfers.len()).map(refusal).collect()))
}

impl Engine {
    /// Takes a chain through all stages: all of it is posted, or nothing.
    pub fn chain(
        &self,
        writer: &mut Writer,
        wires: &[message::Transfer],
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
        now_ns: impl FnOnce() -> u64,
    ) -> ChainStep {
        let form = |_: usize, wire: &message::Transfer| Transfer::from_wire(wire, self.branch);
        match self.well_formed(wires, asker, form) {
            Ok(transfers) => self.carry_chain(writer, transfers, None, asker, looked, now, now_ns),
            Err(refusals) => ChainStep::NotRecorded(refusals),
        }
    }

    /// Takes a chain whose form is checked through all stages. `alias` is an id that leads to its first member beside that
    /// one's own.
    #[expect(clippy::too_many_arguments, reason = "the stages' own arguments, and where to write")]
    pub(super) fn carry_chain(
        &self,
        writer: &mut Writer,
        transfers: Vec<Transfer>,
        alias: Option<TransferId>,
        asker: &Asker,
        looked: Option<&Looked>,
        now: Timestamp,
        now_ns: impl FnOnce() -> u64,
    ) -> ChainStep {
        // Twice: a cash account may have to be opened for each.
        if let Err(full) = writer.secure((2 * RECORD_LEN_BYTES_MAX * transfers.len()) as u64) {
            return ChainStep::Refused(refusal_of(full));
        }
        let Some(found) = self.find_references(&transfers, looked) else { return ChainStep::Lookup };
        if let Some(refusals) = not_now(&found) {
            return ChainStep::NotRecorded(refusals);
        }
        let claims = match self.claim(&transfers, alias, &found, looked) {
            Ok(claims) => claims,
            Err(step) => return step,
        };
        let links: Vec<Link> = transfers
            .iter()
            .zip(&found)
            .map(|(&transfer, &(reference, _))| Link { transfer, reference, refusal: None })
            .collect();
        let mut account_ids = Vec::with_capacity(2 * links.len());
        chain_accounts(&links, self.branch, &mut account_ids);
        for &id in &account_ids {
            if self.accounts.find(id).is_none() {
                self.open_house(writer, id, now);
            }
        }
        // Under the opening lock where one is missing, so that it stays missing until the refusal has its position.
        let all_there = account_ids.iter().all(|&id| self.accounts.find(id).is_some());
        let opening = (!all_there).then(|| self.accounts.opening());
        let slots: Vec<&Slot> = account_ids.iter().filter_map(|&id| self.accounts.find(id)).collect();
        // `account_ids` rise, and so the locks are taken in order.
        let locks: Vec<Locked<'_>> = slots.iter().map(|slot| slot.lock()).collect();
        if asker.deadline != 0 && now_ns() > asker.deadline {
            claims.give_back();
            return ChainStep::Refused(Refusal::DeadlinePassed);
        }
        if !links
            .iter()
            .zip(&found)
            .all(|(link, (_, at))| self.still_holds(&link.transfer, &link.reference, at.as_ref()))
        {
            claims.give_back();
            return ChainStep::Lookup;
        }
        let before: Vec<Account> = locks.iter().map(Locked::load).collect();
        // What is to be ended or undone and is not here may be where the account that is named was.
        let named = || {
            links
                .iter()
                .filter(|link| link.reference == Reference::Absent)
                .filter_map(|link| Some(self.accounts.find(link.transfer.debit_account_id)?.read()))
                .find_map(|account| moved_refusal(&account))
        };
        if let Some(step) = away(&transfers, &before).or_else(|| named().map(ChainStep::Refused)) {
            claims.give_back();
            return step;
        }
        let spaces = spaces_of(&transfers);
        let len_bytes = spaces.last().expect("a chain has a link").end;
        let reservation = writer.reserve(len_bytes as u64, transfers.len() as u32, now);
        let mut outcome = ChainOutcome::default();
        decide_chain(&links, &before, self.branch, &asker.actor, reservation.timestamp(), &mut outcome);
        let records = self.records_of(&links, &mut outcome, &spaces, reservation.lsn(), reservation.timestamp(), asker);
        for ((lock, before), after) in locks.iter().zip(&before).zip(&outcome.accounts) {
            if after.lsn != before.lsn {
                lock.publish_sums(after);
            }
        }
        for record in &records {
            let RecordBody::Transfer(transfer) = &record.body else { unreachable!("built as transfers") };
            self.note_effects(transfer, record.lsn, record.timestamp);
        }
        if let Some(alias) = alias {
            self.ids.finish(alias, reservation.lsn());
        }
        claims.release_absent();
        drop((locks, opening));
        writer.fill(reservation, |space| {
            for (record, range) in records.iter().zip(&spaces) {
                record.encode_into(&mut space[range.clone()]);
            }
        });
        ChainStep::Done(records.iter().map(done_of).collect())
    }

    /// Every link in typed form, or why the chain is malformed: its own reason for each broken link, and
    /// `ChainBroken` for the others.
    pub(super) fn well_formed(
        &self,
        wires: &[message::Transfer],
        asker: &Asker,
        form: impl Fn(usize, &message::Transfer) -> Result<Transfer, Refusal>,
    ) -> Result<Vec<Transfer>, Vec<Refusal>> {
        let Some(first) = wires.first() else { return Err(Vec::new()) };
        if let Some(refusals) = mixed(first, wires) {
            return Err(refusals);
        }
        let mut ids: Vec<u128> = wires.iter().map(|wire| wire.id.get()).collect();
        ids.sort_unstable();
        let is_repeated = |id: u128| {
            let first = ids.partition_point(|&other| other < id);
            ids.get(first + 1) == Some(&id)
        };
        let checked: Vec<Result<Transfer, Refusal>> = wires
            .iter()
            .enumerate()
            .map(|(index, wire)| {
                let transfer = form(index, wire).map_err(|refusal| match refusal {
                    Refusal::WrongBranch if self.guests_of(wire) != Guests::NONE => Refusal::MovedAccountSinglesOnly,
                    refusal => refusal,
                })?;
                permit_transfer(asker.actor.role, &transfer)?;
                if is_repeated(wire.id.get()) { Err(Refusal::IdAlreadyUsed) } else { Ok(transfer) }
            })
            .collect();
        if checked.iter().all(Result::is_ok) {
            return Ok(checked.into_iter().flatten().collect());
        }
        Err(checked.into_iter().map(|link| link.err().unwrap_or(Refusal::ChainBroken)).collect())
    }

    /// What each link refers to outside of the chain; `None` when only the disk can tell.
    fn find_references(
        &self,
        transfers: &[Transfer],
        looked: Option<&Looked>,
    ) -> Option<Vec<(Reference, Option<LookedUp>)>> {
        transfers
            .iter()
            .enumerate()
            .map(|(index, transfer)| {
                let is_inside = transfers[..index].iter().any(|earlier| earlier.id == transfer.reference);
                if is_inside { Some((Reference::NotGiven, None)) } else { self.find_reference(transfer, looked) }
            })
            .collect()
    }

    fn claim(
        &self,
        transfers: &[Transfer],
        alias: Option<TransferId>,
        found: &[(Reference, Option<LookedUp>)],
        looked: Option<&Looked>,
    ) -> Result<Claims<'_>, ChainStep> {
        let mut claims = Claims { engine: self, ids: Vec::new(), absent: Vec::new(), hold_rooms: 0 };
        for id in alias.into_iter().chain(transfers.iter().map(|transfer| transfer.id)) {
            claims = claims.claim_id(id, looked.and_then(|looked| looked.id(id)), false)?;
        }
        for (transfer, (reference, looked_up)) in transfers.iter().zip(found) {
            let is_claimed = claims.ids.contains(&transfer.reference) || claims.absent.contains(&transfer.reference);
            if must_stay_absent(reference, looked_up.as_ref()) && !is_claimed {
                claims = claims.claim_id(transfer.reference, looked_up.as_ref(), true)?;
            }
        }
        for _ in transfers.iter().filter(|transfer| opens_hold(transfer.kind, transfer.leg)) {
            if !self.holds.secure_room() {
                claims.give_back();
                return Err(ChainStep::Refused(Refusal::CapacityReached));
            }
            claims.hold_rooms += 1;
        }
        Ok(claims)
    }

    fn records_of(
        &self,
        links: &[Link],
        outcome: &mut ChainOutcome,
        spaces: &[Range<usize>],
        first: Lsn,
        stamp: Timestamp,
        asker: &Asker,
    ) -> Vec<Record> {
        let ChainOutcome { outcomes, references, accounts } = outcome;
        let place = |accounts: &[Account], id: AccountId| accounts.binary_search_by(|account| account.id.cmp(&id));
        (0..links.len())
            .map(|index| {
                let lsn = Lsn::new(first.get() + spaces[index].start as u64);
                let timestamp = Timestamp::from_nanos(stamp.as_nanos() + index as u64);
                let transfer =
                    transfer_record(&links[index].transfer, &references[index], self.branch, &outcomes[index]);
                if transfer.refusal.is_none() {
                    for id in [transfer.debit_account_id, transfer.credit_account_id] {
                        let at = place(accounts, id).expect("a posted transfer's accounts are locked");
                        (accounts[at].lsn, accounts[at].timestamp) = (lsn, timestamp);
                    }
                }
                Record { lsn, timestamp, actor: asker.actor.customer, body: RecordBody::Transfer(transfer) }
            })
            .collect()
    }
}

impl<'e> Claims<'e> {
    /// Reserves one more id, or gives all back.
    fn claim_id(mut self, id: TransferId, looked_up: Option<&LookedUp>, is_absent: bool) -> Result<Self, ChainStep> {
        let reserved = self.engine.reserve_id(id, looked_up);
        let step = match reserved {
            Reserve::New => {
                if is_absent { &mut self.absent } else { &mut self.ids }.push(id);
                return Ok(self);
            }
            Reserve::InFlight => ChainStep::InFlight,
            Reserve::Known(_) | Reserve::MaybeOld => ChainStep::Lookup,
            Reserve::Full => ChainStep::Refused(Refusal::Busy),
        };
        self.give_back();
        Err(step)
    }

    fn give_back(self) {
        self.ids.iter().for_each(|&id| self.engine.ids.release(id));
        (0..self.hold_rooms).for_each(|_| self.engine.holds.give_room_back());
        self.release_absent();
    }

    fn release_absent(self) {
        self.absent.iter().for_each(|&id| self.engine.ids.release(id));
    }
}

/// Why nothing of the chain can be done here or now: where a link names a hold between branches that cannot be acted on.
fn not_now(found: &[(Reference, Option<LookedUp>)]) -> Option<Vec<Refusal>> {
    let refusal = |reference: &Reference| match reference {
        Reference::NotNow(refusal) => Some(*refusal),
        _ => None,
    };
    found
        .iter()
        .any(|(reference, _)| refusal(reference).is_some())
        .then(|| found.iter().map(|(reference, _)| refusal(reference).unwrap_or(Refusal::ChainBroken)).collect())
}

/// Where each record goes, relative to the first.
fn spaces_of(transfers: &[Transfer]) -> Vec<Range<usize>> {
    let mut end = 0;
    transfers
        .iter()
        .map(|transfer| {
            let start = end;
            end += transfer.record_len_bytes();
            start..end
        })
        .collect()
}

fn done_of(record: &Record) -> Done {
    let RecordBody::Transfer(transfer) = &record.body else { unreachable!("built as transfers") };
    Done::of(record.lsn, record.timestamp, transfer)
}
