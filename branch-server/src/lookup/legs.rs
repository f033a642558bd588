//! What the past says about a leg of a transfer between branches, in answer to the registry.

use std::sync::Arc;

use tally_ledger::journal::record::{Record, RecordBody, TransferRecord};
use tally_ledger::two_phase::{
    Attempt, Contradiction, Decision, Objection, Participant, ParticipantEffect, ParticipantEvent, Vote,
};
use tally_ledger::{Ended, Guests, HoldEnd, Leg, Transfer, same_content};
use tally_protocol::link::{AccountMove, CrossChain, CrossTransfer, EndItem, IdItem, id_answer};
use tally_protocol::message::TransferKind;
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
    let no = Returned::Leg(id, ParticipantEffect::Vote(Vote::No(Refusal::IdAlreadyUsed.into())));
    let is_alone = |record: &&TransferRecord| record.chain.is_none() && !record.came_along();
    let Some(record) = leg_of(&known, Leg::Destination).filter(is_alone) else { return no };
    let attempt = Attempt::of_cross(&cross);
    if record.refusal.is_some() && Attempt::of_record(record) != attempt {
        return no;
    }
    say(engine, id, state_of(&known), prepare_again(attempt))
}

/// This branch's part of a chain is to be prepared, and may be known.
pub(super) fn prepare_chain<R: RecordReader>(
    engine: &Engine,
    resolver: &Resolver<'_, R>,
    chain: CrossChain,
) -> Returned {
    let id = TransferId::new(chain.prefix.id.get());
    let say_no = |why: Objection| Returned::Leg(id, ParticipantEffect::Vote(Vote::No(why)));
    // The accounts may have moved away since.
    let guests = Guests { debit: false, credit: true };
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    let (mut looked, mut why) = (Looked::default(), None);
    looked.ids.push((id, known.looked_up));
    for (index, member) in chain.members_at(engine.branch) {
        let member_id = TransferId::new(member.transfer.id.get());
        let of_member = match resolver.known(member_id) {
            Ok(known) => known,
            Err(error) => return unreadable(&error),
        };
        let used = Objection { refusal: Refusal::IdAlreadyUsed, member: index as u8 };
        let is_it = |record: &&TransferRecord| {
            record.chain.is_some_and(|place| (place.id, usize::from(place.member)) == (id, index))
                && Transfer::from_source(&member.transfer, engine.branch, chain.source(), guests)
                    .is_ok_and(|transfer| same_content(&transfer, record).is_ok())
        };
        match (&of_member.record, leg_of(&of_member, Leg::Destination).filter(is_it)) {
            (None, _) if known.record.is_none() => {
                if member_id != id {
                    looked.ids.push((member_id, of_member.looked_up));
                }
            }
            // Something else has the id, or the chain had other members.
            (_, None) => return say_no(used),
            (_, Some(record)) => {
                let reason = record.refusal.filter(|refusal| *refusal != Refusal::ChainBroken);
                why = why.or(reason.map(|refusal| Objection { refusal, member: index as u8 }));
            }
        }
    }
    if known.record.is_none() {
        looked.ids.sort_unstable_by_key(|(id, _)| *id);
        return Returned::PrepareChain(chain, looked);
    }
    let state = match (state_of(&known), why) {
        (Participant::Refused(_), Some(why)) => Participant::Refused(why),
        (state, _) => state,
    };
    say(engine, id, state, prepare_again(Attempt::of_chain(chain.source())))
}

/// An account is to be taken in, under an id that was used here: by the very move, or by something else. Or nothing but the disk
/// knows whether it and those of the holds were.
pub(super) fn take_in<R: RecordReader>(
    engine: &Engine,
    resolver: &Resolver<'_, R>,
    moving: Arc<AccountMove>,
) -> Returned {
    let item = &moving.account;
    let (id, account_id) = (TransferId::new(item.id.get()), AccountId::new(item.account_id.get()));
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    if known.record.is_none() {
        let mut ids = vec![(id, known.looked_up)];
        for hold in moving.holds.iter().filter(|hold| hold.joins == 0) {
            let id = TransferId::new(hold.id.get());
            match engine.ids.lookup_on_disk(id) {
                Ok(looked_up) => ids.push((id, looked_up)),
                Err(error) => return unreadable(&error.into()),
            }
        }
        ids.sort_unstable_by_key(|(id, _)| *id);
        return Returned::TakeIn(moving, Looked { ids, ..Looked::default() });
    }
    // With a negative balance the money goes the other way.
    let is_same = |record: &&TransferRecord| {
        let near = if record.leg == Leg::Source { record.debit_account_id } else { record.credit_account_id };
        near == account_id && record.far_account_id() == Some(account_id)
    };
    let leg = leg_of(&known, Leg::Destination).or_else(|| leg_of(&known, Leg::Source));
    if leg.filter(is_same).is_none() {
        return Returned::Leg(id, ParticipantEffect::Vote(Vote::No(Refusal::IdAlreadyUsed.into())));
    }
    say(engine, id, state_of(&known), prepare_again(Attempt::ONLY))
}

