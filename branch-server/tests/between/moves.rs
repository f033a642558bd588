//! Moving an account between the two branches: what its payments are answered before, meanwhile and after, and that
//! restarts in the middle end it whole or not at all.

use tally_protocol::link::MoveOrder;

use super::*;

#[path = "joins.rs"]
mod joins;

impl Bank {
    /// Wants the customer of `HERE` at the other branch.
    pub(super) fn order(&self, id: u128, from: usize) {
        let order = MoveOrder {
            id: id.into(),
            account_id: customer(HERE).get().into(),
            stamp: 0.into(),
            destination: BRANCHES[1 - from].get().into(),
            reserved: [0; 6],
        };
        self.sides[from].instruct(Instruction::Leave(order));
    }

    fn move_over(&mut self, id: u128, from: usize) {
        self.order(id, from);
        self.until("the move is decided", |bank| {
            bank.decided.contains_key(&id) || bank.refused_moves.contains_key(&id)
        });
        assert_eq!(self.refused_moves.get(&id), None);
        self.settle_down();
    }

    /// Asks branch `at` for a transfer: its answer, and the branch that it names.
    pub(super) fn transfer_at(&mut self, at: usize, wire: message::Transfer) -> (Option<Refusal>, u64, bool, u32) {
        let id = self.sides[at].send(TELLER, Op::Transfer(wire));
        self.until("an answer", |bank| bank.sides[at].replies.contains_key(&id));
        let body = self.sides[at].replies.remove(&id).expect("it is there").body;
        let hint = match &body {
            ReplyBody::Refused { retry_after_ms, .. } => *retry_after_ms,
            _ => 0,
        };
        let (refusal, amount, repeated) = answer(body);
        (refusal, amount, repeated, hint)
    }

