//! `connect.json`: what `tally up` writes into its data folder for the clients of a development bank.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tally_protocol::AccountId;

use crate::connect_info::read_text;
use crate::{ConnectError, ConnectInfo, Credentials};

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectFile {
    /// The branch's number: the top 16 bits of its account ids.
    pub branch_id: u16,
    /// `host:port` of the branch's TLS listener; empty before the first start.
    pub endpoint: String,
    /// The same, for clients that know banks of several.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// The name in its certificate.
    #[serde(default = "default_server_name")]
    pub server_name: String,
    /// The certificate that signed it, relative to `connect.json` where the path is not absolute.
    pub ca_file: PathBuf,
    /// Address of the metrics page, e.g. `http://127.0.0.1:9090/metrics`.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The server's process; 0 before the first start.
    #[serde(default)]
    pub pid: u32,
    /// Sample users.
    #[serde(default)]
    pub users: Vec<ConnectFileUser>,
    /// Sample accounts at this branch.
    #[serde(default)]
    pub accounts: Vec<ConnectFileAccount>,
    /// All branches; the first one is what the fields above tell of.
    #[serde(default)]
    pub branches: Vec<ConnectFileBranch>,
    /// The registry, if the bank has one.
    #[serde(default)]
    pub registry: Option<ConnectFileRegistry>,
}

/// One branch of a development bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFileBranch {
    /// The top 16 bits of its account ids.
    pub branch_id: u16,
    /// `host:port` of its TLS listener.
    pub endpoint: String,
    /// Address of its metrics page.
    pub metrics: Option<String>,
    /// The server's process.
    pub pid: u32,
    /// Its data folder.
    pub dir: PathBuf,
    /// Sample accounts.
    #[serde(default)]
    pub accounts: Vec<ConnectFileAccount>,
}

/// The registry of a development bank, and how an operator proves to it who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFileRegistry {
    /// `host:port` of every node.
    pub endpoints: Vec<String>,
    /// The authority of all services' certificates (PEM).
    pub ca_file: PathBuf,
    /// The operator's certificate (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// Address of the first node's metrics page.
    pub metrics: Option<String>,
    /// The first node's process.
    pub pid: u32,
    /// The first node's data folder.
    pub dir: PathBuf,
    /// All nodes; the first one is what the three fields above tell of.
    #[serde(default)]
    pub nodes: Vec<ConnectFileNode>,
}

/// A node of a development bank's registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFileNode {
    /// `host:port`.
    pub endpoint: String,
    /// Address of its metrics page.
    pub metrics: Option<String>,
    /// Its process.
    pub pid: u32,
    /// Its data folder.
    pub dir: PathBuf,
}

/// A sample user of a development bank, whose password may be told because the bank is a toy.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFileUser {
    /// Login name.
    pub name: String,
    /// Login password: development banks only.
    pub password: String,
    /// `admin`, `teller`, `auditor` or `customer`.
    pub role: String,
    /// Whom it acts for; 0 or absent for the bank.
    #[serde(default)]
    pub customer_id: u64,
}

impl fmt::Debug for ConnectFileUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectFileUser {{ name: {:?}, role: {:?}, .. }}", self.name, self.role)
    }
}

/// An account that has a name at the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectFileAccount {
    /// Hexadecimal, with `0x`.
    pub id: String,
    /// Whose it is.
    pub owner: u64,
    /// Three letters.
    pub currency: String,
    /// What it is called.
    pub name: String,
}

impl ConnectFileAccount {
    /// The account's id.
    pub fn account_id(&self) -> Result<AccountId, ConnectError> {
        let digits = self.id.strip_prefix("0x").unwrap_or(&self.id);
        let raw = u128::from_str_radix(digits, 16)
            .map_err(|error| ConnectError::Config(format!("`{}` is not an account id: {error}", self.id)))?;
        Ok(AccountId::new(raw))
    }
}

fn default_server_name() -> String {
    "localhost".to_owned()
}

/// Roles that may open accounts and move money for others, the preferred one first.
const SERVING_ROLES: [&str; 2] = ["admin", "teller"];

