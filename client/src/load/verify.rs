//! Afterwards: is every acknowledged transfer there, once, and has no money appeared or gone?
//!
//! What was lost is made final first, by cancelling its id: from then on each transfer of the run is known to be
//! done or not. Then each account must hold exactly what the done ones say; the sum over all accounts must be
//! what was paid into them; a sample of the acknowledged transfers, looked up by id, must be as it was sent; and the
//! durable feed must have every one of them, once, with the outcome that was acknowledged, and no other.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tally_protocol::message::{FeedEntry, FeedKind, TransferFound, TransferState};
use tally_protocol::reply::Reply;
use tally_protocol::request::Request;
use tally_protocol::{AccountId, AccountKind, Lsn, Refusal, TransferId};

use super::accounts::{AccountRange, Accounts, Dialers, posted};
use super::acknowledged::{Acknowledged, Difference, fingerprint};
use super::choose::Pair;
use super::feed;
use super::samples::Sample;
use super::traffic::Sent;
use crate::Dialer;
use crate::bulk::{self, LOOKUPS, ONE, describe};
use crate::lane::{JobResult, Jobs, Next, RequestWriter, run_jobs};

/// Examples given of each kind of violation.
const EXAMPLES_MAX: usize = 5;
/// Accounts looked at when only a sample is wanted.
const SAMPLE_ACCOUNTS: u64 = 100_000;

/// What was checked, and what did not hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Accounts whose balance was compared.
    pub accounts_compared: u64,
    /// Accounts that hold something else than the acknowledged transfers say.
    pub balances_wrong: u64,
    /// Transfers looked up by id.
    pub transfers_looked_up: u64,
    /// Acknowledged, and not there or not as sent.
    pub transfers_wrong: u64,
    /// Lost with a connection: found to be done.
    pub unknown_done: u64,
    /// Lost with a connection: found refused.
    pub unknown_refused: u64,
    /// Lost with a connection: never done, and cancelled.
    pub unknown_cancelled: u64,
    /// The sum of all balances, in minor units, if all accounts were compared.
    pub sum_of_balances: Option<i64>,
    /// What was paid into them.
    pub sum_expected: i64,
    /// What the branch's cash account paid out meanwhile. Others may have been at it.
    pub cash_paid_out: Option<u64>,
    /// Every acknowledged transfer against the feed, if all were remembered.
    pub feed: Option<FeedCheck>,
    /// How long all of this took.
    pub seconds: f64,
    /// A few violations in words.
    pub examples: Vec<String>,
    /// Whether everything that was checked holds.
    pub holds: bool,
}

impl Verification {
    /// Whether nothing was counted that should not be.
    pub(crate) fn counts_hold(&self) -> bool {
        let in_feed = self.feed.is_none_or(|feed| feed.missing == 0 && feed.surplus == 0);
        in_feed && self.balances_wrong == 0 && self.transfers_wrong == 0
    }
}

/// Acknowledged transfers, done and refused, compared with what the branch's durable feed has of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FeedCheck {
    /// Acknowledged, or found done or refused when what was lost was made final.
    pub acknowledged: u64,
    /// Of these, in the feed once, as sent and with the same outcome.
    pub found: u64,
    /// Of these, not in the feed, or with another outcome.
    pub missing: u64,
    /// In the feed without having been acknowledged, or once too often, or with another outcome.
    pub surplus: u64,
    /// How long the feed took to read and compare.
    pub seconds: f64,
}

/// Makes what was lost final. Returns what turned out to be recorded, each with its refusal code: 0 for done.
pub(crate) fn resolve_unknown(
    dialer: &Arc<Dialer>,
    unknown: Vec<Sent>,
    verification: &mut Verification,
) -> anyhow::Result<Vec<(Sent, u16)>> {
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let cancelling =
        run_jobs(dialer, LOOKUPS, unknown.len() as u64, Cancelling { unknown, used: Vec::new(), problem: None })?;
    fail_on(cancelling.problem)?;
    verification.unknown_cancelled += (cancelling.unknown.len() - cancelling.used.len()) as u64;
    let used = cancelling.used;
    let found = run_jobs(dialer, LOOKUPS, used.len() as u64, Finding::new(used.iter().map(|sent| sent.id).collect()))?;
    fail_on(found.problem)?;
    let mut recorded = Vec::with_capacity(used.len());
    for (sent, found) in used.into_iter().zip(found.found) {
        let state = found.as_ref().and_then(|found| TransferState::from_wire(found.state));
        match (state, found) {
            (Some(TransferState::Refused), Some(found)) => {
                verification.unknown_refused += 1;
                recorded.push((sent, found.reply.refusal.get()));
            }
            (Some(TransferState::Done), _) => {
                verification.unknown_done += 1;
                recorded.push((sent, 0));
            }
            (other, _) => anyhow::bail!("transfer {} is both used and {other:?}", sent.id),
        }
    }
    Ok(recorded)
}

