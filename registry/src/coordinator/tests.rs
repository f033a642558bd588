//! The coordinators against participants behind a network that loses, doubles and reorders, leaders that die, and a log
//! that keeps or loses what was proposed when they did.

use std::collections::BTreeMap;

use tally_ledger::two_phase::{AbortReason, Objection, Participant, ParticipantEffect, ParticipantEvent};
use tally_protocol::link::{CrossChain, IdItem, LinkFrame, MoveHold, MoveItem, MoveOrder, decode, id_answer};
use tally_protocol::message::Transfer;
use tally_protocol::{AccountId, Currency, LinkType, Refusal, split_frame};
use zerocopy::{FromBytes, FromZeros};

use super::*;
use crate::state::{BatchReader, Outcome};

mod strangers;

const A: BranchId = BranchId::new(1);
const B: BranchId = BranchId::new(2);
const C: BranchId = BranchId::new(3);
const MS: u64 = 1_000_000;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn cross(id: u128, source: BranchId, destination: BranchId, now: u64) -> CrossTransfer {
    let mut transfer = Transfer::read_from_bytes(&[0; 112]).expect("its size");
    transfer.id.set(id);
    CrossTransfer::new(transfer, now, now + 5_000 * MS, 0, source, destination)
}

/// The same with another amount.
fn cross_of(amount: u64, id: u128, source: BranchId, destination: BranchId, now: u64) -> CrossTransfer {
    let mut cross = cross(id, source, destination, now);
    cross.transfer.amount.set(amount);
    cross
}

/// A yes to what [`cross`] begins between `A` and `B`.
fn yes(id: u128, stamp: u64) -> VoteItem {
    VoteItem::yes(id, stamp, Attempt::of_cross(&cross(id, A, B, 0)).get())
}

fn bank() -> State {
    let mut state = State::default();
    state.apply(&Command::Found { cluster_id: 1, remembered_max: 100_000, stamp: at(1) });
    for id in [A, B, C] {
        state.apply(&Command::Branch { id, incarnation: 1, endpoint: "b:1", stamp: at(1) });
    }
    state
}

/// What a branch would hear.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    Prepare(u128, Attempt),
    Decision(u128, Decision),
    Busy(u128),
    End(u128),
    Known(u128),
    /// An order, a move to prepare, or a question or answer about an id: what kind, and about which.
    Other(LinkType, u128),
}

fn heard(coordinators: &mut Coordinators, branch: BranchId) -> Vec<Heard> {
    let (mut out, mut all) = (Vec::new(), Vec::new());
    coordinators.take_frames(branch, &mut out);
    let mut rest = &out[..];
    while let Some((header, body)) = split_frame(rest).expect("our own frames") {
        let frame = decode(header, body).expect("our own frames");
        let other = |id| Heard::Other(frame.link_type(), id);
        match frame {
            LinkFrame::Prepare(items) => {
                all.extend(items.iter().map(|item| Heard::Prepare(item.transfer.id.get(), Attempt::of_cross(item))));
            }
            LinkFrame::PrepareChain(chain) => all.push(other(chain.prefix.id.get())),
            LinkFrame::Decision(items) => all.extend(
                items.iter().map(|item| Heard::Decision(item.id.get(), Decision::of_item(item).expect("our own"))),
            ),
            LinkFrame::Busy(items) => all.extend(items.iter().map(|item| Heard::Busy(item.id.get()))),
            LinkFrame::End(items) => all.extend(items.iter().map(|item| Heard::End(item.id.get()))),
            LinkFrame::Heard(items) => all.extend(items.iter().map(|item| Heard::Known(item.id.get()))),
            LinkFrame::MoveOrder(items) => all.extend(items.iter().map(|item| other(item.id.get()))),
            LinkFrame::MovePrepare(moving) => {
                assert_eq!(moving.holds.len(), usize::from(moving.account.holds.get()));
                all.push(other(moving.account.id.get()));
            }
            LinkFrame::IdAsk(items) => all.extend(items.iter().map(|item| other(item.id.get()))),
            LinkFrame::IdTold(items) => {
                all.extend(items.iter().map(|item| other(item.id.get() << 8 | u128::from(item.answer))));
            }
            unexpected => panic!("{unexpected:?}"),
        }
        rest = &rest[header.len_bytes.get() as usize..];
    }
    all
}

/// Applies everything that is proposed.
fn replicate(coordinators: &mut Coordinators, state: &mut State, now: Timestamp) -> u32 {
    let mut builder = BatchBuilder::default();
    coordinators.fill(&mut builder, now);
    let count = builder.count();
    let bytes = builder.take(1, 1, 1);
    apply(&bytes, Some(coordinators), state, now);
    count
}

