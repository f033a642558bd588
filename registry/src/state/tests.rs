use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tally_ledger::two_phase::{AbortReason, Decision, Objection, Participants};
use tally_protocol::link::BranchStatus;
use tally_protocol::{AccountId, BranchId, Refusal, Timestamp, TransferId};

use super::*;
use crate::bytes::{ReadError, Reader};

const A: BranchId = BranchId::new(1);
const B: BranchId = BranchId::new(2);

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn id(raw: u128) -> TransferId {
    TransferId::new(raw)
}

fn both() -> Participants {
    Participants::of([A, B]).expect("two")
}

fn founded(remembered_max: u64) -> State {
    let mut state = State::default();
    assert_eq!(state.apply(&Command::Found { cluster_id: 7, remembered_max, stamp: at(1) }), Outcome::Done);
    state
}

fn decide(raw: u128, decision: Decision, participants: Participants) -> Command<'static> {
    Command::Decide { id: id(raw), decision, participants, stamp: at(5) }
}

fn acknowledged(raw: u128, branches: Participants) -> Command<'static> {
    Command::Acknowledged { id: id(raw), branches, stamp: at(6) }
}

fn branch(raw: u16, incarnation: u128, endpoint: &str) -> Command<'_> {
    Command::Branch { id: BranchId::new(raw), incarnation, endpoint, stamp: at(2) }
}

fn status(raw: u16, status: BranchStatus) -> Command<'static> {
    Command::BranchStatus { id: BranchId::new(raw), status, stamp: at(3) }
}

#[test]
fn the_first_decision_stands() {
    let mut state = founded(10);
    let commit = Known::new(Decision::Commit, both(), at(5));
    assert_eq!(state.apply(&decide(9, Decision::Commit, both())), Outcome::Decided(commit));
    let presumed = decide(9, Decision::Abort(AbortReason::Presumed), Participants::one(A));
    assert_eq!(state.apply(&presumed), Outcome::Decided(commit));
    state.apply(&acknowledged(9, Participants::one(B)));
    let half = Known { unacknowledged: Participants::one(A), ..commit };
    assert_eq!(state.apply(&presumed), Outcome::Decided(half));
    assert_eq!((state.decisions.open_count(), state.decisions.done_count()), (1, 0));
    state.apply(&acknowledged(9, both()));
    assert_eq!((state.decisions.open_count(), state.decisions.done_count()), (0, 1));
    let done = Known { unacknowledged: Participants::default(), ..commit };
    assert_eq!(state.apply(&presumed), Outcome::Decided(done), "also when all have acknowledged");
    state.apply(&acknowledged(9, both()));
    state.apply(&acknowledged(404, both()));
    assert_eq!(state.decisions.get(id(404)), None);
    assert_eq!(state.stamp, at(6));
}

#[test]
fn only_an_acknowledged_decision_is_forgotten_and_the_oldest_first() {
    let mut state = founded(64);
    // As many per shard as it remembers, and some more: one of each shard's oldest must go.
    let ids: Vec<u128> = (1..=6_400).collect();
    for &raw in &ids {
        state.apply(&decide(raw, Decision::Commit, both()));
    }
    assert_eq!((state.decisions.open_count(), state.decisions.done_count()), (6_400, 0));
    for &raw in &ids[..6_000] {
        state.apply(&acknowledged(raw, both()));
    }
    assert_eq!((state.decisions.open_count(), state.decisions.done_count()), (400, 64));
    assert!(ids[6_000..].iter().all(|&raw| state.decisions.get(id(raw)).is_some()));
    assert_eq!(state.decisions.get(id(1)), None);
    assert!(state.decisions.get(id(6_000)).is_some(), "the newest is remembered");
}

#[test]
fn a_frozen_view_does_not_change() {
    let mut state = founded(1_000);
    (1..=500u128).for_each(|raw| assert_ne!(state.apply(&decide(raw, Decision::Commit, both())), Outcome::Done));
    let (frozen, bytes) = (state.clone(), state.encode());
    (1..=700u128).for_each(|raw| assert_ne!(state.apply(&decide(raw, Decision::Commit, both())), Outcome::Done));
    (1..=300u128).for_each(|raw| assert_eq!(state.apply(&acknowledged(raw, both())), Outcome::Done));
    assert_eq!(frozen.encode(), bytes);
    assert_ne!(state.encode(), bytes);
}

