//! The replay's accounts at the branch: opened, read before and after.

use std::sync::Arc;

use tally_protocol::message::Sums;
use tally_protocol::{AccountId, Currency};

use super::book::Party;
use super::names::Names;
use crate::{Dialer, Overdraft, bulk, customer_account};

/// Opens whatever is not open yet. With `overdraft`, customers may spend without limit.
pub(crate) fn open(
    dialer: &Arc<Dialer>,
    names: Names,
    parties: &[Party],
    currency: Currency,
    overdraft: bool,
) -> anyhow::Result<()> {
    let owned = parties.to_vec();
    let account = move |index: u64| {
        let party = owned[index as usize];
        let (owner, overdraft) = match party {
            Party::Customer(customer_id) if overdraft => (customer_id, Overdraft::Unlimited),
            Party::Customer(customer_id) => (customer_id, Overdraft::None),
            Party::Payee(payee_id) => (payee_id, Overdraft::Unlimited),
        };
        customer_account(id_of(names, party), owner, currency, overdraft)
    };
    bulk::open_accounts(dialer, parties.len() as u64, account)?;
    Ok(())
}

/// What each account holds, posted; nothing where it does not exist.
pub(crate) fn balances(dialer: &Arc<Dialer>, names: Names, parties: &[Party]) -> anyhow::Result<Vec<i128>> {
    let owned = parties.to_vec();
    let id = move |index: u64| id_of(names, owned[index as usize]);
    let balances = bulk::balances(dialer, parties.len() as u64, id, posted)?;
    Ok(balances.into_iter().map(Option::unwrap_or_default).collect())
}

fn id_of(names: Names, party: Party) -> AccountId {
    match party {
        Party::Customer(customer_id) => names.customer(customer_id),
        Party::Payee(payee_id) => names.payee(payee_id),
    }
}

/// Credits less debits, both posted. A file may move more than 2^63.
fn posted(sums: &Sums) -> i128 {
    i128::from(sums.credits_posted.get()) - i128::from(sums.debits_posted.get())
}