/// Applies a batch; `proposer` hears of its own decisions.
fn apply(bytes: &[u8], mut proposer: Option<&mut Coordinators>, state: &mut State, now: Timestamp) {
    let mut reader = BatchReader::new(bytes).expect("written");
    while let Some(command) = reader.next_command().expect("written") {
        let outcome = state.apply(&command);
        let decided = match command {
            Command::Decide { id, participants, .. } | Command::MoveAccount { id, participants, .. } => {
                (id, participants)
            }
            _ => continue,
        };
        if let (Outcome::Decided(known), Some(proposer)) = (outcome, proposer.as_deref_mut()) {
            proposer.replicated(decided.0, known, decided.1, state, now);
        }
    }
}

fn chain(id: u128, source: BranchId, destinations: &[BranchId], now: u64) -> CrossChain {
    let transfer = |at: usize| Transfer { id: (id + at as u128).into(), ..Transfer::new_zeroed() };
    let members = destinations.iter().enumerate().map(|(at, &destination)| (transfer(at), destination));
    CrossChain::new(source, members, (now, now + 5_000 * MS), 0)
}

#[test]
fn a_chain_is_prepared_at_every_branch_and_decided_once() {
    let prepare = |id| Heard::Other(LinkType::LinkPrepareChain, id);
    for refused in [None, Some(Objection { refusal: Refusal::CreditAccountFrozen, member: 3 })] {
        let mut state = bank();
        let mut all = Coordinators::new(10, &state, at(1));
        [A, B, C].into_iter().for_each(|branch| all.connect(branch));
        all.begin_chain(A, &chain(20, A, &[B, A, B, C], 2), &state, at(2));
        assert_eq!([A, B, C].map(|branch| heard(&mut all, branch)), [vec![], vec![prepare(20)], vec![prepare(20)]]);
        // A branch that comes back is told again what it has not voted on.
        all.connect(B);
        assert_eq!(heard(&mut all, B), [prepare(20)]);
        let shown = all.show(TransferId::new(22)).expect("by any of its members");
        assert_eq!((shown.id, shown.chain.map(|in_hand| in_hand.chain.members.len())), (TransferId::new(20), Some(4)));
        assert_eq!(all.chain_of(TransferId::new(24)), None);
        let attempt = Attempt::of_chain(A);
        all.vote(B, &[VoteItem::yes(20, 3, attempt.get())], &state, at(3));
        let last = match refused {
            None => Vote::Yes(attempt),
            Some(why) => Vote::No(why),
        };
        all.vote(C, &[last.to_item(TransferId::new(20), at(3))], &state, at(3));
        assert_eq!(replicate(&mut all, &mut state, at(4)), 1);
        let decision = refused.map_or(Decision::Commit, |why| Decision::Abort(AbortReason::Refused(C, why)));
        let told = vec![Heard::Decision(20, decision)];
        let refuser = if refused.is_some() { vec![] } else { told.clone() };
        assert_eq!([A, B, C].map(|branch| heard(&mut all, branch)), [told.clone(), told, refuser]);
        // The log of another node says the same, with the member.
        let restored = State::decode(&state.encode()).expect("a snapshot comes back");
        assert_eq!(restored.decisions.get(TransferId::new(20)).map(|known| known.decision), Some(decision));
        // Who has refused was not told.
        let told = if refused.is_some() { &[A, B][..] } else { &[A, B, C] };
        for &branch in told {
            all.acknowledge(branch, &[MarkItem::new(20, 5)], &state, at(5));
        }
        assert_eq!((all.len(), all.chains.len(), all.chain_members), (0, 0, 0), "nothing is kept of it");
        assert_eq!(all.counters().contradictions, 0);
    }
}

#[test]
fn a_chain_takes_the_room_of_its_members_and_needs_all_its_branches() {
    let state = bank();
    let mut all = Coordinators::new(5, &state, at(1));
    [A, B, C].into_iter().for_each(|branch| all.connect(branch));
    let nobody = BranchId::new(9);
    all.begin_chain(A, &chain(20, A, &[B, nobody], 2), &state, at(2));
    all.begin_chain(A, &chain(30, A, &[B; 6], 2), &state, at(2));
    all.begin_chain(A, &chain(40, A, &[B; 4], 2), &state, at(2));
    all.begin_chain(A, &chain(50, A, &[B; 2], 2), &state, at(2));
    all.begin(A, &[cross(60, A, B, 2)], &state, at(2));
    assert_eq!(heard(&mut all, A), [20, 30, 50, 60].map(Heard::Busy));
    assert_eq!((all.len(), all.counters().begun), (1, 1));
    // Nobody begins for another.
    all.begin_chain(C, &chain(70, A, &[B], 2), &state, at(2));
    assert_eq!((all.len(), all.counters().contradictions), (1, 1));
}

