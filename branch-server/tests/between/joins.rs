//! Moving an account to the branch at which the other side of its open hold is: the hold is one within that branch then, under its
//! old id, and nobody ends it before the move is decided.

use super::*;

/// Who moves: the payer from `HERE`, or the payee from `THERE`.
const WAYS: [(AccountId, usize); 2] = [(customer(HERE), 0), (customer(THERE), 1)];

impl Bank {
    /// Wants an account at the other branch.
    fn order_account(&self, id: u128, account: AccountId, from: usize) {
        let order = MoveOrder {
            id: id.into(),
            account_id: account.get().into(),
            stamp: 0.into(),
            destination: BRANCHES[1 - from].get().into(),
            reserved: [0; 6],
        };
        self.sides[from].instruct(Instruction::Leave(order));
    }

    /// How the move is decided; `None` when the branch refuses the order.
    fn decided(&mut self, id: u128) -> Option<Decision> {
        self.until("the move is decided", |bank| {
            bank.decided.contains_key(&id) || bank.refused_moves.contains_key(&id)
        });
        self.decided.get(&id).map(|(decision, _)| *decision)
    }

    /// Moves it there, and waits until both branches have.
    fn join(&mut self, id: u128, (account, from): (AccountId, usize)) {
        self.order_account(id, account, from);
        let decided = self.decided(id);
        assert_eq!(decided, Some(Decision::Commit), "{:?}", self.refused_moves.get(&id));
        self.settle_down();
    }

    /// How the hold `id` stands at a branch, or the branch that it has gone to.
    fn hold_at(&mut self, at: usize, id: u128) -> Result<Option<TransferState>, u32> {
        match self.sides[at].ask(Op::GetTransfer(TransferId::new(id))) {
            ReplyBody::Found(found) => Ok(TransferState::from_wire(found.state)),
            ReplyBody::Refused { refusal: Refusal::HoldElsewhere, retry_after_ms, .. } => Err(retry_after_ms),
            other => panic!("{other:?}"),
        }
    }

    /// Balances of payer and payee, wherever they are, and that nothing is held.
    fn at_rest(&mut self) -> [i64; 2] {
        self.mirrors();
        [customer(HERE), customer(THERE)].map(|account| {
            let mut found = [0, 1].map(|at: usize| self.sides[at].ask(Op::GetBalance(account))).into_iter();
            let is_balance = |body| match body {
                ReplyBody::Balance(balance) => Some(numbers(&balance.sums)),
                ReplyBody::Refused { .. } => None,
                other => panic!("{other:?}"),
            };
            let [debits_held, debits, credits_held, credits] = found.find_map(is_balance).expect("at one of them");
            assert_eq!([debits_held, credits_held], [0, 0]);
            credits as i64 - debits as i64
        })
    }
}

