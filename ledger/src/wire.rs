//! The ledger's values as the messages of `protocol`.
//!
//! Only translations: nothing here decides, except that `available` is worked out from sums and limits.

use tally_protocol::message::{self, FeedKind, RESULT_REPEATED, TransferState};
use tally_protocol::{Amount, Lsn, Refusal, Timestamp, TransferId};

use crate::account::{Account, Sums};
use crate::hold::HoldEnd;
use crate::journal::record::{Record, RecordBody, TransferRecord};
use crate::outcome::transfer_of_record;
use crate::reference::Ended;

/// An account's sums.
pub fn sums_message(sums: &Sums) -> message::Sums {
    message::Sums {
        debits_held: sums.debits_held.get().into(),
        debits_posted: sums.debits_posted.get().into(),
        credits_held: sums.credits_held.get().into(),
        credits_posted: sums.credits_posted.get().into(),
    }
}

/// Sums that say nothing.
pub const NO_SUMS: message::Sums = message::Sums {
    debits_held: message_u64(0),
    debits_posted: message_u64(0),
    credits_held: message_u64(0),
    credits_posted: message_u64(0),
};

const fn message_u64(value: u64) -> zerocopy::byteorder::little_endian::U64 {
    zerocopy::byteorder::little_endian::U64::new(value)
}

/// An account's balance; `available` counts the day of `now`.
pub fn balance_message(account: &Account, now: Timestamp) -> message::Balance {
    message::Balance {
        id: account.id.get().into(),
        sums: sums_message(&account.sums),
        available: account.available(now).get().into(),
        lsn: account.lsn.get().into(),
        timestamp: account.timestamp.as_nanos().into(),
        overdraft: account.overdraft.get().into(),
        currency: account.currency.get().into(),
        status: account.status as u8,
        reserved: [0; 5],
    }
}

/// All about an account.
pub fn account_message(account: &Account) -> message::Account {
    message::Account {
        open: message::AccountOpen {
            id: account.id.get().into(),
            user_data_128: account.user_data_128.into(),
            owner: account.owner.get().into(),
            user_data_64: account.user_data_64.into(),
            overdraft: account.overdraft.get().into(),
            day_limit: account.day_limit.get().into(),
            user_data_32: account.user_data_32.into(),
            currency: account.currency.get().into(),
            code: account.code.into(),
            flags: account.flags.into(),
            kind: account.kind as u8,
            reserved: [0; 5],
        },
        sums: sums_message(&account.sums),
        day_spent: account.day_spent.get().into(),
        opened_at: account.opened_at.as_nanos().into(),
        lsn: account.lsn.get().into(),
        timestamp: account.timestamp.as_nanos().into(),
        day: account.day.into(),
        status: account.status as u8,
        reserved: [0; 11],
    }
}

fn result_flags(repeated: bool) -> u16 {
    if repeated { RESULT_REPEATED } else { 0 }
}

fn refusal_code(refusal: Option<Refusal>) -> u16 {
    refusal.map_or(0, Refusal::code)
}

/// The answer to a transfer that is recorded at `lsn`; `repeated` when it was recorded before this request.
pub fn transfer_reply(
    record: &TransferRecord,
    lsn: Lsn,
    timestamp: Timestamp,
    repeated: bool,
) -> message::TransferReply {
    recorded_reply(record.amount, record.refusal, (lsn, timestamp), repeated)
}

/// The same from the parts of the record that it tells.
#[inline]
pub fn recorded_reply(
    amount: Amount,
    refusal: Option<Refusal>,
    (lsn, timestamp): (Lsn, Timestamp),
    repeated: bool,
) -> message::TransferReply {
    message::TransferReply {
        timestamp: timestamp.as_nanos().into(),
        lsn: lsn.get().into(),
        amount: amount.get().into(),
        refusal: refusal_code(refusal).into(),
        flags: result_flags(repeated).into(),
        reserved: 0.into(),
    }
}

/// The answer to a transfer that left no trace.
pub fn unrecorded_reply(refusal: Refusal) -> message::TransferReply {
    message::TransferReply {
        timestamp: 0.into(),
        lsn: 0.into(),
        amount: 0.into(),
        refusal: refusal.code().into(),
        flags: 0.into(),
        reserved: 0.into(),
    }
}

/// The answer about one of many. `timestamp` is that of the record, [`Timestamp::default`] where there is none.
pub fn item_result(refusal: Option<Refusal>, timestamp: Timestamp, repeated: bool) -> message::ItemResult {
    message::ItemResult {
        timestamp: timestamp.as_nanos().into(),
        refusal: refusal_code(refusal).into(),
        flags: result_flags(repeated).into(),
        reserved: 0.into(),
    }
}

/// What a look-up says about a recorded transfer, given what a later record did to it.
pub fn transfer_state(record: &TransferRecord, ended: Option<Ended>) -> TransferState {
    match (record.refusal, ended) {
        (Some(_), _) => TransferState::Refused,
        (None, None) if record.leg.awaits_decision() => TransferState::Prepared,
        (None, None | Some(Ended::Decided(None) | Ended::Gone(_))) => TransferState::Done,
        (None, Some(Ended::Decided(Some(_)))) => TransferState::Refused,
        (None, Some(Ended::Hold(HoldEnd::Settled))) => TransferState::Settled,
        (None, Some(Ended::Hold(HoldEnd::Voided))) => TransferState::Voided,
        (None, Some(Ended::Hold(HoldEnd::Expired))) => TransferState::Expired,
        (None, Some(Ended::Reversed)) => TransferState::Reversed,
    }
}

