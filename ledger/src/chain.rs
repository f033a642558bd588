//! Linked transfers: all of them, or none.
//!
//! The steps are decided one after the other on copies of the accounts, each seeing what those before it did:
//! a chain may hold and then settle that hold, reverse what it has just posted, and use an account as often
//! as it likes. When one step is refused, the copies are dropped.
//!
//! **Invariant:** either every outcome is done, or none is: then at least one says why, and the others are
//! `ChainBroken`. All of them are recorded, or none: a chain that meets a known id leaves no trace.

use std::ops::Range;

use tally_protocol::message::{CHAIN_LEN_MAX, TransferKind};
use tally_protocol::{AccountId, BranchId, Lsn, Refusal, Timestamp};

use crate::account::Account;
use crate::actor::Actor;
use crate::decide::decide;
use crate::hold::HoldEnd;
use crate::imported::Entry;
use crate::outcome::{Outcome, transfer_record};
use crate::reference::{Ended, Reference, effective_accounts};
use crate::transfer::Transfer;

/// One transfer of a chain, with what is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// What is asked for.
    pub transfer: Transfer,
    /// What the ledger knows of its reference, apart from this chain.
    pub reference: Reference,
    /// That the id is known already: `Exists...`, `IdCancelled`, or `IdAlreadyUsed` for the same content. A
    /// chain of which every step is known with the same content is not decided again, but answered as the
    /// first time.
    pub refusal: Option<Refusal>,
}

/// What became of a chain. Kept by the caller and reused, so that a chain allocates nothing once it is warm.
#[derive(Clone, Debug, Default)]
pub struct ChainOutcome {
    /// One for each step.
    pub outcomes: Vec<Outcome>,
    /// What each step's reference was when its turn came: the one for [`transfer_record`].
    pub references: Vec<Reference>,
    /// The accounts, in the order in which they were handed in, as the chain left them: after all of it, or
    /// as before. The caller sets `lsn` and `timestamp` of those that changed.
    pub accounts: Vec<Account>,
}

impl ChainOutcome {
    /// Whether the whole chain was done.
    pub fn is_done(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_done)
    }

    /// Whether the chain is recorded, all of it: it was done, or refused for the state of the ledger.
    pub fn is_recorded(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.refusal.is_none_or(Refusal::consumes_id))
    }
}

/// A stretch of a request with many entries: one alone, or a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which of the request's entries.
    pub range: Range<usize>,
    /// Why the stretch cannot be done, whatever its entries say; nothing of it is recorded. `ChainOpen`: the
    /// request ends before the chain does. `CountInvalid`: the chain has more than [`CHAIN_LEN_MAX`] steps.
    /// The last entry of the stretch is answered with it, the others with `ChainBroken`.
    pub refusal: Option<Refusal>,
}

/// How a batch of transfers, or a list of accounts to open, falls into single ones and chains: `LINKED` joins one to
/// the next.
pub fn stretches<E: Entry>(entries: &[E]) -> impl Iterator<Item = Stretch> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == entries.len() {
            return None;
        }
        let last = (start..entries.len()).find(|&index| !entries[index].is_linked());
        let range = start..last.map_or(entries.len(), |last| last + 1);
        start = range.end;
        let refusal = match last {
            None => Some(Refusal::ChainOpen),
            Some(_) if range.len() > CHAIN_LEN_MAX => Some(Refusal::CountInvalid),
            Some(_) => None,
        };
        Some(Stretch { range, refusal })
    })
}

/// The accounts that a chain may touch, in id order and each once: those to lock.
pub fn chain_accounts(steps: &[ChainStep], branch: BranchId, out: &mut Vec<AccountId>) {
    out.clear();
    for (index, step) in steps.iter().enumerate() {
        // A reference into the chain leads to accounts that the step referred to has named already.
        let is_inside = steps[..index].iter().any(|earlier| earlier.transfer.id == step.transfer.reference);
        if !is_inside && let Ok((debit, credit)) = effective_accounts(&step.transfer, &step.reference, branch) {
            out.extend([debit, credit]);
        }
    }
    out.sort_unstable();
    out.dedup();
}

