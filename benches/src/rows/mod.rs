//! The rows of the canonical benchmark, and what each is to reach on a two-core machine with the load generator
//! beside the bank.

mod batch;
mod cross;
mod faults;
mod memory;
mod old_ids;
mod one;
mod overload;
mod recovery;
mod single;
mod steady;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tally_client::load::{IdChoice, LatencySummary, Load, LoadArgs, Measured, VerifyChoice};

use crate::BenchArgs;
use crate::bank::{Bank, Start};
use crate::disk;
use crate::limit::{Limit, Limited};
use crate::report::RowResult;
use crate::watch::{Usage, Watch};

/// Latency is to be reached on a disk whose flushes keep this; on a slower one the limits grow in proportion.
const FLUSH_P99_US: f64 = 500.0;
/// How long the disk is looked at before a latency row.
const FLUSHES_FOR: Duration = Duration::from_secs(5);
const FLUSHES_FOR_SMOKE: Duration = Duration::from_millis(100);
/// What a smoke run takes instead of everything larger.
const SMOKE_DURATION: Duration = Duration::from_secs(2);
const SMOKE_ACCOUNTS: u64 = 10_000;
const SMOKE_OLD_IDS: u64 = 1_000_000;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name on the command line and in the JSON.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// What is to be reached.
    pub reach: &'static str,
    /// The row that it is compared with.
    against: Option<&'static str>,
    pub(crate) run: fn(&Context<'_>, &[RowResult]) -> anyhow::Result<RowResult>,
}

const fn row(
    name: &'static str,
    what: &'static str,
    reach: &'static str,
    run: fn(&Context<'_>, &[RowResult]) -> anyhow::Result<RowResult>,
) -> Row {
    Row { name, what, reach, against: None, run }
}

impl Row {
    const fn against_single(self) -> Self {
        Self { against: Some("single"), ..self }
    }

    const fn against_cross(self) -> Self {
        Self { against: Some("cross"), ..self }
    }
}

/// Every row, in the order in which they run.
pub const ROWS: &[Row] = &[
    row(
        "single",
        "one transfer per request, 64 connections x 16 in flight, 1,000,000 accounts, a whole checkpoint inside",
        ">= 400,000/s, p99 < 10 ms",
        single::run,
    ),
    row("steady", "the same, open loop at 100,000/s", "p50 < 1 ms, p99 < 5 ms, p99.9 < 10 ms", steady::run),
    row("one", "one connection, one request in flight", "p50 < 2.5 x one fdatasync", one::run),
    row("batch", "batches of 8,190", ">= 1,000,000/s", batch::run),
    row(
        "batch_beside",
        "20,000/s single payments beside full-speed batches",
        "p99 of the singles < 10 ms",
        batch::run_beside,
    ),
    row(
        "old_ids",
        "100,000,000 earlier transfers with random ids, memory limited to 4 GiB",
        ">= 80 % of single; p99 of a repeat < 10 ms",
        old_ids::run,
    )
    .against_single(),
    row("hot", "every transfer touches one account", ">= 50 % of single", single::run_hot).against_single(),
    row("zipf", "accounts chosen by zipf 0.99", ">= 80 % of single", single::run_zipf).against_single(),
    row("refused", "every transfer refused: insufficient funds", ">= single", single::run_refused).against_single(),
    row("memory", "10,000,000 accounts", "<= 256 bytes per account, all told", memory::run),
    row(
        "recovery",
        "10,000,000 accounts and a minute of steady behind the checkpoint, cold cache",
        "< 10 s, or < 1.5 x the raw read",
        recovery::run,
    ),
    row(
        "overload",
        "half a core, twice the capacity offered",
        "goodput >= 70 % of its peak, memory flat",
        overload::run,
    ),
    row(
        "cross",
        "transfers between two branches, one registry node, closed loop, 64 connections x 16 in flight",
        ">= 30,000/s",
        cross::run,
    ),
    row("cross_steady", "the same, open loop at half of that", "p99 < 10 ms", cross::run_steady),
    row("cross_one", "one transfer between branches at a time", "p50 < 8 x one fdatasync", cross::run_one),
    row(
        "mixed",
        "100,000/s offered to one branch, 10 % of it to the other",
        "p99 of the local ones < 10 ms",
        cross::run_mixed,
    ),
    row("cross_hot", "transfers between branches that all touch one account", ">= 50 % of cross", cross::run_hot)
        .against_cross(),
    row("cross_raft3", "cross with three registry nodes", ">= 50 % of cross", cross::run_raft3).against_cross(),
    row(
        "failover",
        "the leader of three registry nodes killed under load: the longest time in which no payment between branches is done",
        "<= 3 s, none lost, none doubled",
        faults::run_failover,
    ),
    row(
        "in_doubt",
        "a branch killed under load and started again: from its return until nothing of before is in doubt",
        "<= 5 s, none lost, none doubled",
        faults::run_in_doubt,
    ),
];

/// The rows called `names`, in canonical order; all without names. What they are compared with comes with them.
pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str())) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!("no row {unknown:?}; there are {}", known.join(", "));
    }
    let wanted = |row: &Row| names.is_empty() || names.iter().any(|name| name == row.name);
    let compared: Vec<&str> = ROWS.iter().filter(|row| wanted(row)).filter_map(|row| row.against).collect();
    Ok(ROWS.iter().filter(|row| wanted(row) || compared.contains(&row.name)).collect())
}

