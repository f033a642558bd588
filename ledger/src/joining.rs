//! A hold between two branches that becomes one within a branch: an account of it moves to where the other one is.
//!
//! ```text
//!                source branch                          destination branch
//!   before       A ---> "due to destination"            "due from source" ---> B
//!   A goes       (nothing)                              A ---> B
//!
//!   before       "due from destination" ---> B          A ---> "due to source"
//!   B goes       (nothing)                              A ---> B
//! ```
//!
//! The destination has half of the hold already, under the same id. Before it votes it marks that half ([`HoldStage::Joining`]),
//! and with the commit the account takes the place of the settlement account in it. The source drops its own half with the account.
//! No money crosses: what is held there comes with the account, and what was held for it here is held for that account now.
//!
//! Where the payer goes, only the source could end the hold, and there the account is sealed. Where the payee goes, it is the
//! destination that ends it (or, for a hold that is passed on, hears of the end), and must not while the move is in doubt: the source holds the
//! money with an account that can take nothing. So a marked half stands still, in either case alike.
//!
//! **Invariant:** a marked half is neither settled, voided nor expired, and its other account does not leave, before the move
//! is decided. Then both halves are one, or both are as they were.

use tally_protocol::link::{MoveHold, MoveItem, move_side};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, Currency, Refusal, Timestamp, TransferId};

use crate::account::{Account, Sums};
use crate::closing::StatusChange;
use crate::decide::end_hold;
use crate::hold::{Hold, HoldStage};
use crate::journal::record::{RecordBody, TransferRecord};
use crate::leg::Leg;
use crate::moving::{minus, plus, record_of};
use crate::outcome::{Outcome, hold_end_record};
use crate::transfer::ensure;

/// An account on its way here, which is to take the place of a settlement account in a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Which.
    pub account_id: AccountId,
    /// The other account of the hold, wherever that is.
    pub other_account_id: AccountId,
    /// Where it is the payer: when the hold was made there, for its day is the one whose limit it counts for.
    pub made_at: Timestamp,
    /// Where it is the payer: when the hold ends by itself; [`Timestamp::MAX`] for never.
    pub expires_at: Timestamp,
}

impl Joining {
    /// What the record says that leaves the settlement account in its place; `None` where no account comes.
    pub(crate) fn of_record(record: &TransferRecord) -> Option<Self> {
        let made_at = Timestamp::from_nanos(record.user_data_64);
        let expires_at = match record.timeout_s {
            0 => Timestamp::MAX,
            seconds => made_at.checked_add_seconds(seconds).unwrap_or(Timestamp::MAX),
        };
        let account_id = AccountId::new(record.reference.get());
        let other_account_id = AccountId::new(record.user_data_128);
        (!record.reference.is_none()).then_some(Self { account_id, other_account_id, made_at, expires_at })
    }
}

/// Whether the account `moving` can join the hold that is `open` here under the id of `wanted`. `settlement_id` is the settlement
/// account for the branch that it comes from; `is_here` whether an account of this branch is neither on its way nor gone.
///
/// # Errors
/// `AccountHasHolds`: not now. The hold has ended here and the other branch has not heard, or its decision or another account of
/// it is on its way. `AccountHoldsStay`: what is open here is another hold.
pub fn may_join(
    (moving, wanted): (&MoveItem, &MoveHold),
    open: Option<&Hold>,
    settlement_id: AccountId,
    is_here: impl Fn(AccountId) -> bool,
) -> Result<(), Refusal> {
    let hold = open.ok_or(Refusal::AccountHasHolds)?;
    let is_debited = wanted.side == move_side::DEBIT;
    let (place, other) = if is_debited {
        (hold.debit_account_id, hold.credit_account_id)
    } else {
        (hold.credit_account_id, hold.debit_account_id)
    };
    let is_other = other.settlement_peer().is_some() || other.get() == wanted.other_account_id.get();
    let is_same = place == settlement_id
        && is_other
        && hold.amount.get() == wanted.amount.get()
        && Some(hold.currency) == Currency::new(moving.currency.get());
    ensure(is_same, Refusal::AccountHoldsStay)?;
    ensure(hold.stage == HoldStage::Open && is_here(other), Refusal::AccountHasHolds)
}

