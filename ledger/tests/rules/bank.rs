//! The smallest shell around the rules: accounts, holds and a journal in memory, one event at a time.
//!
//! After every event it checks all invariants, and that each record survives its encoding; at the end, that
//! replaying the records gives the same state.

use std::collections::BTreeMap;

use tally_ledger::journal::record::{AccountChange, Record, RecordBody, TransferRecord};
use tally_ledger::wire::transfer_state;
use tally_ledger::{
    Account, Actor, ChainOpened, ChainOutcome, ChainStep, Ended, Hold, Opened, Outcome, RecordEffect, Reference,
    StateHash, Sums, Transfer, cancel_id, cash_account, cash_account_id, chain_accounts, check, close_account, decide,
    decide_chain, effective_accounts, expire_hold, freeze_account, hold_end_record, mixed, open_account, open_chain,
    redo_account, redo_credit, redo_debit, repeat, set_limits, stretches, transfer_record, unfreeze_account,
};
use tally_protocol::message::{self, TransferKind, TransferState};
use tally_protocol::{AccountId, Amount, BranchId, CustomerId, Lsn, Refusal, Timestamp, TransferId};

/// The branch of every test.
pub(crate) const BRANCH: BranchId = BranchId::new(1);

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) refusal: Option<Refusal>,
    pub(crate) amount: Amount,
    pub(crate) repeated: bool,
}

/// A branch in memory.
#[derive(Clone, Debug)]
pub(crate) struct Bank {
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<Record>,
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) holds: BTreeMap<TransferId, Hold>,
    ids: BTreeMap<TransferId, usize>,
    ended: BTreeMap<TransferId, usize>,
    next_lsn: Lsn,
    held_by_hand: bool,
}

