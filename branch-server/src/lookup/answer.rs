//! From what is known of an id to the reply that says so.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::wire::{id_found, item_result, transfer_found, transfer_reply, unrecorded_reply};
use tally_ledger::{Actor, Transfer, repeat};
use tally_protocol::message::{self, Role, Sums, TransferState, transfer_flags};
use tally_protocol::{BranchId, CustomerId, Lsn, Refusal, Timestamp, TransferId};

use super::Asker;
use super::resolve::Known;
use crate::engine::Engine;
use crate::replies::ReplyBody;

/// A known transfer id that comes again: the first answer once more, or why the content is another.
pub(super) fn repeated(engine: &Engine, asker: &Asker, wire: &message::Transfer, record: &Record) -> ReplyBody {
    let (reply, first) = repeated_parts(wire, record, engine.branch);
    let wanted = wire.flags.get() & transfer_flags::WANT_BALANCES != 0;
    ReplyBody::Transfer { reply, balances: first.filter(|_| wanted).map(|first| sums_for(engine, asker, first)) }
}

/// The same as one item of a batch or chain.
pub(super) fn repeated_item(wire: &message::Transfer, record: &Record, branch: BranchId) -> message::ItemResult {
    let (reply, _) = repeated_parts(wire, record, branch);
    message::ItemResult { timestamp: reply.timestamp, refusal: reply.refusal, flags: reply.flags, reserved: 0.into() }
}

fn repeated_parts<'r>(
    wire: &message::Transfer,
    record: &'r Record,
    branch: BranchId,
) -> (message::TransferReply, Option<&'r TransferRecord>) {
    let again = Transfer::from_wire(wire, branch).and_then(|transfer| repeat(&transfer, &record.body));
    match again {
        Ok(first) => (transfer_reply(first, record.lsn, record.timestamp, true), Some(first)),
        Err(refusal) => (unrecorded_reply(refusal), None),
    }
}

/// One item that left no trace.
pub(super) fn refused_item(refusal: Refusal) -> message::ItemResult {
    item_result(Some(refusal), Timestamp::default(), false)
}

/// What became of a transfer, for whoever may know it.
pub(super) fn found(engine: &Engine, asker: &Asker, known: &Known) -> ReplyBody {
    let refuse = |refusal| ReplyBody::Refused { refusal, retry_after_ms: 0, text: None };
    let Some(record) = &known.record else { return refuse(Refusal::TransferNotFound) };
    if !may_read(engine, asker, record) {
        return refuse(Refusal::NotPermitted);
    }
    ReplyBody::Found(Box::new(match &record.body {
        RecordBody::Transfer(transfer) => {
            let [debit, credit] = sums_for(engine, asker, transfer);
            let found = transfer_found(transfer, record.lsn, record.timestamp, known.ended);
            message::TransferFound { debit, credit, ..found }
        }
        RecordBody::Cancelled(id) => id_found(*id, TransferState::Cancelled, record.lsn, record.timestamp),
        RecordBody::Expired(_) | RecordBody::Account(..) => unreachable!("`known` checked the kind"),
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
        RecordBody::Transfer(transfer) | RecordBody::Expired(transfer) => {
            [transfer.debit_account_id, transfer.credit_account_id]
                .into_iter()
                .any(|id| engine.may_read(&asker.actor, id))
        }
        RecordBody::Account(..) | RecordBody::Cancelled(_) => false,
    }
}
