//! `tally replay`.

mod args;

pub use args::{ReplayArgs, Speed};

/// Runs it to the end; the exit code is 0 only when every balance agrees. Blocks; not inside a runtime.
pub fn run(_args: &ReplayArgs) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("unfinished")
}
