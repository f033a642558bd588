//! Processes that are killed under load: how long payments between branches wait, as their clients see it, and whether
//! any is lost or done twice.
//!
//! The load is that of `cross`. Afterwards every acknowledged payment must be in the durable feed once, as it was
//! acknowledged, and every balance at both branches must be what follows from them.

use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tally_client::load::{Load, LoadArgs, Measured, Observer, Progress, VerifyChoice};

use super::{Context, by_name, cross, verify};
use crate::bank::{Bank, Process};
use crate::report::RowResult;

/// Of an odd number the majority goes on without one.
const NODES: u32 = 3;
const FAILOVER_S_MAX: f64 = 3.0;
const IN_DOUBT_S_MAX: f64 = 5.0;
/// How long the load has run when something is killed.
const BEFORE: Duration = Duration::from_secs(3);
/// A shorter run would be over before what was killed is replaced.
const SECONDS_MIN: u64 = 8;
/// How long the killed may be away, and what is in doubt may stay so, before the row is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// What is done to the bank while load runs; it begins with the measuring.
type Script = Box<dyn FnOnce() -> anyhow::Result<Vec<f64>> + Send>;

/// Runs a script beside the load.
struct Stage {
    progress: bool,
    script: Option<Script>,
    running: Option<JoinHandle<anyhow::Result<Vec<f64>>>>,
}

impl Observer for Stage {
    fn begun(&mut self) {
        self.running = self.script.take().map(thread::spawn);
    }

    fn second(&mut self, progress: &Progress) {
        if self.progress {
            eprintln!("{progress}");
        }
    }
}

pub(crate) fn run_failover(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let (measured, _) = run(context, "failover", NODES, |bank, _| {
        let nodes = bank.nodes()?.to_vec();
        Ok(Box::new(move || {
            thread::sleep(BEFORE);
            let leads = |node: &&Process| node.metrics().get("tally_registry_leading") == Some(1.0);
            nodes.iter().find(leads).context("no node of the registry leads")?.kill()?;
            Ok(Vec::new())
        }))
    })?;
    let mut result = row("failover", measured.pause_max_s, &measured);
    result.met = context.met(measured.pause_max_s <= FAILOVER_S_MAX);
    Ok(result)
}

pub(crate) fn run_in_doubt(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let (measured, took) = run(context, "in_doubt", 1, |bank, up| {
        let branches = bank.branches()?.to_vec();
        let mut up = up;
        Ok(Box::new(move || {
            let [source, destination] =
                <[Process; 2]>::try_from(branches).map_err(|_| anyhow::anyhow!("two branches"))?;
            thread::sleep(BEFORE);
            let (first, destination) = kill_and_wait(&destination, &source, &mut up)?;
            thread::sleep(BEFORE);
            let (second, _) = kill_and_wait(&source, &destination, &mut up)?;
            Ok(vec![first, second])
        }))
    })?;
    let worst = took.iter().copied().fold(0.0, f64::max);
    let mut result = row("in_doubt", worst, &measured);
    result.detail("destination_killed_s", took[0]);
    result.detail("source_killed_s", took[1]);
    result.note(format!("{:.2} s when the payees' branch was killed, {:.2} s when the payers' was", took[0], took[1]));
    result.met = context.met(worst <= IN_DOUBT_S_MAX);
    Ok(result)
}

fn row(name: &str, seconds: f64, measured: &Measured) -> RowResult {
    let mut result = RowResult::new(by_name(name), seconds, "s").with_latency(&measured.latency);
    result.detail("transfers_per_second", measured.transfers_per_second);
    result.detail("pause_max_seconds", measured.pause_max_s);
    let refusals: Vec<String> = measured.refusals.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let refusals = if refusals.is_empty() { "none".to_owned() } else { refusals.join(", ") };
    result.note(format!(
        "{} done, {} answers lost with a connection and made final; refused: {refusals}; longest pause {:.2} s",
        measured.done_in_all, measured.lost, measured.pause_max_s
    ));
    result
}

/// Load on a new bank, with the script that `prepare` makes beside it, and everything verified. The script is given
/// what starts the bank's lost processes again.
fn run(
    context: &Context<'_>,
    name: &str,
    nodes: u32,
    prepare: impl FnOnce(&Bank, Command) -> anyhow::Result<Script>,
) -> anyhow::Result<(Measured, Vec<f64>)> {
    let mut bank = context.bank(name)?;
    let start = context.start(&[], None).with_branches(cross::BRANCHES).with_nodes(nodes);
    bank.up(&start)?;
    let base = cross::load_args(context, &bank);
    let duration = base.duration.max(Duration::from_secs(SECONDS_MIN));
    let args = LoadArgs { duration, verify: VerifyChoice::Exact, ..base };
    let mut load = Load::prepare(&args)?;
    let script = prepare(&bank, bank.up_command(&start))?;
    let mut stage = Stage { progress: context.args.progress, script: Some(script), running: None };
    let measured = load.measure(&args, &mut stage)?;
    let script = stage.running.context("the load has not begun")?;
    let took = script.join().map_err(|_| anyhow::anyhow!("the script panicked"))??;
    bank.look_again()?;
    verify(load)?;
    Ok((measured, took))
}

/// Kills a branch, starts it again, and waits until neither it nor the other has a part in doubt that was prepared before
/// it was back. Returns how many seconds that took since it served again, and what serves now.
fn kill_and_wait(victim: &Process, other: &Process, up: &mut Command) -> anyhow::Result<(f64, Process)> {
    victim.kill()?;
    let mut up = up.stdout(Stdio::null()).spawn().context("starting `tally up`")?;
    let killed_at = Instant::now();
    let returned = loop {
        let serving = victim.successor().filter(|process| process.metrics().get("tally_ready") == Some(1.0));
        if let Some(serving) = serving {
            break serving;
        }
        ensure!(killed_at.elapsed() < PATIENCE, "the branch is not back within {PATIENCE:?}");
        thread::sleep(LOOK);
    };
    let returned_at = Instant::now();
    while !(is_newer(&returned, returned_at)? && is_newer(other, returned_at)?) {
        if returned_at.elapsed() > PATIENCE {
            bail!("transfers are in doubt {PATIENCE:?} after the branch's return");
        }
        thread::sleep(LOOK);
    }
    let took = returned_at.elapsed().as_secs_f64();
    let status = up.wait()?;
    ensure!(status.success(), "`tally up` ended with {status}");
    Ok((took, returned))
}

/// Whether whatever the branch has in doubt was prepared after `since`.
fn is_newer(branch: &Process, since: Instant) -> anyhow::Result<bool> {
    // The clock first: what was prepared while we asked is taken for older than it is.
    let elapsed = since.elapsed();
    let metrics = branch.metrics();
    let age = metrics.get("tally_two_phase_in_doubt_age_seconds");
    Ok(age.context("a branch does not answer for its metrics")? < elapsed.as_secs_f64())
}
