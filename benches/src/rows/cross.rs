//! Transfers between branches: two branches, the registry and the load generator on one machine, everything durable
//! at both branches and in the registry's log.
//!
//! Payments go one way, from accounts of the first branch to accounts of the second: each branch and the registry have
//! as much to do for one as they would the other way round.

use tally_client::load::{Choice, LoadArgs, Measured};

use super::{Context, by_name, kept_up};
use crate::bank::Bank;
use crate::report::RowResult;
use crate::watch::Usage;

pub(super) const BRANCHES: u32 = 2;
const CROSS_PER_S: f64 = 30_000.0;
/// Where `cross` was not measured, its half is taken to be half of what it has to reach.
const STEADY_SHARE: f64 = 0.5;
const STEADY_P99_US: f64 = 10_000.0;
/// The most raw flushes that one transfer between branches may take.
const FLUSHES_MAX: f64 = 8.0;
const MIXED_RATE: u64 = 100_000;
const MIXED_CROSS_PERCENT: u8 = 10;
const MIXED_P99_US: f64 = 10_000.0;
const HOT_SHARE: f64 = 0.5;
const RAFT3_SHARE: f64 = 0.5;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let (measured, usage) = full_speed(context, "cross", 1, |_| {})?;
    let mut result = row("cross", measured.transfers_per_second, "transfers/s", &measured, &usage);
    result.met = context.met(measured.transfers_per_second >= CROSS_PER_S);
    Ok(result)
}

pub(crate) fn run_steady(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    let flush = context.flush()?;
    let rate = (cross_of(before).unwrap_or(CROSS_PER_S) * STEADY_SHARE) as u64;
    let (measured, usage) = full_speed(context, "cross_steady", 1, |args| args.rate = Some(rate))?;
    let p99_us = measured.latency.p99_us;
    let mut result = row("cross_steady", p99_us, "us (p99)", &measured, &usage);
    flush.note(&mut result);
    result.detail("transfers_per_second", measured.transfers_per_second);
    result.note(format!("open loop at {rate}/s"));
    result.met = context.met(p99_us < STEADY_P99_US * flush.scale && kept_up(&measured) && measured.busy == 0);
    Ok(result)
}

pub(crate) fn run_one(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let before = context.flush()?;
    let (measured, usage) = full_speed(context, "cross_one", 1, |args| {
        args.duration = context.duration(15);
        (args.connections, args.in_flight) = (1, 1);
    })?;
    let after = context.flush()?;
    // The disk may change while we measure: its mean before and after is what it did meanwhile.
    let raw_us = (before.p50_us + after.p50_us) / 2.0;
    let p50_us = measured.latency.p50_us;
    let mut result = row("cross_one", p50_us, "us (p50)", &measured, &usage);
    before.note(&mut result);
    result.detail("raw_flushes", p50_us / raw_us);
    result.note(format!("p50 is {:.2} raw flushes", p50_us / raw_us));
    result.met = context.met(p50_us < FLUSHES_MAX * raw_us);
    Ok(result)
}

pub(crate) fn run_mixed(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let flush = context.flush()?;
    let (measured, usage) = full_speed(context, "mixed", 1, |args| {
        (args.rate, args.cross) = (Some(MIXED_RATE), MIXED_CROSS_PERCENT);
    })?;
    // Payments between branches are measured apart: these are the local ones.
    let p99_us = measured.latency.p99_us;
    let mut result = row("mixed", p99_us, "us (p99 of local ones)", &measured, &usage);
    flush.note(&mut result);
    if let Some(cross) = &measured.cross_latency {
        result.detail("cross_p50_us", cross.p50_us);
        result.detail("cross_p99_us", cross.p99_us);
        result.note(format!("between branches: p50 {:.0} us, p99 {:.0} us", cross.p50_us, cross.p99_us));
    }
    result.met = context.met(p99_us < MIXED_P99_US * flush.scale && kept_up(&measured) && measured.busy == 0);
    Ok(result)
}

pub(crate) fn run_hot(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    let (measured, usage) = full_speed(context, "cross_hot", 1, |args| args.choice = Choice::OneHot)?;
    Ok(compared(context, "cross_hot", HOT_SHARE, before, &measured, &usage))
}

pub(crate) fn run_raft3(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    let (measured, usage) = full_speed(context, "cross_raft3", 3, |_| {})?;
    Ok(compared(context, "cross_raft3", RAFT3_SHARE, before, &measured, &usage))
}

/// A row whose rate is to be `share` of that of `cross`.
fn compared(
    context: &Context<'_>,
    name: &str,
    share: f64,
    before: &[RowResult],
    measured: &Measured,
    usage: &Usage,
) -> RowResult {
    let mut result = row(name, measured.transfers_per_second, "transfers/s", measured, usage);
    let reached = measured.transfers_per_second / cross_of(before).unwrap_or(CROSS_PER_S);
    result.note(format!("{:.0} % of cross", reached * 100.0));
    result.met = context.met(reached >= share);
    result
}

fn row(name: &str, value: f64, unit: &'static str, measured: &Measured, usage: &Usage) -> RowResult {
    RowResult::new(by_name(name), value, unit).with_latency(&measured.latency).with_usage(usage)
}

/// The figure of `cross`, if it was measured before.
fn cross_of(results: &[RowResult]) -> Option<f64> {
    results.iter().find(|result| result.row == "cross" && result.error.is_none()).map(|result| result.value)
}

/// Everything across, closed loop.
pub(super) fn load_args(context: &Context<'_>, bank: &Bank) -> LoadArgs {
    LoadArgs {
        accounts: context.accounts(100_000),
        duration: context.duration(30),
        cross: 100,
        ..context.load_args(bank)
    }
}

/// Everything across, closed loop, unless `change` says otherwise; with so many registry nodes.
fn full_speed(
    context: &Context<'_>,
    name: &str,
    nodes: u32,
    change: impl FnOnce(&mut LoadArgs),
) -> anyhow::Result<(Measured, Usage)> {
    let mut bank = context.bank(name)?;
    bank.up(&context.start(&[], None).with_branches(BRANCHES).with_nodes(nodes))?;
    let mut args = load_args(context, &bank);
    change(&mut args);
    let (measured, usage) = context.measure(&bank, &args)?;
    anyhow::ensure!(measured.refused == 0, "{} transfers were refused", measured.refused);
    Ok((measured, usage))
}
