//! The load itself: what is sent next, and what each reply means.
//!
//! One of these serves all lanes of a thread. A transfer costs it a few random numbers, one histogram entry and
//! two additions; a batch is not remembered at all but generated again from its seed when its reply comes.
//!
//! Invariant: each transfer that was sent ends up in exactly one of `deltas` (done), the refusals, or `unknown`.

use tally_protocol::message::{ItemResult, RESULT_REPEATED, Transfer, TransferReply};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{Refusal, RefusalGroup, TransferId};

use super::accounts::AccountRange;
use super::acknowledged::Acknowledged;
use super::choose::{Chooser, Pair};
use super::ids::Ids;
use super::latency::Latencies;
use super::pulse::Pulse;
use super::samples::Samples;
use super::schedule::{Cursor, Schedule};
use crate::Random;
use crate::lane::{Nanos, Next, RequestWriter, Traffic};

/// Transfers move 1 to this much: different amounts make a mix-up visible in the sums.
const AMOUNT_MAX: u64 = 100;
/// How long a lane pauses when the branch is busy and gives no hint (closed loop).
const BUSY_PAUSE: Nanos = 1_000_000;

/// When measuring begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) begin: Nanos,
    pub(crate) end: Nanos,
}

impl Window {
    fn contains(&self, at: Nanos) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) range: AccountRange,
    pub(crate) chooser: Chooser,
    pub(crate) ids: Ids,
    /// Transfers per request; 0 for single ones.
    pub(crate) batch: usize,
    /// Percentage of requests that read a balance.
    pub(crate) reads: u8,
    /// Percentage of transfers that go to the other branch.
    pub(crate) cross: u8,
}

impl Mix {
    /// Whether it is one of few that go to the other branch.
    #[inline]
    fn is_apart(&self, tag: &Tag) -> bool {
        let few = (1..100).contains(&self.cross);
        few && matches!(tag, Tag::Transfer(sent) if u64::from(sent.pair.credit) >= self.range.count)
    }
}

/// A transfer as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: TransferId,
    pub(crate) pair: Pair,
    pub(crate) amount: u32,
}

/// What is kept for a request in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tag {
    Transfer(Sent),
    Read,
    /// The batch follows from these.
    Batch {
        seed: u64,
        now_ms: u64,
        ids: Ids,
    },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Transfers done.
    pub(crate) done: u64,
    /// Transfers refused by the ledger.
    pub(crate) refused: u64,
    /// Transfers not taken: busy, late, disk full.
    pub(crate) busy: u64,
    /// Transfers whose connection was lost.
    pub(crate) lost: u64,
    /// Balances read.
    pub(crate) reads: u64,
    /// Answered as repeats.
    pub(crate) repeated: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { done, refused, busy, lost, reads, repeated } = other;
        self.done += done;
        self.refused += refused;
        self.busy += busy;
        self.lost += lost;
        self.reads += reads;
        self.repeated += repeated;
    }
}

/// What happened within one second, for the progress line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    pub(crate) counts: Counts,
    pub(crate) latencies: Latencies,
}

