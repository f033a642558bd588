//! Twice as much as the bank can do: does it still do what it can?

use super::{Context, by_name, verify};
use crate::limit::Limit;
use crate::report::RowResult;
use tally_client::load::Load;

const CORES: f64 = 0.5;
const IN_FLIGHT: usize = 64;
const OFFERED: f64 = 2.0;
const GOODPUT_MIN: f64 = 0.7;
/// Growth that is still flat: what arrives with the connections' buffers.
const MEMORY_GROWTH_MAX: f64 = 1.1;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let limited = context.limited(Limit::Cpu(CORES), "overload");
    let bank = context.running("overload", &[], Some(&limited))?;
    let mut args = context.load_args(&bank);
    args.accounts = context.accounts(100_000);
    args.duration = context.duration(20);
    // So many that the processor is the limit, and not the disk's latency.
    args.in_flight = IN_FLIGHT;
    let mut load = Load::prepare(&args)?;
    let (peak, _) = context.measure_with(&bank, &mut load, &args)?;

    args.rate = Some(((peak.transfers_per_second * OFFERED) as u64).max(1));
    let (overloaded, usage) = context.measure_with(&bank, &mut load, &args)?;
    verify(load)?;

    let share = overloaded.transfers_per_second / peak.transfers_per_second;
    let growth = usage.resident_max as f64 / usage.resident_min.max(1) as f64;
    let mut result = RowResult::new(by_name("overload"), 100.0 * share, "% of peak")
        .with_latency(&overloaded.latency)
        .with_usage(&usage);
    result.note(limited.note());
    result.note(format!(
        "peak {:.0}/s, offered {:.0}/s: done {:.0}/s, busy {:.0}/s, held back by TCP {:.0}/s; memory grew {:.0} %",
        peak.transfers_per_second,
        peak.transfers_per_second * OFFERED,
        overloaded.transfers_per_second,
        overloaded.busy as f64 / overloaded.seconds,
        overloaded.unsent as f64 / overloaded.seconds,
        100.0 * (growth - 1.0),
    ));
    result.detail("peak_per_second", peak.transfers_per_second);
    result.detail("goodput_per_second", overloaded.transfers_per_second);
    result.detail("busy", overloaded.busy as f64);
    result.detail("never_sent", overloaded.unsent as f64);
    result.detail("memory_growth", growth);
    result.met = context.met(share >= GOODPUT_MIN && growth <= MEMORY_GROWTH_MAX);
    Ok(result)
}
