//! The nodes of a bank's registry: started together, and joined to the first one where they are new.
//!
//! Invariant: a node is joined once; afterwards it finds the others by its own log, so any majority can start without the
//! first one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use tally_client::ConnectFile;
use tally_registry::client::{self, CallError};
use tally_registry::link::Tls;

use super::layout::Layout;
use super::process::Role;
use super::running::{Served, is_free};

/// How often a registry is looked for that has no leader yet; each time takes some seconds.
const LOOKS_MAX: usize = 10;

/// Starts those nodes that do not run, and waits until all of them belong to one registry.
pub(super) fn start(layout: &Layout, before: &ConnectFile, detach: bool) -> anyhow::Result<Vec<Served>> {
    let known = before.registry.as_ref().map_or(&[][..], |registry| &registry.endpoints[..]);
    let mut nodes = Vec::new();
    for (node_index, dir) in layout.registry_dirs().into_iter().enumerate() {
        let address = known.get(node_index).and_then(|endpoint| endpoint.parse().ok());
        nodes.push(start_node(dir, address, detach)?);
    }
    for node in &mut nodes {
        node.wait_until_listening()?;
    }
    if nodes.len() > 1 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(join(layout, &nodes))?;
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    Ok(nodes)
}

fn start_node(dir: PathBuf, known: Option<SocketAddr>, detach: bool) -> anyhow::Result<Served> {
    if let Some(served) = Served::already(Role::Registry, &dir)? {
        return Ok(served);
    }
    // A registry knows its nodes by their endpoints, so the port is chosen before the node joins.
    let address = match known.filter(is_free) {
        Some(address) => address,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
    };
    Served::start(Role::Registry, &dir, vec![("node.address".to_owned(), address.to_string())], detach)
}

/// Joins the nodes that no member knows.
async fn join(layout: &Layout, nodes: &[Served]) -> anyhow::Result<()> {
    let file = |name: &str| layout.dir().join("tls").join(name);
    let tls = Tls::load(&file("operator.pem"), &file("operator.key"), &file("ca.pem"))?;
    let endpoints: Vec<String> = nodes.iter().map(|node| node.run_file().address.to_string()).collect();
    let status = status(&tls, &endpoints).await?;
    let voters: Vec<&Value> = status["nodes"].as_array().map_or(Vec::new(), |nodes| {
        nodes.iter().filter(|node| node["voter"] == true).map(|node| &node["endpoint"]).collect()
    });
    for endpoint in endpoints.iter().filter(|endpoint| !voters.contains(&&Value::from(endpoint.as_str()))) {
        let request = json!({ "call": "cluster_join", "endpoint": endpoint });
        client::call(&tls, &endpoints, &request).await.with_context(|| format!("joining {endpoint}"))?;
    }
    Ok(())
}

/// What the leader says; nodes that all started just now elect one first.
async fn status(tls: &Tls, endpoints: &[String]) -> Result<Value, CallError> {
    let request = json!({ "call": "cluster_status" });
    for _ in 1..LOOKS_MAX {
        match client::call(tls, endpoints, &request).await {
            Err(CallError::NoLeader(_) | CallError::Unreachable(_)) => {}
            answered => return answered,
        }
    }
    client::call(tls, endpoints, &request).await
}
