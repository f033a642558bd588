//! The coordinator's view of one transfer. It lives in the registry's leader.
//!
//! ```text
//!  Unknown --begin--> Collecting --every vote is yes, a no, too late, an operator--> Deciding
//!     |                   |                                                             |
//!     |                   '------------------- the log decided ----------------.        | the log decided
//!     |--somebody asks--> Deciding (abort)                                     v        v
//!     '--the log decided (a new leader reads it)---------------------------> Decided <--'
//!                                                                              | all have acknowledged
//!                                                                              v
//!                                                                            Done
//! ```
//!
//! Only what the log says survives the leader: `Collecting` and `Deciding` are lost with it, `Decided` is read back.
//!
//! **Invariant:** commit is proposed only when every participant has promised its part of what was begun. A branch that asks
//! has, for only one that is prepared does. One that has promised something else under this id will never promise this:
//! then it is aborted.

use tally_protocol::{BranchId, Timestamp};

use super::{AbortReason, Attempt, Contradiction, Decision, Participants, Vote};

/// See the top of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coordinator {
    /// Never heard of it, or forgotten with a former leader.
    #[default]
    Unknown,
    /// Waiting for the votes.
    Collecting {
        /// Who began it, and prepares by itself.
        source: BranchId,
        /// Who takes part, the source included.
        participants: Participants,
        /// Of them, those that have not promised their part.
        missing: Participants,
        /// When to give up.
        deadline: Timestamp,
        /// What was begun.
        attempt: Attempt,
    },
    /// A decision is on its way into the log. Another may come first, and then stands.
    Deciding {
        /// The one that was proposed.
        proposed: Decision,
        /// Who has to be told.
        participants: Participants,
    },
    /// The log has it; some have not acknowledged.
    Decided {
        /// For ever.
        decision: Decision,
        /// Who has not acknowledged. Invariant: not empty.
        unacknowledged: Participants,
    },
    /// Everybody has acknowledged.
    Done(Decision),
}

/// What happens to a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoordinatorEvent {
    /// A source branch wants a transfer. It has prepared its own part.
    Begin {
        /// The source.
        source: BranchId,
        /// Who takes part, the source included.
        participants: Participants,
        /// When to give up.
        deadline: Timestamp,
        /// What it begins.
        attempt: Attempt,
        /// Whether the source's part is durable: then this is its vote, too.
        is_promised: bool,
    },
    /// A branch has voted.
    Voted(BranchId, Vote),
    /// A prepared branch asks what became of what it holds.
    Asked(BranchId, Attempt),
    /// A branch has carried out the decision, durably.
    Acknowledged(BranchId),
    /// Time has passed: look whether it is too late, and say again what may have been lost.
    Tick(Timestamp),
    /// The log holds this decision.
    Replicated {
        /// The first that the log has for this transfer.
        decision: Decision,
        /// Those that the log names with it.
        participants: Participants,
    },
    /// An operator wants it ended.
    Resolve,
}

/// What the registry has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoordinatorEffect {
    /// Ask this branch to prepare.
    Prepare(BranchId),
    /// Put the decision into the log; what the log then says comes back as [`CoordinatorEvent::Replicated`].
    Propose(Decision, Participants),
    /// Tell this branch.
    Tell(BranchId, Decision),
}

impl Coordinator {
    /// The next state; what has to be done is added to `effects`.
    ///
    /// # Errors
    /// See [`Contradiction`]: the state stays.
    pub fn handle(self, event: CoordinatorEvent, effects: &mut Vec<CoordinatorEffect>) -> Result<Self, Contradiction> {
        match self {
            Self::Unknown => Ok(from_unknown(event, effects)),
            Self::Collecting { source, participants, missing, deadline, attempt } => {
                Collecting { source, participants, missing, deadline, attempt }.handle(event, effects)
            }
            Self::Deciding { proposed, participants } => deciding(proposed, participants, event, effects),
            Self::Decided { decision, unacknowledged } => decided(decision, unacknowledged, event, effects),
            Self::Done(decision) => decided(decision, Participants::default(), event, effects),
        }
    }
}

