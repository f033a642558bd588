//! What the past says about a leg of a transfer between branches, in answer to the registry.

use tally_ledger::journal::record::{RecordBody, TransferRecord};
use tally_ledger::two_phase::{Decision, Participant, ParticipantEffect, ParticipantEvent, Vote};
use tally_ledger::{Ended, Leg, Transfer, same_content};
use tally_protocol::link::CrossTransfer;
use tally_protocol::{Refusal, Timestamp, TransferId};

use super::resolve::{Known, RecordReader, ResolveError, Resolver};
use super::{Looked, Returned, questions};
use crate::engine::Engine;

/// The destination's part is to be prepared, and may be known.
pub(super) fn prepare<R: RecordReader>(engine: &Engine, resolver: &Resolver<'_, R>, cross: CrossTransfer) -> Returned {
    let id = TransferId::new(cross.transfer.id.get());
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    if known.record.is_none() {
        let looked = Looked { ids: vec![(id, known.looked_up)], ..Looked::default() };
        return Returned::Prepare(cross, looked);
    }
    // Another transfer of this branch has the id, or another content.
    let no = Returned::Leg(id, ParticipantEffect::Vote(Vote::No(Refusal::IdAlreadyUsed)));
    let Some(record) = leg_of(&known, Leg::Destination) else { return no };
    let is_same = Transfer::from_source(&cross.transfer, engine.branch)
        .is_ok_and(|transfer| same_content(&transfer, record).is_ok());
    if !is_same {
        return no;
    }
    let event = ParticipantEvent::Prepare { ruling: Err(Refusal::IdAlreadyUsed), now: Timestamp::default() };
    say(engine, id, state_of(&known), event)
}

/// A leg that is not open was decided.
pub(super) fn decide<R: RecordReader>(
    engine: &Engine,
    resolver: &Resolver<'_, R>,
    id: TransferId,
    decision: Decision,
) -> Returned {
    match resolver.known(id) {
        Ok(known) if matches!(state_of(&known), Participant::Prepared { .. }) => Returned::Decide(id, decision),
        Ok(known) => say(engine, id, state_of(&known), ParticipantEvent::Told(decision)),
        Err(error) => unreadable(&error),
    }
}

fn say(engine: &Engine, id: TransferId, state: Participant, event: ParticipantEvent) -> Returned {
    let mut effects = Vec::with_capacity(2);
    match state.handle(engine.branch, event, &mut effects) {
        // Of a leg that has ended, or was refused, there is one thing to say and nothing to record.
        Ok(_) => effects.first().map_or(Returned::Nothing, |effect| Returned::Leg(id, *effect)),
        Err(contradiction) => {
            tracing::error!(
                stage = "two_phase",
                transfer = %id,
                %contradiction,
                "the registry's decision contradicts this branch's journal: nothing was changed, somebody has to look"
            );
            Returned::Contradiction
        }
    }
}

/// The registry asks again.
fn unreadable(error: &ResolveError) -> Returned {
    questions::log(error);
    Returned::Nothing
}

fn leg_of(known: &Known, leg: Leg) -> Option<&TransferRecord> {
    match &known.record.as_ref()?.body {
        RecordBody::Transfer(record) if record.leg == leg => Some(record),
        _ => None,
    }
}

/// The participant's state, as the journal has it.
fn state_of(known: &Known) -> Participant {
    let record = leg_of(known, Leg::Source).or_else(|| leg_of(known, Leg::Destination));
    let Some(record) = record else { return Participant::Absent };
    match (record.refusal, known.ended.as_ref().map(|(ended, _)| ended)) {
        (Some(refusal), _) => Participant::Refused(refusal),
        (None, Some(Ended::Decided(None))) => Participant::Settled,
        (None, Some(Ended::Decided(Some(_)))) => Participant::Voided,
        (None, _) => Participant::Prepared { ask_at: Timestamp::default(), pause_s: 1 },
    }
}
