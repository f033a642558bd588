//! Moving an account from one branch to another: a transfer between the two of its whole balance, from the account to
//! itself, with all that the account is beside.
//!
//! ```text
//!   source branch:       open --seal--> moving --commit--> moved (empty; says where it went)
//!                         ^                '-----abort-----> open
//!                         '------------------------'
//!   destination branch:  (nothing, or moved) --arrive--> arriving --commit--> open
//!                                                           '-------abort--> moved (empty; says where it is)
//! ```
//!
//! Each step is two records side by side: of the money, which is a [`Leg`] like that of any transfer between branches, and of
//! the account. So what proves that money is neither made nor lost between branches proves it of moves as well.
//!
//! What the account was ever debited and credited goes along: D and C. The source posts the difference out, so that C and D
//! are both max(C, D) in what is left there. The destination begins with min(C, D) on both sides and posts the difference in.
//! Both are nothing on balance.
//!
//! Open holds go along. From then on each is a hold between branches, with the settlement account of either branch in the place
//! of what is at the other:
//!
//! ```text
//!   before   source branch:       A ---> B
//!   A goes   source branch:       "due from destination" ---> B      destination branch:  A ---> "due to source"
//!   B goes   source branch:       A ---> "due to destination"        destination branch:  "due from source" ---> B
//! ```
//!
//! If B is at a third branch, the source's hold is between two settlement accounts: it is passed on ([`Hold::rehomed`]). If B is at
//! the destination, the hold is one within that from then on (`joining.rs`). The
//! destination holds the money with the account, before it votes. The source changes its holds when it hears the commit; until
//! then nobody ends them, for the account is closed to all.
//!
//! **Invariant:** while an account is moving or arriving nothing but the decision on its move changes its sums.

use tally_protocol::link::{AccountMove, FORMER_BRANCHES_MAX, MOVE_HOLDS_MAX, MoveHold, MoveItem, move_side};
use tally_protocol::message::{TransferKind, account_flags};
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};

use crate::account::{Account, Residence, Sums};
use crate::account_change::is_here;
use crate::closing::{Closes, StatusChange};
use crate::decide::{check_sums, end_hold};
use crate::hold::{Hold, HoldStage};
use crate::joining::{await_joining, check_room as check_room_to_join, join, leave, stay_apart};
use crate::journal::record::{
    CAME_ALONG, GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, RecordBody, TransferRecord,
};
use crate::leg::{Leg, decide_leg, refusal_of};
use crate::outcome::{Outcome, hold_end_record};
use crate::transfer::ensure;
use crate::two_phase::Decision;

/// An account that is frozen where it was stays so: the mark of one on its way, which nobody is shown.
const STAYS_FROZEN: u16 = 1 << 13;

/// One step of a move at one branch. Position and stamps are the caller's to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveStep {
    /// The account's sums in front of all that the step does to them.
    pub before: Sums,
    /// What happened to open holds, in front of the money.
    pub holds: Vec<RecordBody>,
    /// The account after it.
    pub account: Account,
    /// The settlement account for the other branch after it.
    pub settlement: Account,
    /// What happened to the money.
    pub money: TransferRecord,
}

