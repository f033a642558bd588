//! `connect.json` of a bank that serves: where everything is, and the sample customers' accounts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tally_client::{
    Bank, Client, ClientOptions, ConnectFile, ConnectFileAccount, ConnectFileBranch, ConnectFileNode,
    ConnectFileRegistry, ConnectInfo,
};
use tally_protocol::link::BranchStatus;
use tally_protocol::{AccountId, BranchId};

use super::layout::Layout;
use super::prepare::{Prepared, write};
use super::running::{Running, Served};
use super::samples;

/// How long the branches of a bank may take to hear of each other.
const JOINED_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Writes `connect.json` for the processes that run now, once the sample customers have their accounts and the branches
/// know each other.
pub(crate) async fn published(layout: &Layout, running: &Running, prepared: Prepared) -> anyhow::Result<ConnectFile> {
    let Prepared { mut file, is_new } = prepared;
    let known = std::mem::take(&mut file.branches);
    file.ca_file = std::path::absolute(&running.branches[0].0.tls.ca_file)?;
    for (config, served) in &running.branches {
        let branch_id = config.branch.id.get();
        let accounts = known.iter().find(|branch| branch.branch_id == branch_id).map(|branch| branch.accounts.clone());
        let is_first = file.branches.is_empty();
        file.branches.push(ConnectFileBranch {
            branch_id,
            endpoint: reachable(served.run_file().address).to_string(),
            metrics: metrics_of(served),
            pid: served.run_file().pid,
            dir: served.dir.clone(),
            // A file of a bank of one branch may tell of its accounts only outside `branches`.
            accounts: accounts.unwrap_or_else(|| if is_first { file.accounts.clone() } else { Vec::new() }),
        });
    }
    file.registry = registry_of(layout, &running.registry)?;
    file.endpoints = file.branches.iter().map(|branch| branch.endpoint.clone()).collect();
    show_first(&mut file);
    for branch_index in 0..file.branches.len() {
        if !file.branches[branch_index].accounts.is_empty() || file.users.is_empty() {
            continue;
        }
        match open_accounts(&file, branch_index).await.context("opening the sample accounts") {
            Ok(accounts) => file.branches[branch_index].accounts = accounts,
            Err(error) if is_new => return Err(error),
            // Its users may be others by now. It is served as it is, and the next start tries again.
            Err(error) => eprintln!("{error:#}; the bank is served without them"),
        }
    }
    show_first(&mut file);
    if file.registry.is_some()
        && let Err(error) = wait_until_joined(&file).await
    {
        if is_new {
            return Err(error);
        }
        eprintln!("{error:#}; the bank is served all the same");
    }
    write(layout.dir(), &file)?;
    Ok(file)
}

/// What clients that know one branch only are told: the first one.
fn show_first(file: &mut ConnectFile) {
    let first = &file.branches[0];
    file.branch_id = first.branch_id;
    file.endpoint = first.endpoint.clone();
    file.metrics = first.metrics.clone();
    file.pid = first.pid;
    file.accounts = first.accounts.clone();
}

fn registry_of(layout: &Layout, served: &[Served]) -> anyhow::Result<Option<ConnectFileRegistry>> {
    let nodes: Vec<_> = served
        .iter()
        .map(|node| ConnectFileNode {
            endpoint: reachable(node.run_file().address).to_string(),
            metrics: metrics_of(node),
            pid: node.run_file().pid,
            dir: node.dir.clone(),
        })
        .collect();
    let Some(first) = nodes.first().cloned() else { return Ok(None) };
    let tls = std::path::absolute(layout.dir())?.join("tls");
    Ok(Some(ConnectFileRegistry {
        endpoints: nodes.iter().map(|node| node.endpoint.clone()).collect(),
        ca_file: tls.join("ca.pem"),
        cert_file: tls.join("operator.pem"),
        key_file: tls.join("operator.key"),
        metrics: first.metrics,
        pid: first.pid,
        dir: first.dir,
        nodes,
    }))
}

fn metrics_of(served: &Served) -> Option<String> {
    served.run_file().metrics.map(|address| format!("http://{}/metrics", reachable(address)))
}

/// Where a client on this machine finds a server that listens at `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}

/// The bank for the teller, who serves everybody. It logs in when it is first used.
pub(crate) fn serving_bank(file: &ConnectFile) -> anyhow::Result<Bank> {
    Ok(Bank::with_endpoints(teller(file)?, file.endpoints.clone(), ClientOptions::default())?)
}

fn teller(file: &ConnectFile) -> anyhow::Result<ConnectInfo> {
    let teller = file.user_with_role("teller").context("connect.json names no teller")?;
    Ok(file.connect_info(Some(&teller.name))?)
}

/// The teller at one branch, however the bank is wired.
fn teller_at(file: &ConnectFile, endpoint: &str) -> anyhow::Result<Client> {
    let info = ConnectInfo { endpoint: endpoint.to_owned(), ..teller(file)? };
    Ok(Client::new(info, ClientOptions::default())?)
}

async fn open_accounts(file: &ConnectFile, branch_index: usize) -> anyhow::Result<Vec<ConnectFileAccount>> {
    let branch = &file.branches[branch_index];
    let client = teller_at(file, &branch.endpoint)?;
    let at_home = samples::customers_of(branch_index);
    let customers: Vec<_> =
        file.users.iter().filter(|user| at_home.iter().any(|sample| sample.customer_id == user.customer_id)).collect();
    let branch_id = BranchId::new(branch.branch_id);
    let opens: Vec<_> = customers.iter().map(|user| samples::account_of(branch_id, user.customer_id)).collect();
    if opens.is_empty() {
        return Ok(Vec::new());
    }
    let opened = client.open_accounts(&opens).await?;
    let mut accounts = Vec::new();
    for ((user, open), item) in customers.iter().zip(&opens).zip(&opened) {
        let id = AccountId::new(open.id.get());
        // An interrupted start may have opened it, and somebody may have changed, frozen or closed it since.
        if let Err(refused) = item.result()
            && client.account(id).await.is_err()
        {
            bail!("the account of {}: {refused}", user.name);
        }
        accounts.push(ConnectFileAccount {
            id: format!("{:#x}", id.get()),
            owner: user.customer_id,
            currency: samples::CURRENCY.to_string(),
            name: user.name.clone(),
        });
    }
    client.close();
    Ok(accounts)
}

/// Waits until every branch has heard from the registry that all of them serve.
pub(crate) async fn wait_until_joined(file: &ConnectFile) -> anyhow::Result<()> {
    let begun = Instant::now();
    for branch in &file.branches {
        let client = teller_at(file, &branch.endpoint)?;
        loop {
            let routes = client.routes().await.with_context(|| format!("asking branch {}", branch.branch_id))?;
            let is_serving = |other: &ConnectFileBranch| {
                let route = routes.branches.get(&BranchId::new(other.branch_id));
                route.is_some_and(|route| route.status == BranchStatus::Serving && route.endpoint == other.endpoint)
            };
            if routes.version > 0 && file.branches.iter().all(is_serving) {
                break;
            }
            anyhow::ensure!(
                begun.elapsed() < JOINED_WITHIN,
                "branch {} has not heard of all others within {JOINED_WITHIN:?}; branch.log and registry.log say why",
                branch.branch_id
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        client.close();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_everywhere_is_found_here() {
        for (address, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("192.0.2.7:80", "192.0.2.7:80"),
        ] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), expected);
        }
    }
}
