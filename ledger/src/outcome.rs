//! What the rules decided about one transfer, and the journal record that says so.

use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, BranchId, Currency, Lsn, Refusal, Timestamp, TransferId};

use crate::account::{Account, Sums};
use crate::closing::StatusChange;
use crate::hold::{Hold, HoldStage};
use crate::journal::record::{GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, TransferRecord};
use crate::leg::Leg;
use crate::reference::{Reference, effective_accounts};
use crate::transfer::Transfer;

/// The decision: the state of both accounts after it, and no more than a transfer can change.
///
/// Where refused, `amount` is 0 and the rest is as it was before; zero for an account that was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why nothing was done; `None` when it was.
    pub refusal: Option<Refusal>,
    /// The debit account's [`Account::day`].
    pub day: u32,
    /// The debit account's [`Account::day_spent`].
    pub day_spent: Amount,
    /// What was posted, held, settled or given back, in minor units.
    pub amount: Amount,
    /// The debit account's sums.
    pub debit: Sums,
    /// The credit account's sums.
    pub credit: Sums,
    /// What becomes of the accounts' status: something only where a hold closes one.
    pub status: StatusChange,
}

impl Outcome {
    /// Nothing changes; the accounts are those that were found.
    pub fn refused(refusal: Refusal, debit: Option<&Account>, credit: Option<&Account>) -> Self {
        Self {
            refusal: Some(refusal),
            day: debit.map_or(0, |account| account.day),
            day_spent: debit.map_or(Amount::ZERO, |account| account.day_spent),
            amount: Amount::ZERO,
            debit: debit.map_or(Sums::default(), |account| account.sums),
            credit: credit.map_or(Sums::default(), |account| account.sums),
            status: StatusChange::NONE,
        }
    }

    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        self.refusal.is_none()
    }

    /// Brings both accounts to the state after the transfer, which is recorded at `lsn` and stamped
    /// `timestamp`. A refusal changes nothing, `lsn` included.
    #[inline]
    pub fn apply(&self, debit: &mut Account, credit: &mut Account, lsn: Lsn, timestamp: Timestamp) {
        if self.refusal.is_some() {
            return;
        }
        debit.sums = self.debit;
        debit.day = self.day;
        debit.day_spent = self.day_spent;
        debit.lsn = lsn;
        debit.timestamp = timestamp;
        credit.sums = self.credit;
        credit.lsn = lsn;
        credit.timestamp = timestamp;
        if !self.status.is_none() {
            debit.status = self.status.debit(debit.status);
            credit.status = self.status.credit(credit.status);
        }
    }
}

