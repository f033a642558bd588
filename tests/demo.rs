//! `tally demo`, as somebody runs it who wants to see what the bank does when things go wrong.

mod support;

use support::tally;

#[test]
fn payments_between_branches_survive_every_kill_of_the_demo() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("bank");
    let play = || tally().args(["demo", "two-phase", "--dir"]).arg(&dir).output().expect("the program runs");
    let output = play();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    for expected in ["8. ", "refused: credit_account_not_found", "refused: transfer_aborted", "ended alike on both"] {
        assert!(printed.contains(expected), "no `{expected}` in\n{printed}");
    }
    assert_eq!(printed.matches("checked: ").count(), 8, "{printed}");
    for member in ["registry", "branch-1", "branch-2"] {
        assert!(dir.join(member).is_dir() && !dir.join(member).join("server.json").exists(), "{member} has ended");
    }

    let again = play();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("holds a bank already"), "{said}");
}
