//! A bank of two branches whose processes can be stopped, let go on, killed and started again; and what must hold of its
//! books whatever is done to them.
//!
//! Invariant: nothing but signals, metrics and the client protocol is used: what is seen here, anybody can see.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tally_client::{
    Bank, Between, ClientOptions, ConnectFile, Final, Money, Outcome, RequestError, RetryPolicy, next_transfer_id,
};
use tally_protocol::message::{Balance, TransferState};
use tally_protocol::{AccountId, Amount, BranchId, Currency, Refusal, TransferId};
use tokio::runtime::Runtime;

use crate::commands::bank::process::http_get;
use crate::commands::bank::running::{Served, Wishes};
use crate::commands::bank::{Layout, Running, prepare, published, serving_bank};

/// How long anything may take before the demo counts it as not happening.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A payment whose registry or branch is down waits for so long.
const PAYMENT_DEADLINE: Duration = Duration::from_secs(60);
const CURRENCY: Currency = Currency::EUR;

/// A process of the bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Where alice is.
    Source,
    /// Where carol is.
    Destination,
    /// The coordinator.
    Registry,
}

/// See the module.
pub(crate) struct Stage {
    running: Running,
    file: ConnectFile,
    runtime: Runtime,
    bank: Bank,
    /// The payer's account and the payee's.
    accounts: [AccountId; 2],
    /// What they must have, in minor units.
    expected: [i64; 2],
}

/// A payment that is about to be sent, or under way.
pub(crate) struct Payment {
    pub(crate) id: TransferId,
    amount: u64,
    send: mpsc::Sender<()>,
    answer: JoinHandle<anyhow::Result<Outcome>>,
}

impl Payment {
    /// Sends it.
    pub(crate) fn send(&self) {
        // An error means that its thread has failed, which its outcome tells.
        let _ = self.send.send(());
    }

    fn outcome(self) -> anyhow::Result<Outcome> {
        self.answer.join().map_err(|_| anyhow::anyhow!("the paying client panicked"))?
    }
}