#[test]
fn the_end_of_a_hold_is_passed_on_between_its_two_branches() {
    let state = bank();
    let mut all = Coordinators::new(10, &state, at(1));
    [A, B, C].into_iter().for_each(|branch| all.connect(branch));
    let item = EndItem {
        id: 7.into(),
        stamp: 5.into(),
        posted: 3.into(),
        source: A.get().into(),
        destination: B.get().into(),
        end: tally_protocol::link::end::SETTLED,
        reserved: [0; 11],
    };
    all.end(A, &[item]);
    all.heard(B, &[item]);
    assert_eq!([A, B, C].map(|branch| heard(&mut all, branch)), [vec![Heard::Known(7)], vec![Heard::End(7)], vec![]]);
    assert_eq!((all.len(), all.counters().ends, all.counters().contradictions), (0, 1, 0));
    // Nobody ends another's hold, nor hears for another.
    all.end(B, &[item]);
    all.heard(A, &[item]);
    all.end(C, &[item]);
    assert!([A, B, C].into_iter().all(|branch| heard(&mut all, branch).is_empty()));
    let strangers: Vec<_> = all.take_contradictions().into_iter().map(|(_, contradiction)| contradiction).collect();
    assert_eq!(strangers, [B, A, C].map(Contradiction::Stranger));
    // A branch without a link is told later, by the one that waits for it.
    all.disconnect(B);
    all.end(A, &[item]);
    all.connect(B);
    assert_eq!(heard(&mut all, B), []);
}

#[test]
fn a_transfer_from_begin_to_forgotten() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let mut all = Coordinators::new(10, &state, at(now));
    all.connect(A);
    all.connect(B);
    all.begin(A, &[cross(7, A, B, now)], &state, at(now));
    assert_eq!(heard(&mut all, B), [Heard::Prepare(7, Attempt::of_cross(&cross(7, A, B, now)))]);
    assert_eq!(heard(&mut all, A), [], "the source prepares by itself");
    all.vote(A, &[yes(7, now + 1)], &state, at(now));
    assert!(!all.has_proposals(at(now)));
    all.vote(B, &[yes(7, now + 2)], &state, at(now));
    assert!(all.has_proposals(at(now)));
    assert_eq!(heard(&mut all, A), [], "nobody hears before the log has it");
    assert_eq!(replicate(&mut all, &mut state, at(now)), 1);
    for branch in [A, B] {
        assert_eq!(heard(&mut all, branch), [Heard::Decision(7, Decision::Commit)]);
    }
    let shown = all.show(TransferId::new(7)).expect("not over");
    assert_eq!(shown.voted_at, [Some(at(now + 1)), Some(at(now + 2))]);
    all.acknowledge(A, &[MarkItem::new(7, now)], &state, at(now));
    assert_eq!(all.len(), 1);
    all.acknowledge(B, &[MarkItem::new(7, now)], &state, at(now));
    assert!(all.is_empty() && !all.has_proposals(at(now)), "acknowledgements are in no hurry");
    assert_eq!(replicate(&mut all, &mut state, at(now)), 0);
    let later = at(now + ACKNOWLEDGE_PAUSE_NANOS);
    assert!(all.has_proposals(later));
    assert_eq!(replicate(&mut all, &mut state, later), 1);
    assert_eq!((state.decisions.open_count(), state.decisions.done_count()), (0, 1));
    // Late copies are answered from the state, and leave nothing behind.
    all.vote(B, &[yes(7, now)], &state, later);
    all.ask(A, &[MarkItem::new(7, now)], &state, later);
    all.begin(A, &[cross(7, A, B, now)], &state, later);
    assert_eq!(heard(&mut all, B), [Heard::Decision(7, Decision::Commit)]);
    assert_eq!(heard(&mut all, A), [Heard::Decision(7, Decision::Commit); 2]);
    assert!(all.is_empty() && !all.has_proposals(later));
    let counters = Counters { begun: 1, committed: 1, done: 1, ..Counters::default() };
    assert_eq!(all.counters(), counters);
}

fn sealed(id: u128, account_id: AccountId, source: BranchId, destination: BranchId, now: u64) -> AccountMove {
    let account = MoveItem {
        id: id.into(),
        account_id: account_id.get().into(),
        stamp: now.into(),
        deadline: (now + 5_000 * MS).into(),
        currency: Currency::EUR.get().into(),
        kind: 1,
        moves: 1,
        source: source.get().into(),
        destination: destination.get().into(),
        former: [source.get().into(), 0.into(), 0.into()],
        ..MoveItem::new_zeroed()
    };
    let hold = MoveHold { id: (id << 32).into(), other_account_id: 9.into(), side: 1, ..MoveHold::new_zeroed() };
    AccountMove::new(account, vec![hold])
}

