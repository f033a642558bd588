//! Commands whose reader goes away.

mod support;

use support::tally;

#[test]
fn a_command_whose_reader_is_gone_ends_quietly() {
    for arguments in [&["config", "show"][..], &["user", "list"]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = tally();
        command.args(arguments).arg("--dir").arg(folder.path()).stdout(writer);
        let output = command.output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {} {said}", output.status);
        assert!(said.is_empty(), "{said}");
    }
}