    /// The balance of the account that moves, and at which branch it is.
    fn found(&mut self) -> Vec<(usize, i64)> {
        let account = customer(HERE);
        let mut found = Vec::new();
        for at in [0, 1] {
            match self.sides[at].ask(Op::GetBalance(account)) {
                ReplyBody::Balance(balance) => {
                    let [_, debits, _, credits] = numbers(&balance.sums);
                    found.push((at, credits as i64 - debits as i64));
                }
                ReplyBody::Refused { refusal: Refusal::AccountMoved, retry_after_ms, .. } => {
                    assert_eq!(retry_after_ms, u32::from(BRANCHES[1 - at].get()), "it says where the account is");
                }
                ReplyBody::Refused { refusal: Refusal::WrongBranch | Refusal::AccountMoving, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        found
    }

    /// "Due to" and "due from" mirror each other.
    pub(super) fn mirrors(&mut self) {
        let due_to = self.sides[0].settlement(HERE, THERE);
        let due_from = self.sides[1].settlement(THERE, HERE);
        assert_eq!((due_to[1], due_to[3]), (due_from[3], due_from[1]), "the branches agree");
        assert_eq!([due_to[0], due_to[2], due_from[0], due_from[2]], [0; 4], "nothing is held");
    }
}

fn withdrawal(id: u128, amount: u64) -> message::Transfer {
    message::Transfer { credit_account_id: 0.into(), kind: TransferKind::Withdraw as u8, ..payment(id, amount) }
}

fn back(id: u128, amount: u64) -> message::Transfer {
    let wire = payment(id, amount);
    message::Transfer { debit_account_id: wire.credit_account_id, credit_account_id: wire.debit_account_id, ..wire }
}

#[test]
fn a_moved_account_pays_and_is_paid_at_its_new_branch_and_old_ids_stay_used() {
    for stammers in [false, true] {
        let mut bank = Bank::new();
        bank.stammers = stammers;
        assert_eq!(bank.pay(payment(2, 30)), (None, 30, false));
        assert_eq!(bank.transfer_at(0, withdrawal(3, 5)), (None, 5, false, 0));
        bank.settle_down();
        bank.move_over(900, 0);
        assert_eq!(bank.found(), [(1, 65)]);
        bank.mirrors();
        // The old branch sends on, and answers what was done there.
        let there = u32::from(THERE.get());
        assert_eq!(bank.transfer_at(0, withdrawal(4, 1)), (Some(Refusal::AccountMoved), 0, false, there));
        assert_eq!(bank.transfer_at(0, withdrawal(3, 5)), (None, 5, true, 0));
        assert_eq!(bank.pay(payment(2, 30)), (None, 30, true));
        // The new one takes new ids, and sends back those that were used at the old one.
        let here = u32::from(HERE.get());
        assert_eq!(bank.transfer_at(1, withdrawal(3, 5)), (Some(Refusal::IdUsedElsewhere), 0, false, here));
        assert_eq!(bank.transfer_at(1, payment(2, 30)), (Some(Refusal::IdUsedElsewhere), 0, false, here));
        assert_eq!(bank.transfer_at(1, withdrawal(4, 1)), (None, 1, false, 0));
        assert_eq!(bank.transfer_at(1, withdrawal(4, 1)), (None, 1, true, 0));
        // Within its new branch it pays as others do, without the registry.
        assert_eq!(bank.transfer_at(1, payment(5, 10)), (None, 10, false, 0));
        assert_eq!(bank.transfer_at(1, back(6, 3)), (None, 3, false, 0));
        assert_eq!(bank.found(), [(1, 57)]);
        // Restarts forget nothing of it.
        (0..2).for_each(|at| bank.restart(at));
        assert_eq!(bank.found(), [(1, 57)]);
        assert_eq!(bank.transfer_at(1, withdrawal(3, 5)).0, Some(Refusal::IdUsedElsewhere));
        // And back: ids of both stays are known.
        bank.move_over(901, 1);
        assert_eq!(bank.found(), [(0, 57)]);
        assert_eq!(bank.transfer_at(0, withdrawal(4, 1)), (Some(Refusal::IdUsedElsewhere), 0, false, there));
        assert_eq!(bank.transfer_at(0, withdrawal(3, 5)), (None, 5, true, 0));
        assert_eq!(bank.pay(payment(7, 7)), (None, 7, false));
        bank.settle_down();
        assert_eq!(bank.found(), [(0, 50)]);
        bank.mirrors();
    }
}

#[test]
fn what_ended_a_hold_before_the_move_has_one_answer_at_both_branches() {
    let named = |id: u128, kind: TransferKind, amount: u64| message::Transfer {
        debit_account_id: customer(HERE).get().into(),
        ..ending(id, kind, 2, amount)
    };
    let (here, there) = (u32::from(HERE.get()), u32::from(THERE.get()));
    for (kind, amount, posted, refusal) in [
        (TransferKind::Settle, 12, 12, Refusal::HoldAlreadySettled),
        (TransferKind::Void, 0, 0, Refusal::HoldAlreadyVoided),
    ] {
        let mut bank = Bank::new();
        let payee = AccountId::of_branch(HERE, 8);
        bank.open(0, payee, account_flags::DEBITS_LIMITED);
        let local = message::Transfer { credit_account_id: payee.get().into(), ..hold(2, 30, 0) };
        assert_eq!(bank.pay(local), (None, 30, false));
        let done = bank.pay(named(3, kind, amount));
        assert_eq!((done.0, done.2), (None, false));
        bank.settle_down();
        bank.move_over(900, 0);
        for is_restarted in [false, true] {
            if is_restarted {
                (0..2).for_each(|at| bank.restart(at));
            }
            // The new branch knows neither the hold nor its end, and asks.
            let wire = named(3, kind, amount);
            assert_eq!(bank.transfer_at(1, wire), (Some(Refusal::IdUsedElsewhere), 0, false, here));
            assert_eq!(bank.transfer_at(0, wire), (None, done.1, true, 0));
            // So for another end, which is the old branch's to refuse.
            let late = named(4, kind, amount);
            assert_eq!(bank.transfer_at(1, late), (Some(Refusal::IdUsedElsewhere), 0, false, here));
            assert_eq!(bank.transfer_at(0, late), (Some(refusal), 0, is_restarted, 0));
            // What nobody knows is refused where the account is.
            let lost = message::Transfer { reference: 77.into(), ..named(5, kind, amount) };
            assert_eq!(bank.transfer_at(0, lost), (Some(Refusal::AccountMoved), 0, false, there));
            assert_eq!(bank.transfer_at(1, lost), (Some(Refusal::ReferenceNotFound), 0, is_restarted, 0));
        }
        assert_eq!(bank.found(), [(1, 100 - posted)]);
        bank.mirrors();
    }
}

#[test]
fn a_move_ends_whole_or_not_at_all_whatever_is_lost() {
    // Whether it comes to a commit with the same leader, and with another one. To ask is to vote.
    let losses: [(fn(&Said) -> bool, [bool; 2]); 4] = [
        (|said| matches!(said, Said::BeginMove(_)), [false, false]),
        (|said| matches!(said, Said::Vote(_)), [true, false]),
        (|said| matches!(said, Said::Acknowledge(_)), [true, true]),
        (|_| false, [true, true]),
    ];
    for (deaf, commits) in losses {
        for changes_leader in [false, true] {
            let is_committed = commits[usize::from(changes_leader)];
            let mut bank = Bank::new();
            bank.deaf = deaf;
            bank.order(900, 0);
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
            // A leader that begins says again what nobody has acknowledged.
            bank.change_leader();
            bank.settle_down();
            let place = usize::from(is_committed);
            assert_eq!(bank.found(), [(place, 100)], "{is_committed}");
            bank.mirrors();
            if changes_leader {
                continue;
            }
            assert_eq!(bank.transfer_at(place, withdrawal(4, 1)), (None, 1, false, 0));
        }
    }
}

#[test]
fn while_it_moves_an_account_takes_nothing_and_leaves_no_trace() {
    let mut bank = Bank::new();
    bank.decides = false;
    bank.order(900, 0);
    bank.until("it is sealed and taken in", |bank| in_doubt(bank) == [1, 1]);
    for at in [0, 1] {
        let (refusal, _, _, hint) = bank.transfer_at(at, withdrawal(4, 1));
        assert_eq!(refusal, Some(Refusal::AccountMoving), "at {at}");
        assert!(hint > 0, "it is worth another attempt");
    }
    assert_eq!(bank.found(), []);
    let freeze = bank.sides[0].ask(Op::FreezeAccount(customer(HERE)));
    assert!(matches!(freeze, ReplyBody::Refused { refusal: Refusal::AccountMoving, .. }), "{freeze:?}");
    // A second order, and one for what is not there.
    bank.order(901, 0);
    bank.until("it is refused", |bank| bank.refused_moves.contains_key(&901));
    assert_eq!(bank.refused_moves[&901], Refusal::AccountMoving);
    bank.decides = true;
    bank.change_leader();
    bank.restart(0);
    bank.until("it is decided", |bank| in_doubt(bank) == [0, 0]);
    bank.settle_down();
    let at = bank.found()[0].0;
    assert_eq!(bank.transfer_at(at, withdrawal(4, 1)), (None, 1, false, 0));
    bank.mirrors();
}

/// Somebody else here, with 50.
pub(super) const OTHER: AccountId = AccountId::of_branch(HERE, 8);

impl Bank {
    pub(super) fn with_other() -> Self {
        let mut bank = Self::new();
        bank.open(0, OTHER, 0);
        let deposit = message::Transfer {
            debit_account_id: 0.into(),
            credit_account_id: OTHER.get().into(),
            kind: TransferKind::Deposit as u8,
            ..payment(8, 50)
        };
        assert_eq!(bank.transfer_at(0, deposit), (None, 50, false, 0));
        bank
    }

    fn states_of(&mut self, id: u128) -> [Option<TransferState>; 2] {
        [0, 1].map(|at| state(self, at, id))
    }
}

/// A hold within `HERE`, from the account that moves or to it.
pub(super) fn local_hold(id: u128, amount: u64, timeout_s: u32, pays: bool) -> message::Transfer {
    let (debit, credit) = if pays { (customer(HERE), OTHER) } else { (OTHER, customer(HERE)) };
    message::Transfer {
        debit_account_id: debit.get().into(),
        credit_account_id: credit.get().into(),
        ..hold(id, amount, timeout_s)
    }
}

#[test]
fn open_holds_go_along_and_are_ended_where_the_payer_is() {
    let (here, there) = (u32::from(HERE.get()), u32::from(THERE.get()));
    for stammers in [false, true] {
        let mut bank = Bank::with_other();
        bank.stammers = stammers;
        let (pays, is_paid) = (local_hold(5, 30, 0, true), local_hold(6, 20, 0, false));
        assert_eq!(bank.transfer_at(0, pays), (None, 30, false, 0));
        assert_eq!(bank.transfer_at(0, is_paid), (None, 20, false, 0));
        bank.move_over(900, 0);
        for _ in 0..2 {
            assert_eq!(bank.found(), [(1, 100)]);
            assert_eq!(bank.sides[1].sums(customer(HERE)), [30, 0, 20, 100]);
            assert_eq!(bank.sides[0].sums(OTHER), [20, 0, 30, 50]);
            assert_eq!(bank.sides[0].settlement(HERE, THERE), [30, 0, 20, 100]);
            assert_eq!(bank.sides[1].settlement(THERE, HERE), [20, 100, 30, 0]);
            assert_eq!([bank.states_of(5), bank.states_of(6)], [[Some(TransferState::Done); 2]; 2]);
            assert_eq!(bank.transfer_at(1, withdrawal(7, 71)).0, Some(Refusal::InsufficientFunds), "it is promised");
            // What was asked is known where it was asked.
            assert_eq!(bank.transfer_at(0, pays), (None, 30, true, 0));
            assert_eq!(bank.transfer_at(1, pays), (Some(Refusal::IdUsedElsewhere), 0, false, here));
            (0..2).for_each(|at| bank.restart(at));
        }
        // Each is ended at one branch, and the other says at which; nothing is recorded there.
        for (id, of, at, branch) in [(10, 5, 0, there), (11, 6, 1, here)] {
            for kind in [TransferKind::Settle, TransferKind::Void] {
                let refused = bank.transfer_at(at, ending(id, kind, of, 0));
                assert_eq!(refused, (Some(Refusal::HoldElsewhere), 0, false, branch));
                assert_eq!(bank.states_of(id), [None; 2]);
            }
        }
        let settle = ending(10, TransferKind::Settle, 5, 12);
        assert_eq!(bank.transfer_at(1, ending(12, TransferKind::Settle, 5, 31)).0, Some(Refusal::AmountExceedsHold));
        assert_eq!(bank.transfer_at(1, settle), (None, 12, false, 0));
        assert_eq!(bank.transfer_at(0, ending(11, TransferKind::Void, 6, 0)), (None, 20, false, 0));
        bank.settle_down();
        for _ in 0..2 {
            assert_eq!(bank.states_of(5), [Some(TransferState::Settled); 2]);
            assert_eq!(bank.states_of(6), [Some(TransferState::Voided); 2]);
            assert_eq!(bank.found(), [(1, 88)]);
            assert_eq!(bank.sides[0].sums(OTHER), [0, 0, 0, 62]);
            bank.mirrors();
            // Whoever asks again is answered by the branch that did it, and by no other.
            assert_eq!(bank.transfer_at(1, settle), (None, 12, true, 0));
            assert_eq!(bank.transfer_at(0, settle), (Some(Refusal::HoldElsewhere), 0, false, there));
            assert_eq!(bank.transfer_at(1, ending(11, TransferKind::Void, 6, 0)).0, Some(Refusal::HoldElsewhere));
            (0..2).for_each(|at| bank.restart(at));
        }
    }
}

#[test]
fn holds_that_went_along_expire_by_the_clock_of_the_payers_branch() {
    let mut bank = Bank::with_other();
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 1, true)).0, None);
    assert_eq!(bank.transfer_at(0, local_hold(6, 20, 1, false)).0, None);
    bank.move_over(900, 0);
    bank.until("they have expired at both", |bank| {
        [5, 6].iter().all(|&id| bank.states_of(id) == [Some(TransferState::Expired); 2])
    });
    bank.settle_down();
    assert_eq!(bank.found(), [(1, 100)]);
    assert_eq!(bank.sides[0].sums(OTHER), [0, 0, 0, 50]);
    bank.mirrors();
    // While the move is in doubt, the clock of the branch that is left ends nothing.
    let mut bank = Bank::with_other();
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 1, true)).0, None);
    bank.decides = false;
    bank.order(900, 0);
    bank.until("it is sealed and taken in", |bank| in_doubt(bank) == [1, 1]);
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(state(&mut bank, 0, 5), Some(TransferState::Done));
    (0..2).for_each(|at| bank.restart(at));
    assert_eq!(in_doubt(&bank), [1, 1], "only the move is asked about");
    let settle = ending(10, TransferKind::Settle, 5, 0);
    assert_eq!(bank.transfer_at(0, settle).0, Some(Refusal::AccountMoving));
    bank.decides = true;
    bank.change_leader();
    bank.until("it is decided, and the hold has expired", |bank| {
        in_doubt(bank) == [0, 0] && state(bank, 0, 5) == Some(TransferState::Expired)
    });
    bank.settle_down();
    assert_eq!(bank.sides[0].sums(OTHER), [0, 0, 0, 50]);
    bank.mirrors();
}

