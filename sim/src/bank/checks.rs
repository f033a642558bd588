//! What must be true of the whole bank: one check each.

use tally_ledger::check;
use tally_ledger::two_phase::Decision;
use tally_ledger::{Account, Hold, HoldStage, Leg};
use tally_protocol::message::{self, TransferState};
use tally_protocol::{AccountId, BranchId, Currency, TransferId};

use super::branch::{Life, SimBranch};
use super::registry::Registry;
use super::workload::{ACCOUNTS_PER_BRANCH, DEPOSIT, Payment, account};
use crate::invariants::{Violation, hold, violated};

/// At every instant: each branch balances by itself, and the settlement accounts of every two mirror each other, where a
/// part whose commit is decided counts as posted, and a hold that the payer's branch has ended as much as that has posted.
pub(super) fn cut(branches: &[SimBranch], registry: &Registry) -> Result<(), Violation> {
    let lives: Vec<&Life> = branches.iter().filter_map(|branch| branch.life.as_ref()).collect();
    for life in &lives {
        let accounts: Vec<Account> = life.engine.accounts.iter().collect();
        let holds: Vec<Hold> = life.engine.holds.iter().collect();
        if let Err(violation) = check::state(&accounts, &holds) {
            violated!(Conservation, "branch {}: {violation}", life.engine.branch);
        }
    }
    for here in &lives {
        for there in &lives {
            let (source, destination) = (here.engine.branch, there.engine.branch);
            if source == destination {
                continue;
            }
            let due_to = posted(here, destination, Leg::Source, registry);
            let due_from = posted(there, source, Leg::Destination, registry) + untold(here, there);
            hold!(
                Mirrored,
                due_to == due_from,
                "branch {source} owes branch {destination} {due_to}, which says {due_from}"
            );
        }
    }
    Ok(())
}

/// What `life` has posted, or will, to (`Source`) or from (`Destination`) the settlement account of `peer`.
fn posted(life: &Life, peer: BranchId, leg: Leg, registry: &Registry) -> u64 {
    let id = AccountId::of_settlement(life.engine.branch, peer, Currency::EUR);
    let sums = life.engine.accounts.find(id).map(|slot| slot.read().sums).unwrap_or_default();
    let posted = if leg == Leg::Source { sums.credits_posted } else { sums.debits_posted };
    let is_committed = |hold: &Hold| {
        let account = if leg == Leg::Source { hold.credit_account_id } else { hold.debit_account_id };
        let is_transfer = hold.stage == HoldStage::AwaitsPosting;
        is_transfer && hold.leg == leg && account == id && registry.decision(hold.id) == Some(Decision::Commit)
    };
    posted.get() + life.engine.holds.iter().filter(is_committed).map(|hold| hold.amount.get()).sum::<u64>()
}

/// What `source` has posted of holds that are still open at `destination`.
fn untold(source: &Life, destination: &Life) -> u64 {
    let endings = &source.engine.holds.endings;
    let is_its_part = |hold: &Hold| {
        hold.leg == Leg::Destination && hold.debit_account_id.settlement_peer() == Some(source.engine.branch)
    };
    let posted = |hold: Hold| endings.get(hold.id).map_or(0, |ending| ending.posted.get());
    destination.engine.holds.iter().filter(is_its_part).map(posted).sum()
}

/// After a recovery: what was promised is still held or was decided, and what was acknowledged is decided.
pub(super) fn promises(
    life: &Life,
    registry: &Registry,
    promised: impl Iterator<Item = TransferId>,
    acknowledged: impl Iterator<Item = TransferId>,
) -> Result<(), Violation> {
    let branch = life.engine.branch;
    for id in promised {
        let is_kept = life.engine.holds.get(id).is_some() || life.has_ended(id);
        hold!(Promises, is_kept, "branch {branch} promised its part of {id}, and knows nothing of it after a crash");
    }
    for id in acknowledged {
        let is_open = life.engine.holds.get(id).is_some_and(|hold| hold.is_in_doubt());
        // Where the prepare comes behind an abort there was nothing to give back: it is asked about again.
        let stands = registry.decision(id) == Some(Decision::Commit);
        hold!(
            Promises,
            !is_open || !stands,
            "branch {branch} acknowledged the commit of {id}, and has not carried it out"
        );
    }
    Ok(())
}

/// When everything has come to rest: every transfer has one end, the same at both branches and for its client, and all
/// the money is there.
pub(super) fn at_rest(branches: &mut [SimBranch], registry: &Registry, payments: &[Payment]) -> Result<(), Violation> {
    cut(branches, registry)?;
    let ids: Vec<BranchId> = branches.iter().map(|branch| branch.id).collect();
    let lives: Vec<&mut Life> = branches.iter_mut().filter_map(|branch| branch.life.as_mut()).collect();
    let mut by_branch: Vec<(BranchId, &mut Life)> = ids.into_iter().zip(lives).collect();
    for payment in payments {
        let id = TransferId::new(payment.wire.id.get());
        let found = by_branch[payment.source].1.state_of(id)?;
        let source = found.as_ref().map(|found| found.state);
        let decision = registry.decision(id);
        let is_done = |state: Option<u8>| {
            use TransferState::{Done, Expired, Settled, Voided};
            state.is_some_and(|state| [Done, Settled, Voided, Expired].iter().any(|&done| done as u8 == state))
        };
        let done = is_done(source);
        let is_open = source == Some(TransferState::Prepared as u8);
        hold!(ComesToRest, !is_open, "{id} is still in doubt at its source");
        if let Some((refusal, _)) = payment.answer {
            hold!(
                Agreement,
                refusal.is_none() == done,
                "{id}: its client was told {refusal:?}, its source is {source:?}"
            );
        }
        if !payment.is_between {
            continue;
        }
        let far = AccountId::new(payment.wire.credit_account_id.get()).branch();
        let (_, life) = by_branch.iter_mut().find(|(branch, _)| *branch == far).expect("every branch is up");
        let found_there = life.state_of(id)?;
        let destination = found_there.as_ref().map(|found| found.state);
        let committed = decision == Some(Decision::Commit);
        hold!(Agreement, done == committed, "{id}: the registry says {decision:?}, its source {source:?}");
        let done_there = is_done(destination);
        hold!(
            Agreement,
            done_there == committed,
            "{id}: the registry says {decision:?}, its destination {destination:?}"
        );
        hold!(
            Agreement,
            !payment.is_hold() || !committed || source == destination,
            "{id}: the hold is {source:?} at its source, {destination:?} at its destination"
        );
        let amount =
            |found: &Option<message::TransferFound>| found.as_ref().map_or(0, |found| found.reply.amount.get());
        let (paid, received) = (amount(&found), amount(&found_there));
        hold!(
            Agreement,
            !committed || paid == received,
            "{id}: {paid} left its source, {received} came to its destination"
        );
    }
    let mut total: i128 = 0;
    for (branch, life) in &by_branch {
        hold!(ComesToRest, life.engine.holds.taken() == 0, "branch {branch} still holds something");
        for number in 0..ACCOUNTS_PER_BRANCH {
            let slot = life.engine.accounts.find(account(*branch, number)).expect("opened at the beginning");
            let sums = slot.read().sums;
            total += i128::from(sums.credits_posted.get()) - i128::from(sums.debits_posted.get());
        }
    }
    let given = i128::from(DEPOSIT) * i128::from(ACCOUNTS_PER_BRANCH) * by_branch.len() as i128;
    hold!(Conservation, total == given, "customers were given {given} and have {total}");
    Ok(())
}
