//! The processes of a bank: started in order, and stopped in the opposite one.
//!
//! ```text
//!   start:  registry's nodes ready -> branches -> all ready      stop:  branches -> registry's nodes
//! ```
//!
//! What runs already is left alone: a bank of which one process was lost gets that one back.
//!
//! Invariant: a start that fails leaves nothing of what it started.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tally_branch_server::config::{Config, Layers, Source};
use tally_branch_server::server::{FolderLock, RunFile};
use tally_client::ConnectFile;

use super::layout::{Layout, Member};
use super::nodes;
use super::process::{Role, ServerProcess};
use crate::commands::config::ConfigArgs;

/// Keys that every branch must have for itself.
const OWN_KEYS: [&str; 4] = ["branch.id", "branch.dir", "listen.address", "registry.endpoints"];

/// How long a process that was killed may take to end.
const ENDING_MAX: Duration = Duration::from_secs(30);
const ENDING_POLL: Duration = Duration::from_millis(20);

/// What `tally up` was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// `section.key` and value, for every branch.
    pub(crate) assignments: Vec<(String, String)>,
    /// The first branch's port.
    pub(crate) port: Option<u16>,
    /// Whether the processes outlive this one.
    pub(crate) detach: bool,
}

/// One process, ours or one that ran before.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    /// Where it listens, once it is ready.
    run_file: Option<RunFile>,
    /// With what it was started over its configuration file.
    settings: Vec<(String, String)>,
    role: Role,
    process: Option<ServerProcess>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Running {
    // In the order in which they stop when this is dropped.
    pub(crate) branches: Vec<(Config, Served)>,
    /// The registry's nodes, the first one first; none for a bank of one branch.
    pub(crate) registry: Vec<Served>,
}

impl Wishes {
    /// The configuration of a branch. A folder without a `branch.toml` will get one that changes nothing but the number.
    pub(crate) fn layers(&self, dir: &Path) -> anyhow::Result<Layers> {
        let file = Role::Branch.config_file(dir);
        let config = ConfigArgs {
            config: file.exists().then_some(file),
            dir: Some(dir.to_owned()),
            assignments: self.assignments.clone(),
        };
        Ok(config.layers()?)
    }

    /// What cannot be said to several branches at once is refused.
    pub(crate) fn check(&self, layout: &Layout) -> anyhow::Result<()> {
        if !layout.registry_dirs().is_empty()
            && let Some((name, _)) = self.assignments.iter().find(|(name, _)| OWN_KEYS.contains(&&**name))
        {
            bail!("--set {name} would say the same to every branch; put it into their branch.toml");
        }
        Ok(())
    }
}

impl Running {
    /// Starts what does not run yet of a bank that is prepared. `before` says where it was the last time.
    pub(crate) fn start(layout: &Layout, wishes: &Wishes, before: &ConnectFile) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !is_whole(layout)?,
            "a bank is running in {} already; its connect.json says where",
            layout.dir().display()
        );
        let registry = nodes::start(layout, before, wishes.detach)?;
        let mut running = Self { branches: Vec::new(), registry };
        let mut taken = BTreeMap::new();
        for (branch_index, member) in layout.members().iter().enumerate() {
            let branch = running.start_branch(branch_index, member, wishes, before, &mut taken)?;
            running.branches.push(branch);
        }
        for (_, served) in &mut running.branches {
            served.wait_until_ready()?;
        }
        Ok(running)
    }

    fn start_branch(
        &self,
        branch_index: usize,
        member: &Member,
        wishes: &Wishes,
        before: &ConnectFile,
        taken: &mut BTreeMap<SocketAddr, PathBuf>,
    ) -> anyhow::Result<(Config, Served)> {
        let layers = wishes.layers(&member.dir)?;
        let config = Config::check(&layers).with_context(|| format!("{}", member.dir.display()))?;
        if let Some(expected) = member.branch_id
            && config.branch.id != expected
        {
            bail!("{}: branch.id is {}, not {expected}", member.dir.display(), config.branch.id);
        }
        if let Some(served) = Served::already(Role::Branch, &member.dir)? {
            return Ok((config, served));
        }
        let mut settings = wishes.assignments.clone();
        let port = wishes.port.filter(|_| branch_index == 0);
        let known = endpoint_before(before, config.branch.id.get());
        let chosen = choose_address(&layers, &config, port, known)?;
        // The kernel would let two servers of one user share a port, and spread the clients over both.
        for address in [Some(chosen.unwrap_or(config.listen.address)), config.metrics_address].into_iter().flatten() {
            if address.port() != 0
                && let Some(other) = taken.insert(address, member.dir.clone())
            {
                bail!("{} and {} would both listen at {address}", other.display(), member.dir.display());
            }
        }
        settings.extend(chosen.map(|address| ("listen.address".to_owned(), address.to_string())));
        if !self.registry.is_empty() {
            let endpoints: Vec<_> = self.registry.iter().map(|node| node.run_file().address.to_string()).collect();
            settings.push(("registry.endpoints".to_owned(), endpoints.join(",")));
        }
        Ok((config, Served::start(Role::Branch, &member.dir, settings, wishes.detach)?))
    }

    /// All go on without us.
    pub(crate) fn leave_running(self) {
        let processes = self.branches.into_iter().map(|(_, served)| served).chain(self.registry);
        processes.filter_map(|served| served.process).for_each(ServerProcess::leave_running);
    }

    /// Stops what we started, and waits until it has ended.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        for process in self.branches.into_iter().filter_map(|(_, served)| served.process) {
            process.stop()?;
        }
        for process in self.registry.into_iter().filter_map(|served| served.process) {
            process.stop()?;
        }
        Ok(())
    }
}

