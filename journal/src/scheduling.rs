//! What the threads ask of the kernel's scheduler. Nothing here is needed for correctness; it is what keeps a
//! payment's P99 when cores are shared, with our own helpers or with other programs.
//!
//! - Threads that serve payments ([`prompt`]) ask for short time slices: a thread that wakes with a shorter slice than
//!   the one that runs takes its core at once, instead of after up to 4 ms (Linux 6.12 and later: EEVDF's
//!   `PREEMPT_SHORT`; earlier kernels ignore the wish).
//! - Threads for work that can wait ([`spawn_background`]): checkpoints, id runs, segments ahead of need, have a lower
//!   priority.

use std::io;
use std::thread::JoinHandle;

/// Below the threads that serve payments, yet high enough (a tenth of their share) that a short lock held by one of
/// these is not held for long when every core is busy.
const NICE: i32 = 10;
/// A tenth of the default. The kernel's minimum is 0.1 ms.
const SLICE_NS: u64 = 300_000;

/// Asks for short time slices for the calling thread.
pub fn prompt() {
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        // For this policy: the length of a slice.
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes from the pointer and keeps nothing; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "no short time slices");
    }
}

/// Spawns a thread that gives way to those that serve payments.
///
/// # Errors
/// When the system has no thread left.
pub fn spawn_background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // On Linux this means the calling thread alone. A refusal costs a little speed, nothing else.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "a background thread keeps its priority");
        }
        work();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("of this thread")
    }

    #[test]
    fn only_the_new_thread_gives_way() {
        let before = nice();
        let (said, heard) = std::sync::mpsc::channel();
        let tell = move || said.send(nice()).expect("it is heard");
        spawn_background("background-test", tell).expect("a thread is left").join().expect("it ends");
        assert_eq!(heard.recv().expect("it was said"), NICE.max(before));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_prompt_thread_keeps_its_priority() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(None, 3).expect("lower is always permitted");
            prompt();
            assert_eq!(nice(), 3);
        })
        .join()
        .expect("no panic");
    }
}
