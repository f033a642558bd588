//! The server where io_uring is forbidden, as most container runtimes do it: a seccomp filter that answers
//! `io_uring_setup` with EPERM.

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use support::tally;

/// Has `command`, and all that it starts, refused io_uring.
fn forbid_uring(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install_filter) };
}

fn install_filter() -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number is the first field of `seccomp_data`.
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let is_setup = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let skip_unless_setup =
        libc::sock_filter { code: is_setup as u16, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 };
    let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut filter = [load_number, skip_unless_setup, refuse, allow];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and the filter that it points to live until the call has returned; the kernel copies them.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn up(dir: &std::path::Path, io: &str) -> Command {
    let mut command = tally();
    command.args(["up", "--branches", "1"]).arg("--dir").arg(dir).stdin(Stdio::null());
    for setting in ["journal.segment_len_bytes=4194304", "journal.free_bytes_min=0", io] {
        command.arg("--set").arg(setting);
    }
    forbid_uring(&mut command);
    command
}

#[test]
fn the_journal_falls_back_to_blocking_calls_and_says_so_once() {
    let folder = support::folder();
    let dir = folder.path().join("bank");
    assert!(up(&dir, "journal.io=auto").arg("--detach").status().expect("runs").success());
    let load = tally()
        .args(["load", "--accounts", "100", "--connections", "2", "--duration", "500ms", "--warmup", "100ms"])
        .arg("--connect")
        .arg(dir.join("connect.json"))
        .output()
        .expect("runs");
    assert!(tally().arg("down").arg("--dir").arg(&dir).status().expect("runs").success());
    let printed = String::from_utf8_lossy(&load.stdout);
    assert!(load.status.success() && printed.contains("verification"), "{printed}");
    let log = std::fs::read_to_string(dir.join("branch.log")).expect("the log");
    assert_eq!(
        log.matches("io_uring is not permitted here: the journal writes with blocking calls").count(),
        1,
        "{log}"
    );
}

#[test]
fn where_io_uring_was_demanded_the_server_does_not_start() {
    let folder = support::folder();
    let dir = folder.path().join("bank");
    let output = up(&dir, "journal.io=uring").arg("--detach").output().expect("runs");
    assert!(!output.status.success());
    let log = std::fs::read_to_string(dir.join("branch.log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(format!("{said}{log}").contains("io_uring is not permitted here"), "{said}\n{log}");
}
