//! Answers about single transfers and ids.

use tally_protocol::message::{self, Role, TransferKind, transfer_flags};
use tally_protocol::{AccountId, Lsn, Refusal, RefusalGroup, TransferId};

use super::Audit;
use crate::invariants::{Violation, hold, violated};
use crate::model::{Ask, ModelSums, Used, Verdict, form_of, repeat_answer};
use crate::request::Sent;

/// What an answer says about one transfer, whatever message it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) timestamp: u64,
    /// Single transfers only.
    pub(super) lsn_and_amount: Option<(Lsn, u64)>,
    pub(super) refusal: Option<Refusal>,
    pub(super) is_repeat: bool,
}

impl Said {
    pub(super) const fn item(item: &message::ItemResult) -> Self {
        Self {
            timestamp: item.timestamp.get(),
            lsn_and_amount: None,
            refusal: item.known_refusal(),
            is_repeat: item.is_repeat(),
        }
    }

    /// Whether the answer is about a record, now or before.
    pub(super) const fn is_recorded(&self) -> bool {
        self.timestamp != 0
    }
}

impl Audit {
    pub(super) fn transfer_answer(
        &mut self,
        number: usize,
        sent: &Sent,
        wire: &message::Transfer,
        reply: &message::TransferReply,
        balances: Option<&[message::Sums; 2]>,
    ) -> Result<(), Violation> {
        let said = Said {
            timestamp: reply.timestamp.get(),
            lsn_and_amount: Some((Lsn::new(reply.lsn.get()), reply.amount.get())),
            refusal: reply.known_refusal(),
            is_repeat: reply.is_repeat(),
        };
        hold!(AnswersMatchModel, reply.is_done() == said.refusal.is_none(), "refusal {} is unknown", reply.refusal);
        if !said.is_recorded() {
            return match said.refusal {
                Some(refusal) => self.unrecorded(number, sent, wire, refusal),
                None => violated!(AnswersMatchModel, "request {number} was done, but not recorded"),
            };
        }
        let verdict = self.recorded(number, wire, &said)?;
        let wanted = wire.flags.get() & transfer_flags::WANT_BALANCES != 0;
        hold!(AnswersMatchModel, wanted == balances.is_some(), "balances were wanted: {wanted}, sent: {balances:?}");
        if let (Some([debit, credit]), None) = (balances, said.refusal) {
            let got = (sums_of(debit), sums_of(credit));
            let shown = |id: u128, sums: ModelSums| if self.may_see(sent, id) { sums } else { ModelSums::default() };
            let right = (shown(verdict.debit, verdict.debit_sums), shown(verdict.credit, verdict.credit_sums));
            hold!(AnswersMatchModel, got == right, "balances {got:?} instead of {right:?}");
        }
        Ok(())
    }

    /// An answer that tells of a record, this request's own or, for a repeat, an earlier one's.
    pub(super) fn recorded(
        &mut self,
        number: usize,
        wire: &message::Transfer,
        said: &Said,
    ) -> Result<Verdict, Violation> {
        let id = TransferId::new(wire.id.get());
        let Some(Used::Transfer { ask: first, verdict, lsn, timestamp }) = self.model.used(id).cloned() else {
            violated!(ReplyAfterDurable, "request {number} was told of a record of {id}, which is not on the disk")
        };
        let ask = match form_of(wire, self.branch) {
            Ok(ask) => ask,
            Err(refusal) => violated!(AnswersMatchModel, "{refusal} was expected for request {number}, got {said:?}"),
        };
        hold!(
            AnswersMatchModel,
            said.refusal == verdict.refusal && said.timestamp == timestamp,
            "request {number} was answered {said:?}, recorded is {verdict:?} at {lsn}, {timestamp}"
        );
        if let Some(got) = said.lsn_and_amount {
            hold!(AnswersMatchModel, got == (lsn, verdict.amount), "{got:?} instead of {:?}", (lsn, verdict.amount));
        }
        let accounts = [verdict.debit, verdict.credit];
        self.tell(lsn, if verdict.refusal.is_none() { &accounts } else { &[] })?;
        self.told.used.insert(id);
        if verdict.refusal.is_none()
            && matches!(ask.kind, TransferKind::Settle | TransferKind::Void | TransferKind::Reverse)
        {
            self.told.ended.insert(TransferId::new(ask.reference));
        }
        if said.is_repeat {
            self.counts.repeats += 1;
            let right = self.repeat(&ask);
            let used = self.model.used(id);
            hold!(
                AnswersMatchModel,
                right.is_ok(),
                "request {number} repeats {id} of {used:?} by {ask:?}, but {right:?} was expected"
            );
        } else {
            hold!(OneEffect, ask == first, "request {number} was answered for {first:?}, it asked {ask:?}");
            self.one_effect.check_answer(id, lsn, number)?;
        }
        Ok(verdict)
    }

