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
//! **Invariant:** while an account is moving or arriving nothing but the decision on its move changes its sums.

use tally_protocol::link::{FORMER_BRANCHES_MAX, MoveItem};
use tally_protocol::message::{TransferKind, account_flags};
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};

use crate::account::{Account, Residence, Sums};
use crate::account_change::is_here;
use crate::closing::StatusChange;
use crate::decide::{check_sums, end_hold};
use crate::hold::Hold;
use crate::journal::record::{GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, TransferRecord};
use crate::leg::Leg;
use crate::outcome::{Outcome, hold_end_record};
use crate::transfer::ensure;
use crate::two_phase::Decision;

/// One step of a move at one branch. Position and stamps are the caller's to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveStep {
    /// The account after it.
    pub account: Account,
    /// The settlement account for the other branch after it.
    pub settlement: Account,
    /// What happened to the money.
    pub money: TransferRecord,
}

/// Seals an account of branch `here`, which is to move to `destination`: the source's prepare. Also what the destination
/// needs; its `stamp` and `deadline` are left 0.
///
/// # Errors
/// The first that applies: `AccountNotFound`, `AccountIdReserved` (the branch's own), `AccountMoved`, `AccountMoving`,
/// `AccountClosed`, `AccountFrozen`, `AccountHasHolds`, `AccountMovedTooOften`, and those of sums that would not fit.
pub fn seal(
    id: TransferId,
    account: Option<&Account>,
    settlement: &Account,
    (here, destination): (BranchId, BranchId),
) -> Result<(MoveStep, MoveItem), Refusal> {
    let account = account.ok_or(Refusal::AccountNotFound)?;
    ensure(!account.id.is_house(), Refusal::AccountIdReserved)?;
    is_here(account)?;
    match account.status {
        AccountStatus::Open => {}
        AccountStatus::Frozen => return Err(Refusal::AccountFrozen),
        AccountStatus::Closed
        | AccountStatus::Closing
        | AccountStatus::Moving
        | AccountStatus::Moved
        | AccountStatus::Arriving => return Err(Refusal::AccountClosed),
    }
    let Sums { debits_held, debits_posted, credits_held, credits_posted } = account.sums;
    ensure(debits_held.is_zero() && credits_held.is_zero(), Refusal::AccountHasHolds)?;
    let former = former_branches(account, here, destination).ok_or(Refusal::AccountMovedTooOften)?;
    let is_debited = credits_posted >= debits_posted;
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
        flags: account.flags.into(),
        kind: account.kind as u8,
        moves: account.residence.moves + 1,
        source: here.get().into(),
        destination: destination.get().into(),
        former: former.map(|branch| branch.get().into()),
        reserved: [0; 6],
    };
    let moving = Account { status: AccountStatus::Moving, ..account.clone() };
    let balance = difference(debits_posted, credits_posted);
    hold_balance(id, moving, settlement.clone(), (is_debited, balance)).map(|step| (step, item))
}

/// Takes an account in at branch `here`, still closed to everybody: the destination's prepare.
///
/// # Errors
/// Those of sums of the settlement account that would not fit.
///
/// # Panics
/// When `item` is not valid ([`tally_protocol::link::LinkItem::invalid_field`]).
pub fn arrive(item: &MoveItem, settlement: &Account) -> Result<MoveStep, Refusal> {
    let (debits, credits) = (Amount::new(item.debits_posted.get()), Amount::new(item.credits_posted.get()));
    let both = debits.min(credits);
    let account = Account {
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
    let balance = difference(debits, credits);
    hold_balance(TransferId::new(item.id.get()), account, settlement.clone(), (credits < debits, balance))
}

/// Ends the move whose money `hold` holds. Never refused: whatever could refuse it was reserved when it was prepared.
///
/// # Panics
/// When the account is neither moving nor arriving.
pub fn end_move(hold: &Hold, decision: Decision, account: &Account, settlement: &Account, peer: BranchId) -> MoveStep {
    let posted = match decision {
        Decision::Commit => hold.amount,
        Decision::Abort(_) => Amount::ZERO,
    };
    let (mut account, mut settlement) = (account.clone(), settlement.clone());
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
            account.day_spent = Amount::ZERO;
        }
        (AccountStatus::Moving, Decision::Abort(_)) | (AccountStatus::Arriving, Decision::Commit) => {
            account.status = AccountStatus::Open;
        }
        (AccountStatus::Arriving, Decision::Abort(_)) => {
            (account.status, account.residence) = (AccountStatus::Moved, gone(account.residence.moves));
            account.day_spent = Amount::ZERO;
        }
        (status, _) => panic!("{} holds its balance for a move, and is {status:?}", account.id),
    }
    MoveStep { account, settlement, money }
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
    let (account_id, code) = (account.id, account.code);
    let leg = if is_debited { Leg::Source } else { Leg::Destination };
    let (debit, credit) = if is_debited { (&mut account, &mut settlement) } else { (&mut settlement, &mut account) };
    check_sums(amount, true, &debit.sums, &credit.sums)?;
    let plus = |sum: Amount| sum.checked_add(amount).expect("checked just now");
    debit.sums.debits_held = plus(debit.sums.debits_held);
    credit.sums.credits_held = plus(credit.sums.credits_held);
    let money = TransferRecord {
        id,
        debit_account_id: debit.id,
        credit_account_id: credit.id,
        amount_asked: amount,
        amount,
        day_spent: debit.day_spent,
        day: debit.day,
        debit: debit.sums,
        credit: credit.sums,
        code,
        currency: debit.currency.get(),
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        leg,
        given: GIVEN_DEBIT | GIVEN_CREDIT | GIVEN_CURRENCY | GIVEN_CODE,
        reference: TransferId::new(account_id.get()),
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
        chain: None,
    };
    Ok(MoveStep { account, settlement, money })
}

