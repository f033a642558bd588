//! Debits equal credits, per currency, at every journal position.

use tally_ledger::Sums;

use super::images::{ImageChange, Images};
use super::{Violation, hold};

/// Checks one record: whatever it added to the debits of one account, held or posted, it added to the credits of
/// the other. With every record balanced, so is every position.
///
/// # Errors
/// When it did not, or the currencies differ.
pub fn check_record(changes: &[ImageChange]) -> Result<(), Violation> {
    let [debit, credit] = changes else {
        return changes.iter().try_for_each(|change| {
            let before = change.before.as_ref().map_or(Sums::default(), |account| account.sums);
            hold!(Conservation, before == change.after.sums, "{}: sums changed without a transfer", change.after.id);
            Ok(())
        });
    };
    let id = |change: &ImageChange| change.after.id;
    hold!(
        Conservation,
        debit.after.currency == credit.after.currency,
        "{} and {} have different currencies",
        id(debit),
        id(credit)
    );
    let (debits, credits) = (grown(debit), grown(credit));
    hold!(
        Conservation,
        debits[0] == credits[1] && debits[2] == credits[3] && debits[1] == 0 && debits[3] == 0,
        "{} changed by {debits:?}, {} by {credits:?} (debits held, credits held, debits posted, credits posted)",
        id(debit),
        id(credit)
    );
    hold!(
        Conservation,
        credits[0] == 0 && credits[2] == 0,
        "{}: debits of the credit account changed by {credits:?}",
        id(credit)
    );
    Ok(())
}

/// Checks a whole state.
///
/// # Errors
/// When a currency's debits and credits differ.
pub fn check_state(images: &Images) -> Result<(), Violation> {
    if let Err(violation) = tally_ledger::check::conservation(images.iter()) {
        super::violated!(Conservation, "{violation}");
    }
    Ok(())
}

fn grown(change: &ImageChange) -> [i128; 4] {
    let before = change.before.as_ref().map_or(Sums::default(), |account| account.sums);
    let after = change.after.sums;
    let by = |after: tally_protocol::Amount, before: tally_protocol::Amount| {
        i128::from(after.get()) - i128::from(before.get())
    };
    [
        by(after.debits_held, before.debits_held),
        by(after.credits_held, before.credits_held),
        by(after.debits_posted, before.debits_posted),
        by(after.credits_posted, before.credits_posted),
    ]
}