/// Seals an account of branch `here`, which is to move to `destination`: the source's prepare. Also what the destination
/// needs; its `stamp` and `deadline` are left 0. `holds` are all that are open on the account, by id.
///
/// # Errors
/// The first that applies: `AccountNotFound`, `AccountIdReserved` (the branch's own), `AccountMoved`, `AccountMoving`,
/// `AccountClosed`, `AccountHasHolds` (the registry has not decided one), `AccountHoldsStay`, `AccountMovedTooOften`, and those of
/// sums that would not fit.
pub fn seal(
    id: TransferId,
    account: Option<&Account>,
    settlement: &Account,
    (here, destination): (BranchId, BranchId),
    holds: &[Hold],
) -> Result<(MoveStep, AccountMove), Refusal> {
    let account = account.ok_or(Refusal::AccountNotFound)?;
    ensure(!account.id.is_house(), Refusal::AccountIdReserved)?;
    is_here(account)?;
    match account.status {
        AccountStatus::Open | AccountStatus::Frozen => {}
        AccountStatus::Closed
        | AccountStatus::Closing
        | AccountStatus::Moving
        | AccountStatus::Moved
        | AccountStatus::Arriving => return Err(Refusal::AccountClosed),
    }
    ensure(holds.iter().all(|hold| hold.stage == HoldStage::Open), Refusal::AccountHasHolds)?;
    ensure(
        holds.len() <= MOVE_HOLDS_MAX && holds.iter().all(|hold| hold.closes == Closes::NONE),
        Refusal::AccountHoldsStay,
    )?;
    let Sums { debits_posted, credits_posted, .. } = account.sums;
    let former = former_branches(account, here, destination).ok_or(Refusal::AccountMovedTooOften)?;
    let is_debited = credits_posted >= debits_posted;
    let frozen = if account.status == AccountStatus::Frozen { STAYS_FROZEN } else { 0 };
    let item = MoveItem {
        id: id.get().into(),
        account_id: account.id.get().into(),
        user_data_128: account.user_data_128.into(),
        stamp: 0.into(),
        deadline: 0.into(),
        owner: account.owner.get().into(),
        user_data_64: account.user_data_64.into(),
        overdraft: account.overdraft.get().into(),
        day_limit: account.day_limit.get().into(),
        day_spent: account.day_spent.get().into(),
        opened_at: account.opened_at.as_nanos().into(),
        debits_posted: debits_posted.get().into(),
        credits_posted: credits_posted.get().into(),
        user_data_32: account.user_data_32.into(),
        day: account.day.into(),
        currency: account.currency.get().into(),
        code: account.code.into(),
        flags: (account.flags | frozen).into(),
        kind: account.kind as u8,
        moves: account.residence.moves + 1,
        source: here.get().into(),
        destination: destination.get().into(),
        former: former.map(|branch| branch.get().into()),
        holds: 0.into(),
        reserved: [0; 4],
    };
    let flags = account.flags | frozen;
    let moving = Account { status: AccountStatus::Moving, flags, ..account.clone() };
    let balance = difference(debits_posted, credits_posted);
    let step = hold_balance(id, moving, settlement.clone(), (is_debited, balance))?;
    check_room(account, &step.settlement.sums)?;
    let holds = holds.iter().map(|hold| goes_along(hold, account.id, destination)).collect();
    Ok((step, AccountMove::new(item, holds)))
}

/// Whether the rest of the hold is at `branch`.
fn is_with(hold: &Hold, branch: BranchId) -> bool {
    [hold.debit_account_id, hold.credit_account_id].iter().any(|id| id.settlement_peer() == Some(branch))
}

/// The settlement account takes over what is held on the account when the move is decided, and that must not fail then. Others
/// use it meanwhile, so half of what it can ever count is left to them.
fn check_room(account: &Account, settlement: &Sums) -> Result<(), Refusal> {
    let fits = |held: Amount, total: Amount| held.is_zero() || total.checked_add(held).is_some_and(|sum| sum <= ROOM);
    ensure(fits(account.sums.debits_held, settlement.debits()), Refusal::OverflowsDebitsHeld)?;
    ensure(fits(account.sums.credits_held, settlement.credits()), Refusal::OverflowsCreditsHeld)
}

/// See [`check_room`].
const ROOM: Amount = Amount::new(u64::MAX / 2);

/// What the destination needs of a hold.
fn goes_along(hold: &Hold, account_id: AccountId, destination: BranchId) -> MoveHold {
    let is_debited = hold.debit_account_id == account_id;
    let other = match (hold.leg, is_debited) {
        (Leg::Whole | Leg::Inner, true) => hold.credit_account_id,
        (Leg::Whole | Leg::Inner, false) => hold.debit_account_id,
        (Leg::Source | Leg::Destination, _) => hold.far_account_id,
    };
    let timeout_s = match hold.expires_at {
        _ if !is_debited => 0,
        Timestamp::MAX => 0,
        at => at.as_nanos().saturating_sub(hold.timestamp.as_nanos()) / 1_000_000_000,
    };
    MoveHold {
        id: hold.id.get().into(),
        other_account_id: other.get().into(),
        amount: hold.amount.get().into(),
        made_at: hold.timestamp.as_nanos().into(),
        timeout_s: u32::try_from(timeout_s).unwrap_or(u32::MAX).into(),
        code: hold.code.into(),
        side: if is_debited { move_side::DEBIT } else { move_side::CREDIT },
        joins: is_with(hold, destination) as u8,
        reserved: [0; 8],
    }
}

