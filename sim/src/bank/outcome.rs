//! How a seed of the whole bank ended.

use std::fmt;

use super::BankBug;
use crate::invariants::Violation;

/// What was done in one seed, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BankOutcome {
    /// Seeds.
    pub seeds: u64,
    /// Events of all of them.
    pub events: u64,
    /// Crashes of branches.
    pub crashes: u64,
    /// Leaders lost.
    pub leaders_lost: u64,
    /// Messages lost, and messages that came twice.
    pub lost: u64,
    /// See [`BankOutcome::lost`].
    pub repeated: u64,
    /// Transfers between branches that were committed.
    pub committed: u64,
    /// Transfers between branches that were aborted.
    pub aborted: u64,
    /// Transfers within a branch.
    pub local: u64,
    /// Chains that clients sent.
    pub chains: u64,
    /// Accounts that were moved.
    pub moves: u64,
    /// Open holds that went along with them.
    pub moved_holds: u64,
    /// Those of them that became holds within a branch.
    pub joined_holds: u64,
    /// Answers that clients were given.
    pub answers: u64,
    /// Times that the whole bank was audited while it ran.
    pub cuts: u64,
    /// One number over every event.
    pub trace_hash: u64,
}

impl BankOutcome {
    /// Adds another seed.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.crashes += other.crashes;
        self.leaders_lost += other.leaders_lost;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.local += other.local;
        self.chains += other.chains;
        self.moves += other.moves;
        self.moved_holds += other.moved_holds;
        self.joined_holds += other.joined_holds;
        self.answers += other.answers;
        self.cuts += other.cuts;
        self.trace_hash = self.trace_hash.rotate_left(1) ^ other.trace_hash;
    }
}

impl fmt::Display for BankOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, crashes, leaders_lost, lost, repeated, committed, aborted, local, moves, .. } = self;
        let Self { answers, cuts, chains, moved_holds, joined_holds, .. } = self;
        writeln!(f, "{events} events, {crashes} crashes of branches, {leaders_lost} leaders lost")?;
        writeln!(
            f,
            "messages: {lost} lost, {repeated} twice; {answers} answers to clients; {cuts} audits while running"
        )?;
        write!(
            f,
            "between branches: {committed} committed, {aborted} aborted; {local} within a branch; {chains} chains; {moves} accounts moved with {moved_holds} holds, {joined_holds} of them to their other account"
        )
    }
}

/// A seed that violated an invariant.
#[derive(Clone, Debug)]
pub struct BankFailure {
    /// Which seed; it fails again whenever it is run.
    pub seed: u64,
    /// At which event.
    pub event: u64,
    /// What does not hold.
    pub violation: Violation,
    /// What happened just before.
    pub last_events: String,
    /// What was wrong on purpose.
    pub bug: Option<BankBug>,
}

impl fmt::Display for BankFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, event, violation, last_events, bug } = self;
        writeln!(f, "seed {seed} failed at event {event}{}", bug.map_or(String::new(), |bug| format!(" ({bug:?})")))?;
        writeln!(f, "{violation}")?;
        writeln!(f, "the last events:\n{last_events}")?;
        write!(f, "run it again: tally sim --bank --seed {seed} --verbose")
    }
}

impl std::error::Error for BankFailure {}
