//! Models of what is lock-free between a session and a worker, explored by loom: the bell, the intake, the reply gate,
//! the accounts' sequence locks and the order of their locks.
#![cfg(feature = "loom")]

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;
use tally_branch_server::accounts::{Slot, lock_both};
use tally_branch_server::bell::Bell;
use tally_branch_server::intake::{Intake, IntakeConfig, Lane, Op, Passage, Request, SessionKey};
use tally_branch_server::replies::{self, GateBell, Reply, ReplyBody};
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::{Account, Actor, Sums};
use tally_protocol::message::Role;
use tally_protocol::{AccountId, Amount, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp};

fn model(preemption_bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(body);
}

/// A bell, and what its sleeper waits on. Not loom's `park`: an `unpark` that meets its thread waiting for a mutex is
/// lost there, which the standard library's never is.
fn own_bell() -> (Bell, Arc<Notify>) {
    let notify = Arc::new(Notify::new());
    let sleeper = notify.clone();
    (Bell::new(move || sleeper.notify()), notify)
}

#[test]
fn no_ring_is_lost() {
    model(3, || {
        let (bell, sleep) = own_bell();
        let work = Arc::new(AtomicBool::new(false));
        let ringer = {
            let (bell, work) = (bell.clone(), work.clone());
            thread::spawn(move || {
                work.store(true, Ordering::Relaxed);
                bell.ring();
            })
        };
        // A lost ring leaves this thread parked for ever, which loom reports as a deadlock.
        loop {
            bell.announce_sleep();
            if work.load(Ordering::Relaxed) {
                break;
            }
            sleep.wait();
        }
        bell.awake();
        ringer.join().expect("no panic");
    });
}

/// A read of account `local` by the request of that number.
fn request(number: u64) -> Request {
    Request {
        session: SessionKey { thread: 0, slot: 0, generation: 0 },
        request_id: number,
        trace_id: 0,
        deadline: 0,
        passage: Passage::default(),
        cleared_moves: 0,
        actor: Actor { role: Role::Teller, customer: CustomerId::BANK },
        op: Op::GetBalance(AccountId::of_branch(BranchId::new(1), number.into())),
    }
}

/// Two sessions and a worker that sleeps whenever it finds nothing: everything that was taken is worked, and what finds
/// no place is handed back at once.
#[test]
fn nothing_taken_by_the_intake_is_left_lying() {
    model(2, || {
        let (bell, sleep) = own_bell();
        let depths = IntakeConfig { control_depth: 1, two_phase_depth: 1, interactive_depth: 1, bulk_depth: 1 };
        let lane = std::sync::Arc::new(Lane::new(&depths, bell));
        let (feed, _feed_receiver) = crossbeam::channel::bounded(1);
        let intake = std::sync::Arc::new(Intake::new(vec![lane.clone()], feed));
        let sessions: Vec<_> = [1, 2]
            .map(|number| {
                let intake = intake.clone();
                thread::spawn(move || {
                    let taken = intake.push(request(number)).is_ok();
                    intake.ring();
                    taken
                })
            })
            .into();
        let mut worked = Vec::new();
        // One place: the first to come always finds it.
        while worked.is_empty() {
            lane.bell.announce_sleep();
            match lane.interactive.pop() {
                Some(request) => worked.push(request.request_id),
                None => sleep.wait(),
            }
            lane.bell.awake();
        }
        let taken = sessions.into_iter().map(|session| session.join().expect("no panic"));
        let taken = taken.filter(|taken| *taken).count();
        worked.extend(std::iter::from_fn(|| lane.interactive.pop()).map(|request| request.request_id));
        assert_eq!(worked.len(), taken, "{worked:?}");
        worked.dedup();
        assert_eq!(worked.len(), taken, "none twice");
    });
}

fn reply(request_id: u64) -> Reply {
    let session = SessionKey { thread: 0, slot: 0, generation: 0 };
    let body = ReplyBody::Refused { refusal: Refusal::Busy, retry_after_ms: 0, text: None };
    Reply { session, request_id, trace_id: 0, passage: Passage::default(), body }
}

