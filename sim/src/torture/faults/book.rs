//! What the bank's clients know: what they have sent, what was answered, and what every account must hold for it.
//!
//! **Invariant:** an id has one answer for ever, and an account's balance is what follows from the answers "done" and from
//! nothing else. So anything that the bank loses, changes or does twice is a difference between the two.

use std::collections::{BTreeMap, HashMap};

use anyhow::{bail, ensure};
use tally_protocol::message::{FeedEntry, FeedKind, Transfer};
use tally_protocol::{AccountId, BranchId, RefusalGroup, TransferId};

/// Old transfers that are kept, to be sent again.
const KEPT_MAX: usize = 2_000;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was sent, and there is no answer.
    Unknown,
    /// It was not taken: nothing was recorded, and the id is free.
    Free,
    /// It was done, at this time of the ledger.
    Done(u64),
    /// It was refused with this code, for good.
    Refused(u16),
    /// Its id was burnt before it was done.
    Never,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Since the last check.
    sent: HashMap<TransferId, (Transfer, Known)>,
    /// From before it, with their answers.
    kept: Vec<(Transfer, Known)>,
    balances: BTreeMap<AccountId, i128>,
    /// Answers so far, and those of them that were about payments between branches and done.
    pub(crate) answers: u64,
    pub(crate) done_across: u64,
}

impl Book {
    /// A transfer is about to be sent.
    pub(crate) fn send(&mut self, transfer: &Transfer) {
        self.sent.insert(id_of(transfer), (*transfer, Known::Unknown));
    }

    /// There is an answer, or it is known that there is none.
    ///
    /// # Errors
    /// When it differs from an earlier one.
    pub(crate) fn learn(&mut self, transfer: &Transfer, known: Known) -> anyhow::Result<()> {
        let id = id_of(transfer);
        let Some((_, before)) = self.sent.get_mut(&id) else { bail!("UNEXPECTED: an answer about {id}, never sent") };
        match (*before, known) {
            // A late copy that was not taken, or got no answer, says nothing about the one before.
            (_, Known::Unknown) | (Known::Done(_) | Known::Refused(_) | Known::Never, Known::Free) => return Ok(()),
            (Known::Unknown | Known::Free, _) => {}
            (before, now) => {
                ensure!(before == now, "CHANGED: {id} was {before:?}, and then {now:?}");
                return Ok(());
            }
        }
        *before = known;
        self.answers += 1;
        if let Known::Done(_) = known {
            let (debit, credit) = accounts_of(transfer);
            self.done_across += u64::from(debit.branch() != credit.branch());
            self.give(debit, -i128::from(transfer.amount.get()));
            self.give(credit, i128::from(transfer.amount.get()));
        }
        Ok(())
    }

    /// An account has so much more.
    pub(crate) fn give(&mut self, account: AccountId, amount: i128) {
        *self.balances.entry(account).or_default() += amount;
    }

    /// What every account must hold.
    pub(crate) fn balances(&self) -> impl Iterator<Item = (AccountId, i128)> {
        self.balances.iter().map(|(&account, &balance)| (account, balance))
    }

    /// Transfers without an answer.
    pub(crate) fn unknown(&self) -> Vec<Transfer> {
        self.sent.values().filter(|(_, known)| *known == Known::Unknown).map(|(transfer, _)| *transfer).collect()
    }

    /// An old transfer, to be sent again, with the answer that it must have; `index` is any number.
    pub(crate) fn old(&self, index: usize) -> Option<(Transfer, Known)> {
        self.kept.get(index % self.kept.len().max(1)).copied()
    }

    /// Compares what `feeds` say, one for each branch, with what was answered; and begins anew. All answers must be
    /// known.
    ///
    /// # Errors
    /// Names the first transfer that is lost, doubled, changed or that nobody sent.
    pub(crate) fn compare(&mut self, feeds: &BTreeMap<BranchId, Vec<FeedEntry>>) -> anyhow::Result<()> {
        for (&branch, entries) in feeds {
            let mut shown = HashMap::new();
            for entry in entries.iter().filter(|entry| is_end(entry)) {
                let id = TransferId::new(entry.transfer.id.get());
                ensure!(shown.insert(id, entry).is_none(), "DOUBLED: {id} ends twice at branch {branch}");
                let Some((transfer, known)) = self.sent.get(&id) else {
                    bail!("UNEXPECTED: {id} is in the feed of branch {branch}, and nobody sent it");
                };
                ensure!(*transfer == entry.transfer, "CHANGED: {id} has other content at branch {branch}");
                let code = entry.reply.refusal.get();
                let agrees = match known {
                    Known::Done(_) => code == 0,
                    Known::Refused(_) | Known::Never => code != 0,
                    Known::Unknown | Known::Free => false,
                };
                ensure!(agrees, "CHANGED: {id} was answered {known:?}, and branch {branch} has recorded {code}");
                // The payer's branch answers; the payee's may know another reason.
                let is_source = accounts_of(transfer).0.branch() == branch;
                if let (true, Known::Refused(answered)) = (is_source, known) {
                    ensure!(*answered == code, "CHANGED: {id} was refused with {answered}, and recorded with {code}");
                }
            }
            for (id, (transfer, known)) in &self.sent {
                let (debit, credit) = accounts_of(transfer);
                let must = match known {
                    Known::Done(_) => debit.branch() == branch || credit.branch() == branch,
                    Known::Refused(code) => debit.branch() == branch && is_recorded(*code),
                    Known::Unknown | Known::Free | Known::Never => false,
                };
                ensure!(!must || shown.contains_key(id), "LOST: {id} was {known:?}, and is not at branch {branch}");
            }
        }
        for (_, (transfer, known)) in self.sent.drain() {
            if let Known::Done(_) | Known::Refused(_) = known {
                self.kept.push((transfer, known));
            }
        }
        let surplus = self.kept.len().saturating_sub(KEPT_MAX);
        self.kept.drain(..surplus);
        Ok(())
    }
}

