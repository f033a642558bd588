//! A short torture of the real server, so that the tool itself cannot rot. CI and people run longer ones.

use std::path::Path;
use std::process::Command;

fn torture(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    let output = command.arg("torture").args(arguments).output().expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tally torture {arguments:?}: {}\n{text}", output.status);
    text
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    let text = torture(&["kill9", "--rounds", "3"]);
    assert!(text.contains("kill9: 3 rounds, ") && text.contains(" 0 lost, 0 duplicated"), "{text}");
}

/// Whether this process may mount a FUSE file system: root, and a device.
fn may_mount() -> bool {
    let may = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !may {
        eprintln!("not tested: needs root and /dev/fuse");
    }
    may
}

/// Whether this process may give others networks of their own: root, and the programs that make them.
fn may_cut_links() -> bool {
    let has = |program| Command::new(program).arg("-V").output().is_ok();
    let may = rustix::process::geteuid().is_root() && has("ip") && has("nft");
    if !may {
        eprintln!("not tested: needs root, ip and nft");
    }
    may
}

#[test]
fn a_bank_keeps_its_books_while_processes_and_links_fail() {
    if may_cut_links() {
        let text = torture(&["bank", "--minutes", "0.1", "--seed", "7"]);
        assert!(text.contains("bank: 1 rounds, ") && text.contains("0 lost, 0 doubled, books exact"), "{text}");
    }
}

#[test]
fn nothing_is_lost_when_the_power_is_cut() {
    if may_mount() {
        let text = torture(&["disk", "--mode", "drop", "--rounds", "2"]);
        assert!(text.contains("disk: 2 rounds, ") && text.contains("power cut ("), "{text}");
    }
}

#[test]
fn the_server_stops_when_a_flush_fails() {
    if may_mount() {
        let text = torture(&["disk", "--mode", "eio", "--rounds", "2"]);
        assert!(text.contains("disk: 2 rounds, ") && text.contains("a flush failed ("), "{text}");
    }
}
