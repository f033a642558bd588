//! `tally registry`: serves one node of the registry in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use super::config::parse_assignment;

/// Serves one node of the registry until SIGTERM or SIGINT
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// TOML file; each key can be overridden by --set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder (the same as --set node.dir=DIR)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Overrides one key
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = parse_assignment)]
    assignments: Vec<(String, String)>,
    /// Stop when standard input ends, as when the parent process is gone
    #[arg(long, hide = true)]
    stop_on_stdin_eof: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut settings = args.assignments.clone();
    if let Some(dir) = &args.dir {
        settings.push(("node.dir".to_owned(), dir.to_string_lossy().into_owned()));
    }
    let config = tally_registry::config::Config::load(args.config.as_deref(), &settings)?;
    tally_registry::server::run(&config, args.stop_on_stdin_eof)?;
    Ok(ExitCode::SUCCESS)
}