#[test]
fn an_operator_ends_what_is_open_and_cannot_undo_a_commit() {
    let mut state = founded(10);
    let resolve =
        |raw| Command::Resolve { id: id(raw), participants: both(), stamp: at(8), operator: "ana", reason: "stuck" };
    let resolved = Known::new(Decision::Abort(AbortReason::Resolved), both(), at(8));
    assert_eq!(state.apply(&resolve(1)), Outcome::Decided(resolved));
    state.apply(&decide(2, Decision::Commit, both()));
    assert_eq!(state.apply(&resolve(2)), Outcome::Refused(Refused::DecidedBefore));
    let late = Decision::Abort(AbortReason::TimedOut(B));
    state.apply(&decide(3, late, both()));
    assert_eq!(state.apply(&resolve(3)), Outcome::Decided(Known::new(late, both(), at(5))));
    let done: Vec<_> = state.directory.audit.iter().map(|entry| (entry.transfer_id.get(), entry.is_done)).collect();
    assert_eq!(done, [(1, true), (2, false), (3, true)], "each attempt is noted");
    assert_eq!(state.directory.audit[0].operator, "ana");
}

#[test]
fn numbers_of_nodes_and_branches_never_come_back() {
    let mut state = founded(10);
    let add = |id, incarnation| Command::AddNode { id, incarnation, endpoint: "a:1", stamp: at(2) };
    let remove = |id| Command::RemoveNode { id, stamp: at(3) };
    for (command, outcome) in [
        (Command::Found { cluster_id: 8, remembered_max: 1, stamp: at(2) }, Outcome::Refused(Refused::FoundedBefore)),
        (add(1, 11), Outcome::Done),
        (add(1, 11), Outcome::Done),
        (add(1, 12), Outcome::Refused(Refused::NodeUsed)),
        (remove(2), Outcome::Refused(Refused::NodeUnknown)),
        (remove(1), Outcome::Done),
        (add(1, 11), Outcome::Refused(Refused::NodeUsed)),
        (status(1, BranchStatus::Down), Outcome::Refused(Refused::BranchUnknown)),
        (branch(1, 21, "b:1"), Outcome::Done),
        (branch(1, 22, "b:1"), Outcome::Refused(Refused::BranchUsed)),
        (status(1, BranchStatus::Left), Outcome::Done),
        (status(1, BranchStatus::Serving), Outcome::Refused(Refused::BranchLeft)),
        (branch(1, 21, "b:1"), Outcome::Refused(Refused::BranchLeft)),
    ] {
        assert_eq!(state.apply(&command), outcome, "{command:?}");
    }
}

#[test]
fn routes_have_a_new_version_exactly_when_they_change() {
    let mut state = founded(10);
    let mut version = 0;
    let account = AccountId::of_branch(A, 5);
    let move_to = |id, branch_id| Command::MoveAccount {
        id: TransferId::new(id),
        account_id: account,
        branch_id,
        participants: both(),
        stamp: at(4),
    };
    for (command, changes) in [
        (branch(1, 21, "b:1"), true),
        (branch(1, 21, "b:1"), false),
        (branch(1, 21, "b:2"), true),
        (status(1, BranchStatus::Suspect), true),
        (status(1, BranchStatus::Suspect), false),
        (branch(2, 22, "c:1"), true),
        (move_to(71, B), true),
        (move_to(71, B), false),
        (move_to(72, A), true),
        (move_to(72, B), false),
        (decide(1, Decision::Commit, both()), false),
    ] {
        state.apply(&command);
        version += u64::from(changes);
        assert_eq!(state.directory.routes_version, version, "{command:?}");
    }
    assert_eq!(state.directory.branch_of(account), A);
    assert_eq!(state.directory.branch_of(account), A);
    let moved: Vec<_> = state.directory.moved_since(0).collect();
    assert_eq!(moved.len(), 1, "branches that were told of the first move are told of the second");
    assert_eq!(state.directory.moved_since(moved[0].1.version).count(), 0);
    // An aborted move changes no place.
    state.apply(&decide(73, Decision::Abort(AbortReason::Presumed), both()));
    let outcome = state.apply(&move_to(73, B));
    assert!(matches!(outcome, Outcome::Decided(Known { decision: Decision::Abort(AbortReason::Presumed), .. })));
    assert_eq!(state.directory.branch_of(account), A);
}

