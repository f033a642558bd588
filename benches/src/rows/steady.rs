//! Latency at a rate that leaves the machine room.

use super::{Context, by_name, kept_up};
use crate::report::RowResult;

const RATE: u64 = 100_000;
const P50_US: f64 = 1_000.0;
const P99_US: f64 = 5_000.0;
const P999_US: f64 = 10_000.0;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let flush = context.flush()?;
    let bank = context.running("steady", &["checkpoint.interval_s=15"], None)?;
    let mut args = context.load_args(&bank);
    args.rate = Some(RATE);
    let (measured, usage) = context.measure(&bank, &args)?;
    let latency = &measured.latency;
    let mut result =
        RowResult::new(by_name("steady"), latency.p99_us, "us (p99)").with_latency(latency).with_usage(&usage);
    result.detail("transfers_per_second", measured.transfers_per_second);
    result.detail("never_sent", measured.unsent as f64);
    flush.note(&mut result);
    result.note(format!(
        "open loop: each connection's turn is {} requests in a row; latency counts from the intended times",
        args.run_len
    ));
    let kept = latency.p50_us < P50_US * flush.scale
        && latency.p99_us < P99_US * flush.scale
        && latency.p999_us < P999_US * flush.scale;
    result.met = context.met(kept && kept_up(&measured) && measured.busy == 0);
    Ok(result)
}
