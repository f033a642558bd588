//! What the bank's clients know: what they have sent, what was answered, and what every account must have and hold for it.
//!
//! **Invariant:** an id has one answer for ever, and an account's balance is what follows from the answers "done" and from
//! nothing else. So anything that the bank loses, changes or does twice is a difference between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{bail, ensure};
use tally_protocol::message::{Transfer, TransferKind};
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

/// What an account has: its balance, and what is held of it as the payer and for it as the payee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) balance: i128,
    pub(crate) held_as_payer: i128,
    pub(crate) held_as_payee: i128,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Since the last check.
    pub(super) sent: HashMap<TransferId, (Transfer, Known)>,
    /// From before it, with their answers.
    kept: Vec<(Transfer, Known)>,
    /// Holds that stand, and those that were ended since the last check.
    holds: BTreeMap<TransferId, Transfer>,
    ended: HashMap<TransferId, Transfer>,
    accounts: BTreeMap<AccountId, Due>,
    /// Where accounts may have been since the last check, but for those that were all the time where their id says.
    places: BTreeMap<AccountId, BTreeSet<BranchId>>,
    /// Answers so far; those of them that were about payments between branches and done; and holds that were ended.
    pub(crate) answers: u64,
    pub(crate) done_across: u64,
    pub(crate) holds_ended: u64,
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
            self.carry_out(transfer)?;
        }
        Ok(())
    }

    /// What was done has this effect.
    fn carry_out(&mut self, transfer: &Transfer) -> anyhow::Result<()> {
        let (debit, credit) = accounts_of(transfer);
        let amount = i128::from(transfer.amount.get());
        match TransferKind::from_wire(transfer.kind) {
            Some(TransferKind::Transfer) => {
                self.done_across += u64::from(debit.branch() != credit.branch());
                self.pay(transfer, amount);
            }
            Some(TransferKind::Hold) => {
                self.done_across += u64::from(debit.branch() != credit.branch());
                self.reserve(transfer, amount);
                self.holds.insert(id_of(transfer), *transfer);
            }
            Some(TransferKind::Settle | TransferKind::Void) => {
                let id = TransferId::new(transfer.reference.get());
                let Some(hold) = self.holds.remove(&id) else {
                    bail!("DOUBLED: {} is the second end of {id}", id_of(transfer));
                };
                self.holds_ended += 1;
                self.ended.insert(id, hold);
                self.reserve(&hold, -i128::from(hold.amount.get()));
                // A void has no amount.
                self.pay(&hold, amount);
            }
            _ => bail!("UNEXPECTED: {} is of a kind that nobody sends", id_of(transfer)),
        }
        Ok(())
    }

    fn pay(&mut self, between: &Transfer, amount: i128) {
        let (debit, credit) = accounts_of(between);
        self.give(debit, -amount);
        self.give(credit, amount);
    }

    fn reserve(&mut self, hold: &Transfer, amount: i128) {
        let (debit, credit) = accounts_of(hold);
        self.accounts.entry(debit).or_default().held_as_payer += amount;
        self.accounts.entry(credit).or_default().held_as_payee += amount;
    }

    /// An account has so much more.
    pub(crate) fn give(&mut self, account: AccountId, amount: i128) {
        self.accounts.entry(account).or_default().balance += amount;
    }

    /// What every account must have.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (AccountId, Due)> {
        self.accounts.iter().map(|(&account, &due)| (account, due))
    }

    /// Somebody begins to move `account` to `branch`: from here on it may be there.
    pub(crate) fn may_move(&mut self, account: AccountId, branch: BranchId) {
        self.places.entry(account).or_insert_with(|| BTreeSet::from([account.branch()])).insert(branch);
    }

    /// Where `account` has been since the last check, as far as is known.
    pub(crate) fn places(&self, account: AccountId) -> BTreeSet<BranchId> {
        self.places.get(&account).cloned().unwrap_or_else(|| BTreeSet::from([account.branch()]))
    }

    /// `account` is at `branch`, and nobody moves it.
    pub(crate) fn is_at(&mut self, account: AccountId, branch: BranchId) {
        self.places.insert(account, BTreeSet::from([branch]));
    }

    /// A hold that stands; `index` is any number.
    pub(crate) fn hold(&self, index: usize) -> Option<Transfer> {
        self.holds.values().nth(index % self.holds.len().max(1)).copied()
    }

    /// A hold that stands, or did at the last check.
    pub(super) fn known_hold(&self, id: TransferId) -> Option<&Transfer> {
        self.holds.get(&id).or_else(|| self.ended.get(&id))
    }

    /// How many holds stand.
    pub(crate) fn holds_len(&self) -> usize {
        self.holds.len()
    }

    /// Transfers without an answer.
    pub(crate) fn unknown(&self) -> Vec<Transfer> {
        self.sent.values().filter(|(_, known)| *known == Known::Unknown).map(|(transfer, _)| *transfer).collect()
    }

    /// An old transfer, to be sent again, with the answer that it must have; `index` is any number.
    pub(crate) fn old(&self, index: usize) -> Option<(Transfer, Known)> {
        self.kept.get(index % self.kept.len().max(1)).copied()
    }

    /// All answers are known, and were checked: begins anew.
    pub(super) fn begin_anew(&mut self) {
        self.ended.clear();
        for (_, (transfer, known)) in self.sent.drain() {
            if let Known::Done(_) | Known::Refused(_) = known {
                self.kept.push((transfer, known));
            }
        }
        let surplus = self.kept.len().saturating_sub(KEPT_MAX);
        self.kept.drain(..surplus);
    }
}

