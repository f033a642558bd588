//! Configuration as an operator meets it: what `tally config show` says, and what a server refuses.

mod support;

use std::process::{Command, Output};

use support::{Server, folder, tally};

fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.success(), text(stdout), text(stderr))
}

#[test]
fn show_says_where_each_value_comes_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("branch.toml");
    std::fs::write(&file, "[branch]\nid = 7\n[limits]\nin_flight_max = 64\n").expect("written");
    let mut command = tally();
    command.args(["config", "show", "--config"]).arg(&file).args(["--set", "log.level=debug"]);
    let (ok, stdout, stderr) = run(command.env("TALLY_LIMITS_IN_FLIGHT_MAX", "32"));
    assert!(ok, "{stderr}");
    let line = |name: &str| stdout.lines().find(|line| line.starts_with(name)).expect("every key is shown").to_owned();
    for (name, value, source) in [
        ("branch.id", "= 7 ", "# file "),
        ("limits.in_flight_max", "= 32 ", "# env TALLY_LIMITS_IN_FLIGHT_MAX"),
        ("log.level", "= \"debug\" ", "# flag"),
        ("holds.max", "= 1000000 ", "# default"),
    ] {
        let line = line(name);
        assert!(line.contains(value) && line.contains(source), "{line}");
    }
}

#[test]
fn a_bad_value_is_refused_by_name_before_anything_is_touched() {
    for (setting, named) in [
        ("limits.in_flight_max=0", "`limits.in_flight_max` (flag): 0 is not in 1..=16384"),
        ("journal.segment_len_bytes=5000000", "`journal.segment_len_bytes` (flag): 5000000 is not a power of two"),
        ("listen.address=nowhere", "`listen.address` (flag)"),
        ("listen.adress=127.0.0.1:1", "unknown key `listen.adress` (flag)"),
    ] {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let dir = parent.path().join("data");
        let (ok, _, stderr) = run(tally().arg("branch-server").arg("--dir").arg(&dir).args(["--set", setting]));
        assert!(!ok && stderr.contains(named), "{setting}: {stderr}");
        assert!(!dir.exists(), "{setting}: the folder was made");
    }
}

#[test]
fn what_a_server_lacks_is_named() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let (ok, _, stderr) = run(tally().arg("branch-server").arg("--dir").arg(empty.path()));
    assert!(!ok && stderr.contains("server.pem"), "{stderr}");

    let without_users = folder();
    std::fs::remove_file(without_users.path().join("users.json")).expect("there");
    let (ok, _, stderr) = run(&mut Server::command(without_users.path(), &[]));
    assert!(!ok && stderr.contains("users.json") && stderr.contains("tally user add"), "{stderr}");
}

#[test]
fn a_folder_and_a_port_have_one_server() {
    let server = Server::start(&[]);
    let (ok, _, stderr) = run(&mut Server::command(&server.dir, &[]));
    assert!(!ok && stderr.contains("in use by another server"), "{stderr}");

    let other = folder();
    let same_port = format!("listen.address={}", server.address);
    let (ok, _, stderr) = run(&mut Server::command(other.path(), &[&same_port]));
    assert!(!ok && stderr.contains("listening at"), "{stderr}");
    // The first one has not noticed.
    assert_eq!(server.metric("tally_ready"), 1.0);
}
