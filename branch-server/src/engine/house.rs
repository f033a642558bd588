//! The branch's own accounts: opened, with a record like any other, when their currency is first used.

use tally_ledger::journal::record::{AccountChange, Record, RecordBody};
use tally_ledger::{cash_account, cash_account_id, settlement_account, settlement_account_id};
use tally_protocol::{AccountId, Currency, CustomerId, Timestamp};

use super::{Engine, Writer};
use crate::accounts::Slot;

impl Engine {
    /// Opens the house account `id`, unless another worker just did. `None` when `id` names no cash or settlement
    /// account of this branch, or there is no room.
    ///
    /// The caller has secured log space for it.
    pub(super) fn open_house(&self, writer: &mut Writer, id: AccountId, now: Timestamp) -> Option<&Slot> {
        if !id.is_house() {
            return None;
        }
        let currency = Currency::new(id.get() as u16)?;
        let peer = id.settlement_peer();
        let is_ours = match peer {
            Some(peer) => id == settlement_account_id(self.branch, peer, currency),
            None => id == cash_account_id(self.branch, currency),
        };
        if !is_ours {
            return None;
        }
        let opening = self.accounts.opening();
        if let Some(slot) = self.accounts.find(id) {
            return Some(slot);
        }
        opening.secure(1).ok()?;
        let len_bytes = RecordBody::account_len_bytes(AccountChange::Opened);
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let mut account = match peer {
            Some(peer) => settlement_account(self.branch, peer, currency, reservation.timestamp()),
            None => cash_account(self.branch, currency, reservation.timestamp()),
        };
        account.lsn = reservation.lsn();
        let slot = opening.open(&account);
        drop(opening);
        let record = Record {
            lsn: account.lsn,
            timestamp: account.timestamp,
            actor: CustomerId::BANK,
            body: RecordBody::Account(AccountChange::Opened, account),
        };
        writer.fill(reservation, |space| record.encode_into(space));
        Some(slot)
    }
}
