//! From sessions to a worker: a request through each queue that could carry it.
//!
//! An iteration hands 100,000 requests over, so 1 ms of it is 10 ns per request. The argument is how many threads
//! produce; with 0 the consumer itself does, sixteen requests at a time, which is what a queue costs when nobody
//! contends for it. A producer builds each request, as a session does, and whoever finds a queue full or empty gives
//! its core away. Behind docs/decisions/0002-intake-queue.md.

use std::hint::black_box;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;

use crossbeam::channel::bounded;
use crossbeam::queue::ArrayQueue;
use divan::Bencher;
use divan::counter::ItemsCount;
use tally_branch_server::intake::{IntakeConfig, Op, Passage, Request, SessionKey};
use tally_ledger::Actor;
use tally_protocol::message::{Role, Transfer, TransferKind};
use tally_protocol::{AccountId, BranchId, CustomerId};
use zerocopy::FromZeros;

const PRODUCERS: [u64; 4] = [0, 1, 2, 4];
/// Starting four threads for it takes a tenth of a millisecond: under a nanosecond per request.
const REQUESTS: u64 = 100_000;
/// Requests of one read, where one thread does both.
const BURST: u64 = 16;

fn main() {
    println!("a request has {} bytes", size_of::<Request>());
    divan::main();
}

#[divan::bench(args = PRODUCERS)]
fn array_queue(bencher: Bencher, producers: u64) {
    let queue = ArrayQueue::new(depth());
    hand_over(bencher, producers, |request| queue.push(request).err(), || queue.pop());
}

/// Without a bound, hence not for us: to see what the bound costs.
#[divan::bench(args = PRODUCERS)]
fn seg_queue(bencher: Bencher, producers: u64) {
    #[expect(clippy::disallowed_types, reason = "measured, not used")]
    let queue = crossbeam::queue::SegQueue::new();
    let push = |request| {
        queue.push(request);
        None
    };
    hand_over(bencher, producers, push, || queue.pop());
}

#[divan::bench(args = PRODUCERS)]
fn crossbeam_channel(bencher: Bencher, producers: u64) {
    let (sender, receiver) = bounded(depth());
    let push = |request| sender.try_send(request).err().map(|full| full.into_inner());
    hand_over(bencher, producers, push, || receiver.try_recv().ok());
}

#[divan::bench(args = PRODUCERS)]
fn std_channel(bencher: Bencher, producers: u64) {
    let (sender, receiver) = sync_channel(depth());
    let push = |request| {
        sender.try_send(request).err().map(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })
    };
    hand_over(bencher, producers, push, || receiver.try_recv().ok());
}

fn depth() -> usize {
    IntakeConfig::default().interactive_depth
}

/// `push` gives back what finds no room.
fn hand_over(
    bencher: Bencher,
    producers: u64,
    push: impl Fn(Request) -> Option<Request> + Sync,
    pop: impl Fn() -> Option<Request>,
) {
    let bencher = bencher.counter(ItemsCount::new(REQUESTS));
    if producers == 0 {
        return bencher.bench_local(|| {
            for first in (0..REQUESTS).step_by(BURST as usize) {
                (first..first + BURST).for_each(|number| push_when_room(&push, number));
                (0..BURST).for_each(|_| take_one(&pop));
            }
        });
    }
    bencher.bench_local(|| {
        thread::scope(|scope| {
            for producer in 0..producers {
                let push = &push;
                scope.spawn(move || {
                    (producer..REQUESTS).step_by(producers as usize).for_each(|number| push_when_room(push, number));
                });
            }
            (0..REQUESTS).for_each(|_| take_one(&pop));
        });
    });
}

fn push_when_room(push: &impl Fn(Request) -> Option<Request>, number: u64) {
    let mut request = request(number);
    while let Some(returned) = push(request) {
        request = returned;
        thread::yield_now();
    }
}

fn take_one(pop: &impl Fn() -> Option<Request>) {
    loop {
        if let Some(request) = pop() {
            black_box(&request);
            return;
        }
        thread::yield_now();
    }
}

fn request(number: u64) -> Request {
    let number = black_box(number);
    let account = |local: u64| AccountId::of_branch(BranchId::new(1), u128::from(local)).get();
    let transfer = Transfer {
        id: u128::from(number + 1).into(),
        debit_account_id: account(number % 1_000).into(),
        credit_account_id: account(number % 999 + 1_000).into(),
        amount: 1.into(),
        currency: 978.into(),
        code: 1.into(),
        kind: TransferKind::Transfer as u8,
        ..Transfer::new_zeroed()
    };
    Request {
        session: SessionKey { thread: 0, slot: number as u32 % 64, generation: 1 },
        request_id: number,
        trace_id: 0,
        deadline: 0,
        passage: Passage { received_ns: number, taken_ns: 0 },
        actor: Actor { role: Role::Customer, customer: CustomerId::new(1) },
        cleared_moves: 0,
        op: Op::Transfer(transfer),
    }
}
