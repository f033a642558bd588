//! Answers to reads: what they show must have been, must be durable, and must not be older than what was known.

use tally_protocol::message::{self, Role, TransferState};
use tally_protocol::{AccountId, Amount, Lsn, Refusal, TransferId};

use super::Audit;
use super::answers::sums_of;
use crate::invariants::{Violation, hold, violated};
use crate::model::{ModelAccount, ModelEnd, ModelSums, Used};
use crate::request::Sent;

impl Audit {
    pub(super) fn balance_answer(
        &mut self,
        sent: &Sent,
        id: AccountId,
        balance: &message::Balance,
    ) -> Result<(), Violation> {
        let version = self.version(sent, id, Lsn::new(balance.lsn.get()))?;
        let got = (
            balance.id.get(),
            sums_of(&balance.sums),
            balance.timestamp.get(),
            balance.overdraft.get(),
            balance.currency.get(),
            balance.status,
        );
        let right =
            (version.id, version.sums, version.timestamp, version.overdraft, version.currency, version.status as u8);
        hold!(Reads, got == right, "balance {got:?} instead of {right:?}");
        let is_unlimited = !version.debits_are_limited() && version.day_limit == Amount::MAX.get();
        hold!(
            Reads,
            !is_unlimited || balance.available.get() == u64::MAX,
            "{} available on an account without a limit",
            balance.available.get()
        );
        self.tell(version.lsn, &[id.get()])
    }

    pub(super) fn account_answer(
        &mut self,
        sent: &Sent,
        id: AccountId,
        account: &message::Account,
    ) -> Result<(), Violation> {
        let version = self.version(sent, id, Lsn::new(account.lsn.get()))?;
        let open = &account.open;
        let got = ModelAccount {
            id: open.id.get(),
            owner: open.owner.get(),
            user_data: (open.user_data_128.get(), open.user_data_64.get(), open.user_data_32.get()),
            currency: open.currency.get(),
            code: open.code.get(),
            flags: open.flags.get(),
            kind: open.kind,
            status: version.status,
            overdraft: open.overdraft.get(),
            day_limit: open.day_limit.get(),
            day_spent: account.day_spent.get(),
            day: u64::from(account.day.get()),
            sums: sums_of(&account.sums),
            opened_at: account.opened_at.get(),
            lsn: version.lsn,
            timestamp: account.timestamp.get(),
        };
        hold!(
            Reads,
            got == version && account.status == version.status as u8,
            "account {got:?} with status {} instead of {version:?}",
            account.status
        );
        self.tell(version.lsn, &[id.get()])
    }

    /// The version of an account that a read showed.
    fn version(&self, sent: &Sent, id: AccountId, lsn: Lsn) -> Result<ModelAccount, Violation> {
        let versions = self.model.versions(id.get());
        let Some(version) = versions.iter().find(|version| version.lsn == lsn) else {
            violated!(ReplyAfterDurable, "account {id} was shown as of {lsn}, which is not on the disk")
        };
        let knew = sent.knew.account_lsn;
        hold!(Reads, lsn >= knew, "account {id} was shown as of {lsn}, but {knew} was known");
        let may = sent.actor.role != Role::Customer || version.owner == sent.actor.customer.get();
        hold!(Reads, may, "{:?} was shown account {id} of {}", sent.actor, version.owner);
        Ok(version.clone())
    }

    pub(super) fn read_refused(&self, sent: &Sent, id: AccountId, refusal: Refusal) -> Result<(), Violation> {
        let account = self.model.account(id.get());
        let is_right = match refusal {
            Refusal::AccountNotFound => sent.knew.account_lsn == Lsn::ZERO,
            Refusal::NotPermitted => {
                sent.actor.role == Role::Customer
                    && account.is_none_or(|account| account.owner != sent.actor.customer.get())
            }
            _ => false,
        };
        hold!(Reads, is_right, "a read of {id} was refused by {refusal}");
        Ok(())
    }

