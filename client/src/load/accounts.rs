//! The accounts that load is spread over: opened, given money, and what each must hold.
//!
//! Invariant: `expected[i]` is the balance of account `i` if exactly the transfers that were acknowledged, or
//! found to be done afterwards, have happened.

use std::sync::Arc;

use tally_protocol::message::{AccountOpen, BATCH_LEN_MAX, ItemResult, Transfer, TransferKind, account_flags};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{AccountId, AccountKind, BranchId, Currency};
use zerocopy::FromZeros;

use super::verify;
use crate::lane::{JobResult, Jobs, LaneOptions, Next, RequestWriter, run_jobs};
use crate::{CODE_DEFAULT, Dialer, Random};

/// What each account is given: more than any run takes out of one, and so little that ten million of them fit
/// into the cash account's sum.
pub(crate) const FUNDS: u64 = 1_000_000_000;
/// Full batches in flight while accounts are set up.
const SETUP: LaneOptions = LaneOptions::for_work(4, 2);

/// A range of accounts of one branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountRange {
    pub(crate) branch_id: BranchId,
    /// The local number of the first.
    pub(crate) base: u64,
    pub(crate) count: u64,
    pub(crate) currency: Currency,
}

impl AccountRange {
    #[inline]
    pub(crate) fn id(&self, index: u64) -> AccountId {
        AccountId::of_branch(self.branch_id, u128::from(self.base) + u128::from(index))
    }

    /// A transfer between two of them.
    #[inline]
    pub(crate) fn transfer(&self, id: u128, pair: super::choose::Pair, amount: u32) -> Transfer {
        let mut transfer = Transfer::new_zeroed();
        transfer.id.set(id);
        transfer.debit_account_id.set(self.id(pair.debit.into()).get());
        transfer.credit_account_id.set(self.id(pair.credit.into()).get());
        transfer.amount.set(amount.into());
        transfer.currency.set(self.currency.get());
        transfer.code.set(CODE_DEFAULT);
        transfer.kind = TransferKind::Transfer as u8;
        transfer
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(crate) range: AccountRange,
    pub(crate) expected: Vec<i64>,
    /// What all of them together were given.
    pub(crate) deposited: u64,
}

impl Accounts {
    /// Opens all of `range` and, unless `penniless`, pays [`FUNDS`] into each. Accounts that were there before
    /// are used as they are.
    pub(crate) fn prepare(dialer: &Arc<Dialer>, range: AccountRange, penniless: bool) -> anyhow::Result<Self> {
        let batches = range.count.div_ceil(BATCH_LEN_MAX as u64);
        let opening =
            run_jobs(dialer, SETUP, batches, Opening { range, scratch: Vec::new(), result: Items::default() })?;
        opening.result.check("account was not opened")?;

        let mut accounts = Self { range, expected: vec![0; range.count as usize], deposited: 0 };
        if opening.result.repeated > 0 {
            accounts.expected = verify::read_balances(dialer, range)?;
        }
        if !penniless {
            let seed = Random::from_system().bits();
            let funding = Funding { range, seed, scratch: Vec::new(), result: Items::default() };
            run_jobs(dialer, SETUP, batches, funding)?.result.check("deposit was refused")?;
            accounts.expected.iter_mut().for_each(|balance| *balance += FUNDS as i64);
            accounts.deposited = FUNDS * range.count;
        }
        Ok(accounts)
    }
}

/// What became of many items.
#[derive(Debug, Default)]
struct Items {
    repeated: u64,
    problem: Option<String>,
}

impl Items {
    fn read(&mut self, items: &[ItemResult], expected: usize) {
        if items.len() != expected {
            self.problem = Some(format!("{} answers to {expected} entries", items.len()));
        }
        for item in items.iter().map(crate::ItemOutcome::from) {
            self.repeated += u64::from(item.repeated);
            if let Err(refused) = item.result() {
                self.problem.get_or_insert_with(|| refused.to_string());
            }
        }
    }

    fn other(&mut self, reply: Reply<'_>) {
        self.problem.get_or_insert_with(|| match reply {
            Reply::Refused(refused) => crate::Refused::from(refused).to_string(),
            other => format!("unexpected {:?}", other.message_type()),
        });
    }

    fn check(&self, what: &str) -> anyhow::Result<()> {
        match &self.problem {
            None => Ok(()),
            Some(problem) => anyhow::bail!("{what}: {problem}"),
        }
    }
}

/// The indices of the accounts in batch `batch_index`.
fn batch_range(range: AccountRange, batch_index: u64) -> std::ops::Range<u64> {
    let start = batch_index * BATCH_LEN_MAX as u64;
    start..range.count.min(start + BATCH_LEN_MAX as u64)
}

struct Opening {
    range: AccountRange,
    scratch: Vec<AccountOpen>,
    result: Items,
}

impl Jobs for Opening {
    fn write(&mut self, batch_index: u64, writer: RequestWriter<'_>) -> Next<()> {
        self.scratch.clear();
        self.scratch.extend(batch_range(self.range, batch_index).map(|index| {
            let mut open = AccountOpen::new_zeroed();
            open.id.set(self.range.id(index).get());
            open.owner.set(self.range.base + index + 1);
            open.day_limit.set(u64::MAX);
            open.currency.set(self.range.currency.get());
            open.code.set(CODE_DEFAULT);
            open.flags.set(account_flags::DEBITS_LIMITED);
            open.kind = AccountKind::Customer as u8;
            open
        }));
        writer.send(&Request::OpenAccounts(&self.scratch), (), 0)
    }

    fn read(&mut self, batch_index: u64, reply: Reply<'_>) -> JobResult {
        let range = batch_range(self.range, batch_index);
        match reply {
            Reply::OpenAccounts(items) => self.result.read(items, (range.end - range.start) as usize),
            other => self.result.other(other),
        }
        JobResult::Done
    }
}

struct Funding {
    range: AccountRange,
    /// The deposits' ids follow from this, so that a batch that is sent again carries the same ones.
    seed: u64,
    scratch: Vec<Transfer>,
    result: Items,
}

impl Jobs for Funding {
    fn write(&mut self, batch_index: u64, writer: RequestWriter<'_>) -> Next<()> {
        let mut random = Random::from_seed(self.seed.wrapping_add(batch_index));
        self.scratch.clear();
        self.scratch.extend(batch_range(self.range, batch_index).map(|index| {
            let mut deposit = Transfer::new_zeroed();
            deposit.id.set((random.bits_128() | 1) & !(1 << 127));
            deposit.credit_account_id.set(self.range.id(index).get());
            deposit.amount.set(FUNDS);
            deposit.currency.set(self.range.currency.get());
            deposit.code.set(CODE_DEFAULT);
            deposit.kind = TransferKind::Deposit as u8;
            deposit
        }));
        writer.send(&Request::Batch(&self.scratch), (), 0)
    }

    fn read(&mut self, batch_index: u64, reply: Reply<'_>) -> JobResult {
        let range = batch_range(self.range, batch_index);
        match reply {
            Reply::Batch(items) => self.result.read(items, (range.end - range.start) as usize),
            other => self.result.other(other),
        }
        JobResult::Done
    }
}