impl Bank {
    /// An empty branch at `now`.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            log: Vec::new(),
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            ids: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_lsn: Lsn::new(4096),
            held_by_hand: false,
        }
    }

    /// One transfer of a batch, or one by itself.
    pub(crate) fn transfer(&mut self, wire: &message::Transfer, actor: &Actor) -> Answer {
        let transfer = match Transfer::from_wire(wire, BRANCH) {
            Ok(transfer) => transfer,
            Err(refusal) => return unrecorded(refusal),
        };
        assert!(transfer.to_wire() == *wire, "a transfer survives being read and written");
        if let Some(&known) = self.ids.get(&transfer.id) {
            return match repeat(&transfer, &self.log[known].body) {
                Ok(record) => Answer { refusal: record.refusal, amount: record.amount, repeated: true },
                Err(refusal) => unrecorded(refusal),
            };
        }
        let reference = self.reference(transfer.reference);
        self.open_tills(&transfer);
        self.tick();
        let outcome = match effective_accounts(&transfer, &reference, BRANCH) {
            Ok((debit, credit)) => {
                let (debit, credit) = (self.accounts.get(&debit), self.accounts.get(&credit));
                decide(&transfer, &reference, debit, credit, actor, self.now)
            }
            Err(refusal) => Outcome::refused(refusal, None, None),
        };
        let record = transfer_record(&transfer, &reference, BRANCH, &outcome);
        self.append(actor.customer, RecordBody::Transfer(record));
        self.take_over(&outcome, &record);
        self.verify();
        Answer { refusal: outcome.refusal, amount: outcome.amount, repeated: false }
    }

    /// A batch: single transfers and chains.
    pub(crate) fn batch(&mut self, wires: &[message::Transfer], actor: &Actor) -> Vec<Answer> {
        let mut answers = Vec::new();
        for stretch in stretches(wires) {
            let stretch_wires = &wires[stretch.range];
            if let (None, Some(refusals)) = (stretch.refusal, mixed(&wires[0], stretch_wires)) {
                answers.extend(refusals.into_iter().map(unrecorded));
                continue;
            }
            match stretch.refusal {
                None if stretch_wires.len() == 1 => answers.push(self.transfer(&stretch_wires[0], actor)),
                None => answers.extend(self.chain(stretch_wires, actor)),
                Some(refusal) => {
                    answers.extend(stretch_wires[1..].iter().map(|_| unrecorded(Refusal::ChainBroken)));
                    answers.push(unrecorded(refusal));
                }
            }
        }
        answers
    }

    /// A chain.
    pub(crate) fn chain(&mut self, wires: &[message::Transfer], actor: &Actor) -> Vec<Answer> {
        if let Some(refusals) = mixed(&wires[0], wires) {
            return refusals.into_iter().map(unrecorded).collect();
        }
        let read: Vec<_> = wires.iter().map(|wire| Transfer::from_wire(wire, BRANCH)).collect();
        if let Some(malformed) = read.iter().position(Result::is_err) {
            let answer = |(i, read): (usize, &Result<_, Refusal>)| match read {
                Err(refusal) if i == malformed => unrecorded(*refusal),
                Ok(_) | Err(_) => unrecorded(Refusal::ChainBroken),
            };
            return read.iter().enumerate().map(answer).collect();
        }
        let transfers: Vec<Transfer> = read.into_iter().map(|read| read.expect("none is malformed")).collect();
        let known = |transfer: &Transfer| self.ids.get(&transfer.id).map(|&i| repeat(transfer, &self.log[i].body));
        if transfers.iter().all(|transfer| matches!(known(transfer), Some(Ok(_)))) {
            return wires.iter().map(|wire| self.transfer(wire, actor)).collect();
        }
        let refusal_of = |transfer| known(transfer).map(|known| known.err().unwrap_or(Refusal::IdAlreadyUsed));
        let steps: Vec<ChainStep> = transfers
            .iter()
            .map(|transfer| ChainStep {
                transfer: *transfer,
                reference: self.reference(transfer.reference),
                refusal: refusal_of(transfer),
            })
            .collect();
        transfers.iter().for_each(|transfer| self.open_tills(transfer));
        let mut ids = Vec::new();
        chain_accounts(&steps, BRANCH, &mut ids);
        let accounts: Vec<Account> = ids.iter().filter_map(|id| self.accounts.get(id).cloned()).collect();
        let mut chain = ChainOutcome::default();
        self.tick();
        let first = self.now;
        decide_chain(&steps, &accounts, BRANCH, actor, first, &mut chain);
        assert!(chain.outcomes.len() == steps.len() && chain.references.len() == steps.len(), "one for each step");
        if !chain.is_done() {
            assert!(chain.accounts == accounts, "a broken chain leaves the accounts as they were");
        }
        if chain.is_recorded() {
            for (index, (step, outcome)) in steps.iter().zip(&chain.outcomes).enumerate() {
                self.now = Timestamp::from_nanos(first.as_nanos() + index as u64);
                let record = transfer_record(&step.transfer, &chain.references[index], BRANCH, outcome);
                self.append(actor.customer, RecordBody::Transfer(record));
                self.take_over(outcome, &record);
            }
        }
        for account in &chain.accounts {
            assert!(self.accounts[&account.id].sums == account.sums, "the chain's copies end where its records do");
        }
        self.verify();
        let answer = |outcome: &Outcome| Answer { refusal: outcome.refusal, amount: outcome.amount, repeated: false };
        chain.outcomes.iter().map(answer).collect()
    }

    /// Ends every hold whose time has run out.
    pub(crate) fn expire(&mut self) {
        let due: Vec<Hold> = self.holds.values().filter(|hold| hold.expires_at <= self.now).copied().collect();
        for hold in due {
            self.tick();
            let (debit, credit) = (&self.accounts[&hold.debit_account_id], &self.accounts[&hold.credit_account_id]);
            let outcome = expire_hold(&hold, debit, credit);
            let record = hold_end_record(&hold, &outcome);
            self.append(CustomerId::BANK, RecordBody::Expired(record));
            self.take_over(&outcome, &record);
        }
        self.verify();
    }

    /// Opens an account: `Ok(false)` when it was there before.
    pub(crate) fn open(&mut self, wire: &message::AccountOpen) -> Result<bool, Refusal> {
        let id = AccountId::new(wire.id.get());
        match open_account(wire, self.accounts.get(&id), BRANCH, self.now)? {
            Opened::New(account) => self.put_opened(account),
            Opened::Before => return Ok(false),
        }
        Ok(true)
    }

    /// One request of accounts to open: single ones and chains.
    pub(crate) fn open_all(&mut self, wires: &[message::AccountOpen]) -> Vec<Result<bool, Refusal>> {
        let mut answers = Vec::new();
        for stretch in stretches(wires) {
            let stretch_wires = &wires[stretch.range];
            let broken = Err(Refusal::ChainBroken);
            match (stretch.refusal, mixed(&wires[0], stretch_wires), stretch_wires) {
                (Some(refusal), _, _) => {
                    answers.extend(stretch_wires[1..].iter().map(|_| broken));
                    answers.push(Err(refusal));
                }
                (None, Some(refusals), _) => answers.extend(refusals.into_iter().map(Err)),
                (None, None, [single]) => answers.push(self.open(single)),
                (None, None, chain) => answers.extend(self.open_chain(chain)),
            }
        }
        answers
    }

    fn open_chain(&mut self, wires: &[message::AccountOpen]) -> Vec<Result<bool, Refusal>> {
        let existing = |wire: &message::AccountOpen| self.accounts.get(&AccountId::new(wire.id.get())).cloned();
        let existing: Vec<Option<Account>> = wires.iter().map(existing).collect();
        match open_chain(wires, &existing, BRANCH, self.now) {
            Ok(ChainOpened::New(accounts)) => {
                assert!(accounts.len() == wires.len(), "one for each");
                accounts.into_iter().for_each(|account| self.put_opened(account));
                wires.iter().map(|_| Ok(true)).collect()
            }
            Ok(ChainOpened::Before) => wires.iter().map(|_| Ok(false)).collect(),
            Err(refusals) => refusals.into_iter().map(Err).collect(),
        }
    }

    fn put_opened(&mut self, mut account: Account) {
        let stamp = Timestamp::from_nanos(self.now.as_nanos() + 1);
        account.set_opened(self.next_lsn, stamp);
        self.change(AccountChange::Opened, account);
    }

    /// Closes an account.
    pub(crate) fn close(&mut self, id: AccountId) -> Result<(), Refusal> {
        close_account(self.accounts.get(&id)).map(|after| self.change(AccountChange::Closed, after))
    }

    /// Freezes an account.
    pub(crate) fn freeze(&mut self, id: AccountId) -> Result<(), Refusal> {
        freeze_account(self.accounts.get(&id)).map(|after| self.change(AccountChange::Frozen, after))
    }

    /// Unfreezes an account.
    pub(crate) fn unfreeze(&mut self, id: AccountId) -> Result<(), Refusal> {
        unfreeze_account(self.accounts.get(&id)).map(|after| self.change(AccountChange::Unfrozen, after))
    }

    /// Sets an account's limits.
    pub(crate) fn limits(&mut self, wire: &message::LimitsSet) -> Result<(), Refusal> {
        let existing = self.accounts.get(&AccountId::new(wire.id.get()));
        set_limits(wire, existing).map(|after| self.change(AccountChange::LimitsSet, after))
    }

    /// Puts sums on an account by hand, none lower than before, and what that adds, mirrored, on another, so
    /// that debits equal credits.
    pub(crate) fn put(&mut self, id: AccountId, sums: Sums) {
        let before = self.accounts[&id].clone();
        let mirror_id = AccountId::of_branch(BRANCH, id.get() + 1_000_000);
        let blank = Account { id: mirror_id, flags: 0, sums: Sums::default(), ..before.clone() };
        let mirror = self.accounts.get(&mirror_id).cloned().unwrap_or(blank);
        let grown = |mirrored: Amount, new: Amount, old: Amount| {
            let step = new.checked_sub(old).expect("sums put by hand only grow");
            mirrored.checked_add(step).expect("the mirror fits")
        };
        let mirrored = Sums {
            debits_held: grown(mirror.sums.debits_held, sums.credits_held, before.sums.credits_held),
            debits_posted: grown(mirror.sums.debits_posted, sums.credits_posted, before.sums.credits_posted),
            credits_held: grown(mirror.sums.credits_held, sums.debits_held, before.sums.debits_held),
            credits_posted: grown(mirror.sums.credits_posted, sums.debits_posted, before.sums.debits_posted),
        };
        self.held_by_hand |= sums.debits_held != before.sums.debits_held;
        self.held_by_hand |= sums.credits_held != before.sums.credits_held;
        self.put_down(AccountChange::LimitsSet, Account { sums, ..before });
        self.put_down(AccountChange::Opened, Account { sums: mirrored, ..mirror });
        self.verify();
    }

    /// Burns an id: `Ok(false)` when it was burnt before.
    pub(crate) fn cancel(&mut self, id: TransferId) -> Result<bool, Refusal> {
        tally_ledger::check_transfer_id(id)?;
        let is_new = cancel_id(self.ids.get(&id).map(|&i| &self.log[i].body))?;
        if is_new {
            self.tick();
            self.append(CustomerId::BANK, RecordBody::Cancelled(id));
        }
        Ok(is_new)
    }

    /// What a look-up says; `None` for an id that is not known.
    pub(crate) fn state_of(&self, id: TransferId) -> Option<TransferState> {
        let &known = self.ids.get(&id)?;
        Some(match &self.log[known].body {
            RecordBody::Transfer(record) => transfer_state(record, self.ended_of(id)),
            RecordBody::Cancelled(_) => TransferState::Cancelled,
            RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
                panic!("{id} is indexed to a record of another kind")
            }
        })
    }

    /// The record under an id.
    pub(crate) fn record_of(&self, id: TransferId) -> Option<&TransferRecord> {
        match &self.log[*self.ids.get(&id)?].body {
            RecordBody::Transfer(record) => Some(record),
            RecordBody::Expired(_)
            | RecordBody::Decided(..)
            | RecordBody::Rehomed(_)
            | RecordBody::Account(..)
            | RecordBody::Cancelled(_) => None,
        }
    }

    /// The hash of the state as it is served.
    pub(crate) fn hash(&self) -> StateHash {
        StateHash::of(self.accounts.values(), self.holds.values())
    }

    /// The state that the records from `from` on give, from accounts and holds that were saved at some time
    /// between `from` and the end.
    pub(crate) fn replay(
        &self,
        from: usize,
        mut accounts: BTreeMap<AccountId, Account>,
        mut holds: BTreeMap<TransferId, Hold>,
    ) -> StateHash {
        for record in &self.log[from..] {
            let (lsn, at) = (record.lsn, record.timestamp);
            match &record.body {
                RecordBody::Transfer(of)
                | RecordBody::Expired(of)
                | RecordBody::Decided(_, of)
                | RecordBody::Rehomed(of)
                    if of.refusal.is_none() =>
                {
                    redo_debit(accounts.get_mut(&of.debit_account_id).expect("opened before"), of, lsn, at);
                    redo_credit(accounts.get_mut(&of.credit_account_id).expect("opened before"), of, lsn, at);
                }
                RecordBody::Account(_, of) => {
                    if let Some(after) = redo_account(accounts.get(&of.id), record) {
                        accounts.insert(of.id, after);
                    }
                }
                RecordBody::Transfer(_)
                | RecordBody::Expired(_)
                | RecordBody::Decided(..)
                | RecordBody::Rehomed(_)
                | RecordBody::Cancelled(_) => {}
            }
            match RecordEffect::of(&record.body, lsn, at) {
                RecordEffect::None | RecordEffect::Reversed(_) | RecordEffect::HoldKept(_) => {}
                RecordEffect::HoldRehomed { .. } | RecordEffect::HoldJoining(..) => {
                    unreachable!("this branch stands alone")
                }
                RecordEffect::HoldOpened(hold) => drop(holds.insert(hold.id, hold)),
                RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => drop(holds.remove(&id)),
            }
        }
        StateHash::of(accounts.values(), holds.values())
    }

    fn ended_of(&self, id: TransferId) -> Option<Ended> {
        self.ended.get(&id).and_then(|&i| Ended::of_record(&self.log[i].body))
    }

    fn reference(&self, id: TransferId) -> Reference {
        if id.is_none() {
            return Reference::NotGiven;
        }
        let Some(&known) = self.ids.get(&id) else { return Reference::Absent };
        let record = &self.log[known];
        let reference = Reference::of_record(&record.body, record.lsn, record.timestamp, self.ended_of(id));
        if let Reference::Open(hold) = &reference {
            assert!(self.holds[&id] == *hold, "the table of holds and the journal tell the same hold");
        }
        reference
    }

    fn open_tills(&mut self, transfer: &Transfer) {
        if let (TransferKind::Deposit | TransferKind::Withdraw, Some(currency)) = (transfer.kind, transfer.currency)
            && !self.accounts.contains_key(&cash_account_id(BRANCH, currency))
        {
            self.change(AccountChange::Opened, cash_account(BRANCH, currency, self.now));
        }
    }

    fn tick(&mut self) {
        self.now = Timestamp::from_nanos(self.now.as_nanos() + 1);
    }

    fn change(&mut self, change: AccountChange, account: Account) {
        self.put_down(change, account);
        self.verify();
    }

    fn put_down(&mut self, change: AccountChange, account: Account) {
        self.tick();
        let after = Account { lsn: self.next_lsn, timestamp: self.now, ..account };
        self.append(CustomerId::BANK, RecordBody::Account(change, after.clone()));
        self.accounts.insert(after.id, after);
    }

    fn append(&mut self, actor: CustomerId, body: RecordBody) {
        let record = Record { lsn: self.next_lsn, timestamp: self.now, actor, body };
        assert!(self.log.last().is_none_or(|last| last.timestamp < record.timestamp), "time stamps rise");
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert!(Record::decode(&bytes).as_ref() == Ok(&record), "a record survives its encoding: {record:?}");
        let index = self.log.len();
        match &record.body {
            RecordBody::Transfer(of) => {
                assert!(self.ids.insert(of.id, index).is_none(), "one id, one effect: {}", of.id);
                if Ended::of_record(&record.body).is_some() {
                    assert!(self.ended.insert(of.reference, index).is_none(), "{} ended twice", of.reference);
                }
            }
            RecordBody::Rehomed(_) => {}
            RecordBody::Expired(of) | RecordBody::Decided(_, of) => {
                assert!(self.ended.insert(of.id, index).is_none(), "{} ended twice", of.id);
            }
            RecordBody::Cancelled(id) => {
                assert!(self.ids.insert(*id, index).is_none(), "one id, one effect: {id}");
            }
            RecordBody::Account(..) => {}
        }
        self.next_lsn = Lsn::new(self.next_lsn.get() + bytes.len() as u64);
        self.log.push(record);
    }

    /// Brings accounts and holds to the state after the record that was appended last.
    fn take_over(&mut self, outcome: &Outcome, record: &TransferRecord) {
        if !outcome.is_done() {
            return;
        }
        let last = self.log.last().expect("the record was appended");
        let (lsn, at) = (last.lsn, last.timestamp);
        match RecordEffect::of(&last.body, lsn, at) {
            RecordEffect::HoldRehomed { .. } | RecordEffect::HoldJoining(..) => {
                unreachable!("this branch stands alone")
            }
            RecordEffect::None | RecordEffect::Reversed(_) | RecordEffect::HoldKept(_) => {}
            RecordEffect::HoldOpened(hold) => drop(self.holds.insert(hold.id, hold)),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => {
                assert!(self.holds.remove(&id).is_some(), "{id} was open")
            }
        }
        let (debit_id, credit_id) = (record.debit_account_id, record.credit_account_id);
        let (mut debit, mut credit) = (self.accounts[&debit_id].clone(), self.accounts[&credit_id].clone());
        outcome.apply(&mut debit, &mut credit, lsn, at);
        for after in [debit, credit] {
            check::step(&self.accounts[&after.id], &after).expect("no step passes a limit");
            self.accounts.insert(after.id, after);
        }
    }

    fn verify(&self) {
        let accounts: Vec<Account> = self.accounts.values().cloned().collect();
        let holds: Vec<Hold> = self.holds.values().copied().collect();
        if self.held_by_hand {
            check::conservation(&accounts).expect("debits equal credits");
        } else {
            check::state(&accounts, &holds).expect("every state is valid");
        }
    }
}

fn unrecorded(refusal: Refusal) -> Answer {
    Answer { refusal: Some(refusal), amount: Amount::ZERO, repeated: false }
}
