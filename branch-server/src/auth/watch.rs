//! Watches the users file: a change takes effect on live sessions within a second.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use super::Authenticator;
use crate::limits::USERS_POLL_INTERVAL;
use crate::users::Users;

/// The watching thread; it ends when this is dropped.
#[derive(Debug)]
pub struct UsersWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What changes with every rename into place and with most edits in place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            len_bytes: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        })
    }
}

impl UsersWatch {
    /// Begins to watch the file behind `auth`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(auth: Arc<Authenticator>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("users-watch".into()).spawn(move || {
            // Reloaded once at the start: the file may have changed between its reading and now.
            let mut seen = None;
            while stopped.recv_timeout(USERS_POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let stamp = Stamp::of(&auth.users_path);
                if stamp != seen {
                    seen = stamp;
                    reload(&auth);
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn reload(auth: &Authenticator) {
    match Users::load(&auth.users_path) {
        Ok(users) if users == *auth.users() => {}
        Ok(users) => {
            tracing::info!(stage = "session", users = users.iter().count(), "users changed");
            auth.replace_users(users);
        }
        // A file that cannot be read is no reason to lock everybody out, nor to let anybody in.
        Err(error) => {
            tracing::error!(stage = "session", %error, "the users file cannot be read; the users stay as they were")
        }
    }
}

impl Drop for UsersWatch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tally_protocol::BranchId;

    use super::*;
    use crate::limits::SessionLimits;
    use crate::users::RoleName;

    #[test]
    fn a_change_is_seen_within_a_second_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Users::path(folder.path());
        let mut users = Users::default();
        users.add("alice", "alice's password", RoleName::Customer, 7).expect("added");
        users.save(&path).expect("saved");
        let auth = Authenticator::open(folder.path(), BranchId::new(1), &SessionLimits::default()).expect("opened");
        let auth = Arc::new(auth);
        let _watch = UsersWatch::start(auth.clone()).expect("started");
        users.set_disabled("alice", true).expect("there");
        users.save(&path).expect("saved");
        let begun = Instant::now();
        while auth.generation() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "the change was not seen");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(auth.users().get("alice").expect("still there").disabled);
        std::fs::write(&path, "not json").expect("written");
        std::thread::sleep(USERS_POLL_INTERVAL * 2);
        assert_eq!(auth.generation(), 1);
        assert!(auth.users().get("alice").is_some());
    }
}
