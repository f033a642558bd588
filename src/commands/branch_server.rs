//! `tally branch-server`: serves one branch in the foreground.

use std::process::ExitCode;

use super::config::ConfigArgs;

/// Serves one branch until SIGTERM or SIGINT, then finishes what is in flight and exits
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Stop when standard input ends, as when the parent process is gone
    #[arg(long, hide = true)]
    stop_on_stdin_eof: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    tally_branch_server::logging::init(&config.log);
    tally_branch_server::server::run(&config, args.stop_on_stdin_eof)?;
    Ok(ExitCode::SUCCESS)
}