/// What a look-up answers about the transfer that is recorded at `lsn`.
pub fn transfer_found(
    record: &TransferRecord,
    lsn: Lsn,
    timestamp: Timestamp,
    ended: Option<Ended>,
) -> message::TransferFound {
    message::TransferFound {
        transfer: transfer_of_record(record).to_wire(),
        reply: transfer_reply(record, lsn, timestamp, false),
        debit: sums_message(&record.debit),
        credit: sums_message(&record.credit),
        state: transfer_state(record, ended) as u8,
        reserved: [0; 7],
    }
}

/// What a look-up answers about an id that has no transfer, but a `state` (in flight, or cancelled).
pub fn id_found(id: TransferId, state: TransferState, lsn: Lsn, timestamp: Timestamp) -> message::TransferFound {
    message::TransferFound {
        transfer: only_id(id),
        reply: message::TransferReply {
            timestamp: timestamp.as_nanos().into(),
            lsn: lsn.get().into(),
            ..unrecorded_reply_done()
        },
        debit: NO_SUMS,
        credit: NO_SUMS,
        state: state as u8,
        reserved: [0; 7],
    }
}

fn unrecorded_reply_done() -> message::TransferReply {
    message::TransferReply { refusal: 0.into(), ..unrecorded_reply(Refusal::Busy) }
}

/// A transfer of which only the id is known.
fn only_id(id: TransferId) -> message::Transfer {
    message::Transfer { id: id.get().into(), ..zerocopy::FromZeros::new_zeroed() }
}

