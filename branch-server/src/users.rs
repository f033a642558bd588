//! The users of a branch: a small JSON file in the data folder, changed by `tally user ...` and watched
//! by the server.
//!
//! **Invariant:** the file is replaced as a whole (written aside, flushed, renamed), so a reader sees
//! the old users or the new ones; and every change that must end live sessions raises the user's epoch.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use tally_protocol::message::{Role, SECRET_LEN_BYTES_MAX, USER_LEN_BYTES_MAX};

/// One user, as in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// 1 to 64 bytes of letters, digits, `.`, `_`, `-` and `@`.
    pub name: String,
    /// The argon2id hash as a PHC string.
    pub password: String,
    /// What the user may do.
    pub role: RoleName,
    /// Whom a customer acts for; 0 for the bank's own people.
    pub customer_id: u64,
    /// Cannot log in.
    #[serde(default)]
    pub disabled: bool,
    /// Raised by each change; tokens of an earlier epoch are void.
    pub epoch: u64,
}

/// A role by its name in files and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Own accounts only.
    Customer,
    /// Opens and serves any account.
    Teller,
    /// Reads all, changes nothing.
    Auditor,
    /// Everything.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Customer => Self::Customer,
            RoleName::Teller => Self::Teller,
            RoleName::Auditor => Self::Auditor,
            RoleName::Admin => Self::Admin,
        }
    }
}

impl std::str::FromStr for RoleName {
    type Err = UsersError;

    fn from_str(text: &str) -> Result<Self, UsersError> {
        Ok(match text {
            "customer" => Self::Customer,
            "teller" => Self::Teller,
            "auditor" => Self::Auditor,
            "admin" => Self::Admin,
            _ => return Err(UsersError::Role(text.to_owned())),
        })
    }
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Customer => "customer",
            Self::Teller => "teller",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        })
    }
}

/// What can go wrong with the users.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// Not a name.
    #[error("`{0}` is not a user name: 1 to 64 letters, digits, '.', '_', '-' or '@'")]
    Name(String),
    /// Not a role.
    #[error("`{0}` is not a role: customer, teller, auditor or admin")]
    Role(String),
    /// There is one already.
    #[error("user `{0}` exists")]
    Exists(String),
    /// There is none.
    #[error("no user `{0}`")]
    NotFound(String),
    /// A customer needs a number; the bank's own people have none.
    #[error("a customer has a customer id above 0, and nobody else has one")]
    CustomerId,
    /// Too short or too long.
    #[error("a password has 8 to {SECRET_LEN_BYTES_MAX} bytes")]
    Password,
    /// The password could not be hashed.
    #[error("hashing the password: {0}")]
    Hash(String),
}

/// All users, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, User>);

/// The file's outer object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    users: Vec<User>,
}

impl Users {
    /// The users file of a data folder.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("users.json")
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, is not JSON of this form, or names a user twice.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let text = fs::read(path).map_err(|error| UsersError::Io { path: path.to_owned(), error })?;
        let file: UsersFile =
            serde_json::from_slice(&text).map_err(|error| UsersError::Syntax { path: path.to_owned(), error })?;
        let mut users = Self::default();
        for user in file.users {
            check_name(&user.name)?;
            check_customer_id(user.role, user.customer_id)?;
            if let Some(twice) = users.0.insert(user.name.clone(), user) {
                return Err(UsersError::Exists(twice.name));
            }
        }
        Ok(users)
    }

    /// Replaces the file; only its owner may read it.
    ///
    /// # Errors
    /// When the disk does not play along; the old file is then still there.
    pub fn save(&self, path: &Path) -> Result<(), UsersError> {
        let file = UsersFile { users: self.0.values().cloned().collect() };
        let text = serde_json::to_vec_pretty(&file).expect("strings and numbers are always JSON");
        replace_private_file(path, &text).map_err(|error| UsersError::Io { path: path.to_owned(), error })
    }

    /// The user with this name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.0.values()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// Names what is wrong with the name, the number or the password, or that the user exists.
    pub fn add(&mut self, name: &str, password: &str, role: RoleName, customer_id: u64) -> Result<(), UsersError> {
        check_name(name)?;
        check_customer_id(role, customer_id)?;
        if self.0.contains_key(name) {
            return Err(UsersError::Exists(name.to_owned()));
        }
        let user = User {
            name: name.to_owned(),
            password: hash_password(password)?,
            role,
            customer_id,
            disabled: false,
            epoch: 1,
        };
        self.0.insert(name.to_owned(), user);
        Ok(())
    }

    /// Gives a user another password, which ends the sessions of the old one.
    ///
    /// # Errors
    /// When there is no such user, or the password is too short or long.
    pub fn set_password(&mut self, name: &str, password: &str) -> Result<(), UsersError> {
        let hash = hash_password(password)?;
        self.change(name, |user| user.password = hash)
    }

    /// Disables or enables a user, which ends the live sessions.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn set_disabled(&mut self, name: &str, disabled: bool) -> Result<(), UsersError> {
        self.change(name, |user| user.disabled = disabled)
    }

    /// Gives a user another role, which ends the live sessions.
    ///
    /// # Errors
    /// When there is no such user, or the role does not go with the customer id.
    pub fn set_role(&mut self, name: &str, role: RoleName, customer_id: u64) -> Result<(), UsersError> {
        check_customer_id(role, customer_id)?;
        self.change(name, |user| {
            user.role = role;
            user.customer_id = customer_id;
        })
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut User)) -> Result<(), UsersError> {
        let user = self.0.get_mut(name).ok_or_else(|| UsersError::NotFound(name.to_owned()))?;
        change(user);
        user.epoch += 1;
        Ok(())
    }
}

