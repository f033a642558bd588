//! `tally up` and `tally down`, as somebody with a laptop uses them.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{http_get, tally, until};
use tally_client::{Client, ClientOptions, ConnectFile};
use tally_protocol::AccountId;
use tally_protocol::message::LimitsSet;
use zerocopy::FromZeros;

fn up(dir: &Path) -> Command {
    let mut command = tally();
    command.args(["up", "--branches", "1"]).arg("--dir").arg(dir);
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
        "refused: insufficient_funds: the account has less",
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
    assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
    let file = connect_file(dir);
    let metrics = file["metrics"].as_str().expect("a URL").trim_start_matches("http://").trim_end_matches("/metrics");
    let metrics = metrics.parse().expect("an address");
    assert!(http_get(metrics, "/readyz").starts_with("HTTP/1.1 200"));
    let (ok, said) = outcome(&mut up(dir));
    assert!(!ok && said.contains("is running in"), "a folder has one bank: {said}");

    let pid = file["pid"].as_u64().expect("a number").to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill is there").success());
    until(|| (!Path::new(&format!("/proc/{pid}")).exists() || is_zombie(&pid)).then_some(()));
    assert!(down(dir).contains("not running"));

    assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
    assert_eq!(connect_file(dir)["endpoint"], file["endpoint"], "clients find it where it was");
    assert!(down(dir).contains("stopped"));
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

fn detached(dir: &Path) -> Command {
    let mut command = up(dir);
    command.arg("--detach").stdin(Stdio::null());
    command
}

/// Whether it went well, and what it said on standard error.
fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the program runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn down(dir: &Path) -> String {
    let output = tally().arg("down").arg("--dir").arg(dir).output().expect("the program runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Freezes alice's account and gives bob's other limits, as staff may.
fn change_accounts(dir: &Path) {
    let info =
        ConnectFile::read(&ConnectFile::path(dir)).expect("written by `up`").connect_info(None).expect("complete");
    let accounts = connect_file(dir)["accounts"].clone();
    let id = |index: usize| {
        let digits = accounts[index]["id"].as_str().expect("text").trim_start_matches("0x").to_owned();
        AccountId::new(u128::from_str_radix(&digits, 16).expect("a number"))
    };
    let mut limits = LimitsSet::new_zeroed();
    limits.id.set(id(1).get());
    limits.day_limit.set(5_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(info, ClientOptions::default()).await.expect("logged in");
        client.freeze_account(id(0)).await.expect("frozen");
        client.set_limits(&limits).await.expect("set");
    });
}

#[test]
fn an_existing_bank_is_served_whatever_has_become_of_its_accounts_and_users() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
    let first = connect_file(dir);
    change_accounts(dir);
    down(dir);

    // As if the first start had been interrupted just before it wrote of the accounts.
    let mut interrupted = first.clone();
    interrupted["accounts"] = serde_json::json!([]);
    std::fs::write(dir.join("connect.json"), interrupted.to_string()).expect("ours");
    assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
    assert_eq!(connect_file(dir)["accounts"], first["accounts"]);
    down(dir);

    let mut passwd = tally();
    passwd.args(["user", "passwd", "teller", "--dir"]).arg(dir).stdin(Stdio::piped());
    let mut passwd = passwd.spawn().expect("the program starts");
    passwd.stdin.take().expect("piped").write_all(b"another one\n").expect("typed");
    assert!(passwd.wait().expect("ours").success());
    assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
    assert_eq!(connect_file(dir)["users"], first["users"]);
    down(dir);
    let printed = at_the_prompt(dir, "balance bob\nquit\n");
    assert!(printed.contains("The bank serves at") && printed.contains("login_failed"), "{printed}");
}

#[test]
fn an_up_that_fails_leaves_no_server_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    // What is to become connect.json cannot be written: the server runs by then.
    for detach in [true, false] {
        assert_eq!(outcome(&mut detached(dir)), (true, String::new()));
        down(dir);
        std::fs::create_dir(dir.join("connect.json.new")).expect("ours");
        let mut command = if detach { detached(dir) } else { up(dir) };
        let (ok, said) = outcome(command.stdin(Stdio::null()));
        assert!(!ok && said.contains("connect.json"), "{said}");
        assert!(down(dir).contains("not running"));
        std::fs::remove_dir(dir.join("connect.json.new")).expect("ours");
    }
    let (ok, said) = outcome(detached(dir).args(["--set", "limits.in_flight_max=0"]));
    assert!(!ok && said.contains("`limits.in_flight_max` (flag)"), "{said}");
}

#[test]
fn a_configured_address_wins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a free port");
    let [file, metrics, env, flag, port] = [free(), free(), free(), free(), free()];
    let text = format!("[branch]\nid = 3\n[listen]\naddress = \"{file}\"\n[metrics]\naddress = \"{metrics}\"\n");
    std::fs::write(dir.join("branch.toml"), text).expect("ours");
    let set = format!("listen.address={flag}");
    let cases: [(&dyn Fn(&mut Command), std::net::SocketAddr); 4] = [
        (&|_| {}, file),
        (&|command| _ = command.env("TALLY_LISTEN_ADDRESS", env.to_string()), env),
        (&|command| _ = command.args(["--set", &set]), flag),
        (&|command| _ = command.args(["--port", &port.port().to_string()]), port),
    ];
    for (configure, expected) in cases {
        let mut command = detached(dir);
        configure(&mut command);
        assert_eq!(outcome(&mut command), (true, String::new()));
        let connect = connect_file(dir);
        assert_eq!(connect["endpoint"], expected.to_string());
        assert_eq!(connect["metrics"], format!("http://{metrics}/metrics"));
        assert_eq!(connect["branch_id"], 3);
        down(dir);
    }
    let (ok, said) = outcome(detached(dir).args(["--set", &set, "--port", "1"]));
    assert!(!ok && said.contains("only one of them"), "{said}");
}

/// In a container nobody may be there to reap an orphan.
/// Whether nothing is left of it but its number: its files are open until the last thread has ended.
fn is_zombie(pid: &str) -> bool {
    let is_ending = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    is_ending && std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() <= 1)
}