impl Served {
    /// One that runs in `dir` already.
    pub(super) fn already(role: Role, dir: &Path) -> anyhow::Result<Option<Self>> {
        if !is_running(dir)? {
            return Ok(None);
        }
        let run_file = RunFile::read(dir)?
            .with_context(|| format!("a server is starting or stopping in {}; try again", dir.display()))?;
        Ok(Some(Self { dir: dir.to_owned(), run_file: Some(run_file), settings: Vec::new(), role, process: None }))
    }

    pub(super) fn start(role: Role, dir: &Path, settings: Vec<(String, String)>, detach: bool) -> anyhow::Result<Self> {
        let process = ServerProcess::start(role, dir, &settings, detach)?;
        Ok(Self { dir: dir.to_owned(), run_file: None, settings, role, process: Some(process) })
    }

    /// Waits until it serves.
    pub(super) fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process {
            self.run_file = Some(process.wait_until_ready()?);
        }
        Ok(())
    }

    /// Waits until it takes connections, whether it serves or not.
    pub(super) fn wait_until_listening(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process {
            self.run_file = Some(process.wait_until_listening()?);
        }
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn run_file(&self) -> &RunFile {
        self.run_file.as_ref().expect("whoever has it has waited until it was ready")
    }

    /// Ends it at once, as a crash would. Only for what we started.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it is not ours")?.kill()
    }

    /// Starts it again where it was, after [`Self::kill`].
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        let address = self.run_file().address.to_string();
        let name = match self.role {
            Role::Branch => "listen.address",
            Role::Registry => "node.address",
        };
        let mut settings = self.settings.clone();
        settings.retain(|(known, _)| known != name);
        settings.push((name.to_owned(), address));
        self.process = Some(ServerProcess::start(self.role, &self.dir, &settings, false)?);
        self.wait_until_ready()
    }
}

/// Whether every process of the bank runs.
fn is_whole(layout: &Layout) -> anyhow::Result<bool> {
    let members = layout.members().into_iter().map(|member| member.dir);
    for dir in members.chain(layout.registry_dirs()) {
        if !dir.is_dir() || !is_running(&dir)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a process serves the data folder `dir`. The lock says so; a process id alone may be somebody else's by now.
///
/// One that was killed keeps the lock until its last thread has ended, and one of them may wait for the disk: such a folder is
/// waited for.
pub(crate) fn is_running(dir: &Path) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while FolderLock::try_take(dir).with_context(|| format!("{}", dir.display()))?.is_none() {
        if !is_ending(dir)? || begun.elapsed() > ENDING_MAX {
            return Ok(true);
        }
        std::thread::sleep(ENDING_POLL);
    }
    Ok(false)
}

/// Whether of the process that last served `dir` no more than threads are left.
fn is_ending(dir: &Path) -> anyhow::Result<bool> {
    let Some(RunFile { pid, .. }) = RunFile::read(dir)? else { return Ok(false) };
    // The name in front of the state may hold anything, also a bracket.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = state.ok().and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
    Ok(matches!(state, None | Some('Z' | 'X')))
}

fn endpoint_before(before: &ConnectFile, branch_id: u16) -> Option<SocketAddr> {
    let branch = before.branches.iter().find(|branch| branch.branch_id == branch_id);
    // A file of a bank of one branch may tell of it only outside `branches`.
    let alone = (before.branch_id == branch_id).then_some(&before.endpoint);
    branch.map(|branch| &branch.endpoint).or(alone)?.parse().ok()
}

/// Whether nobody listens there.
pub(super) fn is_free(address: &SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Where a branch is told to listen; `None` where its configuration says so already.
fn choose_address(
    layers: &Layers,
    config: &Config,
    port: Option<u16>,
    before: Option<SocketAddr>,
) -> anyhow::Result<Option<SocketAddr>> {
    let source = layers.show().find(|(key, ..)| key.name == "listen.address").map(|(.., source)| source);
    let configured = config.listen.address;
    match (port, source.context("the server has a listen.address")?) {
        (Some(_), Source::Flag) => bail!("--port and --set listen.address: give only one of them"),
        (Some(port), _) => Ok(Some(SocketAddr::new(configured.ip(), port))),
        (None, Source::Default) => {
            let port = before.filter(is_free).map_or(0, |address| address.port());
            Ok(Some(SocketAddr::new(configured.ip(), port)))
        }
        (None, Source::File(_) | Source::Env(_) | Source::Flag) => Ok(None),
    }
}