    /// An answer that tells of no record: nothing was done, and the id is as free as before.
    pub(super) fn unrecorded(
        &mut self,
        number: usize,
        sent: &Sent,
        wire: &message::Transfer,
        refusal: Refusal,
    ) -> Result<(), Violation> {
        if self.is_turned_away(sent, refusal) {
            self.counts.turned_away += 1;
            return Ok(());
        }
        let (right, ask) = self.refusal_without_record(sent, wire);
        let is_right = match (refusal.group(), ask) {
            (_, _) if right.is_some() => Some(refusal) == right,
            (RefusalGroup::Known, Some(ask)) => {
                self.counts.repeats += 1;
                self.told_used(TransferId::new(ask.id))?;
                self.repeat(&ask).err() == Some(refusal)
            }
            (
                RefusalGroup::Known
                | RefusalGroup::Session
                | RefusalGroup::Malformed
                | RefusalGroup::State
                | RefusalGroup::Account,
                _,
            ) => false,
        };
        hold!(AnswersMatchModel, is_right, "request {number} was refused by {refusal}, expected {right:?}");
        Ok(())
    }

    /// What can be said against a transfer without looking at the ledger.
    pub(super) fn refusal_without_record(
        &self,
        sent: &Sent,
        wire: &message::Transfer,
    ) -> (Option<Refusal>, Option<Ask>) {
        match form_of(wire, self.branch) {
            Err(refusal) => (Some(refusal), None),
            Ok(ask) if !may_ask(sent.actor.role, &ask) => (Some(Refusal::NotPermitted), None),
            Ok(ask) => (None, Some(ask)),
        }
    }

    /// Customers see their own accounts only.
    pub(super) fn may_see(&self, sent: &Sent, account: u128) -> bool {
        let owner = self.model.account(account).map(|account| account.owner);
        sent.actor.role != Role::Customer || owner.is_some_and(|owner| owner != 0 && owner == sent.actor.customer.get())
    }

    /// What must be answered to a transfer whose id was used; `Err` too where it was not used at all.
    pub(super) fn repeat(&self, ask: &Ask) -> Result<Verdict, Refusal> {
        match self.model.used(TransferId::new(ask.id)) {
            Some(used) => repeat_answer(ask, used).copied(),
            None => Err(Refusal::TransferNotFound),
        }
    }

    pub(super) fn told_used(&mut self, id: TransferId) -> Result<(), Violation> {
        if let Some(lsn) = self.model.used(id).map(Used::lsn) {
            self.tell(lsn, &[])?;
            self.told.used.insert(id);
        }
        Ok(())
    }

    pub(super) fn cancel_answer(
        &mut self,
        number: usize,
        id: TransferId,
        item: &message::ItemResult,
    ) -> Result<(), Violation> {
        let said = Said::item(item);
        let used = self.model.used(id).cloned();
        let is_right = match (&used, said.refusal) {
            (Some(Used::Cancelled { timestamp, .. }), None) => said.timestamp == *timestamp,
            (Some(Used::Transfer { .. }), Some(Refusal::IdAlreadyUsed)) => true,
            (None, Some(Refusal::IdMustNotBeZero)) => id.get() == 0,
            (None, Some(Refusal::IdMustNotBeMax)) => id.get() == u128::MAX,
            (_, _) => false,
        };
        hold!(AnswersMatchModel, is_right, "cancel of {id} was answered {said:?}, recorded is {used:?}");
        if let Some(Used::Cancelled { lsn, .. }) = used
            && !said.is_repeat
        {
            self.one_effect.check_answer(id, lsn, number)?;
        }
        self.told_used(id)
    }
}

/// Which role may ask for what; the accounts are another matter.
fn may_ask(role: Role, ask: &Ask) -> bool {
    let closes = ask.flags & (transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT) != 0;
    match role {
        Role::Admin => true,
        _ if ask.flags & transfer_flags::IMPORTED != 0 => false,
        Role::Customer if closes => false,
        Role::Teller => true,
        Role::Auditor => false,
        Role::Customer => {
            !matches!(ask.kind, TransferKind::Deposit | TransferKind::Withdraw)
                && !AccountId::new(ask.debit).is_house()
                && !AccountId::new(ask.credit).is_house()
        }
    }
}

pub(super) fn sums_of(sums: &message::Sums) -> ModelSums {
    ModelSums {
        debits_held: sums.debits_held.get(),
        debits_posted: sums.debits_posted.get(),
        credits_held: sums.credits_held.get(),
        credits_posted: sums.credits_posted.get(),
    }
}
