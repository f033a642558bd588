//! The bank under fault: three nodes of the registry and three branches, made from nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tally_branch_server::server::prepare_development_folder;
use tally_branch_server::tls::dev::{Authority, SERVER_NAME, Service};
use tally_branch_server::users::{RoleName, Users};
use tally_client::{Bank, ClientOptions, ConnectInfo, Credentials, RetryPolicy};
use tally_protocol::BranchId;
use tally_registry::client;
use tally_registry::link::Tls;

use super::net::{Net, Site};
use super::operator::Operator;
use super::process::Process;

/// Nodes of the registry.
pub(crate) const NODES: u8 = 3;
/// Branches.
pub(crate) const BRANCHES: u8 = 3;
/// How long everything may take to serve once nothing is in its way.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// How long a call may take: beyond the five seconds in which the registry gathers votes.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
const USER: &str = "teller";

/// Settings under which much happens in little time: small files, checkpoints and snapshots all the time.
const NODE_SETTINGS: [&str; 4] =
    ["raft.segment_len_bytes=4194304", "raft.free_bytes_min=0", "raft.snapshot_entries=500", "output.level=info"];
const BRANCH_SETTINGS: [&str; 7] = [
    "journal.segment_len_bytes=4194304",
    "journal.free_bytes_min=0",
    "checkpoint.interval_s=2",
    "ids.generation_len_max=16384",
    "workers.count=2",
    "accounts.max=10000",
    "holds.max=100000",
];

/// The number of a site as a branch.
pub(crate) fn branch_id(number: u8) -> BranchId {
    BranchId::new(u16::from(number))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    /// The network between them.
    pub(crate) net: Net,
    /// Nodes first, then branches.
    pub(crate) processes: Vec<Process>,
    /// For all load.
    pub(crate) bank: Bank,
    pub(crate) operator: Operator,
}

impl World {
    /// Makes the bank in `dir`, and waits until all of it serves.
    pub(crate) async fn create(dir: &Path) -> anyhow::Result<Self> {
        let sites: Vec<Site> = (1..=NODES).map(Site::Node).chain((1..=BRANCHES).map(Site::Branch)).collect();
        let net = Net::new(&sites)?;
        let authority = Authority::open(&dir.join("authority"))?;
        let operator_dir = dir.join("operator");
        let operator = authority.issue(&operator_dir, Service::Operator)?;
        let password = format!("{:032x}", rand::random::<u128>());
        let mut users = Users::default();
        users.add(USER, &password, RoleName::Teller, 0)?;
        let mut processes = Vec::new();
        for &site in &sites {
            let place = dir.join(site.to_string().replace(' ', "-"));
            match site {
                Site::Node(number) => {
                    authority.issue(&place.join("tls"), Service::Registry(number.into()))?;
                }
                Site::Branch(number) => {
                    authority.issue(&place.join("tls"), Service::Clients)?;
                    authority.issue(&place.join("tls"), Service::Branch(branch_id(number)))?;
                    prepare_development_folder(&place)?;
                    users.save(&Users::path(&place))?;
                }
                Site::Clients => {}
            }
            processes.push(Process::new(site, net.namespace(site).clone(), &place));
        }
        let endpoints: Vec<String> = (1..=BRANCHES).map(|number| Process::endpoint(Site::Branch(number))).collect();
        let credentials = Credentials::Password { user: USER.to_owned(), password };
        let info = ConnectInfo::new(endpoints[0].clone(), SERVER_NAME, &operator.ca_file, credentials)?;
        let options = ClientOptions { connections: 2, deadline: CALL_DEADLINE, retry: RetryPolicy::NEVER };
        let bank = Bank::with_endpoints(info, endpoints, options)?;
        let mut world = Self { net, processes, bank, operator: Operator::new(&operator_dir) };
        world.begin(&Tls::load(&operator.cert_file, &operator.key_file, &operator.ca_file)?).await?;
        Ok(world)
    }

    /// Starts everything for the first time.
    async fn begin(&mut self, operator: &Tls) -> anyhow::Result<()> {
        let nodes: Vec<String> = (1..=NODES).map(|number| Process::endpoint(Site::Node(number))).collect();
        for number in 1..=NODES {
            self.start(Site::Node(number))?;
        }
        self.until("the first node leads", |world| world.process(Site::Node(1)).is_ready()).await?;
        for endpoint in &nodes[1..] {
            // The port may not be open yet.
            let begun = Instant::now();
            let request = json!({ "call": "cluster_join", "endpoint": endpoint });
            while let Err(error) = client::call(operator, &nodes[..1], &request).await {
                ensure!(begun.elapsed() < SERVE_PATIENCE, "joining {endpoint}: {error}");
                tokio::time::sleep(LOOK).await;
            }
        }
        for number in 1..=BRANCHES {
            self.start(Site::Branch(number))?;
        }
        self.wait_until_serving().await.map(|_| ())
    }

    /// The process at `site`.
    pub(crate) fn process(&self, site: Site) -> &Process {
        self.processes.iter().find(|process| process.site() == site).expect("every site has a process")
    }

    /// The same, to be changed.
    pub(crate) fn process_mut(&mut self, site: Site) -> &mut Process {
        self.processes.iter_mut().find(|process| process.site() == site).expect("every site has a process")
    }

    /// The branches.
    pub(crate) fn branches(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| matches!(process.site(), Site::Branch(_)))
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| matches!(process.site(), Site::Node(_)))
    }

    /// Who leads and serves, if that can be seen.
    pub(crate) fn leader(&self) -> Option<&Process> {
        self.nodes().find(|node| node.metric("tally_registry_leading") == Some(1.0))
    }

    /// Starts the process at `site`, over what is in its folder.
    pub(crate) fn start(&mut self, site: Site) -> anyhow::Result<()> {
        let owned = |settings: &[&str]| settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>();
        let settings = match site {
            Site::Node(number) => {
                let own = [format!("node.id={number}"), format!("node.found={}", number == 1)];
                [&owned(&NODE_SETTINGS)[..], &own].concat()
            }
            Site::Branch(number) => {
                let nodes: Vec<String> = (1..=NODES).map(|node| Process::endpoint(Site::Node(node))).collect();
                let own = [format!("branch.id={number}"), format!("registry.endpoints={}", nodes.join(","))];
                [&owned(&BRANCH_SETTINGS)[..], &own].concat()
            }
            Site::Clients => Vec::new(),
        };
        self.process_mut(site).start(&settings)
    }

    /// Ends every fault: all processes run, and everybody hears everybody.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        self.net.heal()?;
        for process in &mut self.processes {
            process.freeze(false)?;
            process.check()?;
        }
        let gone: Vec<Site> =
            self.processes.iter().filter(|process| !process.is_running()).map(Process::site).collect();
        gone.into_iter().try_for_each(|site| self.start(site))
    }

    /// Waits until every process serves and every branch has the registry's leader. Returns how long that took.
    pub(crate) async fn wait_until_serving(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.until("everybody serves", |world| {
            world.processes.iter().all(Process::is_ready)
                && world.leader().is_some()
                && world.branches().all(|branch| branch.metric("tally_two_phase_linked") == Some(1.0))
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Looks until it is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_so(self) {
            ensure!(begun.elapsed() < SERVE_PATIENCE, "waited {SERVE_PATIENCE:?} in vain until {what}");
            self.processes.iter_mut().try_for_each(Process::check).with_context(|| format!("until {what}"))?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