#[test]
fn a_move_changes_the_place_with_its_commit_and_only_then() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let account = AccountId::of_branch(A, 5);
    let mut all = Coordinators::new(10, &state, at(now));
    let order = |id: u128| MoveOrder {
        id: id.into(),
        account_id: account.get().into(),
        destination: B.get().into(),
        ..MoveOrder::new_zeroed()
    };
    assert!(!all.order_move(A, order(7)), "it is not linked");
    [A, B].into_iter().for_each(|branch| all.connect(branch));
    assert!(all.order_move(A, order(7)));
    assert_eq!(heard(&mut all, A), [Heard::Other(LinkType::LinkMoveOrder, 7)]);
    assert_eq!(all.ordered(TransferId::new(7)), Some(Ordered::Waiting));
    all.refuse_moves(&[VoteItem::no(7, now, Refusal::AccountHasHolds.code())]);
    assert_eq!(all.ordered(TransferId::new(7)), Some(Ordered::Refused(Refusal::AccountHasHolds.code())));
    all.forget_order(TransferId::new(7));
    assert_eq!(all.ordered(TransferId::new(7)), None);

    assert!(all.order_move(A, order(8)));
    all.begin_move(A, sealed(8, account, A, B, now).body(), &state, at(now));
    assert_eq!(all.ordered(TransferId::new(8)), Some(Ordered::Begun));
    assert_eq!(heard(&mut all, B), [Heard::Other(LinkType::LinkMovePrepare, 8)]);
    // A link that comes back is told again.
    all.connect(B);
    assert_eq!(heard(&mut all, B), [Heard::Other(LinkType::LinkMovePrepare, 8)]);
    all.vote(B, &[VoteItem::yes(8, now, 0)], &state, at(now));
    assert_eq!(state.directory.branch_of(account), A);
    assert_eq!(replicate(&mut all, &mut state, at(now)), 1);
    assert_eq!(state.directory.branch_of(account), B);
    assert_eq!(heard(&mut all, B), [Heard::Decision(8, Decision::Commit)]);
    // Nobody may move it from where it is not, or to where nobody is, or for somebody else.
    for (from, item) in [
        (A, sealed(9, account, A, B, now)),
        (B, sealed(10, account, B, BranchId::new(9), now)),
        (B, sealed(11, account, A, C, now)),
    ] {
        heard(&mut all, from);
        all.begin_move(from, item.body(), &state, at(now));
        let told = heard(&mut all, from);
        let is_stranger = item.account.source.get() != from.get();
        assert_eq!(told, if is_stranger { vec![] } else { vec![Heard::Busy(item.account.id.get())] });
    }
    assert_eq!(all.take_contradictions().len(), 1);
    // What is refused stays where it is.
    all.begin_move(B, sealed(12, account, B, C, now).body(), &state, at(now));
    all.vote(C, &[VoteItem::no(12, now, Refusal::CapacityReached.code())], &state, at(now));
    replicate(&mut all, &mut state, at(now));
    assert_eq!(state.directory.branch_of(account), B);
}

#[test]
fn questions_about_ids_are_passed_on_or_answered_that_nobody_is_there() {
    let (state, now) = (bank(), at(1_000 * MS));
    let mut all = Coordinators::new(10, &state, now);
    [A, B].into_iter().for_each(|branch| all.connect(branch));
    let question = IdItem::question(5, 1, B, A);
    all.ask_ids(B, &[question]);
    assert_eq!(heard(&mut all, A), [Heard::Other(LinkType::LinkIdAsk, 5)]);
    all.tell_ids(A, &[question.answered(id_answer::KNOWN)]);
    assert_eq!(heard(&mut all, B), [Heard::Other(LinkType::LinkIdTold, 5 << 8 | 2)]);
    // For another, or by another.
    all.ask_ids(A, &[question]);
    all.tell_ids(B, &[question.answered(id_answer::UNKNOWN)]);
    assert_eq!((heard(&mut all, A), heard(&mut all, B)), (vec![], vec![]));
    all.disconnect(A);
    all.ask_ids(B, &[question]);
    assert_eq!(heard(&mut all, B), [Heard::Other(LinkType::LinkIdTold, 5 << 8 | 3)]);
}

