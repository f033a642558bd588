//! When a checkpoint is due, and what goes into it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tally_protocol::Lsn;

use crate::engine::Engine;
use crate::journal::{CheckpointError, CheckpointMeta, CheckpointRequest, Journal};
use crate::scheduling;

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// This long after the last one, if anything was recorded since.
    pub interval: Duration,
    /// Or after this much journal: it bounds what a recovery has to replay.
    pub interval_bytes: u64,
    /// How fast it may be written; `None` for no limit. Flushes share the disk with it.
    pub bytes_per_second_max: Option<u64>,
    /// Journal that is kept behind what the checkpoints need; `None` for all.
    pub retention_bytes: Option<u64>,
    /// Whether a stopping branch writes one more, so that it starts quickly.
    pub at_stop: bool,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            interval_bytes: 4 << 30,
            bytes_per_second_max: Some(64 << 20),
            retention_bytes: None,
            at_stop: true,
        }
    }
}

/// How often it is looked whether one is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The checkpointer's thread.
#[derive(Debug)]
pub struct Checkpointer {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    wanted: bool,
    /// Everything below is in the newest checkpoint.
    replay_from: Lsn,
}

struct Running {
    engine: Arc<Engine>,
    journal: Arc<Journal>,
    config: CheckpointConfig,
    shared: Arc<Shared>,
}

impl Checkpointer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        engine: Arc<Engine>,
        journal: Arc<Journal>,
        config: CheckpointConfig,
        newest: Option<&CheckpointMeta>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.state.lock().replay_from = newest.map_or(Lsn::ZERO, |meta| meta.replay_from);
        let running = Running { engine, journal, config, shared: shared.clone() };
        let thread = scheduling::spawn_background("checkpoint", move || running.run())?;
        Ok(Self { shared, thread })
    }

    /// Everything below is in the newest checkpoint.
    pub fn replay_from(&self) -> Lsn {
        self.shared.state.lock().replay_from
    }

    /// Asks for a checkpoint now.
    pub fn want(&self) {
        self.shared.state.lock().wanted = true;
        self.shared.changed.notify_one();
    }

    /// Ends the thread, with a last checkpoint if the configuration says so. No worker may be running.
    pub fn stop(self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_one();
        // A panic aborts the process, so there is no other outcome than an end.
        let _ = self.thread.join();
    }
}

impl Running {
    fn run(self) {
        let mut last = Instant::now();
        let mut last_end = self.journal.durable().end();
        loop {
            let mut state = self.shared.state.lock();
            if !state.stop && !state.wanted {
                self.shared.changed.wait_for(&mut state, LOOK_INTERVAL);
            }
            let (stop, wanted) = (state.stop, std::mem::take(&mut state.wanted));
            drop(state);
            let end = self.journal.durable().end();
            let grown = end.get() - last_end.get();
            let due = grown > 0 && (last.elapsed() >= self.config.interval || grown >= self.config.interval_bytes);
            if wanted || (!stop && due) || (stop && self.config.at_stop && grown > 0) {
                // The last one of a stopping branch competes with nobody.
                let bytes_per_second_max = self.config.bytes_per_second_max.filter(|_| !stop);
                match self.write(bytes_per_second_max) {
                    Ok(meta) => {
                        let took_ms = last.elapsed().as_millis() as u64;
                        tracing::info!(stage = "checkpoint", number = meta.number, replay_from = %meta.replay_from, took_ms, "written");
                        self.shared.state.lock().replay_from = meta.replay_from;
                    }
                    Err(error) => tracing::error!(stage = "checkpoint", %error, "not written; the last one stands"),
                }
                last = Instant::now();
                last_end = end;
            }
            if stop {
                return;
            }
        }
    }

    fn write(&self, bytes_per_second_max: Option<u64>) -> Result<CheckpointMeta, CheckpointError> {
        // Before the first account is read: what lies below was published before it became durable.
        let replay_from = self.journal.durable();
        let ids_covered = match self.engine.ids.persist_until(replay_from.end()) {
            Ok(covered) => covered,
            Err(error) => return Err(std::io::Error::other(error).into()),
        };
        let request = CheckpointRequest {
            branch: self.engine.branch,
            ids_covered,
            counters: Vec::new(),
            bytes_per_second_max,
            retention_bytes: self.config.retention_bytes,
        };
        let mut accounts = self.engine.accounts.iter();
        let mut holds = self.engine.holds.for_checkpoint(self.engine.branch);
        self.journal.write_checkpoint(request, replay_from, &mut accounts, &mut holds)
    }
}
