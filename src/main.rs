//! `tally`: every role and tool of the bank in one program. This file only says which there are; each
//! has a file in `commands/`.

mod broken_pipe;
mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{audit, branch_server, cluster, config, demo, down, registry, shell, txn, up, user};

/// Small allocations on many threads are what a server does all day.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A bank core made of branches: durable double-entry ledgers that clients reach directly over TLS.
#[derive(Parser)]
#[command(name = "tally", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole development bank in a folder and open a prompt
    Up(up::Args),
    /// Stop the development bank of a folder
    Down(down::Args),
    /// Open a prompt at a running bank, or do single commands
    Shell(shell::Args),
    /// Serve one branch
    BranchServer(branch_server::Args),
    /// Serve one node of the registry
    Registry(registry::Args),
    /// Look at and change the members of the registry and the branches of the bank
    Cluster(cluster::Args),
    /// Look at transfers between branches, and end one that hangs
    Txn(txn::Args),
    /// Prove that the books of the whole bank are right, while it serves
    #[command(subcommand)]
    Audit(audit::Command),
    /// Show what the bank does when things go wrong, and check the outcome
    #[command(subcommand)]
    Demo(demo::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Add, list and change the users of a branch
    #[command(subcommand)]
    User(user::Command),
    // What these tell at more length stands where their flags are.
    #[command(about = "Put load on a branch and measure it")]
    Load(tally_client::load::LoadArgs),
    #[command(about = "Play the payments of a file and reconcile every balance")]
    Replay(tally_client::replay::ReplayArgs),
    #[command(about = "Run the canonical benchmark")]
    Bench(tally_benches::BenchArgs),
    /// Run the branch in simulation, one seed after the other
    Sim(tally_sim::SimArgs),
    /// Torture a real server: kill it, cut its power, fail its disk
    #[command(subcommand)]
    Torture(tally_sim::torture::Args),
}

fn main() -> ExitCode {
    // Two crypto providers in one process would make TLS panic; this makes the choice, first thing.
    tally_branch_server::tls::install_crypto_provider();
    let command = Cli::parse().command;
    if !matches!(command, Command::BranchServer(_) | Command::Registry(_)) {
        broken_pipe::end_quietly();
    }
    let result = match command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(&args),
        Command::Shell(args) => shell::run(&args),
        Command::BranchServer(args) => branch_server::run(&args),
        Command::Registry(args) => registry::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Txn(args) => txn::run(&args),
        Command::Audit(command) => audit::run(&command),
        Command::Demo(command) => demo::run(&command),
        Command::Config(command) => config::run(&command),
        Command::User(command) => user::run(&command),
        Command::Load(args) => tally_client::load::run(&args),
        Command::Replay(args) => tally_client::replay::run(&args),
        Command::Bench(args) => tally_benches::run(&args),
        Command::Sim(args) => tally_sim::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Torture(args) => tally_sim::torture::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tally: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
