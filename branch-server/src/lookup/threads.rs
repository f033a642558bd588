//! The look-up threads: take a question, read the disk, answer or give back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tally_protocol::Lsn;

use super::questions::{Answer, resolve};
use super::{Job, LookupQueues};
use crate::bell::Bell;
use crate::clock;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::replies::ReplySender;
use crate::scheduling;

/// How long jobs are taken before their replies are handed over: many where they come out of memory, one where it has
/// to be read from the disk, so that no reply waits for the next reply's disk.
const BURST_NS: u64 = 100_000;
/// How often a thread without work looks whether it should stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// The running look-up threads.
#[derive(Debug)]
pub struct LookupThreads {
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Reader {
    engine: Arc<Engine>,
    journal: Arc<Journal>,
    queues: Arc<LookupQueues>,
    replies: ReplySender,
    workers: Vec<Bell>,
    stop: Arc<AtomicBool>,
}

/// Starts one thread per element of `replies`; `workers` are rung when something goes back to them.
///
/// # Errors
/// When the system has no thread left.
pub fn start(
    engine: &Arc<Engine>,
    journal: &Arc<Journal>,
    queues: &Arc<LookupQueues>,
    replies: Vec<ReplySender>,
    workers: &[Bell],
    stop: &Arc<AtomicBool>,
) -> std::io::Result<LookupThreads> {
    let threads = replies.into_iter().enumerate().map(|(number, replies)| {
        let reader = Reader {
            engine: engine.clone(),
            journal: journal.clone(),
            queues: queues.clone(),
            replies,
            workers: workers.to_vec(),
            stop: stop.clone(),
        };
        std::thread::Builder::new().name(format!("lookup-{number}")).spawn(move || reader.run())
    });
    Ok(LookupThreads { threads: threads.collect::<Result<_, _>>()? })
}

impl LookupThreads {
    /// Waits until all have seen that they should stop.
    pub fn join(self) {
        for thread in self.threads {
            // A panic aborts the process, so there is no other outcome than an end.
            let _ = thread.join();
        }
    }
}

impl Reader {
    fn run(mut self) {
        // Little work between two reads of the disk: what has been read is answered at once.
        scheduling::prompt();
        loop {
            match self.queues.jobs().recv_timeout(STOP_INTERVAL) {
                Ok(job) => {
                    let began = clock::monotonic_nanos();
                    self.handle(job);
                    while clock::monotonic_nanos() - began < BURST_NS {
                        let Ok(job) = self.queues.jobs().try_recv() else { break };
                        self.handle(job);
                    }
                    self.workers.iter().for_each(Bell::ring);
                    let journal = &self.journal;
                    self.replies.hand_over(|| journal.durable());
                }
                Err(_) if self.stop.load(Ordering::Acquire) => return,
                Err(_) => {}
            }
        }
    }

    fn handle(&mut self, Job { worker, question }: Job) {
        match resolve(&self.engine, &*self.journal, question) {
            Answer::Return(returned) => self.queues.give_back(worker, returned),
            Answer::Reply(asker, body) => {
                self.replies.push(Lsn::ZERO, asker.reply(body));
                self.queues.answered();
            }
        }
    }
}
