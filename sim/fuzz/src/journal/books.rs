//! Accounts and open holds, as plain maps: what a journal must bring back.

use std::collections::BTreeMap;

use tally_ledger::journal::record::{Record, RecordBody};
use tally_ledger::{Account, Hold, RecordEffect, redo_account, redo_credit, redo_debit};
use tally_protocol::{AccountId, TransferId};

/// See the top of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Every account.
    pub accounts: BTreeMap<AccountId, Account>,
    /// The open ones.
    pub holds: BTreeMap<TransferId, Hold>,
}

impl Books {
    /// The books that hold these.
    pub fn of(accounts: impl Iterator<Item = Account>, holds: impl Iterator<Item = Hold>) -> Self {
        let accounts = accounts.map(|account| (account.id, account)).collect();
        Self { accounts, holds: holds.map(|hold| (hold.id, hold)).collect() }
    }

    /// Does what the next record says.
    pub fn redo(&mut self, record: &Record) {
        match &record.body {
            RecordBody::Transfer(transfer)
            | RecordBody::Expired(transfer)
            | RecordBody::Decided(_, transfer)
            | RecordBody::Rehomed(transfer) => {
                if let Some(account) = self.accounts.get_mut(&transfer.debit_account_id) {
                    redo_debit(account, transfer, record.lsn, record.timestamp);
                }
                if let Some(account) = self.accounts.get_mut(&transfer.credit_account_id) {
                    redo_credit(account, transfer, record.lsn, record.timestamp);
                }
            }
            RecordBody::Account(_, account) => {
                let after = redo_account(self.accounts.get(&account.id), record);
                self.accounts.extend(after.map(|account| (account.id, account)));
            }
            RecordBody::Cancelled(_) => {}
        }
        match RecordEffect::of(&record.body, record.lsn, record.timestamp) {
            RecordEffect::HoldOpened(hold) => drop(self.holds.insert(hold.id, hold)),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => drop(self.holds.remove(&id)),
            // Only parts of transfers between branches are kept or rehomed, and no such branch is written here.
            RecordEffect::HoldKept(_) | RecordEffect::HoldRehomed { .. } | RecordEffect::HoldJoining(..) => unreachable!("{:?}", record.body),
            RecordEffect::Reversed(_) | RecordEffect::None => {}
        }
    }
}