/// One record as the feed tells it.
pub fn feed_entry(record: &Record) -> message::FeedEntry {
    let (lsn, timestamp) = (record.lsn, record.timestamp);
    let plain = |kind: FeedKind, transfer: message::Transfer| message::FeedEntry {
        lsn: lsn.get().into(),
        kind: kind as u8,
        account_change: 0,
        reserved: [0; 6],
        transfer,
        reply: message::TransferReply {
            timestamp: timestamp.as_nanos().into(),
            lsn: lsn.get().into(),
            ..unrecorded_reply_done()
        },
        debit: NO_SUMS,
        credit: NO_SUMS,
    };
    let moved = |kind: FeedKind, of: &TransferRecord| message::FeedEntry {
        reply: transfer_reply(of, lsn, timestamp, false),
        debit: sums_message(&of.debit),
        credit: sums_message(&of.credit),
        ..plain(kind, transfer_of_record(of).to_wire())
    };
    match &record.body {
        RecordBody::Transfer(of) if of.is_prepared() => moved(FeedKind::Prepared, of),
        RecordBody::Transfer(of) => moved(FeedKind::Transfer, of),
        RecordBody::Rehomed(of) => moved(FeedKind::Rehomed, of),
        RecordBody::Expired(of) => moved(FeedKind::Expired, &of.decided(Timestamp::default())),
        RecordBody::Decided(refusal, of) => {
            // The registry's stamp is the bank's own, no client's data.
            let kind = if *refusal == Some(Refusal::HoldElsewhere) { FeedKind::Rehomed } else { FeedKind::Decided };
            let entry = moved(kind, &of.decided(Timestamp::default()));
            let reply = message::TransferReply { refusal: refusal_code(*refusal).into(), ..entry.reply };
            message::FeedEntry { reply, ..entry }
        }
        RecordBody::Cancelled(id) => plain(FeedKind::Cancelled, only_id(*id)),
        RecordBody::Account(change, account) => {
            let named = message::Transfer { debit_account_id: account.id.get().into(), ..only_id(TransferId::NONE) };
            message::FeedEntry {
                account_change: *change as u8,
                debit: sums_message(&account.sums),
                ..plain(FeedKind::Account, named)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::{Role, TransferKind, account_flags};
    use tally_protocol::{AccountId, Amount, BranchId, Currency, CustomerId};

    use super::*;
    use crate::journal::record::AccountChange;
    use crate::{Actor, Opened, Reference, Transfer, cash_account, decide, open_account, transfer_record};

    const BRANCH: BranchId = BranchId::new(1);
    const NOW: Timestamp = Timestamp::from_nanos(86_400_000_000_000 * 3 + 5);

    fn account_open() -> message::AccountOpen {
        message::AccountOpen {
            id: AccountId::of_branch(BRANCH, 7).get().into(),
            user_data_128: 1.into(),
            owner: 2.into(),
            user_data_64: 3.into(),
            overdraft: 400.into(),
            day_limit: 500.into(),
            user_data_32: 6.into(),
            currency: 978.into(),
            code: 8.into(),
            flags: account_flags::DEBITS_LIMITED.into(),
            kind: 1,
            reserved: [0; 5],
        }
    }

    fn opened() -> Account {
        match open_account(&account_open(), None, BRANCH, NOW) {
            Ok(Opened::New(account)) => account,
            other => panic!("{other:?}"),
        }
    }

    /// A deposit of 250 to the account of [`opened`], as recorded at position 80.
    fn deposited(user_data_64: u64) -> (Account, TransferRecord) {
        let wire = message::Transfer {
            credit_account_id: account_open().id,
            amount: 250.into(),
            user_data_64: user_data_64.into(),
            currency: 978.into(),
            code: 9.into(),
            kind: TransferKind::Deposit as u8,
            ..only_id(TransferId::new(44))
        };
        let transfer = Transfer::from_wire(&wire, BRANCH).expect("well formed");
        let (mut till, mut account) = (cash_account(BRANCH, Currency::EUR, NOW), opened());
        let teller = Actor { role: Role::Teller, customer: CustomerId::new(1) };
        let outcome = decide(&transfer, &Reference::NotGiven, Some(&till), Some(&account), &teller, NOW);
        outcome.apply(&mut till, &mut account, Lsn::new(80), NOW);
        (account, transfer_record(&transfer, &Reference::NotGiven, BRANCH, &outcome))
    }

    #[test]
    fn an_account_reads_back_as_it_was_opened() {
        let (account, _) = deposited(0);
        let wire = account_message(&account);
        assert_eq!(wire.open, account_open());
        assert_eq!((wire.sums.credits_posted.get(), wire.lsn.get(), wire.status), (250, 80, 1));
        assert_eq!((wire.opened_at.get(), wire.timestamp.get()), (NOW.as_nanos(), NOW.as_nanos()));
    }

    #[test]
    fn available_is_the_smaller_of_funds_and_day() {
        let (mut account, _) = deposited(0);
        let available = |account: &Account, now| balance_message(account, now).available.get();
        assert_eq!(available(&account, NOW), 500);
        account.day_limit = Amount::MAX;
        assert_eq!(available(&account, NOW), 650);
        (account.day_limit, account.day_spent, account.day) = (Amount::new(500), Amount::new(480), NOW.day());
        assert_eq!(available(&account, NOW), 20);
        let tomorrow = Timestamp::from_nanos(NOW.as_nanos() + 86_400_000_000_000);
        assert_eq!(available(&account, tomorrow), 500);
    }

    #[test]
    fn a_look_up_tells_what_was_asked_and_what_was_answered() {
        let (account, record) = deposited(3);
        let found = transfer_found(&record, Lsn::new(80), NOW, None);
        assert_eq!(found.transfer.debit_account_id.get(), 0, "a deposit names no debit account");
        assert_eq!((found.transfer.id.get(), found.transfer.user_data_64.get()), (44, 3));
        assert_eq!((found.reply.amount.get(), found.reply.lsn.get(), found.reply.refusal.get()), (250, 80, 0));
        assert_eq!(found.credit, sums_message(&account.sums));
        assert_eq!(found.state, TransferState::Done as u8);
        let reversed = transfer_found(&record, Lsn::new(80), NOW, Some(Ended::Reversed));
        assert_eq!(reversed.state, TransferState::Reversed as u8);
        let refused = TransferRecord { refusal: Some(Refusal::InsufficientFunds), ..record };
        assert_eq!(transfer_state(&refused, None), TransferState::Refused);
        let repeated = transfer_reply(&refused, Lsn::new(80), NOW, true);
        assert_eq!((repeated.flags.get(), repeated.refusal.get()), (RESULT_REPEATED, 229));
        let cancelled = id_found(TransferId::new(5), TransferState::Cancelled, Lsn::new(9), NOW);
        assert_eq!((cancelled.transfer.id.get(), cancelled.reply.refusal.get(), cancelled.state), (5, 0, 7));
    }

    #[test]
    fn the_feed_tells_each_kind_of_record() {
        let (account, transfer) = deposited(0);
        let entry = |body| feed_entry(&Record { lsn: Lsn::new(80), timestamp: NOW, actor: CustomerId::BANK, body });
        let moved = entry(RecordBody::Transfer(transfer));
        assert_eq!((moved.kind, moved.account_change, moved.reply.amount.get()), (FeedKind::Transfer as u8, 0, 250));
        let expired = entry(RecordBody::Expired(transfer));
        assert_eq!((expired.kind, expired.transfer.id.get()), (FeedKind::Expired as u8, 44));
        let cancelled = entry(RecordBody::Cancelled(TransferId::new(6)));
        assert_eq!((cancelled.kind, cancelled.transfer.id.get()), (FeedKind::Cancelled as u8, 6));
        let changed = entry(RecordBody::Account(AccountChange::Frozen, account.clone()));
        assert_eq!((changed.kind, changed.account_change), (FeedKind::Account as u8, AccountChange::Frozen as u8));
        assert_eq!(changed.transfer.debit_account_id.get(), account.id.get());
        for entry in [moved, expired, cancelled, changed] {
            assert_eq!((entry.lsn.get(), entry.reply.lsn.get(), entry.reply.timestamp.get()), (80, 80, NOW.as_nanos()));
        }
    }
}
