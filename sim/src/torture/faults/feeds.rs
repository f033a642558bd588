//! What the branches' feeds say, against what was answered: every transfer is where it must be, once, as it was answered.
//!
//! An account may have moved meanwhile. A transfer is then at one of the branches where the account may have been; which one
//! is known to the bank alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{bail, ensure};
use tally_protocol::message::{FeedEntry, FeedKind, Transfer, TransferKind};
use tally_protocol::{BranchId, TransferId};

use super::book::{Book, Known, accounts_of, id_of, is_recorded};

/// How transfers ended at one branch.
type Ends<'a> = HashMap<TransferId, &'a FeedEntry>;

impl Book {
    /// Compares what `feeds` say, one for each branch, with what was answered; and begins anew. All answers must be
    /// known.
    ///
    /// # Errors
    /// Names the first transfer that is lost, doubled, changed or that nobody sent.
    pub(crate) fn compare(&mut self, feeds: &BTreeMap<BranchId, Vec<FeedEntry>>) -> anyhow::Result<()> {
        let mut shown = BTreeMap::new();
        for (&branch, entries) in feeds {
            shown.insert(branch, self.ends(branch, entries)?);
        }
        for (transfer, known) in self.sent.values() {
            self.is_where_it_must_be(transfer, *known, &shown)?;
        }
        self.begin_anew();
        Ok(())
    }

    /// How transfers ended at `branch`: each once, as it was answered.
    fn ends<'a>(&self, branch: BranchId, entries: &'a [FeedEntry]) -> anyhow::Result<Ends<'a>> {
        let (mut ends, mut ended_holds) = (Ends::new(), HashSet::new());
        for entry in entries {
            let id = TransferId::new(entry.transfer.id.get());
            match What::of(entry) {
                What::OfTransfer if self.may_have_come_along(&entry.transfer) => {
                    self.is_known_hold(branch, entry)?;
                    ends.insert(id, entry);
                }
                What::OfTransfer => {
                    ensure!(ends.insert(id, entry).is_none(), "DOUBLED: {id} ends twice at branch {branch}");
                    self.agrees(branch, entry)?;
                }
                What::EndOfHold => {
                    ensure!(ended_holds.insert(id), "DOUBLED: the hold {id} ends twice at branch {branch}");
                }
                What::Other => {}
            }
        }
        Ok(ends)
    }

    /// Whether it is a hold on an account that has moved: it is shown again where it comes along, as often as it does.
    fn may_have_come_along(&self, transfer: &Transfer) -> bool {
        let (debit, credit) = accounts_of(transfer);
        let has_moved = |account| self.places(account).len() > 1;
        transfer.kind == TransferKind::Hold as u8 && (has_moved(debit) || has_moved(credit))
    }

    /// Whether an entry that says that a hold stands is of one that was answered so, now or before the last check. One that
    /// gives it back may be of a move that came to nothing.
    fn is_known_hold(&self, branch: BranchId, entry: &FeedEntry) -> anyhow::Result<()> {
        if entry.reply.refusal.get() != 0 {
            return Ok(());
        }
        let id = TransferId::new(entry.transfer.id.get());
        let Some(hold) = self.known_hold(id) else {
            bail!("UNEXPECTED: the hold {id} is in the feed of branch {branch}, and nobody was told that it stands");
        };
        // Where it has come along, the client's own data stay behind.
        let is_same = accounts_of(hold) == accounts_of(&entry.transfer) && hold.amount == entry.transfer.amount;
        ensure!(is_same, "CHANGED: the hold {id} has other content at branch {branch}");
        Ok(())
    }

    /// Whether an entry is of something that was sent, and says what was answered.
    fn agrees(&self, branch: BranchId, entry: &FeedEntry) -> anyhow::Result<()> {
        let id = TransferId::new(entry.transfer.id.get());
        let Some((transfer, known)) = self.sent.get(&id) else {
            bail!("UNEXPECTED: {id} is in the feed of branch {branch}, and nobody sent it");
        };
        ensure!(is_same(transfer, &entry.transfer), "CHANGED: {id} has other content at branch {branch}");
        let code = entry.reply.refusal.get();
        let agrees = match known {
            Known::Done(_) => code == 0,
            Known::Refused(_) | Known::Never => code != 0,
            Known::Unknown | Known::Free => false,
        };
        ensure!(agrees, "CHANGED: {id} was answered {known:?}, and branch {branch} has recorded {code}");
        // The payer's branch answers; the payee's may know another reason.
        let is_source = self.places(accounts_of(transfer).0).into_iter().eq([branch]);
        if let (true, Known::Refused(answered)) = (is_source, known) {
            ensure!(*answered == code, "CHANGED: {id} was refused with {answered}, and recorded with {code}");
        }
        Ok(())
    }

    fn is_where_it_must_be(
        &self,
        transfer: &Transfer,
        known: Known,
        shown: &BTreeMap<BranchId, Ends<'_>>,
    ) -> anyhow::Result<()> {
        let (debit, credit) = accounts_of(transfer);
        let must = match known {
            // What ends a hold is the payer's branch's.
            Known::Done(_) if is_end(transfer) => vec![debit],
            Known::Done(_) => vec![debit, credit],
            Known::Refused(code) if is_recorded(code) => vec![debit],
            Known::Refused(_) | Known::Unknown | Known::Free | Known::Never => vec![],
        };
        let id = id_of(transfer);
        let is_at = |branch: &BranchId| shown.get(branch).is_some_and(|ends| ends.contains_key(&id));
        for account in must {
            let places = self.places(account);
            ensure!(places.iter().any(is_at), "LOST: {id} was {known:?}, and is not at branch {places:?}");
        }
        let sides = shown.keys().filter(|branch| is_at(branch)).count();
        ensure!(sides <= 2 || self.may_have_come_along(transfer), "DOUBLED: {id} ended at {sides} branches");
        Ok(())
    }
}

