//! The fake branch's ledger: a map of accounts and a map of transfers.

use std::collections::HashMap;

use tally_protocol::frame::Envelope;
use tally_protocol::message::{
    Account, AccountOpen, Balance, FeedEntry, FeedKind, FeedRead, ItemResult, RESULT_REPEATED, Status, Sums, Transfer,
    TransferFound, TransferKind, TransferReply, TransferState, account_flags,
};
use tally_protocol::reply::{FeedPage, Refused, Reply};
use tally_protocol::request::Lookup;
use tally_protocol::request::Request;
use tally_protocol::{AccountId, AccountKind, AccountStatus, BranchId, Currency, Refusal};
use zerocopy::FromZeros;

/// See the module.
#[derive(Default)]
pub struct Ledger {
    pub branch: u16,
    pub accounts: HashMap<u128, Account>,
    pub transfers: HashMap<u128, TransferFound>,
    pub feed: Vec<FeedEntry>,
    pub forget_every: u64,
    applied: u64,
}

impl Ledger {
    /// The books of a branch.
    pub fn of(branch: u16) -> Self {
        Self { branch, ..Self::default() }
    }

    /// Credits less debits, posted.
    pub fn balance(&self, id: AccountId) -> i64 {
        let account = &self.accounts[&id.get()];
        account.sums.credits_posted.get() as i64 - account.sums.debits_posted.get() as i64
    }

    /// Answers one request.
    pub fn serve(&mut self, request: &Request<'_>, envelope: Envelope, out: &mut Vec<u8>) {
        let mut refuse = |refusal: Refusal| {
            Reply::Refused(Refused { code: refusal.code(), retry_after_ms: 0, text: "no" }).append_to(out, envelope);
        };
        match request {
            Request::Ping => Reply::Pong.append_to(out, envelope),
            Request::GetStatus => {
                let mut status = Status::new_zeroed();
                status.branch_id.set(self.branch);
                status.accepting = 1;
                status.accounts.set(self.accounts.len() as u64);
                status.durable.set(self.feed.len() as u64 + 1);
                Reply::Status(&status).append_to(out, envelope);
            }
            Request::OpenAccounts(opens) => {
                let items: Vec<ItemResult> = opens.iter().map(|open| self.open(open)).collect();
                Reply::OpenAccounts(&items).append_to(out, envelope);
            }
            Request::Transfer(transfer) => {
                let (reply, sums) = self.transfer(transfer);
                let wanted = transfer.flags.get() & tally_protocol::message::transfer_flags::WANT_BALANCES != 0;
                Reply::Transfer { reply: &reply, balances: wanted.then_some(&sums) }.append_to(out, envelope);
            }
            Request::Batch(transfers) => {
                let items: Vec<ItemResult> = transfers.iter().map(|one| item(&self.transfer(one).0)).collect();
                Reply::Batch(&items).append_to(out, envelope);
            }
            Request::Chain(transfers) => {
                let items: Vec<ItemResult> = transfers.iter().map(|one| item(&self.transfer(one).0)).collect();
                Reply::Chain(&items).append_to(out, envelope);
            }
            Request::CancelId(id) => {
                let item = self.cancel(id.get());
                Reply::CancelId(&item).append_to(out, envelope);
            }
            Request::GetBalance(id) => match self.accounts.get(&id.get()) {
                None => refuse(Refusal::AccountNotFound),
                Some(account) => {
                    let mut balance = Balance::new_zeroed();
                    balance.id = account.open.id;
                    balance.sums = account.sums;
                    balance.status = account.status;
                    balance.currency = account.open.currency;
                    Reply::Balance(&balance).append_to(out, envelope);
                }
            },
            Request::GetAccount(id) => match self.accounts.get(&id.get()) {
                None => refuse(Refusal::AccountNotFound),
                Some(account) => Reply::Account(account).append_to(out, envelope),
            },
            Request::GetTransfer(id) => match self.transfers.get(&id.get()) {
                None => refuse(Refusal::TransferNotFound),
                Some(found) => Reply::TransferFound(found).append_to(out, envelope),
            },
            Request::CloseAccount(id) => {
                let item = self.set_status(*id, AccountStatus::Closed);
                Reply::CloseAccount(&item).append_to(out, envelope);
            }
            Request::FreezeAccount(id) => {
                let item = self.set_status(*id, AccountStatus::Frozen);
                Reply::FreezeAccount(&item).append_to(out, envelope);
            }
            Request::UnfreezeAccount(id) => {
                let item = self.set_status(*id, AccountStatus::Open);
                Reply::UnfreezeAccount(&item).append_to(out, envelope);
            }
            Request::SetLimits(limits) => {
                let mut item = ItemResult::new_zeroed();
                match self.accounts.get_mut(&limits.id.get()) {
                    Some(account) => account.open.overdraft = limits.overdraft,
                    None => item.refusal.set(Refusal::AccountNotFound.code()),
                }
                Reply::SetLimits(&item).append_to(out, envelope);
            }
            // All that it has ever done is shown at once.
            Request::ReadAfter(_, lookup) => {
                let plain = match *lookup {
                    Lookup::Balance(id) => Request::GetBalance(id),
                    Lookup::Account(id) => Request::GetAccount(id),
                    Lookup::Transfer(id) => Request::GetTransfer(id),
                };
                self.serve(&plain, envelope, out);
            }
            Request::ReadFeed(read) => self.read_feed(read, envelope, out),
            Request::Hello(_) | Request::Login(_) | Request::GetRoutes => refuse(Refusal::FieldInvalid),
        }
    }

