//! A branch's part of a transfer between two branches.
//!
//! ```text
//!        source branch                                   destination branch
//!   payer's account --> "due to the other branch"    "due from the other branch" --> payee's account
//! ```
//!
//! Each side is a complete double entry by itself, against a settlement account that the branch keeps for the other
//! one. It is prepared as a hold that the registry's decision alone ends. Of a hold between branches that decision is to
//! let it stand; what then ends it is in `ending.rs`. A member of a chain between branches that stays within its branch is
//! prepared in the same way, so that it can be given back (`chain_between.rs`).
//!
//! **Invariant:** what the source has posted to "due to B" and the destination from "due from A" is the same, in every
//! currency, whenever no decision is on its way.

use tally_protocol::{AccountId, Amount, BranchId, Currency, Refusal, Timestamp, TransferId};

use crate::account::Account;
use crate::closing::StatusChange;
use crate::hold::{Hold, HoldStage};
use crate::journal::record::TransferRecord;
use crate::outcome::Outcome;
use crate::two_phase::{AbortReason, Decision};

/// Which part of a transfer a record or a hold is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Leg {
    /// All of it: both accounts are of this branch.
    #[default]
    Whole = 0,
    /// The payer's side; the payee's account is of another branch.
    Source = 1,
    /// The payee's side; the payer's account is of another branch.
    Destination = 2,
    /// All of it, as a member of a chain between branches: both accounts are of this branch, and it waits for the chain's
    /// decision.
    Inner = 3,
}

impl Leg {
    /// Reads the value of a record.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::Whole,
            1 => Self::Source,
            2 => Self::Destination,
            3 => Self::Inner,
            _ => return None,
        })
    }

    /// Whether another branch has the other part.
    pub const fn is_part(self) -> bool {
        matches!(self, Self::Source | Self::Destination)
    }

    /// Whether it is prepared first, and then decided by the registry.
    pub const fn awaits_decision(self) -> bool {
        !matches!(self, Self::Whole)
    }
}

/// What `branch` owes `peer`, and is owed: the other side of every transfer between the two.
pub const fn settlement_account_id(branch: BranchId, peer: BranchId, currency: Currency) -> AccountId {
    AccountId::of_settlement(branch, peer, currency)
}

/// The settlement account for `peer`, which the branch opens itself the first time that it is needed: no limits, owned
/// by the bank.
pub fn settlement_account(branch: BranchId, peer: BranchId, currency: Currency, now: Timestamp) -> Account {
    Account {
        id: settlement_account_id(branch, peer, currency),
        kind: tally_protocol::AccountKind::Settlement,
        ..crate::cash_account(branch, currency, now)
    }
}

/// Carries a decision out on a prepared leg: posts it, lets a hold stand, or gives it back. Never refused: whatever could
/// refuse it was reserved when it was prepared.
pub fn decide_leg(hold: &Hold, decision: Decision, debit: &Account, credit: &Account) -> Outcome {
    let posted = match (decision, hold.stage) {
        (Decision::Commit, HoldStage::AwaitsKeeping) => return kept(hold, debit, credit),
        (
            Decision::Commit,
            HoldStage::Open | HoldStage::AwaitsPosting | HoldStage::Joining(_) | HoldStage::Ended(_),
        ) => hold.amount,
        (Decision::Abort(_), _) => Amount::ZERO,
    };
    crate::decide::end_hold(hold, (posted, posted), StatusChange::NONE, debit, credit)
}

/// Both accounts as they are: what was reserved stays so.
const fn kept(hold: &Hold, debit: &Account, credit: &Account) -> Outcome {
    Outcome {
        refusal: None,
        day: debit.day,
        day_spent: debit.day_spent,
        amount: hold.amount,
        debit: debit.sums,
        credit: credit.sums,
        status: StatusChange::NONE,
    }
}