/// Takes an account in, with the holds that come along, still closed to everybody: the destination's prepare. Those that it joins
/// are open here, and [`crate::may_join`].
///
/// # Errors
/// Those of sums that would not fit.
///
/// # Panics
/// When `moving` is not valid ([`tally_protocol::link::MoveBody::invalid_field`]).
pub fn arrive(moving: &AccountMove, settlement: &Account) -> Result<MoveStep, Refusal> {
    let item = &moving.account;
    let (debits, credits) = (Amount::new(item.debits_posted.get()), Amount::new(item.credits_posted.get()));
    let both = debits.min(credits);
    let mut account = Account {
        id: AccountId::new(item.account_id.get()),
        owner: CustomerId::new(item.owner.get()),
        user_data_128: item.user_data_128.get(),
        user_data_64: item.user_data_64.get(),
        user_data_32: item.user_data_32.get(),
        currency: Currency::new(item.currency.get()).expect("checked with the item"),
        code: item.code.get(),
        flags: item.flags.get() | account_flags::HAS_MOVED,
        kind: AccountKind::from_wire(item.kind).expect("checked with the item"),
        status: AccountStatus::Arriving,
        overdraft: Amount::new(item.overdraft.get()),
        day_limit: Amount::new(item.day_limit.get()),
        day_spent: Amount::new(item.day_spent.get()),
        day: item.day.get(),
        sums: Sums { debits_posted: both, credits_posted: both, ..Sums::default() },
        opened_at: Timestamp::from_nanos(item.opened_at.get()),
        lsn: Lsn::ZERO,
        timestamp: Timestamp::default(),
        residence: Residence { moves: item.moves, branches: item.former.map(|branch| BranchId::new(branch.get())) },
    };
    let (before, mut settlement) = (account.sums, settlement.clone());
    let account_id = account.id;
    let holds = moving.holds.iter().map(|hold| match hold.joins {
        0 => come_along(hold, &mut account, &mut settlement),
        _ => Ok(await_joining(hold, account_id, &settlement)),
    });
    let holds = holds.collect::<Result<Vec<_>, _>>()?;
    let balance = difference(debits, credits);
    let step = hold_balance(TransferId::new(item.id.get()), account, settlement, (credits < debits, balance))?;
    check_room_to_join(&step.account.sums, moving.holds.iter().filter(|hold| hold.joins != 0))?;
    Ok(MoveStep { before, holds, ..step })
}

/// Holds at the destination what was held on the account at the source.
fn come_along(hold: &MoveHold, account: &mut Account, settlement: &mut Account) -> Result<RecordBody, Refusal> {
    let is_debited = hold.side == move_side::DEBIT;
    let leg = if is_debited { Leg::Source } else { Leg::Destination };
    let (debit, credit) = if is_debited { (account, settlement) } else { (settlement, account) };
    let amount = Amount::new(hold.amount.get());
    check_sums(amount, true, &debit.sums, &credit.sums)?;
    debit.sums.debits_held = plus(debit.sums.debits_held, amount);
    credit.sums.credits_held = plus(credit.sums.credits_held, amount);
    let given = GIVEN_DEBIT | GIVEN_CREDIT | GIVEN_CURRENCY | GIVEN_CODE | CAME_ALONG;
    Ok(RecordBody::Transfer(TransferRecord {
        code: hold.code.get(),
        kind: TransferKind::Hold,
        given,
        reference: TransferId::new(hold.other_account_id.get()),
        user_data_64: hold.made_at.get(),
        timeout_s: hold.timeout_s.get(),
        ..record_of(TransferId::new(hold.id.get()), leg, amount, (debit, credit))
    }))
}

/// Ends the move whose money `hold` holds, and what it does to `holds`: all others that are open on the account or wait for it, by id. Never
/// refused: whatever could refuse it was reserved when it was prepared.
///
/// # Panics
/// When the account is neither moving nor arriving.
pub fn end_move(
    hold: &Hold,
    decision: Decision,
    account: &Account,
    settlement: &Account,
    peer: BranchId,
    holds: &[Hold],
) -> MoveStep {
    let posted = match decision {
        Decision::Commit => hold.amount,
        Decision::Abort(_) => Amount::ZERO,
    };
    let (mut account, mut settlement) = (account.clone(), settlement.clone());
    let before = account.sums;
    let holds = match (account.status, decision) {
        (AccountStatus::Moving, Decision::Commit) => {
            let part = |hold: &Hold| match is_with(hold, peer) {
                true => leave(hold, &mut account, &mut settlement),
                false => stay_behind(hold, &mut account, &mut settlement),
            };
            holds.iter().map(part).collect()
        }
        (AccountStatus::Arriving, _) => {
            let decide = |hold: &Hold| match (hold.joined_by(), decision) {
                (None, _) => decide_hold(hold, decision, &mut account, &mut settlement),
                (Some(_), Decision::Commit) => join(hold, &mut account, &mut settlement),
                (Some(_), Decision::Abort(_)) => stay_apart(hold, &settlement),
            };
            holds.iter().map(decide).collect()
        }
        _ => Vec::new(),
    };
    let is_debited = hold.leg == Leg::Source;
    let (debit, credit) = if is_debited { (&account, &settlement) } else { (&settlement, &account) };
    // The move is no spending: the day's limit neither stops it nor counts it.
    let outcome =
        Outcome { day_spent: debit.day_spent, ..end_hold(hold, (posted, posted), StatusChange::NONE, debit, credit) };
    let money = hold_end_record(hold, &outcome);
    (account.sums, settlement.sums) =
        if is_debited { (outcome.debit, outcome.credit) } else { (outcome.credit, outcome.debit) };
    let gone = |moves: u8| {
        let mut branches = [BranchId::default(); FORMER_BRANCHES_MAX];
        branches[0] = peer;
        Residence { moves, branches }
    };
    match (account.status, decision) {
        (AccountStatus::Moving, Decision::Commit) => {
            (account.status, account.residence) = (AccountStatus::Moved, gone(account.residence.moves + 1));
            account.flags |= account_flags::HAS_MOVED;
            account.flags &= !STAYS_FROZEN;
            account.day_spent = Amount::ZERO;
        }
        (AccountStatus::Moving, Decision::Abort(_)) | (AccountStatus::Arriving, Decision::Commit) => {
            let is_frozen = account.flags & STAYS_FROZEN != 0;
            account.status = if is_frozen { AccountStatus::Frozen } else { AccountStatus::Open };
            account.flags &= !STAYS_FROZEN;
        }
        (AccountStatus::Arriving, Decision::Abort(_)) => {
            account.flags &= !STAYS_FROZEN;
            (account.status, account.residence) = (AccountStatus::Moved, gone(account.residence.moves));
            account.day_spent = Amount::ZERO;
        }
        (status, _) => panic!("{} holds its balance for a move, and is {status:?}", account.id),
    }
    MoveStep { before, holds, account, settlement, money }
}

