//! How long a bank is away after a crash, with nothing cached.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use tally_client::load::{Load, VerifyChoice};

use super::{Context, by_name, verify};
use crate::bank::Bank;
use crate::disk;
use crate::process;
use crate::report::RowResult;

const ACCOUNTS: u64 = 10_000_000;
const RATE: u64 = 100_000;
const SECONDS_MAX: f64 = 10.0;
const RAW_READS_MAX: f64 = 1.5;
/// No checkpoint by itself while the minute behind it is made.
const NO_CHECKPOINTS: [&str; 2] = ["checkpoint.interval_s=86400", "checkpoint.interval_bytes=1099511627776"];
/// How long a checkpoint of everything may take.
const CHECKPOINT_MAX: Duration = Duration::from_secs(600);

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let mut bank = context.bank("recovery")?;
    bank.up(&context.start(&["checkpoint.interval_s=5", "checkpoint.bytes_per_second_max=0"], None))?;
    let mut args = context.load_args(&bank);
    args.accounts = context.accounts(ACCOUNTS);
    args.verify = VerifyChoice::Sample;
    let mut load = Load::prepare(&args)?;
    wait_for_checkpoint(&bank)?;
    bank.down()?;

    bank.up(&context.start(&NO_CHECKPOINTS, None))?;
    args.connect = bank.connect();
    args.duration = context.duration(60);
    args.rate = Some(RATE);
    load.reconnect(&args)?;
    let (measured, _) = context.measure_with(&bank, &mut load, &args)?;
    let behind = behind_checkpoint(&bank);
    bank.kill()?;

    let cold = disk::drop_caches();
    let took = bank.up(&context.start(&NO_CHECKPOINTS, None))?;
    let read_bytes = process::disk_read_bytes(bank.pid()?)?;
    load.reconnect(&args)?;
    verify(load)?;

    // The same number of bytes, from the files that were written last: the checkpoint and the journal behind it.
    let files = disk::files_by_age(bank.dir())?;
    disk::drop_caches();
    let raw = disk::raw_read_time(&files, read_bytes)?;

    let seconds = took.as_secs_f64();
    let mut result = RowResult::new(by_name("recovery"), seconds, "s");
    result.detail("read_bytes", read_bytes as f64);
    result.detail("raw_read_seconds", raw.as_secs_f64());
    result.detail("transfers_behind_checkpoint", measured.done_in_all as f64);
    if let Some(behind) = behind {
        result.detail("journal_behind_checkpoint_bytes", behind);
    }
    if !cold {
        result.note("caches could not be dropped: not cold");
    }
    result.note(format!("read {} MiB; a raw read of as much takes {:.1} s", read_bytes >> 20, raw.as_secs_f64()));
    let met = seconds < SECONDS_MAX || seconds < RAW_READS_MAX * raw.as_secs_f64();
    result.met = context.met(met && cold);
    Ok(result)
}

/// Waits until everything that is durable now is in a checkpoint.
fn wait_for_checkpoint(bank: &Bank) -> anyhow::Result<()> {
    let wanted = bank.metrics().get("tally_journal_durable_bytes").unwrap_or(0.0);
    let begun = Instant::now();
    while bank.metrics().get("tally_journal_checkpoint_bytes").unwrap_or(0.0) < wanted {
        if begun.elapsed() > CHECKPOINT_MAX {
            bail!("no checkpoint within {CHECKPOINT_MAX:?}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn behind_checkpoint(bank: &Bank) -> Option<f64> {
    let metrics = bank.metrics();
    Some(metrics.get("tally_journal_durable_bytes")? - metrics.get("tally_journal_checkpoint_bytes")?)
}