#[test]
fn a_reply_leaves_when_durable_and_never_before() {
    model(3, || {
        let (bell, sleep) = own_bell();
        let gate = GateBell::new(bell.clone());
        let (mut senders, mut receivers) = replies::channels(1, std::slice::from_ref(&gate));
        let (mut sender, mut receiver) = (senders.remove(0), receivers.remove(0));
        let durable = Arc::new(AtomicU64::new(0));
        let read = |durable: &AtomicU64| DurableLsn::from_published(durable.load(Ordering::Acquire));

        let worker = {
            let durable = durable.clone();
            thread::spawn(move || {
                sender.push(Lsn::new(100), reply(1));
                sender.hand_over(|| DurableLsn::from_published(durable.load(Ordering::Acquire)));
            })
        };
        let flusher = {
            let durable = durable.clone();
            thread::spawn(move || {
                durable.store(4096, Ordering::Release);
                gate.flushed();
            })
        };
        let mut left = Vec::new();
        while left.is_empty() {
            bell.announce_sleep();
            let now = read(&durable);
            receiver.poll_ready(now, |reply| {
                assert!(now.covers(Lsn::new(100)), "the reply left before its record was durable");
                left.push(reply.request_id);
            });
            if left.is_empty() {
                sleep.wait();
            }
        }
        bell.awake();
        assert_eq!(left, [1]);
        worker.join().expect("no panic");
        flusher.join().expect("no panic");
    });
}

fn account(local: u128, debits_posted: u64) -> Account {
    Account {
        id: AccountId::of_branch(BranchId::new(1), local),
        owner: CustomerId::BANK,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        currency: Currency::EUR,
        code: 1,
        flags: 0,
        kind: tally_protocol::AccountKind::Customer,
        status: tally_protocol::AccountStatus::Open,
        overdraft: Amount::ZERO,
        day_limit: Amount::MAX,
        day_spent: Amount::ZERO,
        day: 0,
        sums: Sums { debits_posted: Amount::new(debits_posted), ..Sums::default() },
        opened_at: Timestamp::default(),
        lsn: Lsn::new(debits_posted),
        timestamp: Timestamp::default(),
        residence: tally_ledger::Residence::default(),
    }
}

#[test]
fn a_reader_never_sees_half_of_what_a_writer_publishes() {
    model(2, || {
        let slot = Arc::new(Slot::default());
        slot.lock().publish_all(&account(1, 7));
        let writer = {
            let slot = slot.clone();
            thread::spawn(move || slot.lock().publish_sums(&account(1, 8)))
        };
        let seen = slot.read();
        assert_eq!(seen.sums.debits_posted.get(), seen.lsn.get(), "sums of one instant, position of another");
        writer.join().expect("no panic");
    });
}

#[test]
fn transfers_in_opposite_directions_do_not_wait_for_each_other_for_ever() {
    model(3, || {
        let slots = Arc::new([Slot::default(), Slot::default()]);
        slots[0].lock().publish_all(&account(1, 0));
        slots[1].lock().publish_all(&account(2, 0));
        let transfer = |slots: &[Slot; 2], debit: usize, credit: usize| {
            let (debit, credit) = lock_both(&slots[debit], &slots[credit]);
            let (mut from, mut to) = (debit.load(), credit.load());
            from.sums.debits_posted = Amount::new(from.sums.debits_posted.get() + 1);
            to.sums.credits_posted = Amount::new(to.sums.credits_posted.get() + 1);
            debit.publish_sums(&from);
            credit.publish_sums(&to);
        };
        let other = {
            let slots = slots.clone();
            thread::spawn(move || transfer(&slots, 1, 0))
        };
        transfer(&slots, 0, 1);
        other.join().expect("no panic");
        for slot in slots.iter() {
            let sums = slot.lock().load().sums;
            assert_eq!((sums.debits_posted.get(), sums.credits_posted.get()), (1, 1), "an update was lost");
        }
    });
}
