//! Every state x event pair of both machines, against a file: a changed transition shows up in review.
//!
//! To accept a change, run the test with `TALLY_ACCEPT=1` and read the difference of the file.

use std::fmt::{Debug, Write};
use std::path::Path;

use tally_ledger::HoldEnd;
use tally_ledger::two_phase::{
    AbortReason, Attempt, Contradiction, Coordinator, CoordinatorEvent, Decision, Objection, Participant,
    ParticipantEvent, Participants, Vote,
};
use tally_protocol::{BranchId, Refusal, Timestamp};

const A: BranchId = BranchId::new(1);
const B: BranchId = BranchId::new(2);
const STRANGER: BranchId = BranchId::new(9);
/// What is begun, and what is not.
const FIRST: Attempt = Attempt::new(1);
const OTHER: Attempt = Attempt::new(2);
const REFUSAL: Objection = Objection { refusal: Refusal::InsufficientFunds, member: 0 };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// Runs each event on each state and writes down what comes of it.
fn table<S: Copy + Debug, E: Copy + Debug, F: Debug>(
    states: &[S],
    events: &[E],
    handle: impl Fn(S, E, &mut Vec<F>) -> Result<S, Contradiction>,
) -> String {
    let mut text = String::new();
    for &state in states {
        writeln!(text, "{state:?}").expect("a string takes all");
        for &event in events {
            let mut effects = Vec::new();
            let result = handle(state, event, &mut effects);
            assert!(result.is_ok() || effects.is_empty(), "{state:?} refuses {event:?}, and yet does {effects:?}");
            let next = match result {
                Ok(next) => format!("{next:?}"),
                Err(contradiction) => format!("refused: {contradiction}"),
            };
            writeln!(text, "    {event:?}\n        -> {next}").expect("a string takes all");
            for effect in effects {
                writeln!(text, "           {effect:?}").expect("a string takes all");
            }
        }
    }
    // Names read better than what `Debug` makes of the small types.
    text.replace("BranchId(1)", "A")
        .replace("BranchId(2)", "B")
        .replace("BranchId(9)", "STRANGER")
        .replace("Attempt(1)", "FIRST")
        .replace("Attempt(2)", "OTHER")
}

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/two_phase").join(name);
    if std::env::var_os("TALLY_ACCEPT").is_some() {
        std::fs::write(&path, text).expect("the table can be written");
    }
    let accepted = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = accepted.lines().zip(text.lines()).position(|(old, new)| old != new);
    assert!(accepted == text, "{name} differs from line {differs:?} on; see the top of table.rs");
}

#[test]
fn every_event_of_a_coordinator() {
    let both = Participants::of([A, B]).expect("two");
    let one = Participants::one(B);
    let abort = Decision::Abort(AbortReason::TimedOut(B));
    let begin = |source, participants, attempt, is_promised| {
        let deadline = at(9);
        CoordinatorEvent::Begin { source, participants, deadline, attempt, is_promised }
    };
    let collecting = |missing| {
        let (participants, deadline, attempt) = (both, at(5), FIRST);
        Coordinator::Collecting { source: A, participants, missing, deadline, attempt }
    };
    let states = [
        Coordinator::Unknown,
        collecting(both),
        collecting(one),
        collecting(Participants::one(A)),
        Coordinator::Deciding { proposed: Decision::Commit, participants: both },
        Coordinator::Decided { decision: Decision::Commit, unacknowledged: one },
        Coordinator::Decided { decision: abort, unacknowledged: one },
        Coordinator::Done(Decision::Commit),
        Coordinator::Done(abort),
    ];
    let events = [
        begin(A, both, FIRST, false),
        begin(A, both, FIRST, true),
        begin(A, both, OTHER, false),
        begin(STRANGER, both, FIRST, false),
        CoordinatorEvent::Voted(A, Vote::Yes(FIRST)),
        CoordinatorEvent::Voted(A, Vote::Yes(OTHER)),
        CoordinatorEvent::Voted(B, Vote::Yes(FIRST)),
        CoordinatorEvent::Voted(B, Vote::Yes(OTHER)),
        CoordinatorEvent::Voted(B, Vote::No(REFUSAL)),
        CoordinatorEvent::Voted(STRANGER, Vote::Yes(FIRST)),
        CoordinatorEvent::Asked(A, FIRST),
        CoordinatorEvent::Asked(A, OTHER),
        CoordinatorEvent::Asked(B, FIRST),
        CoordinatorEvent::Acknowledged(A),
        CoordinatorEvent::Acknowledged(B),
        CoordinatorEvent::Tick(at(4)),
        CoordinatorEvent::Tick(at(5)),
        CoordinatorEvent::Replicated { decision: Decision::Commit, participants: both },
        CoordinatorEvent::Replicated { decision: abort, participants: both },
        CoordinatorEvent::Replicated { decision: abort, participants: Participants::default() },
        CoordinatorEvent::Resolve,
    ];
    check("coordinator.txt", &table(&states, &events, Coordinator::handle));
}

#[test]
fn every_event_of_a_participant() {
    let states = [
        Participant::Absent,
        Participant::Prepared { ask_at: at(5), pause_s: 2, attempt: FIRST },
        Participant::Prepared { ask_at: at(5), pause_s: 32, attempt: FIRST },
        Participant::Settled,
        Participant::Voided,
        Participant::Held,
        Participant::Ended(HoldEnd::Settled),
        Participant::Refused(REFUSAL),
    ];
    let events = [
        ParticipantEvent::Prepare { ruling: Ok(()), now: at(1), attempt: FIRST },
        ParticipantEvent::Prepare { ruling: Err(REFUSAL), now: at(1), attempt: FIRST },
        ParticipantEvent::Prepare { ruling: Ok(()), now: at(1), attempt: OTHER },
        ParticipantEvent::Told(Decision::Commit),
        ParticipantEvent::Told(Decision::Abort(AbortReason::Presumed)),
        ParticipantEvent::Kept,
        ParticipantEvent::End(HoldEnd::Settled),
        ParticipantEvent::End(HoldEnd::Expired),
        ParticipantEvent::Tick(at(4)),
        ParticipantEvent::Tick(at(5)),
    ];
    check(
        "participant.txt",
        &table(&states, &events, |state: Participant, event, effects| state.handle(A, event, effects)),
    );
}
