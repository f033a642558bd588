//! One torture: load, a blow, recovery, audit; again and again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tally_client::Client;
use tally_protocol::message::{AccountOpen, account_flags};
use tally_protocol::{AccountKind, Amount, BranchId, Currency, TransferId};

use super::audit::{Auditor, Found};
use super::book::Book;
use super::disk::{After, MountedDisk, Survival};
use super::load::{Ledger, Load, SharedLedger, lock};
use super::plan::{ACCOUNTS, LIMITED_ACCOUNTS, Plan, account};
use super::server::{Server, Site};

/// Connections, each with its own stream of requests.
const STREAMS: u64 = 4;
/// How long the server works before the blow, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 50..600;
/// Now and then longer: files that are made ahead of time must be used in the round in which they were made, or a
/// name that was never flushed would not be missed.
const LONG_LOAD_MS: std::ops::Range<u64> = 1_500..3_000;
/// One round in so many is a long one.
const LONG_ONE_IN: u32 = 6;
/// How long a recovery lasts that is killed too, in milliseconds.
const RECOVERY_MS: std::ops::Range<u64> = 1..60;
/// One recovery in so many is killed.
const RECOVERY_KILLED_ONE_IN: u32 = 5;
/// A server whose disk fails must have stopped by then.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Flushes that succeed before the one that fails.
const GOOD_FLUSHES: std::ops::Range<u64> = 0..400;

/// What is done to the server.
#[derive(Debug)]
pub(crate) enum Blow {
    /// `kill -9`; the operating system keeps what was written.
    Kill,
    /// `kill -9`, and the disk forgets what was not flushed.
    PowerCut(MountedDisk),
    /// A flush fails; then as for a power cut, on a repaired disk.
    FlushFails(MountedDisk),
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// After this many rounds.
    pub(crate) rounds: u64,
    /// Or after this time, if sooner.
    pub(crate) time: Duration,
}

/// What was done in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Rounds.
    pub(crate) rounds: u64,
    /// Transfers that were acknowledged, repeats not counted.
    pub(crate) acknowledged: u64,
    /// Transfers whose answer was lost and then found out.
    pub(crate) unknown: u64,
}

/// A server and all that is known about it.
#[derive(Debug)]
pub(crate) struct Torture {
    /// First, so that it is dropped, and the server killed, before the disk under it goes.
    server: Option<Server>,
    blow: Blow,
    site: Site,
    random: ChaCha8Rng,
    client: Client,
    ledger: SharedLedger,
    plans: Vec<Arc<Mutex<Plan>>>,
    auditor: Auditor,
    totals: Totals,
}

