//! Linked chains whose members concern both branches.

use super::*;

/// A second account of each branch.
const fn other(branch: BranchId) -> AccountId {
    AccountId::of_branch(branch, 8)
}

fn bank() -> Bank {
    let mut bank = Bank::new();
    for at in [0, 1] {
        let open = AccountOpen {
            id: other(BRANCHES[at]).get().into(),
            owner: 6.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            kind: 1,
            flags: message::account_flags::DEBITS_LIMITED.into(),
            day_limit: u64::MAX.into(),
            ..AccountOpen::new_zeroed()
        };
        bank.sides[at].ask(Op::OpenAccounts(Bytes::copy_from_slice(open.as_bytes())));
    }
    bank
}

fn to(credit: AccountId, wire: message::Transfer) -> message::Transfer {
    message::Transfer { credit_account_id: credit.get().into(), ..wire }
}

/// 20 to a customer there, 10 within this branch, 5 to another one there.
fn three() -> Vec<message::Transfer> {
    vec![payment(20, 20), to(other(HERE), payment(21, 10)), to(other(THERE), payment(22, 5))]
}

impl Bank {
    fn send_chain(&mut self, wires: &[message::Transfer]) -> u64 {
        self.sides[0].send(TELLER, Op::Chain(Bytes::copy_from_slice(wires.as_bytes())))
    }

    /// Sends a chain from here and waits for the answers: why not, whether it is recorded, and whether it is a repeat.
    fn chain(&mut self, wires: &[message::Transfer]) -> Vec<(Option<Refusal>, bool, bool)> {
        let id = self.send_chain(wires);
        self.until("an answer", |bank| bank.sides[0].replies.contains_key(&id));
        items(self.sides[0].replies.remove(&id).expect("it is there").body)
    }

    /// What the customers and the second accounts have.
    fn all_balances(&mut self) -> [i64; 4] {
        let [here, there] = self.balances();
        let others = [0, 1].map(|at: usize| {
            let [_, debits, held, credits] = self.sides[at].sums(other(BRANCHES[at]));
            assert_eq!(held, 0);
            credits as i64 - debits as i64
        });
        [here, there, others[0], others[1]]
    }

    fn states(&mut self, at: usize, ids: &[u128]) -> Vec<Option<TransferState>> {
        ids.iter().map(|&id| state(self, at, id)).collect()
    }
}

fn items(body: ReplyBody) -> Vec<(Option<Refusal>, bool, bool)> {
    let bytes = match body {
        ReplyBody::Items(_, bytes) => bytes,
        ReplyBody::Refused { refusal, .. } => return vec![(Some(refusal), false, false)],
        other => panic!("{other:?}"),
    };
    let items = <[message::ItemResult] as zerocopy::FromBytes>::ref_from_bytes(&bytes).expect("whole items");
    let repeated = |item: &message::ItemResult| item.flags.get() & message::RESULT_REPEATED != 0;
    items.iter().map(|item| (item.known_refusal(), item.timestamp.get() != 0, repeated(item))).collect()
}

const DONE: (Option<Refusal>, bool, bool) = (None, true, false);

#[test]
fn every_member_happens_everywhere_and_once() {
    for stammers in [false, true] {
        let mut bank = bank();
        bank.stammers = stammers;
        assert_eq!(bank.chain(&three()), [DONE; 3]);
        bank.settle_down();
        for _ in 0..2 {
            assert_eq!(bank.all_balances(), [65, 20, 10, 5]);
            assert_eq!(bank.chain(&three()), [(None, true, true); 3], "a repeat is answered as the first time");
            assert_eq!(bank.pay(payment(20, 20)), (None, 20, true), "and so is a member alone");
            let done = Some(TransferState::Done);
            assert_eq!(bank.states(0, &[20, 21, 22]), [done; 3]);
            assert_eq!(bank.states(1, &[20, 21, 22]), [done, None, done]);
            (0..2).for_each(|at| bank.restart(at));
        }
        bank.settle_down();
        // A member with other content, and one more that is new: nothing of it is done.
        let other_amount = [payment(20, 21), to(other(HERE), payment(29, 1))];
        let refused = |refusal| (Some(refusal), false, false);
        let expected = [refused(Refusal::ExistsWithDifferentAmount), refused(Refusal::ChainBroken)];
        assert_eq!(bank.chain(&other_amount), expected);
        assert_eq!(bank.states(0, &[29]), [None]);
        assert_eq!(bank.all_balances(), [65, 20, 10, 5]);
    }
}

