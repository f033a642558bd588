//! One request at a time: the way through everything, with one flush in it.

use super::{Context, by_name};
use crate::report::RowResult;

/// The most raw flushes that one transfer may take.
const FLUSHES_MAX: f64 = 2.5;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let before = context.flush()?;
    let bank = context.running("one", &[], None)?;
    let mut args = context.load_args(&bank);
    args.accounts = context.accounts(10_000);
    args.duration = context.duration(15);
    (args.connections, args.in_flight) = (1, 1);
    let (measured, usage) = context.measure(&bank, &args)?;
    drop(bank);
    let after = context.flush()?;
    // The disk may change while we measure: its mean before and after is what it did meanwhile.
    let raw_us = (before.p50_us + after.p50_us) / 2.0;
    let latency = &measured.latency;
    let mut result =
        RowResult::new(by_name("one"), latency.p50_us, "us (p50)").with_latency(latency).with_usage(&usage);
    before.note(&mut result);
    after.note(&mut result);
    result.detail("transfers_per_second", measured.transfers_per_second);
    result.detail("raw_flushes", latency.p50_us / raw_us);
    result.note(format!("p50 is {:.2} raw flushes", latency.p50_us / raw_us));
    result.met = context.met(latency.p50_us < FLUSHES_MAX * raw_us);
    Ok(result)
}
