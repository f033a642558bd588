//! Something to append: records of a branch, since they say where they lie and check themselves.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::{StatusChange, Sums};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, CustomerId, Lsn, Timestamp, TransferId};

use crate::log::LogWriter;

/// A transfer's body; with `large`, one that takes 232 bytes instead of 184.
pub fn body(id: u128, large: bool) -> RecordBody {
    RecordBody::Transfer(TransferRecord {
        id: TransferId::new(id),
        debit_account_id: AccountId::new(1),
        credit_account_id: AccountId::new(2),
        amount_asked: Amount::new(5),
        amount: Amount::new(5),
        day_spent: Amount::ZERO,
        day: 0,
        debit: Sums::default(),
        credit: Sums::default(),
        code: 1,
        currency: 978,
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        given: 0,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: u64::from(large),
        user_data_32: 0,
        timeout_s: 0,
    })
}

/// Appends one reservation of a record per body; returns the records.
///
/// # Panics
/// When the log has no space.
pub fn append(writer: &mut LogWriter, bodies: &[RecordBody], now: u64) -> Vec<Record> {
    let len_bytes = bodies.iter().map(RecordBody::len_bytes).sum::<usize>() as u64;
    writer.secure(len_bytes).expect("the ring has space");
    let place = writer.reserve(len_bytes, bodies.len() as u32, Timestamp::from_nanos(now));
    let (mut lsn, mut stamp, mut records) = (place.lsn().get(), place.timestamp().as_nanos(), Vec::new());
    for body in bodies {
        let (at, timestamp) = (Lsn::new(lsn), Timestamp::from_nanos(stamp));
        records.push(Record { lsn: at, timestamp, actor: CustomerId::BANK, body: body.clone() });
        lsn += body.len_bytes() as u64;
        stamp += 1;
    }
    writer.fill(place, |mut bytes| {
        for record in &records {
            let (own, rest) = bytes.split_at_mut(record.body.len_bytes());
            record.encode_into(own);
            bytes = rest;
        }
    });
    records
}

/// The records of a group, as recovery hands it on.
///
/// # Panics
/// When it holds anything else.
pub fn decode_group(first: Lsn, record_count: u32, mut bytes: &[u8]) -> Vec<Record> {
    let (mut at, mut records) = (first.get(), Vec::new());
    for _ in 0..record_count {
        let record = Record::decode(bytes).expect("a record, as it was written");
        assert_eq!(record.lsn.get(), at, "a record says where it lies");
        bytes = &bytes[record.body.len_bytes()..];
        at += record.body.len_bytes() as u64;
        records.push(record);
    }
    assert!(bytes.is_empty(), "{} bytes behind the last record", bytes.len());
    records
}
