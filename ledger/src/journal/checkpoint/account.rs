//! An account in about 40 bytes: a mask says which fields differ from the account before it in the block or
//! from zero, and only these follow. Ten million accounts in 152 bytes each would take a disk longer to
//! read than everything else that recovery does.

use tally_protocol::message::account_flags;
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Timestamp};

use super::CheckpointDamage;
use super::varint::{after_step, after_step_wide, put, put_wide, step, step_wide, take, take_wide};
use crate::account::{Account, RESIDENCE_LEN_BYTES, Residence, Sums};

/// No account takes more.
pub const ACCOUNT_LEN_BYTES_MAX: usize = 192;

const CLASS: u16 = 1 << 0;
const OWNER: u16 = 1 << 1;
const USER_DATA_128: u16 = 1 << 2;
const USER_DATA_64: u16 = 1 << 3;
const USER_DATA_32: u16 = 1 << 4;
const OVERDRAFT: u16 = 1 << 5;
const DAY_LIMIT: u16 = 1 << 6;
const DAY_SPENT: u16 = 1 << 7;
const DAY: u16 = 1 << 8;
const DEBITS_HELD: u16 = 1 << 9;
const DEBITS_POSTED: u16 = 1 << 10;
const CREDITS_HELD: u16 = 1 << 11;
const CREDITS_POSTED: u16 = 1 << 12;
const OPENED_AT: u16 = 1 << 13;
const LSN: u16 = 1 << 14;
const TIMESTAMP: u16 = 1 << 15;

/// What a field is compared with: the account before in the same block. A block can be read alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    id: u128,
    owner: u64,
    class: [u8; 8],
    overdraft: u64,
    day_limit: u64,
    day: u32,
    opened_at: u64,
    lsn: u64,
    timestamp: u64,
}

fn class_of(account: &Account) -> [u8; 8] {
    let [a, b] = account.currency.get().to_le_bytes();
    let [c, d] = account.code.to_le_bytes();
    let [e, f] = account.flags.to_le_bytes();
    [a, b, c, d, e, f, account.kind as u8, account.status as u8]
}

impl Before {
    fn of(account: &Account) -> Self {
        Self {
            id: account.id.get(),
            owner: account.owner.get(),
            class: class_of(account),
            overdraft: account.overdraft.get(),
            day_limit: account.day_limit.get(),
            day: account.day,
            opened_at: account.opened_at.as_nanos(),
            lsn: account.lsn.get(),
            timestamp: account.timestamp.as_nanos(),
        }
    }

    /// Appends `account`, which becomes the one before.
    pub fn put(&mut self, account: &Account, out: &mut Vec<u8>) {
        let next = Self::of(account);
        let mask_at = out.len();
        out.extend_from_slice(&[0; 2]);
        put_wide(out, step_wide(self.id, next.id));
        let mut mask = 0;
        if next.class != self.class {
            mask |= CLASS;
            out.extend_from_slice(&next.class);
        }
        if account.user_data_128 != 0 {
            mask |= USER_DATA_128;
            out.extend_from_slice(&account.user_data_128.to_le_bytes());
        }
        let mut number = |bit, differs, value| {
            if differs {
                mask |= bit;
                put(out, value);
            }
        };
        let mut changed = |bit, before: u64, value: u64| number(bit, value != before, step(before, value));
        changed(OWNER, self.owner, next.owner);
        changed(OVERDRAFT, self.overdraft, next.overdraft);
        changed(DAY_LIMIT, self.day_limit, next.day_limit);
        changed(DAY, self.day.into(), next.day.into());
        changed(OPENED_AT, self.opened_at, next.opened_at);
        changed(LSN, self.lsn, next.lsn);
        changed(TIMESTAMP, self.timestamp, next.timestamp);
        let mut non_zero = |bit, value: u64| number(bit, value != 0, value);
        non_zero(USER_DATA_64, account.user_data_64);
        non_zero(USER_DATA_32, account.user_data_32.into());
        non_zero(DAY_SPENT, account.day_spent.get());
        non_zero(DEBITS_HELD, account.sums.debits_held.get());
        non_zero(DEBITS_POSTED, account.sums.debits_posted.get());
        non_zero(CREDITS_HELD, account.sums.credits_held.get());
        non_zero(CREDITS_POSTED, account.sums.credits_posted.get());
        // The mask is full, and few accounts have moved: their flags tell.
        if account.has(account_flags::HAS_MOVED) {
            out.extend_from_slice(&account.residence.to_bytes());
        }
        out[mask_at..mask_at + 2].copy_from_slice(&mask.to_le_bytes());
        *self = next;
    }

