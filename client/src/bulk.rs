//! Many things of one kind at a branch, over lanes: accounts opened, deposits made, balances read.
//!
//! Invariant: an item is asked for again after a loss exactly as it was asked for before, so each must follow
//! from its index alone.

use std::sync::Arc;

use tally_protocol::AccountId;
use tally_protocol::message::{AccountOpen, BATCH_LEN_MAX, ItemResult, Sums, Transfer};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{Lsn, Refusal};

use crate::lane::{JobResult, Jobs, LaneOptions, Next, RequestWriter, run_jobs};
use crate::{Dialer, ItemOutcome, Refused};

/// Full batches in flight.
const BATCHES: LaneOptions = LaneOptions::for_work(4, 2);
/// Look-ups are small: many in flight.
pub(crate) const LOOKUPS: LaneOptions = LaneOptions::for_work(8, 128);
/// One question.
pub(crate) const ONE: LaneOptions = LaneOptions::for_work(1, 1);

/// Opens accounts 0 to `count`, and returns how many were there already, as `account` describes them.
pub(crate) fn open_accounts(
    dialer: &Arc<Dialer>,
    count: u64,
    account: impl Fn(u64) -> AccountOpen + 'static,
) -> anyhow::Result<u64> {
    let items_of: ItemsOf = |reply| match reply {
        Reply::OpenAccounts(items) => Ok(items),
        other => Err(other),
    };
    let batches = Batches::new(count, account, |opens| Request::OpenAccounts(opens), items_of);
    send(dialer, "account was not opened", batches)
}

/// Makes deposits 0 to `count`, and returns how many had been made before.
pub(crate) fn deposit(
    dialer: &Arc<Dialer>,
    count: u64,
    deposit: impl Fn(u64) -> Transfer + 'static,
) -> anyhow::Result<u64> {
    let items_of: ItemsOf = |reply| match reply {
        Reply::Batch(items) => Ok(items),
        other => Err(other),
    };
    let batches = Batches::new(count, deposit, |transfers| Request::Batch(transfers), items_of);
    send(dialer, "deposit was refused", batches)
}

/// What `of` makes of the sums of accounts 0 to `count`; `None` where there is no such account.
pub(crate) fn balances<T: Copy + 'static>(
    dialer: &Arc<Dialer>,
    count: u64,
    id: impl Fn(u64) -> AccountId + 'static,
    of: fn(&Sums) -> T,
) -> anyhow::Result<Vec<Option<T>>> {
    let jobs = Reading { id, of, balances: vec![None; count as usize], problem: None };
    let read = run_jobs(dialer, LOOKUPS, count, jobs)?;
    match read.problem {
        None => Ok(read.balances),
        Some(problem) => anyhow::bail!("balance of {problem}"),
    }
}

/// The durable position: everything recorded from here on is younger than this call.
pub(crate) fn durable(dialer: &Arc<Dialer>) -> anyhow::Result<Lsn> {
    struct Asking(Result<Lsn, String>);
    impl Jobs for Asking {
        fn write(&mut self, _: u64, writer: RequestWriter<'_>) -> Next<()> {
            writer.send(&Request::GetStatus, (), 0)
        }
        fn read(&mut self, _: u64, reply: Reply<'_>) -> JobResult {
            self.0 = match reply {
                Reply::Status(status) => Ok(Lsn::new(status.durable.get())),
                other => Err(describe(&other)),
            };
            JobResult::Done
        }
    }
    let asked = run_jobs(dialer, ONE, 1, Asking(Err("no answer".to_owned())))?;
    asked.0.map_err(|problem| anyhow::anyhow!("status: {problem}"))
}

/// A reply that is not the one expected, in words.
pub(crate) fn describe(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Refused(refused) => Refused::from(*refused).to_string(),
        other => format!("unexpected {:?}", other.message_type()),
    }
}

/// The items of a reply, or the reply if it has none.
type ItemsOf = for<'a> fn(Reply<'a>) -> Result<&'a [ItemResult], Reply<'a>>;

/// Items that travel many to a request.
struct Batches<T, F> {
    count: u64,
    make: F,
    request: for<'a> fn(&'a [T]) -> Request<'a>,
    items_of: ItemsOf,
    scratch: Vec<T>,
    repeated: u64,
    problem: Option<String>,
}

impl<T, F: Fn(u64) -> T> Batches<T, F> {
    fn new(count: u64, make: F, request: for<'a> fn(&'a [T]) -> Request<'a>, items_of: ItemsOf) -> Self {
        Self { count, make, request, items_of, scratch: Vec::new(), repeated: 0, problem: None }
    }

    fn range(&self, batch_index: u64) -> std::ops::Range<u64> {
        let start = batch_index * BATCH_LEN_MAX as u64;
        start..self.count.min(start + BATCH_LEN_MAX as u64)
    }

    fn take(&mut self, items: &[ItemResult]) {
        for item in items.iter().map(ItemOutcome::from) {
            self.repeated += u64::from(item.repeated);
            if let Err(refused) = item.result() {
                self.problem.get_or_insert_with(|| refused.to_string());
            }
        }
    }
}

fn send<T: 'static, F: Fn(u64) -> T + 'static>(
    dialer: &Arc<Dialer>,
    what: &str,
    batches: Batches<T, F>,
) -> anyhow::Result<u64> {
    let sent = run_jobs(dialer, BATCHES, batches.count.div_ceil(BATCH_LEN_MAX as u64), batches)?;
    match sent.problem {
        None => Ok(sent.repeated),
        Some(problem) => anyhow::bail!("{what}: {problem}"),
    }
}

impl<T, F: Fn(u64) -> T> Jobs for Batches<T, F> {
    fn write(&mut self, batch_index: u64, writer: RequestWriter<'_>) -> Next<()> {
        self.scratch.clear();
        self.scratch.extend(self.range(batch_index).map(&self.make));
        writer.send(&(self.request)(&self.scratch), (), 0)
    }

    fn read(&mut self, batch_index: u64, reply: Reply<'_>) -> JobResult {
        let range = self.range(batch_index);
        match (self.items_of)(reply) {
            Ok(items) if items.len() as u64 == range.end - range.start => self.take(items),
            Ok(items) => self.problem = Some(format!("{} answers to {} entries", items.len(), range.end - range.start)),
            Err(other) => {
                self.problem.get_or_insert_with(|| describe(&other));
            }
        }
        JobResult::Done
    }
}

struct Reading<F, T> {
    id: F,
    of: fn(&Sums) -> T,
    balances: Vec<Option<T>>,
    problem: Option<String>,
}

impl<F: Fn(u64) -> AccountId, T> Jobs for Reading<F, T> {
    fn write(&mut self, index: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::GetBalance((self.id)(index)), (), 0)
    }

    fn read(&mut self, index: u64, reply: Reply<'_>) -> JobResult {
        match reply {
            Reply::Balance(balance) => self.balances[index as usize] = Some((self.of)(&balance.sums)),
            Reply::Refused(refused) if refused.refusal() == Some(Refusal::AccountNotFound) => {}
            other => {
                let id = (self.id)(index);
                self.problem.get_or_insert_with(|| format!("{id}: {}", describe(&other)));
            }
        }
        JobResult::Done
    }
}