#[test]
fn an_operators_drain_stands_whatever_the_branch_says() {
    let mut state = founded(10);
    let drain = |is_drained| Command::Drain { id: A, is_drained, stamp: at(9) };
    let seen = |state: &State| (state.directory.branches[&A].status, state.directory.branches[&A].is_drained);
    assert_eq!(state.apply(&drain(true)), Outcome::Refused(Refused::BranchUnknown));
    state.apply(&branch(1, 21, "b:1"));
    assert_eq!(state.apply(&drain(true)), Outcome::Done);
    assert_eq!(seen(&state), (BranchStatus::Draining, true));
    state.apply(&status(1, BranchStatus::Suspect));
    assert_eq!(seen(&state), (BranchStatus::Suspect, true));
    assert_eq!(state.apply(&drain(false)), Outcome::Done);
    assert_eq!(seen(&state), (BranchStatus::Suspect, false));
    state.apply(&status(1, BranchStatus::Draining));
    assert_eq!(state.apply(&drain(false)), Outcome::Done);
    assert_eq!(seen(&state), (BranchStatus::Serving, false));
    state.apply(&status(1, BranchStatus::Left));
    assert_eq!(state.apply(&drain(true)), Outcome::Refused(Refused::BranchLeft));
}

#[test]
fn a_service_has_one_key_and_only_its_hash_is_known() {
    let mut state = founded(10);
    let add = |byte| Command::AddKey { name: "gateway", hash: [byte; 32], scopes: Scope::Routes as u32, stamp: at(3) };
    let remove = Command::RemoveKey { name: "gateway", stamp: at(4) };
    assert_eq!(state.apply(&remove), Outcome::Refused(Refused::KeyUnknown));
    assert_eq!(state.apply(&add(1)), Outcome::Done);
    assert_eq!(state.apply(&add(2)), Outcome::Refused(Refused::KeyExists));
    let entry = KeyEntry { hash: [1; 32], scopes: Scope::Routes as u32, since: at(3) };
    assert_eq!(state.keys.find(&[1; 32]), Some(("gateway", &entry)));
    assert_eq!(state.keys.find(&[2; 32]), None);
    assert_eq!(state.apply(&remove), Outcome::Done);
    assert_eq!(state.keys.find(&[1; 32]), None);
    for &scope in Scope::ALL {
        assert_eq!((Scope::of_name(scope.name()), Scope::names(scope as u32)), (Some(scope), vec![scope.name()]));
    }
}

#[test]
fn no_more_branches_than_one_frame_of_routes_holds() {
    let mut state = founded(10);
    for raw in 1..=BRANCHES_MAX as u16 {
        assert_eq!(state.apply(&branch(raw, 1, "b:1")), Outcome::Done);
    }
    assert_eq!(state.apply(&branch(u16::MAX, 1, "b:1")), Outcome::Refused(Refused::BranchesFull));
}

fn any_participants() -> impl Strategy<Value = Participants> {
    vec(1u16..12, 0..8).prop_map(|raw| Participants::of(raw.into_iter().map(BranchId::new)).expect("at most 8"))
}

fn any_decision() -> impl Strategy<Value = Decision> {
    prop_oneof![
        Just(Decision::Commit),
        (1u16.., proptest::sample::select(Refusal::ALL), any::<u8>()).prop_map(|(raw, refusal, member)| {
            Decision::Abort(AbortReason::Refused(BranchId::new(raw), Objection { refusal, member }))
        }),
        (1u16..).prop_map(|raw| Decision::Abort(AbortReason::TimedOut(BranchId::new(raw)))),
        Just(Decision::Abort(AbortReason::Presumed)),
        Just(Decision::Abort(AbortReason::Resolved)),
    ]
}

