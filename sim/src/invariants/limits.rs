//! No account passes its limit, under any interleaving.

use super::images::ImageChange;
use super::{Violation, violated};

/// Checks what one record did to its accounts.
///
/// # Errors
/// When one of them went further beyond a limit, or a posted sum shrank.
pub fn check(changes: &[ImageChange]) -> Result<(), Violation> {
    for change in changes {
        let Some(before) = &change.before else { continue };
        let step = tally_ledger::check::step(before, &change.after);
        if let Err(violation) = step.and_then(|()| tally_ledger::check::account(&change.after)) {
            violated!(Limits, "{violation}");
        }
    }
    Ok(())
}