/// The record of a transfer and its outcome.
#[inline(always)]
pub fn transfer_record(
    transfer: &Transfer,
    reference: &Reference,
    branch: BranchId,
    outcome: &Outcome,
) -> TransferRecord {
    // Where the reference leads nowhere, what the client wrote is all that is known.
    let (mut debit_account_id, mut credit_account_id) = effective_accounts(transfer, reference, branch)
        .unwrap_or((transfer.debit_account_id, transfer.credit_account_id));
    let (mut debit, mut credit) = (outcome.debit, outcome.credit);
    if outcome.refusal.is_some() {
        // A refusal touches no account; what the client wrote is kept, even where the reference has others, so
        // that the same request is known again. The sums are those of the account that is named, or none: an owner is
        // shown them.
        let keep_written = |asked: AccountId, effective: &mut AccountId, sums: &mut Sums| {
            if !asked.is_none() && asked != *effective {
                (*effective, *sums) = (asked, Sums::default());
            }
        };
        // Of a leg, what was written for the far side is kept apart, and the settlement account says which branch has that.
        match transfer.leg {
            Leg::Destination => debit = Sums::default(),
            Leg::Whole | Leg::Inner | Leg::Source => {
                keep_written(transfer.debit_account_id, &mut debit_account_id, &mut debit);
            }
        }
        match transfer.leg {
            Leg::Source => credit = Sums::default(),
            Leg::Whole | Leg::Inner | Leg::Destination => {
                keep_written(transfer.credit_account_id, &mut credit_account_id, &mut credit);
            }
        }
    }
    let given = |bit: u8, is_given: bool| if is_given { bit } else { 0 };
    TransferRecord {
        id: transfer.id,
        debit_account_id,
        credit_account_id,
        amount_asked: transfer.amount,
        amount: outcome.amount,
        day_spent: outcome.day_spent,
        day: outcome.day,
        debit,
        credit,
        code: if transfer.code == 0 { reference.code() } else { transfer.code },
        currency: transfer.currency.or(reference.currency()).map_or(0, Currency::get),
        flags: transfer.flags,
        refusal: outcome.refusal,
        status: outcome.status,
        kind: transfer.kind,
        leg: transfer.leg,
        given: given(GIVEN_DEBIT, !transfer.debit_account_id.is_none())
            | given(GIVEN_CREDIT, !transfer.credit_account_id.is_none())
            | given(GIVEN_CURRENCY, transfer.currency.is_some())
            | given(GIVEN_CODE, transfer.code != 0),
        reference: match transfer.leg {
            Leg::Whole | Leg::Inner => transfer.reference,
            Leg::Source => TransferId::new(transfer.credit_account_id.get()),
            Leg::Destination => TransferId::new(transfer.debit_account_id.get()),
        },
        user_data_128: transfer.user_data_128,
        user_data_64: transfer.user_data_64,
        user_data_32: transfer.user_data_32,
        timeout_s: transfer.timeout_s,
        chain: transfer.chain,
    }
}

/// The body of the record that says how `hold` ended without a transfer of its own: that it ran out
/// ([`crate::expire_hold`]), or what the registry decided ([`crate::decide_leg`]).
pub fn hold_end_record(hold: &Hold, outcome: &Outcome) -> TransferRecord {
    TransferRecord {
        id: hold.id,
        debit_account_id: hold.debit_account_id,
        credit_account_id: hold.credit_account_id,
        amount_asked: hold.amount,
        amount: outcome.amount,
        day_spent: outcome.day_spent,
        day: outcome.day,
        debit: outcome.debit,
        credit: outcome.credit,
        code: hold.code,
        currency: hold.currency.get(),
        flags: 0,
        refusal: None,
        status: outcome.status,
        kind: if hold.stage == HoldStage::AwaitsPosting { TransferKind::Transfer } else { TransferKind::Hold },
        leg: hold.leg,
        given: GIVEN_DEBIT | GIVEN_CREDIT | GIVEN_CURRENCY | GIVEN_CODE,
        reference: if hold.leg.is_part() { TransferId::new(hold.far_account_id.get()) } else { TransferId::NONE },
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
        chain: hold.chain,
    }
}

/// What the client wrote into a field that may be left out: `value` where it did, else `left_out`.
pub(crate) fn as_written<T>(record: &TransferRecord, bit: u8, value: T, left_out: T) -> T {
    if record.given & bit != 0 { value } else { left_out }
}

/// The transfer of a record, as the client asked for it.
pub fn transfer_of_record(record: &TransferRecord) -> Transfer {
    let peer = record.peer();
    let record = &record.as_asked();
    Transfer {
        id: record.id,
        debit_account_id: as_written(record, GIVEN_DEBIT, record.debit_account_id, AccountId::NONE),
        credit_account_id: as_written(record, GIVEN_CREDIT, record.credit_account_id, AccountId::NONE),
        reference: record.reference,
        user_data_128: record.user_data_128,
        amount: record.amount_asked,
        user_data_64: record.user_data_64,
        user_data_32: record.user_data_32,
        timeout_s: record.timeout_s,
        currency: as_written(record, GIVEN_CURRENCY, Currency::new(record.currency), None),
        code: as_written(record, GIVEN_CODE, record.code, 0),
        flags: record.flags,
        kind: record.kind,
        leg: record.leg,
        peer,
        chain: record.chain,
    }
}
