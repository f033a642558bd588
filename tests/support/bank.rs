//! A bank of two branches and a registry, as `tally up` starts it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tally_client::{Bank as Client, ClientOptions, ConnectFile, RetryPolicy};
use tally_protocol::AccountId;

use super::{tally, until};

/// Removed with its folder.
pub struct Bank {
    folder: tempfile::TempDir,
}

impl Drop for Bank {
    fn drop(&mut self) {
        drop(tally().arg("down").arg("--dir").arg(self.dir()).output());
    }
}

impl Bank {
    /// A new one, which serves.
    pub fn start() -> Self {
        let bank = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        bank.up();
        bank
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts what does not run.
    pub fn up(&self) {
        let mut command = tally();
        command.args(["up", "--detach", "--dir"]).arg(self.dir()).stdin(Stdio::null());
        for setting in ["journal.segment_len_bytes=4194304", "journal.free_bytes_min=0"] {
            command.args(["--set", setting]);
        }
        let output = command.output().expect("the program runs");
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Where its processes are, and who its users.
    pub fn file(&self) -> ConnectFile {
        ConnectFile::read(&self.dir().join("connect.json")).expect("written by `tally up`")
    }

    /// A sample customer's account.
    pub fn account(&self, name: &str) -> AccountId {
        let file = self.file();
        let found = file.all_accounts().find(|account| account.name == name).expect("a sample account");
        found.account_id().expect("an id")
    }

    /// A teller's client that knows the endpoint of one branch, by its place in the file, and waits so long for an answer.
    pub fn client(&self, branch: usize, deadline: Duration) -> Client {
        let file = self.file();
        let mut info = file.connect_info(Some("teller")).expect("a sample user");
        info.endpoint = file.branches[branch].endpoint.clone();
        let retry = RetryPolicy { attempts_max: u32::MAX, ..RetryPolicy::default() };
        let options = ClientOptions { deadline, retry, ..ClientOptions::default() };
        Client::new(info, options).expect("the file is right")
    }

    /// An operator's command, answered as JSON.
    pub fn operator(&self, arguments: &[&str]) -> Command {
        let file = self.file();
        let registry = file.registry.as_ref().expect("there is a registry");
        let tls: PathBuf = self.dir().join("tls");
        let mut command = tally();
        command.args(arguments).args(["--json", "--registry", &registry.endpoints[0], "--tls"]).arg(tls);
        command
    }

    /// The books of both branches agree, at an instant like any other.
    pub fn audit(&self) {
        let output = self.operator(&["audit", "balance"]).output().expect("the program runs");
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// `kill -9`. Returns once it is gone.
pub fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill is there");
    assert!(killed.success());
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    until(|| stat().map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X ")).then_some(()));
}

/// All that a program has printed.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