/// Reads the feed from `from` to what is durable now, and compares it with what was acknowledged.
pub(crate) fn check_feed(
    dialer: &Arc<Dialer>,
    range: AccountRange,
    from: Lsn,
    acknowledged: Acknowledged,
    verification: &mut Verification,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let until = bulk::durable(dialer)?;
    let count = acknowledged.len();
    let acknowledged = acknowledged.into_sorted();
    let recorded: Vec<u64> = Vec::with_capacity(count);
    let (_, recorded) = feed::read(dialer, from, until, (range, recorded), |(range, recorded), entry| {
        recorded.extend(fingerprint_of(range, entry));
    })?;
    let Difference { found, missing, surplus } = acknowledged.compare(recorded);
    if missing > 0 {
        example(verification, || format!("{missing} acknowledged transfers are not in the feed as acknowledged"));
    }
    if surplus > 0 {
        example(verification, || format!("{surplus} transfers in the feed were not acknowledged, or not so"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    verification.feed = Some(FeedCheck { acknowledged: count as u64, found, missing, surplus, seconds });
    Ok(())
}

/// What a transfer of the run is in the feed; nothing for an entry of another kind or of others.
fn fingerprint_of(range: &AccountRange, entry: &FeedEntry) -> Option<u64> {
    // One that goes to another branch is over when it is decided.
    if ![FeedKind::Transfer as u8, FeedKind::Decided as u8].contains(&entry.kind) {
        return None;
    }
    let transfer = &entry.transfer;
    let pair = Pair {
        debit: range.index_of(transfer.debit_account_id.get())?,
        credit: range.index_of(transfer.credit_account_id.get())?,
    };
    let amount = u32::try_from(transfer.amount.get()).ok()?;
    let sent = Sent { id: TransferId::new(transfer.id.get()), pair, amount };
    // Any other field that differs makes it another transfer than the one that was sent.
    (range.transfer(sent.id, pair, amount) == *transfer).then(|| fingerprint(&sent, entry.reply.refusal.get()))
}

/// Compares balances: all of them, or a sample.
pub(crate) fn compare_balances(
    dialers: &Dialers,
    accounts: &Accounts,
    all: bool,
    verification: &mut Verification,
) -> anyhow::Result<()> {
    let range = accounts.range;
    let step = if all { 1 } else { (range.count / SAMPLE_ACCOUNTS).max(1) };
    let count = range.count.div_ceil(step);
    let mut sum = 0i64;
    for (dialer, is_far) in dialers.iter() {
        let first = range.indices(is_far).start;
        let balances = bulk::balances(dialer, count, move |index| range.id(first + index * step), posted)?;
        for (index, balance) in balances.into_iter().enumerate() {
            let index = first + index as u64 * step;
            let expected = accounts.expected[index as usize];
            let got = balance.unwrap_or_default();
            sum += got;
            if got != expected {
                verification.balances_wrong += 1;
                example(verification, || format!("account {} holds {got}, expected {expected}", range.id(index)));
            }
        }
        verification.accounts_compared += count;
    }
    verification.sum_expected = accounts.expected.iter().sum();
    verification.sum_of_balances = all.then_some(sum);
    Ok(())
}

/// Looks up acknowledged transfers.
pub(crate) fn look_up(
    dialer: &Arc<Dialer>,
    range: AccountRange,
    samples: &[Sample],
    verification: &mut Verification,
) -> anyhow::Result<()> {
    let ids = samples.iter().map(|sample| sample.sent.id).collect();
    let finding = run_jobs(dialer, LOOKUPS, samples.len() as u64, Finding::new(ids))?;
    fail_on(finding.problem)?;
    for (sample, found) in samples.iter().zip(&finding.found) {
        verification.transfers_looked_up += 1;
        if let Err(problem) = compare(range, sample, found.as_deref()) {
            verification.transfers_wrong += 1;
            example(verification, || format!("acknowledged transfer {}: {problem}", sample.sent.id));
        }
    }
    Ok(())
}

fn compare(range: AccountRange, sample: &Sample, found: Option<&TransferFound>) -> Result<(), String> {
    let Some(found) = found else { return Err("not found".to_owned()) };
    let sent = &sample.sent;
    let expected = range.transfer(sent.id, sent.pair, sent.amount);
    if found.transfer != expected {
        return Err(format!("recorded as {:?}", found.transfer));
    }
    if TransferState::from_wire(found.state) != Some(TransferState::Done) {
        return Err(format!("in state {}", found.state));
    }
    if sample.lsn != 0 && found.reply.lsn.get() != sample.lsn {
        return Err(format!("at position {} instead of {}", found.reply.lsn.get(), sample.lsn));
    }
    Ok(())
}

/// What the branch's cash account has paid out so far: 0 before its first use, `None` if this user may not see it.
pub(crate) fn cash_paid_out(dialer: &Arc<Dialer>, range: AccountRange) -> anyhow::Result<Option<u64>> {
    let id = AccountId::of_house(range.branch_id, AccountKind::Cash, range.currency);
    Ok(run_jobs(dialer, ONE, 1, Cash { id, paid_out: None })?.paid_out)
}

fn example(verification: &mut Verification, text: impl FnOnce() -> String) {
    if verification.examples.len() < EXAMPLES_MAX {
        verification.examples.push(text());
    }
}

fn fail_on(problem: Option<String>) -> anyhow::Result<()> {
    match problem {
        None => Ok(()),
        Some(problem) => anyhow::bail!("verification: {problem}"),
    }
}

struct Cash {
    id: AccountId,
    paid_out: Option<u64>,
}

impl Jobs for Cash {
    fn write(&mut self, _: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::GetBalance(self.id), (), 0)
    }

    fn read(&mut self, _: u64, reply: Reply<'_>) -> JobResult {
        self.paid_out = match reply {
            Reply::Balance(balance) => Some(balance.sums.debits_posted.get()),
            Reply::Refused(refused) if refused.refusal() == Some(Refusal::AccountNotFound) => Some(0),
            _ => None,
        };
        JobResult::Done
    }
}

struct Cancelling {
    unknown: Vec<Sent>,
    used: Vec<Sent>,
    problem: Option<String>,
}

impl Jobs for Cancelling {
    fn write(&mut self, index: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::CancelId(self.unknown[index as usize].id), (), 0)
    }

    fn read(&mut self, index: u64, reply: Reply<'_>) -> JobResult {
        let code = match reply {
            Reply::CancelId(item) => item.refusal.get(),
            Reply::Refused(refused) => refused.code,
            _ => u16::MAX,
        };
        match Refusal::from_code(code) {
            None if code == 0 => {}
            Some(Refusal::IdCancelled) => {}
            Some(Refusal::IdAlreadyUsed) => self.used.push(self.unknown[index as usize]),
            Some(_) | None => {
                self.problem.get_or_insert_with(|| format!("cancel: {}", describe(&reply)));
            }
        }
        JobResult::Done
    }
}

struct Finding {
    ids: Vec<TransferId>,
    found: Vec<Option<Box<TransferFound>>>,
    problem: Option<String>,
}

impl Finding {
    fn new(ids: Vec<TransferId>) -> Self {
        Self { found: vec![None; ids.len()], ids, problem: None }
    }
}

impl Jobs for Finding {
    fn write(&mut self, index: u64, writer: RequestWriter<'_>) -> Next<()> {
        writer.send(&Request::GetTransfer(self.ids[index as usize]), (), 0)
    }

    fn read(&mut self, index: u64, reply: Reply<'_>) -> JobResult {
        match reply {
            Reply::TransferFound(found) if found.state == TransferState::InFlight as u8 => return JobResult::Again,
            Reply::TransferFound(found) => self.found[index as usize] = Some(Box::new(*found)),
            Reply::Refused(refused) if refused.refusal() == Some(Refusal::TransferNotFound) => {}
            other => {
                self.problem.get_or_insert_with(|| format!("transfer lookup: {}", describe(&other)));
            }
        }
        JobResult::Done
    }
}
