//! From what is known of an id to the reply that says so.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::wire::{id_found, item_result, recorded_reply, transfer_found, transfer_reply, unrecorded_reply};
use tally_ledger::{Actor, Ended, Guests, Leg, Transfer, chain_form, repeat};
use tally_protocol::message::{self, Role, Sums, TransferState, transfer_flags};
use tally_protocol::{AccountId, CustomerId, Lsn, Refusal, Timestamp, TransferId};

use super::Asker;
use super::resolve::{Known, Recorded};
use crate::engine::Engine;
use crate::replies::ReplyBody;

/// A known transfer id that comes again: the first answer once more, or why the content is another.
/// `None` while that answer waits for the registry's decision.
pub(super) fn repeated(
    engine: &Engine,
    asker: &Asker,
    wire: &message::Transfer,
    known: &Recorded,
) -> Option<ReplyBody> {
    if let RecordBody::Transfer(first) = &known.record.body
        && (first.came_along()
            || first.leg == Leg::Destination
                && first.far_account_id().is_some_and(|payer| payer.get() == wire.debit_account_id.get()))
    {
        // The payer's account has moved here since, or the hold: its answer is where the payment began. That branch may have forgotten in
        // a crash what it began, but then it was aborted, and of that this branch knows as much.
        let (refusal, retry_after_ms) = match (first.refusal, &known.ended) {
            (None, Some((Ended::Decided(Some(refusal)), _))) if !first.came_along() => (*refusal, 0),
            (Some(_), _) => (Refusal::IdAlreadyUsed, 0),
            _ => (Refusal::IdUsedElsewhere, u32::from(first.peer().get())),
        };
        return Some(ReplyBody::Refused { refusal, retry_after_ms, text: None });
    }
    let (reply, first) = match repeated_parts(engine, wire, known) {
        Again::Answer(reply, first) => (reply, first),
        Again::InDoubt => return None,
    };
    let wanted = wire.flags.get() & transfer_flags::WANT_BALANCES != 0;
    let balances = first.filter(|_| wanted).map(|first| sums_for(engine, asker, first));
    Some(ReplyBody::Transfer { reply, balances })
}

/// The same as one item of a batch or chain; `None` while that answer waits for the registry's decision.
pub(super) fn repeated_item(
    engine: &Engine,
    wire: &message::Transfer,
    known: &Recorded,
) -> Option<message::ItemResult> {
    match repeated_parts(engine, wire, known) {
        Again::Answer(reply, _) => Some(message::ItemResult {
            timestamp: reply.timestamp,
            refusal: reply.refusal,
            flags: reply.flags,
            reserved: 0.into(),
        }),
        Again::InDoubt => None,
    }
}

/// What a known id answers.
enum Again<'r> {
    /// This, and the record with both accounts' sums after it.
    Answer(message::TransferReply, Option<&'r TransferRecord>),
    /// The registry has not decided.
    InDoubt,
}

fn repeated_parts<'r>(engine: &Engine, wire: &message::Transfer, known: &'r Recorded) -> Again<'r> {
    let Recorded { record, ended, is_kept } = known;
    let transfer = match &record.body {
        RecordBody::Transfer(first) if first.came_along() => Err(Refusal::IdUsedElsewhere),
        RecordBody::Transfer(first) if first.leg == Leg::Destination => Err(Refusal::IdAlreadyUsed),
        // Accounts count as at home where they did then.
        RecordBody::Transfer(first) => {
            let is_guest = |id: AccountId| id.branch() != engine.branch;
            let asked = first.as_asked();
            let guests = Guests { debit: is_guest(asked.debit_account_id), credit: is_guest(asked.credit_account_id) };
            match (first.chain, first.leg) {
                (Some(place), leg) => {
                    let peer = leg.is_part().then(|| first.peer());
                    chain_form(wire, place, (engine.branch, peer))
                }
                (None, Leg::Source) => Transfer::from_wire_between(wire, engine.branch, first.peer(), guests),
                (None, Leg::Whole | Leg::Inner | Leg::Destination) => {
                    Transfer::from_wire_with(wire, engine.branch, guests)
                }
            }
        }
        _ => Transfer::from_wire(wire, engine.branch),
    };
    let first = match transfer.and_then(|transfer| repeat(&transfer, &record.body)) {
        Ok(first) => first,
        Err(refusal) => return Again::Answer(unrecorded_reply(refusal), None),
    };
    match ended {
        // A hold's answer is its own record: what ended it is the answer of a settle or void.
        _ if !first.is_prepared() || *is_kept => {
            Again::Answer(transfer_reply(first, record.lsn, record.timestamp, true), Some(first))
        }
        // The answer was the decision's, not the prepare's.
        Some((Ended::Decided(refusal), Record { lsn, timestamp, body: RecordBody::Decided(_, last), .. })) => {
            Again::Answer(recorded_reply(last.amount, *refusal, (*lsn, *timestamp), true), Some(last))
        }
        _ => Again::InDoubt,
    }
}

