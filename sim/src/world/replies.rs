//! The sessions' part: replies that may leave, through the branch's own gate, to the audit.

use std::ops::ControlFlow;

use tally_branch_server::replies::Reply;
use tally_ledger::journal::position::DurableLsn;
use tally_protocol::Lsn;

use super::World;
use super::running::Running;
use crate::invariants::{Violation, violated};
use crate::planted::Bug;
use crate::trace::trace;

/// Records on a page of the feed.
const FEED_PAGE_LEN: usize = 40;

impl Running<'_> {
    /// One session thread looks at its queues.
    pub(super) fn sessions_step(&mut self, world: &mut World) -> Result<bool, Violation> {
        let durable = self.journal.published.durable();
        for worker in &mut self.workers {
            worker.replies.hand_over(|| durable);
        }
        self.lookup_replies.hand_over(|| durable);
        let gate = if world.is_planted(Bug::ReplyBeforeFlush) { DurableLsn::from_published(u64::MAX) } else { durable };
        let thread = world.random.index(self.receivers.len());
        let mut ready = Vec::new();
        self.receivers[thread].poll_ready(gate, |reply| ready.push(reply));
        let any = !ready.is_empty();
        for reply in ready {
            self.leaves(world, reply)?;
        }
        Ok(any)
    }

    fn leaves(&mut self, world: &mut World, reply: Reply) -> Result<(), Violation> {
        let is_due = world.audit.counts.replies % 60 == 59;
        if world.is_planted(Bug::ReplyLost) && is_due {
            world.audit.counts.replies += 1;
            return Ok(());
        }
        if world.is_planted(Bug::RepliesSwapped) && is_due {
            let Some(mut other) = self.kept_back.take() else {
                self.kept_back = Some(reply);
                return Ok(());
            };
            let mut reply = reply;
            std::mem::swap(&mut reply.request_id, &mut other.request_id);
            tell(world, &reply)?;
            return tell(world, &other);
        }
        tell(world, &reply)?;
        if world.is_planted(Bug::ReplyTwice) && is_due { tell(world, &reply) } else { Ok(()) }
    }

    /// Every record that is durable, read back in order: each that was written, and no other.
    pub(super) fn read_whole_journal(&mut self, world: &mut World) -> Result<(), Violation> {
        self.feed_at = Lsn::ZERO;
        while self.feed_step(world)? {}
        Ok(())
    }

    /// A page of the feed, from where the last one ended. Whether there was anything on it.
    pub(super) fn feed_step(&mut self, world: &mut World) -> Result<bool, Violation> {
        let durable = self.journal.published.durable();
        let from = self.feed_at;
        let mut page = Vec::new();
        let scanned = self.journal.records.scan(from, durable, &mut |record| {
            page.push(record.lsn);
            if page.len() < FEED_PAGE_LEN { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let next = match scanned {
            Ok(next) => next,
            Err(error) => violated!(Recoverable, "the feed cannot be read from {from}: {error}"),
        };
        if world.is_planted(Bug::FeedSkips) && page.len() > 3 {
            page.remove(page.len() / 2);
        }
        let written: Vec<Lsn> = world.audit.record_positions(from, next).collect();
        if page != written {
            violated!(Recoverable, "the feed shows {page:?} from {from} to {next}, written are {written:?}");
        }
        self.feed_at = next;
        if !page.is_empty() {
            trace!(world.trace, "feed read to {next}");
        }
        Ok(!page.is_empty())
    }
}

fn tell(world: &mut World, reply: &Reply) -> Result<(), Violation> {
    trace!(world.trace, "reply to {}", reply.request_id);
    world.audit.reply(reply.request_id as usize, &reply.body)
}