#[test]
fn a_hold_is_one_within_the_branch_where_both_its_accounts_are() {
    let table = [
        (TransferKind::Settle, 12, 12, TransferState::Settled, Refusal::HoldAlreadySettled),
        (TransferKind::Settle, 0, 30, TransferState::Settled, Refusal::HoldAlreadySettled),
        (TransferKind::Void, 0, 0, TransferState::Voided, Refusal::HoldAlreadyVoided),
    ];
    for way in WAYS {
        for (kind, asked, posted, ended, again) in table {
            let mut bank = Bank::new();
            bank.stammers = posted == 12;
            assert_eq!(bank.pay(hold(5, 30, 0)), (None, 30, false));
            bank.settle_down();
            bank.join(900, way);
            let (old, new) = (way.1, 1 - way.1);
            let (old_branch, new_branch) = (u32::from(BRANCHES[old].get()), u32::from(BRANCHES[new].get()));
            for _ in 0..2 {
                assert_eq!(bank.sides[new].sums(customer(HERE)), [30, 0, 0, 100]);
                assert_eq!(bank.sides[new].sums(customer(THERE)), [0, 0, 30, 0]);
                bank.mirrors();
                assert_eq!(bank.hold_at(new, 5), Ok(Some(TransferState::Done)));
                assert_eq!(bank.hold_at(old, 5), Err(new_branch), "it says where it is");
                let too_much = bank.transfer_at(new, withdrawal(7, 71)).0;
                assert_eq!(too_much, Some(Refusal::InsufficientFunds), "it is promised");
                // What was asked is known where it was asked.
                assert_eq!(bank.transfer_at(0, hold(5, 30, 0)), (None, 30, true, 0));
                let at_payees = if new == 1 {
                    (Some(Refusal::IdUsedElsewhere), 0, false, old_branch)
                } else {
                    (Some(Refusal::WrongBranch), 0, false, 0)
                };
                assert_eq!(bank.transfer_at(1, hold(5, 30, 0)), at_payees);
                // The branch that was left ends nothing, and records nothing.
                for (id, kind) in [(10, TransferKind::Settle), (11, TransferKind::Void)] {
                    let refused = bank.transfer_at(old, ending(id, kind, 5, 0));
                    assert_eq!(refused, (Some(Refusal::HoldElsewhere), 0, false, new_branch));
                    assert_eq!(state(&mut bank, old, id), None);
                }
                (0..2).for_each(|at| bank.restart(at));
            }
            let too_much = ending(9, TransferKind::Settle, 5, 31);
            assert_eq!(bank.transfer_at(new, too_much).0, Some(Refusal::AmountExceedsHold));
            let end = ending(12, kind, 5, asked);
            let said = if posted == 0 { 30 } else { posted };
            // The registry is not asked, and nobody told.
            assert_eq!(bank.transfer_at(new, end), (None, said, false, 0));
            for round in [false, true] {
                assert_eq!(bank.at_rest(), [100 - posted as i64, posted as i64], "{kind:?} of {asked}");
                assert_eq!(bank.hold_at(new, 5), Ok(Some(ended)));
                assert_eq!(bank.transfer_at(new, end), (None, said, true, 0));
                assert_eq!(bank.transfer_at(old, end), (Some(Refusal::HoldElsewhere), 0, false, new_branch));
                assert_eq!(bank.transfer_at(new, ending(13, kind, 5, 0)), (Some(again), 0, round, 0));
                assert_eq!(bank.transfer_at(0, hold(5, 30, 0)), (None, 30, true, 0));
                (0..2).for_each(|at| bank.restart(at));
            }
        }
    }
}

#[test]
fn an_id_that_was_refused_where_the_payer_was_has_no_effect_where_it_is() {
    let mut bank = Bank::new();
    assert_eq!(bank.pay(hold(5, 30, 0)).0, None);
    bank.settle_down();
    let settle = ending(6, TransferKind::Settle, 5, 31);
    assert_eq!(bank.transfer_at(0, settle).0, Some(Refusal::AmountExceedsHold));
    bank.join(900, WAYS[0]);
    let here = u32::from(HERE.get());
    let again = ending(6, TransferKind::Settle, 5, 30);
    assert_eq!(bank.transfer_at(1, again), (Some(Refusal::IdUsedElsewhere), 0, false, here));
    assert_eq!(bank.transfer_at(0, settle).0, Some(Refusal::AmountExceedsHold));
    assert_eq!(bank.transfer_at(1, ending(7, TransferKind::Settle, 5, 30)), (None, 30, false, 0));
    assert_eq!(bank.at_rest(), [70, 30]);
}

#[test]
fn it_expires_by_the_clock_that_came_with_the_payer() {
    for way in WAYS {
        let mut bank = Bank::new();
        assert_eq!(bank.pay(hold(5, 30, 2)).0, None);
        bank.settle_down();
        bank.join(900, way);
        assert_eq!(bank.hold_at(1 - way.1, 5), Ok(Some(TransferState::Done)));
        (0..2).for_each(|at| bank.restart(at));
        bank.until("it has expired", |bank| bank.hold_at(1 - way.1, 5) == Ok(Some(TransferState::Expired)));
        assert_eq!(bank.at_rest(), [100, 0]);
    }
}