/// The settlement account stays in its place for now: the account that `wanted` comes with is to take it.
pub(crate) fn await_joining(wanted: &MoveHold, account_id: AccountId, settlement: &Account) -> RecordBody {
    RecordBody::Rehomed(TransferRecord {
        kind: TransferKind::Hold,
        code: wanted.code.get(),
        reference: TransferId::new(account_id.get()),
        user_data_128: wanted.other_account_id.get(),
        user_data_64: wanted.made_at.get(),
        timeout_s: wanted.timeout_s.get(),
        ..stays(TransferId::new(wanted.id.get()), Amount::new(wanted.amount.get()), settlement)
    })
}

/// The account does not come: the settlement account stays in its place.
pub(crate) fn stay_apart(hold: &Hold, settlement: &Account) -> RecordBody {
    RecordBody::Rehomed(TransferRecord {
        kind: TransferKind::Hold,
        code: hold.code,
        ..stays(hold.id, hold.amount, settlement)
    })
}

/// The account has come: it takes the place of the settlement account.
pub(crate) fn join(hold: &Hold, account: &mut Account, settlement: &mut Account) -> RecordBody {
    if hold.debit_account_id == settlement.id {
        settlement.sums.debits_held = minus(settlement.sums.debits_held, hold.amount);
        account.sums.debits_held = plus(account.sums.debits_held, hold.amount);
    } else {
        settlement.sums.credits_held = minus(settlement.sums.credits_held, hold.amount);
        account.sums.credits_held = plus(account.sums.credits_held, hold.amount);
    }
    RecordBody::Rehomed(TransferRecord {
        kind: TransferKind::Hold,
        code: hold.code,
        ..record_of(hold.id, Leg::Whole, hold.amount, (account, settlement))
    })
}

/// The account has gone to where the rest of the hold is, and what is here of it with that. Nothing is posted.
pub(crate) fn leave(hold: &Hold, account: &mut Account, settlement: &mut Account) -> RecordBody {
    let is_debited = hold.debit_account_id == account.id;
    let (debit, credit) = if is_debited { (&*account, &*settlement) } else { (&*settlement, &*account) };
    let ended = end_hold(hold, (Amount::ZERO, Amount::ZERO), StatusChange::NONE, debit, credit);
    // What was spent on that day goes along as it is.
    let outcome = Outcome { day_spent: debit.day_spent, ..ended };
    let record = hold_end_record(hold, &outcome);
    (account.sums, settlement.sums) =
        if is_debited { (outcome.debit, outcome.credit) } else { (outcome.credit, outcome.debit) };
    RecordBody::Decided(Some(Refusal::HoldElsewhere), record)
}

/// Whether the account has room for what will be held on it once it has joined these holds.
pub(crate) fn check_room<'a>(sums: &Sums, joined: impl Iterator<Item = &'a MoveHold>) -> Result<(), Refusal> {
    let (mut debits, mut credits) = (sums.debits(), sums.credits());
    for hold in joined {
        let amount = Amount::new(hold.amount.get());
        if hold.side == move_side::DEBIT {
            debits = debits.checked_add(amount).ok_or(Refusal::OverflowsDebitsHeld)?;
        } else {
            credits = credits.checked_add(amount).ok_or(Refusal::OverflowsCreditsHeld)?;
        }
    }
    Ok(())
}

fn stays(id: TransferId, amount: Amount, settlement: &Account) -> TransferRecord {
    record_of(id, Leg::Whole, amount, (settlement, settlement))
}

#[cfg(test)]
mod tests {
    use tally_protocol::link::AccountMove;
    use tally_protocol::{AccountKind, AccountStatus, BranchId, CustomerId, Lsn};
    use zerocopy::FromZeros;