fn any_command() -> impl Strategy<Value = Command<'static>> {
    let texts = || proptest::sample::select(vec!["", "a:1", "registry-2.example:7100", "ümläut"]);
    let few = || (1u128..20).prop_map(id);
    let branch_id = || (1u16..6).prop_map(BranchId::new);
    let stamp = || any::<u32>().prop_map(|nanos| at(u64::from(nanos)));
    prop_oneof![
        8 => (few(), any_decision(), any_participants(), stamp())
            .prop_map(|(id, decision, participants, stamp)| Command::Decide { id, decision, participants, stamp }),
        8 => (few(), any_participants(), stamp())
            .prop_map(|(id, branches, stamp)| Command::Acknowledged { id, branches, stamp }),
        1 => (few(), any_participants(), stamp(), texts(), texts()).prop_map(|(id, participants, stamp, operator, reason)|
            Command::Resolve { id, participants, stamp, operator, reason }),
        1 => (1u128..3, 0u64..9, stamp())
            .prop_map(|(cluster_id, remembered_max, stamp)| Command::Found { cluster_id, remembered_max, stamp }),
        1 => (any::<u64>(), any::<u64>(), stamp()).prop_map(|(node_id, boot, stamp)| Command::Lead { node_id, boot, stamp }),
        1 => (1u64..4, 1u128..3, texts(), stamp())
            .prop_map(|(id, incarnation, endpoint, stamp)| Command::AddNode { id, incarnation, endpoint, stamp }),
        1 => (1u64..4, stamp()).prop_map(|(id, stamp)| Command::RemoveNode { id, stamp }),
        2 => (branch_id(), 1u128..3, texts(), stamp())
            .prop_map(|(id, incarnation, endpoint, stamp)| Command::Branch { id, incarnation, endpoint, stamp }),
        2 => (branch_id(), 1u8..=5, stamp()).prop_map(|(id, raw, stamp)| {
            Command::BranchStatus { id, status: BranchStatus::from_wire(raw).expect("in range"), stamp }
        }),
        1 => (branch_id(), any::<bool>(), stamp())
            .prop_map(|(id, is_drained, stamp)| Command::Drain { id, is_drained, stamp }),
        1 => (proptest::sample::select(vec!["gateway", "console"]), any::<u8>(), 0..=Scope::ALL_BITS, stamp())
            .prop_map(|(name, byte, scopes, stamp)| Command::AddKey { name, hash: [byte; 32], scopes, stamp }),
        1 => (proptest::sample::select(vec!["gateway", "console"]), stamp())
            .prop_map(|(name, stamp)| Command::RemoveKey { name, stamp }),
        2 => (1u128..9, 1u128..4, branch_id(), branch_id(), stamp()).prop_map(|(id, local, home, branch_id, stamp)| {
            Command::MoveAccount {
                id: TransferId::new(id),
                account_id: AccountId::of_branch(home, local),
                branch_id,
                participants: both(),
                stamp,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn a_batch_is_read_as_it_was_gathered_and_no_cut_of_it_is(commands in vec(any_command(), 0..12)) {
        let mut builder = BatchBuilder::default();
        commands.iter().for_each(|command| builder.push(command));
        let len_bytes = builder.len_bytes();
        let bytes = builder.take(1, 2, 3);
        prop_assert_eq!(bytes.len(), len_bytes);
        prop_assert!(builder.is_empty());
        let mut reader = BatchReader::new(&bytes).expect("written");
        let header = BatchHeader { node_id: 1, boot: 2, number: 3, count: commands.len() as u32 };
        prop_assert_eq!(reader.header(), header);
        for command in &commands {
            prop_assert_eq!(reader.next_command(), Ok(Some(*command)));
        }
        prop_assert_eq!(reader.next_command(), Ok(None));
        for len in 0..bytes.len() {
            let read = BatchReader::new(&bytes[..len]).and_then(|mut reader| {
                while reader.next_command()?.is_some() {}
                Ok(())
            });
            prop_assert!(read.is_err(), "{} bytes", len);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_command_that_is_written_alike(
        kind in prop_oneof![Just(1u8), Just(2), Just(3), 16u8..20, 32u8..36, 48u8..50, any::<u8>()],
        mut bytes in vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..80),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let mut reader = Reader::new(&bytes);
        if let Ok(command) = Command::read(&mut reader) {
            let mut again = Vec::new();
            command.append_to(&mut again);
            prop_assert_eq!(&bytes[..bytes.len() - reader.rest().len()], again);
        }
    }

    #[test]
    fn a_snapshot_is_the_state_and_goes_on_as_the_state_does(
        before in vec(any_command(), 0..120),
        after in vec(any_command(), 0..60),
    ) {
        let mut state = State::default();
        for command in &before {
            let _ = state.apply(command);
        }
        let bytes = state.encode();
        let mut restored = State::decode(&bytes).expect("written");
        prop_assert_eq!(&restored, &state);
        prop_assert_eq!(restored.encode(), bytes);
        for command in &after {
            prop_assert_eq!(restored.apply(command), state.apply(command));
        }
        prop_assert_eq!(restored.encode(), state.encode());
    }

    #[test]
    fn decisions_behave_as_a_map_that_forgets_nothing_that_is_open(commands in vec(any_command(), 0..200)) {
        let mut state = founded(6_400);
        let mut model: BTreeMap<TransferId, (Decision, Participants)> = BTreeMap::new();
        for command in &commands {
            let outcome = state.apply(command);
            match *command {
                Command::Decide { id, decision, participants, .. } => {
                    let known = *model.entry(id).or_insert((decision, participants));
                    let Outcome::Decided(got) = outcome else { panic!("{outcome:?}") };
                    prop_assert_eq!((got.decision, got.unacknowledged), known);
                }
                Command::MoveAccount { id, participants, .. } => {
                    let known = *model.entry(id).or_insert((Decision::Commit, participants));
                    let Outcome::Decided(got) = outcome else { panic!("{outcome:?}") };
                    prop_assert_eq!((got.decision, got.unacknowledged), known);
                }
                Command::Resolve { id, participants, .. } => {
                    let decision = Decision::Abort(AbortReason::Resolved);
                    let (known, _) = *model.entry(id).or_insert((decision, participants));
                    prop_assert_eq!(known == Decision::Commit, outcome == Outcome::Refused(Refused::DecidedBefore));
                }
                Command::Acknowledged { id, branches, .. } => {
                    if let Some((_, unacknowledged)) = model.get_mut(&id) {
                        *unacknowledged = branches.iter().fold(*unacknowledged, Participants::without);
                    }
                }
                _ => {}
            }
        }
        for (&id, &(decision, unacknowledged)) in &model {
            let known = state.decisions.get(id).expect("few enough to be remembered");
            prop_assert_eq!((known.decision, known.unacknowledged), (decision, unacknowledged));
        }
        prop_assert_eq!(state.decisions.open_count() + state.decisions.done_count(), model.len());
    }

    #[test]
    fn a_damaged_snapshot_is_refused(at_byte in any::<u16>(), bit in 0u8..8) {
        let mut state = founded(10);
        state.apply(&decide(1, Decision::Commit, both()));
        let mut bytes = state.encode();
        let len = bytes.len();
        bytes[usize::from(at_byte) % len] ^= 1 << bit;
        prop_assert_eq!(State::decode(&bytes), Err(SnapshotError::Checksum));
    }
}

#[test]
fn golden_bytes() {
    let mut out = Vec::new();
    let refused = Decision::Abort(AbortReason::Refused(B, Refusal::CreditAccountNotFound.into()));
    Command::Decide { id: id(0x0102), decision: refused, participants: both(), stamp: at(0x0a0b) }.append_to(&mut out);
    let mut expected = vec![1, 2, 1, 2, 2, 0, 208, 0];
    expected.extend_from_slice(&[0x0b, 0x0a, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((out.len(), &out), (48, &expected));
    out.clear();
    acknowledged(3, Participants::one(A)).append_to(&mut out);
    assert_eq!((out.len(), &out[..8]), (48, &[2, 0, 0, 1, 0, 0, 0, 0][..]));
    out.clear();
    branch(7, 9, "b:1").append_to(&mut out);
    assert_eq!(out[..11], [32, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0]);
    assert_eq!(out[11..], [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'b', b':', b'1']);
    out.clear();
    out.extend_from_slice(b"TALLYSTX");
    let checksum = xxhash_rust::xxh3::xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    assert_eq!(State::decode(&out), Err(SnapshotError::Read(ReadError::Field("magic"))));
}