#[test]
fn holds_go_along_or_stay_whatever_is_lost() {
    let losses: [fn(&Said) -> bool; 6] = [
        |said| matches!(said, Said::BeginMove(_)),
        |said| matches!(said, Said::Vote(_)),
        |said| matches!(said, Said::Acknowledge(_)),
        |said| matches!(said, Said::End(_)),
        |said| matches!(said, Said::Heard(_)),
        |_| false,
    ];
    for deaf in losses {
        for changes_leader in [false, true] {
            let mut bank = Bank::with_other();
            assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)).0, None);
            assert_eq!(bank.transfer_at(0, local_hold(6, 20, 0, false)).0, None);
            bank.deaf = deaf;
            bank.order(900, 0);
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(100) {
                bank.pump();
            }
            if changes_leader {
                bank.change_leader();
            }
            (0..2).for_each(|at| bank.restart(at));
            bank.until("what is in doubt is asked about", |bank| in_doubt(bank) == [0, 0]);
            bank.change_leader();
            let place = bank.found()[0].0;
            let refusal_of_other = bank.transfer_at(1 - place, ending(10, TransferKind::Settle, 5, 12)).0;
            assert!(refusal_of_other.is_some_and(|refusal| !refusal.consumes_id() || place == 0));
            let settle = ending(11, TransferKind::Settle, 5, 12);
            assert_eq!(bank.transfer_at(place, settle), (None, 12, false, 0));
            assert_eq!(bank.transfer_at(0, ending(12, TransferKind::Settle, 6, 0)), (None, 20, false, 0));
            (0..2).for_each(|at| bank.restart(at));
            bank.deaf = |_| false;
            bank.change_leader();
            bank.settle_down();
            assert_eq!(bank.found(), [(place, 108)]);
            assert_eq!(bank.sides[0].sums(OTHER), [0, 20, 0, 62]);
            assert_eq!(state(&mut bank, place, 5), Some(TransferState::Settled));
            bank.mirrors();
        }
    }
}