    fn open(&mut self, open: &AccountOpen) -> ItemResult {
        let mut item = ItemResult::new_zeroed();
        if open.id.get() == 0 {
            item.refusal.set(Refusal::IdMustNotBeZero.code());
        } else if let Some(known) = self.accounts.get(&open.id.get()) {
            if known.open.owner != open.owner {
                item.refusal.set(Refusal::ExistsWithDifferentOwner.code());
            } else {
                item.flags.set(RESULT_REPEATED);
            }
        } else {
            let mut account = Account::new_zeroed();
            account.open = *open;
            account.status = AccountStatus::Open as u8;
            self.accounts.insert(open.id.get(), account);
        }
        item
    }

    fn set_status(&mut self, id: AccountId, status: AccountStatus) -> ItemResult {
        let mut item = ItemResult::new_zeroed();
        match self.accounts.get_mut(&id.get()) {
            Some(account) => account.status = status as u8,
            None => item.refusal.set(Refusal::AccountNotFound.code()),
        }
        item
    }

    fn cancel(&mut self, id: u128) -> ItemResult {
        let mut item = ItemResult::new_zeroed();
        match self.transfers.get(&id) {
            Some(found) if found.state == TransferState::Cancelled as u8 => item.flags.set(RESULT_REPEATED),
            Some(_) => item.refusal.set(Refusal::IdAlreadyUsed.code()),
            None => {
                let mut found = TransferFound::new_zeroed();
                found.transfer.id.set(id);
                found.state = TransferState::Cancelled as u8;
                self.transfers.insert(id, found);
            }
        }
        item
    }

