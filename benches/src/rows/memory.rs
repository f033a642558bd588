//! What an account costs in memory, with everything that the process needs besides.

use tally_client::load::Load;

use super::{Context, by_name};
use crate::process;
use crate::report::RowResult;

const ACCOUNTS: u64 = 10_000_000;
const BYTES_PER_ACCOUNT_MAX: f64 = 256.0;

pub(crate) fn run(context: &Context<'_>, _: &[RowResult]) -> anyhow::Result<RowResult> {
    let bank = context.running("memory", &[], None)?;
    let pid = bank.pid()?;
    let empty = process::resident_bytes(pid)?;
    let mut args = context.load_args(&bank);
    args.accounts = context.accounts(ACCOUNTS);
    // Opened and nothing else: money would add the deposits' ids to the picture.
    args.refused = true;
    let load = Load::prepare(&args)?;
    let full = process::resident_bytes(pid)?;
    drop(load);

    let value = full as f64 / args.accounts as f64;
    let mut result = RowResult::new(by_name("memory"), value, "bytes/account");
    result.detail("resident_empty_bytes", empty as f64);
    result.detail("resident_bytes", full as f64);
    result.detail("added_per_account_bytes", full.saturating_sub(empty) as f64 / args.accounts as f64);
    result.note(format!(
        "all that is resident, {} MiB, divided by the accounts; {} MiB of it were there without any",
        full >> 20,
        empty >> 20
    ));
    result.met = context.met(value <= BYTES_PER_ACCOUNT_MAX);
    Ok(result)
}
