//! Who is it: passwords and tokens, once per session.
//!
//! **Invariant:** a password is hashed on a blocking thread, a few at a time, never on a thread that
//! serves payments; a failed login tells neither whether the user exists nor what was wrong.

mod permission;
mod throttle;
mod watch;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tally_ledger::Actor;
use tally_protocol::{BranchId, CustomerId, Refusal, Timestamp};
use tokio::sync::Semaphore;

use crate::limits::{LOGINS_WAITING_MAX, PASSWORD_HASHES_MAX, SessionLimits};
use crate::tokens::{Claims, TokenKey};
use crate::users::{Users, UsersError};
use crate::{clock, users};

pub use permission::{Permissions, permits, permits_kind};
use throttle::Throttle;
pub use watch::UsersWatch;

/// The secret that a peer offers.
#[derive(Debug)]
pub enum Secret {
    /// A user's password.
    Password {
        /// As the peer wrote it.
        user: String,
        /// As the peer wrote it.
        password: Vec<u8>,
    },
    /// An access token of this branch.
    Token(Vec<u8>),
}

/// Who a session acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub name: Arc<str>,
    /// Role and customer, as requests carry them.
    pub actor: Actor,
    /// The user's epoch at login.
    pub epoch: u64,
    /// When the session must log in again.
    pub expires_at: Timestamp,
}

/// A login that went well.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Who it is.
    pub identity: Identity,
    /// The access token: a new one after a password, the same one after a token (so a stolen token
    /// cannot be renewed with itself).
    pub token: String,
}

/// A login that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRefused {
    /// `LoginFailed`, `LoginThrottled` or `Busy`.
    pub refusal: Refusal,
    /// When to try again, in milliseconds; 0 for "not with this secret".
    pub retry_after_ms: u32,
}

/// Checks secrets and knows the users.
#[derive(Debug)]
pub struct Authenticator {
    users_path: PathBuf,
    users: RwLock<Arc<Users>>,
    /// Counts reloads, so that session threads notice one with a single load.
    generation: AtomicU64,
    key: TokenKey,
    throttle: Mutex<Throttle>,
    hashing: Semaphore,
    waiting: AtomicUsize,
    token_life_s: u64,
}