/// Decides a chain. `accounts` are those of [`chain_accounts`] that exist, in id order. The record of step
/// `i` is stamped `now + i` nanoseconds.
pub fn decide_chain(
    steps: &[ChainStep],
    accounts: &[Account],
    branch: BranchId,
    actor: &Actor,
    now: Timestamp,
    out: &mut ChainOutcome,
) {
    assert!(accounts.is_sorted_by(|a, b| a.id < b.id), "accounts of a chain come in id order, each once");
    out.outcomes.clear();
    out.references.clear();
    out.accounts.clear();
    out.accounts.extend_from_slice(accounts);
    if (0..steps.len()).any(|index| known_id(steps, index).is_some()) {
        out.references.extend(steps.iter().map(|step| step.reference));
        let refusals = (0..steps.len()).map(|index| known_id(steps, index).unwrap_or(Refusal::ChainBroken));
        out.outcomes.extend(refusals.map(|refusal| Outcome::refused(refusal, None, None)));
        return;
    }
    for index in 0..steps.len() {
        let reference = reference_inside(steps, out, index, branch, now);
        out.references.push(reference);
        let outcome = decide_step(&steps[index].transfer, &reference, branch, actor, stamp(now, index), out);
        out.outcomes.push(outcome);
        if let Some(refusal) = outcome.refusal {
            break_chain(steps, accounts, branch, out, refusal);
            return;
        }
    }
}

/// Why the step's id cannot be used: it is known, or an earlier step has it.
fn known_id(steps: &[ChainStep], index: usize) -> Option<Refusal> {
    let id = steps[index].transfer.id;
    let is_twice = || steps[..index].iter().any(|earlier| earlier.transfer.id == id);
    steps[index].refusal.or_else(|| is_twice().then_some(Refusal::IdAlreadyUsed))
}

fn stamp(now: Timestamp, index: usize) -> Timestamp {
    Timestamp::from_nanos(now.as_nanos().saturating_add(index as u64))
}

fn find(accounts: &[Account], id: AccountId) -> Option<usize> {
    accounts.binary_search_by(|account| account.id.cmp(&id)).ok()
}

fn decide_step(
    transfer: &Transfer,
    reference: &Reference,
    branch: BranchId,
    actor: &Actor,
    now: Timestamp,
    out: &mut ChainOutcome,
) -> Outcome {
    let (debit, credit) = match effective_accounts(transfer, reference, branch) {
        Ok((debit, credit)) => (find(&out.accounts, debit), find(&out.accounts, credit)),
        Err(refusal) => return Outcome::refused(refusal, None, None),
    };
    let copies = &mut out.accounts;
    let outcome = decide(transfer, reference, debit.map(|i| &copies[i]), credit.map(|i| &copies[i]), actor, now);
    if let (true, Some(debit), Some(credit)) = (outcome.is_done(), debit, credit) {
        let [debit, credit] =
            copies.get_disjoint_mut([debit, credit]).expect("a transfer's two accounts differ, and both were found");
        // The caller knows the positions; until then the copies keep those that they came with.
        let (debit_lsn, credit_lsn) = (debit.lsn, credit.lsn);
        outcome.apply(debit, credit, Lsn::ZERO, now);
        (debit.lsn, credit.lsn) = (debit_lsn, credit_lsn);
    }
    outcome
}

