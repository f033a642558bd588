//! Adds up one branch as of a stamp: from a checkpoint, and the records behind it.
//!
//! ```text
//!   records from the checkpoint's replay_from on, up to the cut   -> `before`, until it says that the cut is reached
//!   then accounts and holds of the checkpoint                     -> `account`, `hold`
//!                                                                    `close`: the books as of the cut
//!   then records behind the cut, as far as they are durable       -> `after`: how the open legs ended
//! ```
//!
//! Records carry both accounts' sums after them, so the last one that touched an account says what it held; an account
//! that none touched is as the checkpoint has it. Nothing here is a running total of the branch's: every account is
//! added up. In memory are the accounts that the records touched, and the open holds.

use std::collections::{BTreeMap, BTreeSet};

use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, Amount, BranchId, Currency, Lsn, Refusal, Timestamp, TransferId};

use super::books::{BranchBooks, OpenLeg, Side};
use crate::account::{Account, Sums};
use crate::ending::Ending;
use crate::hold::Hold;
use crate::journal::record::{Record, RecordBody, TransferRecord};
use crate::replay::{RecordEffect, changes_accounts};

/// See the top of the file.
#[derive(Debug)]
pub struct Cut {
    stamp: Timestamp,
    /// Nothing in the checkpoint is younger.
    complete_at: Lsn,
    touched: BTreeMap<AccountId, Touched>,
    opened: BTreeMap<TransferId, Hold>,
    /// Ended before the cut; the checkpoint may have caught them while they were open.
    ended: BTreeSet<TransferId>,
    /// Holds in which a settlement account has taken the place of one that has gone, before the cut: from which to which, in order. The
    /// checkpoint may have caught them before that.
    rehomed: BTreeMap<TransferId, Vec<(AccountId, AccountId)>>,
    books: BranchBooks,
    open: BTreeMap<TransferId, OpenLeg>,
    /// Holds between branches that this one, as the payer's, has ended, the payee's branch, and how much of each it posted.
    endings: BTreeMap<TransferId, (BranchId, Amount)>,
    is_reached: bool,
}

/// Whether the record of a decision posted its amount: a transfer's, or a hold's that its payer's branch settled.
const fn posts(refusal: Option<Refusal>, transfer: &TransferRecord) -> bool {
    refusal.is_none() && matches!(transfer.kind, TransferKind::Transfer | TransferKind::Settle)
}

/// An account as the last record left it.
#[derive(Clone, Copy, Debug)]
struct Touched {
    lsn: Lsn,
    sums: Sums,
    currency: Currency,
}

impl Cut {
    /// The cut of `branch` at `stamp`, from a checkpoint that is complete at this position, where there is one.
    pub fn new(branch: BranchId, stamp: Timestamp, complete_at: Lsn) -> Self {
        Self {
            stamp,
            complete_at,
            touched: BTreeMap::new(),
            opened: BTreeMap::new(),
            ended: BTreeSet::new(),
            rehomed: BTreeMap::new(),
            books: BranchBooks { branch, ..BranchBooks::default() },
            open: BTreeMap::new(),
            endings: BTreeMap::new(),
            is_reached: false,
        }
    }

    /// The next record from the checkpoint's `replay_from` on. `false` when it lies behind the cut: it, and all that
    /// follow, are for [`Self::after`].
    pub fn before(&mut self, record: &Record) -> bool {
        if self.is_reached || record.timestamp > self.stamp {
            self.is_reached = true;
            return false;
        }
        match &record.body {
            RecordBody::Transfer(transfer) | RecordBody::Expired(transfer) | RecordBody::Rehomed(transfer) => {
                self.touch_both(record.lsn, transfer);
            }
            RecordBody::Decided(refusal, transfer) => {
                self.touch_both(record.lsn, transfer);
                if posts(*refusal, transfer) && transfer.decided_at() > self.stamp {
                    self.side_of(transfer, |side, amount| side.early += amount);
                }
            }
            RecordBody::Account(_, account) => self.touch(account.id, record.lsn, account.sums, account.currency),
            RecordBody::Cancelled(_) => {}
        }
        match RecordEffect::of(&record.body, record.lsn, record.timestamp) {
            RecordEffect::HoldOpened(hold) => drop(self.opened.insert(hold.id, hold)),
            RecordEffect::HoldEnded(id, _) | RecordEffect::Decided(id) => self.end(id),
            RecordEffect::HoldRehomed { id, from, to } => {
                if let Some(hold) = self.opened.get_mut(&id) {
                    *hold = hold.rehomed(from, to).unwrap_or(*hold);
                }
                self.rehomed.entry(id).or_default().push((from, to));
            }
            // It stands as it was held.
            RecordEffect::HoldKept(_)
            | RecordEffect::HoldJoining(..)
            | RecordEffect::Reversed(_)
            | RecordEffect::None => {}
        }
        if let Some(ending) = Ending::of_record(&record.body, record.lsn, record.timestamp) {
            self.endings.insert(ending.hold_id, (ending.peer, ending.posted));
        }
        true
    }