/// The registry wants something prepared that is known.
fn prepare_again(attempt: Attempt) -> ParticipantEvent {
    ParticipantEvent::Prepare { ruling: Err(Refusal::IdAlreadyUsed.into()), now: Timestamp::default(), attempt }
}

/// A leg that is not open was decided.
pub(super) fn decide<R: RecordReader>(
    engine: &Engine,
    resolver: &Resolver<'_, R>,
    id: TransferId,
    decision: Decision,
    decided_at: Timestamp,
) -> Returned {
    let known = match resolver.known(id) {
        Ok(known) => known,
        Err(error) => return unreadable(&error),
    };
    // Where the id was used for something else there is nothing that could be given back, and nothing was promised.
    let state = if is_decided_under(&known, id) { state_of(&known) } else { Participant::Absent };
    if matches!(state, Participant::Prepared { .. }) {
        return Returned::Decide(id, decision, decided_at);
    }
    say(engine, id, state, ParticipantEvent::Told(decision))
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
    // Who has the rest of it since ends it, and tells nobody here.
    if matches!(known.ended, Some((Ended::Gone(_), _))) {
        return contradicted(id, Contradiction::NotPromised(engine.branch));
    }
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

/// Whether what was recorded under `id` is decided by the registry under that id, if at all. What a chain has is decided with
/// that, what was made within one branch is not decided by the registry, wherever it has gone since: a client has used the id at two
/// branches, then.
fn is_decided_under(known: &Known, id: TransferId) -> bool {
    let Some(RecordBody::Transfer(record)) = known.record.as_ref().map(|record| &record.body) else { return true };
    record.leg != Leg::Whole && !record.came_along() && record.chain.is_none_or(|place| place.id == id)
}

fn leg_of(known: &Known, leg: Leg) -> Option<&TransferRecord> {
    match &known.record.as_ref()?.body {
        RecordBody::Transfer(record) if record.leg == leg => Some(record),
        _ => None,
    }
}

/// A hold that was made within this branch may be between two by now, for an account of it has moved.
fn state_of_whole(known: &Known) -> Participant {
    let is_hold =
        leg_of(known, Leg::Whole).is_some_and(|record| record.kind == TransferKind::Hold && record.refusal.is_none());
    match known.ended.as_ref().map(|(ended, _)| ended) {
        Some(Ended::Hold(end)) if is_hold => Participant::Ended(*end),
        None | Some(Ended::Gone(_)) if is_hold => Participant::Held,
        _ => Participant::Absent,
    }
}

/// The participant's state, as the journal has it.
fn state_of(known: &Known) -> Participant {
    let legs = [Leg::Source, Leg::Destination, Leg::Inner];
    let Some(record) = legs.into_iter().find_map(|leg| leg_of(known, leg)) else { return state_of_whole(known) };
    match (record.refusal, known.ended.as_ref().map(|(ended, _)| ended)) {
        (Some(refusal), _) => Participant::Refused(refusal.into()),
        (None, Some(Ended::Decided(None))) => Participant::Settled,
        (None, Some(Ended::Decided(Some(_)))) => Participant::Voided,
        (None, Some(Ended::Hold(end))) => Participant::Ended(*end),
        // It stood, and stands elsewhere.
        (None, Some(Ended::Gone(_))) => Participant::Held,
        (None, None) if known.is_kept => Participant::Held,
        (None, _) => {
            let attempt = Attempt::of_record(record);
            Participant::Prepared { ask_at: Timestamp::default(), pause_s: 1, attempt }
        }
    }
}