impl Authenticator {
    /// Reads the users and the token key of a data folder.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn open(dir: &Path, branch: BranchId, limits: &SessionLimits) -> Result<Self, UsersError> {
        let users_path = Users::path(dir);
        let users = Users::load(&users_path)?;
        let key =
            TokenKey::load_or_create(dir, branch).map_err(|error| UsersError::Io { path: dir.join("keys"), error })?;
        Ok(Self {
            users_path,
            users: RwLock::new(Arc::new(users)),
            generation: AtomicU64::new(0),
            key,
            throttle: Mutex::new(Throttle::new(limits.login_failures_free)),
            hashing: Semaphore::new(PASSWORD_HASHES_MAX),
            waiting: AtomicUsize::new(0),
            token_life_s: limits.token_life.as_secs(),
        })
    }

    /// Checks a secret from `peer`.
    ///
    /// # Errors
    /// `LoginFailed` for whatever is wrong with the secret, `LoginThrottled` after too many failures,
    /// `Busy` when too many logins wait for a hash.
    pub async fn login(self: Arc<Self>, secret: Secret, peer: IpAddr) -> Result<LoggedIn, LoginRefused> {
        match secret {
            Secret::Token(token) => self.login_by_token(token, peer),
            Secret::Password { user, password } => self.login_by_password(user, password, peer).await,
        }
    }

    fn login_by_token(&self, token: Vec<u8>, peer: IpAddr) -> Result<LoggedIn, LoginRefused> {
        self.throttle.lock().check(None, peer, clock::monotonic_nanos())?;
        let login = self.key.verify(&token).and_then(|claims| {
            self.is_current(&claims).then(|| LoggedIn {
                identity: identity(&claims),
                token: String::from_utf8(token).expect("a verified token is ASCII"),
            })
        });
        self.throttle.lock().note(None, peer, login.is_some(), clock::monotonic_nanos());
        login.ok_or(FAILED)
    }

    async fn login_by_password(
        self: Arc<Self>,
        name: String,
        password: Vec<u8>,
        peer: IpAddr,
    ) -> Result<LoggedIn, LoginRefused> {
        self.throttle.lock().check(Some(&name), peer, clock::monotonic_nanos())?;
        let _waiting = Waiting::enter(&self.waiting)?;
        let _turn = self.hashing.acquire().await.expect("the semaphore is never closed");
        let this = self.clone();
        let checked_name = name.clone();
        let login = tokio::task::spawn_blocking(move || this.check_password(&checked_name, &password)).await;
        // A panic inside the hash is our bug and not the peer's, but the answer is the same.
        let login = login.ok().flatten();
        self.throttle.lock().note(Some(&name), peer, login.is_some(), clock::monotonic_nanos());
        login.ok_or(FAILED)
    }

    fn check_password(&self, name: &str, password: &[u8]) -> Option<LoggedIn> {
        let users = self.users();
        let Some(user) = users.get(name) else {
            users::spend_a_password_check(password);
            return None;
        };
        if !user.password_matches(password) || user.disabled {
            return None;
        }
        let (token, claims) = self.key.issue(user, clock::wall().as_nanos() / NANOS_PER_SECOND, self.token_life_s);
        Some(LoggedIn { identity: identity(&claims), token })
    }

    fn is_current(&self, claims: &Claims) -> bool {
        self.users().get(&claims.sub).is_some_and(|user| {
            !user.disabled
                && user.epoch == claims.epoch
                && user.role == claims.role
                && user.customer_id == claims.customer
        })
    }

    /// Whether a session that logged in as `identity` may go on: the user is still there, not disabled
    /// and unchanged.
    pub fn may_go_on(&self, identity: &Identity) -> bool {
        self.users().get(&identity.name).is_some_and(|user| {
            !user.disabled
                && user.epoch == identity.epoch
                && tally_protocol::message::Role::from(user.role) == identity.actor.role
                && user.customer_id == identity.actor.customer.get()
        })
    }

    /// Rises with every change of the users.
    pub fn generation(&self) -> u64 {
        // Pairs with the `Release` in `replace_users`.
        self.generation.load(Ordering::Acquire)
    }

    /// The users as they are now.
    pub fn users(&self) -> Arc<Users> {
        self.users.read().clone()
    }

    fn replace_users(&self, users: Users) {
        *self.users.write() = Arc::new(users);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const FAILED: LoginRefused = LoginRefused { refusal: Refusal::LoginFailed, retry_after_ms: 0 };

fn identity(claims: &Claims) -> Identity {
    Identity {
        name: claims.sub.as_str().into(),
        actor: Actor { role: claims.role.into(), customer: CustomerId::new(claims.customer) },
        epoch: claims.epoch,
        expires_at: Timestamp::from_nanos(claims.exp.saturating_mul(NANOS_PER_SECOND)),
    }
}

/// A place in the queue for a hash.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, LoginRefused> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= LOGINS_WAITING_MAX {
            return Err(LoginRefused { refusal: Refusal::Busy, retry_after_ms: 1_000 });
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::message::Role;

    use super::*;
    use crate::users::RoleName;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn open() -> (tempfile::TempDir, Arc<Authenticator>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut users = Users::default();
        users.add("alice", "alice's password", RoleName::Customer, 7).expect("added");
        users.add("gone", "gone's password", RoleName::Teller, 0).expect("added");
        users.set_disabled("gone", true).expect("there");
        users.save(&Users::path(folder.path())).expect("saved");
        let limits = SessionLimits { login_failures_free: 2, ..SessionLimits::default() };
        let auth = Authenticator::open(folder.path(), BranchId::new(1), &limits).expect("opened");
        (folder, Arc::new(auth))
    }

    fn login(auth: &Arc<Authenticator>, secret: Secret) -> Result<LoggedIn, LoginRefused> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(auth.clone().login(secret, PEER))
    }

    fn password(user: &str, password: &str) -> Secret {
        Secret::Password { user: user.to_owned(), password: password.as_bytes().to_vec() }
    }

    #[test]
    fn a_password_gives_a_token_and_the_token_the_same_identity() {
        let (_folder, auth) = open();
        let first = login(&auth, password("alice", "alice's password")).expect("right password");
        assert_eq!(first.identity.actor, Actor { role: Role::Customer, customer: CustomerId::new(7) });
        let second = login(&auth, Secret::Token(first.token.clone().into_bytes())).expect("right token");
        assert_eq!((second.identity, second.token), (first.identity, first.token));
    }

    #[test]
    fn all_failures_look_alike_and_then_have_to_wait() {
        let (_folder, auth) = open();
        assert_eq!(login(&auth, password("gone", "gone's password")).err(), Some(FAILED), "disabled");
        assert_eq!(login(&auth, password("nobody", "x")).err(), Some(FAILED), "unknown");
        for _ in 2..8 {
            assert_eq!(login(&auth, Secret::Token(b"not.a.token".to_vec())).err(), Some(FAILED));
        }
        let refused = login(&auth, password("alice", "alice's password")).expect_err("this address has to wait");
        assert_eq!(refused.refusal, Refusal::LoginThrottled);
        assert!(refused.retry_after_ms > 0);
    }

    #[test]
    fn a_change_of_the_user_voids_session_and_token() {
        let (_folder, auth) = open();
        let alice = login(&auth, password("alice", "alice's password")).expect("right password");
        assert!(auth.may_go_on(&alice.identity));
        let mut users = (*auth.users()).clone();
        users.set_role("alice", RoleName::Customer, 8).expect("there");
        let before = auth.generation();
        auth.replace_users(users);
        assert!(auth.generation() > before);
        assert!(!auth.may_go_on(&alice.identity));
        assert_eq!(login(&auth, Secret::Token(alice.token.into_bytes())).err(), Some(FAILED));
    }
}
