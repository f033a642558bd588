//! What planted bugs do at a branch, where that is more than leaving something out: to what is replayed, and to what it has in memory.

use tally_branch_server::journal::checkpoint::CheckpointMeta;
use tally_branch_server::journal::{RecoveryTarget, Unfit};
use tally_branch_server::recovery::Rebuilding;
use tally_ledger::journal::record::{AccountChange, Record, RecordBody};
use tally_ledger::{Account, Hold, HoldEnd, HoldStage, Leg};
use tally_protocol::{AccountStatus, Refusal, Timestamp, TransferId};

use super::BankBug;
use super::branch::Life;

/// Passes on what is recovered, but for what a planted bug keeps.
pub(super) struct Target {
    pub(super) inner: Rebuilding,
    pub(super) bug: Option<BankBug>,
}

impl RecoveryTarget for Target {
    fn restart(&mut self) {
        self.inner.restart();
    }
    fn checkpoint(&mut self, meta: &CheckpointMeta) {
        self.inner.checkpoint(meta);
    }
    fn prefetch_accounts(&self, accounts: &[Account]) {
        self.inner.prefetch_accounts(accounts);
    }
    fn prefetch_records(&self, records: &[Record]) {
        self.inner.prefetch_records(records);
    }
    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.inner.account(account)
    }
    fn hold(&mut self, hold: Hold) {
        let chain = hold.chain.filter(|_| self.bug != Some(BankBug::ChainPlacesForgotten));
        self.inner.hold(Hold { chain, ..hold });
    }
    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        let is_decision = matches!(record.body, RecordBody::Decided(..));
        if is_decision && self.bug == Some(BankBug::DecisionsNotReplayed) {
            return Ok(());
        }
        let is_behind_first = matches!(&record.body, RecordBody::Decided(_, transfer) if transfer.chain.is_some_and(|place| !place.is_head));
        let has_come = matches!(&record.body, RecordBody::Transfer(transfer) if transfer.came_along());
        if has_come && self.bug == Some(BankBug::CameHoldsForgotten) {
            return Ok(());
        }
        if matches!(record.body, RecordBody::Rehomed(_)) && self.bug == Some(BankBug::RehomesNotReplayed) {
            return Ok(());
        }
        let has_left = matches!(record.body, RecordBody::Decided(Some(Refusal::HoldElsewhere), _));
        if has_left && self.bug == Some(BankBug::LeavesNotReplayed) {
            return Ok(());
        }
        if is_behind_first && self.bug == Some(BankBug::ChainDecisionsReplayedInPart) {
            return Ok(());
        }
        let is_end_of_move = matches!(&record.body, RecordBody::Account(AccountChange::Moved, account) if account.status == AccountStatus::Moved);
        if is_end_of_move && self.bug == Some(BankBug::MoveEndsNotReplayed) {
            return Ok(());
        }
        // What is replayed is no chain's head, and so the chain's id leads nowhere.
        if let RecordBody::Transfer(transfer) = &record.body
            && self.bug == Some(BankBug::ChainIdsForgotten)
            && let Some(place) = transfer.chain
        {
            let chain = Some(tally_ledger::ChainPlace { is_head: false, ..place });
            let body = RecordBody::Transfer(tally_ledger::journal::record::TransferRecord { chain, ..*transfer });
            return self.inner.record(&Record { body, ..record.clone() });
        }
        self.inner.record(record)
    }
}

impl Life {
    /// The planted bug: an account that is to move goes on paying.
    pub(super) fn unseal(&self, id: tally_protocol::AccountId) {
        let Some(slot) = self.engine.accounts.find(id).map(|slot| slot.lock()) else { return };
        let account = slot.load_all();
        if account.status == AccountStatus::Moving {
            slot.publish_all(&Account { status: AccountStatus::Open, ..account });
        }
    }

    /// The planted bug: holds do not stand still until an account has joined them; or, again, they do.
    pub(super) fn forget_joining(&mut self) {
        let waiting = self.engine.holds.iter().filter_map(|hold| Some((hold.id, hold.joined_by()?)));
        self.joining.extend(waiting);
        self.joining.keys().for_each(|&id| self.engine.holds.await_joining(id, None));
    }

    /// See [`Life::forget_joining`].
    pub(super) fn remember_joining(&mut self) {
        for (id, joining) in std::mem::take(&mut self.joining) {
            self.engine.holds.await_joining(id, Some(joining));
        }
    }

    /// The planted bug: what the hold took is given back at once.
    pub(super) fn hold_nothing(&self, id: TransferId) {
        let Some(hold) = self.engine.holds.get(id) else { return };
        for (account, is_debit) in [(hold.debit_account_id, true), (hold.credit_account_id, false)] {
            let slot = self.engine.accounts.find(account).expect("a hold's accounts exist").lock();
            let mut account = slot.load();
            let held = if is_debit { &mut account.sums.debits_held } else { &mut account.sums.credits_held };
            *held = held.checked_sub(hold.amount).unwrap_or_default();
            slot.publish_sums(&account);
        }
    }

    /// The planted bug: what stands for a while is given back at the payee's branch.
    pub(super) fn expire_as_payee(&mut self, now: Timestamp) {
        let standing = |hold: &Hold| hold.leg == Leg::Destination && hold.stage == HoldStage::Open;
        let mut due: Vec<Hold> = self.engine.holds.iter().filter(standing).collect();
        due.sort_by_key(|hold| hold.id);
        for hold in due.iter().filter(|hold| hold.timestamp.as_nanos() + 2_000_000 < now.as_nanos()) {
            let source = hold.debit_account_id.settlement_peer().expect("a leg's own side is a settlement account");
            let end = (HoldEnd::Expired, tally_protocol::Amount::ZERO, now);
            self.engine.end_hold(&mut self.writer, (hold.id, source), end, now);
        }
    }

    /// The planted bug: a commit that comes again posts again.
    pub(super) fn post_again(&self, id: TransferId) {
        let Some(hold) = self.posted.get(&id) else { return };
        for (account, is_debit) in [(hold.debit_account_id, true), (hold.credit_account_id, false)] {
            let slot = self.engine.accounts.find(account).expect("a hold's accounts exist").lock();
            let mut account = slot.load();
            let posted = if is_debit { &mut account.sums.debits_posted } else { &mut account.sums.credits_posted };
            *posted = posted.checked_add(hold.amount).unwrap_or_default();
            slot.publish_sums(&account);
        }
    }
}
