//! Between the journal's recovery and the branch's state: where a bug in replay is planted.

use tally_branch_server::journal::{CheckpointMeta, RecoveryTarget, Unfit};
use tally_branch_server::recovery::Rebuilding;
use tally_ledger::journal::record::{Record, RecordBody};
use tally_ledger::{Account, Hold, StatusChange};
use tally_protocol::message::TransferKind;
use tally_protocol::{Amount, TransferId};

use crate::planted::Bug;

/// Passes everything on, but for what the planted bug keeps.
pub(super) struct Target {
    pub(super) inner: Rebuilding,
    pub(super) bug: Option<Bug>,
    records: u64,
}

impl Target {
    pub(super) fn new(inner: Rebuilding, bug: Option<Bug>) -> Self {
        Self { inner, bug, records: 0 }
    }

    fn is_planted(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The record as the planted bug lets it through.
    fn filtered(&mut self, record: &Record) -> Option<Record> {
        self.records += 1;
        if self.is_planted(Bug::RecordNotReplayed) && self.records.is_multiple_of(50) {
            return None;
        }
        let mut record = record.clone();
        match &mut record.body {
            RecordBody::Transfer(transfer)
            | RecordBody::Expired(transfer)
            | RecordBody::Decided(_, transfer)
            | RecordBody::Rehomed(transfer) => {
                if self.bug == Some(Bug::RefusedIdsForgotten) && transfer.refusal.is_some() {
                    return None;
                }
                if self.bug == Some(Bug::IdsForgotten) && transfer.kind != TransferKind::Hold {
                    transfer.id = TransferId::new(transfer.id.get() | 1 << 100);
                }
                if self.bug == Some(Bug::EndsForgotten) && transfer.kind == TransferKind::Reverse {
                    transfer.kind = TransferKind::Transfer;
                }
                if self.bug == Some(Bug::CreditNotReplayed)
                    && transfer.refusal.is_none()
                    && let Some(slot) = self.inner.accounts.find(transfer.credit_account_id)
                {
                    transfer.credit = slot.read().sums;
                }
                if self.bug == Some(Bug::ClosingNotReplayed) {
                    transfer.status = StatusChange::NONE;
                }
                if self.bug == Some(Bug::DayLimitNotRestored) {
                    transfer.day_spent = Amount::ZERO;
                }
            }
            RecordBody::Cancelled(_) if self.bug == Some(Bug::CancelsForgotten) => return None,
            RecordBody::Account(..) | RecordBody::Cancelled(_) => {}
        }
        Some(record)
    }
}

impl RecoveryTarget for Target {
    fn restart(&mut self) {
        self.inner.restart();
    }

    fn checkpoint(&mut self, meta: &CheckpointMeta) {
        self.inner.checkpoint(meta);
    }

    fn account(&mut self, account: Account) -> Result<(), Unfit> {
        self.inner.account(account)
    }

    fn hold(&mut self, hold: Hold) {
        self.inner.hold(hold);
    }

    fn record(&mut self, record: &Record) -> Result<(), Unfit> {
        match self.filtered(record) {
            Some(record) => self.inner.record(&record),
            None => Ok(()),
        }
    }
}
