//! What must hold of the bank when nothing is wrong any more and nobody pays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tally_client::{Client, RequestError};
use tally_protocol::message::{FeedEntry, Sums};
use tally_protocol::{AccountId, AccountKind, BranchId, Lsn, Refusal};

use super::bank::{BRANCHES, World, branch_id};
use super::book::Due;
use super::load::{CURRENCY, SharedBook};

/// How long anything may be in doubt when everything serves again: the registry gathers votes for five seconds, and a
/// branch asks within one of its return.
const DRAIN_PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// Debits held and posted, credits held and posted.
type Four = [i128; 4];

/// What is remembered from one check to the next.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Where each branch's feed was read to.
    feeds: BTreeMap<BranchId, Lsn>,
}

impl Checker {
    /// Takes the feeds as they are: what is in them was not sent by the load.
    pub(crate) async fn begin(&mut self, world: &World) -> anyhow::Result<()> {
        self.read_feeds(world).await.map(|_| ())
    }

    /// Feeds, balances and settlement accounts against the book.
    pub(crate) async fn check(&mut self, world: &World, book: &SharedBook) -> anyhow::Result<()> {
        let feeds = self.read_feeds(world).await?;
        book.borrow_mut().compare(&feeds)?;
        world.operator.audit_healed().await?;
        let expected: Vec<(AccountId, Due)> = book.borrow().accounts().collect();
        let mut of_branch: BTreeMap<BranchId, Four> = BTreeMap::new();
        for (account, due) in expected {
            let (branch, sums) = at_home(world, account).await?;
            let found = Due { balance: sums[3] - sums[1], held_as_payer: sums[0], held_as_payee: sums[2] };
            ensure!(found == due, "BALANCE: account {account} has {found:?}, and must have {due:?}");
            add(of_branch.entry(branch).or_default(), sums);
            book.borrow_mut().is_at(account, branch);
        }
        for here in (1..=BRANCHES).map(branch_id) {
            let client = world.bank.branch(here).await?;
            let all = of_branch.entry(here).or_default();
            add(all, sums(&client, AccountId::of_house(here, AccountKind::Cash, CURRENCY)).await?);
            for there in (1..=BRANCHES).map(branch_id).filter(|&there| there != here) {
                let due = sums(&client, AccountId::of_settlement(here, there, CURRENCY)).await?;
                let other = world.bank.branch(there).await?;
                let mirror = sums(&other, AccountId::of_settlement(there, here, CURRENCY)).await?;
                ensure!(
                    due == [mirror[2], mirror[3], mirror[0], mirror[1]],
                    "MIRROR: branch {here} and branch {there} disagree on what is due: {due:?} and {mirror:?}"
                );
                add(all, due);
            }
            ensure!(all[1] == all[3] && all[0] == all[2], "CONSERVATION: debits and credits of branch {here}: {all:?}");
        }
        Ok(())
    }

    /// Everything that has become durable since the last time, of each branch.
    async fn read_feeds(&mut self, world: &World) -> anyhow::Result<BTreeMap<BranchId, Vec<FeedEntry>>> {
        let mut feeds = BTreeMap::new();
        for branch in (1..=BRANCHES).map(branch_id) {
            let client = world.bank.branch(branch).await?;
            let from = self.feeds.entry(branch).or_insert(Lsn::ZERO);
            let mut entries = Vec::new();
            loop {
                let page = client.feed_page(*from, usize::MAX, Duration::ZERO).await?;
                let is_over = page.next >= page.durable || (page.entries.is_empty() && page.next == *from);
                *from = page.next;
                entries.extend(page.entries);
                if is_over {
                    break;
                }
            }
            feeds.insert(branch, entries);
        }
        Ok(feeds)
    }
}

/// Waits until nothing is in doubt anywhere. Returns how long that took.
pub(crate) async fn drain(world: &mut World) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let of_branches = |name: &str| world.branches().map(|branch| branch.metric(name)).sum::<Option<f64>>();
        let in_doubt = of_branches("tally_two_phase_in_doubt");
        let untold = of_branches("tally_two_phase_ends_untold");
        let open = world.leader().and_then(|leader| leader.metric("tally_registry_decisions{state=\"open\"}"));
        if [in_doubt, untold, open].iter().all(|&count| count == Some(0.0)) {
            break;
        }
        let elapsed = begun.elapsed();
        ensure!(
            elapsed < DRAIN_PATIENCE,
            "IN DOUBT: {elapsed:.1?} after everything served: {in_doubt:?} parts in doubt, {untold:?} ends of holds not told, \
             {open:?} decisions open"
        );
        for process in &mut world.processes {
            process.check()?;
        }
        tokio::time::sleep(LOOK).await;
    }
    let leader = world.leader().context("the leader is lost again")?;
    let of_branches = world.branches().map(|branch| (branch, "tally_two_phase_contradictions_total"));
    for (process, name) in of_branches.chain([(leader, "tally_registry_contradictions_total")]) {
        let count = process.metric(name).with_context(|| format!("{} does not tell {name}", process.site()))?;
        ensure!(count == 0.0, "CONTRADICTION: {} has seen {count}", process.site());
    }
    Ok(begun.elapsed())
}

/// Where an account is, and its sums. It must be at one branch.
async fn at_home(world: &World, account: AccountId) -> anyhow::Result<(BranchId, Four)> {
    let mut found = Vec::new();
    for branch in (1..=BRANCHES).map(branch_id) {
        match world.bank.branch(branch).await?.balance(account).await {
            Ok(balance) => found.push((branch, four(&balance.sums))),
            Err(error) if is_elsewhere(&error) => {}
            Err(error) => return Err(error).context(format!("where account {account} is")),
        }
    }
    ensure!(found.len() == 1, "PLACES: account {account} is at {} branches", found.len());
    Ok(found[0])
}

fn is_elsewhere(error: &RequestError) -> bool {
    [Refusal::AccountMoved, Refusal::WrongBranch, Refusal::AccountNotFound].map(Some).contains(&error.refusal())
}

/// Of an account that is not opened yet: zeros.
async fn sums(client: &Client, account: AccountId) -> Result<Four, RequestError> {
    match client.balance(account).await {
        Ok(balance) => Ok(four(&balance.sums)),
        Err(error) if error.refusal() == Some(Refusal::AccountNotFound) => Ok([0; 4]),
        Err(error) => Err(error),
    }
}

fn four(sums: &Sums) -> Four {
    [sums.debits_held, sums.debits_posted, sums.credits_held, sums.credits_posted].map(|sum| sum.get().into())
}

fn add(all: &mut Four, sums: Four) {
    all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
}
