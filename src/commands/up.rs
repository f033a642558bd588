//! `tally up`: a whole development bank in a folder. Registry and branches are real child processes of the same
//! program, with mutual TLS between them; this process is only their first client.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use tally_branch_server::config::Config;
use tally_client::ConnectFile;

use super::bank::running::Wishes;
use super::bank::{Layout, Running, prepare, published, serving_bank};
use super::config::parse_assignment;
use super::prompt;

/// Starts a development bank: makes the folder on the first start, recovers it on later ones
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Data folder
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
    /// How many branches. With 1 the bank has no registry; without this a new bank has 2, an old one those that it has.
    /// A bank with a registry may grow
    #[arg(long, value_name = "N")]
    branches: Option<u16>,
    /// How many nodes the registry has: 1, 3 or 5. Without this a new bank has 1, an old one those that it has; a registry
    /// may grow
    #[arg(long, value_name = "N")]
    registry_nodes: Option<u16>,
    /// Leave the bank running and return
    #[arg(long)]
    detach: bool,
    /// Port for clients of the first branch; by default that of listen.address where this is configured, else the one
    /// that the folder had before, or a free one
    #[arg(long)]
    port: Option<u16>,
    /// Overrides one configuration key of every branch
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = parse_assignment)]
    assignments: Vec<(String, String)>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(&args.dir, args.branches)?.with_nodes(args.registry_nodes)?;
    let wishes = Wishes { assignments: args.assignments, port: args.port, detach: args.detach };
    wishes.check(&layout)?;
    // A bad value is told before anything is made.
    let config = Config::check(&wishes.layers(&layout.members()[0].dir)?)?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("{}", args.dir.display()))?;
    let layout = layout.canonical()?;
    let prepared = prepare::prepare(&layout, config.branch.id)?;
    let is_new = prepared.is_new;
    let running = Running::start(&layout, &wishes, &prepared.file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let file = runtime.block_on(published(&layout, &running, prepared))?;
    introduce(layout.dir(), &file, is_new);
    if args.detach {
        running.leave_running();
        println!("Stop it with `tally down --dir {}`.", args.dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    prompt::run(&runtime, &serving_bank(&file), &file, false)?;
    println!("stopping ...");
    // Its connections end with it.
    drop(runtime);
    running.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn introduce(dir: &Path, file: &ConnectFile, is_new: bool) {
    let what = if is_new { "A new bank" } else { "The bank" };
    match &file.registry {
        None => {
            println!("{what} serves at {} (TLS 1.3), process {}.", file.endpoint, file.pid);
            if let Some(metrics) = &file.metrics {
                println!("Metrics: {metrics}");
            }
        }
        Some(registry) => {
            println!("{what} of {} branches serves (TLS 1.3):", file.branches.len());
            let describe = |what: &str, endpoint: &str, pid: u32, metrics: &Option<String>| {
                println!("  {what:<9} {endpoint:<16} process {pid:<8} {}", metrics.as_deref().unwrap_or_default());
            };
            for node in &registry.nodes {
                describe("registry", &node.endpoint, node.pid, &node.metrics);
            }
            for branch in &file.branches {
                describe(&format!("branch {}", branch.branch_id), &branch.endpoint, branch.pid, &branch.metrics);
            }
        }
    }
    if file.users.is_empty() {
        return;
    }
    println!("Log in with these users (they are in {}, too):", ConnectFile::path(dir).display());
    for user in &file.users {
        let home = file
            .branches
            .iter()
            .filter(|_| file.registry.is_some())
            .find(|branch| branch.accounts.iter().any(|account| account.owner == user.customer_id));
        let home = home.map_or(String::new(), |branch| format!(" of branch {}", branch.branch_id));
        println!("  {:<8} {}  {}{home}", user.name, user.password, user.role);
    }
}

/// Whether a person sits at the other end.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
