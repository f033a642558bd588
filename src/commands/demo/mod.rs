//! `tally demo`: what the bank does when things go wrong, on real processes. A demo checks its own outcome, and ends with
//! an error where that is not what it should be.

mod stage;
mod two_phase;

use std::process::ExitCode;

/// Shows what the bank does when things go wrong, and checks the outcome
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Payments between two branches while branches and registry are killed at the worst moments
    TwoPhase(two_phase::Args),
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::TwoPhase(args) => two_phase::run(args),
    }
}