/// What a thread found out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Within the window.
    pub(crate) counts: Counts,
    /// From start to end.
    pub(crate) counts_all: Counts,
    /// Of requests meant for the window; transfers and reads apart.
    pub(crate) latencies: Latencies,
    pub(crate) read_latencies: Latencies,
    /// Of transfers to the other branch, where not all of them go there.
    pub(crate) cross_latencies: Latencies,
    /// Open loop: meant for the window, and held back until it was over.
    pub(crate) unsent: u64,
    /// By wire code.
    pub(crate) refusals: std::collections::BTreeMap<u16, u64>,
    /// What the acknowledged transfers did to each account.
    pub(crate) deltas: Vec<i64>,
    pub(crate) samples: Samples,
    /// All of the acknowledged transfers that the branch has recorded, if they are to be remembered.
    pub(crate) acknowledged: Option<Acknowledged>,
    pub(crate) unknown: Vec<Sent>,
    /// When the last reply came.
    pub(crate) last_reply: Nanos,
    /// When transfers were done, within the window.
    pub(crate) pulse: Pulse,
    /// Replies that make no sense, the first of them in words.
    pub(crate) nonsense: u64,
    pub(crate) nonsense_first: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LoadTraffic {
    mix: Mix,
    window: Window,
    /// Open loop: the schedule, and each lane's place in it.
    open: Option<(Schedule, Vec<Cursor>)>,
    /// Closed loop: lanes that were told "busy" wait until then.
    pause_until: Vec<Nanos>,
    /// Transfers that may still be sent.
    left: u64,
    random: Random,
    scratch: Vec<Transfer>,
    second: Second,
    pub(crate) findings: Findings,
}

impl LoadTraffic {
    /// `lanes` are this thread's among all lanes of the schedule.
    pub(crate) fn new(
        mix: Mix,
        window: Window,
        schedule: Option<Schedule>,
        lanes: std::ops::Range<usize>,
        random: Random,
    ) -> Self {
        Self {
            mix,
            window,
            open: schedule.map(|schedule| {
                let cursors = lanes.clone().map(|lane_index| schedule.cursor(lane_index)).collect();
                (schedule, cursors)
            }),
            pause_until: vec![0; lanes.len()],
            left: u64::MAX,
            random,
            scratch: Vec::with_capacity(mix.batch),
            second: Second::default(),
            findings: Findings {
                deltas: vec![0; mix.range.total() as usize],
                pulse: Pulse::new(window),
                ..Findings::default()
            },
        }
    }

    /// The same, but with no more than about `count` transfers: whole batches.
    pub(crate) fn with_at_most(self, count: u64) -> Self {
        Self { left: count, ..self }
    }

    /// The same, remembering every acknowledged transfer if `remember`.
    pub(crate) fn remembering(mut self, remember: bool) -> Self {
        self.findings.acknowledged = remember.then(Acknowledged::default);
        self
    }

    /// What happened since it was last asked.
    pub(crate) fn take_second(&mut self) -> Second {
        std::mem::take(&mut self.second)
    }

    fn write(&mut self, since: Nanos, now: Nanos, writer: RequestWriter<'_>) -> Next<Tag> {
        let now_ms = now / 1_000_000;
        if self.mix.batch > 0 {
            let tag = Tag::Batch { seed: self.random.bits(), now_ms, ids: self.mix.ids };
            let Tag::Batch { seed, .. } = tag else { unreachable!("just made") };
            self.mix.ids = generate(&self.mix, self.mix.ids, seed, now_ms, &mut self.scratch);
            return writer.send(&Request::Batch(&self.scratch), tag, since);
        }
        if self.mix.reads > 0 && self.random.below(100) < u64::from(self.mix.reads) {
            let account = self.mix.chooser.draw_one(&mut self.random);
            return writer.send(&Request::GetBalance(self.mix.range.id(account.into())), Tag::Read, since);
        }
        let mut sent = draw(&self.mix.chooser, &mut self.mix.ids, now_ms, &mut self.random);
        if self.mix.cross > 0 && self.random.below(100) < u64::from(self.mix.cross) {
            sent.pair.credit += self.mix.range.count as u32;
        }
        let transfer = self.mix.range.transfer(sent.id, sent.pair, sent.amount);
        writer.send(&Request::Transfer(&transfer), Tag::Transfer(sent), since)
    }

    /// Transfers in the request behind `tag`.
    fn transfers_in(&self, tag: &Tag) -> u64 {
        match tag {
            Tag::Transfer(_) => 1,
            Tag::Read => 0,
            Tag::Batch { .. } => self.mix.batch as u64,
        }
    }

