//! The operators of the bank: they move accounts between branches and audit the books, with the program's own commands,
//! while everything goes wrong.
//!
//! A move may be refused, or its outcome unknown; that is the bank's right. An audit may be impossible while somebody is away. It
//! must never find a difference.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tally_protocol::AccountId;
use tokio::process::Command;

use super::bank::{BRANCHES, NODES, branch_id};
use super::load::{SharedBook, Stop};
use super::net::Site;
use super::process::Process;
use crate::torture::server::die_with_us;

/// Between two commands, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 300..3_000;
/// One command in so many is an audit, the others are moves.
const AUDIT_ONE_IN: u32 = 3;
/// How long an audit waits for a branch that is away while things go wrong, and when nothing does.
const WAIT_FAULTY_S: u32 = 3;
const WAIT_HEALED_S: u32 = 30;
/// How long a command may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What they did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) moves: u64,
    pub(crate) audits: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    tls: PathBuf,
}

/// How an audit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audit {
    Exact,
    /// Somebody could not be asked.
    Incomplete,
}

impl Operator {
    /// With the certificate in the folder `tls`.
    pub(crate) fn new(tls: &Path) -> Self {
        Self { tls: tls.to_owned() }
    }

    /// Works until it is stopped.
    ///
    /// # Errors
    /// When an audit finds a difference.
    pub(crate) async fn run(self, book: SharedBook, stop: Stop, seed: u64) -> anyhow::Result<Done> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut done = Done::default();
        while !*stop.borrow() {
            if random.random_range(0..AUDIT_ONE_IN) == 0 {
                done.audits += u64::from(self.audit(WAIT_FAULTY_S).await? == Audit::Exact);
            } else {
                let accounts: Vec<AccountId> = book.borrow().accounts().map(|(account, _)| account).collect();
                let account = accounts[random.random_range(0..accounts.len())];
                let to = random.random_range(1..=BRANCHES);
                book.borrow_mut().may_move(account, branch_id(to));
                done.moves += u64::from(self.move_account(account, to).await?);
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
        }
        Ok(done)
    }

    /// Whether the account is there now, as far as the command says.
    async fn move_account(&self, account: AccountId, to: u8) -> anyhow::Result<bool> {
        let (account, to) = (format!("{:032x}", account.get()), to.to_string());
        let ended = self.tally(&["cluster", "move-account", &account, "--to", &to]).await?;
        Ok(ended.is_some_and(|(code, _)| code == 0))
    }

    /// Audits when nothing is wrong.
    ///
    /// # Errors
    /// When the books differ, or cannot be told.
    pub(crate) async fn audit_healed(&self) -> anyhow::Result<()> {
        let audit = self.audit(WAIT_HEALED_S).await?;
        ensure!(audit == Audit::Exact, "AUDIT: incomplete, while everybody serves");
        Ok(())
    }

    async fn audit(&self, wait_s: u32) -> anyhow::Result<Audit> {
        match self.tally(&["audit", "balance", "--wait", &wait_s.to_string()]).await? {
            Some((0, _)) => Ok(Audit::Exact),
            Some((2, _)) | None => Ok(Audit::Incomplete),
            Some((code, said)) => bail!("AUDIT: ended with {code}\n{said}"),
        }
    }

    /// Runs this program. How it ended and what it said; `None` when that took too long.
    async fn tally(&self, args: &[&str]) -> anyhow::Result<Option<(i32, String)>> {
        let mut command = std::process::Command::new(std::env::current_exe().context("where this program is")?);
        command.args(args).arg("--tls").arg(&self.tls);
        for node in 1..=NODES {
            command.arg("--registry").arg(Process::endpoint(Site::Node(node)));
        }
        command.stdin(Stdio::null());
        die_with_us(&mut command);
        let mut command = Command::from(command);
        let Ok(output) = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await else {
            return Ok(None);
        };
        let output = output.with_context(|| format!("run {command:?}"))?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let code = output.status.code().with_context(|| format!("{command:?} ended with {}", output.status))?;
        Ok(Some((code, text.concat())))
    }
}
