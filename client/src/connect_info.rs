//! Where a branch is and who is asking.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

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

pub(crate) fn read_text(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|error| ConnectError::Config(format!("{}: {error}", path.display())))
}
