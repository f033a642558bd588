//! What the past says about a leg of a transfer between branches, in answer to the registry.

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::{
    Attempt, Contradiction, Decision, Participant, ParticipantEffect, ParticipantEvent, Vote,
};
use tally_ledger::{Ended, HoldEnd, Leg};
use tally_protocol::link::{CrossTransfer, EndItem, IdItem, MoveItem, id_answer};
use tally_protocol::{AccountId, Refusal, Timestamp, TransferId};

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
    let attempt = Attempt::of_cross(&cross);
    if record.refusal.is_some() && Attempt::of_record(record) != attempt {
        return no;
    }
    say(engine, id, state_of(&known), prepare_again(attempt))
}

/// An account is to be taken in, under an id that was used here: by the very move, or by something else.
pub(super) fn take_in<R: RecordReader>(engine: &Engine, resolver: &Resolver<'_, R>, item: MoveItem) -> Returned {
    let (id, account_id) = (TransferId::new(item.id.get()), AccountId::new(item.account_id.get()));
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    let is_same = |record: &&TransferRecord| {
        record.credit_account_id == account_id && record.far_account_id() == Some(account_id)
    };
    if leg_of(&known, Leg::Destination).filter(is_same).is_none() {
        return Returned::Leg(id, ParticipantEffect::Vote(Vote::No(Refusal::IdAlreadyUsed)));
    }
    say(engine, id, state_of(&known), prepare_again(Attempt::ONLY))
}

/// The registry wants something prepared that is known.
const fn prepare_again(attempt: Attempt) -> ParticipantEvent {
    ParticipantEvent::Prepare { ruling: Err(Refusal::IdAlreadyUsed), now: Timestamp::from_nanos(0), attempt }
}

/// A leg that is not open was decided.
pub(super) fn decide<R: RecordReader>(
    engine: &Engine,
    resolver: &Resolver<'_, R>,
    id: TransferId,
    decision: Decision,
    decided_at: Timestamp,
) -> Returned {
    match resolver.known(id) {
        Ok(known) if matches!(state_of(&known), Participant::Prepared { .. }) => {
            Returned::Decide(id, decision, decided_at)
        }
        Ok(known) => say(engine, id, state_of(&known), ParticipantEvent::Told(decision)),
        Err(error) => unreadable(&error),
    }
}

/// A hold that the payer's branch has ended is not open here.
pub(super) fn end<R: RecordReader>(engine: &Engine, resolver: &Resolver<'_, R>, item: EndItem) -> Returned {
    let id = TransferId::new(item.id.get());
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    let Ok(end) = HoldEnd::of_item(&item) else { return Returned::Nothing };
    let state = state_of(&known);
    if matches!(state, Participant::Prepared { .. } | Participant::Held) {
        return Returned::End(item);
    }
    match state.handle(engine.branch, ParticipantEvent::End(end), &mut Vec::with_capacity(2)) {
        Ok(_) if posted_of(&known) == item.posted.get() => Returned::Heard(item),
        Ok(_) => {
            let (here, there) = (posted_of(&known), item.posted.get());
            tracing::error!(
                stage = "two_phase",
                transfer = %id,
                "this branch posted {here} of the hold, the payer's {there}: nothing was changed, somebody has to look"
            );
            Returned::Contradiction
        }
        Err(contradiction) => contradicted(id, contradiction),
    }
}

/// What the end of a hold has posted here, in minor units.
fn posted_of(known: &Known) -> u64 {
    match &known.ended {
        Some((Ended::Hold(HoldEnd::Settled), Record { body: RecordBody::Decided(_, last), .. })) => last.amount.get(),
        _ => 0,
    }
}

fn contradicted(id: TransferId, contradiction: Contradiction) -> Returned {
    tracing::error!(
        stage = "two_phase",
        transfer = %id,
        %contradiction,
        "what another service says contradicts this branch's journal: nothing was changed, somebody has to look"
    );
    Returned::Contradiction
}

/// Another branch wants to know whether an id was ever used here: an account has moved there, and this branch has sealed it
/// before that, durably, so whatever was recorded on it is known by now. What was paid to this branch is none of that: the
/// payer's branch knows of it, or has forgotten in a crash that it began it, and then it is not done.
pub(super) fn id_used<R: RecordReader>(resolver: &Resolver<'_, R>, item: IdItem) -> Returned {
    let known = |id: u128| resolver.known(TransferId::new(id));
    let is_used =
        known(item.id.get()).map(|known| known.record.is_some() && leg_of(&known, Leg::Destination).is_none());
    let reference = item.reference.get();
    let answer = match is_used.and_then(|is_used| Ok(is_used || (reference != 0 && known(reference)?.record.is_some())))
    {
        Ok(false) => id_answer::UNKNOWN,
        Ok(true) => id_answer::KNOWN,
        Err(error) => {
            questions::log(&error);
            id_answer::UNREACHABLE
        }
    };
    Returned::IdTold(item.answered(answer))
}

fn say(engine: &Engine, id: TransferId, state: Participant, event: ParticipantEvent) -> Returned {
    let mut effects = Vec::with_capacity(2);
    match state.handle(engine.branch, event, &mut effects) {
        // Of a leg that has ended, or was refused, there is one thing to say and nothing to record.
        Ok(_) => effects.first().map_or(Returned::Nothing, |effect| Returned::Leg(id, *effect)),
        Err(contradiction) => contradicted(id, contradiction),
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
        (None, Some(Ended::Hold(end))) => Participant::Ended(*end),
        (None, None) if known.is_kept => Participant::Held,
        (None, _) => {
            let attempt = Attempt::of_record(record);
            Participant::Prepared { ask_at: Timestamp::default(), pause_s: 1, attempt }
        }
    }
}
