//! The development bank: what `tally up` puts into a folder, and what it tells clients about it.
//!
//! Invariant: a folder that has served is left as it is, whatever has become of its users and accounts; only one
//! whose first start was not finished gets what that start still owed it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use tally_branch_server::config::Config;
use tally_branch_server::server::{RunFile, prepare_development_folder};
use tally_branch_server::tls::dev::SERVER_NAME;
use tally_branch_server::users::{RoleName, Users};
use tally_client::{
    Client, ClientOptions, ConnectFile, ConnectFileAccount, ConnectFileUser, Overdraft, customer_account,
};
use tally_protocol::message::AccountOpen;
use tally_protocol::{AccountId, BranchId, Currency};

/// Name, role and customer of the users that a new folder gets.
const USERS: [(&str, RoleName, u64); 5] = [
    ("admin", RoleName::Admin, 0),
    ("teller", RoleName::Teller, 0),
    ("auditor", RoleName::Auditor, 0),
    ("alice", RoleName::Customer, 1_001),
    ("bob", RoleName::Customer, 1_002),
];

/// The currency of the sample customers' accounts.
const SAMPLE_CURRENCY: Currency = Currency::EUR;

/// A folder that can be served.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What its `connect.json` says so far.
    pub(crate) file: ConnectFile,
    /// Whether it got its users just now.
    pub(crate) is_new: bool,
}

impl Prepared {
    /// Whether the sample customers still have no accounts: their first start goes on, or was interrupted.
    fn owes_accounts(&self) -> bool {
        self.file.accounts.is_empty() && !self.file.users.is_empty()
    }
}

/// Makes a folder ready for its first start, or leaves one alone that is: certificates, configuration, users.
pub(crate) fn prepare(dir: &Path, branch_id: BranchId) -> anyhow::Result<Prepared> {
    prepare_development_folder(dir).with_context(|| format!("{}", dir.display()))?;
    let config = dir.join("branch.toml");
    if !config.exists() {
        let text = format!(
            "# Configuration of this development bank; `tally config show --config {}` explains it.\n\
             [branch]\nid = {branch_id}\ndir = \".\"\n",
            config.display()
        );
        std::fs::write(&config, text).with_context(|| format!("{}", config.display()))?;
    }
    let users_path = Users::path(dir);
    if users_path.exists() {
        // Passwords are only known from the first start; a user that was added since keeps its own.
        let file = read(dir)?.unwrap_or_else(|| connect_file(branch_id, Vec::new()));
        return Ok(Prepared { file, is_new: false });
    }
    let mut users = Users::default();
    let mut samples = Vec::new();
    for (name, role, customer_id) in USERS {
        let password = random_password()?;
        users.add(name, &password, role, customer_id)?;
        samples.push(ConnectFileUser { name: name.to_owned(), password, role: role.to_string(), customer_id });
    }
    // Before the users: a crash in between then leaves a folder that is begun afresh, not one whose
    // passwords nobody knows.
    let file = connect_file(branch_id, samples);
    write(dir, &file)?;
    users.save(&users_path)?;
    Ok(Prepared { file, is_new: true })
}

/// The `connect.json` of a folder, if it has one.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<ConnectFile>> {
    let path = ConnectFile::path(dir);
    Ok(if path.exists() { Some(ConnectFile::read(&path)?) } else { None })
}

/// Writes `connect.json` for the server that runs now, once the sample customers have their accounts.
pub(crate) async fn publish(
    dir: &Path,
    config: &Config,
    run_file: &RunFile,
    prepared: Prepared,
) -> anyhow::Result<ConnectFile> {
    let owes_accounts = prepared.owes_accounts();
    let Prepared { mut file, is_new } = prepared;
    file.branch_id = config.branch.id.get();
    file.endpoint = reachable(run_file.address).to_string();
    file.endpoints = vec![file.endpoint.clone()];
    file.ca_file = std::path::absolute(&config.tls.ca_file)?;
    file.metrics = run_file.metrics.map(|address| format!("http://{}/metrics", reachable(address)));
    file.pid = run_file.pid;
    if owes_accounts {
        match open_accounts(&file, config.branch.id).await.context("opening the sample accounts") {
            Ok(accounts) => file.accounts = accounts,
            Err(error) if is_new => return Err(error),
            // Its users may be others by now. It is served as it is, and the next start tries again.
            Err(error) => eprintln!("{error:#}; the bank is served without them"),
        }
    }
    write(dir, &file)?;
    Ok(file)
}