/// The account has gone: the settlement account has its place in the hold from here on.
fn stay_behind(hold: &Hold, account: &mut Account, settlement: &mut Account) -> RecordBody {
    if hold.debit_account_id == account.id {
        account.sums.debits_held = minus(account.sums.debits_held, hold.amount);
        settlement.sums.debits_held = plus(settlement.sums.debits_held, hold.amount);
    } else {
        account.sums.credits_held = minus(account.sums.credits_held, hold.amount);
        settlement.sums.credits_held = plus(settlement.sums.credits_held, hold.amount);
    }
    RecordBody::Rehomed(TransferRecord {
        kind: TransferKind::Hold,
        code: hold.code,
        ..record_of(hold.id, Leg::Whole, hold.amount, (settlement, account))
    })
}

/// A hold that came along stands, or is given back.
fn decide_hold(hold: &Hold, decision: Decision, account: &mut Account, settlement: &mut Account) -> RecordBody {
    let is_debited = hold.debit_account_id == account.id;
    let (debit, credit) = if is_debited { (&*account, &*settlement) } else { (&*settlement, &*account) };
    let outcome = decide_leg(hold, decision, debit, credit);
    let record = hold_end_record(hold, &outcome);
    (account.sums, settlement.sums) =
        if is_debited { (outcome.debit, outcome.credit) } else { (outcome.credit, outcome.debit) };
    RecordBody::Decided(refusal_of(decision), record)
}

/// A record of `amount` between these accounts, which are as it leaves them.
pub(crate) fn record_of(
    id: TransferId,
    leg: Leg,
    amount: Amount,
    (debit, credit): (&Account, &Account),
) -> TransferRecord {
    TransferRecord {
        id,
        debit_account_id: debit.id,
        credit_account_id: credit.id,
        amount_asked: amount,
        amount,
        day_spent: debit.day_spent,
        day: debit.day,
        debit: debit.sums,
        credit: credit.sums,
        code: 0,
        currency: debit.currency.get(),
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        leg,
        given: GIVEN_DEBIT | GIVEN_CREDIT | GIVEN_CURRENCY | GIVEN_CODE,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
        chain: None,
    }
}

pub(crate) fn plus(sum: Amount, amount: Amount) -> Amount {
    sum.checked_add(amount).expect("checked before")
}

pub(crate) fn minus(sum: Amount, amount: Amount) -> Amount {
    sum.checked_sub(amount).expect("an open hold is part of the sums that it was added to")
}

fn difference(a: Amount, b: Amount) -> Amount {
    a.max(b).checked_sub(a.min(b)).expect("the smaller of the larger")
}

/// Where the account will have been: here, and where it was before, but for where it goes. `None` when that are too many.
fn former_branches(
    account: &Account,
    here: BranchId,
    destination: BranchId,
) -> Option<[BranchId; FORMER_BRANCHES_MAX]> {
    account.residence.moves.checked_add(1)?;
    let mut former = [BranchId::default(); FORMER_BRANCHES_MAX];
    let mut places = former.iter_mut();
    let before = account.residence.known().filter(|&branch| branch != destination && branch != here);
    for branch in std::iter::once(here).chain(before) {
        *places.next()? = branch;
    }
    Some(former)
}

