//! What the sessions count. Each thread writes its own counters, once per read or round and not per
//! message; whoever asks adds them up.

use std::sync::atomic::{AtomicU64, Ordering};

use tally_protocol::Refusal;

use crate::histogram::Counts;
use crate::stages::StageTimes;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// The network or the peer broke it.
    Broken,
    /// TLS was not spoken, or not ours.
    Handshake,
    /// The peer broke the protocol.
    Protocol,
    /// Handshake and login took too long.
    LoginTimeout,
    /// A frame was begun and not finished in time.
    FrameStalled,
    /// Replies were not read in time.
    ReplyStalled,
    /// The session was ended and not logged in again.
    SessionEnded,
    /// The server is stopping.
    Draining,
    /// There were too many connections.
    Capacity,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Peer,
        Self::Broken,
        Self::Handshake,
        Self::Protocol,
        Self::LoginTimeout,
        Self::FrameStalled,
        Self::ReplyStalled,
        Self::SessionEnded,
        Self::Draining,
        Self::Capacity,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Broken => "broken",
            Self::Handshake => "handshake",
            Self::Protocol => "protocol",
            Self::LoginTimeout => "login_timeout",
            Self::FrameStalled => "frame_stalled",
            Self::ReplyStalled => "reply_stalled",
            Self::SessionEnded => "session_ended",
            Self::Draining => "draining",
            Self::Capacity => "capacity",
        }
    }
}

/// Session refusals have codes below this.
const REFUSALS_MAX: usize = 100;

/// The counters of one thread, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct ThreadStats {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open now.
    pub connections_open: AtomicU64,
    /// Sessions logged in now.
    pub sessions_open: AtomicU64,
    /// Logins that went well.
    pub logins: AtomicU64,
    /// Frames read.
    pub frames: AtomicU64,
    /// Plaintext bytes read.
    pub read_bytes: AtomicU64,
    /// Reads that brought something.
    pub reads: AtomicU64,
    /// Replies from the engine.
    pub replies: AtomicU64,
    /// Plaintext bytes written.
    pub written_bytes: AtomicU64,
    /// Writes that took something; `replies / writes` is how well replies coalesce.
    pub writes: AtomicU64,
    /// Replies for sessions that were gone.
    pub replies_dropped: AtomicU64,
    /// Requests in flight now.
    pub in_flight: AtomicU64,
    /// How long requests took.
    pub stages: StageTimes,
    closed: [AtomicU64; CloseReason::ALL.len()],
    refused: [AtomicU64; REFUSALS_MAX],
}

impl Default for ThreadStats {
    fn default() -> Self {
        Self {
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            sessions_open: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            replies_dropped: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            stages: StageTimes::default(),
            closed: [const { AtomicU64::new(0) }; CloseReason::ALL.len()],
            refused: [const { AtomicU64::new(0) }; REFUSALS_MAX],
        }
    }
}

/// Adds to a counter that only this thread writes: no locked instruction.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// Takes from a gauge that only this thread writes.
pub(super) fn sub(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) - count, Ordering::Relaxed);
}

impl ThreadStats {
    pub(super) fn note_closed(&self, reason: CloseReason) {
        add(&self.closed[reason as usize], 1);
    }

    pub(super) fn note_refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refused.get(refusal.code() as usize) {
            add(counter, 1);
        }
    }
}

/// The counters of all session threads.
#[derive(Debug)]
pub struct SessionStats {
    threads: Vec<ThreadStats>,
}

impl SessionStats {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| ThreadStats::default()).collect() }
    }

    pub(super) fn thread(&self, index: usize) -> &ThreadStats {
        &self.threads[index]
    }

    /// A counter's sum over all threads.
    pub fn total(&self, counter: impl Fn(&ThreadStats) -> &AtomicU64) -> u64 {
        self.threads.iter().map(|thread| counter(thread).load(Ordering::Relaxed)).sum()
    }

    /// How long requests took, by stage, over all threads.
    pub fn stage_times(&self) -> [(&'static str, Counts); 3] {
        let add = |sum: [(_, Counts); 3], next: [(&'static str, Counts); 3]| {
            std::array::from_fn(|index| (next[index].0, sum[index].1 + next[index].1))
        };
        self.threads.iter().map(|thread| thread.stages.read()).fold([("", Counts::default()); 3], add)
    }

    /// Connections closed for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.total(|thread| &thread.closed[reason as usize])
    }

    /// Frames that the sessions themselves refused, by refusal; only those that happened.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL
            .iter()
            .filter(|refusal| (refusal.code() as usize) < REFUSALS_MAX)
            .map(|&refusal| (refusal, self.total(|thread| &thread.refused[refusal.code() as usize])))
            .filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_counters() {
        for (index, &reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }

    #[test]
    fn threads_are_added_up() {
        let stats = SessionStats::new(2);
        stats.thread(0).note_refused(Refusal::Busy);
        stats.thread(1).note_refused(Refusal::Busy);
        stats.thread(1).note_closed(CloseReason::Peer);
        add(&stats.thread(1).frames, 5);
        sub(&stats.thread(1).frames, 2);
        assert_eq!(stats.refused().collect::<Vec<_>>(), [(Refusal::Busy, 2)]);
        assert_eq!((stats.closed(CloseReason::Peer), stats.closed(CloseReason::Broken)), (1, 0));
        assert_eq!(stats.total(|thread| &thread.frames), 3);
    }
}