/// What all rows need.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    args: &'a BenchArgs,
    program: PathBuf,
}

impl<'a> Context<'a> {
    pub(crate) fn new(args: &'a BenchArgs) -> anyhow::Result<Self> {
        let program = match &args.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("which program is this?")?,
        };
        Ok(Self { args, program })
    }

    /// How long to measure, where `seconds` is the row's own idea.
    pub(crate) fn duration(&self, seconds: u64) -> Duration {
        match (self.args.seconds, self.args.smoke) {
            (Some(duration), _) => duration,
            (None, true) => SMOKE_DURATION,
            (None, false) => Duration::from_secs(seconds),
        }
    }

    pub(crate) fn accounts(&self, count: u64) -> u64 {
        if self.args.smoke { count.min(SMOKE_ACCOUNTS) } else { count }
    }

    pub(crate) fn old_ids(&self) -> u64 {
        if self.args.smoke { self.args.old_ids.min(SMOKE_OLD_IDS) } else { self.args.old_ids }
    }

    /// A bank for row `name`, not started.
    pub(crate) fn bank(&self, name: &str) -> anyhow::Result<Bank> {
        if !self.args.smoke {
            disk::settle(&self.args.dir)?;
        }
        let dir = self.args.dir.join(format!("bench-{name}-{}", std::process::id()));
        Bank::new(&self.program, dir, self.args.keep)
    }

    /// A bank that runs, with `set` beside the settings of the command line.
    pub(crate) fn running(&self, name: &str, set: &[&str], limited: Option<&Limited>) -> anyhow::Result<Bank> {
        let mut bank = self.bank(name)?;
        bank.up(&self.start(set, limited))?;
        Ok(bank)
    }

    pub(crate) fn start<'b>(&self, set: &[&str], limited: Option<&'b Limited>) -> Start<'b> {
        let set = set.iter().map(|&assignment| assignment.to_owned()).chain(self.args.set.iter().cloned()).collect();
        Start { set, limited, branches: 1, nodes: 1 }
    }

    pub(crate) fn limited(&self, limit: Limit, name: &str) -> Limited {
        Limited::new(limit, &format!("tally-bench-{name}-{}", std::process::id()))
    }

    /// The load of `single`, for others to change.
    pub(crate) fn load_args(&self, bank: &Bank) -> LoadArgs {
        LoadArgs {
            accounts: self.accounts(1_000_000),
            duration: self.duration(60),
            warmup: self.warmup(),
            ids: IdChoice::Random,
            // To read a minute's transfers back from the feed would take as long again as half a row.
            verify: VerifyChoice::Balances,
            ..LoadArgs::new(bank.connect())
        }
    }

    pub(crate) fn warmup(&self) -> Duration {
        if self.args.smoke { Duration::from_millis(500) } else { Duration::from_secs(5) }
    }

    /// Puts one load on `bank` from beginning to end, verified.
    pub(crate) fn measure(&self, bank: &Bank, args: &LoadArgs) -> anyhow::Result<(Measured, Usage)> {
        let mut load = Load::prepare(args)?;
        let measured = self.measure_with(bank, &mut load, args)?;
        verify(load)?;
        Ok(measured)
    }

    /// Puts load on accounts that are ready; verifying is the caller's.
    pub(crate) fn measure_with(
        &self,
        bank: &Bank,
        load: &mut Load,
        args: &LoadArgs,
    ) -> anyhow::Result<(Measured, Usage)> {
        let mut watch = Watch::new(bank, self.args.progress)?;
        let measured = load.measure(args, &mut watch)?;
        Ok((measured, watch.usage()))
    }

    /// What the disk does at this moment, and by how much latency limits grow for it.
    pub(crate) fn flush(&self) -> anyhow::Result<Flush> {
        let time = if self.args.smoke { FLUSHES_FOR_SMOKE } else { FLUSHES_FOR };
        let flushes = disk::flushes(&self.args.dir, time)?;
        let LatencySummary { p50_us, p99_us, max_us, .. } = flushes.latency;
        let scale = (p99_us / FLUSH_P99_US).max(1.0);
        Ok(Flush { p50_us, p99_us, max_us, stalled_share: flushes.stalled_share, scale })
    }

    /// Whether a row's aim was met; nothing can be said of a smoke run.
    pub(crate) fn met(&self, met: bool) -> Option<bool> {
        (!self.args.smoke).then_some(met)
    }
}

