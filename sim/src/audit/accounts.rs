//! Answers about operations on accounts.

use tally_protocol::message::{self, ItemResult};
use tally_protocol::{Lsn, Refusal};

use super::Audit;
use super::answers::Said;
use super::chains::items_of;
use crate::invariants::{Violation, hold};
use crate::model::{AccountAsk, ModelAccount};
use crate::request::Sent;

impl Audit {
    pub(super) fn open_answer(
        &mut self,
        sent: &Sent,
        opens: &[message::AccountOpen],
        items: &[u8],
    ) -> Result<(), Violation> {
        let said = items_of(items, opens.len())?;
        for (open, said) in opens.iter().zip(&said) {
            self.account_said(sent, &AccountAsk::Open(*open), said)?;
        }
        Ok(())
    }

    pub(super) fn change_answer(&mut self, sent: &Sent, ask: &AccountAsk, item: &ItemResult) -> Result<(), Violation> {
        self.account_said(sent, ask, &Said::item(item))
    }

    fn account_said(&mut self, sent: &Sent, ask: &AccountAsk, said: &Said) -> Result<(), Violation> {
        if said.refusal.is_some_and(|refusal| self.is_turned_away(sent, refusal)) {
            self.counts.turned_away += 1;
            return Ok(());
        }
        match said.refusal {
            None => self.account_done(ask, said),
            Some(refusal) => self.account_refused(sent, ask, refusal),
        }
    }

    fn account_done(&mut self, ask: &AccountAsk, said: &Said) -> Result<(), Violation> {
        let versions = self.model.versions(ask.id());
        let mut before = None;
        let mut found = None;
        for version in versions {
            let was_done = version.timestamp == said.timestamp && self.leads_to(ask, before, version);
            let was_there = matches!(ask, AccountAsk::Open(_))
                && said.is_repeat
                && version.opened_at == said.timestamp
                && ask.judge(Some(version), self.branch, 0) == Ok(None);
            if was_done || was_there {
                found = Some(version.lsn);
            }
            before = Some(version);
        }
        hold!(
            AnswersMatchModel,
            found.is_some(),
            "{ask:?} was answered {said:?}, but is not on the disk: {versions:?}"
        );
        self.tell(found.expect("checked"), &[ask.id()])
    }

    fn leads_to(&self, ask: &AccountAsk, before: Option<&ModelAccount>, after: &ModelAccount) -> bool {
        let next = ask.judge(before, self.branch, after.timestamp).ok().flatten();
        next.is_some_and(|next| ModelAccount { lsn: after.lsn, timestamp: after.timestamp, ..next } == *after)
    }

    /// Some version of the account, none older than what was known, must give this refusal.
    fn account_refused(&self, sent: &Sent, ask: &AccountAsk, refusal: Refusal) -> Result<(), Violation> {
        let versions = self.model.versions(ask.id());
        let none_was_known = sent.knew.account_lsn == Lsn::ZERO;
        let gives = |version: Option<&ModelAccount>| ask.judge(version, self.branch, 0).err() == Some(refusal);
        let is_right = (none_was_known && gives(None))
            || versions
                .iter()
                .filter(|version| version.lsn >= sent.knew.account_lsn)
                .any(|version| gives(Some(version)));
        hold!(AnswersMatchModel, is_right, "{ask:?} was refused by {refusal}, in no version of {versions:?}");
        Ok(())
    }
}
