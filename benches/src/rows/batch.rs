//! Batches by themselves, and single payments beside them.

use std::thread;

use tally_client::load::{Load, LoadArgs};
use tally_protocol::message::BATCH_LEN_MAX;

use super::{Context, by_name, kept_up, verify};
use crate::report::RowResult;

const TRANSFERS_PER_S: f64 = 1_000_000.0;
const BESIDE_RATE: u64 = 20_000;
const BESIDE_P99_US: f64 = 10_000.0;

/// Full batches at full speed: enough in flight that the bank never waits for one, and no more.
pub(crate) fn batches(args: &mut LoadArgs) {
    args.batch = BATCH_LEN_MAX;
    (args.connections, args.in_flight) = (4, 2);
}

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let bank = context.running("batch", &[], None)?;
    let mut args = context.load_args(&bank);
    args.duration = context.duration(20);
    batches(&mut args);
    let (measured, usage) = context.measure(&bank, &args)?;
    let mut result = RowResult::new(by_name("batch"), measured.transfers_per_second, "transfers/s")
        .with_latency(&measured.latency)
        .with_usage(&usage);
    result.note("latency is that of a whole batch");
    result.met = context.met(measured.transfers_per_second >= TRANSFERS_PER_S);
    Ok(result)
}

pub(crate) fn run_beside(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let flush = context.flush()?;
    let bank = context.running("batch-beside", &[], None)?;
    let mut singles = context.load_args(&bank);
    singles.duration = context.duration(20);
    singles.rate = Some(BESIDE_RATE);
    let mut bulk = context.load_args(&bank);
    bulk.duration = singles.duration;
    batches(&mut bulk);

    let mut singles_load = Load::prepare(&singles)?;
    let mut bulk_load = Load::prepare(&bulk)?;
    let (measured, usage, bulk_measured) = thread::scope(|scope| {
        let bulk_thread = scope.spawn(|| bulk_load.measure(&bulk, &mut ()));
        let (measured, usage) = context.measure_with(&bank, &mut singles_load, &singles)?;
        let bulk_measured = bulk_thread.join().map_err(|_| anyhow::anyhow!("the batches' thread panicked"))??;
        anyhow::Ok((measured, usage, bulk_measured))
    })?;
    verify(singles_load)?;
    verify(bulk_load)?;

    let latency = &measured.latency;
    let mut result =
        RowResult::new(by_name("batch_beside"), latency.p99_us, "us (p99)").with_latency(latency).with_usage(&usage);
    result.detail("singles_per_second", measured.transfers_per_second);
    result.detail("batched_per_second", bulk_measured.transfers_per_second);
    flush.note(&mut result);
    result.note(format!(
        "{:.0} singles/s beside {:.0} batched transfers/s",
        measured.transfers_per_second, bulk_measured.transfers_per_second
    ));
    result.met = context.met(latency.p99_us < BESIDE_P99_US * flush.scale && kept_up(&measured));
    Ok(result)
}
