//! `tally audit balance`: whether debits equal credits over all branches, and the mirrored settlement accounts agree, at one
//! instant, while the bank serves.
//!
//! ```text
//!   cut: the registry names the instant --> gather: every branch's books of then --> tally_ledger::audit::compare --> print
//!                                                '--> the registry: how did the legs stand that were open then?
//! ```

mod books;
mod gather;
mod print;

use std::process::ExitCode;
use std::time::Duration;

use super::operator::OperatorArgs;
use gather::Gathered;

/// The books agree.
const AGREE: u8 = 0;
/// They do not.
const DIFFER: u8 = 1;
/// It is not known: somebody could not be asked.
const INCOMPLETE: u8 = 2;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Debits equal credits, per currency, and the settlement accounts of any two branches mirror each other
    ///
    /// Ends with 0 where everything agrees, with 1 where something differs, and with 2 where a branch or the registry
    /// could not be asked.
    Balance(Args),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    operator: OperatorArgs,
    /// How long to wait for a branch that is not linked to the registry; one that is adding up is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Balance(Args { operator, wait }) = command;
    let gathered = operator.calls().and_then(|calls| Gathered::gather(&calls, Duration::from_secs(*wait)));
    let gathered = match gathered {
        Ok(gathered) => gathered,
        Err(error) => {
            eprintln!("tally: audit incomplete: {error:#}");
            return Ok(INCOMPLETE.into());
        }
    };
    let report = tally_ledger::audit::compare(&gathered.books, &gathered.committed);
    if operator.wants_json() {
        println!("{}", serde_json::to_string_pretty(&print::json(&gathered, &report))?);
    } else {
        print::text(&gathered, &report);
    }
    // What differs, differs, whoever else is missing.
    Ok(match (report.findings.is_empty(), gathered.missing.is_empty()) {
        (false, _) => DIFFER,
        (true, false) => INCOMPLETE,
        (true, true) => AGREE,
    }
    .into())
}