    fn count(&mut self, now: Nanos, counts: Counts) {
        self.second.counts.add(&counts);
        self.findings.counts_all.add(&counts);
        if self.window.contains(now) {
            self.findings.counts.add(&counts);
            if counts.done > 0 {
                self.findings.pulse.mark(now);
            }
        }
    }

    #[inline]
    fn settle(&mut self, sent: Sent, answer: Answer) -> Counts {
        let Answer { refusal_code, repeated, lsn, .. } = answer;
        let repeated = u64::from(repeated);
        if answer.is_recorded()
            && let Some(acknowledged) = &mut self.findings.acknowledged
        {
            acknowledged.add(&sent, refusal_code);
        }
        if refusal_code != 0 {
            *self.findings.refusals.entry(refusal_code).or_default() += 1;
            return Counts { refused: 1, repeated, ..Counts::default() };
        }
        let amount = i64::from(sent.amount);
        self.findings.deltas[sent.pair.debit as usize] -= amount;
        self.findings.deltas[sent.pair.credit as usize] += amount;
        self.findings.samples.offer(sent, lsn);
        Counts { done: 1, repeated, ..Counts::default() }
    }

    fn settle_batch(&mut self, seed: u64, now_ms: u64, ids: Ids, items: &[ItemResult]) -> Counts {
        let mut counts = Counts::default();
        if items.len() != self.mix.batch {
            self.nonsense(format!("{} answers to a batch of {}", items.len(), self.mix.batch));
            return counts;
        }
        let Mix { chooser, .. } = self.mix;
        let (mut ids, mut random) = (ids, Random::from_seed(seed));
        for item in items {
            let sent = draw(&chooser, &mut ids, now_ms, &mut random);
            counts.add(&self.settle(sent, Answer::of_item(item)));
        }
        counts
    }

    fn nonsense(&mut self, what: String) {
        self.findings.nonsense += 1;
        self.findings.nonsense_first.get_or_insert(what);
    }
}

impl Traffic for LoadTraffic {
    type Tag = Tag;

    fn next(&mut self, lane_index: usize, now: Nanos, writer: RequestWriter<'_>) -> Next<Tag> {
        if let Some((schedule, cursors)) = &mut self.open {
            let cursor = &mut cursors[lane_index];
            // Held back until the window was over, and never sent: it took at least until now.
            while now >= self.window.end
                && let Some(intended) = schedule.intended(*cursor)
            {
                *cursor = schedule.after(*cursor);
                if self.window.contains(intended) {
                    self.findings.unsent += 1;
                    self.findings.latencies.record(now - intended);
                }
            }
            let Some(intended) = schedule.intended(*cursor) else { return Next::Finished };
            if now < intended {
                return Next::Later(intended);
            }
            *cursor = schedule.after(*cursor);
            return self.write(intended, now, writer);
        }
        if now >= self.window.end || self.left == 0 {
            return Next::Finished;
        }
        if now < self.pause_until[lane_index] {
            return Next::Later(self.pause_until[lane_index]);
        }
        self.left = self.left.saturating_sub(self.mix.batch.max(1) as u64);
        self.write(now, now, writer)
    }