    use super::*;
    use crate::closing::Closes;
    use crate::journal::record::Record;
    use crate::two_phase::{AbortReason, Attempt, Decision};
    use crate::{Ended, RecordEffect, arrive, cash_account, check, end_move, seal, settlement_account};

    const HERE: BranchId = BranchId::new(1);
    const THERE: BranchId = BranchId::new(2);
    const THIRD: BranchId = BranchId::new(3);
    const ANN: AccountId = AccountId::of_branch(HERE, 7);
    const BOB: AccountId = AccountId::of_branch(THERE, 8);
    const FAR: AccountId = AccountId::of_branch(THIRD, 9);
    const MADE: Timestamp = Timestamp::from_nanos(7);
    const SECOND_NS: u64 = 1_000_000_000;

    fn due(branch: BranchId, peer: BranchId) -> AccountId {
        AccountId::of_settlement(branch, peer, Currency::EUR)
    }

    fn account(id: AccountId) -> Account {
        Account { id, kind: AccountKind::Customer, ..cash_account(id.branch(), Currency::EUR, MADE) }
    }

    /// A part of a hold of 12 that stands.
    fn part((debit, credit): (AccountId, AccountId), far: AccountId) -> Hold {
        let leg = if debit.settlement_peer().is_some() { Leg::Destination } else { Leg::Source };
        Hold {
            id: TransferId::new(5),
            debit_account_id: debit,
            credit_account_id: credit,
            amount: Amount::new(12),
            currency: Currency::EUR,
            code: 4,
            expires_at: if leg == Leg::Source { Timestamp::from_nanos(60 * SECOND_NS + 7) } else { Timestamp::MAX },
            lsn: Lsn::new(32),
            leg,
            far_account_id: far,
            timestamp: MADE,
            closes: Closes::NONE,
            stage: HoldStage::Open,
            attempt: Attempt::ONLY,
            chain: None,
        }
    }

    /// The accounts with what the hold holds on them; the customer's have money.
    fn accounts_of(hold: &Hold) -> [Account; 2] {
        [(hold.debit_account_id, true), (hold.credit_account_id, false)].map(|(id, is_debited)| {
            let mut account = match id.settlement_peer() {
                Some(peer) => settlement_account(HERE, peer, Currency::EUR, MADE),
                None => account(id),
            };
            account.id = id;
            let held = if is_debited { &mut account.sums.debits_held } else { &mut account.sums.credits_held };
            *held = hold.amount;
            // On the day of which it is part.
            account.day_spent = if is_debited && id.settlement_peer().is_none() { hold.amount } else { Amount::ZERO };
            account
        })
    }