fn from_unknown(event: CoordinatorEvent, effects: &mut Vec<CoordinatorEffect>) -> Coordinator {
    match event {
        CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised } => {
            let others = participants.without(source);
            effects.extend(others.iter().map(CoordinatorEffect::Prepare));
            let missing = if is_promised { others } else { participants };
            Coordinator::Collecting { source, participants, missing, deadline, attempt }
        }
        // It holds something of which nobody knows any more: "unknown" is not answered from memory, the log decides.
        CoordinatorEvent::Asked(branch, _) | CoordinatorEvent::Voted(branch, Vote::Yes(_)) => {
            propose(Decision::Abort(AbortReason::Presumed), Participants::one(branch), effects)
        }
        CoordinatorEvent::Resolve => propose(Decision::Abort(AbortReason::Resolved), Participants::default(), effects),
        CoordinatorEvent::Replicated { decision, participants } => tell_all(decision, participants, effects),
        // It holds nothing; whoever does will ask.
        CoordinatorEvent::Voted(_, Vote::No(_)) | CoordinatorEvent::Acknowledged(_) | CoordinatorEvent::Tick(_) => {
            Coordinator::Unknown
        }
    }
}

/// The fields of [`Coordinator::Collecting`].
struct Collecting {
    source: BranchId,
    participants: Participants,
    missing: Participants,
    deadline: Timestamp,
    attempt: Attempt,
}