impl User {
    /// Whether this is the user's password. Slow on purpose (tens of milliseconds): not for a thread
    /// that serves payments.
    pub fn password_matches(&self, password: &[u8]) -> bool {
        verify(password, &self.password)
    }
}

/// Spends the time of a password check: what an unknown user is answered with, so that the time of the
/// answer does not tell which users there are.
pub fn spend_a_password_check(password: &[u8]) {
    static NOBODY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let hash = NOBODY.get_or_init(|| hash_password("nobody's password").unwrap_or_default());
    let _ = verify(password, hash);
}

/// Writes `bytes` beside `path`, flushes them and puts them in its place; mode 0600.
pub(crate) fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

fn verify(password: &[u8], hash: &str) -> bool {
    hash.starts_with("$argon2id$") && Argon2::default().verify_password(password, hash).is_ok()
}

fn hash_password(password: &str) -> Result<String, UsersError> {
    if !(8..=SECRET_LEN_BYTES_MAX).contains(&password.len()) {
        return Err(UsersError::Password);
    }
    // The crate's defaults are OWASP's: argon2id, 19 MiB, two passes, one lane.
    let hash: PasswordHash =
        Argon2::default().hash_password(password.as_bytes()).map_err(|error| UsersError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

fn check_name(name: &str) -> Result<(), UsersError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    let fits = (1..=USER_LEN_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(good) { Ok(()) } else { Err(UsersError::Name(name.to_owned())) }
}

fn check_customer_id(role: RoleName, customer_id: u64) -> Result<(), UsersError> {
    if (role == RoleName::Customer) == (customer_id != 0) { Ok(()) } else { Err(UsersError::CustomerId) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_survive_the_file_and_only_the_owner_may_read_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Users::path(folder.path());
        let mut users = Users::default();
        users.add("alice", "correct horse", RoleName::Customer, 1_001).expect("added");
        users.add("ops", "battery staple", RoleName::Admin, 0).expect("added");
        users.save(&path).expect("saved");
        assert_eq!(Users::load(&path).expect("loaded"), users);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let alice = users.get("alice").expect("added");
        assert!(alice.password.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(alice.password_matches(b"correct horse"));
        assert!(!alice.password_matches(b"correct horsf"));
    }

    #[test]
    fn every_change_raises_the_epoch() {
        let mut users = Users::default();
        users.add("t", "12345678", RoleName::Teller, 0).expect("added");
        let epoch = |users: &Users| users.get("t").expect("there").epoch;
        users.set_disabled("t", true).expect("there");
        assert_eq!(epoch(&users), 2);
        users.set_role("t", RoleName::Auditor, 0).expect("there");
        assert_eq!(epoch(&users), 3);
        users.set_password("t", "87654321").expect("there");
        assert_eq!(epoch(&users), 4);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut users = Users::default();
        assert!(matches!(users.add("", "12345678", RoleName::Admin, 0), Err(UsersError::Name(_))));
        assert!(matches!(users.add("a b", "12345678", RoleName::Admin, 0), Err(UsersError::Name(_))));
        assert!(matches!(users.add("a", "1234567", RoleName::Admin, 0), Err(UsersError::Password)));
        assert!(matches!(users.add("a", "12345678", RoleName::Admin, 5), Err(UsersError::CustomerId)));
        assert!(matches!(users.add("a", "12345678", RoleName::Customer, 0), Err(UsersError::CustomerId)));
        assert!(matches!(users.set_disabled("a", true), Err(UsersError::NotFound(_))));
        assert!("root".parse::<RoleName>().is_err());
    }

    #[test]
    fn a_broken_file_is_an_error_not_an_empty_bank() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Users::path(folder.path());
        for text in ["", "{}", "{\"users\":[{\"name\":\"a\"}]}", "{\"users\":[],\"x\":1}"] {
            fs::write(&path, text).expect("written");
            assert!(matches!(Users::load(&path), Err(UsersError::Syntax { .. })), "{text}");
        }
    }
}
