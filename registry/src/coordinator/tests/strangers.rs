//! An id that was committed between some branches comes to another one, which has nothing to do with that.

use super::*;

/// Its source would post its part alone.
#[test]
fn an_id_that_was_committed_for_others_is_committed_to_nobody_else() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let id = TransferId::new(5);
    let presumed = [Heard::Decision(5, Decision::Abort(AbortReason::Presumed))];
    let committed = [Heard::Decision(5, Decision::Commit)];
    let (first, other) = (cross_of(5, 5, A, B, now), cross_of(70, 5, C, B, now));
    let vote = |of: &CrossTransfer| VoteItem::yes(5, now, Attempt::of_cross(of).get());
    let ask = |of: &CrossTransfer| MarkItem::question(5, now, Attempt::of_cross(of).get());
    let stranger = |all: &mut Coordinators, state: &State| {
        all.begin(C, &[other], state, at(now));
        let begun = heard(all, C);
        all.vote(C, &[vote(&other)], state, at(now));
        let voted = heard(all, C);
        all.ask(C, &[ask(&other)], state, at(now));
        let asked = heard(all, C);
        all.begin_chain(C, &chain(5, C, &[B], now), state, at(now));
        [begun, voted, asked, heard(all, C)]
    };
    let mut all = Coordinators::new(10, &state, at(now));
    [A, B, C].into_iter().for_each(|branch| all.connect(branch));
    all.begin(A, &[first], &state, at(now));
    all.vote(A, &[vote(&first)], &state, at(now));
    all.vote(B, &[vote(&first)], &state, at(now));
    assert_eq!(stranger(&mut all, &state), [const { vec![] }; 4], "the log does not have it yet");
    all.tick(&state, at(now + 60_000 * MS));
    replicate(&mut all, &mut state, at(now));
    heard(&mut all, B);
    assert_eq!((heard(&mut all, A), heard(&mut all, C)), (committed.to_vec(), vec![]));
    let log = |state: &State| State::decode(&state.encode()).expect("a snapshot comes back");
    // Told and not acknowledged; acknowledged by some; by all.
    for acknowledged in [&[][..], &[A], &[A, B]] {
        for &branch in acknowledged {
            all.acknowledge(branch, &[MarkItem::new(5, now)], &state, at(now));
            let branches = Participants::one(branch);
            state.apply(&Command::Acknowledged { id, branches, stamp: at(now) });
        }
        assert_eq!(log(&state), state);
        assert_eq!(stranger(&mut all, &state), [(); 4].map(|()| presumed.to_vec()), "{acknowledged:?}");
        // And to a leader that has read it back.
        let state = log(&state);
        let mut next = Coordinators::new(10, &state, at(now));
        [A, B, C].into_iter().for_each(|branch| next.connect(branch));
        heard(&mut next, A);
        assert_eq!(stranger(&mut next, &state), [(); 4].map(|()| presumed.to_vec()), "{acknowledged:?}");
        next.ask(A, &[ask(&first)], &state, at(now));
        assert_eq!(heard(&mut next, A), committed, "{acknowledged:?}");
    }
}

/// While it is not decided, too: what one client does under another one's id ends nothing, and nobody has broken a rule.
#[test]
fn an_id_that_others_have_begun_goes_on_and_the_stranger_asks_again() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let (first, other) = (cross_of(5, 5, A, B, now), cross_of(70, 5, C, B, now));
    let vote = |of: &CrossTransfer| VoteItem::yes(5, now, Attempt::of_cross(of).get());
    let mut all = Coordinators::new(10, &state, at(now));
    [A, B, C].into_iter().for_each(|branch| all.connect(branch));
    all.begin(A, &[first], &state, at(now));
    all.begin(C, &[other], &state, at(now));
    all.begin_chain(C, &chain(5, C, &[B], now), &state, at(now));
    all.vote(C, &[vote(&other)], &state, at(now));
    all.ask(C, &[MarkItem::question(5, now, Attempt::of_cross(&other).get())], &state, at(now));
    assert_eq!((all.take_contradictions(), heard(&mut all, C)), (vec![], vec![]));
    all.vote(A, &[vote(&first)], &state, at(now));
    all.vote(B, &[vote(&first)], &state, at(now));
    replicate(&mut all, &mut state, at(now));
    assert_eq!(state.decisions.get(TransferId::new(5)).map(|known| known.decision), Some(Decision::Commit));
    all.ask(C, &[MarkItem::question(5, now, Attempt::of_cross(&other).get())], &state, at(now));
    assert_eq!(heard(&mut all, C), [Heard::Decision(5, Decision::Abort(AbortReason::Presumed))]);
}

/// One id, and a chain at either of two branches, each to the other one: both have promised something, and nobody anything of the
/// other's.
#[test]
fn what_a_branch_has_promised_of_its_own_chain_is_no_promise_of_another_one() {
    let now = 1_000 * MS;
    let attempt = Attempt::of_chain(A).get();
    for is_question in [true, false] {
        let mut state = bank();
        let mut all = Coordinators::new(10, &state, at(now));
        [A, B].into_iter().for_each(|branch| all.connect(branch));
        // The begin of A's was lost with a leader.
        all.begin_chain(B, &chain(5, B, &[A], now), &state, at(now));
        if is_question {
            all.ask(A, &[MarkItem::question(5, now, attempt)], &state, at(now));
        } else {
            all.vote(A, &[VoteItem::yes(5, now, attempt)], &state, at(now));
        }
        replicate(&mut all, &mut state, at(now));
        let decision = state.decisions.get(TransferId::new(5)).map(|known| known.decision);
        assert!(matches!(decision, Some(Decision::Abort(_))), "{decision:?}");
        for branch in [A, B] {
            let told = heard(&mut all, branch);
            let is_abort = |heard: &Heard| matches!(heard, Heard::Decision(5, Decision::Abort(_)));
            assert!(told.iter().any(is_abort), "{told:?}");
        }
    }
}