/// Holds the account's balance, against the settlement account for the other branch.
fn hold_balance(
    id: TransferId,
    mut account: Account,
    mut settlement: Account,
    (is_debited, amount): (bool, Amount),
) -> Result<MoveStep, Refusal> {
    let (account_id, code, before) = (account.id, account.code, account.sums);
    let leg = if is_debited { Leg::Source } else { Leg::Destination };
    let (debit, credit) = if is_debited { (&mut account, &mut settlement) } else { (&mut settlement, &mut account) };
    check_sums(amount, true, &debit.sums, &credit.sums)?;
    debit.sums.debits_held = plus(debit.sums.debits_held, amount);
    credit.sums.credits_held = plus(credit.sums.credits_held, amount);
    let reference = TransferId::new(account_id.get());
    let money = TransferRecord { code, reference, ..record_of(id, leg, amount, (debit, credit)) };
    Ok(MoveStep { before, holds: Vec::new(), account, settlement, money })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{AccountChange, Record, RecordBody};
    use crate::two_phase::AbortReason;
    use crate::{RecordEffect, cash_account, check, redo_account, redo_credit, redo_debit, settlement_account};

    const HERE: BranchId = BranchId::new(1);
    const THERE: BranchId = BranchId::new(2);
    const NOW: Timestamp = Timestamp::from_nanos(9);
    const ANN: AccountId = AccountId::of_branch(HERE, 7);
    const ID: TransferId = TransferId::new(99);

    fn account(debits: u64, credits: u64) -> Account {
        let mut account = cash_account(HERE, Currency::EUR, NOW);
        (account.id, account.kind, account.code) = (ANN, AccountKind::Customer, 4);
        (account.owner, account.flags) = (CustomerId::new(5), account_flags::DEBITS_LIMITED);
        (account.day_spent, account.user_data_32) = (Amount::new(debits.min(3)), 6);
        account.sums =
            Sums { debits_posted: Amount::new(debits), credits_posted: Amount::new(credits), ..Sums::default() };
        account
    }

    fn settlement(here: BranchId, peer: BranchId) -> Account {
        settlement_account(here, peer, Currency::EUR, NOW)
    }

    fn survives(body: RecordBody) {
        let record = Record { lsn: Lsn::new(64), timestamp: NOW, actor: CustomerId::BANK, body };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        let read = Record::decode(&bytes).expect("just written");
        if let (RecordBody::Account(..), RecordBody::Account(change, account)) = (&record.body, &read.body) {
            let written = redo_account(None, &record).expect("there was none");
            assert_eq!((*change, account), (AccountChange::Moved, &written));
        } else {
            assert_eq!(read, record);
        }
    }

    fn hold_of(step: &MoveStep) -> Hold {
        let RecordEffect::HoldOpened(hold) = RecordEffect::of_transfer(&step.money, Lsn::new(64), NOW) else {
            panic!("the money of a move is held")
        };
        assert!(hold.moves_account());
        hold
    }

    /// What replaying the record of the money makes of both accounts.
    fn replayed(step: &MoveStep, before: &Account, settlement: &Account) -> (Sums, Sums) {
        let (mut account, mut settlement) = (before.clone(), settlement.clone());
        let (debit, credit) = match step.money.leg {
            Leg::Source => (&mut account, &mut settlement),
            Leg::Whole | Leg::Inner | Leg::Destination => (&mut settlement, &mut account),
        };
        assert!(redo_debit(debit, &step.money, Lsn::new(64), NOW));
        assert!(redo_credit(credit, &step.money, Lsn::new(64), NOW));
        (account.sums, settlement.sums)
    }

    #[test]
    fn both_sides_balance_and_mirror_each_other_at_every_step() {
        for (debits, credits) in [(30, 100), (100, 30), (50, 50), (0, 0), (0, u64::MAX), (u64::MAX, 0)] {
            for decision in [Decision::Commit, Decision::Abort(AbortReason::Presumed)] {
                let (ann, due_to) = (account(debits, credits), settlement(HERE, THERE));
                let (sealed, moving) =
                    seal(ID, Some(&ann), &due_to, (HERE, THERE), &[]).expect("nothing is in its way");
                assert_eq!(moving.body().invalid_field(), None);
                assert_eq!(sealed.account.status, AccountStatus::Moving);
                assert_eq!(replayed(&sealed, &ann, &due_to), (sealed.account.sums, sealed.settlement.sums));
                let due_from = settlement(THERE, HERE);
                let arrived = arrive(&moving, &due_from).expect("nothing is in its way");
                assert_eq!(arrived.account.status, AccountStatus::Arriving);
                let mut here = vec![sealed.account.clone(), sealed.settlement.clone()];
                // What the account's other side was, at its branch.
                let other = account(credits, debits);
                here.push(Account { id: AccountId::of_branch(HERE, 8), day_spent: Amount::ZERO, ..other });
                assert_eq!(check::state(&here, &[hold_of(&sealed)]), Ok(()));
                let there = [arrived.account.clone(), arrived.settlement.clone()];
                assert_eq!(check::state(&there, &[hold_of(&arrived)]), Ok(()));
                let left = end_move(&hold_of(&sealed), decision, &sealed.account, &sealed.settlement, THERE, &[]);
                let came = end_move(&hold_of(&arrived), decision, &arrived.account, &arrived.settlement, HERE, &[]);
                (here[0], here[1]) = (left.account.clone(), left.settlement.clone());
                assert_eq!(check::state(&here, &[]), Ok(()));
                assert_eq!(check::state(&[came.account.clone(), came.settlement.clone()], &[]), Ok(()));
                let (due_to, due_from) = (left.settlement.sums, came.settlement.sums);
                assert_eq!(
                    (due_to.credits_posted, due_to.debits_posted),
                    (due_from.debits_posted, due_from.credits_posted)
                );
                for step in [&sealed, &arrived, &left, &came] {
                    survives(RecordBody::Account(AccountChange::Moved, step.account.clone()));
                    survives(RecordBody::Transfer(step.money));
                }
                let (stays, gone) = match decision {
                    Decision::Commit => (&came.account, &left.account),
                    Decision::Abort(_) => (&left.account, &came.account),
                };
                assert_eq!((gone.status, gone.sums.is_settled()), (AccountStatus::Moved, true));
                assert_eq!((stays.status, stays.sums), (AccountStatus::Open, ann.sums));
                assert_eq!((stays.day_spent, stays.owner, stays.user_data_32), (ann.day_spent, ann.owner, 6));
                let is_there = decision == Decision::Commit;
                let expected = if is_there { (1, vec![HERE]) } else { (0, vec![]) };
                assert_eq!((stays.residence.moves, stays.residence.known().collect()), expected);
                assert_eq!(gone.residence.known().collect::<Vec<_>>(), [if is_there { THERE } else { HERE }]);
            }
        }
    }

    #[test]
    fn what_cannot_move_is_refused_by_name() {
        let with = |change: &dyn Fn(&mut Account)| {
            let mut account = account(1, 2);
            change(&mut account);
            seal(ID, Some(&account), &settlement(HERE, THERE), (HERE, THERE), &[]).err()
        };
        assert_eq!(seal(ID, None, &settlement(HERE, THERE), (HERE, THERE), &[]).err(), Some(Refusal::AccountNotFound));
        assert_eq!(with(&|_| {}), None);
        let till = cash_account(HERE, Currency::EUR, NOW);
        assert_eq!(with(&|account| account.id = till.id), Some(Refusal::AccountIdReserved));
        for (status, refusal) in [
            (AccountStatus::Closed, Refusal::AccountClosed),
            (AccountStatus::Closing, Refusal::AccountClosed),
            (AccountStatus::Moving, Refusal::AccountMoving),
            (AccountStatus::Arriving, Refusal::AccountMoving),
            (AccountStatus::Moved, Refusal::AccountMoved),
        ] {
            assert_eq!(with(&|account| account.status = status), Some(refusal), "{status:?}");
        }
        assert_eq!(with(&|account| account.residence.moves = 255), Some(Refusal::AccountMovedTooOften));
        let branches = |raw: [u16; 3]| raw.map(BranchId::new);
        assert_eq!(with(&|account| account.residence.branches = branches([3, 4, 0])), None);
        let three = |account: &mut Account| account.residence.branches = branches([3, 4, 5]);
        assert_eq!(with(&three), Some(Refusal::AccountMovedTooOften));
        // Back to where it was before, that one need not be remembered.
        assert_eq!(with(&|account| account.residence.branches = branches([3, 2, 5])), None);
        let mut full = settlement(HERE, THERE);
        full.sums.credits_posted = Amount::MAX;
        let refused = seal(ID, Some(&account(1, 2)), &full, (HERE, THERE), &[]).err();
        assert_eq!(refused, Some(Refusal::OverflowsCreditsPosted));
    }

    const BOB: AccountId = AccountId::of_branch(HERE, 8);
    const FAR: AccountId = AccountId::of_branch(BranchId::new(3), 9);

    fn due(peer: u16) -> AccountId {
        settlement(HERE, BranchId::new(peer)).id
    }

    /// A hold of 12 that stands at the source: its two accounts there, and who is at another branch.
    fn standing(id: u128, debit: AccountId, credit: AccountId, far: AccountId) -> Hold {
        let is_settlement = |id: AccountId| id.settlement_peer().is_some();
        let leg = match (is_settlement(debit), is_settlement(credit)) {
            (true, _) => Leg::Destination,
            (false, true) => Leg::Source,
            (false, false) => Leg::Whole,
        };
        Hold {
            id: TransferId::new(id),
            debit_account_id: debit,
            credit_account_id: credit,
            amount: Amount::new(12),
            currency: Currency::EUR,
            code: 5,
            expires_at: if leg == Leg::Destination { Timestamp::MAX } else { Timestamp::from_nanos(60_000_000_007) },
            lsn: Lsn::new(32),
            leg,
            far_account_id: far,
            timestamp: Timestamp::from_nanos(7),
            closes: Closes::NONE,
            attempt: crate::two_phase::Attempt::ONLY,
            stage: HoldStage::Open,
            chain: None,
        }
    }

    /// Every account that a hold of the table is on.
    fn others(holds: &[Hold]) -> Vec<Account> {
        [BOB, due(3)]
            .into_iter()
            .map(|id| {
                let sum = |on: fn(&Hold) -> AccountId| {
                    Amount::new(holds.iter().filter(|hold| on(hold) == id).map(|hold| hold.amount.get()).sum())
                };
                let sums = Sums {
                    debits_held: sum(|hold| hold.debit_account_id),
                    credits_held: sum(|hold| hold.credit_account_id),
                    ..Sums::default()
                };
                Account { id, sums, ..cash_account(HERE, Currency::EUR, NOW) }
            })
            .collect()
    }

    #[test]
    fn holds_go_along_and_stay_the_same_money_at_both() {
        // What is on the account, what it is at the source behind the move, and what it is at the destination.
        let due_from_there = settlement(HERE, THERE).id;
        let due_to_here = settlement(THERE, HERE).id;
        let table = [
            (standing(1, ANN, BOB, AccountId::NONE), (due_from_there, BOB, ANN), (ANN, due_to_here, BOB, 60)),
            (standing(2, BOB, ANN, AccountId::NONE), (BOB, due_from_there, ANN), (due_to_here, ANN, BOB, 0)),
            (standing(3, ANN, due(3), FAR), (due_from_there, due(3), FAR), (ANN, due_to_here, FAR, 60)),
            (standing(4, due(3), ANN, FAR), (due(3), due_from_there, FAR), (due_to_here, ANN, FAR, 0)),
        ];
        for status in [AccountStatus::Open, AccountStatus::Frozen] {
            for decision in [Decision::Commit, Decision::Abort(AbortReason::Presumed)] {
                for count in 0..=table.len() {
                    let holds: Vec<Hold> = table[..count].iter().map(|(hold, ..)| *hold).collect();
                    let on_ann = |is_debited: bool| {
                        let is_on = |hold: &&Hold| (hold.debit_account_id == ANN) == is_debited;
                        Amount::new(holds.iter().filter(is_on).map(|hold| hold.amount.get()).sum())
                    };
                    let mut ann = Account { status, ..account(30, 100) };
                    (ann.sums.debits_held, ann.sums.credits_held) = (on_ann(true), on_ann(false));
                    let (due_to, due_from) = (settlement(HERE, THERE), settlement(THERE, HERE));
                    let (sealed, moving) =
                        seal(ID, Some(&ann), &due_to, (HERE, THERE), &holds).expect("nothing is in its way");
                    assert_eq!(moving.body().invalid_field(), None);
                    assert_eq!((sealed.before, sealed.holds.len(), moving.holds.len()), (ann.sums, 0, count));
                    let arrived = arrive(&moving, &due_from).expect("nothing is in its way");
                    // What the records make of it.
                    let came: Vec<Hold> = arrived
                        .holds
                        .iter()
                        .map(|body| match RecordEffect::of(body, Lsn::new(64), NOW) {
                            RecordEffect::HoldOpened(hold) => hold,
                            other => panic!("{other:?}"),
                        })
                        .collect();
                    for (hold, (was, _, (debit, credit, far, timeout_s))) in came.iter().zip(&table) {
                        assert_eq!((hold.id, hold.amount, hold.code), (was.id, was.amount, was.code));
                        assert_eq!((hold.debit_account_id, hold.credit_account_id), (*debit, *credit));
                        assert_eq!((hold.far_account_id, hold.timestamp), (*far, was.timestamp));
                        let expires_at = if *timeout_s == 0 { Timestamp::MAX } else { was.expires_at };
                        assert_eq!((hold.expires_at, hold.stage), (expires_at, HoldStage::AwaitsKeeping));
                    }
                    let all = |of: &[Hold], money: Hold| of.iter().copied().chain([money]).collect::<Vec<Hold>>();
                    let mut here = vec![sealed.account.clone(), sealed.settlement.clone()];
                    let till =
                        Account { id: AccountId::of_branch(HERE, 10), day_spent: Amount::ZERO, ..account(100, 30) };
                    here.push(Account {
                        sums: Sums { debits_held: Amount::ZERO, credits_held: Amount::ZERO, ..till.sums },
                        ..till
                    });
                    here.extend(others(&holds));
                    assert_eq!(check::state(&here, &all(&holds, hold_of(&sealed))), Ok(()));
                    let there = [arrived.account.clone(), arrived.settlement.clone()];
                    assert_eq!(check::state(&there, &all(&came, hold_of(&arrived))), Ok(()));

                    let left =
                        end_move(&hold_of(&sealed), decision, &sealed.account, &sealed.settlement, THERE, &holds);
                    let taken =
                        end_move(&hold_of(&arrived), decision, &arrived.account, &arrived.settlement, HERE, &came);
                    let is_there = decision == Decision::Commit;
                    let stays: Vec<Hold> = holds
                        .iter()
                        .map(|hold| if is_there { hold.rehomed(ANN, due_to.id).expect("it is on it") } else { *hold })
                        .collect();
                    if is_there {
                        for (hold, (was, (debit, credit, far), _)) in stays.iter().zip(&table) {
                            assert_eq!((hold.debit_account_id, hold.credit_account_id), (*debit, *credit));
                            assert_eq!((hold.far_account_id, hold.expires_at), (*far, was.expires_at));
                        }
                    }
                    (here[0], here[1]) = (left.account.clone(), left.settlement.clone());
                    assert_eq!(check::state(&here, &stays), Ok(()));
                    let kept: Vec<Hold> = came.iter().map(|hold| Hold { stage: HoldStage::Open, ..*hold }).collect();
                    let there = [taken.account.clone(), taken.settlement.clone()];
                    assert_eq!(check::state(&there, if is_there { &kept } else { &[] }), Ok(()));
                    let found = if is_there { &taken.account } else { &left.account };
                    assert_eq!((found.status, found.sums), (status, ann.sums));
                    assert_eq!(found.flags & !account_flags::HAS_MOVED, ann.flags);
                    assert_eq!((left.holds.len(), taken.holds.len()), (if is_there { count } else { 0 }, count));
                    for body in arrived.holds.iter().chain(&left.holds).chain(&taken.holds) {
                        survives(body.clone());
                    }
                }
            }
        }
    }

    #[test]
    fn holds_that_cannot_go_along_keep_the_account_where_it_is() {
        let good = standing(1, ANN, BOB, AccountId::NONE);
        let with = |hold: Hold, due_to: &Account| {
            let mut ann = account(1, 50);
            ann.sums.debits_held = hold.amount;
            seal(ID, Some(&ann), due_to, (HERE, THERE), &[hold]).err()
        };
        let due_to = settlement(HERE, THERE);
        assert_eq!(with(good, &due_to), None);
        for stage in [HoldStage::AwaitsPosting, HoldStage::AwaitsKeeping] {
            assert_eq!(with(Hold { stage, ..good }, &due_to), Some(Refusal::AccountHasHolds), "{stage:?}");
        }
        let closes = Closes { debit: false, credit: true };
        assert_eq!(with(Hold { closes, ..good }, &due_to), Some(Refusal::AccountHoldsStay));
        let many: Vec<Hold> =
            (0..=MOVE_HOLDS_MAX as u128).map(|id| Hold { id: TransferId::new(id + 1), ..good }).collect();
        let moved = |holds: &[Hold]| seal(ID, Some(&account(1, 50)), &due_to, (HERE, THERE), holds).err();
        assert_eq!(moved(&many), Some(Refusal::AccountHoldsStay));
        assert_eq!(moved(&many[1..]), None);
        let mut full = due_to.clone();
        full.sums.debits_posted = Amount::new(u64::MAX / 2 - 11);
        assert_eq!(with(good, &full), Some(Refusal::OverflowsDebitsHeld));
        full.sums.debits_posted = Amount::new(u64::MAX / 2 - 12);
        assert_eq!(with(good, &full), None);
    }

    #[test]
    fn a_residence_is_a_word() {
        let residence = Residence { moves: 200, branches: [BranchId::new(1), BranchId::new(0xffff), BranchId::new(7)] };
        assert_eq!(Residence::of_word(residence.to_word()), residence);
        assert_eq!(Residence::of_bytes(residence.to_bytes()), residence);
        assert_eq!(Residence::of_word(0), Residence::default());
    }
}
