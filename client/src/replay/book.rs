//! Our own book of the replay: what each account must hold, computed from the file alone.
//!
//! Invariant: the book never looks at a balance that the branch sent, except for what was there before the
//! replay; so when both agree in the end, they agree for two reasons.

use std::collections::BTreeMap;

use super::payments::Payment;

/// Whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Customer(u64),
    Payee(u64),
}

/// What became of a row or a deposit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Not answered yet.
    #[default]
    Open,
    /// Done in this replay.
    Posted,
    /// Done by an earlier one: its effect was there before.
    Before,
    /// Refused, with this wire code.
    Refused(u16),
}

/// All accounts that the payments touch, in a fixed order.
#[derive(Debug)]
pub(crate) struct Parties {
    list: Vec<Party>,
    index: BTreeMap<Party, usize>,
}

impl Parties {
    pub(crate) fn of(payments: &[Payment]) -> Self {
        let mut list: Vec<Party> = payments
            .iter()
            .flat_map(|payment| [Party::Customer(payment.customer_id), Party::Payee(payment.payee_id)])
            .collect();
        list.sort_unstable();
        list.dedup();
        let index = list.iter().enumerate().map(|(index, &party)| (party, index)).collect();
        Self { list, index }
    }

    pub(crate) fn list(&self) -> &[Party] {
        &self.list
    }

    /// What each customer spends in all, in the order of the list.
    pub(crate) fn spending(&self, payments: &[Payment]) -> anyhow::Result<Vec<(u64, u64)>> {
        let mut spending: BTreeMap<u64, u64> = BTreeMap::new();
        for payment in payments {
            let sum = spending.entry(payment.customer_id).or_default();
            *sum = sum
                .checked_add(payment.amount)
                .ok_or_else(|| anyhow::anyhow!("customer {} spends more than 2^64", payment.customer_id))?;
        }
        Ok(spending.into_iter().collect())
    }

    /// What each account must hold: `before`, and what the deposits and rows did since.
    pub(crate) fn expected(
        &self,
        before: &[i128],
        deposits: &[(u64, u64)],
        deposit_entries: &[Entry],
        payments: &[Payment],
        entries: &[Entry],
    ) -> Vec<i128> {
        let mut expected = before.to_vec();
        for (&(customer_id, amount), entry) in deposits.iter().zip(deposit_entries) {
            if *entry == Entry::Posted {
                expected[self.index[&Party::Customer(customer_id)]] += i128::from(amount);
            }
        }
        for (payment, entry) in payments.iter().zip(entries) {
            if *entry == Entry::Posted {
                expected[self.index[&Party::Customer(payment.customer_id)]] -= i128::from(payment.amount);
                expected[self.index[&Party::Payee(payment.payee_id)]] += i128::from(payment.amount);
            }
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(customer_id: u64, payee_id: u64, amount: u64) -> Payment {
        Payment { tx_id: 0, t: 0, customer_id, payee_id, amount }
    }

    #[test]
    fn the_book_counts_what_was_posted_and_nothing_else() {
        let payments = [payment(1, 1, 10), payment(2, 1, 20), payment(1, 9, 40), payment(2, 9, 80)];
        let parties = Parties::of(&payments);
        let list = [Party::Customer(1), Party::Customer(2), Party::Payee(1), Party::Payee(9)];
        assert_eq!(parties.list(), list);
        let deposits = parties.spending(&payments).expect("it fits");
        assert_eq!(deposits, [(1, 50), (2, 100)]);
        let entries = [Entry::Posted, Entry::Before, Entry::Refused(229), Entry::Posted];
        let expected = parties.expected(&[0, 5, 0, 0], &deposits, &[Entry::Posted, Entry::Before], &payments, &entries);
        assert_eq!(expected, [50 - 10, 5 - 80, 10, 80]);
        assert!(parties.spending(&[payment(1, 1, u64::MAX), payment(1, 1, 1)]).is_err());
    }
}