    fn survives(body: &RecordBody) {
        let record = Record { lsn: Lsn::new(64), timestamp: MADE, actor: CustomerId::BANK, body: body.clone() };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    fn take(accounts: &[Account], id: AccountId) -> Account {
        accounts.iter().find(|account| account.id == id).expect("it is there").clone()
    }

    /// Who moves, what there is of the hold at either branch before it, and what the destination has after a commit.
    fn table() -> [(AccountId, Hold, Hold, Hold); 4] {
        let (to_there, from_here) = (due(HERE, THERE), due(THERE, HERE));
        let (to_third, from_third) = (due(THERE, THIRD), due(THERE, THIRD));
        let whole = Hold { leg: Leg::Whole, ..part((ANN, BOB), ANN) };
        let payer = |hold: Hold| Hold { expires_at: part((ANN, to_there), BOB).expires_at, ..hold };
        [
            (ANN, part((ANN, to_there), BOB), part((from_here, BOB), ANN), payer(whole)),
            // The payee goes: the clock was there all the time.
            (BOB, part((to_there, BOB), ANN), part((ANN, from_here), BOB), Hold { far_account_id: BOB, ..whole }),
            // One that the destination passes on.
            (ANN, part((ANN, to_there), FAR), part((from_here, to_third), FAR), payer(part((ANN, to_third), FAR))),
            (BOB, part((to_there, BOB), FAR), part((from_third, from_here), FAR), part((from_third, BOB), FAR)),
        ]
    }

    #[test]
    fn two_halves_become_one_or_stay_as_they_were() {
        for (mover, left, open, joined) in table() {
            for decision in [Decision::Commit, Decision::Abort(AbortReason::Presumed)] {
                let here = accounts_of(&left);
                let id = TransferId::new(99);
                let (sealed, moving) =
                    seal(id, Some(&take(&here, mover)), &take(&here, due(HERE, THERE)), (HERE, THERE), &[left])
                        .expect("nothing is in its way");
                assert_eq!((moving.body().invalid_field(), moving.holds[0].joins), (None, 1));
                let mut there = accounts_of(&open);
                let from_here = take(&there, due(THERE, HERE));
                let wanted = (&moving.account, &moving.holds[0]);
                assert_eq!(may_join(wanted, Some(&open), from_here.id, |_| true), Ok(()));
                let arrived = arrive(&moving, &from_here).expect("nothing is in its way");
                let [mark] = &arrived.holds[..] else { panic!("{:?}", arrived.holds) };
                let effect = RecordEffect::of(mark, Lsn::new(64), MADE);
                let RecordEffect::HoldJoining(of, Some(joining)) = effect else { panic!("{effect:?}") };
                assert_eq!((of, joining.account_id), (left.id, mover));
                assert_eq!(check::account(&arrived.account), Ok(()));
                // No money of the hold has moved: what the settlement account holds more is the account's balance, which is 0.
                assert_eq!(arrived.settlement.sums, from_here.sums);
                let waiting = Hold { stage: HoldStage::Joining(joining), ..open };
                assert!(!waiting.has_timeout() && !waiting.is_in_doubt());

                let money = |step: &crate::MoveStep| match RecordEffect::of_transfer(&step.money, Lsn::new(64), MADE) {
                    RecordEffect::HoldOpened(hold) => hold,
                    other => panic!("{other:?}"),
                };
                let gone = end_move(&money(&sealed), decision, &sealed.account, &sealed.settlement, THERE, &[left]);
                let come =
                    end_move(&money(&arrived), decision, &arrived.account, &arrived.settlement, HERE, &[waiting]);
                let [last] = &come.holds[..] else { panic!("{:?}", come.holds) };
                for body in [mark, last].into_iter().chain(&gone.holds) {
                    survives(body);
                }
                let after = match RecordEffect::of(last, Lsn::new(64), MADE) {
                    RecordEffect::HoldRehomed { id: _, from, to } => waiting.rehomed(from, to).expect("it is on it"),
                    RecordEffect::HoldJoining(_, None) => waiting.joining_none(),
                    other => panic!("{other:?}"),
                };
                let is_there = decision == Decision::Commit;
                assert_eq!(after, if is_there { Hold { far_account_id: left.far_account_id, ..joined } } else { open });
                assert_eq!(after.has_joined(), is_there && after.leg == Leg::Whole);

                let other = if left.debit_account_id == mover { left.credit_account_id } else { left.debit_account_id };
                assert_eq!(other, gone.settlement.id, "all that is left here of it");
                if is_there {
                    assert_eq!((gone.account.status, gone.account.sums.is_settled()), (AccountStatus::Moved, true));
                    assert!(gone.settlement.sums.is_settled());
                    let [body] = &gone.holds[..] else { panic!("{:?}", gone.holds) };
                    assert_eq!(Ended::of_record(body), Some(Ended::Gone(THERE)));
                    assert_eq!(crate::Ending::of_record(body, Lsn::new(64), MADE), None, "nobody is told");
                } else {
                    assert_eq!(gone.holds, []);
                    assert_eq!(
                        (gone.account.sums, gone.account.status),
                        (take(&here, mover).sums, AccountStatus::Open)
                    );
                }
                let place = there.iter().position(|account| account.id == from_here.id).expect("it is one of them");
                there[place] = come.settlement.clone();
                let all: Vec<Account> = there.into_iter().chain([come.account.clone()]).collect();
                assert_eq!(check::state(&all, &[after]), Ok(()));
                let spent = if is_there { come.account.day_spent } else { gone.account.day_spent };
                assert_eq!(spent, take(&here, mover).day_spent);
            }
        }
    }

    #[test]
    fn what_is_not_the_other_half_or_not_still_is_not_joined() {
        let (mover, left, open, _) = table()[0];
        let here = accounts_of(&left);
        let (_, AccountMove { account: item, holds }) = seal(
            TransferId::new(99),
            Some(&take(&here, mover)),
            &take(&here, due(HERE, THERE)),
            (HERE, THERE),
            &[left],
        )
        .expect("nothing is in its way");
        let joins = |open: Option<Hold>, is_here: bool| {
            may_join((&item, &holds[0]), open.as_ref(), due(THERE, HERE), |_| is_here).err()
        };
        assert_eq!(joins(Some(open), true), None);
        assert_eq!(joins(None, true), Some(Refusal::AccountHasHolds), "it has ended");
        assert_eq!(joins(Some(open), false), Some(Refusal::AccountHasHolds), "its other account is on its way");
        let joining =
            HoldStage::Joining(Joining { account_id: FAR, other_account_id: BOB, made_at: MADE, expires_at: MADE });
        for stage in [HoldStage::AwaitsKeeping, joining] {
            assert_eq!(joins(Some(Hold { stage, ..open }), true), Some(Refusal::AccountHasHolds), "{stage:?}");
        }
        for other in [
            Hold { amount: Amount::new(13), ..open },
            Hold { currency: Currency::USD, ..open },
            Hold { debit_account_id: due(THERE, THIRD), ..open },
            Hold { debit_account_id: FAR, leg: Leg::Whole, ..open },
            Hold { credit_account_id: FAR, ..open },
            // The same, the other way about.
            Hold { debit_account_id: BOB, credit_account_id: due(THERE, HERE), ..open },
        ] {
            assert_eq!(joins(Some(other), true), Some(Refusal::AccountHoldsStay), "{other:?}");
        }
    }

    #[test]
    fn an_account_without_room_for_what_it_joins_does_not_come() {
        let item = MoveItem {
            id: 1.into(),
            account_id: ANN.get().into(),
            currency: Currency::EUR.get().into(),
            kind: 1,
            moves: 1,
            source: HERE.get().into(),
            destination: THERE.get().into(),
            former: [HERE.get().into(), 0.into(), 0.into()],
            credits_posted: (u64::MAX - 20).into(),
            ..MoveItem::new_zeroed()
        };
        let hold = MoveHold {
            id: 5.into(),
            other_account_id: BOB.get().into(),
            amount: 20.into(),
            side: move_side::CREDIT,
            joins: 1,
            ..MoveHold::new_zeroed()
        };
        let with = |amount: u64| {
            let moving = AccountMove::new(item, vec![MoveHold { amount: amount.into(), ..hold }]);
            arrive(&moving, &settlement_account(THERE, HERE, Currency::EUR, MADE)).err()
        };
        assert_eq!([with(20), with(21)], [None, Some(Refusal::OverflowsCreditsHeld)]);
    }

    /// Replay may meet a state that is ahead of the record.
    #[test]
    fn to_join_twice_changes_nothing() {
        let (mover, _, open, _) = table()[0];
        let joining = Joining { account_id: mover, other_account_id: BOB, made_at: MADE, expires_at: MADE };
        let waiting = Hold { stage: HoldStage::Joining(joining), ..open };
        let joined = waiting.rehomed(due(THERE, HERE), mover).expect("it is on it");
        assert_eq!((joined.expires_at, joined.timestamp, joined.stage), (MADE, MADE, HoldStage::Open));
        let again = Hold { stage: HoldStage::Joining(joining), ..joined };
        assert_eq!(again.rehomed(due(THERE, HERE), mover), None);
        assert_eq!(again.joining_none(), joined);
    }
}