#[test]
fn only_what_both_branches_hold_is_committed() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let presumed = Decision::Abort(AbortReason::Presumed);
    let vote = |of: &CrossTransfer| VoteItem::yes(of.transfer.id.get(), now, Attempt::of_cross(of).get());
    let mut all = Coordinators::new(10, &state, at(now));
    let mut decided = |first: CrossTransfer, say: &dyn Fn(&mut Coordinators, &State)| {
        [A, B].into_iter().for_each(|branch| all.connect(branch));
        all.begin(A, &[first], &state, at(now));
        all.vote(B, &[vote(&first)], &state, at(now));
        say(&mut all, &state);
        replicate(&mut all, &mut state, at(now));
        [A, B].map(|branch| {
            heard(&mut all, branch).into_iter().find_map(|heard| match heard {
                Heard::Decision(id, decision) if id == first.transfer.id.get() => Some(decision),
                _ => None,
            })
        })
    };
    let of = |amount, id| cross_of(amount, id, A, B, now);
    // The source votes for what it began.
    let told = decided(of(5, 1), &|all, state| all.vote(A, &[vote(&of(5, 1))], state, at(now)));
    assert_eq!(told, [Some(Decision::Commit); 2]);
    // It has forgotten that, and was asked for the same once more.
    let told = decided(of(5, 2), &|all, state| {
        all.begin(A, &[cross_of(5, 2, A, B, now + 9)], state, at(now));
        all.vote(A, &[vote(&of(5, 2))], state, at(now));
    });
    assert_eq!(told, [Some(Decision::Commit); 2]);
    // For something else.
    let told = decided(of(5, 3), &|all, state| all.begin(A, &[of(6, 3)], state, at(now)));
    assert_eq!(told, [Some(presumed); 2]);
    // And the second begin was lost.
    let told = decided(of(5, 4), &|all, state| all.vote(A, &[vote(&of(6, 4))], state, at(now)));
    assert_eq!(told, [Some(presumed); 2]);
    let question = MarkItem::question(5, now, Attempt::of_cross(&of(6, 5)).get());
    let told = decided(of(5, 5), &|all, state| all.ask(A, &[question], state, at(now)));
    assert_eq!(told, [Some(presumed); 2]);
    // Its own vote is missing: it is not asked to prepare.
    let told = decided(of(5, 6), &|all, state| all.tick(state, at(now + 3_000 * MS)));
    assert_eq!(told, [None; 2]);
}

#[test]
fn what_nobody_knows_is_decided_by_the_log_before_it_is_answered() {
    let (mut state, now) = (bank(), at(1_000 * MS));
    let mut all = Coordinators::new(10, &state, now);
    all.connect(A);
    all.ask(A, &[MarkItem::new(5, 1)], &state, now);
    assert_eq!(heard(&mut all, A), []);
    replicate(&mut all, &mut state, now);
    assert_eq!(heard(&mut all, A), [Heard::Decision(5, Decision::Abort(AbortReason::Presumed))]);
    // A former leader's commit comes first: then that is the answer.
    state.apply(&Command::Decide {
        id: TransferId::new(6),
        decision: Decision::Commit,
        participants: Participants::of([A, B]).expect("two"),
        stamp: now,
    });
    all.ask(A, &[MarkItem::new(6, 1)], &state, now);
    assert_eq!(heard(&mut all, A), [Heard::Decision(6, Decision::Commit)]);
}

#[test]
fn a_full_table_and_a_destination_that_is_away_are_answered_at_once() {
    let (mut state, now) = (bank(), 1_000 * MS);
    let mut all = Coordinators::new(2, &state, at(now));
    all.connect(A);
    let begin = |all: &mut Coordinators, state: &State, id, to| all.begin(A, &[cross(id, A, to, now)], state, at(now));
    begin(&mut all, &state, 1, BranchId::new(77));
    assert_eq!(heard(&mut all, A), [Heard::Busy(1)]);
    for (status, id, is_there) in [
        (BranchStatus::Down, 2, false),
        (BranchStatus::Draining, 7, false),
        (BranchStatus::Suspect, 3, true),
        (BranchStatus::Left, 4, false),
    ] {
        state.apply(&Command::BranchStatus { id: B, status, stamp: at(now) });
        begin(&mut all, &state, id, B);
        let expected: &[Heard] = if is_there { &[] } else { &[Heard::Busy(id)] };
        assert_eq!(heard(&mut all, A), expected, "{status:?}");
    }
    begin(&mut all, &state, 5, C);
    begin(&mut all, &state, 6, C);
    assert_eq!(heard(&mut all, A), [Heard::Busy(6)]);
    begin(&mut all, &state, 5, C);
    assert_eq!(heard(&mut all, A), [], "a repeat is no second one");
    all.begin(C, &[cross(9, A, B, now)], &state, at(now));
    assert_eq!(all.counters().contradictions, 1, "only the source begins");
    assert_eq!(all.take_contradictions(), [(TransferId::new(9), Contradiction::Stranger(C))]);
}

