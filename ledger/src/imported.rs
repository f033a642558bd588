//! Events that happened elsewhere, before this ledger was told of them: an admin moves an old ledger here.
//!
//! An imported event tells its own time in `user_data_64`. The record keeps a stamp and a position of its own that rise
//! like all others, so nothing that reads the journal sees time run backwards.

use tally_protocol::message::{self, account_flags, transfer_flags};
use tally_protocol::{Refusal, Timestamp};

use crate::account::Account;

/// An entry of a request with many: what it says about its neighbours.
pub trait Entry {
    /// Whether it is joined to the next.
    fn is_linked(&self) -> bool;
    /// Whether it happened elsewhere.
    fn is_imported(&self) -> bool;
}

impl Entry for message::Transfer {
    #[inline]
    fn is_linked(&self) -> bool {
        self.flags.get() & transfer_flags::LINKED != 0
    }

    #[inline]
    fn is_imported(&self) -> bool {
        self.flags.get() & transfer_flags::IMPORTED != 0
    }
}

impl Entry for message::AccountOpen {
    fn is_linked(&self) -> bool {
        self.flags.get() & account_flags::LINKED != 0
    }

    fn is_imported(&self) -> bool {
        self.flags.get() & account_flags::IMPORTED != 0
    }
}

/// The answers to a stretch of a request of which not every entry is imported like the request's `first`: what stands
/// out says so, the others are `ChainBroken`. `None` where all are alike.
#[inline]
pub fn mixed<E: Entry>(first: &E, stretch: &[E]) -> Option<Vec<Refusal>> {
    let expected = first.is_imported();
    if stretch.iter().all(|entry| entry.is_imported() == expected) {
        None
    } else {
        Some(mixed_answers(expected, stretch))
    }
}

#[cold]
fn mixed_answers<E: Entry>(expected: bool, stretch: &[E]) -> Vec<Refusal> {
    let odd = if expected { Refusal::ImportedEventExpected } else { Refusal::ImportedEventNotExpected };
    stretch.iter().map(|entry| if entry.is_imported() == expected { Refusal::ChainBroken } else { odd }).collect()
}

/// An imported event's own time, as it was written.
///
/// # Errors
/// `ImportedEventTimestampOutOfRange`: 0 and all ones are no times.
pub(crate) const fn own_time(user_data_64: u64) -> Result<Timestamp, Refusal> {
    match user_data_64 {
        0 | u64::MAX => Err(Refusal::ImportedEventTimestampOutOfRange),
        nanos => Ok(Timestamp::from_nanos(nanos)),
    }
}

/// Whether an imported transfer may have happened `at` that time between these accounts. The branch's own accounts were
/// always there.
///
/// # Errors
/// In this order: `ImportedEventTimestampMustNotAdvance`, `...MustPostdateDebitAccount`, `...MustPostdateCreditAccount`.
#[cold]
pub(crate) fn check_time(at: Timestamp, debit: &Account, credit: &Account, now: Timestamp) -> Result<(), Refusal> {
    let was_there = |account: &Account| account.id.is_house() || account.opened_at < at;
    if at >= now {
        return Err(Refusal::ImportedEventTimestampMustNotAdvance);
    }
    if !was_there(debit) {
        return Err(Refusal::ImportedEventTimestampMustPostdateDebitAccount);
    }
    if !was_there(credit) {
        return Err(Refusal::ImportedEventTimestampMustPostdateCreditAccount);
    }
    Ok(())
}
