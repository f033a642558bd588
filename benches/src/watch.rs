//! Watches a bank and this process while load is measured: processor time, flushes, checkpoints, memory.

use std::time::{Duration, Instant};

use tally_client::load::{Observer, Progress};

use crate::bank::Bank;
use crate::process;

/// What was used between the beginning and the end of measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processors' worth of time that the bank used.
    pub(crate) cpu_server: f64,
    /// And this process.
    pub(crate) cpu_client: f64,
    pub(crate) flushes_per_s: Option<f64>,
    /// The longest flush of the bank's journal, in seconds.
    pub(crate) flush_max_s: f64,
    /// Checkpoints that were finished meanwhile.
    pub(crate) checkpoints: u32,
    /// The bank's memory, lowest and highest, in bytes.
    pub(crate) resident_min: u64,
    pub(crate) resident_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Snapshot {
    at: Instant,
    cpu_server: Duration,
    cpu_client: Duration,
    flushes: Option<f64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    bank: &'a Bank,
    pids: Vec<u32>,
    progress: bool,
    begun: Option<Snapshot>,
    last_checkpoint: Option<f64>,
    usage: Usage,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(bank: &'a Bank, progress: bool) -> anyhow::Result<Self> {
        let usage = Usage { resident_min: u64::MAX, ..Usage::default() };
        Ok(Self { bank, pids: bank.pids()?, progress, begun: None, last_checkpoint: None, usage })
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// `None` when the bank has ended, which the load will notice as well.
    fn snapshot(&mut self) -> Option<Snapshot> {
        let metrics = self.bank.metrics();
        let checkpoint = metrics.get("tally_journal_checkpoint_bytes");
        if self.begun.is_some() && checkpoint > self.last_checkpoint {
            self.usage.checkpoints += 1;
        }
        self.last_checkpoint = checkpoint;
        // Since the last look: the first one's was before the measuring.
        let flush_max = metrics.get("tally_journal_flush_max_seconds").filter(|_| self.begun.is_some());
        self.usage.flush_max_s = self.usage.flush_max_s.max(flush_max.unwrap_or(0.0));
        let resident = self.pids.iter().map(|&pid| process::resident_bytes(pid)).sum::<Result<u64, _>>().ok()?;
        self.usage.resident_min = self.usage.resident_min.min(resident);
        self.usage.resident_max = self.usage.resident_max.max(resident);
        Some(Snapshot {
            at: Instant::now(),
            cpu_server: self.pids.iter().map(|&pid| process::cpu_time(pid)).sum::<Result<Duration, _>>().ok()?,
            cpu_client: process::cpu_time(std::process::id()).ok()?,
            flushes: metrics.get("tally_journal_flushes_total"),
        })
    }
}

impl Observer for Watch<'_> {
    fn begun(&mut self) {
        self.begun = self.snapshot();
    }

    fn second(&mut self, progress: &Progress) {
        if self.progress {
            eprintln!("{progress}");
        }
        if self.begun.is_some() {
            self.snapshot();
        }
    }

    fn ended(&mut self) {
        let (Some(begun), Some(ended)) = (self.begun, self.snapshot()) else { return };
        let seconds = ended.at.duration_since(begun.at).as_secs_f64().max(1e-3);
        self.usage.cpu_server = (ended.cpu_server.saturating_sub(begun.cpu_server)).as_secs_f64() / seconds;
        self.usage.cpu_client = (ended.cpu_client.saturating_sub(begun.cpu_client)).as_secs_f64() / seconds;
        self.usage.flushes_per_s = match (begun.flushes, ended.flushes) {
            (Some(begun), Some(ended)) => Some((ended - begun) / seconds),
            _ => None,
        };
    }
}
