//! `tally up`: a whole development bank in a folder. The branch is a real child process of the same
//! program, reached over real TLS; this process is only its first client.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use tally_branch_server::config::{Config, Layers, Source};
use tally_branch_server::server::FolderLock;
use tally_client::ConnectFile;

use super::child::ServerProcess;
use super::config::{ConfigArgs, parse_assignment};
use super::{dev_bank, prompt};

/// Starts a development bank: makes the folder on the first start, recovers it on later ones
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Data folder
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
    /// Leave the bank running and return
    #[arg(long)]
    detach: bool,
    /// Port for clients; by default that of listen.address where this is configured, else the one that the folder had
    /// before, or a free one
    #[arg(long)]
    port: Option<u16>,
    /// Overrides one configuration key of the branch
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = parse_assignment)]
    assignments: Vec<(String, String)>,
}

impl Args {
    /// The configuration that the server will read. A folder without a `branch.toml` will get one that changes
    /// nothing.
    fn layers(&self) -> anyhow::Result<Layers> {
        let file = self.dir.join("branch.toml");
        let config = ConfigArgs {
            config: file.exists().then_some(file),
            dir: Some(self.dir.clone()),
            assignments: self.assignments.clone(),
        };
        Ok(config.layers()?)
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A bad value is told before anything is made.
    let layers = args.layers()?;
    let config = Config::check(&layers)?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("{}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    anyhow::ensure!(
        FolderLock::try_take(&dir)?.is_some(),
        "a bank is running in {} already; its connect.json says where",
        dir.display()
    );
    let prepared = dev_bank::prepare(&dir, config.branch.id)?;
    let is_new = prepared.is_new;
    let mut settings = args.assignments.clone();
    let before = prepared.file.endpoint.parse().ok();
    if let Some(address) = choose_address(&layers, &config, args.port, before)? {
        settings.push(("listen.address".to_owned(), address.to_string()));
    }
    let mut server = ServerProcess::start(&dir, &settings, args.detach)?;
    let run_file = server.wait_until_ready()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let file = runtime.block_on(dev_bank::publish(&dir, &config, &run_file, prepared))?;
    introduce(&dir, &file, is_new);
    if args.detach {
        server.leave_running();
        println!("Stop it with `tally down --dir {}`.", args.dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    prompt::run(&runtime, &dev_bank::teller(&file), &file)?;
    println!("stopping ...");
    // Its connections end with it.
    drop(runtime);
    server.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Where the server is told to listen; `None` where its configuration says so already.
fn choose_address(
    layers: &Layers,
    config: &Config,
    port: Option<u16>,
    before: Option<SocketAddr>,
) -> anyhow::Result<Option<SocketAddr>> {
    let source = layers.show().find(|(key, ..)| key.name == "listen.address").map(|(.., source)| source);
    let configured = config.listen.address;
    match (port, source.context("the server has a listen.address")?) {
        (Some(_), Source::Flag) => anyhow::bail!("--port and --set listen.address: give only one of them"),
        (Some(port), _) => Ok(Some(SocketAddr::new(configured.ip(), port))),
        (None, Source::Default) => {
            let is_free = |address: &SocketAddr| tally_branch_server::acceptor::bind(*address, 1).is_ok();
            let port = before.filter(is_free).map_or(0, |address| address.port());
            Ok(Some(SocketAddr::new(configured.ip(), port)))
        }
        (None, Source::File(_) | Source::Env(_) | Source::Flag) => Ok(None),
    }
}

fn introduce(dir: &Path, file: &ConnectFile, is_new: bool) {
    let what = if is_new { "A new bank" } else { "The bank" };
    println!("{what} serves at {} (TLS 1.3), process {}.", file.endpoint, file.pid);
    if let Some(metrics) = &file.metrics {
        println!("Metrics: {metrics}");
    }
    if file.users.is_empty() {
        return;
    }
    println!("Log in with these users (they are in {}, too):", ConnectFile::path(dir).display());
    for user in &file.users {
        println!("  {:<8} {}  {}", user.name, user.password, user.role);
    }
}

/// Whether a person sits at the other end.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
