//! Which accounts and ids a payment has at the branch: they follow from the file, so a second replay meets the
//! first.
//!
//! Invariant: the same file name, tag and tx_id give the same transfer id, on any machine and in any release.

use tally_protocol::{AccountId, BranchId, Currency, TransferId};

/// Local account numbers of customers and payees start with these, above 64 bits of the file's own number.
const CUSTOMERS: u128 = 1 << 64;
const PAYEES: u128 = 2 << 64;
/// Where a tag's own accounts lie.
const TAG_SHIFT: u32 = 80;
const TAG_BITS: u32 = 24;

/// Names everything of one replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    branch_id: BranchId,
    accounts: u128,
    transfers: u64,
    deposits: u64,
}

impl Names {
    /// `tag` is empty for the accounts that replays of all files share. The deposits differ with the number of
    /// `rows`: they pay for so many.
    pub(crate) fn new(branch_id: BranchId, file_tag: &str, tag: &str, rows: usize, currency: Currency) -> Self {
        let tag_bits = if tag.is_empty() { 0 } else { u128::from(hash(&[tag]) & ((1 << TAG_BITS) - 1)) };
        let currency = currency.get().to_string();
        Self {
            branch_id,
            accounts: tag_bits << TAG_SHIFT,
            // Odd, so that no id is 0; below 2^63, so that none is all ones.
            transfers: (hash(&["payment", file_tag, tag, &currency]) >> 1) | 1,
            deposits: (hash(&["deposit", file_tag, tag, &currency, &rows.to_string()]) >> 1) | 1,
        }
    }

    pub(crate) fn customer(&self, customer_id: u64) -> AccountId {
        AccountId::of_branch(self.branch_id, self.accounts | CUSTOMERS | u128::from(customer_id))
    }

    pub(crate) fn payee(&self, payee_id: u64) -> AccountId {
        AccountId::of_branch(self.branch_id, self.accounts | PAYEES | u128::from(payee_id))
    }

    pub(crate) fn transfer(&self, tx_id: u64) -> TransferId {
        TransferId::new((u128::from(self.transfers) << 64) | u128::from(tx_id))
    }

    pub(crate) fn deposit(&self, customer_id: u64) -> TransferId {
        TransferId::new((u128::from(self.deposits) << 64) | u128::from(customer_id))
    }
}

/// FNV-1a over the parts, each ended by a byte that no text has. Chosen because it will never change.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_what_they_are() {
        let names = Names::new(BranchId::new(3), "handbook_dev", "", 1_000, Currency::EUR);
        assert_eq!(names.customer(596).get(), (3 << 112) | (1 << 64) | 596);
        assert_eq!(names.payee(3156).get(), (3 << 112) | (2 << 64) | 3156);
        assert_eq!(names.transfer(7).to_string(), "2a1a19082af945c30000000000000007");
    }

    #[test]
    fn another_file_tag_or_number_of_rows_has_other_names() {
        let base = Names::new(BranchId::new(3), "a", "", 10, Currency::EUR);
        let file = Names::new(BranchId::new(3), "b", "", 10, Currency::EUR);
        let tag = Names::new(BranchId::new(3), "a", "x", 10, Currency::EUR);
        let rows = Names::new(BranchId::new(3), "a", "", 11, Currency::EUR);
        assert!(base.transfer(1) != file.transfer(1) && base.customer(1) == file.customer(1));
        assert!(base.transfer(1) != tag.transfer(1) && base.customer(1) != tag.customer(1));
        assert!(!tag.customer(u64::MAX).is_house() && !tag.payee(1).is_house());
        assert!(base.transfer(1) == rows.transfer(1) && base.deposit(1) != rows.deposit(1));
        assert_ne!(base.transfer(5), base.deposit(5));
    }
}
