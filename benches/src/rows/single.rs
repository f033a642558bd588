//! Single transfers at full speed, and what is compared with them: a hot account, a zipf choice, refusals.

use tally_client::load::{Choice, LoadArgs, Measured};

use super::{Context, by_name, single_of};
use crate::report::RowResult;
use crate::watch::Usage;

/// Often enough for a checkpoint to begin and end within a minute.
const CHECKPOINTS: &str = "checkpoint.interval_s=15";
const TRANSFERS_PER_S: f64 = 400_000.0;
const P99_US: f64 = 10_000.0;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let flush = context.flush()?;
    let (measured, usage) = full_speed(context, "single", |_| {})?;
    let mut result = RowResult::new(by_name("single"), measured.transfers_per_second, "transfers/s")
        .with_latency(&measured.latency)
        .with_usage(&usage);
    flush.note(&mut result);
    // Two ends within the window have a whole checkpoint between them.
    let whole = usage.checkpoints >= 2;
    if !whole {
        result.note("no whole checkpoint within the window");
    }
    let fast = measured.transfers_per_second >= TRANSFERS_PER_S && measured.latency.p99_us < P99_US * flush.scale;
    result.met = context.met(fast && whole);
    result
        .detail("us_of_cpu_per_transfer", 1e6 * (usage.cpu_server + usage.cpu_client) / measured.transfers_per_second);
    Ok(result)
}

pub(crate) fn run_hot(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    compared(context, before, "hot", 0.5, |args| args.choice = Choice::OneHot)
}

pub(crate) fn run_zipf(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    compared(context, before, "zipf", 0.8, |args| args.choice = Choice::Zipf { theta: 0.99 })
}

pub(crate) fn run_refused(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    compared(context, before, "refused", 1.0, |args| args.refused = true)
}

fn full_speed(
    context: &Context<'_>,
    name: &str,
    change: impl FnOnce(&mut LoadArgs),
) -> anyhow::Result<(Measured, Usage)> {
    let bank = context.running(name, &[CHECKPOINTS], None)?;
    let mut args = context.load_args(&bank);
    change(&mut args);
    context.measure(&bank, &args)
}

/// A row that must reach `share` of `single`.
fn compared(
    context: &Context<'_>,
    before: &[RowResult],
    name: &str,
    share: f64,
    change: impl FnOnce(&mut LoadArgs),
) -> anyhow::Result<RowResult> {
    let (measured, usage) = full_speed(context, name, |args| {
        args.duration = context.duration(30);
        change(args);
    })?;
    // Refusals are answers as well; elsewhere there must be none.
    let value = measured.answered_per_second;
    anyhow::ensure!(name == "refused" || measured.refused == 0, "{} transfers were refused", measured.refused);
    let mut result =
        RowResult::new(by_name(name), value, "transfers/s").with_latency(&measured.latency).with_usage(&usage);
    compare(context, before, &mut result, value, share);
    Ok(result)
}

/// Says how `value` compares with `single`, and whether that is at least `share`.
pub(crate) fn compare(
    context: &Context<'_>,
    before: &[RowResult],
    result: &mut RowResult,
    value: f64,
    share: f64,
) -> bool {
    let Some(single) = single_of(before) else {
        result.note("not compared: single failed");
        return false;
    };
    result.detail("share_of_single", value / single);
    result.note(format!("{:.0} % of single", 100.0 * value / single));
    let met = value >= share * single;
    result.met = context.met(met);
    met
}
