//! What can be told of a transfer from the request alone: the "malformed" refusals, in their order.

use tally_protocol::message::{self, TransferKind, transfer_flags};
use tally_protocol::{AccountId, AccountKind, BranchId, Currency, Refusal};

use super::transfer::{Ask, Referring};

const ALL_ONES: u128 = u128::MAX;

/// The transfer as it was asked for, or why it can never be done.
///
/// # Errors
/// The first refusal of the malformed group that applies.
pub fn form_of(wire: &message::Transfer, branch: u16) -> Result<Ask, Refusal> {
    use Refusal as R;
    let flags = wire.flags.get();
    let kind = TransferKind::from_wire(wire.kind);
    let (debit, credit, reference) = (wire.debit_account_id.get(), wire.credit_account_id.get(), wire.reference.get());
    let refers = kind.is_some_and(|kind| kind.refers());
    let is = |wanted: TransferKind| kind == Some(wanted);
    let cash = cash_account(branch, wire.currency.get());
    // At the till, one side is the cash account, whatever was written there.
    let same_account = match kind {
        Some(TransferKind::Deposit) if cash.is_some() => Some(credit) == cash,
        Some(TransferKind::Withdraw) if cash.is_some() => Some(debit) == cash,
        _ => debit == credit && debit != 0,
    };
    let foreign = |id: u128| id != 0 && (id >> 112) as u16 != branch;
    let currency_is_bad = match wire.currency.get() {
        0 => !refers,
        numeric => numeric > 999,
    };
    let has = |flag: u16| flags & flag != 0;
    let closes = has(closing_flags());
    let closes_till = has(transfer_flags::CLOSING_DEBIT) && AccountId::new(debit).is_house()
        || has(transfer_flags::CLOSING_CREDIT) && AccountId::new(credit).is_house();
    let imported = has(transfer_flags::IMPORTED);
    let ladder = [
        (wire.reserved != 0, R::FieldInvalid),
        (wire.id.get() == 0, R::IdMustNotBeZero),
        (wire.id.get() == ALL_ONES, R::IdMustNotBeMax),
        (flags & !transfer_flags::ALL != 0, R::FlagReserved),
        (kind.is_none(), R::KindInvalid),
        (kind.is_some_and(|kind| flags & own_flags() & !own_flags_of(kind) != 0), R::FlagsConflict),
        (debit == 0 && !refers && !is(TransferKind::Deposit), R::DebitAccountMustNotBeZero),
        (debit == ALL_ONES, R::DebitAccountMustNotBeMax),
        (credit == 0 && !refers && !is(TransferKind::Withdraw), R::CreditAccountMustNotBeZero),
        (credit == ALL_ONES, R::CreditAccountMustNotBeMax),
        (same_account, R::AccountsMustDiffer),
        (!refers && reference != 0, R::ReferenceMustBeZero),
        (refers && reference == 0, R::ReferenceMustNotBeZero),
        (refers && reference == ALL_ONES, R::ReferenceMustNotBeMax),
        (refers && reference == wire.id.get(), R::ReferenceMustDiffer),
        (wire.timeout_s.get() != 0 && !is(TransferKind::Hold), R::TimeoutReservedForHold),
        (wire.amount.get() == 0 && !refers && !closes, R::AmountMustNotBeZero),
        (currency_is_bad, R::CurrencyInvalid),
        (wire.code.get() == 0 && !refers, R::CodeMustNotBeZero),
        (foreign(debit) || foreign(credit), R::WrongBranch),
        (closes_till, R::AccountIdReserved),
        (is(TransferKind::Deposit) && debit != 0, R::CashSideMustBeZero),
        (is(TransferKind::Withdraw) && credit != 0, R::CashSideMustBeZero),
        (imported && matches!(wire.user_data_64.get(), 0 | u64::MAX), R::ImportedEventTimestampOutOfRange),
        (imported && wire.timeout_s.get() != 0, R::ImportedEventTimeoutMustBeZero),
    ];
    if let Some((_, refusal)) = ladder.into_iter().find(|(applies, _)| *applies) {
        return Err(refusal);
    }
    Ok(Ask {
        id: wire.id.get(),
        kind: kind.expect("the ladder refused an unknown kind"),
        debit,
        credit,
        reference,
        amount: wire.amount.get(),
        user_data: (wire.user_data_128.get(), wire.user_data_64.get(), wire.user_data_32.get()),
        timeout_s: wire.timeout_s.get(),
        currency: wire.currency.get(),
        code: wire.code.get(),
        flags,
    })
}

/// The raw id of the branch's till in a currency, where it is one.
pub(super) fn cash_account(branch: u16, currency: u16) -> Option<u128> {
    let currency = Currency::new(currency)?;
    Some(AccountId::of_house(BranchId::new(branch), AccountKind::Cash, currency).get())
}

const fn balancing_flags() -> u16 {
    transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT
}

const fn closing_flags() -> u16 {
    transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT
}

/// The flags that do not go with every kind.
const fn own_flags() -> u16 {
    balancing_flags() | closing_flags()
}

/// Which of them go with this one. What may be balanced: only a side that is a client's account, and nothing that
/// follows a reference. What may close: what can be taken back.
const fn own_flags_of(kind: TransferKind) -> u16 {
    match kind {
        TransferKind::Transfer => balancing_flags(),
        TransferKind::Hold => own_flags(),
        TransferKind::Deposit => transfer_flags::BALANCING_CREDIT,
        TransferKind::Withdraw => transfer_flags::BALANCING_DEBIT,
        TransferKind::Settle | TransferKind::Void | TransferKind::Reverse => 0,
    }
}