#[test]
fn nobody_ends_it_while_the_move_is_in_doubt() {
    for way in WAYS {
        for commits in [false, true] {
            let mut bank = Bank::new();
            assert_eq!(bank.pay(hold(5, 30, 1)).0, None);
            assert_eq!(bank.pay(hold(6, 20, 0)).0, None);
            bank.settle_down();
            bank.decides = false;
            bank.order_account(900, way.0, way.1);
            bank.until("it is sealed and taken in", |bank| in_doubt(bank) == [1, 1]);
            std::thread::sleep(Duration::from_millis(1_200));
            for _ in 0..2 {
                let standing = [0, 1].map(|at| [bank.hold_at(at, 5), bank.hold_at(at, 6)]);
                assert_eq!(standing, [[Ok(Some(TransferState::Done)); 2]; 2], "no clock is looked at");
                for (id, kind) in [(10, TransferKind::Settle), (11, TransferKind::Void)] {
                    let (refusal, _, _, hint) = bank.transfer_at(0, ending(id, kind, 6, 0));
                    assert_eq!(refusal, Some(Refusal::AccountMoving));
                    assert!(hint > 0, "it is worth another attempt");
                    assert_eq!(state(&mut bank, 0, id), None);
                }
                // Nor does the other account leave.
                let other = WAYS[1 - way.1];
                bank.refused_moves.clear();
                bank.order_account(901, other.0, other.1);
                bank.until("it is refused", |bank| bank.refused_moves.contains_key(&901));
                assert_eq!(bank.refused_moves[&901], Refusal::AccountHasHolds);
                (0..2).for_each(|at| bank.restart(at));
                assert_eq!(in_doubt(&bank), [1, 1], "only the move is asked about");
            }
            bank.decides = true;
            if commits {
                bank.coordinate(900, CoordinatorEvent::Tick(Timestamp::default()));
            } else {
                bank.change_leader();
            }
            bank.until("it is decided", |bank| bank.decided.contains_key(&900));
            bank.change_leader();
            bank.until("both know", |bank| in_doubt(bank) == [0, 0]);
            assert_eq!(bank.decided[&900].0 == Decision::Commit, commits);
            let ender = if commits { 1 - way.1 } else { 0 };
            bank.until("one has expired", |bank| bank.hold_at(ender, 5) == Ok(Some(TransferState::Expired)));
            assert_eq!(bank.transfer_at(ender, ending(12, TransferKind::Settle, 6, 15)), (None, 15, false, 0));
            bank.settle_down();
            assert_eq!(bank.at_rest(), [85, 15]);
        }
    }
}

#[test]
fn both_halves_are_one_or_as_they_were_whatever_is_lost() {
    let losses: [fn(&Said) -> bool; 4] = [
        |said| matches!(said, Said::BeginMove(_)),
        |said| matches!(said, Said::Vote(_)),
        |said| matches!(said, Said::Acknowledge(_)),
        |_| false,
    ];
    for way in WAYS {
        for deaf in losses {
            for changes_leader in [false, true] {
                let mut bank = Bank::new();
                assert_eq!(bank.pay(hold(5, 30, 0)).0, None);
                bank.settle_down();
                bank.deaf = deaf;
                bank.order_account(900, way.0, way.1);
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(100) {
                    bank.pump();
                }
                if changes_leader {
                    bank.change_leader();
                }
                (0..2).for_each(|at| bank.restart(at));
                bank.deaf = |_| false;
                bank.until("what is in doubt is asked about", |bank| in_doubt(bank) == [0, 0]);
                bank.change_leader();
                bank.settle_down();
                let is_moved = bank.decided.get(&900).is_some_and(|(decision, _)| *decision == Decision::Commit);
                // The payer's branch ends it.
                let ender = if is_moved { 1 - way.1 } else { 0 };
                let elsewhere = bank.transfer_at(1 - ender, ending(10, TransferKind::Settle, 5, 12));
                let there = u32::from(BRANCHES[ender].get());
                assert_eq!(elsewhere, (Some(Refusal::HoldElsewhere), 0, false, there));
                assert_eq!(bank.transfer_at(ender, ending(11, TransferKind::Settle, 5, 12)), (None, 12, false, 0));
                (0..2).for_each(|at| bank.restart(at));
                bank.settle_down();
                assert_eq!(bank.at_rest(), [88, 12]);
            }
        }
    }
}

