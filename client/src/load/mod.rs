//! `tally load`.

mod args;

pub use args::{Choice, IdChoice, LoadArgs, VerifyChoice};

/// Runs it to the end; the exit code is 0 only when every check held. Blocks; not inside a runtime.
pub fn run(args: &LoadArgs) -> anyhow::Result<std::process::ExitCode> {
    args.check().map_err(anyhow::Error::msg)?;
    anyhow::bail!("unfinished")
}