/// Whether a refusal uses up its id.
pub(crate) fn is_recorded(code: u16) -> bool {
    RefusalGroup::of_code(code) == Some(RefusalGroup::State)
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
    use zerocopy::FromZeros;

    use super::*;

    const SOURCE: BranchId = BranchId::new(1);
    const DESTINATION: BranchId = BranchId::new(2);

    fn transfer(id: u128, kind: TransferKind) -> Transfer {
        let mut transfer = Transfer::new_zeroed();
        transfer.id.set(id);
        transfer.kind = kind as u8;
        transfer.amount.set(5);
        transfer.debit_account_id.set(AccountId::of_branch(SOURCE, 7).get());
        transfer.credit_account_id.set(AccountId::of_branch(DESTINATION, 8).get());
        transfer
    }

    fn dues(book: &Book) -> Vec<[i128; 3]> {
        book.accounts().map(|(_, due)| [due.balance, due.held_as_payer, due.held_as_payee]).collect()
    }

    #[test]
    fn an_answer_stands_and_moves_money_once() {
        let mut book = Book::default();
        let payment = transfer(1, TransferKind::Transfer);
        book.send(&payment);
        book.learn(&payment, Known::Free).expect("not taken");
        book.learn(&payment, Known::Done(3)).expect("taken later");
        book.learn(&payment, Known::Done(3)).expect("a repeat");
        book.learn(&payment, Known::Unknown).expect("says nothing");
        book.learn(&payment, Known::Free).expect("says nothing");
        assert_eq!(dues(&book), [[-5, 0, 0], [5, 0, 0]]);
        assert!(book.learn(&payment, Known::Done(4)).is_err() && book.learn(&payment, Known::Never).is_err());
        assert!(book.learn(&transfer(2, TransferKind::Transfer), Known::Never).is_err());
    }

    #[test]
    fn a_hold_ends_once_with_what_was_settled() {
        let mut book = Book::default();
        let hold = transfer(1, TransferKind::Hold);
        let end = |id: u128, kind: TransferKind, amount: u64| Transfer {
            reference: 1.into(),
            amount: amount.into(),
            ..transfer(id, kind)
        };
        let (settle, void) = (end(2, TransferKind::Settle, 3), end(3, TransferKind::Void, 0));
        for sent in [&hold, &settle, &void] {
            book.send(sent);
        }
        book.learn(&hold, Known::Done(1)).expect("it stands");
        assert_eq!((dues(&book), book.holds_len()), (vec![[0, 5, 0], [0, 0, 5]], 1));
        book.learn(&settle, Known::Done(2)).expect("it ends");
        assert_eq!((dues(&book), book.holds_len()), (vec![[-3, 0, 0], [3, 0, 0]], 0));
        let twice = book.learn(&void, Known::Done(3)).expect_err("it has ended");
        assert!(twice.to_string().starts_with("DOUBLED"), "{twice}");
    }
}
