//! A linked chain whose members concern several branches: every member happens, at every branch, or none does.
//!
//! ```text
//!   chain of three, sent to branch 1                   prepared at
//!     member 0   account of 1 --> account of 2         1 as its source, 2 as its destination
//!     member 1   account of 1 --> account of 1         1, both sides (`Leg::Inner`)
//!     member 2   account of 1 --> account of 3         1 as its source, 3 as its destination
//! ```
//!
//! The branch of the payers takes the chain. At each branch all members that concern it are prepared in one stretch of the
//! journal, by the rules of a chain within a branch ([`crate::decide_chain`]), and voted on as one. The registry decides once,
//! under the id of the first member, and each branch carries that out on all of them in one stretch.
//!
//! **Invariant:** the members of a chain at a branch are prepared together and end together: in memory under the locks of
//! all their accounts, in the journal in one group.

use tally_protocol::message::{self, transfer_flags};
use tally_protocol::{BranchId, Refusal, TransferId};

use crate::leg::{Leg, refusal_of};
use crate::transfer::{Guests, RARE, Transfer, ensure, goes_between};
use crate::two_phase::{AbortReason, Decision};

/// Where a transfer stands in a chain between branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainPlace {
    /// The chain's id: that of its first member. The registry decides under it.
    pub id: TransferId,
    /// Which member, from 0.
    pub member: u8,
    /// Whether it is the first of its chain at this branch: what is asked here about the chain is asked about this member.
    pub is_head: bool,
}

/// Reads member `place` of a chain between branches, as its source. `peer` is the home of the credit account, where that is
/// another branch.
///
/// # Errors
/// As [`Transfer::from_wire_between`]; `WrongBranch` also for a member within the branch that could not go between
/// branches.
pub fn chain_form(
    wire: &message::Transfer,
    place: ChainPlace,
    (branch, peer): (BranchId, Option<BranchId>),
) -> Result<Transfer, Refusal> {
    // The chain is linked as a whole; what the flag says is kept for the record.
    let unlinked = message::Transfer { flags: (wire.flags.get() & !transfer_flags::LINKED).into(), ..*wire };
    let flags = wire.flags.get();
    let transfer = match peer {
        Some(peer) => Transfer::from_wire_between(&unlinked, branch, peer, Guests::NONE)?,
        None => {
            let transfer = Transfer::from_wire(&unlinked, branch)?;
            let local_only = transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT | RARE;
            ensure(goes_between(wire.kind) && flags & local_only == 0, Refusal::WrongBranch)?;
            Transfer { leg: Leg::Inner, ..transfer }
        }
    };
    Ok(Transfer { flags, chain: Some(place), ..transfer })
}