/// Where a client on this machine finds a server that listens at `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}

/// A client for the teller, who serves everybody. It logs in when it is first used.
pub(crate) fn teller(file: &ConnectFile) -> anyhow::Result<Client> {
    let teller = file.user_with_role("teller").context("connect.json names no teller")?;
    Ok(Client::new(file.connect_info(Some(&teller.name))?, ClientOptions::default())?)
}

async fn open_accounts(file: &ConnectFile, branch_id: BranchId) -> anyhow::Result<Vec<ConnectFileAccount>> {
    let client = teller(file)?;
    let customers: Vec<_> = file.users.iter().filter(|user| user.customer_id != 0).collect();
    let opens: Vec<_> = customers.iter().map(|user| account_of(branch_id, user.customer_id)).collect();
    let opened = client.open_accounts(&opens).await?;
    let mut accounts = Vec::new();
    for ((user, open), item) in customers.iter().zip(&opens).zip(&opened) {
        let id = AccountId::new(open.id.get());
        // An interrupted start may have opened it, and somebody may have changed, frozen or closed it since.
        if let Err(refused) = item.result()
            && client.account(id).await.is_err()
        {
            anyhow::bail!("the account of {}: {refused}", user.name);
        }
        accounts.push(ConnectFileAccount {
            id: format!("{:#x}", id.get()),
            owner: user.customer_id,
            currency: SAMPLE_CURRENCY.to_string(),
            name: user.name.clone(),
        });
    }
    client.close();
    Ok(accounts)
}

/// What `connect.json` says before the first start.
fn connect_file(branch_id: BranchId, users: Vec<ConnectFileUser>) -> ConnectFile {
    ConnectFile {
        branch_id: branch_id.get(),
        endpoint: String::new(),
        endpoints: Vec::new(),
        server_name: SERVER_NAME.to_owned(),
        ca_file: "tls/ca.pem".into(),
        metrics: None,
        pid: 0,
        users,
        accounts: Vec::new(),
    }
}

fn write(dir: &Path, file: &ConnectFile) -> anyhow::Result<()> {
    let path = ConnectFile::path(dir);
    file.write(&path).with_context(|| format!("{}", path.display()))
}

/// A current account that cannot be overdrawn. Its number is the customer's, so opening it again changes
/// nothing.
fn account_of(branch_id: BranchId, customer_id: u64) -> AccountOpen {
    let id = AccountId::of_branch(branch_id, u128::from(customer_id));
    customer_account(id, customer_id, SAMPLE_CURRENCY, Overdraft::None)
}

/// 20 letters and digits that cannot be confused: 100 bits.
fn random_password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 20];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_prepared_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = prepare(folder.path(), BranchId::new(3)).expect("prepared");
        assert!(first.is_new && first.owes_accounts());
        assert_eq!(first.file.users.len(), USERS.len());
        assert!(first.file.users.iter().all(|user| user.password.len() == 20));
        let config = std::fs::read_to_string(folder.path().join("branch.toml")).expect("written");
        assert!(config.contains("id = 3"), "{config}");
        let second = prepare(folder.path(), BranchId::new(3)).expect("left alone");
        assert!(!second.is_new && second.owes_accounts(), "the first start was not finished");
        assert_eq!(first.file.users, second.file.users);
        let users = Users::load(&Users::path(folder.path())).expect("saved");
        assert!(users.get("alice").expect("there").password_matches(first.file.users[3].password.as_bytes()));

        std::fs::remove_file(ConnectFile::path(folder.path())).expect("there");
        let third = prepare(folder.path(), BranchId::new(3)).expect("left alone");
        assert!(!third.is_new && !third.owes_accounts(), "a folder with users of somebody else's");
    }

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
