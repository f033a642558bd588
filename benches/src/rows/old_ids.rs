//! A ledger that has seen a hundred million ids, in a memory that cannot hold them.

use std::time::Duration;

use tally_client::load::Load;

use super::{Context, batch, by_name, single, verify};
use crate::limit::Limit;
use crate::report::RowResult;

const MEMORY_BYTES: u64 = 4 << 30;
const SHARE_OF_SINGLE: f64 = 0.8;
const REPEAT_P99_US: f64 = 10_000.0;
/// Old transfers sent again per second.
const REPEATS_PER_S: u64 = 1_000;
/// However slow the bank is, it is not waited for longer.
const FILLING_MAX: Duration = Duration::from_secs(2 * 3600);

pub(crate) fn run(context: &Context<'_>, before: &[RowResult]) -> anyhow::Result<RowResult> {
    let limited = context.limited(Limit::Memory(MEMORY_BYTES), "old-ids");
    let bank = context.running("old-ids", &[], Some(&limited))?;
    let mut args = context.load_args(&bank);

    let mut load = Load::prepare(&args)?;
    let mut filling = args.clone();
    batch::batches(&mut filling);
    (filling.transfers, filling.duration, filling.warmup) = (Some(context.old_ids()), FILLING_MAX, Duration::ZERO);
    let (filled, _) = context.measure_with(&bank, &mut load, &filling)?;
    let repeats = load.repeat_samples(REPEATS_PER_S)?;

    args.duration = context.duration(30);
    let (measured, usage) = context.measure_with(&bank, &mut load, &args)?;
    verify(load)?;

    let value = measured.transfers_per_second;
    let mut result =
        RowResult::new(by_name("old_ids"), value, "transfers/s").with_latency(&measured.latency).with_usage(&usage);
    result.note(limited.note());
    result.note(format!("{} earlier transfers, put in at {:.0}/s", filled.done_in_all, filled.transfers_per_second));
    result.note(format!(
        "{} old ids sent again: p50 {:.0} us, p99 {:.0} us",
        repeats.count, repeats.p50_us, repeats.p99_us
    ));
    result.detail("earlier_transfers", filled.done_in_all as f64);
    result.detail("filling_per_second", filled.transfers_per_second);
    result.detail("repeat_p50_us", repeats.p50_us);
    result.detail("repeat_p99_us", repeats.p99_us);
    let fast = single::compare(context, before, &mut result, value, SHARE_OF_SINGLE);
    result.met = context.met(fast && repeats.p99_us < REPEAT_P99_US);
    Ok(result)
}
