//! A number that two states share only if they are the same, bit for bit: the proof that a replay gives the
//! state that was served.
//!
//! The sum of a 128-bit hash per account and per hold, so it does not depend on the order in which they are
//! visited, needs no sorting, and shards can be added up.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::account::Account;
use crate::hold::Hold;

// Different seeds, so that no hold hashes like an account.
const SEED_ACCOUNT: u64 = 1;
const SEED_HOLD: u64 = 2;

/// Bytes of the longest value, rounded up.
const BUFFER_LEN_BYTES: usize = 272;

/// The hash of a set of accounts and open holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHash(u128);

impl StateHash {
    /// The hash of a state.
    pub fn of<'a>(accounts: impl IntoIterator<Item = &'a Account>, holds: impl IntoIterator<Item = &'a Hold>) -> Self {
        let mut hash = Self::default();
        accounts.into_iter().for_each(|account| hash.add_account(account));
        holds.into_iter().for_each(|hold| hash.add_hold(hold));
        hash
    }

    /// Adds an account, every field of it.
    pub fn add_account(&mut self, account: &Account) {
        let mut bytes = Buffer::default();
        bytes.put(account.id.get());
        bytes.put(account.user_data_128);
        for field in [
            account.owner.get(),
            account.user_data_64,
            account.overdraft.get(),
            account.day_limit.get(),
            account.day_spent.get(),
            account.sums.debits_held.get(),
            account.sums.debits_posted.get(),
            account.sums.credits_held.get(),
            account.sums.credits_posted.get(),
            account.opened_at.as_nanos(),
            account.lsn.get(),
            account.timestamp.as_nanos(),
            (account.user_data_32 as u64) << 32 | account.day as u64,
            account.residence.to_word(),
            (account.currency.get() as u64) << 48
                | (account.code as u64) << 32
                | (account.flags as u64) << 16
                | (account.kind as u64) << 8
                | account.status as u64,
        ] {
            bytes.put(field as u128);
        }
        self.add(&bytes, SEED_ACCOUNT);
    }

    /// Adds an open hold, every field of it.
    pub fn add_hold(&mut self, hold: &Hold) {
        let mut bytes = Buffer::default();
        bytes.put(hold.id.get());
        bytes.put(hold.debit_account_id.get());
        bytes.put(hold.credit_account_id.get());
        bytes.put(hold.far_account_id.get());
        for field in [
            hold.amount.get(),
            hold.expires_at.as_nanos(),
            hold.lsn.get(),
            hold.timestamp.as_nanos(),
            hold.attempt.get(),
            (hold.stage.raw(hold.leg) as u64) << 48
                | (hold.closes.credit as u64) << 41
                | (hold.closes.debit as u64) << 40
                | (hold.leg as u64) << 32
                | (hold.currency.get() as u64) << 16
                | hold.code as u64,
        ] {
            bytes.put(field as u128);
        }
        if let Some(place) = hold.chain {
            bytes.put(place.id.get());
            bytes.put((place.member as u128) << 1 | place.is_head as u128);
        }
        self.add(&bytes, SEED_HOLD);
    }

    /// The hash of two disjoint parts of one state.
    pub const fn merge(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }

    fn add(&mut self, bytes: &Buffer, seed: u64) {
        self.0 = self.0.wrapping_add(xxh3_128_with_seed(&bytes.bytes[..bytes.len_bytes], seed));
    }
}

impl std::fmt::Display for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

struct Buffer {
    bytes: [u8; BUFFER_LEN_BYTES],
    len_bytes: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: [0; BUFFER_LEN_BYTES], len_bytes: 0 }
    }
}

