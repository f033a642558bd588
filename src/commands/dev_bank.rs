//! The development bank: what `tally up` puts into a folder, and how it talks to the server there.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tally_branch_server::server::{RunFile, prepare_development_folder};
use tally_branch_server::tls::dev::SERVER_NAME;
use tally_branch_server::users::{RoleName, Users};
use tally_client::{Client, ClientOptions, ConnectInfo, Credentials};
use tally_protocol::message::{AccountOpen, account_flags};
use tally_protocol::{AccountId, AccountKind, BranchId, Currency};
use zerocopy::FromZeros;

/// The number of the development bank's only branch.
pub(crate) const BRANCH: BranchId = BranchId::new(1);

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
/// The class of the sample customers' accounts.
const SAMPLE_ACCOUNT_CODE: u16 = 1;

/// `connect.json`: all that a client of this bank needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConnectFile {
    pub(crate) branch_id: u16,
    pub(crate) endpoint: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) server_name: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) metrics: Option<String>,
    pub(crate) pid: u32,
    pub(crate) users: Vec<SampleUser>,
    pub(crate) accounts: Vec<SampleAccount>,
}

/// A user whose password may be told, because the bank is a toy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SampleUser {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) role: RoleName,
    pub(crate) customer_id: u64,
}

/// An account that has a name at the prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SampleAccount {
    /// Hexadecimal, with `0x`.
    pub(crate) id: String,
    pub(crate) owner: u64,
    pub(crate) currency: String,
    pub(crate) name: String,
}

impl SampleAccount {
    /// The account's id.
    pub(crate) fn account_id(&self) -> anyhow::Result<AccountId> {
        let digits = self.id.strip_prefix("0x").unwrap_or(&self.id);
        let raw = u128::from_str_radix(digits, 16).with_context(|| format!("`{}` is not an account id", self.id))?;
        Ok(AccountId::new(raw))
    }
}

impl ConnectFile {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("connect.json")
    }

    /// The file of a folder, if it has one.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{}", path.display())),
        }
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = Self::path(dir);
        let beside = dir.join("connect.json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        Ok(std::fs::rename(&beside, &path)?)
    }

    /// Logs in as the teller, who serves everybody.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let teller =
            self.users.iter().find(|user| user.role == RoleName::Teller).context("connect.json names no teller")?;
        let credentials = Credentials::Password { user: teller.name.clone(), password: teller.password.clone() };
        let info = ConnectInfo::new(&*self.endpoint, &*self.server_name, &self.ca_file, credentials)?;
        Ok(Client::connect(info, ClientOptions::default()).await?)
    }
}

/// Makes a folder ready for its first start, or leaves one alone that is: certificates, configuration, users.
/// Returns the sample users with their passwords.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<Vec<SampleUser>> {
    prepare_development_folder(dir).with_context(|| format!("{}", dir.display()))?;
    let config = dir.join("branch.toml");
    if !config.exists() {
        let text = format!(
            "# Configuration of this development bank; `tally config show --config {}` explains it.\n\
             [branch]\nid = {BRANCH}\ndir = \".\"\n",
            config.display()
        );
        std::fs::write(&config, text)?;
    }
    let users_path = Users::path(dir);
    if users_path.exists() {
        // Passwords are only known from the first start; a user that was added since keeps its own.
        return Ok(ConnectFile::read(dir)?.map(|file| file.users).unwrap_or_default());
    }
    let samples = USERS
        .iter()
        .map(|&(name, role, customer_id)| {
            Ok(SampleUser { name: name.to_owned(), password: random_password()?, role, customer_id })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut users = Users::default();
    for user in &samples {
        users.add(&user.name, &user.password, user.role, user.customer_id)?;
    }
    // Before the users: a crash in between then leaves a folder that is begun afresh, not one whose
    // passwords nobody knows.
    connect_file(dir, None, &samples)?.write(dir)?;
    users.save(&users_path)?;
    Ok(samples)
}

/// Opens the sample customers' accounts and writes `connect.json` for the server that runs now.
pub(crate) async fn publish(dir: &Path, run_file: &RunFile, users: &[SampleUser]) -> anyhow::Result<ConnectFile> {
    let mut file = connect_file(dir, Some(run_file), users)?;
    let client = file.client().await.context("logging in as teller")?;
    let customers: Vec<_> = users.iter().filter(|user| user.role == RoleName::Customer).collect();
    let opens: Vec<_> = customers.iter().map(|user| account_of(user.customer_id)).collect();
    let opened = client.open_accounts(&opens).await.context("opening the sample accounts")?;
    for ((user, open), item) in customers.iter().zip(&opens).zip(&opened) {
        item.result().map_err(|refused| anyhow::anyhow!("the account of {}: {refused}", user.name))?;
        file.accounts.push(SampleAccount {
            id: format!("{:#x}", open.id.get()),
            owner: user.customer_id,
            currency: SAMPLE_CURRENCY.to_string(),
            name: user.name.clone(),
        });
    }
    file.write(dir)?;
    Ok(file)
}

fn connect_file(dir: &Path, run_file: Option<&RunFile>, users: &[SampleUser]) -> anyhow::Result<ConnectFile> {
    let endpoint = run_file.map(|file| file.address.to_string()).unwrap_or_default();
    Ok(ConnectFile {
        branch_id: BRANCH.get(),
        endpoints: vec![endpoint.clone()],
        endpoint,
        server_name: SERVER_NAME.to_owned(),
        ca_file: std::path::absolute(dir.join("tls/ca.pem"))?,
        metrics: run_file.and_then(|file| file.metrics).map(|address| format!("http://{address}/metrics")),
        pid: run_file.map_or(0, |file| file.pid),
        users: users.to_vec(),
        accounts: Vec::new(),
    })
}

/// A current account that cannot be overdrawn. Its number is the customer's, so opening it again changes
/// nothing.
fn account_of(customer_id: u64) -> AccountOpen {
    let mut open = AccountOpen::new_zeroed();
    open.id.set(AccountId::of_branch(BRANCH, u128::from(customer_id)).get());
    open.owner.set(customer_id);
    open.day_limit.set(u64::MAX);
    open.currency.set(SAMPLE_CURRENCY.get());
    open.code.set(SAMPLE_ACCOUNT_CODE);
    open.flags.set(account_flags::DEBITS_LIMITED);
    open.kind = AccountKind::Customer as u8;
    open
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
        let first = prepare(folder.path()).expect("prepared");
        assert_eq!(first.len(), USERS.len());
        assert!(first.iter().all(|user| user.password.len() == 20));
        let config = std::fs::read_to_string(folder.path().join("branch.toml")).expect("written");
        assert!(config.contains("id = 1"), "{config}");
        let second = prepare(folder.path()).expect("left alone");
        let passwords = |users: &[SampleUser]| users.iter().map(|user| user.password.clone()).collect::<Vec<_>>();
        assert_eq!(passwords(&first), passwords(&second));
        let users = Users::load(&Users::path(folder.path())).expect("saved");
        assert!(users.get("alice").expect("there").password_matches(first[3].password.as_bytes()));
    }
}
