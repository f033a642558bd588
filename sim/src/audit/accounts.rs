//! Answers about operations on accounts.

use tally_ledger::imported::Entry;
use tally_ledger::{mixed, stretches};
use tally_protocol::message::{self, ItemResult, Role};
use tally_protocol::{Lsn, Refusal};

use super::Audit;
use super::answers::Said;
use super::chains::items_of;
use crate::clock::BEGIN_NS;
use crate::invariants::{Violation, hold, violated};
use crate::model::{AccountAsk, ModelAccount};
use crate::request::Sent;

impl Audit {
    pub(super) fn open_answer(
        &mut self,
        number: usize,
        sent: &Sent,
        opens: &[message::AccountOpen],
        items: &[u8],
    ) -> Result<(), Violation> {
        let said = items_of(items, opens.len())?;
        let first = &opens[0];
        for stretch in stretches(opens) {
            let range = stretch.range;
            let (opens, said) = (&opens[range.clone()], &said[range]);
            let may_not = sent.actor.role != Role::Admin && opens[0].is_imported();
            match (stretch.refusal, mixed(first, opens), opens) {
                (Some(refusal), _, _) => self.undecidable(number, sent, refusal, said)?,
                (None, Some(right), _) => self.answered_so(number, sent, &right, said)?,
                (None, None, _) if may_not => {
                    self.answered_so(number, sent, &vec![Refusal::NotPermitted; opens.len()], said)?;
                }
                (None, None, [open]) => self.account_said(sent, &AccountAsk::Open(*open), &said[0])?,
                (None, None, _) => self.opened_together(number, sent, opens, said)?,
            }
        }
        Ok(())
    }

    /// Linked accounts: opened together, found open together, or one of them says why not.
    fn opened_together(
        &mut self,
        number: usize,
        sent: &Sent,
        opens: &[message::AccountOpen],
        said: &[Said],
    ) -> Result<(), Violation> {
        if said.iter().all(|said| said.refusal.is_some_and(|refusal| self.is_turned_away(sent, refusal))) {
            self.counts.turned_away += 1;
            return Ok(());
        }
        let done = said.iter().filter(|said| said.refusal.is_none()).count();
        if done == said.len() {
            let repeats = said.iter().filter(|said| said.is_repeat).count();
            hold!(AnswersMatchModel, repeats == 0 || repeats == said.len(), "request {number}: {said:?}");
            return opens
                .iter()
                .zip(said)
                .try_for_each(|(open, said)| self.account_done(&AccountAsk::Open(*open), said));
        }
        let reasons: Vec<usize> =
            (0..said.len()).filter(|&index| said[index].refusal != Some(Refusal::ChainBroken)).collect();
        let &[reason] = reasons.as_slice() else {
            violated!(AnswersMatchModel, "request {number}: linked accounts were answered {said:?}")
        };
        hold!(AnswersMatchModel, done == 0, "request {number}: half a chain of accounts: {said:?}");
        let (open, refusal) = (&opens[reason], said[reason].refusal.expect("none is done"));
        let ask = AccountAsk::Open(*open);
        if refusal != Refusal::IdAlreadyUsed {
            return self.account_refused(sent, &ask, refusal);
        }
        let is_twice = opens[..reason].iter().any(|earlier| earlier.id == open.id);
        let versions = self.model.versions(ask.id());
        let was_there = versions.iter().any(|version| ask.judge(Some(version), self.branch, BEGIN_NS) == Ok(None));
        hold!(AnswersMatchModel, is_twice || was_there, "request {number}: {ask:?} was there already: {versions:?}");
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
            let stamp = if matches!(ask, AccountAsk::Open(_)) { version.opened_at } else { version.timestamp };
            let was_done = stamp == said.timestamp && self.leads_to(ask, before, version);
            let was_there = matches!(ask, AccountAsk::Open(_))
                && said.is_repeat
                && version.opened_at == said.timestamp
                && ask.judge(Some(version), self.branch, BEGIN_NS) == Ok(None);
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

    /// Whether `ask` makes of an account `before` the one `after`.
    pub(super) fn leads_to(&self, ask: &AccountAsk, before: Option<&ModelAccount>, after: &ModelAccount) -> bool {
        let next = ask.judge(before, self.branch, after.timestamp).ok().flatten();
        next.is_some_and(|next| ModelAccount { lsn: after.lsn, timestamp: after.timestamp, ..next } == *after)
    }

    /// Some version of the account, none older than what was known, must give this refusal.
    fn account_refused(&self, sent: &Sent, ask: &AccountAsk, refusal: Refusal) -> Result<(), Violation> {
        let versions = self.model.versions(ask.id());
        let none_was_known = sent.knew.account_lsn == Lsn::ZERO;
        let gives = |version: Option<&ModelAccount>| ask.judge(version, self.branch, BEGIN_NS).err() == Some(refusal);
        let is_right = (none_was_known && gives(None))
            || versions
                .iter()
                .filter(|version| version.lsn >= sent.knew.account_lsn)
                .any(|version| gives(Some(version)));
        hold!(AnswersMatchModel, is_right, "{ask:?} was refused by {refusal}, in no version of {versions:?}");
        Ok(())
    }
}
