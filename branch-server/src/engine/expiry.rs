//! A hold whose time ran out: given back by the branch itself, with a record of its own.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{Ending, Hold, expire_hold, hold_end_record};
use tally_protocol::{CustomerId, Timestamp, TransferId};

use super::{Engine, Writer};
use crate::accounts;

impl Engine {
    /// Ends the hold `id` if it is still open and due at `now`. `false` when the log has no room just now.
    pub fn expire(&self, writer: &mut Writer, id: TransferId, now: Timestamp) -> bool {
        if writer.secure(TransferRecord::len_bytes_of(false) as u64).is_err() {
            return false;
        }
        let Some(hold) = self.holds.get(id).filter(Hold::has_timeout) else { return true };
        // The record of a hold between branches names the account at the other one.
        let len_bytes = TransferRecord::len_bytes_of(!hold.leg.is_part());
        let find = |id| self.accounts.find(id).expect("a hold's accounts exist");
        let (debit_slot, credit_slot) = (find(hold.debit_account_id), find(hold.credit_account_id));
        let (debit_lock, credit_lock) = accounts::lock_both(debit_slot, credit_slot);
        // Settled or voided before the locks were there; or an account of it has gone, and with it perhaps the clock.
        if self.holds.get(id) != Some(hold) {
            return true;
        }
        let (mut debit, mut credit) = (debit_lock.load(), credit_lock.load());
        if !debit.status.is_here() || !credit.status.is_here() {
            // It is on its way: the end of the move looks at the clock again.
            self.holds.freeze(&hold);
            return true;
        }
        let reservation = writer.reserve(len_bytes as u64, 1, now);
        let outcome = expire_hold(&hold, &debit, &credit);
        outcome.apply(&mut debit, &mut credit, reservation.lsn(), reservation.timestamp());
        debit_lock.publish_sums(&debit);
        credit_lock.publish_sums(&credit);
        self.holds.remove(id).expect("it was open under these locks");
        self.ids.note_ended(id, reservation.lsn());
        let (lsn, timestamp) = (reservation.lsn(), reservation.timestamp());
        let body = RecordBody::Expired(hold_end_record(&hold, &outcome));
        if let Some(ending) = Ending::of_record(&body, lsn, timestamp) {
            self.holds.note_ending(ending);
        }
        drop((debit_lock, credit_lock));
        let record = Record { lsn, timestamp, actor: CustomerId::BANK, body };
        writer.fill(reservation, |space| record.encode_into(space));
        true
    }
}
