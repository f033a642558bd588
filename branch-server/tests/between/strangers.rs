//! An id that clients have used for several things: what became of the one is told to a branch that has another one under it. It
//! acknowledges an abort, as it has nothing to give back, and nothing happens to what it has.

use tally_ledger::two_phase::Objection;

use super::moves::{OTHER, local_hold};
use super::*;

const ABORT: Decision = Decision::Abort(AbortReason::Presumed);

impl Bank {
    /// The registry has aborted `id`, and tells it until all `branches` have acknowledged that.
    fn abort_of_others(&mut self, id: u128, branches: &[BranchId]) {
        let participants = Participants::of(branches.iter().copied()).expect("a few");
        self.coordinators.remove(&id);
        self.coordinate(id, CoordinatorEvent::Replicated { decision: ABORT, participants });
        self.until("the abort of something else is acknowledged", |bank| {
            matches!(bank.coordinators[&id], Coordinator::Done(_))
        });
        self.coordinators.remove(&id);
    }

    fn contradictions(&self) -> u64 {
        let of = |side: &Side| side.link.shared.stats.contradictions.load(std::sync::atomic::Ordering::Relaxed);
        self.sides.iter().map(of).sum()
    }
}

#[test]
fn what_was_made_within_a_branch_stays_as_it_is() {
    let mut bank = Bank::with_other();
    let to_other = message::Transfer { credit_account_id: OTHER.get().into(), ..payment(4, 5) };
    assert_eq!(bank.transfer_at(0, to_other), (None, 5, false, 0));
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)), (None, 30, false, 0));
    assert_eq!(bank.transfer_at(0, local_hold(6, 20, 0, false)), (None, 20, false, 0));
    let before = |bank: &mut Bank| [bank.sides[0].sums(customer(HERE)), bank.sides[0].sums(OTHER)];
    let sums = before(&mut bank);
    for id in [4, 5, 6] {
        bank.abort_of_others(id, &[HERE]);
    }
    assert_eq!(before(&mut bank), sums);
    // Also when it has ended.
    assert_eq!(bank.transfer_at(0, ending(10, TransferKind::Settle, 5, 12)), (None, 12, false, 0));
    assert_eq!(bank.transfer_at(0, ending(11, TransferKind::Void, 6, 0)), (None, 20, false, 0));
    let sums = before(&mut bank);
    for id in [5, 6] {
        bank.abort_of_others(id, &[HERE]);
    }
    assert_eq!((before(&mut bank), bank.contradictions()), (sums, 0));
}

/// Within one branch when it was made, then between two: it is ended by the payer's branch, and by no decision.
#[test]
fn a_hold_that_has_gone_along_stays_as_it_is() {
    let mut bank = Bank::with_other();
    assert_eq!(bank.transfer_at(0, local_hold(5, 30, 0, true)).0, None);
    assert_eq!(bank.transfer_at(0, local_hold(6, 20, 0, false)).0, None);
    // While the move is in doubt.
    bank.decides = false;
    bank.order(900, 0);
    bank.until("both have promised", |bank| in_doubt(bank) == [1, 1]);
    for id in [5, 6] {
        bank.abort_of_others(id, &[THERE]);
    }
    bank.decides = true;
    bank.coordinate(900, CoordinatorEvent::Tick(Timestamp::default()));
    bank.settle_down();
    for _ in 0..2 {
        assert_eq!(bank.sides[1].sums(customer(HERE)), [30, 0, 20, 100]);
        assert_eq!(bank.sides[0].sums(OTHER), [20, 0, 30, 50]);
        for id in [5, 6] {
            bank.abort_of_others(id, &BRANCHES);
        }
        assert_eq!(bank.contradictions(), 0);
        (0..2).for_each(|at| bank.restart(at));
    }
    assert_eq!(bank.transfer_at(1, ending(10, TransferKind::Settle, 5, 12)), (None, 12, false, 0));
    assert_eq!(bank.transfer_at(0, ending(11, TransferKind::Void, 6, 0)), (None, 20, false, 0));
    bank.settle_down();
    for id in [5, 6] {
        bank.abort_of_others(id, &BRANCHES);
    }
    assert_eq!(bank.contradictions(), 0);
    assert_eq!(bank.sides[1].sums(customer(HERE)), [0, 12, 0, 100]);
    assert_eq!(bank.sides[0].sums(OTHER), [0, 0, 0, 62]);
    bank.mirrors();
}

/// Somebody pays an account that is on its way, under the id of a hold that comes along with it: that is another id to be used.
#[test]
fn a_hold_that_comes_along_is_no_part_of_a_payment_with_its_id() {
    let mut bank = Bank::with_other();
    bank.open(0, AccountId::of_branch(HERE, 9), 0);
    assert_eq!(bank.transfer_at(0, local_hold(6, 20, 0, false)).0, None);
    for is_in_doubt in [true, false] {
        bank.decides = !is_in_doubt;
        if is_in_doubt {
            bank.order(900, 0);
            bank.until("both have promised", |bank| in_doubt(bank) == [1, 1]);
        } else {
            bank.coordinate(900, CoordinatorEvent::Tick(Timestamp::default()));
            bank.settle_down();
        }
        // As another branch would begin it.
        let wire = message::Transfer { debit_account_id: OTHER.get().into(), ..payment(6, 7) };
        let wire = message::Transfer { credit_account_id: customer(HERE).get().into(), ..wire };
        let cross = CrossTransfer::new(wire, 1, u64::MAX, 0, HERE, THERE);
        bank.coordinators.remove(&6);
        bank.begun.insert(6, cross);
        let begun = begin(HERE, Attempt::of_cross(&cross), true);
        bank.coordinate(6, begun);
        bank.until("it is refused", |bank| match bank.coordinators[&6] {
            Coordinator::Deciding { .. } => is_in_doubt,
            state => matches!(state, Coordinator::Done(_)),
        });
        let said = match bank.coordinators[&6] {
            Coordinator::Deciding { proposed, .. } => proposed,
            Coordinator::Done(decision) => decision,
            other => panic!("{other:?}"),
        };
        let is_used = |why: Objection| why.refusal == Refusal::IdAlreadyUsed;
        assert!(matches!(said, Decision::Abort(AbortReason::Refused(THERE, why)) if is_used(why)), "{said:?}");
        bank.coordinators.remove(&6);
        bank.decided.remove(&6);
    }
    assert_eq!(bank.sides[1].sums(customer(HERE)), [0, 0, 20, 100]);
    assert_eq!(bank.transfer_at(0, ending(11, TransferKind::Settle, 6, 0)), (None, 20, false, 0));
    bank.settle_down();
    assert_eq!(bank.sides[1].sums(customer(HERE)), [0, 0, 0, 120]);
    bank.mirrors();
}