#[test]
fn what_one_branch_refuses_happens_nowhere_and_names_the_member() {
    use Refusal::ChainBroken as Broken;
    let nobody = AccountId::of_branch(THERE, 99);
    let recorded = |refusal| (Some(refusal), true);
    let free = |refusal| (Some(refusal), false);
    type Line = (Vec<message::Transfer>, Vec<(Option<Refusal>, bool)>);
    let table: [Line; 7] = [
        // The limits of the payer count earlier members.
        (
            vec![payment(30, 60), to(other(HERE), payment(31, 41))],
            vec![recorded(Broken), recorded(Refusal::InsufficientFunds)],
        ),
        (
            vec![payment(32, 10), to(other(HERE), payment(33, 1)), to(nobody, payment(34, 5))],
            vec![recorded(Broken), recorded(Broken), recorded(Refusal::CreditAccountNotFound)],
        ),
        // What an earlier member credits is held until the chain is decided.
        (
            vec![
                to(other(HERE), payment(35, 10)),
                message::Transfer { debit_account_id: other(HERE).get().into(), ..payment(36, 10) },
            ],
            vec![recorded(Broken), recorded(Refusal::InsufficientFunds)],
        ),
        (
            vec![payment(37, 10), message::Transfer { amount: 0.into(), ..payment(38, 1) }],
            vec![free(Broken), free(Refusal::AmountMustNotBeZero)],
        ),
        (
            vec![
                payment(39, 10),
                message::Transfer { kind: TransferKind::Withdraw as u8, ..to(AccountId::NONE, payment(40, 1)) },
            ],
            vec![free(Broken), free(Refusal::WrongBranch)],
        ),
        (vec![payment(41, 10), payment(41, 10)], vec![free(Refusal::IdAlreadyUsed), free(Refusal::IdAlreadyUsed)]),
        (
            vec![message::Transfer { flags: transfer_flags::BALANCING_DEBIT.into(), ..payment(42, 10) }],
            vec![free(Refusal::WrongBranch)],
        ),
    ];
    let mut bank = bank();
    for round in [false, true] {
        for (wires, expected) in &table {
            let told = bank.chain(wires);
            let repeated = |is_recorded: bool| round && is_recorded;
            let expected: Vec<_> =
                expected.iter().map(|&(refusal, is_recorded)| (refusal, is_recorded, repeated(is_recorded))).collect();
            assert_eq!(told, expected, "{}", wires[0].id.get());
        }
        bank.settle_down();
        assert_eq!(bank.all_balances(), [100, 0, 0, 0]);
        (0..2).for_each(|at| bank.restart(at));
    }
    assert_eq!(bank.states(1, &[33, 34]), [None, Some(TransferState::Refused)]);
    // Ids that were not used up are free.
    assert_eq!(bank.chain(&[payment(37, 10), to(other(THERE), payment(38, 1))]), [DONE; 2]);
}

#[test]
fn an_id_that_is_used_at_the_other_branch_refuses_the_chain() {
    let mut bank = bank();
    let there = message::Transfer { debit_account_id: 0.into(), kind: TransferKind::Deposit as u8, ..payment(22, 7) };
    assert_eq!(answer(bank.sides[1].ask(Op::Transfer(there))), (None, 7, false));
    let broken = (Some(Refusal::ChainBroken), true, false);
    // The payer's ids are used up whatever it hears, so it hears something that stays.
    assert_eq!(bank.chain(&three()), [broken, broken, (Some(Refusal::TransferAborted), true, false)]);
    bank.settle_down();
    assert_eq!(bank.all_balances(), [100, 7, 0, 0]);
}