    /// Takes the next account off the front of `bytes`.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Account, CheckpointDamage> {
        let mask = u16::from_le_bytes(*take_array(bytes)?);
        self.id = after_step_wide(self.id, take_wide(bytes)?);
        if mask & CLASS != 0 {
            self.class = *take_array(bytes)?;
        }
        let user_data_128 = if mask & USER_DATA_128 != 0 { u128::from_le_bytes(*take_array(bytes)?) } else { 0 };
        let mut changed = |bit, before: u64| match mask & bit {
            0 => Ok(before),
            _ => take(bytes).map(|step| after_step(before, step)),
        };
        self.owner = changed(OWNER, self.owner)?;
        self.overdraft = changed(OVERDRAFT, self.overdraft)?;
        self.day_limit = changed(DAY_LIMIT, self.day_limit)?;
        self.day = u32::try_from(changed(DAY, self.day.into())?).map_err(|_| CheckpointDamage::Field("day"))?;
        self.opened_at = changed(OPENED_AT, self.opened_at)?;
        self.lsn = changed(LSN, self.lsn)?;
        self.timestamp = changed(TIMESTAMP, self.timestamp)?;
        let mut non_zero = |bit| if mask & bit != 0 { take(bytes) } else { Ok(0) };
        let user_data_64 = non_zero(USER_DATA_64)?;
        let user_data_32 = non_zero(USER_DATA_32)?;
        let day_spent = non_zero(DAY_SPENT)?;
        let sums = Sums {
            debits_held: Amount::new(non_zero(DEBITS_HELD)?),
            debits_posted: Amount::new(non_zero(DEBITS_POSTED)?),
            credits_held: Amount::new(non_zero(CREDITS_HELD)?),
            credits_posted: Amount::new(non_zero(CREDITS_POSTED)?),
        };
        let [a, b, c, d, e, f, kind, status] = self.class;
        let residence = match u16::from_le_bytes([e, f]) & account_flags::HAS_MOVED {
            0 => Residence::default(),
            _ => Residence::of_bytes(*take_array::<RESIDENCE_LEN_BYTES>(bytes)?),
        };
        Ok(Account {
            id: AccountId::new(self.id),
            owner: CustomerId::new(self.owner),
            user_data_128,
            user_data_64,
            user_data_32: u32::try_from(user_data_32).map_err(|_| CheckpointDamage::Field("user_data_32"))?,
            currency: Currency::new(u16::from_le_bytes([a, b])).ok_or(CheckpointDamage::Field("currency"))?,
            code: u16::from_le_bytes([c, d]),
            flags: u16::from_le_bytes([e, f]),
            kind: AccountKind::from_wire(kind).ok_or(CheckpointDamage::Field("kind"))?,
            status: AccountStatus::from_wire(status).ok_or(CheckpointDamage::Field("status"))?,
            overdraft: Amount::new(self.overdraft),
            day_limit: Amount::new(self.day_limit),
            day_spent: Amount::new(day_spent),
            day: self.day,
            sums,
            opened_at: Timestamp::from_nanos(self.opened_at),
            lsn: Lsn::new(self.lsn),
            timestamp: Timestamp::from_nanos(self.timestamp),
            residence,
        })
    }
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], CheckpointDamage> {
    let (array, rest) = bytes.split_first_chunk().ok_or(CheckpointDamage::Short)?;
    *bytes = rest;
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arbitrary() -> impl Strategy<Value = Account> {
        // Small and large values of each field, and runs of equal ones.
        let number = || prop_oneof![Just(0u64), 0..1000u64, any::<u64>()];
        let ids = (any::<u128>(), number(), prop_oneof![Just(0u128), any::<u128>()], number(), 0..3u32);
        let class = (1..=999u16, any::<u16>(), any::<u16>(), 1..=5u8, 1..=7u8);
        let limits = (number(), number(), number(), any::<u32>(), proptest::array::uniform4(number()));
        let times = (number(), number(), number());
        (ids, class, limits, times).prop_map(|(ids, class, limits, times)| Account {
            id: AccountId::new(ids.0),
            owner: CustomerId::new(ids.1),
            user_data_128: ids.2,
            user_data_64: ids.3,
            user_data_32: ids.4,
            currency: Currency::new(class.0).expect("in range"),
            code: class.1,
            flags: class.2,
            kind: AccountKind::from_wire(class.3).expect("in range"),
            status: AccountStatus::from_wire(class.4).expect("in range"),
            overdraft: Amount::new(limits.0),
            day_limit: Amount::new(limits.1),
            day_spent: Amount::new(limits.2),
            day: limits.3,
            sums: Sums {
                debits_held: Amount::new(limits.4[0]),
                debits_posted: Amount::new(limits.4[1]),
                credits_held: Amount::new(limits.4[2]),
                credits_posted: Amount::new(limits.4[3]),
            },
            opened_at: Timestamp::from_nanos(times.0),
            lsn: Lsn::new(times.1),
            timestamp: Timestamp::from_nanos(times.2),
            residence: match class.2 & account_flags::HAS_MOVED {
                0 => Residence::default(),
                _ => Residence::of_word(times.1 << 8 >> 8),
            },
        })
    }

    proptest! {
        #[test]
        fn accounts_come_back_and_stay_small(accounts in proptest::collection::vec(arbitrary(), 1..20)) {
            let mut out = Vec::new();
            let mut before = Before::default();
            for account in &accounts {
                let len = out.len();
                before.put(account, &mut out);
                prop_assert!(out.len() - len <= ACCOUNT_LEN_BYTES_MAX);
            }
            let (mut bytes, mut before) = (&out[..], Before::default());
            for account in &accounts {
                prop_assert_eq!(&before.take(&mut bytes)?, account);
            }
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn nonsense_is_an_error_or_an_account_but_no_panic(bytes: Vec<u8>) {
            let (mut bytes, mut before) = (&bytes[..], Before::default());
            while before.take(&mut bytes).is_ok() {}
        }
    }

    #[test]
    fn golden_bytes() {
        let account = Account {
            id: AccountId::new(5),
            owner: CustomerId::new(7),
            user_data_128: 0,
            user_data_64: 0,
            user_data_32: 0,
            currency: Currency::EUR,
            code: 1,
            flags: 2,
            kind: AccountKind::Customer,
            status: AccountStatus::Open,
            overdraft: Amount::ZERO,
            day_limit: Amount::MAX,
            day_spent: Amount::ZERO,
            day: 0,
            sums: Sums { credits_posted: Amount::new(300), ..Sums::default() },
            opened_at: Timestamp::from_nanos(0),
            lsn: Lsn::new(64),
            timestamp: Timestamp::from_nanos(0),
            residence: Residence::default(),
        };
        let (mut out, mut before) = (Vec::new(), Before::default());
        before.put(&account, &mut out);
        let mask = (CLASS | OWNER | DAY_LIMIT | LSN | CREDITS_POSTED).to_le_bytes();
        let class = [0xd2, 0x03, 1, 0, 2, 0, 1, 1];
        let rest = [14, 1, 0x80, 1, 0xac, 2];
        assert_eq!(out, [&mask[..], &[10], &class, &rest].concat());
        // A neighbour of the same class takes a few bytes.
        out.clear();
        before.put(&Account { id: AccountId::new(6), ..account }, &mut out);
        assert_eq!(out, [&CREDITS_POSTED.to_le_bytes()[..], &[2, 0xac, 2]].concat());
    }
}