#[test]
fn an_account_stays_with_a_hold_that_cannot_go_along() {
    let mut bank = Bank::with_other();
    // It closes an account.
    let flags = transfer_flags::CLOSING_CREDIT.into();
    let closing = message::Transfer { flags, ..local_hold(5, 10, 0, true) };
    assert_eq!(bank.transfer_at(0, closing).0, None);
    bank.order(900, 0);
    bank.until("it is refused", |bank| bank.refused_moves.contains_key(&900));
    assert_eq!(bank.refused_moves[&900], Refusal::AccountHoldsStay);
    assert_eq!(bank.pay(ending(6, TransferKind::Void, 5, 0)).0, None);
    bank.settle_down();
    // One that is not decided is waited for.
    bank.decides = false;
    bank.sides[0].send(TELLER, Op::Transfer(payment(7, 1)));
    bank.until("it is prepared", |bank| in_doubt(bank) == [1, 1]);
    bank.order(901, 0);
    bank.until("it is refused", |bank| bank.refused_moves.contains_key(&901));
    assert_eq!(bank.refused_moves[&901], Refusal::AccountHasHolds);
    bank.decides = true;
    bank.change_leader();
    bank.until("what is in doubt is asked about", |bank| in_doubt(bank) == [0, 0]);
    // The id of the hold was used for something else at the other branch.
    let deposit = message::Transfer {
        debit_account_id: 0.into(),
        credit_account_id: customer(THERE).get().into(),
        kind: TransferKind::Deposit as u8,
        ..payment(20, 3)
    };
    assert_eq!(bank.transfer_at(1, deposit), (None, 3, false, 0));
    assert_eq!(bank.transfer_at(0, local_hold(20, 9, 0, true)).0, None);
    bank.order(902, 0);
    bank.until("it is decided", |bank| bank.decided.contains_key(&902));
    bank.settle_down();
    assert_eq!(bank.found().len(), 1);
    assert_eq!(bank.found()[0].0, 0);
    assert_eq!(bank.transfer_at(0, ending(21, TransferKind::Settle, 20, 4)), (None, 4, false, 0));
    bank.mirrors();
}

