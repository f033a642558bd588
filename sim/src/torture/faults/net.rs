//! A network of its own for every process of the bank, and what can go wrong between them.
//!
//! ```text
//!   this process (10.77.0.1) ---bridge---+---veth--- node 1 (10.77.0.11) ...
//!                                        '---veth--- branch 1 (10.77.0.21) ...
//! ```
//!
//! What a process does not hear is dropped where it would come in (nftables), so a link can be cut in one direction, and
//! nobody is told: packets vanish, as they do between real machines.
//!
//! **Invariant:** nothing of it can be left behind: the namespaces have no names, and go with the last process in them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where somebody is: this process, or one of the bank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// The clients.
    Clients,
    /// A node of the registry, from 1.
    Node(u8),
    /// A branch, from 1.
    Branch(u8),
}

impl Site {
    /// Its address.
    pub(crate) fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Clients => 1,
            Self::Node(number) => 10 + number,
            Self::Branch(number) => 20 + number,
        };
        Ipv4Addr::new(10, 77, 0, last)
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Node(number) => write!(f, "node {number}"),
            Self::Branch(number) => write!(f, "branch {number}"),
        }
    }
}

/// A network namespace that lives as long as this, or a process in it.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    /// The one of the calling thread.
    fn current() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/net")?)))
    }

    /// An empty one. A thread makes it and ends.
    fn new() -> io::Result<Self> {
        let made = std::thread::spawn(|| leave_network().and_then(|()| Self::current()));
        made.join().map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
    }

    /// Has `command` run in it.
    pub(crate) fn enter(&self, command: &mut Command) {
        let file = self.0.clone();
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that is open, and touches no
        // memory.
        unsafe {
            command.pre_exec(move || Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
        }
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Moves the calling thread, and what it starts from here on, into an empty network.
fn leave_network() -> io::Result<()> {
    // SAFETY: the call takes no pointer, and the descriptors of this process stay what they are.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Net {
    sites: Vec<(Site, Namespace)>,
    /// Who is not heard: from whom, by whom.
    cut: BTreeSet<(Site, Site)>,
    /// Of a hundred packets that come in, how many are lost.
    lossy: Vec<(Site, u8)>,
}

impl Net {
    /// Networks for `sites`; the calling thread moves into one of its own.
    ///
    /// # Errors
    /// Names what is missing: the right to make namespaces, `ip` or `nft`.
    pub(crate) fn new(sites: &[Site]) -> anyhow::Result<Self> {
        for program in ["ip", "nft"] {
            let found = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.with_context(|| format!("needs the program `{program}` (iproute2 and nftables)"))?;
        }
        leave_network().context("needs network namespaces, and the right to make them (root)")?;
        let here = Namespace::current()?;
        let own = Site::Clients.address();
        ip(&here, "link set lo up")?;
        ip(&here, "link add bank type bridge").context("needs bridges in the kernel")?;
        ip(&here, &format!("addr add {own}/24 dev bank"))?;
        ip(&here, "link set bank up")?;
        let mut net = Self { sites: vec![(Site::Clients, here.clone())], cut: BTreeSet::new(), lossy: Vec::new() };
        for (index, &site) in sites.iter().enumerate() {
            let there = Namespace::new()?;
            ip(&here, &format!("link add v{index} type veth peer name eth0 netns {}", there.path()))
                .context("needs veth in the kernel")?;
            ip(&here, &format!("link set v{index} master bank up"))?;
            for line in ["link set lo up", &format!("addr add {}/24 dev eth0", site.address()), "link set eth0 up"] {
                ip(&there, line)?;
            }
            net.sites.push((site, there));
        }
        for (site, _) in net.sites.clone() {
            net.apply(site).context("needs nftables in the kernel")?;
        }
        Ok(net)
    }

    /// Where `site` is.
    pub(crate) fn namespace(&self, site: Site) -> &Namespace {
        &self.sites.iter().find(|(known, _)| *known == site).expect("every site has a network").1
    }

    /// All of them.
    pub(crate) fn sites(&self) -> Vec<Site> {
        self.sites.iter().map(|(site, _)| *site).collect()
    }

    /// From here on `to` does not hear `from`; or does again.
    pub(crate) fn cut(&mut self, from: Site, to: Site, is_cut: bool) -> anyhow::Result<()> {
        if is_cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
        self.apply(to)
    }

    /// From here on so many of a hundred packets to `site` are lost.
    pub(crate) fn lose(&mut self, site: Site, percent: u8) -> anyhow::Result<()> {
        self.lossy.retain(|(known, _)| *known != site);
        if percent > 0 {
            self.lossy.push((site, percent));
        }
        self.apply(site)
    }

    /// Everybody hears everybody.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        let mut touched: BTreeSet<Site> = self.cut.iter().map(|(_, to)| *to).collect();
        touched.extend(self.lossy.iter().map(|(site, _)| *site));
        self.cut.clear();
        self.lossy.clear();
        touched.into_iter().try_for_each(|site| self.apply(site))
    }

    /// Tells the kernel what `site` does not hear, in one step.
    fn apply(&self, site: Site) -> anyhow::Result<()> {
        let mut command = Command::new("nft");
        self.namespace(site).enter(&mut command);
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().expect("piped").write_all(self.rules(site).as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    fn rules(&self, site: Site) -> String {
        let mut rules =
            "flush ruleset\ntable ip faults {\nchain hears {\ntype filter hook input priority 0;\n".to_owned();
        for (from, _) in self.cut.iter().filter(|(_, to)| *to == site) {
            rules += &format!("ip saddr {} drop\n", from.address());
        }
        for (_, percent) in self.lossy.iter().filter(|(lossy, _)| *lossy == site) {
            rules += &format!("numgen random mod 100 < {percent} drop\n");
        }
        rules + "}\n}\n"
    }
}

/// `ip` with these words, in `namespace`.
fn ip(namespace: &Namespace, words: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    namespace.enter(&mut command);
    let output = command.args(words.split(' ')).output()?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_drop_what_is_cut_at_the_one_who_does_not_hear() {
        let here = Namespace::current().expect("readable");
        let (a, b) = (Site::Node(1), Site::Branch(2));
        let sites = [a, b].map(|site| (site, here.clone())).to_vec();
        let net = Net { sites, cut: BTreeSet::from([(a, b)]), lossy: vec![(a, 7)] };
        assert!(net.rules(b).contains("ip saddr 10.77.0.11 drop") && !net.rules(b).contains("numgen"));
        assert!(net.rules(a).contains("mod 100 < 7 drop") && !net.rules(a).contains("saddr"));
    }
}