    fn transfer(&mut self, transfer: &Transfer) -> (TransferReply, [Sums; 2]) {
        let mut reply = TransferReply::new_zeroed();
        let none = [Sums::new_zeroed(), Sums::new_zeroed()];
        if let Some(known) = self.transfers.get(&transfer.id.get()) {
            if known.state == TransferState::Cancelled as u8 {
                reply.refusal.set(Refusal::IdCancelled.code());
                return (reply, none);
            }
            if known.transfer.amount != transfer.amount {
                reply.refusal.set(Refusal::ExistsWithDifferentAmount.code());
                return (reply, none);
            }
            let mut reply = known.reply;
            reply.flags.set(RESULT_REPEATED);
            return (reply, [known.debit, known.credit]);
        }
        let (debit_id, credit_id) = self.sides(transfer);
        let (Some(debit), Some(credit)) = (self.accounts.get(&debit_id), self.accounts.get(&credit_id)) else {
            reply.refusal.set(Refusal::DebitAccountNotFound.code());
            return self.record(transfer, reply, none);
        };
        if debit.status == AccountStatus::Frozen as u8 {
            let sums = [debit.sums, credit.sums];
            reply.refusal.set(Refusal::DebitAccountFrozen.code());
            return self.record(transfer, reply, sums);
        }
        let amount = transfer.amount.get();
        let limited = debit.open.flags.get() & account_flags::DEBITS_LIMITED != 0;
        let after = debit.sums.debits_posted.get() + amount;
        if limited && after > debit.sums.credits_posted.get() + debit.open.overdraft.get() {
            let sums = [debit.sums, credit.sums];
            reply.refusal.set(Refusal::InsufficientFunds.code());
            return self.record(transfer, reply, sums);
        }
        self.applied += 1;
        reply.amount.set(amount);
        let forgotten = self.forget_every > 0 && self.applied.is_multiple_of(self.forget_every);
        if forgotten {
            return (reply, none);
        }
        let debit = self.accounts.get_mut(&debit_id).expect("just seen");
        debit.sums.debits_posted.set(after);
        let debit = debit.sums;
        let credit = self.accounts.get_mut(&credit_id).expect("just seen");
        credit.sums.credits_posted.set(credit.sums.credits_posted.get() + amount);
        let credit = credit.sums;
        self.record(transfer, reply, [debit, credit])
    }

    fn sides(&mut self, transfer: &Transfer) -> (u128, u128) {
        let currency = Currency::new(transfer.currency.get()).expect("tests use real currencies");
        let cash = AccountId::of_house(BranchId::new(self.branch), AccountKind::Cash, currency).get();
        self.accounts.entry(cash).or_insert_with(|| {
            let mut account = Account::new_zeroed();
            account.open.id.set(cash);
            account.open.kind = AccountKind::Cash as u8;
            account
        });
        let (debit, credit) = (transfer.debit_account_id.get(), transfer.credit_account_id.get());
        match TransferKind::from_wire(transfer.kind) {
            Some(TransferKind::Deposit) => (cash, credit),
            Some(TransferKind::Withdraw) => (debit, cash),
            // To another branch: what is owed to it takes the account's place.
            _ if credit >> 112 != u128::from(self.branch) => {
                self.accounts.entry(credit).or_insert_with(Account::new_zeroed);
                (debit, credit)
            }
            _ => (debit, credit),
        }
    }

    fn record(&mut self, transfer: &Transfer, mut reply: TransferReply, sums: [Sums; 2]) -> (TransferReply, [Sums; 2]) {
        let lsn = self.feed.len() as u64 + 1;
        reply.lsn.set(lsn);
        reply.timestamp.set(lsn);
        let mut found = TransferFound::new_zeroed();
        found.transfer = *transfer;
        found.reply = reply;
        [found.debit, found.credit] = sums;
        found.state = match reply.refusal.get() {
            0 => TransferState::Done as u8,
            _ => TransferState::Refused as u8,
        };
        self.transfers.insert(transfer.id.get(), found);
        let mut entry = FeedEntry::new_zeroed();
        entry.lsn.set(lsn);
        entry.kind = FeedKind::Transfer as u8;
        entry.transfer = *transfer;
        entry.reply = reply;
        self.feed.push(entry);
        (reply, sums)
    }

    fn read_feed(&self, read: &FeedRead, envelope: Envelope, out: &mut Vec<u8>) {
        let from = (read.from.get().saturating_sub(1) as usize).min(self.feed.len());
        // Pages of as much as fits for whoever leaves it to the branch, else short ones, so that there are several.
        let count_max = match read.count_max.get() {
            0 => 4_000,
            wanted => wanted.min(10),
        };
        let until = self.feed.len().min(from + count_max as usize);
        let page =
            FeedPage { next: until as u64 + 1, durable: self.feed.len() as u64 + 1, entries: &self.feed[from..until] };
        Reply::Feed(page).append_to(out, envelope);
    }
}

fn item(reply: &TransferReply) -> ItemResult {
    let mut item = ItemResult::new_zeroed();
    item.timestamp = reply.timestamp;
    item.refusal = reply.refusal;
    item.flags = reply.flags;
    item
}
