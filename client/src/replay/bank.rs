//! The replay's accounts at the branch: opened, read before and after.

use std::sync::Arc;

use tally_protocol::message::{AccountOpen, BATCH_LEN_MAX, Status, account_flags};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{AccountKind, Currency, Lsn, Refusal};
use zerocopy::FromZeros;

use super::book::Party;
use super::names::Names;
use crate::lane::{JobResult, Jobs, LaneOptions, Next, RequestWriter, run_jobs};
use crate::{CODE_DEFAULT, Dialer, ItemOutcome, Refused};

const OPENING: LaneOptions = LaneOptions::for_work(2, 2);
const READING: LaneOptions = LaneOptions::for_work(4, 64);

/// The durable position: everything recorded from here on is younger than this call.
pub(crate) fn durable(dialer: &Arc<Dialer>) -> anyhow::Result<Lsn> {
    struct Asking(Result<Lsn, String>);
    impl Jobs for Asking {
        fn write(&mut self, _: u64, writer: RequestWriter<'_>) -> Next<()> {
            writer.send(&Request::GetStatus, (), 0)
        }
        fn read(&mut self, _: u64, reply: Reply<'_>) -> JobResult {
            self.0 = match reply {
                Reply::Status(Status { durable, .. }) => Ok(Lsn::new(durable.get())),
                other => Err(describe(&other)),
            };
            JobResult::Done
        }
    }
    let asked = run_jobs(dialer, LaneOptions::for_work(1, 1), 1, Asking(Err("no answer".to_owned())))?;
    asked.0.map_err(|problem| anyhow::anyhow!("status: {problem}"))
}

/// Opens whatever is not open yet. With `overdraft`, customers may spend without limit.
pub(crate) fn open(
    dialer: &Arc<Dialer>,
    names: Names,
    parties: &[Party],
    currency: Currency,
    overdraft: bool,
) -> anyhow::Result<()> {
    let opens: Vec<AccountOpen> = parties
        .iter()
        .map(|&party| {
            let mut open = AccountOpen::new_zeroed();
            let (id, owner) = match party {
                Party::Customer(customer_id) => (names.customer(customer_id), customer_id),
                Party::Payee(payee_id) => (names.payee(payee_id), payee_id),
            };
            if matches!(party, Party::Customer(_)) && !overdraft {
                open.flags.set(account_flags::DEBITS_LIMITED);
            }
            open.id.set(id.get());
            open.owner.set(owner);
            open.day_limit.set(u64::MAX);
            open.currency.set(currency.get());
            open.code.set(CODE_DEFAULT);
            open.kind = AccountKind::Customer as u8;
            open
        })
        .collect();
    let batches = opens.len().div_ceil(BATCH_LEN_MAX) as u64;
    let opening = run_jobs(dialer, OPENING, batches, Opening { opens, problem: None })?;
    match opening.problem {
        None => Ok(()),
        Some(problem) => anyhow::bail!("account was not opened: {problem}"),
    }
}

/// What each account holds, posted; nothing where it does not exist.
pub(crate) fn balances(dialer: &Arc<Dialer>, names: Names, parties: &[Party]) -> anyhow::Result<Vec<i128>> {
    let jobs = Reading { names, parties: parties.to_vec(), balances: vec![0; parties.len()], problem: None };
    let read = run_jobs(dialer, READING, parties.len() as u64, jobs)?;
    match read.problem {
        None => Ok(read.balances),
        Some(problem) => anyhow::bail!("balance: {problem}"),
    }
}

fn describe(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Refused(refused) => Refused::from(*refused).to_string(),
        other => format!("unexpected {:?}", other.message_type()),
    }
}

struct Opening {
    opens: Vec<AccountOpen>,
    problem: Option<String>,
}

impl Opening {
    fn batch(&self, batch_index: u64) -> &[AccountOpen] {
        let start = batch_index as usize * BATCH_LEN_MAX;
        &self.opens[start..self.opens.len().min(start + BATCH_LEN_MAX)]
    }
}

impl Jobs for Opening {
    fn write(&mut self, batch_index: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::OpenAccounts(self.batch(batch_index)), (), 0)
    }

    fn read(&mut self, batch_index: u64, reply: Reply<'_>) -> JobResult {
        let expected = self.batch(batch_index).len();
        match reply {
            Reply::OpenAccounts(items) if items.len() == expected => {
                if let Some(refused) = items.iter().find_map(|item| ItemOutcome::from(item).result().err()) {
                    self.problem.get_or_insert_with(|| refused.to_string());
                }
            }
            other => {
                self.problem.get_or_insert_with(|| describe(&other));
            }
        }
        JobResult::Done
    }
}

struct Reading {
    names: Names,
    parties: Vec<Party>,
    balances: Vec<i128>,
    problem: Option<String>,
}

impl Reading {
    fn id(&self, index: u64) -> tally_protocol::AccountId {
        match self.parties[index as usize] {
            Party::Customer(customer_id) => self.names.customer(customer_id),
            Party::Payee(payee_id) => self.names.payee(payee_id),
        }
    }
}

impl Jobs for Reading {
    fn write(&mut self, index: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::GetBalance(self.id(index)), (), 0)
    }

    fn read(&mut self, index: u64, reply: Reply<'_>) -> JobResult {
        match reply {
            Reply::Balance(balance) => {
                let sums = balance.sums;
                self.balances[index as usize] =
                    i128::from(sums.credits_posted.get()) - i128::from(sums.debits_posted.get());
            }
            Reply::Refused(refused) if refused.refusal() == Some(Refusal::AccountNotFound) => {}
            other => {
                self.problem.get_or_insert_with(|| describe(&other));
            }
        }
        JobResult::Done
    }
}