/// Whether a refusal uses up its id.
pub(crate) fn is_recorded(code: u16) -> bool {
    RefusalGroup::of_code(code) == Some(RefusalGroup::State)
}

/// Whether an entry says how a transfer ended.
fn is_end(entry: &FeedEntry) -> bool {
    matches!(FeedKind::from_wire(entry.kind), Some(FeedKind::Transfer | FeedKind::Decided))
}

/// The id of a transfer.
pub(crate) fn id_of(transfer: &Transfer) -> TransferId {
    TransferId::new(transfer.id.get())
}

/// Who pays, and who is paid.
pub(crate) fn accounts_of(transfer: &Transfer) -> (AccountId, AccountId) {
    (AccountId::new(transfer.debit_account_id.get()), AccountId::new(transfer.credit_account_id.get()))
}

#[cfg(test)]
mod tests {
    use tally_protocol::Refusal;
    use zerocopy::FromZeros;

    use super::*;

    const SOURCE: BranchId = BranchId::new(1);
    const DESTINATION: BranchId = BranchId::new(2);

    fn transfer(id: u128) -> Transfer {
        let mut transfer = Transfer::new_zeroed();
        transfer.id.set(id);
        transfer.amount.set(5);
        transfer.debit_account_id.set(AccountId::of_branch(SOURCE, 7).get());
        transfer.credit_account_id.set(AccountId::of_branch(DESTINATION, 8).get());
        transfer
    }

    fn entry(id: u128, kind: FeedKind, code: u16) -> FeedEntry {
        let mut entry = FeedEntry::new_zeroed();
        entry.kind = kind as u8;
        entry.transfer = transfer(id);
        entry.reply.refusal.set(code);
        entry
    }

    /// What `compare` says of one transfer that is `known`, with these feeds of source and destination.
    fn check(known: Known, source: &[FeedEntry], destination: &[FeedEntry]) -> String {
        let mut book = Book::default();
        book.send(&transfer(1));
        book.learn(&transfer(1), known).expect("the first answer");
        let feeds = BTreeMap::from([(SOURCE, source.to_vec()), (DESTINATION, destination.to_vec())]);
        book.compare(&feeds).map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    #[test]
    fn what_is_lost_doubled_changed_or_invented_is_named() {
        let aborted = Refusal::TransferAborted.code();
        let (held, done) = (entry(1, FeedKind::Prepared, 0), entry(1, FeedKind::Decided, 0));
        let back = entry(1, FeedKind::Decided, aborted);
        let mut other = done;
        other.transfer.amount.set(6);
        for (known, source, destination, expected) in [
            (Known::Done(9), &[held, done][..], &[held, done][..], "well"),
            (Known::Done(9), &[held, done], &[held], "LOST"),
            (Known::Done(9), &[held], &[held, done], "LOST"),
            (Known::Done(9), &[held, done, done], &[held, done], "DOUBLED"),
            (Known::Done(9), &[held, done], &[held, back], "CHANGED"),
            (Known::Done(9), &[held, other], &[held, done], "CHANGED"),
            (Known::Refused(aborted), &[held, back], &[], "well"),
            (Known::Refused(aborted), &[held, back], &[held, back], "well"),
            (Known::Refused(aborted), &[held, back], &[held, done], "CHANGED"),
            (Known::Refused(aborted), &[], &[], "LOST"),
            (Known::Refused(229), &[back], &[], "CHANGED"),
            (Known::Free, &[], &[], "well"),
            (Known::Free, &[done], &[], "CHANGED"),
            (Known::Never, &[], &[], "well"),
            (Known::Never, &[done], &[], "CHANGED"),
            (Known::Done(9), &[done, entry(2, FeedKind::Transfer, 0)], &[done], "UNEXPECTED"),
        ] {
            let said = check(known, source, destination);
            assert!(said.starts_with(expected), "{known:?}: {said}, not {expected}");
        }
    }

    #[test]
    fn an_answer_stands_and_moves_money_once() {
        let mut book = Book::default();
        let payment = transfer(1);
        book.send(&payment);
        book.learn(&payment, Known::Free).expect("not taken");
        book.learn(&payment, Known::Done(3)).expect("taken later");
        book.learn(&payment, Known::Done(3)).expect("a repeat");
        book.learn(&payment, Known::Unknown).expect("says nothing");
        book.learn(&payment, Known::Free).expect("says nothing");
        assert_eq!(book.balances().map(|(_, balance)| balance).collect::<Vec<_>>(), [-5, 5]);
        assert!(book.learn(&payment, Known::Done(4)).is_err() && book.learn(&payment, Known::Never).is_err());
        assert!(book.learn(&transfer(2), Known::Never).is_err());
    }
}