/// How a payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    Refused(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl Stage {
    /// A new bank in `dir`; alice has `deposit` minor units.
    pub(crate) fn set(dir: &Path, deposit: u64) -> anyhow::Result<Self> {
        let layout = Layout::of(dir, Some(2))?.canonical()?;
        let prepared = prepare::prepare(&layout, BranchId::new(1))?;
        ensure!(prepared.is_new, "{} holds a bank already; give an empty folder", dir.display());
        let running = Running::start(&layout, &Wishes::default(), &prepared.file)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let file = runtime.block_on(published(&layout, &running, prepared))?;
        let account = |name: &str| {
            let found = file.all_accounts().find(|account| account.name == name);
            anyhow::Ok(found.with_context(|| format!("there is no account of {name}"))?.account_id()?)
        };
        let accounts = [account("alice")?, account("carol")?];
        let stage =
            Self { bank: serving_bank(&file)?, running, file, runtime, accounts, expected: [deposit as i64, 0] };
        let money = Money { amount: Amount::new(deposit), currency: CURRENCY };
        let outcome = stage.runtime.block_on(stage.bank.deposit(next_transfer_id(), accounts[0], money));
        ensure!(matches!(outcome, Outcome::Done(_)), "the deposit: {outcome:?}");
        Ok(stage)
    }

    /// Where everything is.
    pub(crate) fn file(&self) -> &ConnectFile {
        &self.file
    }

    /// A payment from alice to carol by a client of its own, which tries again with the same id for as long as it has no
    /// answer. It is logged in, and waits for [`Payment::send`].
    pub(crate) fn payment(&self, amount: u64) -> anyhow::Result<Payment> {
        self.payment_to(self.accounts[1], amount, next_transfer_id())
    }

    /// The same to an account that does not exist.
    pub(crate) fn payment_to_nobody(&self, amount: u64) -> anyhow::Result<Payment> {
        let nobody = AccountId::of_branch(self.accounts[1].branch(), 999_999);
        self.payment_to(nobody, amount, next_transfer_id())
    }

    /// A payment that was sent before, once more.
    pub(crate) fn payment_again(&self, id: TransferId, amount: u64) -> anyhow::Result<Payment> {
        self.payment_to(self.accounts[1], amount, id)
    }

    fn payment_to(&self, credit_account_id: AccountId, amount: u64, id: TransferId) -> anyhow::Result<Payment> {
        let between = Between { debit_account_id: self.accounts[0], credit_account_id };
        let money = Money { amount: Amount::new(amount), currency: CURRENCY };
        let info = self.file.connect_info(Some("alice"))?;
        let retry = RetryPolicy { attempts_max: u32::MAX, ..RetryPolicy::default() };
        let options = ClientOptions { deadline: PAYMENT_DEADLINE, retry, ..ClientOptions::default() };
        let bank = Bank::with_endpoints(info, self.file.endpoints.clone(), options)?;
        let (ready, is_ready) = mpsc::channel();
        let (send, is_sent) = mpsc::channel();
        let answer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { bank.home_of(between.debit_account_id).await?.session().await })?;
            // Whoever made this thread waits for it, and then tells it to go on, unless it has failed in between.
            ready.send(())?;
            is_sent.recv()?;
            Ok(runtime.block_on(bank.transfer(id, between, money)))
        });
        let payment = Payment { id, amount, send, answer };
        match is_ready.recv() {
            Ok(()) => Ok(payment),
            // It has ended early, and its outcome says why.
            Err(_) => Err(payment.outcome().err().context("the paying client ended early")?),
        }
    }

    /// Waits for the answer, and books what it says.
    pub(crate) fn ending(&mut self, payment: Payment) -> anyhow::Result<Ending> {
        let amount = payment.amount as i64;
        let ending = self.ending_again(payment)?;
        if ending == Ending::Done {
            self.expected[0] -= amount;
            self.expected[1] += amount;
        }
        Ok(ending)
    }

    /// The same for one that was sent before: it moves nothing more.
    pub(crate) fn ending_again(&self, payment: Payment) -> anyhow::Result<Ending> {
        let id = payment.id;
        Ok(match payment.outcome()? {
            Outcome::Done(_) => Ending::Done,
            Outcome::Refused(refused) => Ending::Refused(refused.to_string()),
            Outcome::NotSent { why, .. } => anyhow::bail!("the payment could not be sent: {why}"),
            Outcome::Unknown { why, .. } => {
                let home = self.runtime.block_on(self.bank.home_of(self.accounts[0]))?;
                let known = self.runtime.block_on(home.make_final(id)).with_context(|| format!("after: {why}"))?;
                match known {
                    Final::Done(_) => Ending::Done,
                    Final::Refused(_) => Ending::Refused("as the branch has recorded".to_owned()),
                    Final::Never => Ending::Refused("cancelled before it was done".to_owned()),
                }
            }
        })
    }

    /// Stops a process where it is, as a machine that hangs.
    pub(crate) fn freeze(&self, actor: Actor) -> anyhow::Result<()> {
        self.signal(actor, Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, actor: Actor) -> anyhow::Result<()> {
        self.signal(actor, Signal::CONT)
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self, actor: Actor) -> anyhow::Result<()> {
        self.served_mut(actor)?.kill()
    }

    /// Starts it again, over what it left on its disk.
    pub(crate) fn restart(&mut self, actor: Actor) -> anyhow::Result<()> {
        self.served_mut(actor)?.restart()
    }

    /// Waits until a branch holds a part of an undecided transfer.
    pub(crate) fn wait_until_prepared(&self, actor: Actor) -> anyhow::Result<()> {
        self.until(&format!("{actor:?} has prepared"), || Ok(self.in_doubt(actor)? > 0.0))
    }

    /// Waits until the registry gathers votes.
    pub(crate) fn wait_until_collecting(&self) -> anyhow::Result<()> {
        self.until("the registry gathers votes", || {
            Ok(self.metric(Actor::Registry, "tally_registry_transfers{state=\"collecting\"}")? > 0.0)
        })
    }

    /// Decisions that the registry's log holds and that not every branch has carried out.
    pub(crate) fn open_decisions(&self) -> anyhow::Result<f64> {
        self.metric(Actor::Registry, "tally_registry_decisions{state=\"open\"}")
    }

    /// Waits until nothing is in doubt anywhere, and returns how long that took.
    pub(crate) fn settle_down(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.until("nothing is in doubt", || {
            let doubts = self.in_doubt(Actor::Source)? + self.in_doubt(Actor::Destination)?;
            Ok(doubts == 0.0 && self.open_decisions()? == 0.0)
        })?;
        Ok(begun.elapsed())
    }

    /// Both branches must say of the transfer what the payer was told, the balances must be those that follow, nothing
    /// may be held, and what each branch owes the other must be what that one says is owed to it.
    pub(crate) fn check(&self, id: TransferId, ending: &Ending) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let states = [self.state(id, 0).await?, self.state(id, 1).await?];
            let agree = match ending {
                Ending::Done => states == [Some(TransferState::Done); 2],
                Ending::Refused(_) => {
                    states[0] == Some(TransferState::Refused)
                        && matches!(states[1], None | Some(TransferState::Refused | TransferState::Cancelled))
                }
            };
            ensure!(agree, "the payer was told `{ending}`, the branches say {states:?}");
            for (side, expected) in self.expected.into_iter().enumerate() {
                let [debits_held, debits, credits_held, credits] = self.sums(self.accounts[side]).await?;
                let balance = credits as i64 - debits as i64;
                ensure!(balance == expected, "account {} has {balance}, not {expected}", self.accounts[side]);
                ensure!(debits_held == 0 && credits_held == 0, "something is still held");
            }
            let [here, there] = self.accounts.map(AccountId::branch);
            let due_to = self.sums(AccountId::of_settlement(here, there, CURRENCY)).await?;
            let due_from = self.sums(AccountId::of_settlement(there, here, CURRENCY)).await?;
            let is_held = due_to[0] + due_to[2] + due_from[0] + due_from[2] > 0;
            let mirrored = (due_from[1], due_from[3]) == (due_to[3], due_to[1]);
            ensure!(mirrored && !is_held, "the settlement accounts do not agree: {due_to:?} {due_from:?}");
            let shown = |minor_units: u64| Amount::new(minor_units).display(CURRENCY).to_string();
            Ok(format!(
                "alice {}, carol {}; branch {here} owes branch {there} {}, and both say so",
                shown(self.expected[0] as u64),
                shown(self.expected[1] as u64),
                shown(due_to[3] - due_to[1])
            ))
        })
    }

    /// Stops the bank in order.
    pub(crate) fn strike(self) -> anyhow::Result<()> {
        drop(self.runtime);
        self.running.stop()
    }

    async fn state(&self, id: TransferId, side: usize) -> anyhow::Result<Option<TransferState>> {
        let found = async { self.bank.home_of(self.accounts[side]).await?.find_transfer(id).await }.await;
        match found {
            Ok(found) => Ok(TransferState::from_wire(found.state)),
            Err(error) if error.refusal() == Some(Refusal::TransferNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Held and posted debits, held and posted credits; of an account that is not opened yet, zeros.
    async fn sums(&self, id: AccountId) -> Result<[u64; 4], RequestError> {
        match self.bank.balance(id).await {
            Ok(Balance { sums, .. }) => Ok([
                sums.debits_held.get(),
                sums.debits_posted.get(),
                sums.credits_held.get(),
                sums.credits_posted.get(),
            ]),
            Err(error) if error.refusal() == Some(Refusal::AccountNotFound) => Ok([0; 4]),
            Err(error) => Err(error),
        }
    }

    fn in_doubt(&self, actor: Actor) -> anyhow::Result<f64> {
        self.metric(actor, "tally_two_phase_in_doubt")
    }

    fn metric(&self, actor: Actor, name: &str) -> anyhow::Result<f64> {
        let address = self.served(actor)?.run_file().metrics.context("it has a metrics page")?;
        let page = http_get(address, "/metrics").with_context(|| format!("metrics of {actor:?}"))?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("{actor:?} has no metric {name}"))?.trim().parse()?)
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds()? {
            ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn signal(&self, actor: Actor, signal: Signal) -> anyhow::Result<()> {
        let pid = self.served(actor)?.run_file().pid;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("it has a process")?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {actor:?}"))
    }

    fn served(&self, actor: Actor) -> anyhow::Result<&Served> {
        match actor {
            Actor::Source => Ok(&self.running.branches[0].1),
            Actor::Destination => Ok(&self.running.branches[1].1),
            Actor::Registry => self.running.registry.first().context("the bank has a registry"),
        }
    }

    fn served_mut(&mut self, actor: Actor) -> anyhow::Result<&mut Served> {
        match actor {
            Actor::Source => Ok(&mut self.running.branches[0].1),
            Actor::Destination => Ok(&mut self.running.branches[1].1),
            Actor::Registry => self.running.registry.first_mut().context("the bank has a registry"),
        }
    }
}