#[test]
fn an_end_that_is_on_its_way_comes_first() {
    for way in WAYS {
        let mut bank = Bank::new();
        assert_eq!(bank.pay(hold(5, 30, 0)).0, None);
        bank.settle_down();
        bank.deaf = |said| matches!(said, Said::End(_));
        assert_eq!(bank.pay(ending(6, TransferKind::Settle, 5, 20)), (None, 20, false));
        bank.order_account(900, way.0, way.1);
        let commits = bank.decided(900) == Some(Decision::Commit);
        // The payer goes without it. The payee waits until it has heard.
        assert_eq!(commits, way.1 == 0);
        bank.deaf = |_| false;
        bank.settle_down();
        if !commits {
            bank.join(901, way);
        }
        assert_eq!(bank.at_rest(), [80, 20]);
        (0..2).for_each(|at| bank.restart(at));
        assert_eq!(bank.at_rest(), [80, 20]);
    }
}

#[test]
fn accounts_that_pass_each_other_change_nothing() {
    let mut bank = Bank::new();
    assert_eq!(bank.pay(hold(5, 30, 0)).0, None);
    bank.settle_down();
    bank.deaf = |said| matches!(said, Said::BeginMove(_));
    for (id, (account, from)) in (900..).zip(WAYS) {
        bank.order_account(id, account, from);
    }
    bank.until("both are sealed", |bank| in_doubt(bank) == [1, 1]);
    bank.deaf = |_| false;
    // Sealed, neither is here for the other one; each asks, and hears that nothing has begun.
    bank.until("both are as they were", |bank| in_doubt(bank) == [0, 0]);
    bank.change_leader();
    bank.settle_down();
    for way in WAYS {
        let mut moving = (902 + way.1 as u128, way);
        bank.order_account(moving.0, moving.1.0, moving.1.1);
        while bank.decided(moving.0) != Some(Decision::Commit) {
            moving.0 += 2;
            bank.order_account(moving.0, moving.1.0, moving.1.1);
        }
        bank.settle_down();
        if way.1 == 0 {
            assert_eq!(bank.transfer_at(1, ending(10, TransferKind::Settle, 5, 30)), (None, 30, false, 0));
        }
    }
    assert_eq!(bank.at_rest(), [70, 30]);
}

#[test]
fn an_account_comes_back_to_its_holds_and_goes_again_without_them() {
    let mut bank = Bank::with_other();
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)).0, None);
    assert_eq!(bank.transfer_at(0, local_hold(6, 20, 0, false)).0, None);
    bank.move_over(900, 0);
    bank.move_over(901, 1);
    for _ in 0..2 {
        assert_eq!(bank.found(), [(0, 100)]);
        assert_eq!(bank.sides[0].sums(customer(HERE)), [30, 0, 20, 100]);
        assert_eq!(bank.sides[0].sums(OTHER), [20, 0, 30, 50]);
        bank.mirrors();
        let (here, there) = (u32::from(HERE.get()), u32::from(THERE.get()));
        assert_eq!([bank.hold_at(0, 5), bank.hold_at(1, 5)], [Ok(Some(TransferState::Done)), Err(here)]);
        assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)), (None, 30, true, 0));
        assert_eq!(bank.transfer_at(1, withdrawal(7, 1)).3, here);
        assert_ne!(here, there);
        (0..2).for_each(|at| bank.restart(at));
    }
    // The other branch has had holds with these ids.
    bank.order(902, 0);
    let refused = bank.decided(902);
    let Some(Decision::Abort(AbortReason::Refused(branch, no))) = refused else { panic!("{refused:?}") };
    assert_eq!((branch, no.refusal), (THERE, Refusal::AccountHoldsStay));
    bank.settle_down();
    assert_eq!(bank.transfer_at(0, ending(10, TransferKind::Settle, 5, 12)), (None, 12, false, 0));
    assert_eq!(bank.transfer_at(0, ending(11, TransferKind::Void, 6, 0)), (None, 20, false, 0));
    bank.move_over(903, 0);
    assert_eq!(bank.found(), [(1, 88)]);
    assert_eq!(bank.sides[0].sums(OTHER), [0, 0, 0, 62]);
    bank.mirrors();
}