#[test]
fn a_rush_of_decisions_leaves_room_for_acknowledgements() {
    let (mut state, now) = (bank(), at(1_000 * MS));
    let mut all = Coordinators::new(100_000, &state, now);
    let begin = |all: &mut Coordinators, state: &State, ids: std::ops::Range<u128>| {
        for id in ids {
            all.begin(A, &[cross(id, A, B, 1_000 * MS)], state, now);
            all.vote(A, &[yes(id, 1)], state, now);
            all.vote(B, &[yes(id, 1)], state, now);
        }
    };
    begin(&mut all, &state, 1..20_000);
    while all.has_proposals(now) {
        replicate(&mut all, &mut state, now);
    }
    let marks: Vec<_> = (1..20_000).map(|id| MarkItem::new(id, 1)).collect();
    all.acknowledge(A, &marks, &state, now);
    all.acknowledge(B, &marks, &state, now);
    begin(&mut all, &state, 20_000..30_000);
    let (open, waiting) = (state.decisions.open_count(), all.acknowledged.len());
    let count = replicate(&mut all, &mut state, now) as usize;
    let acknowledged = waiting - all.acknowledged.len();
    assert!(acknowledged >= count / 3 && acknowledged <= count * 2 / 3, "{acknowledged} of {count}");
    assert_eq!(state.decisions.open_count(), open + count - 2 * acknowledged);
    all.set_closed(true);
    all.connect(A);
    all.begin(A, &[cross(77_777, A, B, 1_000 * MS)], &state, now);
    assert_eq!(heard(&mut all, A).last(), Some(&Heard::Busy(77_777)), "nothing new while it is closed");
}

#[test]
fn silence_is_broken_and_ends_at_the_deadline() {
    let (mut state, begun) = (bank(), 1_000 * MS);
    let mut all = Coordinators::new(10, &state, at(begun));
    all.connect(A);
    all.connect(B);
    all.begin(A, &[cross(7, A, B, begun)], &state, at(begun));
    all.vote(A, &[yes(7, begun)], &state, at(begun));
    let mut prepares = 0;
    for now in (begun..begun + 4_900 * MS).step_by(50 * MS as usize) {
        all.tick(&state, at(now));
        prepares += heard(&mut all, B).len();
        assert_eq!(heard(&mut all, A), [], "who has voted is not asked again");
        assert!(!all.has_proposals(at(now)));
    }
    assert!((3..=5).contains(&prepares), "{prepares}");
    let late = at(begun + 5_100 * MS);
    all.tick(&state, late);
    assert!(all.has_proposals(late));
    replicate(&mut all, &mut state, late);
    let timed_out = Decision::Abort(AbortReason::TimedOut(B));
    assert_eq!(heard(&mut all, A), [Heard::Decision(7, timed_out)]);
    assert_eq!(heard(&mut all, B), [Heard::Decision(7, timed_out)]);
    all.disconnect(B);
    all.tick(&state, at(begun + 9_000 * MS));
    all.connect(B);
    assert_eq!(heard(&mut all, B), [Heard::Decision(7, timed_out)], "a new link begins with what is owed");
}

