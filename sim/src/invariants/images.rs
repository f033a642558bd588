//! The accounts as the journal's records say they are: each record carries both accounts as they are after it.
//! Kept apart from the model, so that the invariants hold by the journal's own word.

use std::collections::HashMap;

use tally_ledger::Account;
use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_protocol::{AccountId, Lsn};

/// See the top of the file.
#[derive(Debug, Default)]
pub struct Images {
    accounts: HashMap<AccountId, Account>,
    before: Vec<(Lsn, AccountId, Option<Account>)>,
}

/// An account before and after a record.
#[derive(Clone, Debug)]
pub struct ImageChange {
    /// `None` when the record opened it.
    pub before: Option<Account>,
    /// After it.
    pub after: Account,
}

impl Images {
    /// Applies a record. What it changed: nothing, one account, or the debit and the credit account. `None` when it
    /// changes an account that no record has opened.
    pub fn apply(&mut self, record: &Record) -> Option<Vec<ImageChange>> {
        match &record.body {
            RecordBody::Cancelled(_) => Some(Vec::new()),
            RecordBody::Account(_, account) => Some(vec![self.put(record.lsn, account.clone())]),
            RecordBody::Transfer(transfer) if transfer.refusal.is_some() => Some(Vec::new()),
            RecordBody::Transfer(transfer)
            | RecordBody::Expired(transfer)
            | RecordBody::Decided(_, transfer)
            | RecordBody::Rehomed(transfer) => self.apply_transfer(record, transfer),
        }
    }

    /// Every account.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// Forgets what was recorded at or above `end`.
    pub fn rewind(&mut self, end: Lsn) {
        while self.before.last().is_some_and(|(lsn, _, _)| *lsn >= end) {
            let (_, id, before) = self.before.pop().expect("its last was just seen");
            match before {
                Some(account) => self.accounts.insert(id, account),
                None => self.accounts.remove(&id),
            };
        }
    }

    fn apply_transfer(&mut self, record: &Record, transfer: &TransferRecord) -> Option<Vec<ImageChange>> {
        let mut debit = self.accounts.get(&transfer.debit_account_id)?.clone();
        let mut credit = self.accounts.get(&transfer.credit_account_id)?.clone();
        debit.sums = transfer.debit;
        debit.status = transfer.status.debit(debit.status);
        (debit.day, debit.day_spent) = (transfer.day, transfer.day_spent);
        (debit.lsn, debit.timestamp) = (record.lsn, record.timestamp);
        credit.sums = transfer.credit;
        credit.status = transfer.status.credit(credit.status);
        (credit.lsn, credit.timestamp) = (record.lsn, record.timestamp);
        Some(vec![self.put(record.lsn, debit), self.put(record.lsn, credit)])
    }

    fn put(&mut self, lsn: Lsn, after: Account) -> ImageChange {
        let before = self.accounts.insert(after.id, after.clone());
        self.before.push((lsn, after.id, before.clone()));
        ImageChange { before, after }
    }
}