    #[inline]
    fn reply(&mut self, lane_index: usize, tag: Tag, since: Nanos, now: Nanos, reply: Reply<'_>) {
        let latency = now.saturating_sub(since);
        self.findings.last_reply = now;
        let is_apart = self.mix.is_apart(&tag);
        let counts = match (tag, reply) {
            (Tag::Transfer(sent), Reply::Transfer { reply, .. }) => self.settle(sent, Answer::of_reply(reply)),
            (Tag::Batch { seed, now_ms, ids }, Reply::Batch(items)) => self.settle_batch(seed, now_ms, ids, items),
            (Tag::Read, Reply::Balance(_)) => {
                if self.window.contains(since) {
                    self.findings.read_latencies.record(latency);
                }
                return self.count(now, Counts { reads: 1, ..Counts::default() });
            }
            (tag, Reply::Refused(refused)) => {
                *self.findings.refusals.entry(refused.code).or_default() += 1;
                let pause = BUSY_PAUSE.max(Nanos::from(refused.retry_after_ms) * 1_000_000);
                self.pause_until[lane_index] = now + pause;
                let count = self.transfers_in(&tag);
                let of_session = refused.refusal().is_some_and(|refusal| refusal < Refusal::IdMustNotBeZero);
                let counts = if of_session {
                    Counts { busy: count, ..Counts::default() }
                } else {
                    Counts { refused: count, ..Counts::default() }
                };
                // Not part of the latencies: a fast "busy" must not make the branch look quick.
                return self.count(now, counts);
            }
            (tag, other) => return self.nonsense(format!("{:?} in reply to {tag:?}", other.message_type())),
        };
        self.second.latencies.record(latency);
        if self.window.contains(since) {
            let Findings { latencies, cross_latencies, .. } = &mut self.findings;
            if is_apart { cross_latencies } else { latencies }.record(latency);
        }
        self.count(now, counts);
    }

    fn lost(&mut self, _: usize, tag: Tag, _: Nanos, now: Nanos) {
        self.count(now, Counts { lost: self.transfers_in(&tag), ..Counts::default() });
        match tag {
            Tag::Transfer(sent) => self.findings.unknown.push(sent),
            Tag::Read => {}
            Tag::Batch { seed, now_ms, mut ids } => {
                let mut random = Random::from_seed(seed);
                for _ in 0..self.mix.batch {
                    self.findings.unknown.push(draw(&self.mix.chooser, &mut ids, now_ms, &mut random));
                }
            }
        }
    }
}

/// What the ledger said of one transfer.
#[derive(Clone, Copy)]
struct Answer {
    /// 0 for done.
    refusal_code: u16,
    repeated: bool,
    timestamp: u64,
    /// 0 where it was not said.
    lsn: u64,
}

impl Answer {
    #[inline]
    fn of_reply(reply: &TransferReply) -> Self {
        Self {
            refusal_code: reply.refusal.get(),
            repeated: reply.flags.get() & RESULT_REPEATED != 0,
            timestamp: reply.timestamp.get(),
            lsn: reply.lsn.get(),
        }
    }

    #[inline]
    fn of_item(item: &ItemResult) -> Self {
        Self {
            refusal_code: item.refusal.get(),
            repeated: item.flags.get() & RESULT_REPEATED != 0,
            timestamp: item.timestamp.get(),
            lsn: 0,
        }
    }

    /// Whether it must be in the feed: whatever is done, and the refusals that use up their id
    /// (docs/PROTOCOL.md, "Refusals").
    #[inline]
    fn is_recorded(&self) -> bool {
        match RefusalGroup::of_code(self.refusal_code) {
            None => true,
            Some(RefusalGroup::State) => self.timestamp != 0,
            Some(RefusalGroup::Session | RefusalGroup::Malformed | RefusalGroup::Known | RefusalGroup::Account) => {
                false
            }
        }
    }
}

#[inline]
fn draw(chooser: &Chooser, ids: &mut Ids, now_ms: u64, random: &mut Random) -> Sent {
    Sent {
        id: TransferId::new(ids.next(now_ms, random)),
        pair: chooser.draw(random),
        amount: 1 + random.below(AMOUNT_MAX) as u32,
    }
}

/// Fills `batch` with the transfers that follow from `seed`; returns the ids' next state.
fn generate(mix: &Mix, mut ids: Ids, seed: u64, now_ms: u64, batch: &mut Vec<Transfer>) -> Ids {
    let mut random = Random::from_seed(seed);
    batch.clear();
    for _ in 0..mix.batch {
        let sent = draw(&mix.chooser, &mut ids, now_ms, &mut random);
        batch.push(mix.range.transfer(sent.id, sent.pair, sent.amount));
    }
    ids
}
