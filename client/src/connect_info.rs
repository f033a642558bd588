//! Where a branch is and who is asking: given by hand, or read from the `connect.json` of a development bank.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::ConnectError;

/// Everything needed to reach a branch and log in.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// `host:port`.
    pub endpoint: String,
    /// The name that the branch's certificate must carry.
    pub server_name: String,
    /// The certificates that are trusted to sign it, as PEM.
    pub ca_pem: Arc<str>,
    /// How to log in.
    pub credentials: Credentials,
}

/// How to log in. Printing it shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// By name and password.
    Password {
        /// The user's name.
        user: String,
        /// Its password.
        password: String,
    },
    /// By an access token from an earlier login.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

impl ConnectInfo {
    /// For a branch at `endpoint`, trusting the certificates in the PEM file `ca_file`.
    pub fn new(
        endpoint: impl Into<String>,
        server_name: impl Into<String>,
        ca_file: &Path,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            endpoint: endpoint.into(),
            server_name: server_name.into(),
            ca_pem: read_text(ca_file)?.into(),
            credentials,
        })
    }
}

/// `connect.json`: what `tally up` writes into its data folder for the clients of a development bank.
#[derive(Clone, Debug, Deserialize)]
pub struct ConnectFile {
    /// The branch's number: the top 16 bits of its account ids.
    pub branch_id: u16,
    /// `host:port` of the branch's TLS listener.
    pub endpoint: String,
    /// The name in its certificate.
    #[serde(default = "default_server_name")]
    pub server_name: String,
    /// The certificate that signed it, relative to `connect.json` where the path is not absolute.
    pub ca_file: PathBuf,
    /// Base address of the metrics listener, e.g. `http://127.0.0.1:9090/metrics`.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Sample users.
    #[serde(default)]
    pub users: Vec<ConnectFileUser>,
}

/// A sample user of a development bank.
#[derive(Clone, Deserialize)]
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

fn default_server_name() -> String {
    "localhost".to_owned()
}

/// Roles that may open accounts and move money for others, the preferred one first.
const SERVING_ROLES: [&str; 2] = ["admin", "teller"];

impl ConnectFile {
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

    /// The user called `name`; without a name, the first that may serve all accounts.
    pub fn user(&self, name: Option<&str>) -> Result<&ConnectFileUser, ConnectError> {
        match name {
            Some(name) => self.users.iter().find(|user| user.name == name),
            None => SERVING_ROLES
                .iter()
                .find_map(|role| self.users.iter().find(|user| user.role.eq_ignore_ascii_case(role))),
        }
        .ok_or_else(|| {
            ConnectError::Config(match name {
                Some(name) => format!("connect file has no user {name:?}"),
                None => "connect file has no user with role admin or teller".to_owned(),
            })
        })
    }

    /// What is needed to log in as `user` (see [`Self::user`]).
    pub fn connect_info(&self, user: Option<&str>) -> Result<ConnectInfo, ConnectError> {
        let user = self.user(user)?;
        let credentials = Credentials::Password { user: user.name.clone(), password: user.password.clone() };
        ConnectInfo::new(&*self.endpoint, &*self.server_name, &self.ca_file, credentials)
    }
}

fn read_text(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|error| ConnectError::Config(format!("{}: {error}", path.display())))
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
        let path = folder.path().join("connect.json");
        std::fs::write(&path, FILE).expect("a file");

        let file = ConnectFile::read(&path).expect("valid");
        assert_eq!(file.user(None).expect("there is one").name, "root");
        assert_eq!(file.user(Some("ann")).expect("there is one").customer_id, 7);
        assert!(matches!(file.user(Some("eve")), Err(ConnectError::Config(_))));
        let info = file.connect_info(Some("tom")).expect("complete");
        assert_eq!((&*info.endpoint, &*info.server_name, &*info.ca_pem), ("127.0.0.1:4000", "localhost", "PEM"));
        let printed = format!("{:?} {file:?}", info.credentials);
        assert!(!printed.contains("password"), "{printed}");
    }
}