impl Torture {
    /// Makes a bank in `dir` with some accounts and takes stock of it.
    pub(crate) async fn begin(dir: &Path, log: &Path, blow: Blow, seed: u64) -> anyhow::Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let site = Site::create(dir, log)?;
        if let Blow::PowerCut(disk) | Blow::FlushFails(disk) = &blow {
            // Certificates and users are made by hand in a real bank, and are not what is tested here.
            disk.flush_all()?;
        }
        let client = site.client(STREAMS as usize)?;
        let mut server = site.start()?;
        site.wait_until_up(&mut server, &client).await?;
        let branch = client.session().await?.branch_id;
        open_accounts(&client, branch).await?;
        let ledger = Arc::new(Mutex::new(Ledger::new(Book::new(branch))));
        let auditor = Auditor::begin(&client, &ledger, ChaCha8Rng::seed_from_u64(random.next_u64())).await?;
        let plans = (0..STREAMS).map(|stream| Arc::new(Mutex::new(Plan::new(branch, seed, stream)))).collect();
        let totals = Totals::default();
        Ok(Self { server: Some(server), blow, site, random, client, ledger, plans, auditor, totals })
    }

    /// Rounds until it is enough, or until something is wrong.
    pub(crate) async fn run(&mut self, until: Until) -> anyhow::Result<Totals> {
        let begun = Instant::now();
        let given = lock(&self.ledger).book.acknowledged();
        while self.totals.rounds < until.rounds && begun.elapsed() < until.time {
            let round = self.totals.rounds + 1;
            self.round(round).await.with_context(|| format!("round {round}"))?;
            self.totals.rounds = round;
            self.totals.acknowledged = lock(&self.ledger).book.acknowledged() - given;
        }
        Ok(self.totals)
    }

    async fn round(&mut self, round: u64) -> anyhow::Result<()> {
        let is_long = self.random.next_u32() % LONG_ONE_IN == 0;
        let load_ms = self.random.random_range(if is_long { LONG_LOAD_MS } else { LOAD_MS });
        let load_for = Duration::from_millis(load_ms);
        let load = Load::start(&self.client, &self.ledger, &self.plans);
        let blow = self.strike(load_for).await;
        let lasted = load.stop().await?;
        let what = blow?;
        let answers = lock(&self.ledger).answers;
        let unknown: usize = lock(&self.ledger).unknown.iter().map(|unit| unit.transfers.len()).sum();

        self.kill_recovery()?;
        let mut server = self.site.start()?;
        let up = self.site.wait_until_up(&mut server, &self.client).await?;
        self.server = Some(server);
        let audit_begun = Instant::now();
        let found = self.audit().await.with_context(|| format!("after {what}\n{}", self.site.log_tail()))?;
        self.totals.unknown += unknown as u64;
        println!(
            "round {round}: {answers} answers in {} ms, {what}, up after {} ms; \
             {unknown} unknown ({} known to the ledger, {} not); {} repeated and {} looked up in {} ms: all there",
            lasted.as_millis(),
            up.as_millis(),
            found.unknown_done,
            found.unknown_never,
            found.repeated,
            found.looked_up,
            audit_begun.elapsed().as_millis(),
        );
        Ok(())
    }

    async fn audit(&mut self) -> anyhow::Result<Found> {
        let mut holds = HashSet::new();
        for plan in &self.plans {
            let mut plan = plan.lock().expect("nothing panics while it plans");
            plan.forget_payments();
            holds.extend(plan.holds().map(TransferId::new));
        }
        self.auditor.audit(&self.client, &self.ledger, &holds).await
    }

    /// Stops the server the hard way while it works. Returns what was done to it.
    async fn strike(&mut self, load_for: Duration) -> anyhow::Result<String> {
        let mut server = self.server.take().context("a server runs between the rounds")?;
        match &self.blow {
            Blow::Kill => {
                tokio::time::sleep(load_for).await;
                server.kill()?;
                Ok("killed".to_owned())
            }
            Blow::PowerCut(disk) => {
                tokio::time::sleep(load_for).await;
                server.kill()?;
                let survival = draw_survival(&mut self.random);
                cut(disk, survival, &mut self.random)
            }
            Blow::FlushFails(disk) => {
                let after = [After::Lies, After::StaysBroken][self.random.random_range(0..2)];
                disk.fail_flush(self.random.random_range(GOOD_FLUSHES), after);
                let ended = server.wait_for_end(load_for + STOP_PATIENCE).await?;
                let failed = disk.failed_flushes();
                let status = ended
                    .with_context(|| format!("the server goes on although {failed} flushes failed ({after:?})"))?;
                ensure!(failed > 0 && !status.success(), "the server ended with {status}, {failed} flushes failed");
                let survival = draw_survival(&mut self.random);
                let cut = cut(disk, survival, &mut self.random)?;
                Ok(format!("a flush failed ({after:?}): {status}, then {cut}"))
            }
        }
    }

    /// Now and then the recovery is struck too.
    fn kill_recovery(&mut self) -> anyhow::Result<()> {
        if self.random.next_u32() % RECOVERY_KILLED_ONE_IN != 0 {
            return Ok(());
        }
        let server = self.site.start()?;
        std::thread::sleep(Duration::from_millis(self.random.random_range(RECOVERY_MS)));
        server.kill().context("while it recovered")?;
        match &self.blow {
            Blow::Kill => {}
            Blow::PowerCut(disk) | Blow::FlushFails(disk) => {
                let survival = draw_survival(&mut self.random);
                cut(disk, survival, &mut self.random)?;
            }
        }
        Ok(())
    }

    /// What a failed torture leaves to be looked at: the disk as a power cut would leave it.
    pub(crate) fn export(&self, target: &Path) -> anyhow::Result<()> {
        match &self.blow {
            Blow::Kill => Ok(()),
            Blow::PowerCut(disk) | Blow::FlushFails(disk) => Ok(disk.export(target)?),
        }
    }
}

fn draw_survival(random: &mut ChaCha8Rng) -> Survival {
    match random.random_range(0..4) {
        0 | 1 => Survival::Nothing,
        _ => Survival::Some(random.random_range(1..=255)),
    }
}

fn cut(disk: &MountedDisk, survival: Survival, random: &mut ChaCha8Rng) -> anyhow::Result<String> {
    let lost = disk.power_cut(survival, &mut || random.next_u32())?;
    Ok(format!("power cut ({} blocks and {} names lost)", lost.blocks, lost.names))
}

async fn open_accounts(client: &Client, branch: BranchId) -> anyhow::Result<()> {
    let opens: Vec<AccountOpen> = (1..=ACCOUNTS)
        .map(|number| AccountOpen {
            id: account(branch, number).get().into(),
            user_data_128: 0.into(),
            owner: (number as u64).into(),
            user_data_64: 0.into(),
            overdraft: 1_000.into(),
            day_limit: Amount::MAX.get().into(),
            user_data_32: 0.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            flags: if number <= LIMITED_ACCOUNTS { account_flags::DEBITS_LIMITED } else { 0 }.into(),
            kind: AccountKind::Customer as u8,
            reserved: [0; 5],
        })
        .collect();
    for item in client.open_accounts(&opens).await? {
        item.result().map_err(|refused| anyhow::anyhow!("an account was not opened: {refused}"))?;
    }
    Ok(())
}
