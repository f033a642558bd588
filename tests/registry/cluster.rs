//! Registry nodes as real processes with real TLS.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tally_branch_server::tls::dev::{Authority, Service};
use tally_protocol::BranchId;
use tally_registry::link::Tls;

use crate::proxy::Proxy;

/// Nothing in these tests takes that long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry under test, and the authority of its bank.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    pub(crate) nodes: Vec<Node>,
}

/// One node, running or not.
pub(crate) struct Node {
    pub(crate) id: u64,
    dir: PathBuf,
    pub(crate) address: SocketAddr,
    founds: bool,
    child: Option<Child>,
    /// Where the other nodes reach it, if not at its own address.
    proxy: Option<Proxy>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago: a node that comes back has to come back to the same one.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

impl Cluster {
    /// One node that leads.
    pub(crate) fn start() -> Self {
        Self::start_behind(false)
    }

    fn start_behind(proxies: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { folder, nodes: Vec::new() };
        let authority = cluster.authority();
        authority.issue(&cluster.tls_dir("operator"), Service::Operator).expect("issued");
        cluster.add_behind(1, true, proxies);
        cluster.wait("a leader", |status| status["serving"] == true);
        cluster
    }

    /// Three nodes, the first of which leads.
    pub(crate) fn start_three() -> Self {
        Self::three(false)
    }

    /// Three nodes that can be cut off from each other.
    pub(crate) fn start_three_behind_proxies() -> Self {
        Self::three(true)
    }

    fn three(proxies: bool) -> Self {
        let mut cluster = Self::start_behind(proxies);
        for id in [2, 3] {
            cluster.add_behind(id, false, proxies);
            cluster.join(id, &[]).expect("joined");
        }
        cluster
    }

    /// From here on no node reaches another, and nobody who was sent from one node to another arrives; or all do again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.nodes.iter().filter_map(|node| node.proxy.as_ref()).for_each(|proxy| proxy.cut(is_cut));
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.folder.path().join("authority")).expect("made")
    }

    fn tls_dir(&self, who: &str) -> PathBuf {
        self.folder.path().join("tls").join(who)
    }

    /// A node that founds a registry, or waits to be joined.
    pub(crate) fn add(&mut self, id: u64, founds: bool) {
        self.add_behind(id, founds, false);
    }

    fn add_behind(&mut self, id: u64, founds: bool, proxy: bool) {
        let dir = self.folder.path().join(format!("node-{id}"));
        self.authority().issue(&dir.join("tls"), Service::Registry(id)).expect("issued");
        let address = free_address();
        let proxy = proxy.then(|| Proxy::start(address));
        let mut node = Node { id, dir, address, founds, child: None, proxy };
        node.start();
        self.nodes.push(node);
    }

    /// The certificate of a branch.
    pub(crate) fn branch_tls(&self, id: BranchId) -> Tls {
        let files =
            self.authority().issue(&self.tls_dir(&format!("branch-{id}")), Service::Branch(id)).expect("issued");
        Tls::load(&files.cert_file, &files.key_file, &files.ca_file).expect("fresh certificates")
    }

    /// Where nodes are, those that run first.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.to_string()).collect()
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("added")
    }

    /// `tally audit balance`: how it ended, and what it printed.
    pub(crate) fn audit(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["audit", "balance"], arguments].concat());
        let answer = serde_json::from_slice(&output.stdout);
        let answer = answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().expect("it ended by itself"), answer)
    }

    /// `tally <arguments> --json`; what it prints, or its error line.
    pub(crate) fn tally(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.run(arguments);
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
        command.args(arguments).arg("--json").arg("--tls").arg(self.tls_dir("operator"));
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            command.arg("--registry").arg(node.address.to_string());
        }
        command.output().expect("the program runs")
    }

    /// `tally cluster join`.
    pub(crate) fn join(&self, id: u64, more: &[&str]) -> Result<Value, String> {
        let node = self.nodes.iter().find(|node| node.id == id).expect("added");
        node.wait_until_it_listens();
        let endpoint = node.endpoint();
        self.tally(&[&["cluster", "join", &endpoint], more].concat())
    }

    /// Waits until `tally cluster status` says so, and returns it.
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait(what, || match self.tally(&["cluster", "status"]) {
            Ok(status) if is_so(&status) => Ok(status),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error),
        })
    }

    /// Who leads and serves.
    pub(crate) fn leader(&self) -> u64 {
        let status = self.wait("a leader", |status| status["leader"].is_u64());
        status["leader"].as_u64().expect("just looked")
    }
}

impl Node {
    /// Starts the process.
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("node.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
        command.args(["registry", "--stop-on-stdin-eof", "--dir"]).arg(&self.dir).stdin(Stdio::piped());
        for setting in [
            format!("node.id={}", self.id),
            format!("node.address={}", self.address),
            format!("node.endpoint={}", self.endpoint()),
            format!("node.found={}", self.founds),
            "raft.segment_len_bytes=4194304".to_owned(),
            "raft.snapshot_entries=500".to_owned(),
            "raft.free_bytes_min=0".to_owned(),
            "output.format=text".to_owned(),
        ] {
            command.arg("--set").arg(setting);
        }
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the program runs"));
    }

    fn endpoint(&self) -> String {
        self.proxy.as_ref().map_or(self.address, |proxy| proxy.address).to_string()
    }

    /// SIGSTOP: it hangs; or SIGCONT: it goes on.
    pub(crate) fn freeze(&self, is_stopped: bool) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("running"));
        let signal = if is_stopped { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).expect("our child");
    }

    fn wait_until_it_listens(&self) {
        wait("a port that answers", || std::net::TcpStream::connect(self.address).map_err(|error| error.to_string()));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().expect("our child");
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("running");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
        let status = wait("the end of a node", || match child.try_wait().expect("our child") {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        });
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Everything is gone but the certificate.
    pub(crate) fn lose_disk(&mut self) {
        self.kill();
        for name in ["raft", "snapshots"] {
            std::fs::remove_dir_all(self.dir.join(name)).expect("there");
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("node.log")).unwrap_or_default()
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Looks until it is so.
pub(crate) fn wait<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    let (begun, mut look) = (Instant::now(), look);
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(begun.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
