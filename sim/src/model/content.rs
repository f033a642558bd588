//! A known id: the same content is answered as the first time, other content is refused by name.

use tally_protocol::Refusal;
use tally_protocol::message::{TransferKind, transfer_flags};

use super::transfer::Referring;
use super::{Ask, Used, Verdict};

/// What must be answered to `ask`, whose id was used before: the first answer, or why not.
///
/// # Errors
/// The refusal, which is not recorded.
pub fn repeat_answer<'a>(ask: &Ask, used: &'a Used) -> Result<&'a Verdict, Refusal> {
    use Refusal as R;
    let (first, verdict) = match used {
        Used::Cancelled { .. } => return Err(R::IdCancelled),
        Used::Transfer { ask, verdict, .. } => (ask, verdict),
    };
    let sides = Sides { refers: ask.kind.refers(), was_done: verdict.refusal.is_none() };
    let other_flags = (ask.flags ^ first.flags) & !transfer_flags::WANT_BALANCES != 0;
    let ladder = [
        (other_flags, R::ExistsWithDifferentFlags),
        (ask.kind != first.kind, R::ExistsWithDifferentKind),
        (ask.reference != first.reference, R::ExistsWithDifferentReference),
        (ask.timeout_s != first.timeout_s, R::ExistsWithDifferentTimeout),
        (sides.differ(ask.debit, first.debit, verdict.debit), R::ExistsWithDifferentDebitAccount),
        (sides.differ(ask.credit, first.credit, verdict.credit), R::ExistsWithDifferentCreditAccount),
        (!same_amount(ask, first, verdict), R::ExistsWithDifferentAmount),
        (ask.user_data.0 != first.user_data.0, R::ExistsWithDifferentUserData128),
        (ask.user_data.1 != first.user_data.1, R::ExistsWithDifferentUserData64),
        (ask.user_data.2 != first.user_data.2, R::ExistsWithDifferentUserData32),
        (
            sides.differ(ask.currency.into(), first.currency.into(), verdict.currency.into()),
            R::ExistsWithDifferentCurrency,
        ),
        (sides.differ(ask.code.into(), first.code.into(), verdict.code.into()), R::ExistsWithDifferentCode),
    ];
    match ladder.into_iter().find(|(applies, _)| *applies) {
        Some((_, refusal)) => Err(refusal),
        None => Ok(verdict),
    }
}

#[derive(Clone, Copy)]
struct Sides {
    refers: bool,
    was_done: bool,
}

impl Sides {
    /// Whether `now` is not what was meant the first time: written as `first`, come out as `effective`. What may
    /// be left out says the same as what it stands for.
    const fn differ(self, now: u128, first: u128, effective: u128) -> bool {
        if now == first {
            return false;
        }
        match (now, first) {
            // A refusal took no effect: what was written is all that there is to compare.
            _ if !self.refers || !self.was_done => true,
            (0, _) => false,
            (_, 0) => now != effective,
            (_, _) => true,
        }
    }
}

fn same_amount(ask: &Ask, first: &Ask, verdict: &Verdict) -> bool {
    let was_done = verdict.refusal.is_none();
    let stands_for_all = match ask.kind {
        TransferKind::Settle => first.amount == 0 && ask.amount == verdict.amount,
        TransferKind::Void | TransferKind::Reverse => ask.amount == 0 || ask.amount == verdict.amount,
        TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => false,
    };
    ask.amount == first.amount || (was_done && stands_for_all)
}
