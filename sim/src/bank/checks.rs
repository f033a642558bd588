//! What must be true of the whole bank: one check each.

use std::collections::BTreeMap;

use tally_ledger::check;
use tally_ledger::two_phase::Decision;
use tally_ledger::{Account, Ending, Hold, HoldStage, Leg, Sums};
use tally_protocol::message::{TransferKind, TransferState};
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
        is_transfer
            && hold.leg == leg
            && account == id
            && registry.decision(hold.decision_id()) == Some(Decision::Commit)
    };
    posted.get() + life.engine.holds.iter().filter(is_committed).map(|hold| hold.amount.get()).sum::<u64>()
}

/// What `source` has posted of holds that are still open at `destination`.
fn untold(source: &Life, destination: &Life) -> u64 {
    let endings = &source.engine.holds.endings;
    let branch = source.engine.branch;
    // Payers on their way to `source`: it may have heard that they have arrived, and `destination` not that they are gone.
    let leaving: Vec<AccountId> = destination
        .engine
        .holds
        .iter()
        .filter(|hold| hold.moves_account() && hold.settlement_account_id().settlement_peer() == Some(branch))
        .map(|hold| hold.near_account_id())
        .collect();
    let is_its_part = |hold: &Hold| match hold.leg {
        Leg::Destination => hold.debit_account_id.settlement_peer() == Some(branch),
        Leg::Whole | Leg::Inner | Leg::Source => {
            leaving.contains(&hold.debit_account_id)
                && !hold.moves_account()
                && hold.credit_account_id.settlement_peer() != Some(branch)
        }
    };
    // Not what it has ended towards a branch where the payee went since.
    let is_told_here = |ending: &Ending| ending.peer == destination.engine.branch;
    let posted = |hold: Hold| endings.get(hold.id).filter(is_told_here).map_or(0, |ending| ending.posted.get());
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
        let is_open = life.engine.holds.get(id).is_some() || !life.engine.holds.chain(id).is_empty();
        let is_kept = is_open || life.has_ended(id);
        hold!(Promises, is_kept, "branch {branch} promised its part of {id}, and knows nothing of it after a crash");
    }
    for id in acknowledged {
        let is_open =
            life.engine.holds.get(id).is_some_and(|hold| hold.is_in_doubt()) || !life.engine.holds.chain(id).is_empty();
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

/// After a recovery: a hold whose end was told to the other branch, or heard from it, has ended here.
pub(super) fn ends(life: &Life, ended: impl Iterator<Item = TransferId>) -> Result<(), Violation> {
    let branch = life.engine.branch;
    for id in ended {
        let is_open = life.engine.holds.get(id).is_some();
        hold!(Promises, !is_open, "branch {branch} has told or heard the end of {id}, and holds it after a crash");
    }
    Ok(())
}

/// When everything has come to rest: every transfer has one effect, the same at every branch and for its client, wherever
/// the accounts were by then, and every account has at one branch what its payments left it.
pub(super) fn at_rest(branches: &mut [SimBranch], registry: &Registry, payments: &[Payment]) -> Result<(), Violation> {
    cut(branches, registry)?;
    let ids: Vec<BranchId> = branches.iter().map(|branch| branch.id).collect();
    let mut lives: Vec<&mut Life> = branches.iter_mut().filter_map(|branch| branch.life.as_mut()).collect();
    let accounts = ids.iter().flat_map(|&branch| (0..ACCOUNTS_PER_BRANCH).map(move |number| account(branch, number)));
    let mut balances: BTreeMap<AccountId, i128> = accounts.map(|id| (id, i128::from(DEPOSIT))).collect();
    let mut chains: BTreeMap<u128, bool> = BTreeMap::new();
    for payment in payments {
        let amount = effect(&mut lives, registry, payment)?;
        if let Some(chain) = payment.chain {
            let (id, is_done) = (payment.wire.id.get(), amount != 0);
            let others = *chains.entry(chain).or_insert(is_done);
            hold!(
                Agreement,
                others == is_done,
                "member {id:x} of chain {chain:x} is done: {is_done}, others: {others}"
            );
        }
        // A settle moves what its hold was between; holds and voids move nothing.
        let moved = match TransferKind::from_wire(payment.wire.kind) {
            Some(TransferKind::Transfer) => &payment.wire,
            Some(TransferKind::Settle) => {
                let held = payments.iter().find(|held| held.wire.id == payment.wire.reference);
                &held.expect("only what was sent is settled").wire
            }
            _ => continue,
        };
        let sides = [(moved.debit_account_id, -amount), (moved.credit_account_id, amount)];
        for (id, change) in sides {
            // Nobody's account has none, and no payment to it had an effect.
            *balances.entry(AccountId::new(id.get())).or_default() += change;
        }
    }
    for life in &lives {
        hold!(ComesToRest, life.engine.holds.taken() == 0, "branch {} still holds something", life.engine.branch);
    }
    for (id, expected) in balances {
        let here = |life: &&mut Life| {
            let account = life.engine.accounts.find(id)?.read();
            account.status.is_here().then_some((life.engine.branch, account.sums))
        };
        let found: Vec<_> = lives.iter().filter_map(here).collect();
        let balance = |sums: &Sums| i128::from(sums.credits_posted.get()) - i128::from(sums.debits_posted.get());
        let balance = found.iter().map(|(_, sums)| balance(sums)).sum::<i128>();
        hold!(OneEffect, balance == expected, "account {id} has {balance}, and its payments leave it {expected}");
        hold!(Agreement, found.len() <= 1, "account {id} is at several branches");
        if let [(branch, _)] = found[..] {
            let place = registry.place(id);
            hold!(Agreement, branch == place, "account {id} is at branch {branch}, the registry says {place}");
        }
    }
    Ok(())
}

/// What a payment has moved: nothing, or the same at every branch that has a part in it, as its client was told.
fn effect(lives: &mut [&mut Life], registry: &Registry, payment: &Payment) -> Result<i128, Violation> {
    let id = TransferId::new(payment.wire.id.get());
    let (mut amounts, mut states) = (Vec::new(), Vec::new());
    for life in lives {
        let found = life.state_of(id)?;
        let state = found.as_ref().map(|found| found.state);
        let branch = life.engine.branch;
        hold!(ComesToRest, state != Some(TransferState::Prepared as u8), "{id} is still in doubt at branch {branch}");
        // A hold that has ended was done.
        let done = [TransferState::Done, TransferState::Settled, TransferState::Voided, TransferState::Expired];
        if done.iter().any(|&done| state == Some(done as u8)) {
            states.extend(state);
            amounts.extend(found.map(|found| found.reply.amount.get()));
        }
    }
    let decision = registry.decision(payment.decided_under());
    let is_right = match decision {
        // A hold is at one branch more for each time that an account has moved with it, and at one less where it has joined the
        // other account.
        Some(Decision::Commit) => {
            let sides = if payment.chain.is_some() && !payment.is_between { 1 } else { 2 };
            let may_be_more_or_less = payment.is_hold() && registry.has_moved() && !amounts.is_empty();
            amounts.len() == sides || payment.is_hold() && amounts.len() > sides || may_be_more_or_less
        }
        // Begun and forgotten in a crash, and then within one branch, for the account had moved.
        Some(Decision::Abort(_)) => {
            amounts.is_empty() || (registry.has_moved() && (amounts.len() == 1 || payment.is_hold()))
        }
        None => amounts.len() <= 1 || payment.is_hold() && registry.has_moved(),
    };
    hold!(OneEffect, is_right, "{id}: the registry says {decision:?}, and it was done at {} branches", amounts.len());
    if let Some((refusal, _)) = payment.answer {
        let is_done = !amounts.is_empty();
        hold!(Agreement, refusal.is_none() == is_done, "{id}: its client was told {refusal:?}, it is done: {is_done}");
    }
    let is_same = states.iter().all(|state| *state == states[0]);
    hold!(Agreement, is_same, "{id}: a hold ended differently at its two branches: {states:?}");
    let amount = amounts.first().copied().unwrap_or(0);
    hold!(Agreement, amounts.iter().all(|other| *other == amount), "{id}: {amounts:?} at its two branches");
    Ok(i128::from(amount))
}