/// What an entry of a feed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// How a transfer ended, or that a hold stands.
    OfTransfer,
    /// The payee's branch has heard how a hold ended; the entry names the hold.
    EndOfHold,
    /// A step on the way, or a move of an account.
    Other,
}

impl What {
    fn of(entry: &FeedEntry) -> Self {
        let (debit, credit) = accounts_of(&entry.transfer);
        match FeedKind::from_wire(entry.kind) {
            // A move is a transfer from an account to itself.
            Some(FeedKind::Transfer | FeedKind::Decided) if debit == credit && !debit.is_none() => Self::Other,
            Some(FeedKind::Decided) if is_end(&entry.transfer) => Self::EndOfHold,
            Some(FeedKind::Transfer | FeedKind::Decided) => Self::OfTransfer,
            _ => Self::Other,
        }
    }
}

/// Whether a transfer ends a hold.
fn is_end(transfer: &Transfer) -> bool {
    [TransferKind::Settle as u8, TransferKind::Void as u8].contains(&transfer.kind)
}

/// Whether a branch has recorded what was sent. What a settle or void leaves out is filled in there.
fn is_same(sent: &Transfer, recorded: &Transfer) -> bool {
    if !is_end(sent) {
        return sent == recorded;
    }
    let of = |transfer: &Transfer| (transfer.kind, transfer.reference.get(), transfer.debit_account_id.get());
    of(sent) == of(recorded) && (sent.amount.get() == 0 || sent.amount == recorded.amount)
}

#[cfg(test)]
mod tests {
    use tally_protocol::{AccountId, Refusal};
    use zerocopy::FromZeros;

    use super::*;

    const SOURCE: BranchId = BranchId::new(1);
    const DESTINATION: BranchId = BranchId::new(2);
    const PAYER: AccountId = AccountId::of_branch(SOURCE, 7);
    const PAYEE: AccountId = AccountId::of_branch(DESTINATION, 8);

    fn transfer(id: u128, kind: TransferKind) -> Transfer {
        let mut transfer = Transfer::new_zeroed();
        transfer.id.set(id);
        transfer.kind = kind as u8;
        transfer.amount.set(5);
        transfer.debit_account_id.set(PAYER.get());
        transfer.credit_account_id.set(PAYEE.get());
        transfer
    }

    fn entry(id: u128, kind: FeedKind, code: u16) -> FeedEntry {
        let mut entry = FeedEntry::new_zeroed();
        entry.kind = kind as u8;
        entry.transfer = transfer(id, TransferKind::Transfer);
        entry.reply.refusal.set(code);
        entry
    }

    fn compare(book: &mut Book, source: &[FeedEntry], destination: &[FeedEntry]) -> String {
        let feeds = BTreeMap::from([(SOURCE, source.to_vec()), (DESTINATION, destination.to_vec())]);
        book.compare(&feeds).map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    /// What `compare` says of one transfer that is `known`, with these feeds of source and destination.
    fn check(known: Known, source: &[FeedEntry], destination: &[FeedEntry]) -> String {
        let mut book = Book::default();
        let sent = transfer(1, TransferKind::Transfer);
        book.send(&sent);
        book.learn(&sent, known).expect("the first answer");
        compare(&mut book, source, destination)
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
    fn the_end_of_a_hold_is_the_payers_branchs_and_is_heard_once() {
        let (mut held, mut settle) = (transfer(1, TransferKind::Hold), transfer(2, TransferKind::Settle));
        held.amount.set(9);
        settle.reference.set(1);
        settle.credit_account_id.set(0);
        let shows = |transfer: Transfer, kind: FeedKind| FeedEntry { transfer, ..entry(0, kind, 0) };
        // Filled in by the branch.
        let recorded = Transfer { credit_account_id: 77.into(), ..settle };
        let stands = shows(held, FeedKind::Decided);
        let ended = shows(recorded, FeedKind::Transfer);
        let heard = shows(Transfer { id: 1.into(), ..recorded }, FeedKind::Decided);
        let other = shows(Transfer { amount: 6.into(), ..recorded }, FeedKind::Transfer);
        for (source, destination, expected) in [
            (&[stands, ended][..], &[stands, heard][..], "well"),
            (&[stands], &[stands, heard], "LOST"),
            (&[stands, ended], &[stands, heard, heard], "DOUBLED"),
            (&[stands, other], &[stands, heard], "CHANGED"),
        ] {
            let mut book = Book::default();
            for sent in [held, settle] {
                book.send(&sent);
                book.learn(&sent, Known::Done(3)).expect("the first answer");
            }
            let said = compare(&mut book, source, destination);
            assert!(said.starts_with(expected), "{said}, not {expected}");
        }
    }

    #[test]
    fn what_an_account_did_is_where_it_may_have_been() {
        let third = BranchId::new(3);
        let done = entry(1, FeedKind::Transfer, 0);
        for (may_move, expected) in [(false, "LOST"), (true, "well")] {
            let mut book = Book::default();
            let sent = transfer(1, TransferKind::Transfer);
            book.send(&sent);
            book.learn(&sent, Known::Done(9)).expect("the first answer");
            if may_move {
                book.may_move(PAYER, third);
            }
            let feeds = BTreeMap::from([(SOURCE, vec![]), (DESTINATION, vec![done]), (third, vec![done])]);
            let said = book.compare(&feeds).map_or_else(|error| error.to_string(), |()| "well".to_owned());
            assert!(said.starts_with(expected), "{said}, not {expected}");
        }
    }
}