/// What is told of one member when its chain is decided; `None` for a commit. The member that was refused carries the
/// reason, or the first one where it was no member's; the others are `ChainBroken`.
pub fn member_refusal(decision: Decision, member: u8) -> Option<Refusal> {
    let told = match decision {
        Decision::Commit => return None,
        Decision::Abort(AbortReason::Refused(_, why)) => why.member,
        Decision::Abort(AbortReason::TimedOut(_) | AbortReason::Presumed | AbortReason::Resolved) => 0,
    };
    if member == told { refusal_of(decision) } else { Some(Refusal::ChainBroken) }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::{Role, TransferKind};
    use tally_protocol::{AccountId, Amount, Currency, CustomerId, Lsn, Timestamp};
    use zerocopy::FromZeros;

    use super::*;
    use crate::journal::record::{Record, RecordBody};
    use crate::two_phase::Objection;
    use crate::{
        Account, Actor, ChainOutcome, ChainStep, Hold, HoldStage, RecordEffect, Reference, chain_accounts,
        decide_chain, decide_leg, hold_end_record, repeat, settlement_account, transfer_of_record, transfer_record,
    };

    const HERE: BranchId = BranchId::new(1);
    const THERE: BranchId = BranchId::new(2);
    const NOW: Timestamp = Timestamp::from_nanos(5);
    const STAFF: Actor = Actor { role: Role::Admin, customer: CustomerId::BANK };

    const fn account(branch: BranchId, number: u128) -> AccountId {
        AccountId::of_branch(branch, number)
    }

    fn wire(id: u128, debit: AccountId, credit: AccountId, amount: u64) -> message::Transfer {
        message::Transfer {
            id: id.into(),
            debit_account_id: debit.get().into(),
            credit_account_id: credit.get().into(),
            amount: amount.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            kind: TransferKind::Transfer as u8,
            ..message::Transfer::new_zeroed()
        }
    }

    fn place(member: u8) -> ChainPlace {
        ChainPlace { id: TransferId::new(90), member, is_head: member == 0 }
    }

    fn customer(id: AccountId, balance: u64) -> Account {
        let mut account = crate::cash_account(id.branch(), Currency::EUR, NOW);
        (account.id, account.owner, account.kind) = (id, CustomerId::new(5), tally_protocol::AccountKind::Customer);
        account.flags = message::account_flags::DEBITS_LIMITED;
        account.sums.credits_posted = Amount::new(balance);
        account
    }

    /// Member 0 goes to the other branch, the others stay: their payers, payees and amounts.
    fn decided(inner: &[(u128, u128, u64)]) -> (Vec<ChainStep>, ChainOutcome, Vec<Account>) {
        let far = chain_form(&wire(90, account(HERE, 1), account(THERE, 1), 30), place(0), (HERE, Some(THERE)));
        let mut transfers = vec![far.expect("well formed")];
        for (at, &(debit, credit, amount)) in inner.iter().enumerate() {
            let wire = wire(91 + at as u128, account(HERE, debit), account(HERE, credit), amount);
            transfers.push(chain_form(&wire, place(at as u8 + 1), (HERE, None)).expect("well formed"));
        }
        let step = |transfer| ChainStep { transfer, reference: Reference::NotGiven, refusal: None };
        let steps: Vec<ChainStep> = transfers.into_iter().map(step).collect();
        let mut ids = Vec::new();
        chain_accounts(&steps, HERE, &mut ids);
        let known = |&id: &AccountId| match id.settlement_peer() {
            Some(peer) => settlement_account(HERE, peer, Currency::EUR, NOW),
            None => customer(id, 50),
        };
        let accounts: Vec<Account> = ids.iter().map(known).collect();
        let mut outcome = ChainOutcome::default();
        decide_chain(&steps, &accounts, HERE, &STAFF, NOW, &mut outcome);
        (steps, outcome, accounts)
    }

    fn refusals(outcome: &ChainOutcome) -> Vec<Option<Refusal>> {
        outcome.outcomes.iter().map(|outcome| outcome.refusal).collect()
    }

    #[test]
    fn every_member_is_held_and_ends_with_the_others() {
        for decision in [Decision::Commit, Decision::Abort(AbortReason::Presumed)] {
            let (steps, outcome, mut accounts) = decided(&[(1, 2, 20), (2, 3, 50)]);
            assert_eq!(refusals(&outcome), [None; 3]);
            let mut holds: Vec<Hold> = Vec::new();
            for (step, outcome) in steps.iter().zip(&outcome.outcomes) {
                let record = transfer_record(&step.transfer, &step.reference, HERE, outcome);
                assert!(record.is_prepared());
                assert_eq!(transfer_of_record(&record), step.transfer);
                assert_eq!(record.chain, step.transfer.chain);
                let record = survives(RecordBody::Transfer(record));
                assert_eq!(record.body.len_bytes(), step.transfer.record_len_bytes());
                let RecordEffect::HoldOpened(hold) = RecordEffect::of(&record.body, record.lsn, NOW) else {
                    panic!("a member is held")
                };
                assert_eq!((hold.stage, hold.decision_id()), (HoldStage::AwaitsPosting, TransferId::new(90)));
                holds.push(hold);
            }
            accounts.clone_from(&outcome.accounts);
            assert_eq!(accounts[0].sums.debits_held, Amount::new(50));
            for hold in &holds {
                let at = |id| accounts.iter().position(|account: &Account| account.id == id).expect("it is there");
                let [debit, credit] = [at(hold.debit_account_id), at(hold.credit_account_id)];
                let outcome = decide_leg(hold, decision, &accounts[debit], &accounts[credit]);
                let record = hold_end_record(hold, &outcome).decided(NOW);
                assert_eq!(record.chain, hold.chain);
                let refusal = member_refusal(decision, hold.chain.expect("it is in a chain").member);
                let record = survives(RecordBody::Decided(refusal, record));
                assert_eq!(RecordEffect::of(&record.body, record.lsn, NOW), RecordEffect::Decided(hold.id));
                let [debit, credit] = accounts.get_disjoint_mut([debit, credit]).expect("two");
                outcome.apply(debit, credit, Lsn::new(128), NOW);
            }
            for account in &accounts {
                assert_eq!((account.sums.debits_held, account.sums.credits_held), Default::default());
            }
            let posted = if decision == Decision::Commit { 50 } else { 0 };
            assert_eq!(accounts[0].sums.debits_posted, Amount::new(posted));
        }
    }

    fn survives(body: RecordBody) -> Record {
        let record = Record { lsn: Lsn::new(64), timestamp: NOW, actor: CustomerId::BANK, body };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        record
    }

    /// Each line: the members within the branch, and what each member of the chain is told. All accounts begin with 50.
    #[test]
    fn a_chain_is_refused_as_a_whole_and_says_which_member_is_to_blame() {
        use Refusal::{ChainBroken as Broken, InsufficientFunds as Funds};
        type Line<'a> = (&'a [(u128, u128, u64)], &'a [Option<Refusal>]);
        let table: &[Line<'_>] = &[
            (&[], &[None]),
            (&[(1, 2, 20)], &[None, None]),
            // Limits count earlier members.
            (&[(1, 2, 21)], &[Some(Broken), Some(Funds)]),
            (&[(1, 2, 10), (1, 3, 11)], &[Some(Broken), Some(Broken), Some(Funds)]),
            (&[(2, 3, 51), (1, 2, 1)], &[Some(Broken), Some(Funds), Some(Broken)]),
            // What an earlier member credits is held, and cannot be spent by a later one.
            (&[(1, 2, 20), (2, 3, 51)], &[Some(Broken), Some(Broken), Some(Funds)]),
        ];
        for (inner, expected) in table {
            let (steps, outcome, before) = decided(inner);
            assert_eq!(refusals(&outcome), *expected, "{inner:?}");
            if !outcome.is_done() {
                assert_eq!(outcome.accounts, before);
                assert!(outcome.is_recorded());
            }
            for (step, outcome) in steps.iter().zip(&outcome.outcomes) {
                let record = transfer_record(&step.transfer, &step.reference, HERE, outcome);
                let record = survives(RecordBody::Transfer(record));
                assert!(repeat(&step.transfer, &record.body).is_ok());
            }
        }
    }

    #[test]
    fn what_may_be_a_member() {
        let near = |kind: TransferKind| message::Transfer {
            kind: kind as u8,
            ..wire(90, account(HERE, 1), account(HERE, 2), 5)
        };
        let far = |kind: TransferKind| message::Transfer {
            kind: kind as u8,
            ..wire(90, account(HERE, 1), account(THERE, 2), 5)
        };
        let flags = |wire: message::Transfer, flags: u16| message::Transfer { flags: flags.into(), ..wire };
        let wrong = Err(Refusal::WrongBranch);
        let (plain, hold) = (TransferKind::Transfer, TransferKind::Hold);
        let table = [
            (near(plain), None, Ok(Leg::Inner)),
            (near(hold), None, Ok(Leg::Inner)),
            (far(plain), Some(THERE), Ok(Leg::Source)),
            (far(hold), Some(THERE), Ok(Leg::Source)),
            (flags(near(plain), transfer_flags::LINKED), None, Ok(Leg::Inner)),
            (flags(far(plain), transfer_flags::LINKED | transfer_flags::WANT_BALANCES), Some(THERE), Ok(Leg::Source)),
            (flags(near(plain), transfer_flags::BALANCING_DEBIT), None, wrong),
            (flags(far(plain), transfer_flags::BALANCING_DEBIT), Some(THERE), wrong),
            (flags(near(hold), transfer_flags::CLOSING_CREDIT), None, wrong),
            (message::Transfer { debit_account_id: 0.into(), ..near(TransferKind::Deposit) }, None, wrong),
            // The payer is of another branch.
            (wire(90, account(THERE, 1), account(HERE, 1), 5), None, wrong),
            (wire(90, account(THERE, 1), account(BranchId::new(3), 1), 5), Some(BranchId::new(3)), wrong),
            (message::Transfer { amount: 0.into(), ..far(plain) }, Some(THERE), Err(Refusal::AmountMustNotBeZero)),
        ];
        for (wire, peer, expected) in table {
            let formed = chain_form(&wire, place(1), (HERE, peer));
            assert_eq!(formed.map(|transfer| transfer.leg), expected, "{wire:?}");
            if let Ok(transfer) = formed {
                assert_eq!((transfer.flags, transfer.chain), (wire.flags.get(), Some(place(1))));
            }
        }
    }

    #[test]
    fn the_member_that_was_refused_carries_the_reason() {
        let why = Objection { refusal: Refusal::CreditAccountFrozen, member: 2 };
        let busy = Objection { refusal: Refusal::Busy, member: 1 };
        let (frozen, broken) = (Some(Refusal::CreditAccountFrozen), Some(Refusal::ChainBroken));
        for (decision, expected) in [
            (Decision::Commit, [None; 3]),
            (Decision::Abort(AbortReason::Refused(THERE, why)), [broken, broken, frozen]),
            (Decision::Abort(AbortReason::Refused(THERE, busy)), [broken, Some(Refusal::TransferAborted), broken]),
            (Decision::Abort(AbortReason::TimedOut(THERE)), [Some(Refusal::BranchTimedOut), broken, broken]),
            (Decision::Abort(AbortReason::Presumed), [Some(Refusal::TransferAborted), broken, broken]),
            (Decision::Abort(AbortReason::Resolved), [Some(Refusal::TransferResolved), broken, broken]),
        ] {
            assert_eq!([0, 1, 2].map(|member| member_refusal(decision, member)), expected, "{decision:?}");
            let told = expected.iter().flatten();
            assert!(told.copied().all(Refusal::consumes_id));
        }
    }
}
