//! `tally up` and `tally down`, as somebody with a laptop uses them.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{http_get, tally, until};

fn up(dir: &Path) -> Command {
    let mut command = tally();
    command.arg("up").arg("--dir").arg(dir);
    for setting in ["journal.segment_len_bytes=4194304", "journal.free_bytes_min=0"] {
        command.arg("--set").arg(setting);
    }
    command
}

/// Types `lines` at the prompt and returns what was printed.
fn at_the_prompt(dir: &Path, lines: &str) -> String {
    let mut child = up(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("typed");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log = std::fs::read_to_string(dir.join("branch.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", text(&output.stderr));
    text(&output.stdout)
}

fn connect_file(dir: &Path) -> serde_json::Value {
    let text = std::fs::read(dir.join("connect.json")).expect("written by `up`");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn money_moves_at_the_prompt_and_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("bank");
    let printed = at_the_prompt(
        &dir,
        "deposit 100.00 EUR to alice\ntransfer 12.34 EUR from alice to bob\nwithdraw 2.34 EUR from bob\n\
         transfer 500 EUR from bob to alice\nbalance carol\nnonsense\nquit\n",
    );
    for expected in [
        "A new bank serves at 127.0.0.1:",
        "alice: 100.00 EUR\n",
        "alice: 87.66 EUR\nbob: 12.34 EUR\n",
        "bob: 10.00 EUR\n",
        "refused: insufficient_funds",
        "`carol` is neither a sample customer (alice, bob) nor an account id",
        "`nonsense` is not understood",
    ] {
        assert!(printed.contains(expected), "no `{expected}` in\n{printed}");
    }
    let before = connect_file(&dir);
    let printed = at_the_prompt(&dir, "accounts\n");
    assert!(
        printed.contains("The bank serves at") && printed.contains("alice: 87.66 EUR\nbob: 10.00 EUR\n"),
        "{printed}"
    );
    let after = connect_file(&dir);
    for kept in ["users", "accounts", "ca_file", "server_name", "branch_id"] {
        assert_eq!(before[kept], after[kept], "{kept}");
    }
}

#[test]
fn a_detached_bank_runs_until_it_is_taken_down_even_after_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let down = |dir: &Path| tally().arg("down").arg("--dir").arg(dir).output().expect("the program runs");
    assert!(up(dir).arg("--detach").stdin(Stdio::null()).status().expect("runs").success());
    let file = connect_file(dir);
    let metrics = file["metrics"].as_str().expect("a URL").trim_start_matches("http://").trim_end_matches("/metrics");
    let metrics = metrics.parse().expect("an address");
    assert!(http_get(metrics, "/readyz").starts_with("HTTP/1.1 200"));
    let second = up(dir).output().expect("runs");
    assert!(!second.status.success(), "a folder has one bank");
    assert!(String::from_utf8_lossy(&second.stderr).contains("is running in"));

    let pid = file["pid"].as_u64().expect("a number").to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill is there").success());
    until(|| (!Path::new(&format!("/proc/{pid}")).exists() || is_zombie(&pid)).then_some(()));
    let told = down(dir).stdout;
    assert!(String::from_utf8_lossy(&told).contains("not running"), "{}", String::from_utf8_lossy(&told));

    assert!(up(dir).arg("--detach").stdin(Stdio::null()).status().expect("runs").success());
    assert_eq!(connect_file(dir)["endpoint"], file["endpoint"], "clients find it where it was");
    let stopped = down(dir);
    assert!(stopped.status.success() && String::from_utf8_lossy(&stopped.stdout).contains("stopped"));
    assert!(!dir.join("server.json").exists());
}

#[test]
fn the_bank_does_not_outlive_an_attached_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = up(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
    let pid = until(|| {
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("connect.json")).ok()?).ok()?;
        file["pid"].as_u64().filter(|&pid| pid != 0)
    });
    child.kill().expect("ours");
    child.wait().expect("ours");
    until(|| (!Path::new(&format!("/proc/{pid}")).exists() || is_zombie(&pid.to_string())).then_some(()));
}

/// In a container nobody may be there to reap an orphan.
/// Whether nothing is left of it but its number: its files are open until the last thread has ended.
fn is_zombie(pid: &str) -> bool {
    let is_ending = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    is_ending && std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() <= 1)
}
