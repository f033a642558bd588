//! The sample users of a development bank: staff, and two customers at each branch.

use tally_branch_server::users::RoleName;
use tally_client::{ConnectFileUser, Overdraft, customer_account};
use tally_protocol::message::AccountOpen;
use tally_protocol::{AccountId, BranchId, Currency};

/// The currency of the sample customers' accounts.
pub(crate) const CURRENCY: Currency = Currency::EUR;
/// Customers whose home is one branch.
const CUSTOMERS_PER_BRANCH: usize = 2;
/// The number of the first customer.
const CUSTOMER_ID_MIN: u64 = 1_001;

const STAFF: [(&str, RoleName); 3] =
    [("admin", RoleName::Admin), ("teller", RoleName::Teller), ("auditor", RoleName::Auditor)];
const NAMES: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

/// A user that a new bank gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) role: RoleName,
    /// 0 for staff.
    pub(crate) customer_id: u64,
}

/// Everybody in a bank of so many branches.
pub(crate) fn everybody(branches: usize) -> Vec<Sample> {
    let staff = STAFF.map(|(name, role)| Sample { name: name.to_owned(), role, customer_id: 0 });
    staff.into_iter().chain((0..branches).flat_map(customers_of)).collect()
}

/// The customers whose home is the branch at this place, from 0.
pub(crate) fn customers_of(branch_index: usize) -> Vec<Sample> {
    let first = branch_index * CUSTOMERS_PER_BRANCH;
    (first..first + CUSTOMERS_PER_BRANCH)
        .map(|index| Sample {
            name: NAMES.get(index).map_or_else(|| format!("customer{}", index + 1), |&name| name.to_owned()),
            role: RoleName::Customer,
            customer_id: CUSTOMER_ID_MIN + index as u64,
        })
        .collect()
}

impl Sample {
    /// As clients are told of it.
    pub(crate) fn with_password(&self, password: String) -> ConnectFileUser {
        ConnectFileUser {
            name: self.name.clone(),
            password,
            role: self.role.to_string(),
            customer_id: self.customer_id,
        }
    }
}

/// A current account that cannot be overdrawn. Its number is the customer's, so opening it again changes
/// nothing.
pub(crate) fn account_of(branch_id: BranchId, customer_id: u64) -> AccountOpen {
    let id = AccountId::of_branch(branch_id, u128::from(customer_id));
    customer_account(id, customer_id, CURRENCY, Overdraft::None)
}

/// 20 letters and digits that cannot be confused: 100 bits.
pub(crate) fn random_password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 20];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_branch_has_customers_of_its_own() {
        let names = |branch_index| customers_of(branch_index).into_iter().map(|sample| sample.name).collect::<Vec<_>>();
        assert_eq!([names(0), names(1)].concat(), ["alice", "bob", "carol", "dave"]);
        let all = everybody(6);
        let names: std::collections::BTreeSet<_> = all.iter().map(|sample| &sample.name).collect();
        let ids: std::collections::BTreeSet<_> =
            all.iter().skip(STAFF.len()).map(|sample| sample.customer_id).collect();
        assert_eq!((names.len(), ids.len(), ids.first()), (STAFF.len() + 12, 12, Some(&CUSTOMER_ID_MIN)));
    }
}