#[test]
fn an_operator_ends_what_waits_and_not_what_is_committed() {
    let (mut state, now) = (bank(), at(1_000 * MS));
    let mut all = Coordinators::new(10, &state, now);
    all.begin(A, &[cross(7, A, B, 1_000 * MS)], &state, now);
    let both = Participants::of([A, B]).expect("two");
    assert_eq!(all.resolve(TransferId::new(7), &state, now), Ok(Some(both)));
    assert_eq!(all.resolve(TransferId::new(7), &state, now), Ok(None), "under way");
    assert_eq!(all.resolve(TransferId::new(8), &state, now), Ok(Some(Participants::default())), "never heard of");
    let (id, decision) = (TransferId::new(9), Decision::Commit);
    state.apply(&Command::Decide { id, decision, participants: both, stamp: now });
    let other = Decision::Abort(AbortReason::Resolved);
    assert_eq!(all.resolve(id, &state, now), Err(Contradiction::OtherDecision { known: Decision::Commit, other }));
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What a branch sends.
#[derive(Clone, Copy, Debug)]
enum Said {
    Begin(CrossTransfer),
    Vote(u128, Vote),
    Acknowledge(u128),
    Ask(u128, Attempt),
}

/// Three branches, one registry, and what is under way between them.
struct World {
    random: Random,
    now: u64,
    state: State,
    leader: Option<Coordinators>,
    /// Proposed and not applied.
    log: Vec<Vec<u8>>,
    participants: BTreeMap<(BranchId, u128), Participant>,
    /// What each branch has prepared under an id.
    held: BTreeMap<(BranchId, u128), Attempt>,
    to_registry: Vec<(BranchId, Said)>,
    to_branches: Vec<(BranchId, Heard)>,
    healed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            now: 1_000 * MS,
            state: bank(),
            leader: None,
            log: Vec::new(),
            participants: BTreeMap::new(),
            held: BTreeMap::new(),
            to_registry: Vec::new(),
            to_branches: Vec::new(),
            healed: false,
        }
    }

    fn elect(&mut self) {
        // What a former leader has proposed is in the log, or is not; a barrier settles which before anybody serves.
        for bytes in std::mem::take(&mut self.log) {
            if self.random.one_in(2) {
                apply(&bytes, None, &mut self.state, at(self.now));
            }
        }
        let mut leader = Coordinators::new(20, &self.state, at(self.now));
        [A, B, C].into_iter().for_each(|branch| leader.connect(branch));
        self.leader = Some(leader);
    }

    fn say(&mut self, from: BranchId, said: Said) {
        if !self.healed && self.random.one_in(4) {
            return;
        }
        self.to_registry.push((from, said));
        if !self.healed && self.random.one_in(6) {
            self.to_registry.push((from, said));
        }
    }

    fn participant(&mut self, branch: BranchId, id: u128, event: ParticipantEvent) {
        let machine = self.participants.get(&(branch, id)).copied().unwrap_or_default();
        let mut effects = Vec::new();
        let next = machine
            .handle(branch, event, &mut effects)
            .unwrap_or_else(|contradiction| panic!("branch {branch}, transfer {id}: {contradiction}"));
        self.participants.insert((branch, id), next);
        for effect in effects {
            match effect {
                ParticipantEffect::Vote(vote) => self.say(branch, Said::Vote(id, vote)),
                ParticipantEffect::Acknowledge => self.say(branch, Said::Acknowledge(id)),
                ParticipantEffect::Ask(attempt) => self.say(branch, Said::Ask(id, attempt)),
                ParticipantEffect::Hold
                | ParticipantEffect::Refuse(_)
                | ParticipantEffect::Settle
                | ParticipantEffect::Void
                | ParticipantEffect::Keep
                | ParticipantEffect::End(_)
                | ParticipantEffect::Heard => {}
            }
        }
    }

    /// What a branch's rules would say; the same whenever it is asked.
    fn ruling(branch: BranchId, id: u128) -> Result<(), Objection> {
        match TransferId::new(id).hash64(u64::from(branch.get())) % 8 {
            0 => Err(Refusal::InsufficientFunds.into()),
            _ => Ok(()),
        }
    }

    fn prepare(&mut self, branch: BranchId, id: u128, attempt: Attempt) {
        if matches!(self.participants.get(&(branch, id)), None | Some(Participant::Absent)) {
            self.held.insert((branch, id), attempt);
        }
        let event = ParticipantEvent::Prepare { ruling: Self::ruling(branch, id), now: at(self.now), attempt };
        self.participant(branch, id, event);
    }

    fn begin(&mut self, id: u128) {
        let branches = [A, B, C];
        let source = branches[self.random.below(3) as usize];
        let destination = branches[(usize::from(source.get()) + self.random.below(2) as usize) % 3];
        if self.random.one_in(4) {
            // It forgets that in a crash, and is asked again: for the same, or for something else.
            self.say(source, Said::Begin(cross_of(1, id, source, destination, self.now)));
            (0..self.random.below(30)).for_each(|_| self.step());
        }
        let begun = cross_of(1 + self.random.below(2), id, source, destination, self.now);
        self.prepare(source, id, Attempt::of_cross(&begun));
        // What it refuses does not leave it.
        if matches!(self.participants.get(&(source, id)), Some(Participant::Prepared { .. })) {
            self.say(source, Said::Begin(begun));
        }
    }

    fn step(&mut self) {
        self.now += self.random.below(20) * MS;
        if !self.healed && self.random.one_in(200) {
            self.leader = None;
        }
        if self.leader.is_none() && (self.healed || self.random.one_in(20)) {
            self.elect();
        }
        if !self.to_registry.is_empty() {
            let at_index = self.random.below(self.to_registry.len() as u64) as usize;
            let (from, said) = self.to_registry.swap_remove(at_index);
            self.tell_registry(from, said);
        }
        if !self.to_branches.is_empty() {
            let at_index = self.random.below(self.to_branches.len() as u64) as usize;
            let (to, told) = self.to_branches.swap_remove(at_index);
            self.tell_branch(to, told);
        }
        let waiting: Vec<_> = self.participants.keys().copied().collect();
        for (branch, id) in waiting {
            self.participant(branch, id, ParticipantEvent::Tick(at(self.now)));
        }
        self.run_registry();
    }

    fn tell_registry(&mut self, from: BranchId, said: Said) {
        let Some(leader) = &mut self.leader else { return };
        let (state, now) = (&self.state, at(self.now));
        match said {
            Said::Begin(transfer) => leader.begin(from, &[transfer], state, now),
            Said::Vote(id, vote) => leader.vote(from, &[vote.to_item(TransferId::new(id), now)], state, now),
            Said::Acknowledge(id) => leader.acknowledge(from, &[MarkItem::new(id, 1)], state, now),
            Said::Ask(id, attempt) => leader.ask(from, &[MarkItem::question(id, 1, attempt.get())], state, now),
        }
    }

    fn tell_branch(&mut self, to: BranchId, told: Heard) {
        match told {
            Heard::Prepare(id, attempt) => self.prepare(to, id, attempt),
            // Every other one is a hold.
            Heard::Decision(id, Decision::Commit) if id % 50 == 1 => self.participant(to, id, ParticipantEvent::Kept),
            Heard::Decision(id, decision) => self.participant(to, id, ParticipantEvent::Told(decision)),
            Heard::Busy(_) => {}
            Heard::End(_) | Heard::Known(_) => panic!("nobody ends holds here"),
            Heard::Other(..) => unreachable!("nobody moves an account here"),
        }
    }

    fn run_registry(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let now = at(self.now);
        leader.tick(&self.state, now);
        let mut builder = BatchBuilder::default();
        leader.fill(&mut builder, now);
        if !builder.is_empty() {
            self.log.push(builder.take(1, 1, 1).to_vec());
        }
        if !self.log.is_empty() && (self.healed || self.random.one_in(3)) {
            let bytes = self.log.remove(0);
            apply(&bytes, Some(leader), &mut self.state, now);
        }
        assert_eq!(leader.take_contradictions(), []);
        assert!(leader.decisions.len() <= 40);
        for branch in [A, B, C] {
            for told in heard(leader, branch) {
                if !self.healed && self.random.one_in(4) {
                    continue;
                }
                self.to_branches.push((branch, told));
                if !self.healed && self.random.one_in(6) {
                    self.to_branches.push((branch, told));
                }
            }
        }
    }

    /// All that took part agree, with each other and with the log.
    fn check_agreement(&self) {
        for (&(branch, id), machine) in &self.participants {
            let known = self.state.decisions.get(TransferId::new(id)).map(|known| known.decision);
            match (machine, known) {
                (Participant::Settled | Participant::Held, known) => {
                    assert_eq!(known, Some(Decision::Commit), "{branch}: {id}")
                }
                (Participant::Voided, known) => {
                    assert!(matches!(known, Some(Decision::Abort(_))), "{branch}: {id}: {known:?}");
                }
                (Participant::Refused(_), known) => assert_ne!(known, Some(Decision::Commit), "{branch}: {id}"),
                (Participant::Ended(_), _) => panic!("nobody ends it here"),
                (Participant::Prepared { .. } | Participant::Absent, _) => {}
            }
            let is_committed = matches!(machine, Participant::Settled | Participant::Held);
            let held = [A, B, C].map(|branch| self.held.get(&(branch, id)));
            let is_alike = held.iter().flatten().all(|attempt| Some(*attempt) == self.held.get(&(branch, id)));
            assert!(is_alike || !is_committed, "{branch} has committed {id}, and both hold something else: {held:?}");
        }
    }

    fn is_over(&self) -> bool {
        let is_over = |machine: &Participant| !matches!(machine, Participant::Prepared { .. });
        self.participants.values().all(is_over)
            && self.leader.as_ref().is_some_and(|leader| leader.is_empty() && leader.acknowledged.is_empty())
            && self.state.decisions.open_count() == 0
    }
}

#[test]
fn all_agree_whatever_is_lost_and_all_ends_once_it_heals() {
    let (mut committed, mut kept, mut aborted) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        for step in 0..1_500u64 {
            if step % 25 == 0 {
                world.begin(u128::from(step) + 1);
            }
            world.step();
        }
        world.check_agreement();
        world.healed = true;
        let mut steps = 0;
        while !world.is_over() {
            steps += 1;
            assert!(steps < 60_000, "seed {seed}: it does not end: {:?}", world.leader.map(|leader| leader.census()));
            world.step();
        }
        world.check_agreement();
        let count = |settled| world.participants.values().filter(|&&machine| machine == settled).count();
        committed += count(Participant::Settled);
        kept += count(Participant::Held);
        aborted += count(Participant::Voided);
    }
    assert!(committed > 500 && kept > 500 && aborted > 500, "{committed} settled, {kept} held, {aborted} voided");
}
