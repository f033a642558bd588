//! From what is known of an id to the reply that says so.

use tally_ledger::journal::record::{Record, RecordBody};
use tally_ledger::wire::{id_found, item_result, sums_message, transfer_found, transfer_reply, unrecorded_reply};
use tally_ledger::{Transfer, repeat};
use tally_protocol::message::{self, Role, Sums, TransferState, transfer_flags};
use tally_protocol::{BranchId, Refusal, Timestamp};

use super::Asker;
use super::resolve::Known;
use crate::replies::ReplyBody;

/// A known transfer id that comes again: the first answer once more, or why the content is another.
pub(super) fn repeated(wire: &message::Transfer, record: &Record, branch: BranchId) -> ReplyBody {
    let (reply, sums) = repeated_parts(wire, record, branch);
    let wanted = wire.flags.get() & transfer_flags::WANT_BALANCES != 0;
    ReplyBody::Transfer { reply, balances: sums.filter(|_| wanted) }
}

/// The same as one item of a batch or chain.
pub(super) fn repeated_item(wire: &message::Transfer, record: &Record, branch: BranchId) -> message::ItemResult {
    let (reply, _) = repeated_parts(wire, record, branch);
    message::ItemResult { timestamp: reply.timestamp, refusal: reply.refusal, flags: reply.flags, reserved: 0.into() }
}

fn repeated_parts(
    wire: &message::Transfer,
    record: &Record,
    branch: BranchId,
) -> (message::TransferReply, Option<[Sums; 2]>) {
    let again = Transfer::from_wire(wire, branch).and_then(|transfer| repeat(&transfer, &record.body));
    match again {
        Ok(transfer) => (
            transfer_reply(transfer, record.lsn, record.timestamp, true),
            Some([sums_message(&transfer.debit), sums_message(&transfer.credit)]),
        ),
        Err(refusal) => (unrecorded_reply(refusal), None),
    }
}

/// One item that left no trace.
pub(super) fn refused_item(refusal: Refusal) -> message::ItemResult {
    item_result(Some(refusal), Timestamp::default(), false)
}

/// What became of a transfer, for whoever may know it.
pub(super) fn found(asker: &Asker, known: &Known, owns: impl Fn(&Record) -> bool) -> ReplyBody {
    let refuse = |refusal| ReplyBody::Refused { refusal, retry_after_ms: 0, text: None };
    let Some(record) = &known.record else { return refuse(Refusal::TransferNotFound) };
    if asker.actor.role == Role::Customer && record.actor != asker.actor.customer && !owns(record) {
        return refuse(Refusal::NotPermitted);
    }
    ReplyBody::Found(Box::new(match &record.body {
        RecordBody::Transfer(transfer) => transfer_found(transfer, record.lsn, record.timestamp, known.ended),
        RecordBody::Cancelled(id) => id_found(*id, TransferState::Cancelled, record.lsn, record.timestamp),
        RecordBody::Expired(_) | RecordBody::Account(..) => unreachable!("`known` checked the kind"),
    }))
}