#[test]
fn a_frozen_account_moves_and_stays_frozen() {
    let mut bank = Bank::with_other();
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)).0, None);
    assert!(matches!(bank.sides[0].ask(Op::FreezeAccount(customer(HERE))), ReplyBody::Item(..)));
    bank.move_over(900, 0);
    (0..2).for_each(|at| bank.restart(at));
    assert_eq!(bank.transfer_at(1, withdrawal(4, 1)).0, Some(Refusal::DebitAccountFrozen));
    assert_eq!(bank.transfer_at(1, ending(6, TransferKind::Settle, 5, 0)), (None, 30, false, 0), "what was promised");
    assert!(matches!(bank.sides[1].ask(Op::UnfreezeAccount(customer(HERE))), ReplyBody::Item(..)));
    assert_eq!(bank.transfer_at(1, withdrawal(7, 1)), (None, 1, false, 0));
    bank.settle_down();
    bank.mirrors();
}

#[test]
fn a_former_branch_that_does_not_answer_is_no_leave() {
    let mut bank = Bank::new();
    bank.move_over(900, 0);
    bank.deaf = |said| matches!(said, Said::AskId(_));
    assert_eq!(bank.transfer_at(1, withdrawal(4, 1)).0, Some(Refusal::FormerBranchUnreachable));
    bank.deaf = |_| false;
    assert_eq!(bank.transfer_at(1, withdrawal(4, 1)), (None, 1, false, 0));
    bank.sides[1].link.shared.set_linked(false);
    assert_eq!(bank.transfer_at(1, withdrawal(5, 1)).0, Some(Refusal::FormerBranchUnreachable));
    // What was done here is answered without asking anybody.
    assert_eq!(bank.transfer_at(1, withdrawal(4, 1)), (None, 1, true, 0));
    // Batches name no account that has moved.
    let batch = Op::Batch(Bytes::copy_from_slice(withdrawal(6, 1).as_bytes()));
    let ReplyBody::Items(_, items) = bank.sides[1].ask(batch) else { panic!("one answer for each") };
    let items = <[message::ItemResult] as zerocopy::FromBytes>::ref_from_bytes(&items).expect("whole items");
    assert_eq!(Refusal::from_code(items[0].refusal.get()), Some(Refusal::MovedAccountSinglesOnly));
}

#[test]
fn a_payment_to_an_account_that_has_gone_is_sent_after_it_or_refused_for_good() {
    let mut bank = Bank::new();
    // Somebody else here, who pays the one that has gone.
    let other = AccountId::of_branch(HERE, 8);
    bank.open(0, other, 0);
    bank.move_over(900, 0);
    let pays = |id, amount| message::Transfer {
        debit_account_id: other.get().into(),
        credit_account_id: customer(HERE).get().into(),
        ..payment(id, amount)
    };
    assert_eq!(bank.pay(pays(10, 20)), (None, 20, false));
    bank.settle_down();
    assert_eq!(bank.found(), [(1, 120)]);
    assert_eq!(bank.pay(pays(10, 20)), (None, 20, true));
    bank.mirrors();
}
