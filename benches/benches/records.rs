//! Records: a transfer into the journal and out of it again, and the checksum of the group that it lies in.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use tally_ledger::journal::group::{Chain, Epoch, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::journal::record::{GIVEN_CREDIT, GIVEN_DEBIT, Record, RecordBody, TransferRecord};
use tally_ledger::{StatusChange, Sums};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, CustomerId, Lsn, Timestamp, TransferId};

/// Some 350 payments: a flush under load.
const GROUP_LEN_BYTES: usize = 64 * 1_024;

fn main() {
    divan::main();
}

/// With user data, a record has its extension: 232 bytes and not 184.
#[divan::bench(args = [0, 1])]
fn encode(bencher: Bencher, user_data: u64) {
    let record = record(user_data);
    let mut out = vec![0; record.body.len_bytes()];
    bencher.counter(BytesCount::of_slice(&out)).bench_local(|| {
        black_box(&record).encode_into(black_box(&mut out));
    });
}

#[divan::bench(args = [0, 1])]
fn decode(bencher: Bencher, user_data: u64) {
    let record = record(user_data);
    let mut bytes = vec![0; record.body.len_bytes()];
    record.encode_into(&mut bytes);
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| Record::decode(black_box(&bytes)));
}

#[divan::bench]
fn seal_group(bencher: Bencher) {
    let payload: Vec<u8> = (0..GROUP_LEN_BYTES).map(|at| ((at * 31) >> 3) as u8).collect();
    let header = GroupHeader {
        epoch: Epoch::new(1),
        start: Lsn::new(4_096),
        payload_len_bytes: GROUP_LEN_BYTES as u32,
        record_count: 356,
        previous: Chain::new(5),
        durable: Lsn::new(4_096),
        last_timestamp: Timestamp::from_nanos(6),
    };
    let mut head = [0; GROUP_HEADER_LEN_BYTES];
    bencher
        .counter(BytesCount::of_slice(&payload))
        .bench_local(|| black_box(&header).seal(black_box(&mut head), black_box(&payload)));
}

fn record(user_data_64: u64) -> Record {
    let moved = Amount::new(400);
    let transfer = TransferRecord {
        id: TransferId::new(0x0102_0304),
        debit_account_id: AccountId::new(0x11),
        credit_account_id: AccountId::new(0x22),
        amount_asked: moved,
        amount: moved,
        day_spent: moved,
        day: 20_000,
        debit: Sums { debits_posted: moved, ..Sums::default() },
        credit: Sums { credits_posted: moved, ..Sums::default() },
        code: 7,
        currency: 978,
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        given: GIVEN_DEBIT | GIVEN_CREDIT,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64,
        user_data_32: 0,
        timeout_s: 0,
    };
    Record {
        lsn: Lsn::new(4_160),
        timestamp: Timestamp::from_nanos(99),
        actor: CustomerId::new(5),
        body: RecordBody::Transfer(transfer),
    }
}
