//! How a seed ended.

use std::fmt;

use crate::audit::Counts;
use crate::invariants::Violation;
use crate::planted::Bug;

/// What was done in one seed, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Seeds.
    pub seeds: u64,
    /// Events of all of them.
    pub events: u64,
    /// Crashes.
    pub crashes: u64,
    /// Operations that changed the disk.
    pub disk_writes: u64,
    /// What the audit saw.
    pub counts: Counts,
    /// One number over every event.
    pub trace_hash: u64,
}

impl Outcome {
    /// Adds another seed.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.crashes += other.crashes;
        self.disk_writes += other.disk_writes;
        self.trace_hash = self.trace_hash.rotate_left(1) ^ other.trace_hash;
        let (sum, more) = (&mut self.counts, &other.counts);
        sum.done += more.done;
        sum.refused += more.refused;
        sum.expired += more.expired;
        sum.chains += more.chains;
        sum.account_changes += more.account_changes;
        sum.cancelled += more.cancelled;
        sum.replies += more.replies;
        sum.repeats += more.repeats;
        sum.turned_away += more.turned_away;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { done, refused, expired, chains, account_changes, cancelled, replies, repeats, turned_away } =
            self.counts;
        writeln!(f, "{} events, {} crashes, {} disk writes", self.events, self.crashes, self.disk_writes)?;
        writeln!(
            f,
            "recorded: {done} done, {refused} refused, {expired} expired, {account_changes} account changes, \
             {cancelled} cancels, {chains} chains"
        )?;
        write!(f, "replies: {replies}, of them {repeats} to known ids; {turned_away} turned away")
    }
}

/// A seed that violated an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which seed; it fails again whenever it is run.
    pub seed: u64,
    /// At which event.
    pub event: u64,
    /// What does not hold.
    pub violation: Violation,
    /// What happened just before.
    pub last_events: String,
    /// What was wrong on purpose.
    pub bug: Option<Bug>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, event, violation, last_events, bug } = self;
        writeln!(f, "seed {seed} failed at event {event}{}", bug.map_or(String::new(), |bug| format!(" ({bug:?})")))?;
        writeln!(f, "{violation}")?;
        writeln!(f, "the last events:\n{last_events}")?;
        write!(f, "run it again: tally sim --seed {seed} --verbose")
    }
}

impl std::error::Error for Failure {}
