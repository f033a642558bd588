//! What is held on an account is what its open holds hold, and it is closing where one of them closes it.

use std::collections::HashMap;

use tally_protocol::{AccountId, AccountStatus};

use super::images::ImageChange;
use super::{Violation, hold};
use crate::model::Model;

/// Checks the accounts that a record changed against the model's open holds.
///
/// # Errors
/// When an account's held sums are not those of the holds, or its status is not what they say.
pub fn check(changes: &[ImageChange], model: &Model) -> Result<(), Violation> {
    let mut held: HashMap<AccountId, (u128, u128, u32)> =
        changes.iter().map(|change| (change.after.id, (0, 0, 0))).collect();
    if held.is_empty() {
        return Ok(());
    }
    for (_, open) in model.holds() {
        if let Some((debits, _, closers)) = held.get_mut(&AccountId::new(open.debit)) {
            *debits += u128::from(open.amount);
            *closers += u32::from(open.closes.0);
        }
        if let Some((_, credits, closers)) = held.get_mut(&AccountId::new(open.credit)) {
            *credits += u128::from(open.amount);
            *closers += u32::from(open.closes.1);
        }
    }
    for change in changes {
        let sums = &change.after.sums;
        let (debits, credits, closers) = held[&change.after.id];
        hold!(
            HoldsMatch,
            u128::from(sums.debits_held.get()) == debits && u128::from(sums.credits_held.get()) == credits,
            "{}: {} and {} are held, its holds say {debits} and {credits}",
            change.after.id,
            sums.debits_held.get(),
            sums.credits_held.get()
        );
        let is_closing = change.after.status == AccountStatus::Closing;
        hold!(
            HoldsMatch,
            closers == u32::from(is_closing),
            "{}: {:?}, and {closers} open holds close it",
            change.after.id,
            change.after.status
        );
    }
    Ok(())
}