#[test]
fn a_chain_that_is_in_doubt_waits_as_one() {
    for restarted in [&[][..], &[0], &[1], &[0, 1]] {
        for leader_lost in [false, true] {
            let mut bank = bank();
            bank.decides = false;
            let first = bank.send_chain(&three());
            bank.until("both are prepared", |bank| in_doubt(bank) == [1, 1]);
            bank.sides.iter().for_each(|side| side.branch.want_checkpoint());
            std::thread::sleep(Duration::from_millis(30));
            restarted.iter().for_each(|&at| bank.restart(at));
            assert_eq!(in_doubt(&bank), [1, 1], "a restart forgets no promise");
            let prepared = Some(TransferState::Prepared);
            assert_eq!(bank.states(0, &[20, 21, 22]), [prepared; 3]);
            assert_eq!(bank.states(1, &[20, 22]), [prepared; 2]);
            assert_eq!(bank.sides[0].sums(customer(HERE)), [35, 0, 0, 100], "all of it is held");
            assert_eq!(answer(bank.sides[0].ask(Op::Transfer(payment(3, 66)))).0, Some(Refusal::InsufficientFunds));
            // It comes again, as a whole, in part, and one member alone.
            let again = [bank.send_chain(&three()), bank.send_chain(&three()[1..])];
            let alone = bank.sides[0].send(TELLER, Op::Transfer(payment(20, 20)));
            let changed = bank.chain(&[payment(20, 20), to(other(HERE), payment(21, 11))]);
            assert!(changed.iter().all(|(refusal, is_recorded, _)| refusal.is_some() && !is_recorded), "{changed:?}");
            bank.decides = true;
            if leader_lost {
                bank.change_leader();
            } else {
                // What it had proposed was lost: it proposes again.
                bank.coordinate(20, CoordinatorEvent::Tick(Timestamp::default()));
            }
            let aborted = [Refusal::TransferAborted, Refusal::ChainBroken, Refusal::ChainBroken];
            let expected = |repeated| aborted.map(|refusal| (leader_lost.then_some(refusal), true, repeated));
            bank.until("the repeats are answered", |bank| {
                again.iter().chain([&alone]).all(|id| bank.sides[0].replies.contains_key(id))
            });
            let mut reply = |id: u64| bank.sides[0].replies.remove(&id).expect("it is there").body;
            assert_eq!(items(reply(again[0])), expected(true), "{restarted:?}, leader lost: {leader_lost}");
            assert_eq!(items(reply(again[1])), expected(true)[1..]);
            assert_eq!(answer(reply(alone)).0, leader_lost.then_some(Refusal::TransferAborted));
            // The first one waits no more where its branch was restarted: its session is gone with that.
            if !restarted.contains(&0) {
                assert_eq!(items(reply(first)), expected(false));
            }
            bank.settle_down();
            let balances = if leader_lost { [100, 0, 0, 0] } else { [65, 20, 10, 5] };
            assert_eq!(bank.all_balances(), balances);
            (0..2).for_each(|at| bank.restart(at));
            bank.settle_down();
            assert_eq!(bank.chain(&three()), expected(true));
            assert_eq!(bank.all_balances(), balances);
        }
    }
}

/// Whatever is lost once is said again: what was begun and not heard of is presumed aborted.
#[test]
fn lost_messages_of_a_chain_are_said_again() {
    let losses: [(fn(&Said) -> bool, bool); 3] = [
        (|said| matches!(said, Said::BeginChain(_)), false),
        (|said| matches!(said, Said::Vote(_)), true),
        (|_| false, true),
    ];
    for (deaf, is_done) in losses {
        let mut bank = bank();
        bank.deaf = deaf;
        assert_eq!(bank.chain(&three()).iter().all(|item| item.0.is_none()), is_done);
        bank.settle_down();
        assert_eq!(bank.all_balances(), if is_done { [65, 20, 10, 5] } else { [100, 0, 0, 0] });
    }
}

/// The first member concerns this branch alone, so the other one knows the chain under an id of which it has no transfer.
#[test]
fn a_branch_without_the_first_member_knows_the_chain_all_the_same() {
    let wires = [to(other(HERE), payment(50, 1)), payment(51, 2), to(other(THERE), payment(52, 3))];
    for restarts in [false, true] {
        let mut bank = bank();
        bank.stammers = true;
        // The registry is told nothing of what was carried out, and so says the decision again.
        bank.deaf = |said| matches!(said, Said::Acknowledge(_));
        assert_eq!(bank.chain(&wires), [DONE; 3]);
        (0..20).for_each(|_| bank.pump());
        if restarts {
            (0..2).for_each(|at| bank.restart(at));
        }
        bank.deaf = |_| false;
        bank.coordinate(50, CoordinatorEvent::Tick(Timestamp::default()));
        bank.settle_down();
        assert_eq!(bank.all_balances(), [94, 2, 1, 3]);
        let contradictions =
            |side: &Side| side.link.shared.stats.contradictions.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(bank.sides.iter().map(contradictions).sum::<u64>(), 0);
        assert_eq!(bank.states(1, &[50, 51, 52]), [None, Some(TransferState::Done), Some(TransferState::Done)]);
        // Its id is used up there, too.
        let used = message::Transfer { debit_account_id: other(THERE).get().into(), ..payment(50, 1) };
        assert_eq!(answer(bank.sides[1].ask(Op::Transfer(used))).0, Some(Refusal::IdAlreadyUsed));
    }
}