/// The disk by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flush {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// See [`disk::Flushes`].
    pub(crate) stalled_share: f64,
    /// At least 1.
    pub(crate) scale: f64,
}

impl Flush {
    pub(crate) fn note(&self, result: &mut RowResult) {
        result.detail("raw_flush_p50_us", self.p50_us);
        result.detail("raw_flush_p99_us", self.p99_us);
        let scaled = if self.scale > 1.0 {
            format!("; over {FLUSH_P99_US} us, so latency limits count {:.1} times", self.scale)
        } else {
            String::new()
        };
        result.detail("raw_flush_max_us", self.max_us);
        result.detail("raw_stalled_percent", self.stalled_share * 100.0);
        let Self { p50_us, p99_us, .. } = self;
        result.note(format!(
            "raw 4 KiB flush, nothing else running: p50 {p50_us:.0} us, p99 {p99_us:.0} us{scaled}; longest {:.1} ms, {:.1} % of the \
             time in flushes over {} ms",
            self.max_us / 1_000.0,
            self.stalled_share * 100.0,
            disk::STALL.as_millis()
        ));
    }
}

/// The row called `name`, which is in the table.
pub(crate) fn by_name(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).expect("rows ask for themselves")
}

/// The figure of `single`, if it was measured before.
pub(crate) fn single_of(results: &[RowResult]) -> Option<f64> {
    results.iter().find(|result| result.row == "single" && result.error.is_none()).map(|result| result.value)
}

/// Whether an open loop sent what it intended. The last turn may fall due a moment before the window ends and find
/// the clock past it: one in ten thousand is not behind.
pub(crate) fn kept_up(measured: &Measured) -> bool {
    (measured.unsent as f64) < measured.transfers_per_second * measured.seconds / 10_000.0
}

/// Fails unless everything that was acknowledged is there.
pub(crate) fn verify(load: Load) -> anyhow::Result<()> {
    let verification = load.verify()?;
    anyhow::ensure!(verification.holds, "{verification}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        select(&wanted).expect("known rows").iter().map(|row| row.name).collect()
    }

    #[test]
    fn rows_come_in_order_and_with_what_they_are_compared_with() {
        assert_eq!(names(&[]).len(), 20);
        assert_eq!(names(&["one", "steady"]), ["steady", "one"]);
        assert_eq!(names(&["zipf"]), ["single", "zipf"]);
        assert_eq!(names(&["single"]), ["single"]);
        assert_eq!(names(&["failover", "cross_raft3"]), ["cross", "cross_raft3", "failover"]);
        assert!(select(&["doubles".to_owned()]).is_err());
    }
}
