//! Answers about chains and batches: one item for each transfer.

use tally_ledger::{mixed, stretches};
use tally_protocol::message::{self, ItemResult};
use tally_protocol::{Refusal, RefusalGroup, TransferId};
use zerocopy::FromBytes;

use super::Audit;
use super::answers::Said;
use crate::invariants::{Violation, hold, violated};
use crate::model::Used;
use crate::request::Sent;

impl Audit {
    pub(super) fn chain_answer(
        &mut self,
        number: usize,
        sent: &Sent,
        wires: &[message::Transfer],
        items: &[u8],
    ) -> Result<(), Violation> {
        let said = items_of(items, wires.len())?;
        match mixed(&wires[0], wires) {
            Some(right) => self.answered_so(number, sent, &right, &said),
            None => self.stretch(number, sent, wires, &said),
        }
    }

    /// Entries that do not go with the first of their request, and their neighbours.
    pub(super) fn answered_so(
        &self,
        number: usize,
        sent: &Sent,
        right: &[Refusal],
        said: &[Said],
    ) -> Result<(), Violation> {
        for (said, right) in said.iter().zip(right) {
            let is_right = said.refusal.is_some_and(|got| got == *right || self.is_turned_away(sent, got));
            hold!(AnswersMatchModel, is_right && !said.is_recorded(), "request {number}: {said:?} for {right}");
        }
        Ok(())
    }

    pub(super) fn batch_answer(
        &mut self,
        number: usize,
        sent: &Sent,
        wires: &[message::Transfer],
        items: &[u8],
    ) -> Result<(), Violation> {
        let said = items_of(items, wires.len())?;
        let first = &wires[0];
        for stretch in stretches(wires) {
            let range = stretch.range;
            let (wires, said) = (&wires[range.clone()], &said[range]);
            match (stretch.refusal, mixed(first, wires), wires) {
                (Some(refusal), _, _) => self.undecidable(number, sent, refusal, said)?,
                (None, Some(right), _) => self.answered_so(number, sent, &right, said)?,
                (None, None, [wire]) => self.entry(number, sent, wire, &said[0])?,
                (None, None, _) => self.stretch(number, sent, wires, said)?,
            }
        }
        Ok(())
    }

    /// One transfer by itself.
    fn entry(&mut self, number: usize, sent: &Sent, wire: &message::Transfer, said: &Said) -> Result<(), Violation> {
        match said.refusal {
            _ if said.is_recorded() => self.recorded(number, wire, said).map(|_| ()),
            Some(refusal) => self.unrecorded(number, sent, wire, refusal),
            None => violated!(AnswersMatchModel, "an entry of request {number} was done, but not recorded"),
        }
    }

    /// A chain whose end is missing.
    pub(super) fn undecidable(
        &self,
        number: usize,
        sent: &Sent,
        refusal: Refusal,
        said: &[Said],
    ) -> Result<(), Violation> {
        let last = said.len() - 1;
        for (index, said) in said.iter().enumerate() {
            let got = said.refusal;
            let is_right = got == Some(if index == last { refusal } else { Refusal::ChainBroken })
                || got.is_some_and(|got| self.is_turned_away(sent, got));
            hold!(AnswersMatchModel, is_right && !said.is_recorded(), "request {number}: {said:?} for {refusal}");
        }
        Ok(())
    }

    /// Linked transfers: recorded together, or each says why not.
    fn stretch(
        &mut self,
        number: usize,
        sent: &Sent,
        wires: &[message::Transfer],
        said: &[Said],
    ) -> Result<(), Violation> {
        let turned_away = said
            .iter()
            .all(|said| !said.is_recorded() && said.refusal.is_some_and(|refusal| self.is_turned_away(sent, refusal)));
        if turned_away {
            self.counts.turned_away += 1;
            return Ok(());
        }
        if let Some(right) = self.malformed_chain(sent, wires) {
            let got: Vec<Option<Refusal>> = said.iter().map(|said| said.refusal).collect();
            hold!(AnswersMatchModel, got == right, "request {number}: chain answered {got:?} instead of {right:?}");
            return Ok(());
        }
        let recorded = said.iter().filter(|said| said.is_recorded()).count();
        if recorded > 0 {
            hold!(AnswersMatchModel, recorded == said.len(), "request {number}: part of a chain recorded: {said:?}");
            for (wire, said) in wires.iter().zip(said) {
                self.recorded(number, wire, said)?;
            }
            let repeats = said.iter().filter(|said| said.is_repeat).count();
            hold!(AnswersMatchModel, repeats == 0 || repeats == said.len(), "request {number}: {said:?}");
            return self.all_or_nothing(number, wires);
        }
        self.known_chain(number, sent, wires, said)
    }

    /// A chain of which some ids are known, and not all with the same content.
    fn known_chain(
        &mut self,
        number: usize,
        sent: &Sent,
        wires: &[message::Transfer],
        said: &[Said],
    ) -> Result<(), Violation> {
        let mut any_known = false;
        for (wire, said) in wires.iter().zip(said) {
            let (_, ask) = self.refusal_without_record(sent, wire);
            let ask = ask.expect("the chain is well formed");
            let right = self.repeat(&ask);
            let is_right = match said.refusal {
                Some(Refusal::ChainBroken) => true,
                Some(Refusal::IdAlreadyUsed) => right.is_ok(),
                Some(refusal) => refusal.group() == RefusalGroup::Known && right == Err(refusal),
                None => false,
            };
            hold!(AnswersMatchModel, is_right, "request {number}: {said:?} in a chain, expected {right:?}");
            if said.refusal != Some(Refusal::ChainBroken) {
                any_known = true;
                self.told_used(TransferId::new(ask.id))?;
            }
        }
        hold!(AnswersMatchModel, any_known, "request {number}: a chain was broken for no reason: {said:?}");
        Ok(())
    }

    fn all_or_nothing(&self, number: usize, wires: &[message::Transfer]) -> Result<(), Violation> {
        let verdicts: Vec<Option<Refusal>> = wires
            .iter()
            .map(|wire| match self.model.used(TransferId::new(wire.id.get())) {
                Some(Used::Transfer { verdict, .. }) => verdict.refusal,
                Some(Used::Cancelled { .. }) | None => Some(Refusal::TransferNotFound),
            })
            .collect();
        let done = verdicts.iter().filter(|refusal| refusal.is_none()).count();
        hold!(AnswersMatchModel, done == 0 || done == wires.len(), "request {number}: half a chain: {verdicts:?}");
        Ok(())
    }

    /// What each link must be answered when one of them is malformed, not permitted or twice there.
    fn malformed_chain(&self, sent: &Sent, wires: &[message::Transfer]) -> Option<Vec<Option<Refusal>>> {
        let own: Vec<Option<Refusal>> = wires
            .iter()
            .map(|wire| {
                let twice = wires.iter().filter(|other| other.id == wire.id).count() > 1;
                self.refusal_without_record(sent, wire).0.or(twice.then_some(Refusal::IdAlreadyUsed))
            })
            .collect();
        let any = own.iter().any(Option::is_some);
        any.then(|| own.into_iter().map(|refusal| refusal.or(Some(Refusal::ChainBroken))).collect())
    }
}

pub(super) fn items_of(bytes: &[u8], count: usize) -> Result<Vec<Said>, Violation> {
    let Ok(items) = <[ItemResult]>::ref_from_bytes(bytes) else {
        violated!(AnswersMatchModel, "{} bytes are no items", bytes.len())
    };
    hold!(AnswersMatchModel, items.len() == count, "{} items for {count} entries", items.len());
    Ok(items.iter().map(Said::item).collect())
}
