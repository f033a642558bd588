//! The sweeper: a few times a second, one look at every session of the thread. Deadlines kept here cost
//! a comparison per sweep instead of a timer per read.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use tally_protocol::{Refusal, Timestamp};

use super::mailbox::{Mailbox, Order};
use super::stats::CloseReason;
use super::thread::Thread;
use crate::clock;

/// Runs as long as its thread.
pub(super) async fn run(thread: Rc<Thread>) {
    let mut ticks = tokio::time::interval(thread.shared.limits.sweep_interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut users_seen = thread.shared.auth.generation();
    loop {
        ticks.tick().await;
        let generation = thread.shared.auth.generation();
        sweep(&thread, generation != users_seen);
        users_seen = generation;
    }
}

fn sweep(thread: &Thread, users_changed: bool) {
    let now = Now {
        monotonic: clock::monotonic_nanos(),
        wall: clock::wall(),
        reply_stall: thread.shared.limits.reply_stall.as_nanos() as u64,
    };
    let draining = thread.shared.draining.load(Ordering::Acquire);
    for mailbox in thread.table.borrow().iter() {
        let must_end = |mailbox: &Mailbox| {
            users_changed
                && mailbox.identity.borrow().as_ref().is_some_and(|identity| !thread.shared.auth.may_go_on(identity))
        };
        let order = order(mailbox, &now).or_else(|| must_end(mailbox).then_some(Order::EndSession));
        if order.is_some() {
            mailbox.order.set(order);
        }
        if order.is_some() || draining || mailbox.waits_for_room.get() {
            mailbox.wake();
        }
    }
}

struct Now {
    monotonic: u64,
    wall: Timestamp,
    reply_stall: u64,
}

/// What the clock says about a session. What ends the connection goes before what ends the session.
fn order(mailbox: &Mailbox, now: &Now) -> Option<Order> {
    let passed = |deadline: u64| deadline != 0 && now.monotonic >= deadline;
    let blocked_since = mailbox.write_blocked_since.get();
    if passed(mailbox.linger_deadline.get()) {
        return Some(Order::Abandon(CloseReason::Peer));
    }
    if blocked_since != 0 && passed(blocked_since + now.reply_stall) {
        return Some(Order::Abandon(CloseReason::ReplyStalled));
    }
    if passed(mailbox.frame_deadline.get()) {
        return Some(Order::Close(Refusal::FrameStalled, CloseReason::FrameStalled));
    }
    if passed(mailbox.login_deadline.get()) {
        return Some(Order::Close(Refusal::LoginRequired, CloseReason::LoginTimeout));
    }
    let identity = mailbox.identity.borrow();
    identity.as_ref().is_some_and(|identity| identity.expires_at <= now.wall).then_some(Order::EndSession)
}

#[cfg(test)]
mod tests {
    use tally_ledger::Actor;
    use tally_protocol::CustomerId;
    use tally_protocol::message::Role;

    use super::*;
    use crate::auth::Identity;

    /// One line per state of a session: which deadlines it has, and what is ordered at 100.
    #[test]
    fn deadlines() {
        let abandon = |reason| Some(Order::Abandon(reason));
        let close = |refusal, reason| Some(Order::Close(refusal, reason));
        let stalled = close(Refusal::FrameStalled, CloseReason::FrameStalled);
        let late = close(Refusal::LoginRequired, CloseReason::LoginTimeout);
        for (linger, blocked_since, frame, login, expires, expected) in [
            (0, 0, 0, 0, None, None),
            (101, 91, 101, 101, Some(101), None),
            (0, 0, 0, 0, Some(100), Some(Order::EndSession)),
            (0, 0, 0, 100, None, late),
            (0, 0, 100, 100, None, stalled),
            (0, 90, 100, 100, Some(1), abandon(CloseReason::ReplyStalled)),
            (100, 90, 100, 100, Some(1), abandon(CloseReason::Peer)),
        ] {
            let mailbox = Mailbox::default();
            mailbox.linger_deadline.set(linger);
            mailbox.write_blocked_since.set(blocked_since);
            mailbox.frame_deadline.set(frame);
            mailbox.login_deadline.set(login);
            *mailbox.identity.borrow_mut() = expires.map(|expires_at| Identity {
                name: "alice".into(),
                actor: Actor { role: Role::Customer, customer: CustomerId::new(7) },
                epoch: 1,
                expires_at: Timestamp::from_nanos(expires_at),
            });
            let now = Now { monotonic: 100, wall: Timestamp::from_nanos(100), reply_stall: 10 };
            assert_eq!(order(&mailbox, &now), expected, "{linger} {blocked_since} {frame} {login} {expires:?}");
        }
    }
}