    /// An account of the checkpoint.
    pub fn account(&mut self, account: &Account) {
        let sums = match self.touched.remove(&account.id) {
            Some(touched) if touched.lsn > account.lsn => touched.sums,
            Some(_) | None => account.sums,
        };
        self.add(account.id, &sums, account.currency);
    }

    /// An open hold of the checkpoint.
    pub fn hold(&mut self, hold: Hold) {
        if let Some(ending) = Ending::of_hold(&hold) {
            self.endings.insert(ending.hold_id, (ending.peer, ending.posted));
        } else if !self.ended.contains(&hold.id) {
            let changes = self.rehomed.get(&hold.id).map(Vec::as_slice).unwrap_or_default();
            // What it was caught behind has happened to it already.
            let hold = changes.iter().fold(hold, |hold, &(from, to)| hold.rehomed(from, to).unwrap_or(hold));
            self.opened.insert(hold.id, hold);
        }
    }

    /// The checkpoint is read: adds up what it does not have.
    pub fn close(&mut self) {
        for (id, touched) in std::mem::take(&mut self.touched) {
            self.add(id, &touched.sums, touched.currency);
        }
        self.ended.clear();
        self.rehomed.clear();
        let opened = std::mem::take(&mut self.opened);
        // An account that is on its way may be open at the other branch already, and a hold have been settled there: then the
        // decision on the move is on its way here.
        let moving: BTreeMap<AccountId, AccountId> = opened
            .values()
            .filter(|hold| hold.moves_account())
            .map(|hold| (hold.near_account_id(), hold.settlement_account_id()))
            .collect();
        for (id, hold) in opened {
            if let Some(&to) = moving.get(&hold.debit_account_id)
                && !hold.moves_account()
                && hold.credit_account_id != to
                && let Some(leg) = hold.rehomed(hold.debit_account_id, to).and_then(|gone| OpenLeg::of(&gone))
            {
                self.open.insert(id, leg);
            }
            self.books.currencies.entry(hold.currency).or_default().holds += u128::from(hold.amount.get());
            // A hold that is open at its payer's branch is posted nowhere.
            if let Some(leg) = OpenLeg::of(&hold).filter(|leg| !(leg.is_hold && leg.is_outgoing)) {
                self.open.insert(id, leg);
            }
        }
    }

    /// The next record behind the cut. May go on later, when more is durable.
    pub fn after(&mut self, record: &Record) {
        let transfer = match &record.body {
            RecordBody::Decided(None, transfer) if transfer.kind == TransferKind::Hold => return,
            RecordBody::Decided(_, transfer) | RecordBody::Expired(transfer) => transfer,
            RecordBody::Transfer(_) | RecordBody::Rehomed(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => {
                return;
            }
        };
        let is_posted = matches!(&record.body, RecordBody::Decided(refusal, _) if posts(*refusal, transfer));
        if self.open.remove(&transfer.id).is_some() && is_posted && transfer.decided_at() <= self.stamp {
            self.side_of(transfer, |side, amount| side.late += amount);
        }
    }

    /// Whether [`Self::after`] could find something.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// How much of this hold the branch, as its payer's, had posted towards `payee` by the cut; 0 where it had not ended it, or gave
    /// all of it back, or ended it when it was with another branch. Only of holds that were not known by the cut to have ended at
    /// the payee's branch.
    pub fn ended_with(&self, id: TransferId, payee: BranchId) -> Amount {
        self.endings.get(&id).filter(|(peer, _)| *peer == payee).map(|&(_, posted)| posted).unwrap_or_default()
    }

    /// The books, as far as records were read.
    pub fn books(&self) -> BranchBooks {
        BranchBooks { open: self.open.values().copied().collect(), ..self.books.clone() }
    }

    fn touch_both(&mut self, lsn: Lsn, transfer: &TransferRecord) {
        if changes_accounts(transfer) {
            let currency = Currency::new(transfer.currency).unwrap_or_default();
            self.touch(transfer.debit_account_id, lsn, transfer.debit, currency);
            self.touch(transfer.credit_account_id, lsn, transfer.credit, currency);
        }
    }

    fn touch(&mut self, id: AccountId, lsn: Lsn, sums: Sums, currency: Currency) {
        self.touched.insert(id, Touched { lsn, sums, currency });
    }

    fn end(&mut self, id: TransferId) {
        // One that was opened behind the checkpoint's end is not in it.
        if self.opened.remove(&id).is_none_or(|hold| hold.lsn < self.complete_at) {
            self.ended.insert(id);
        }
    }

    fn side_of(&mut self, transfer: &TransferRecord, change: impl FnOnce(&mut Side, u128)) {
        let currency = Currency::new(transfer.currency).unwrap_or_default();
        if let Some(side) = self.books.side_of(transfer.debit_account_id, transfer.credit_account_id, currency) {
            change(side, u128::from(transfer.amount.get()));
        }
    }

    fn add(&mut self, id: AccountId, sums: &Sums, currency: Currency) {
        self.books.currencies.entry(currency).or_default().add(sums);
        if let Some(peer) = id.settlement_peer() {
            let settlement = self.books.settlements.entry((peer, currency)).or_default();
            settlement.debits.posted += u128::from(sums.debits_posted.get());
            settlement.credits.posted += u128::from(sums.credits_posted.get());
        }
    }
}