impl ConnectFile {
    /// Where a data folder has it.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("connect.json")
    }

    /// Reads and checks the file; `ca_file` comes back as a path that can be opened from here.
    pub fn read(path: &Path) -> Result<Self, ConnectError> {
        let text = read_text(path)?;
        let mut file: Self = serde_json::from_str(&text)
            .map_err(|error| ConnectError::Config(format!("{}: {error}", path.display())))?;
        if let Some(folder) = path.parent() {
            file.ca_file = folder.join(&file.ca_file);
        }
        Ok(file)
    }

    /// Replaces the file as a whole; only its owner may read it, for it holds passwords.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    }

    /// The user called `name`; without a name, the first that may serve all accounts.
    pub fn user(&self, name: Option<&str>) -> Result<&ConnectFileUser, ConnectError> {
        match name {
            Some(name) => self.users.iter().find(|user| user.name == name),
            None => SERVING_ROLES.iter().find_map(|role| self.user_with_role(role)),
        }
        .ok_or_else(|| {
            ConnectError::Config(match name {
                Some(name) => format!("connect file has no user {name:?}"),
                None => "connect file has no user with role admin or teller".to_owned(),
            })
        })
    }

    /// The first user with this role.
    pub fn user_with_role(&self, role: &str) -> Option<&ConnectFileUser> {
        self.users.iter().find(|user| user.role.eq_ignore_ascii_case(role))
    }

    /// The sample accounts of all branches.
    pub fn all_accounts(&self) -> impl Iterator<Item = &ConnectFileAccount> {
        let elsewhere = self.branches.iter().filter(|branch| branch.branch_id != self.branch_id);
        self.accounts.iter().chain(elsewhere.flat_map(|branch| &branch.accounts))
    }

    /// What is needed to log in as `user` (see [`Self::user`]).
    pub fn connect_info(&self, user: Option<&str>) -> Result<ConnectInfo, ConnectError> {
        let user = self.user(user)?;
        let credentials = Credentials::Password { user: user.name.clone(), password: user.password.clone() };
        ConnectInfo::new(&*self.endpoint, &*self.server_name, &self.ca_file, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"branch_id": 3, "endpoint": "127.0.0.1:4000", "ca_file": "tls/ca.pem", "unknown": 1,
        "users": [{"name": "ann", "password": "a", "role": "customer", "customer_id": 7},
                  {"name": "tom", "password": "t", "role": "teller"}, {"name": "root", "password": "r", "role": "admin"}]}"#;

    #[test]
    fn reads_a_connect_file_and_chooses_who_may_serve_all_accounts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("tls")).expect("a folder");
        std::fs::write(folder.path().join("tls/ca.pem"), "PEM").expect("a file");
        let path = ConnectFile::path(folder.path());
        std::fs::write(&path, FILE).expect("a file");

        let mut file = ConnectFile::read(&path).expect("valid");
        assert_eq!(file.user(None).expect("there is one").name, "root");
        assert_eq!(file.user(Some("ann")).expect("there is one").customer_id, 7);
        assert!(matches!(file.user(Some("eve")), Err(ConnectError::Config(_))));
        let info = file.connect_info(Some("tom")).expect("complete");
        assert_eq!((&*info.endpoint, &*info.server_name, &*info.ca_pem), ("127.0.0.1:4000", "localhost", "PEM"));
        let printed = format!("{:?} {file:?}", info.credentials);
        assert!(!printed.contains("password"), "{printed}");

        let account = |id: &str| ConnectFileAccount {
            id: id.to_owned(),
            owner: 7,
            currency: "EUR".to_owned(),
            name: "ann".to_owned(),
        };
        file.accounts.push(account("0x1f"));
        file.write(&path).expect("a folder of ours");
        let again = ConnectFile::read(&path).expect("just written");
        assert_eq!((again.users, again.accounts, again.pid), (file.users, file.accounts, 0));
        assert_eq!(account("0x1f").account_id().expect("a number").get(), 31);
        assert!(account("ann").account_id().is_err());
    }
}
