//! From what the journal gives back to the state in memory. Used by the branch when it starts, and by the
//! simulator after each of its crashes.

use crossbeam::epoch;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::replay::changes_accounts;
use tally_ledger::{Account, Ending, Hold, RecordEffect, redo_account, redo_credit, redo_debit};
use tally_protocol::message::account_flags;
use tally_protocol::{AccountId, BranchId, TransferId};

use crate::accounts::Accounts;
use crate::holds::Holds;
use crate::ids::IdRecovery;
use crate::journal::{CheckpointMeta, RecoveryTarget, Unfit};

/// The state while it is being rebuilt.
pub struct Rebuilding {
    /// Accounts so far.
    pub accounts: Accounts,
    /// Open holds so far.
    pub holds: Holds,
    /// Ids that are not in the index's own files yet.
    pub ids: IdRecovery,
    branch: BranchId,
    fresh: Box<dyn Fn() -> (Accounts, Holds) + Send>,
}

impl Rebuilding {
    /// An empty state of `branch`; `fresh` makes one, and is asked again when a damaged checkpoint has to be forgotten.
    pub fn new(branch: BranchId, ids: IdRecovery, fresh: impl Fn() -> (Accounts, Holds) + Send + 'static) -> Self {
        let (accounts, holds) = fresh();
        Self { accounts, holds, ids, branch, fresh: Box::new(fresh) }
    }

    fn redo_transfer(&self, record: &Record, transfer: &TransferRecord) -> Result<(), Unfit> {
        if !changes_accounts(transfer) {
            return Ok(());
        }
        let find = |id| self.accounts.find(id).ok_or(Unfit::AccountUnknown(id));
        let (debit, credit) = (find(transfer.debit_account_id)?, find(transfer.credit_account_id)?);
        let debit = debit.lock();
        let mut account = debit.load();
        if redo_debit(&mut account, transfer, record.lsn, record.timestamp) {
            debit.publish_sums(&account);
        }
        drop(debit);
        let credit = credit.lock();
        let mut account = credit.load();
        if redo_credit(&mut account, transfer, record.lsn, record.timestamp) {
            credit.publish_sums(&account);
        }
        Ok(())
    }

    fn put(&self, account: &Account) -> Result<(), Unfit> {
        if account.id.branch() != self.branch && !account.has(account_flags::HAS_MOVED) {
            return Err(Unfit::OtherBranch(account.id));
        }
        match self.accounts.find(account.id) {
            Some(slot) => slot.lock().publish_all(account),
            None => {
                let opening = self.accounts.opening();
                opening.secure(1).map_err(|_| Unfit::TooManyAccounts(self.accounts.len()))?;
                opening.open(account);
            }
        }
        Ok(())
    }
}

/// The accounts that replaying `record` touches.
fn accounts_of(record: &Record) -> [AccountId; 2] {
    match &record.body {
        RecordBody::Transfer(transfer)
        | RecordBody::Expired(transfer)
        | RecordBody::Decided(_, transfer)
        | RecordBody::Rehomed(transfer) => [transfer.debit_account_id, transfer.credit_account_id],
        RecordBody::Account(_, account) => [account.id; 2],
        RecordBody::Cancelled(_) => [AccountId::NONE; 2],
    }
}

impl RecoveryTarget for Rebuilding {
    fn restart(&mut self) {
        (self.accounts, self.holds) = (self.fresh)();
    }

    fn checkpoint(&mut self, meta: &CheckpointMeta) {
        self.accounts.make_room(meta.accounts);
    }

    fn prefetch_accounts(&self, accounts: &[Account]) {
        let guard = epoch::pin();
        for account in accounts {
            self.accounts.prefetch_index(self.accounts.hash(account.id), &guard);
        }
    }

    fn prefetch_records(&self, records: &[Record]) {
        let guard = epoch::pin();
        // First where the accounts are looked up, then, by what that brought, the accounts themselves.
        for id in records.iter().flat_map(accounts_of) {
            self.accounts.prefetch_index(self.accounts.hash(id), &guard);
        }
        for id in records.iter().flat_map(accounts_of) {
            self.accounts.prefetch_slot(self.accounts.hash(id), &guard);
        }
    }

    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.put(&account)
    }

    fn hold(&mut self, hold: Hold) {
        match Ending::of_hold(&hold) {
            Some(ending) => self.holds.note_ending_recovered(ending),
            None => self.holds.insert_recovered(hold),
        }
    }

    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        match &record.body {
            RecordBody::Transfer(transfer) => {
                self.redo_transfer(record, transfer)?;
                self.ids.record(named(transfer.id)?, record.lsn);
                // The id of a chain leads to the first member here, also where that has another id.
                if let Some(place) = transfer.chain.filter(|place| place.is_head && place.id != transfer.id) {
                    self.ids.record(named(place.id)?, record.lsn);
                }
            }
            RecordBody::Expired(transfer) | RecordBody::Decided(_, transfer) | RecordBody::Rehomed(transfer) => {
                self.redo_transfer(record, transfer)?;
            }
            RecordBody::Account(_, account) => {
                let existing = self.accounts.find(account.id).map(|slot| slot.read());
                if let Some(account) = redo_account(existing.as_ref(), record) {
                    self.put(&account)?;
                }
            }
            RecordBody::Cancelled(id) => self.ids.record(named(*id)?, record.lsn),
        }
        match RecordEffect::of(&record.body, record.lsn, record.timestamp) {
            RecordEffect::HoldOpened(hold) => self.holds.insert_recovered(hold),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => {
                self.holds.remove(id);
                self.ids.ended(named(id)?, record.lsn);
            }
            RecordEffect::HoldKept(id) => self.holds.keep(id, record.lsn),
            RecordEffect::HoldRehomed { id, from, to } => self.holds.rehome(id, from, to),
            RecordEffect::HoldJoining(id, joining) => self.holds.await_joining(id, joining),
            RecordEffect::Reversed(id) => self.ids.ended(named(id)?, record.lsn),
            RecordEffect::None => {}
        }
        if let Some(ending) = Ending::of_record(&record.body, record.lsn, record.timestamp) {
            self.holds.note_ending_recovered(ending);
        }
        Ok(())
    }
}

fn named(id: TransferId) -> Result<TransferId, Unfit> {
    if id.is_none() { Err(Unfit::NoId) } else { Ok(id) }
}