impl Buffer {
    fn put(&mut self, value: u128) {
        self.bytes[self.len_bytes..self.len_bytes + 16].copy_from_slice(&value.to_le_bytes());
        self.len_bytes += 16;
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::{
        AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn, Timestamp, TransferId,
    };

    use super::*;

    fn account(local: u128) -> Account {
        let till = crate::cash_account(BranchId::new(1), Currency::EUR, Timestamp::from_nanos(5));
        Account { id: AccountId::of_branch(BranchId::new(1), local), ..till }
    }

    fn hold(id: u128) -> Hold {
        Hold {
            id: TransferId::new(id),
            debit_account_id: account(1).id,
            credit_account_id: account(2).id,
            amount: Amount::new(10),
            currency: Currency::EUR,
            code: 1,
            expires_at: Timestamp::MAX,
            leg: crate::Leg::Whole,
            far_account_id: AccountId::NONE,
            lsn: Lsn::new(9),
            timestamp: Timestamp::from_nanos(9),
            closes: crate::Closes::NONE,
            stage: crate::HoldStage::Open,
            attempt: crate::two_phase::Attempt::ONLY,
            chain: None,
        }
    }

    #[test]
    fn order_and_parts_do_not_matter() {
        let (accounts, holds) = ([account(1), account(2)], [hold(1), hold(2)]);
        let forward = StateHash::of(&accounts, &holds);
        let backward = StateHash::of(accounts.iter().rev(), holds.iter().rev());
        let parts = StateHash::of(&accounts[..1], &holds[1..]).merge(StateHash::of(&accounts[1..], &holds[..1]));
        assert!(forward == backward && forward == parts, "{forward} {backward} {parts}");
        assert!(forward != StateHash::of(&accounts, &holds[..1]), "a missing hold shows");
        assert!(forward != StateHash::of(&accounts[..1], &holds), "a missing account shows");
    }

    /// A field that was left out of the hash would let two different states pass for one.
    #[test]
    fn every_field_counts() {
        let before = StateHash::of(&[account(1)], &[]);
        let changes: &[fn(&mut Account)] = &[
            |a| a.id = account(2).id,
            |a| a.owner = CustomerId::new(7),
            |a| a.user_data_128 = 1,
            |a| a.user_data_64 = 1,
            |a| a.user_data_32 = 1,
            |a| a.currency = Currency::USD,
            |a| a.code = 2,
            |a| a.flags = 1,
            |a| a.kind = AccountKind::Fee,
            |a| a.status = AccountStatus::Frozen,
            |a| a.overdraft = Amount::new(1),
            |a| a.day_limit = Amount::new(1),
            |a| a.day_spent = Amount::new(1),
            |a| a.day = 1,
            |a| a.sums.debits_held = Amount::new(1),
            |a| a.sums.debits_posted = Amount::new(1),
            |a| a.sums.credits_held = Amount::new(1),
            |a| a.sums.credits_posted = Amount::new(1),
            |a| a.opened_at = Timestamp::from_nanos(6),
            |a| a.lsn = Lsn::new(1),
            |a| a.timestamp = Timestamp::from_nanos(6),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut after = account(1);
            change(&mut after);
            assert!(StateHash::of(&[after], &[]) != before, "change {index} of an account does not show");
        }
        let before = StateHash::of(&[], &[hold(1)]);
        let changes: &[fn(&mut Hold)] = &[
            |h| h.id = TransferId::new(2),
            |h| h.debit_account_id = account(3).id,
            |h| h.credit_account_id = account(3).id,
            |h| h.amount = Amount::new(11),
            |h| h.currency = Currency::USD,
            |h| h.code = 2,
            |h| h.expires_at = Timestamp::from_nanos(1),
            |h| h.lsn = Lsn::new(10),
            |h| h.timestamp = Timestamp::from_nanos(10),
            |h| h.closes.debit = true,
            |h| h.closes.credit = true,
            |h| h.attempt = crate::two_phase::Attempt::new(1),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut after = hold(1);
            change(&mut after);
            assert!(StateHash::of(&[], &[after]) != before, "change {index} of a hold does not show");
        }
    }
}