/// One item that left no trace.
pub(super) fn refused_item(refusal: Refusal) -> message::ItemResult {
    item_result(Some(refusal), Timestamp::default(), false)
}

/// What became of a transfer, for whoever may know it.
pub(super) fn found(engine: &Engine, asker: &Asker, known: &Known) -> ReplyBody {
    let refuse = |refusal| ReplyBody::Refused { refusal, retry_after_ms: 0, text: None };
    // The id of a chain that has other members here is that of no transfer of this branch.
    let Some(record) = known.record.as_ref().filter(|_| !known.is_alias) else {
        return refuse(Refusal::TransferNotFound);
    };
    let has_come = matches!(&record.body, RecordBody::Transfer(transfer) if transfer.came_along());
    if has_come && matches!(known.ended, Some((Ended::Decided(Some(_)), _))) {
        // A hold that was to come here with an account, and did not.
        return refuse(Refusal::TransferNotFound);
    }
    if !may_read(engine, asker, record) {
        return refuse(Refusal::NotPermitted);
    }
    // How it ended, or whether it has, is known where it has gone.
    if let Some((Ended::Gone(branch), _)) = known.ended {
        let (refusal, retry_after_ms) = (Refusal::HoldElsewhere, u32::from(branch.get()));
        return ReplyBody::Refused { refusal, retry_after_ms, text: None };
    }
    ReplyBody::Found(Box::new(match &record.body {
        RecordBody::Transfer(transfer) => {
            let [debit, credit] = sums_for(engine, asker, transfer);
            let ended = known.ended.as_ref();
            let found = transfer_found(transfer, record.lsn, record.timestamp, ended.map(|(ended, _)| *ended));
            match ended {
                Some((Ended::Decided(refusal), Record { lsn, timestamp, body: RecordBody::Decided(_, last), .. })) => {
                    let [debit, credit] = sums_for(engine, asker, last);
                    let reply = recorded_reply(last.amount, *refusal, (*lsn, *timestamp), false);
                    message::TransferFound { debit, credit, reply, ..found }
                }
                None if known.is_kept => {
                    message::TransferFound { debit, credit, state: TransferState::Done as u8, ..found }
                }
                _ => message::TransferFound { debit, credit, ..found },
            }
        }
        RecordBody::Cancelled(id) => id_found(*id, TransferState::Cancelled, record.lsn, record.timestamp),
        RecordBody::Expired(_) | RecordBody::Decided(..) | RecordBody::Rehomed(_) | RecordBody::Account(..) => {
            unreachable!("`known` checked the kind")
        }
    }))
}

/// A worker has the id in hand at this moment.
pub(super) fn in_flight(id: TransferId) -> ReplyBody {
    ReplyBody::Found(Box::new(id_found(id, TransferState::InFlight, Lsn::ZERO, Timestamp::default())))
}

/// Both accounts' sums after the transfer, as far as the asker may see them.
fn sums_for(engine: &Engine, asker: &Asker, transfer: &TransferRecord) -> [Sums; 2] {
    [(transfer.debit_account_id, &transfer.debit), (transfer.credit_account_id, &transfer.credit)]
        .map(|(id, sums)| engine.sums_for(&asker.actor, id, sums))
}

/// Whether the asker may know of the record: asked for it, or may see one of its accounts.
fn may_read(engine: &Engine, asker: &Asker, record: &Record) -> bool {
    let Actor { role, customer } = asker.actor;
    if role != Role::Customer || (record.actor == customer && customer != CustomerId::BANK) {
        return true;
    }
    match &record.body {
        RecordBody::Transfer(transfer)
        | RecordBody::Expired(transfer)
        | RecordBody::Decided(_, transfer)
        | RecordBody::Rehomed(transfer) => [transfer.debit_account_id, transfer.credit_account_id]
            .into_iter()
            .any(|id| engine.may_read(&asker.actor, id)),
        RecordBody::Account(..) | RecordBody::Cancelled(_) => false,
    }
}