#[cfg(test)]
mod tests {
    use tally_protocol::link::LinkItem;

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
                let (sealed, item) = seal(ID, Some(&ann), &due_to, (HERE, THERE)).expect("nothing is in its way");
                assert_eq!(item.invalid_field(), None);
                assert_eq!(sealed.account.status, AccountStatus::Moving);
                assert_eq!(replayed(&sealed, &ann, &due_to), (sealed.account.sums, sealed.settlement.sums));
                let due_from = settlement(THERE, HERE);
                let arrived = arrive(&item, &due_from).expect("nothing is in its way");
                assert_eq!(arrived.account.status, AccountStatus::Arriving);
                let mut here = vec![sealed.account.clone(), sealed.settlement.clone()];
                // What the account's other side was, at its branch.
                let other = account(credits, debits);
                here.push(Account { id: AccountId::of_branch(HERE, 8), day_spent: Amount::ZERO, ..other });
                assert_eq!(check::state(&here, &[hold_of(&sealed)]), Ok(()));
                let there = [arrived.account.clone(), arrived.settlement.clone()];
                assert_eq!(check::state(&there, &[hold_of(&arrived)]), Ok(()));
                let left = end_move(&hold_of(&sealed), decision, &sealed.account, &sealed.settlement, THERE);
                let came = end_move(&hold_of(&arrived), decision, &arrived.account, &arrived.settlement, HERE);
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
            seal(ID, Some(&account), &settlement(HERE, THERE), (HERE, THERE)).err()
        };
        assert_eq!(seal(ID, None, &settlement(HERE, THERE), (HERE, THERE)).err(), Some(Refusal::AccountNotFound));
        assert_eq!(with(&|_| {}), None);
        let till = cash_account(HERE, Currency::EUR, NOW);
        assert_eq!(with(&|account| account.id = till.id), Some(Refusal::AccountIdReserved));
        for (status, refusal) in [
            (AccountStatus::Frozen, Refusal::AccountFrozen),
            (AccountStatus::Closed, Refusal::AccountClosed),
            (AccountStatus::Closing, Refusal::AccountClosed),
            (AccountStatus::Moving, Refusal::AccountMoving),
            (AccountStatus::Arriving, Refusal::AccountMoving),
            (AccountStatus::Moved, Refusal::AccountMoved),
        ] {
            assert_eq!(with(&|account| account.status = status), Some(refusal), "{status:?}");
        }
        assert_eq!(with(&|account| account.sums.debits_held = Amount::new(1)), Some(Refusal::AccountHasHolds));
        assert_eq!(with(&|account| account.sums.credits_held = Amount::new(1)), Some(Refusal::AccountHasHolds));
        assert_eq!(with(&|account| account.residence.moves = 255), Some(Refusal::AccountMovedTooOften));
        let branches = |raw: [u16; 3]| raw.map(BranchId::new);
        assert_eq!(with(&|account| account.residence.branches = branches([3, 4, 0])), None);
        let three = |account: &mut Account| account.residence.branches = branches([3, 4, 5]);
        assert_eq!(with(&three), Some(Refusal::AccountMovedTooOften));
        // Back to where it was before, that one need not be remembered.
        assert_eq!(with(&|account| account.residence.branches = branches([3, 2, 5])), None);
        let mut full = settlement(HERE, THERE);
        full.sums.credits_posted = Amount::MAX;
        let refused = seal(ID, Some(&account(1, 2)), &full, (HERE, THERE)).err();
        assert_eq!(refused, Some(Refusal::OverflowsCreditsPosted));
    }

    #[test]
    fn a_residence_is_a_word() {
        let residence = Residence { moves: 200, branches: [BranchId::new(1), BranchId::new(0xffff), BranchId::new(7)] };
        assert_eq!(Residence::of_word(residence.to_word()), residence);
        assert_eq!(Residence::of_bytes(residence.to_bytes()), residence);
        assert_eq!(Residence::of_word(0), Residence::default());
    }
}
