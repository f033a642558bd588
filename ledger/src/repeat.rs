//! A known id: the same content answers as the first time, other content is refused by name.
//!
//! **Invariant:** one transfer id has one effect for the ledger's life. A recorded refusal is an answer like
//! any other: the same transfer sent again is refused for the same reason, even if it would pass by now.

use tally_protocol::message::{TransferKind, transfer_flags};
use tally_protocol::{AccountId, Currency, Refusal};

use crate::journal::record::{GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, RecordBody, TransferRecord};
use crate::outcome::as_written;
use crate::transfer::{Transfer, takes_reference};

/// Flags that say how a transfer travels, not what it is.
const NOT_CONTENT: u16 = transfer_flags::WANT_BALANCES;

/// What to do about an id that is already recorded: answer with the record that comes back, or refuse.
///
/// # Errors
/// `IdCancelled`, or those of [`same_content`]. None of them is recorded.
pub fn repeat<'a>(transfer: &Transfer, known: &'a RecordBody) -> Result<&'a TransferRecord, Refusal> {
    match known {
        // Here is what goes on with it; what was asked is known where it was made.
        RecordBody::Transfer(record) if record.came_along() => Err(Refusal::IdUsedElsewhere),
        RecordBody::Transfer(record) => same_content(transfer, record).map(|()| record),
        RecordBody::Cancelled(_) => Err(Refusal::IdCancelled),
        // No transfer's own record; an index that leads here is answered, not trusted.
        RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
            Err(Refusal::IdAlreadyUsed)
        }
    }
}

/// What to do about a request to burn an id: `Ok(true)` when the id is free, `Ok(false)` when it was burnt
/// before.
///
/// # Errors
/// `IdAlreadyUsed`: a transfer with this id was posted or refused.
pub fn cancel_id(known: Option<&RecordBody>) -> Result<bool, Refusal> {
    match known {
        None => Ok(true),
        Some(RecordBody::Cancelled(_)) => Ok(false),
        Some(
            RecordBody::Transfer(_)
            | RecordBody::Expired(_)
            | RecordBody::Decided(..)
            | RecordBody::Rehomed(_)
            | RecordBody::Account(..),
        ) => Err(Refusal::IdAlreadyUsed),
    }
}

/// Compares a transfer with the record under its id.
///
/// `WANT_BALANCES` is not compared: it asks for a longer reply. `LINKED` is: it makes the transfer's fate
/// hang on its neighbours. What a settle, void or reversal that was done leaves out was taken from its reference,
/// so leaving it out again, or writing it out, says the same.
///
/// # Errors
/// The first difference, in the order of [`Refusal`]: flags, kind, reference, time-out, debit account,
/// credit account, amount, user data (128, 64, 32 bits), currency, code.
pub fn same_content(transfer: &Transfer, record: &TransferRecord) -> Result<(), Refusal> {
    let compare = |same: bool, refusal: Refusal| if same { Ok(()) } else { Err(refusal) };
    let record = &record.as_asked();
    compare((transfer.flags ^ record.flags) & !NOT_CONTENT == 0, Refusal::ExistsWithDifferentFlags)?;
    compare(transfer.kind == record.kind, Refusal::ExistsWithDifferentKind)?;
    compare(transfer.reference == record.reference, Refusal::ExistsWithDifferentReference)?;
    compare(transfer.timeout_s == record.timeout_s, Refusal::ExistsWithDifferentTimeout)?;
    let debit = transfer.debit_account_id;
    let credit = transfer.credit_account_id;
    compare(same_account(debit, record, GIVEN_DEBIT), Refusal::ExistsWithDifferentDebitAccount)?;
    compare(same_account(credit, record, GIVEN_CREDIT), Refusal::ExistsWithDifferentCreditAccount)?;
    compare(same_amount(transfer, record), Refusal::ExistsWithDifferentAmount)?;
    compare(transfer.user_data_128 == record.user_data_128, Refusal::ExistsWithDifferentUserData128)?;
    compare(transfer.user_data_64 == record.user_data_64, Refusal::ExistsWithDifferentUserData64)?;
    compare(transfer.user_data_32 == record.user_data_32, Refusal::ExistsWithDifferentUserData32)?;
    let currency = transfer.currency.map_or(0, Currency::get);
    compare(same_or_left_out(currency, record.currency, record, GIVEN_CURRENCY), Refusal::ExistsWithDifferentCurrency)?;
    compare(same_or_left_out(transfer.code, record.code, record, GIVEN_CODE), Refusal::ExistsWithDifferentCode)
}

fn same_account(asked: AccountId, record: &TransferRecord, bit: u8) -> bool {
    let recorded = if bit == GIVEN_DEBIT { record.debit_account_id } else { record.credit_account_id };
    same_or_left_out(asked, recorded, record, bit)
}

/// Whether `asked` is what was written the first time. Where a settle, void or reversal was done, leaving out what
/// took effect and writing it out are the same; a refusal took no effect, and its reference may have been unknown
/// or undone with its chain.
fn same_or_left_out<T: Default + PartialEq + Copy>(asked: T, recorded: T, record: &TransferRecord, bit: u8) -> bool {
    if takes_reference(record.kind) && record.refusal.is_none() {
        return asked == recorded || asked == T::default();
    }
    asked == as_written(record, bit, recorded, T::default())
}

fn same_amount(transfer: &Transfer, record: &TransferRecord) -> bool {
    if transfer.amount == record.amount_asked {
        return true;
    }
    let is_what_it_came_to = match record.kind {
        // All of the hold, once written as 0 and once as the amount that it came to.
        TransferKind::Settle => transfer.amount == record.amount,
        // Always the whole amount.
        TransferKind::Void | TransferKind::Reverse => transfer.amount.is_zero() || transfer.amount == record.amount,
        TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => false,
    };
    record.refusal.is_none() && is_what_it_came_to
}