#[test]
fn holds_of_a_chain_stand_together_and_end_one_by_one() {
    let wires = [hold(60, 30, 0), to(other(HERE), hold(61, 10, 0)), to(other(THERE), payment(62, 5))];
    for commits in [true, false] {
        let mut bank = bank();
        let mut wires = wires.to_vec();
        if !commits {
            wires[2] = to(AccountId::of_branch(THERE, 99), wires[2]);
        }
        let told = bank.chain(&wires);
        bank.settle_down();
        if !commits {
            let broken = (Some(Refusal::ChainBroken), true, false);
            assert_eq!(told, [broken, broken, (Some(Refusal::CreditAccountNotFound), true, false)]);
            assert_eq!(bank.all_balances(), [100, 0, 0, 0]);
            assert_eq!(bank.pay(ending(63, TransferKind::Settle, 60, 0)).0, Some(Refusal::ReferenceNotFound));
            continue;
        }
        assert_eq!(told, [DONE; 3]);
        for _ in 0..2 {
            assert_eq!(bank.sides[0].sums(customer(HERE)), [40, 5, 0, 100]);
            assert_eq!(bank.chain(&wires), [(None, true, true); 3]);
            (0..2).for_each(|at| bank.restart(at));
            bank.settle_down();
        }
        assert_eq!(bank.pay(ending(63, TransferKind::Settle, 60, 12)), (None, 12, false));
        assert_eq!(bank.pay(ending(64, TransferKind::Settle, 61, 0)), (None, 10, false));
        bank.settle_down();
        for _ in 0..2 {
            assert_eq!(bank.all_balances(), [73, 12, 10, 5]);
            assert_eq!(bank.chain(&wires), [(None, true, true); 3], "a hold's answer stays");
            let settled = Some(TransferState::Settled);
            assert_eq!(bank.states(0, &[60, 61, 62]), [settled, settled, Some(TransferState::Done)]);
            assert_eq!(bank.states(1, &[60, 62]), [settled, Some(TransferState::Done)]);
            (0..2).for_each(|at| bank.restart(at));
            bank.settle_down();
        }
        // What was done within this branch as part of a chain between branches is not undone alone.
        assert_eq!(bank.pay(ending(65, TransferKind::Reverse, 62, 0)).0, Some(Refusal::ReferenceKindMismatch));
    }
}

#[test]
fn a_chain_needs_the_registry_and_a_chain_within_the_branch_does_not() {
    let mut bank = bank();
    assert_eq!(bank.chain(&three()), [DONE; 3]);
    bank.settle_down();
    bank.sides[0].link.shared.set_linked(false);
    let unreachable = [(Some(Refusal::RegistryUnreachable), false, false)];
    assert_eq!(bank.chain(&[payment(70, 1), to(other(HERE), payment(71, 1))]), unreachable);
    assert_eq!(bank.states(0, &[70, 71]), [None, None]);
    assert_eq!(bank.chain(&three()), [(None, true, true); 3], "what was done is answered without the registry");
    assert_eq!(bank.chain(&[to(other(HERE), payment(72, 1)), to(other(HERE), payment(73, 1))]), [DONE; 2]);
    bank.sides[0].link.shared.set_linked(true);
    let elsewhere = AccountId::of_branch(BranchId::new(9), 1);
    let unknown = [(Some(Refusal::BranchUnknown), false, false)];
    assert_eq!(bank.chain(&[payment(70, 1), to(elsewhere, payment(71, 1))]), unknown);
    // More branches than may take part: the first that is too many is named.
    let peers = (2..=9).map(|peer| to(AccountId::of_branch(BranchId::new(peer), 7), payment(80 + u128::from(peer), 1)));
    let told = bank.chain(&peers.collect::<Vec<_>>());
    assert_eq!(told.iter().map(|item| item.0).collect::<Vec<_>>(), {
        let mut expected = vec![Some(Refusal::ChainBroken); 7];
        expected.push(Some(Refusal::CountInvalid));
        expected
    });
}
