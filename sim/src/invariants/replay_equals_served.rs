//! What recovery brings back is what was served, up to where the journal ends: every field of every account, every
//! open hold, and nothing else.

use tally_ledger::{Account, Hold};
use tally_protocol::Timestamp;

use super::{Violation, hold, violated};
use crate::model::{Model, ModelAccount, ModelHold};

/// Compares a recovered state with the model, which was taken back to the same position.
///
/// # Errors
/// The first difference.
pub fn check(accounts: &[Account], holds: &[Hold], model: &Model) -> Result<(), Violation> {
    for account in accounts {
        let recovered = ModelAccount::of(account);
        match model.account(recovered.id) {
            Some(served) => {
                hold!(ReplayEqualsServed, *served == recovered, "served {served:?}, recovered {recovered:?}")
            }
            None => violated!(ReplayEqualsServed, "account {} was recovered and never opened", account.id),
        }
    }
    let served = model.accounts().count();
    hold!(ReplayEqualsServed, accounts.len() == served, "{served} accounts served, {} recovered", accounts.len());
    for hold in holds {
        let recovered = model_hold(hold);
        let served = model.hold(hold.id);
        hold!(
            ReplayEqualsServed,
            served == Some(&recovered),
            "hold {}: served {served:?}, recovered {recovered:?}",
            hold.id
        );
    }
    let served = model.holds().count();
    hold!(ReplayEqualsServed, holds.len() == served, "{served} holds served, {} recovered", holds.len());
    Ok(())
}

fn model_hold(hold: &Hold) -> ModelHold {
    ModelHold {
        debit: hold.debit_account_id.get(),
        credit: hold.credit_account_id.get(),
        amount: hold.amount.get(),
        currency: hold.currency.get(),
        code: hold.code,
        expires_at: if hold.expires_at == Timestamp::MAX { u64::MAX } else { hold.expires_at.as_nanos() },
        day: u64::from(hold.timestamp.day()),
        closes: (hold.closes.debit, hold.closes.credit),
    }
}
