//! The dispatcher: takes the replies that are durable, appends each to its session's outbound frames, and
//! wakes each session once per round.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::stats::{add, sub};
use super::thread::Thread;
use crate::bell::Bell;
use crate::clock;
use crate::replies::{Reply, ReplyReceiver};
use crate::stages::StageClock;

/// Runs as long as its thread.
pub(super) async fn run(thread: Rc<Thread>, mut receiver: ReplyReceiver, bell: Bell, notify: Arc<Notify>) {
    let mut stages = StageClock::new(thread.shared.limits.slow_request);
    let mut round = || round(&thread, &mut receiver, &mut stages);
    loop {
        bell.awake();
        if !round() {
            bell.announce_sleep();
            // Once more: a ring before the announcement found us awake and woke nobody.
            if !round() {
                notify.notified().await;
                continue;
            }
            bell.awake();
        }
        // The sessions write, the sockets are looked at, and then it is our turn again.
        tokio::task::yield_now().await;
    }
}

/// Returns whether there were any replies.
fn round(thread: &Thread, receiver: &mut ReplyReceiver, stages: &mut StageClock) -> bool {
    let now_ns = clock::monotonic_nanos();
    let times = &thread.stats().stages;
    let mut delivered = 0;
    let mut dropped = 0;
    {
        let table = thread.table.borrow();
        let mut dirty = thread.dirty.borrow_mut();
        receiver.poll_ready(thread.shared.backend.durable(), |reply: Reply| {
            delivered += 1;
            stages.note(times, &reply, now_ns);
            let Some(mailbox) = table.get(reply.session) else {
                dropped += 1;
                return;
            };
            mailbox.take_reply(reply);
            if !mailbox.dirty.replace(true) {
                dirty.push(mailbox.clone());
            }
        });
        for mailbox in dirty.drain(..) {
            mailbox.dirty.set(false);
            mailbox.wake();
        }
    }
    if delivered > 0 {
        stages.end_round(times, now_ns);
        let stats = thread.stats();
        add(&stats.replies, delivered);
        sub(&stats.in_flight, delivered);
        if dropped > 0 {
            add(&stats.replies_dropped, dropped);
        }
    }
    delivered > 0
}