    pub(super) fn found_answer(
        &mut self,
        sent: &Sent,
        id: TransferId,
        found: &message::TransferFound,
    ) -> Result<(), Violation> {
        if found.state == TransferState::InFlight as u8 {
            hold!(Reads, !sent.knew.id_is_used, "{id} is in flight, although it was known before");
            return Ok(());
        }
        let Some(used) = self.model.used(id).cloned() else {
            violated!(ReplyAfterDurable, "{id} was found, but is not on the disk")
        };
        let ended = self.model.ended(id);
        let state = TransferState::from_wire(found.state);
        let (lsn, timestamp) = (Lsn::new(found.reply.lsn.get()), found.reply.timestamp.get());
        let (right, is_state_right) = match &used {
            Used::Cancelled { lsn, timestamp } => ((*lsn, *timestamp), state == Some(TransferState::Cancelled)),
            Used::Transfer { verdict, lsn, timestamp, .. } => {
                let amount = found.reply.amount.get();
                hold!(Reads, amount == verdict.amount, "{id} found with {amount} instead of {}", verdict.amount);
                let refused = verdict.refusal.is_some();
                hold!(Reads, found.reply.known_refusal() == verdict.refusal, "{id} found with another refusal");
                for (account, sums, right) in [
                    (verdict.debit, &found.debit, verdict.debit_sums),
                    (verdict.credit, &found.credit, verdict.credit_sums),
                ] {
                    let (got, may) = (sums_of(sums), self.may_see(sent, account));
                    let is_hidden = got == ModelSums::default();
                    hold!(Reads, may || is_hidden || self.had_once(sent, got), "{:?} was shown {got:?}", sent.actor);
                    hold!(Reads, !may || refused || got == right, "{id} found with {got:?} instead of {right:?}");
                }
                let is_right = match state {
                    Some(TransferState::Refused) => refused,
                    // It may have ended between the look and now.
                    Some(TransferState::Done) => !refused && !sent.knew.id_has_ended,
                    Some(TransferState::Settled) => ended.is_some_and(|(end, _)| end == ModelEnd::Settled),
                    Some(TransferState::Voided) => ended.is_some_and(|(end, _)| end == ModelEnd::Voided),
                    Some(TransferState::Expired) => ended.is_some_and(|(end, _)| end == ModelEnd::Expired),
                    Some(TransferState::Reversed) => ended.is_some_and(|(end, _)| end == ModelEnd::Reversed),
                    Some(TransferState::Cancelled | TransferState::InFlight | TransferState::Prepared) | None => false,
                };
                ((*lsn, *timestamp), is_right)
            }
        };
        hold!(
            Reads,
            (lsn, timestamp) == right && is_state_right,
            "{id} found as {state:?} at {lsn}; it is {used:?}, ended {ended:?}"
        );
        self.tell(lsn, &[])?;
        self.told.used.insert(id);
        if let Some((_, lsn)) = ended.filter(|_| state != Some(TransferState::Done)) {
            self.tell(lsn, &[])?;
            self.told.ended.insert(id);
        }
        Ok(())
    }

    /// Whether these were an own account's sums at some time. A refused link of a broken chain tells those of the
    /// accounts that an earlier link referred to; the model has none for what was never there.
    fn had_once(&self, sent: &Sent, sums: ModelSums) -> bool {
        let own = self.model.accounts().filter(|account| self.may_see(sent, account.id));
        own.flat_map(|account| self.model.versions(account.id)).any(|version| version.sums == sums)
    }

    pub(super) fn find_refused(&self, sent: &Sent, id: TransferId, refusal: Refusal) -> Result<(), Violation> {
        let is_right = match refusal {
            Refusal::TransferNotFound => !sent.knew.id_is_used,
            Refusal::NotPermitted => sent.actor.role == Role::Customer,
            Refusal::IdMustNotBeZero => id.get() == 0,
            Refusal::IdMustNotBeMax => id.get() == u128::MAX,
            _ => false,
        };
        hold!(Reads, is_right, "a look-up of {id} was refused by {refusal}");
        Ok(())
    }
}
