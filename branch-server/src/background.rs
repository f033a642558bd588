//! Threads for work that can wait: checkpoints, id runs, segments ahead of need. They take a core only when no
//! payment wants it, which on a machine with few cores is worth milliseconds of a payment's P99.

use std::io;
use std::thread::JoinHandle;

/// Below the threads that serve payments, yet high enough (a tenth of their share) that a short lock held by one of
/// these is not held for long when every core is busy.
const NICE: i32 = 10;

/// Spawns a thread that gives way to those that serve payments.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
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

    #[test]
    fn only_the_new_thread_gives_way() {
        let before = rustix::process::getpriority_process(None).expect("of this thread");
        let (said, heard) = std::sync::mpsc::channel();
        let tell = move || said.send(rustix::process::getpriority_process(None)).expect("it is heard");
        spawn("background-test", tell).expect("a thread is left").join().expect("it ends");
        assert_eq!(heard.recv().expect("it was said").expect("of that thread"), NICE.max(before));
        assert_eq!(rustix::process::getpriority_process(None).expect("of this thread"), before);
    }
}