impl Collecting {
    fn handle(
        self,
        event: CoordinatorEvent,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Result<Coordinator, Contradiction> {
        let Self { source, participants, missing, deadline, attempt } = self;
        Ok(match event {
            CoordinatorEvent::Voted(branch, _)
            | CoordinatorEvent::Asked(branch, _)
            | CoordinatorEvent::Acknowledged(branch)
                if !participants.contains(branch) =>
            {
                return Err(Contradiction::Stranger(branch));
            }
            CoordinatorEvent::Voted(branch, Vote::Yes(held)) | CoordinatorEvent::Asked(branch, held)
                if held == attempt =>
            {
                self.promised(branch, effects)
            }
            // It holds something else, durably.
            CoordinatorEvent::Voted(_, Vote::Yes(_)) | CoordinatorEvent::Asked(..) => {
                propose(Decision::Abort(AbortReason::Presumed), participants, effects)
            }
            // The source has said so before, or has forgotten it in a crash and was asked for the same once more.
            CoordinatorEvent::Begin { source: again, attempt: begun, is_promised, .. }
                if (again, begun) == (source, attempt) =>
            {
                if is_promised {
                    self.promised(source, effects)
                } else {
                    self.stay(missing)
                }
            }
            // It has forgotten in a crash what it began first. Who held that gives it back, and the id is used up.
            CoordinatorEvent::Begin { source: again, .. } => {
                let participants = participants.with(again).unwrap_or(participants);
                propose(Decision::Abort(AbortReason::Presumed), participants, effects)
            }
            CoordinatorEvent::Voted(branch, Vote::No(why)) => {
                // It holds nothing and knows why: it need not be told.
                propose(Decision::Abort(AbortReason::Refused(branch, why)), participants.without(branch), effects)
            }
            CoordinatorEvent::Tick(now) if now >= deadline => {
                let late = missing.iter().next().expect("with no vote missing it would be decided");
                propose(Decision::Abort(AbortReason::TimedOut(late)), participants, effects)
            }
            CoordinatorEvent::Tick(_) => {
                // The source is not told what it has asked for; it asks about it in time.
                effects.extend(missing.without(source).iter().map(CoordinatorEffect::Prepare));
                self.stay(missing)
            }
            CoordinatorEvent::Resolve => propose(Decision::Abort(AbortReason::Resolved), participants, effects),
            // The log may know fewer of them: whoever asked. All of ours hear it.
            CoordinatorEvent::Replicated { decision, participants: _ } => tell_all(decision, participants, effects),
            // What is not decided cannot be acknowledged.
            CoordinatorEvent::Acknowledged(_) => self.stay(missing),
        })
    }

    fn promised(self, branch: BranchId, effects: &mut Vec<CoordinatorEffect>) -> Coordinator {
        let missing = self.missing.without(branch);
        if missing.is_empty() { propose(Decision::Commit, self.participants, effects) } else { self.stay(missing) }
    }

    const fn stay(self, missing: Participants) -> Coordinator {
        let Self { source, participants, deadline, attempt, .. } = self;
        Coordinator::Collecting { source, participants, missing, deadline, attempt }
    }
}

fn deciding(
    proposed: Decision,
    participants: Participants,
    event: CoordinatorEvent,
    effects: &mut Vec<CoordinatorEffect>,
) -> Result<Coordinator, Contradiction> {
    Ok(match event {
        CoordinatorEvent::Replicated { decision, participants: _ } => tell_all(decision, participants, effects),
        // Whatever it is, the answer is on its way into the log. Who asks is told with the others.
        CoordinatorEvent::Asked(branch, _) | CoordinatorEvent::Voted(branch, Vote::Yes(_)) => {
            Coordinator::Deciding { proposed, participants: participants.with(branch).unwrap_or(participants) }
        }
        // A proposal may be lost; twice in the log is as good as once.
        CoordinatorEvent::Tick(_) => propose(proposed, participants, effects),
        CoordinatorEvent::Begin { .. }
        | CoordinatorEvent::Voted(_, Vote::No(_))
        | CoordinatorEvent::Acknowledged(_)
        | CoordinatorEvent::Resolve => Coordinator::Deciding { proposed, participants },
    })
}

fn decided(
    decision: Decision,
    unacknowledged: Participants,
    event: CoordinatorEvent,
    effects: &mut Vec<CoordinatorEffect>,
) -> Result<Coordinator, Contradiction> {
    let with = |unacknowledged| until_acknowledged(decision, unacknowledged);
    Ok(match event {
        // It did not hear, or it has forgotten in a crash that it heard.
        CoordinatorEvent::Asked(branch, _)
        | CoordinatorEvent::Voted(branch, Vote::Yes(_))
        | CoordinatorEvent::Begin { source: branch, .. } => {
            effects.push(CoordinatorEffect::Tell(branch, decision));
            with(unacknowledged)
        }
        CoordinatorEvent::Voted(branch, Vote::No(_)) if decision == Decision::Commit => {
            return Err(Contradiction::NotPromised(branch));
        }
        // It holds nothing, so there is nothing that it has to give back.
        CoordinatorEvent::Voted(branch, Vote::No(_)) | CoordinatorEvent::Acknowledged(branch) => {
            with(unacknowledged.without(branch))
        }
        CoordinatorEvent::Tick(_) => {
            effects.extend(unacknowledged.iter().map(|branch| CoordinatorEffect::Tell(branch, decision)));
            with(unacknowledged)
        }
        CoordinatorEvent::Replicated { decision: other, .. } if other != decision => {
            return Err(Contradiction::OtherDecision { known: decision, other });
        }
        CoordinatorEvent::Resolve if decision == Decision::Commit => {
            let other = Decision::Abort(AbortReason::Resolved);
            return Err(Contradiction::OtherDecision { known: decision, other });
        }
        CoordinatorEvent::Replicated { .. } | CoordinatorEvent::Resolve => with(unacknowledged),
    })
}

fn propose(decision: Decision, participants: Participants, effects: &mut Vec<CoordinatorEffect>) -> Coordinator {
    effects.push(CoordinatorEffect::Propose(decision, participants));
    Coordinator::Deciding { proposed: decision, participants }
}

fn tell_all(decision: Decision, participants: Participants, effects: &mut Vec<CoordinatorEffect>) -> Coordinator {
    effects.extend(participants.iter().map(|branch| CoordinatorEffect::Tell(branch, decision)));
    until_acknowledged(decision, participants)
}

fn until_acknowledged(decision: Decision, unacknowledged: Participants) -> Coordinator {
    match unacknowledged.is_empty() {
        true => Coordinator::Done(decision),
        false => Coordinator::Decided { decision, unacknowledged },
    }
}