/// What the step's reference is by the time its turn comes: the steps before it may have made it, or ended it.
fn reference_inside(
    steps: &[ChainStep],
    out: &ChainOutcome,
    index: usize,
    branch: BranchId,
    now: Timestamp,
) -> Reference {
    let ChainStep { transfer, reference, .. } = &steps[index];
    if transfer.reference.is_none() {
        return *reference;
    }
    let before = &steps[..index];
    let ended = before.iter().rev().find(|step| step.transfer.reference == transfer.reference);
    let ended = ended.and_then(|step| match step.transfer.kind {
        TransferKind::Settle => Some(Ended::Hold(HoldEnd::Settled)),
        TransferKind::Void => Some(Ended::Hold(HoldEnd::Voided)),
        TransferKind::Reverse => Some(Ended::Reversed),
        TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => None,
    });
    match before.iter().position(|step| step.transfer.id == transfer.reference) {
        Some(made) => {
            let ChainStep { transfer: earlier, .. } = &steps[made];
            let record = transfer_record(earlier, &out.references[made], branch, &out.outcomes[made]);
            Reference::of_transfer(&record, Lsn::ZERO, stamp(now, made), ended)
        }
        None => match ended {
            Some(Ended::Hold(end)) => Reference::Ended(end),
            Some(Ended::Reversed) => Reference::ReversedBefore,
            // No step decides what another branch has a part in.
            Some(Ended::Decided(_) | Ended::Gone(_)) | None => *reference,
        },
    }
}

/// Takes everything back. The step that was decided last keeps its refusal, the others are `ChainBroken`.
fn break_chain(steps: &[ChainStep], accounts: &[Account], branch: BranchId, out: &mut ChainOutcome, refusal: Refusal) {
    let failed = out.outcomes.len() - 1;
    out.accounts.clear();
    out.accounts.extend_from_slice(accounts);
    out.references.extend(steps[failed + 1..].iter().map(|step| step.reference));
    out.outcomes.clear();
    for (index, (step, reference)) in steps.iter().zip(&out.references).enumerate() {
        let answer = if index == failed { refusal } else { Refusal::ChainBroken };
        let account = |id: AccountId| find(accounts, id).map(|i| &accounts[i]);
        let (debit, credit) = match effective_accounts(&step.transfer, reference, branch) {
            Ok((debit, credit)) => (account(debit), account(credit)),
            Err(_) => (None, None),
        };
        out.outcomes.push(Outcome::refused(answer, debit, credit));
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::{self, transfer_flags};
    use zerocopy::FromZeros;

    use super::*;

    /// `L` is linked, `.` is not.
    fn split(flags: &str) -> Vec<(Range<usize>, Option<Refusal>)> {
        let transfer = |flag: char| message::Transfer {
            flags: if flag == 'L' { transfer_flags::LINKED } else { 0 }.into(),
            ..message::Transfer::new_zeroed()
        };
        let transfers: Vec<message::Transfer> = flags.chars().map(transfer).collect();
        stretches(&transfers).map(|stretch| (stretch.range, stretch.refusal)).collect()
    }

    #[test]
    fn a_batch_falls_into_stretches() {
        assert_eq!(split(""), []);
        assert_eq!(split("..").as_slice(), [(0..1, None), (1..2, None)]);
        assert_eq!(split(".LL..L.").as_slice(), [(0..1, None), (1..4, None), (4..5, None), (5..7, None)]);
        assert_eq!(split(".LL").as_slice(), [(0..1, None), (1..3, Some(Refusal::ChainOpen))]);
    }

    #[test]
    fn a_chain_has_a_longest_length() {
        let longest = "L".repeat(CHAIN_LEN_MAX - 1) + ".";
        assert_eq!(split(&longest).as_slice(), [(0..CHAIN_LEN_MAX, None)]);
        let longer = "L".repeat(CHAIN_LEN_MAX) + "..";
        let refused = (0..CHAIN_LEN_MAX + 1, Some(Refusal::CountInvalid));
        assert_eq!(split(&longer).as_slice(), [refused, (CHAIN_LEN_MAX + 1..CHAIN_LEN_MAX + 2, None)]);
        let open = "L".repeat(CHAIN_LEN_MAX + 5);
        assert_eq!(split(&open).as_slice(), [(0..CHAIN_LEN_MAX + 5, Some(Refusal::ChainOpen))]);
    }
}