/// What the payer is told of an abort; `None` for a commit.
pub fn refusal_of(decision: Decision) -> Option<Refusal> {
    match decision {
        Decision::Commit => None,
        // The payer's id is used up whatever it was, so the answer must be one that stays.
        Decision::Abort(AbortReason::Refused(_, no)) if no.refusal.consumes_id() => Some(no.refusal),
        Decision::Abort(AbortReason::Refused(..) | AbortReason::Presumed) => Some(Refusal::TransferAborted),
        Decision::Abort(AbortReason::TimedOut(_)) => Some(Refusal::BranchTimedOut),
        Decision::Abort(AbortReason::Resolved) => Some(Refusal::TransferResolved),
    }
}

impl TransferRecord {
    /// The account at the other branch, where this is a leg.
    pub const fn far_account_id(&self) -> Option<AccountId> {
        if self.leg.is_part() { Some(AccountId::new(self.reference.get())) } else { None }
    }

    /// As the record of a decision that the registry stamped `at`.
    #[must_use]
    pub const fn decided(self, at: Timestamp) -> Self {
        Self { user_data_64: at.as_nanos(), ..self }
    }

    /// Of the record of a decision: when the registry decided.
    pub const fn decided_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.user_data_64)
    }

    /// The branch that has the other part; 0 where there is none. It is what the settlement account is for, whatever branch
    /// the account's id names: an account may have moved.
    pub fn peer(&self) -> BranchId {
        let settlement = match self.leg {
            Leg::Whole | Leg::Inner => return BranchId::default(),
            Leg::Source => self.credit_account_id,
            Leg::Destination => self.debit_account_id,
        };
        settlement.settlement_peer().unwrap_or_default()
    }

    /// Whether this is a leg that was prepared: held until the registry decides.
    pub const fn is_prepared(&self) -> bool {
        self.leg.awaits_decision() && self.refusal.is_none()
    }

    /// The record with the accounts that the client named instead of the settlement account.
    #[must_use]
    pub fn as_asked(&self) -> Self {
        let Some(far) = self.far_account_id() else { return *self };
        let user_data_64 = if self.came_along() { 0 } else { self.user_data_64 };
        let mut asked = Self { reference: TransferId::NONE, user_data_64, ..*self };
        match self.leg {
            Leg::Whole | Leg::Inner => {}
            Leg::Source => asked.credit_account_id = far,
            Leg::Destination => asked.debit_account_id = far,
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::{self, Role, TransferKind, transfer_flags};
    use tally_protocol::{CustomerId, Lsn};
    use zerocopy::FromZeros;

    use super::*;
    use crate::journal::record::{Record, RecordBody};
    use crate::{
        Actor, Guests, RecordEffect, Reference, Transfer, decide, effective_accounts, repeat, transfer_record,
    };

    const HERE: BranchId = BranchId::new(1);
    const THERE: BranchId = BranchId::new(2);
    const NOW: Timestamp = Timestamp::from_nanos(5);
    const ANN: AccountId = AccountId::of_branch(HERE, 7);
    const BOB: AccountId = AccountId::of_branch(THERE, 8);
    const STAFF: Actor = Actor { role: Role::Admin, customer: CustomerId::BANK };

    fn wire() -> message::Transfer {
        message::Transfer {
            id: 99.into(),
            debit_account_id: ANN.get().into(),
            credit_account_id: BOB.get().into(),
            amount: 30.into(),
            user_data_32: 4.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            kind: TransferKind::Transfer as u8,
            ..message::Transfer::new_zeroed()
        }
    }

    fn customer(id: AccountId, balance: u64) -> Account {
        let mut account = crate::cash_account(id.branch(), Currency::EUR, NOW);
        (account.id, account.owner, account.kind) = (id, CustomerId::new(5), tally_protocol::AccountKind::Customer);
        account.flags = message::account_flags::DEBITS_LIMITED;
        account.sums.credits_posted = Amount::new(balance);
        account
    }

    /// A leg carried out at `branch`: the record of its prepare, its hold, and both accounts with the hold on them.
    fn prepared(transfer: &Transfer, branch: BranchId, own: Account) -> (TransferRecord, Hold, Account, Account) {
        let peer = if branch == HERE { THERE } else { HERE };
        let settlement = settlement_account(branch, peer, Currency::EUR, NOW);
        let (debit_id, _) = effective_accounts(transfer, &Reference::NotGiven, branch).expect("no reference");
        let (mut debit, mut credit) = if debit_id == own.id { (own, settlement) } else { (settlement, own) };
        let outcome = decide(transfer, &Reference::NotGiven, Some(&debit), Some(&credit), &STAFF, NOW);
        assert_eq!(outcome.refusal, None);
        outcome.apply(&mut debit, &mut credit, Lsn::new(64), NOW);
        let record = transfer_record(transfer, &Reference::NotGiven, branch, &outcome);
        let RecordEffect::HoldOpened(hold) = RecordEffect::of_transfer(&record, Lsn::new(64), NOW) else {
            panic!("a prepared leg is a hold")
        };
        (record, hold, debit, credit)
    }

    fn survives(body: RecordBody) {
        let record = Record { lsn: Lsn::new(64), timestamp: NOW, actor: CustomerId::BANK, body };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn both_legs_hold_and_post_or_give_back_the_same() {
        for decision in [Decision::Commit, Decision::Abort(AbortReason::Presumed)] {
            let source = Transfer::from_wire_between(&wire(), HERE, THERE, Guests::NONE).expect("well formed");
            let destination = Transfer::from_source(&wire(), THERE, HERE, Guests::NONE).expect("well formed");
            for (transfer, branch, own) in [(source, HERE, customer(ANN, 50)), (destination, THERE, customer(BOB, 0))] {
                let (record, hold, mut debit, mut credit) = prepared(&transfer, branch, own);
                assert_eq!((hold.amount, hold.leg, hold.expires_at), (Amount::new(30), transfer.leg, Timestamp::MAX));
                assert_eq!(debit.sums.debits_held, Amount::new(30));
                assert_eq!(credit.sums.credits_held, Amount::new(30));
                survives(RecordBody::Transfer(record));
                let outcome = decide_leg(&hold, decision, &debit, &credit);
                outcome.apply(&mut debit, &mut credit, Lsn::new(128), NOW);
                let posted = Amount::new(if decision == Decision::Commit { 30 } else { 0 });
                assert_eq!((debit.sums.debits_held, debit.sums.debits_posted), (Amount::ZERO, posted));
                assert_eq!(credit.sums.credits_held, Amount::ZERO);
                let decided = crate::hold_end_record(&hold, &outcome).decided(NOW);
                assert_eq!((decided.amount, decided.far_account_id()), (posted, record.far_account_id()));
                assert_eq!(decided.decided_at(), NOW);
                survives(RecordBody::Decided(refusal_of(decision), decided));
            }
        }
    }

    #[test]
    fn a_hold_stands_at_both_and_ends_alike() {
        use crate::{Ending, HoldEnd, end_leg};
        let wire = message::Transfer { kind: TransferKind::Hold as u8, timeout_s: 60.into(), ..wire() };
        let source = Transfer::from_wire_between(&wire, HERE, THERE, Guests::NONE).expect("well formed");
        let destination = Transfer::from_source(&wire, THERE, HERE, Guests::NONE).expect("well formed");
        for (transfer, branch, own) in [(source, HERE, customer(ANN, 50)), (destination, THERE, customer(BOB, 0))] {
            let (_, hold, debit, credit) = prepared(&transfer, branch, own);
            assert!(hold.is_in_doubt() && !hold.has_timeout(), "time does not end what is in doubt");
            let outcome = decide_leg(&hold, Decision::Commit, &debit, &credit);
            assert_eq!((outcome.debit, outcome.credit, outcome.amount), (debit.sums, credit.sums, Amount::new(30)));
            let body = RecordBody::Decided(None, crate::hold_end_record(&hold, &outcome));
            survives(body.clone());
            assert_eq!(crate::Ended::of_record(&body), None);
            assert_eq!(RecordEffect::of(&body, Lsn::new(128), NOW), RecordEffect::HoldKept(hold.id));
            let standing = Hold { stage: HoldStage::Open, ..hold };
            assert_eq!(standing.has_timeout(), branch == HERE, "the payer's branch looks at the clock");
            let aborted = decide_leg(&hold, Decision::Abort(AbortReason::Presumed), &debit, &credit);
            assert_eq!(aborted.debit.debits_held, Amount::ZERO);
            match branch {
                HERE => assert_eq!(Reference::of_open(standing), Reference::Open(standing)),
                _ => assert_eq!(Reference::of_open(standing), Reference::NotNow(Refusal::HoldElsewhere)),
            }
            if branch == HERE {
                let expired = crate::expire_hold(&standing, &debit, &credit);
                let body = RecordBody::Expired(crate::hold_end_record(&standing, &expired));
                survives(body.clone());
                let ending = Ending::of_record(&body, Lsn::new(128), NOW).expect("the other branch has to be told");
                assert_eq!((ending.hold_id, ending.end, ending.peer), (hold.id, HoldEnd::Expired, THERE));
                assert_eq!(Ending::of_hold(&ending.to_hold(HERE)), Some(ending));
                assert_eq!(Ending::of_hold(&standing), None);
                continue;
            }
            for (end, posted, left) in [
                (HoldEnd::Settled, 30, Some(0)),
                (HoldEnd::Settled, 12, Some(0)),
                (HoldEnd::Settled, 31, None),
                (HoldEnd::Voided, 0, Some(0)),
                (HoldEnd::Voided, 1, None),
                (HoldEnd::Expired, 0, Some(0)),
            ] {
                let ended = end_leg(&standing, end, (Amount::new(posted), NOW), &debit, &credit);
                assert_eq!(ended.is_some(), left.is_some(), "{end:?} {posted}");
                let Some((outcome, body)) = ended else { continue };
                assert_eq!(
                    (outcome.credit.credits_held, outcome.credit.credits_posted),
                    (Amount::ZERO, Amount::new(posted))
                );
                survives(body.clone());
                assert_eq!(crate::Ended::of_record(&body), Some(crate::Ended::Hold(end)));
                assert_eq!(RecordEffect::of(&body, Lsn::new(128), NOW), RecordEffect::HoldEnded(hold.id, end));
                assert_eq!(Ending::of_record(&body, Lsn::new(128), NOW), None, "only the payer's branch tells");
            }
        }
    }

    #[test]
    fn a_record_remembers_what_was_asked() {
        let source = Transfer::from_wire_between(&wire(), HERE, THERE, Guests::NONE).expect("well formed");
        let (record, ..) = prepared(&source, HERE, customer(ANN, 50));
        assert_eq!(record.credit_account_id, settlement_account_id(HERE, THERE, Currency::EUR));
        assert_eq!(crate::transfer_of_record(&record), source);
        let body = RecordBody::Transfer(record);
        assert!(repeat(&source, &body).is_ok());
        let other = Transfer { credit_account_id: AccountId::of_branch(THERE, 9), ..source };
        assert_eq!(repeat(&other, &body), Err(Refusal::ExistsWithDifferentCreditAccount));
    }

    /// Whatever branch the far account's id names.
    #[test]
    fn a_refused_part_remembers_what_was_asked_and_which_branch_has_the_other() {
        let third = BranchId::new(3);
        let source = Transfer::from_wire_between(&wire(), HERE, third, Guests::NONE).expect("well formed");
        let destination = Transfer::from_source(&wire(), THERE, third, Guests::NONE).expect("well formed");
        for (transfer, branch) in [(source, HERE), (destination, THERE)] {
            let settlement = settlement_account(branch, third, Currency::EUR, NOW);
            let (debit, credit) = if branch == HERE { (None, Some(&settlement)) } else { (Some(&settlement), None) };
            let outcome = decide(&transfer, &Reference::NotGiven, debit, credit, &STAFF, NOW);
            assert!(outcome.refusal.is_some(), "the customer's account is not there");
            let record = transfer_record(&transfer, &Reference::NotGiven, branch, &outcome);
            assert_eq!(record.peer(), third);
            assert_eq!(crate::transfer_of_record(&record), transfer);
            assert!(repeat(&transfer, &RecordBody::Transfer(record)).is_ok());
            survives(RecordBody::Transfer(record));
        }
    }

    #[test]
    fn what_may_go_between_branches() {
        let flags = |flags: u16| message::Transfer { flags: flags.into(), ..wire() };
        let kind = |kind: TransferKind| message::Transfer { kind: kind as u8, ..wire() };
        let table = [
            (wire(), Ok(Leg::Source)),
            (flags(transfer_flags::WANT_BALANCES), Ok(Leg::Source)),
            (flags(transfer_flags::BALANCING_DEBIT), Err(Refusal::WrongBranch)),
            (flags(transfer_flags::LINKED), Err(Refusal::WrongBranch)),
            (flags(transfer_flags::BALANCING_CREDIT), Err(Refusal::WrongBranch)),
            (
                message::Transfer { user_data_64: 3.into(), ..flags(transfer_flags::IMPORTED) },
                Err(Refusal::WrongBranch),
            ),
            (kind(TransferKind::Hold), Ok(Leg::Source)),
            (
                message::Transfer { flags: transfer_flags::CLOSING_CREDIT.into(), ..kind(TransferKind::Hold) },
                Err(Refusal::WrongBranch),
            ),
            (kind(TransferKind::Deposit), Err(Refusal::WrongBranch)),
            (
                message::Transfer { debit_account_id: (ANN.get() + (1 << 112)).into(), ..wire() },
                Err(Refusal::WrongBranch),
            ),
            (message::Transfer { amount: 0.into(), ..wire() }, Err(Refusal::AmountMustNotBeZero)),
            (
                message::Transfer { credit_account_id: u128::MAX.into(), ..wire() },
                Err(Refusal::CreditAccountMustNotBeMax),
            ),
        ];
        for (wire, expected) in table {
            assert_eq!(
                Transfer::from_wire_between(&wire, HERE, THERE, Guests::NONE).map(|transfer| transfer.leg),
                expected,
                "{wire:?}"
            );
        }
        assert_eq!(Transfer::from_wire(&wire(), HERE), Err(Refusal::WrongBranch));
        let inbound = [
            (wire(), Ok(Leg::Destination)),
            (flags(transfer_flags::WANT_BALANCES), Err(Refusal::FlagsConflict)),
            (kind(TransferKind::Hold), Ok(Leg::Destination)),
            (kind(TransferKind::Withdraw), Err(Refusal::WrongBranch)),
            (message::Transfer { debit_account_id: BOB.get().into(), ..wire() }, Err(Refusal::AccountsMustDiffer)),
            (message::Transfer { credit_account_id: ANN.get().into(), ..wire() }, Err(Refusal::AccountsMustDiffer)),
            (message::Transfer { credit_account_id: (ANN.get() + 1).into(), ..wire() }, Err(Refusal::WrongBranch)),
        ];
        for (wire, expected) in inbound {
            assert_eq!(
                Transfer::from_source(&wire, THERE, HERE, Guests::NONE).map(|transfer| transfer.leg),
                expected,
                "{wire:?}"
            );
        }
    }

    #[test]
    fn what_the_payer_is_told_of_an_abort_is_final() {
        for reason in [
            AbortReason::Refused(THERE, Refusal::CreditAccountClosed.into()),
            AbortReason::Refused(THERE, Refusal::Busy.into()),
            AbortReason::TimedOut(THERE),
            AbortReason::Presumed,
            AbortReason::Resolved,
        ] {
            assert!(refusal_of(Decision::Abort(reason)).is_some_and(Refusal::consumes_id), "{reason:?}");
        }
        assert_eq!(refusal_of(Decision::Commit), None);
    }
}
