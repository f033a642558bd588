//! Frames: a transfer as it is read off the wire, and its reply as it is written.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use tally_protocol::message::{Sums, Transfer, TransferKind, TransferReply};
use tally_protocol::request::{self, Request};
use tally_protocol::{AccountId, BranchId, Envelope, Reply, split_frame};
use zerocopy::FromZeros;

fn main() {
    divan::main();
}

/// With the copy that goes on to the worker.
#[divan::bench]
fn decode_transfer(bencher: Bencher) {
    let account = |local| AccountId::of_branch(BranchId::new(1), local).get();
    let transfer = Transfer {
        id: 7.into(),
        debit_account_id: account(1).into(),
        credit_account_id: account(2).into(),
        amount: 100.into(),
        currency: 978.into(),
        code: 1.into(),
        kind: TransferKind::Transfer as u8,
        ..Transfer::new_zeroed()
    };
    let mut frame = Vec::new();
    Request::Transfer(&transfer).append_to(&mut frame, Envelope::request(9));
    bencher.counter(BytesCount::of_slice(&frame)).bench_local(|| {
        let (header, body) = split_frame(black_box(&frame)).expect("a good header").expect("a whole frame");
        match request::decode(header, body) {
            Ok(Request::Transfer(transfer)) => (Envelope::of(header), *transfer),
            other => panic!("{other:?}"),
        }
    });
}

#[divan::bench(args = [false, true])]
fn encode_transfer_reply(bencher: Bencher, with_balances: bool) {
    let reply = TransferReply { timestamp: 5.into(), lsn: 64.into(), amount: 100.into(), ..FromZeros::new_zeroed() };
    let sums = [Sums { debits_posted: 100.into(), ..Sums::new_zeroed() }; 2];
    let balances = with_balances.then_some(&sums);
    let mut out = Vec::with_capacity(4_096);
    bencher.bench_local(|| {
        out.clear();
        let (reply, balances) = black_box((&reply, balances));
        Reply::Transfer { reply, balances }.append_to(&mut out, black_box(Envelope::request(9)));
        black_box(out.as_slice());
    });
}
