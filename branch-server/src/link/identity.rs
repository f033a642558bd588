//! Who this data folder is to the registry, and which registry it belongs to: written once, kept for ever.
//!
//! **Invariant:** a folder follows one cluster. A registry with another cluster id (an empty successor, another bank's)
//! is refused: what it says about old transfers would be wrong.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::users::replace_private_file;

const FILE_NAME: &str = "registry-identity.json";

/// The file cannot be used, or the registry is another one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is damaged.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another cluster than the one that this folder belongs to.
    #[error("this branch belongs to cluster {known:032x}; the registry is of cluster {met:032x}, and is not followed")]
    OtherCluster {
        /// Ours.
        known: u128,
        /// Theirs.
        met: u128,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    incarnation: String,
    cluster_id: Option<String>,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Identity {
    path: PathBuf,
    /// Random, made with the folder; not 0.
    pub incarnation: u128,
    /// The cluster, once one has welcomed us.
    pub cluster_id: Option<u128>,
}

impl Identity {
    /// Reads the identity of the data folder `dir`, or makes one.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut random = [0; 16];
                getrandom::fill(&mut random).expect("the system has random numbers");
                let identity = Self { path, incarnation: u128::from_le_bytes(random) | 1, cluster_id: None };
                identity.write()?;
                Ok(identity)
            }
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    /// Takes notice of the cluster that welcomed us; the first one is kept.
    ///
    /// # Errors
    /// `OtherCluster`, or when the file cannot be written.
    pub fn meet(&mut self, cluster_id: u128) -> Result<(), IdentityError> {
        match self.cluster_id {
            Some(known) if known == cluster_id => Ok(()),
            Some(known) => Err(IdentityError::OtherCluster { known, met: cluster_id }),
            None => {
                self.cluster_id = Some(cluster_id);
                self.write()
            }
        }
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, IdentityError> {
        let number = |text: &str| u128::from_str_radix(text, 16).ok().filter(|&number| number != 0);
        let parsed = serde_json::from_str::<Stored>(text).map_err(|error| error.to_string()).and_then(|stored| {
            let incarnation = number(&stored.incarnation).ok_or("`incarnation` is not a number")?;
            let cluster_id = match &stored.cluster_id {
                Some(text) => Some(number(text).ok_or("`cluster_id` is not a number")?),
                None => None,
            };
            Ok((incarnation, cluster_id))
        });
        match parsed {
            Ok((incarnation, cluster_id)) => Ok(Self { path, incarnation, cluster_id }),
            Err(why) => Err(IdentityError::Damaged { path, why }),
        }
    }

    fn write(&self) -> Result<(), IdentityError> {
        let stored = Stored {
            incarnation: format!("{:032x}", self.incarnation),
            cluster_id: self.cluster_id.map(|id| format!("{id:032x}")),
        };
        let text = serde_json::to_string_pretty(&stored).expect("two strings are JSON");
        replace_private_file(&self.path, text.as_bytes())
            .map_err(|source| IdentityError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_its_cluster() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut first = Identity::open(folder.path()).expect("made");
        assert!(first.incarnation != 0 && first.cluster_id.is_none());
        first.meet(7).expect("the first one is followed");
        let mut second = Identity::open(folder.path()).expect("kept");
        assert_eq!((second.incarnation, second.cluster_id), (first.incarnation, Some(7)));
        assert!(second.meet(7).is_ok());
        assert!(matches!(second.meet(8), Err(IdentityError::OtherCluster { known: 7, met: 8 })));
        for damaged in ["", "{}", r#"{"incarnation": "0"}"#, r#"{"incarnation": "5", "cluster_id": "x"}"#] {
            std::fs::write(folder.path().join(FILE_NAME), damaged).expect("written");
            assert!(matches!(Identity::open(folder.path()), Err(IdentityError::Damaged { .. })), "{damaged}");
        }
    }
}
