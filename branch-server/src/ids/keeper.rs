//! The thread that keeps the recent table small: it writes frozen generations out as runs and merges runs.
//!
//! ```text
//! accepted = A ; swap every shard ; write the run ; wait durable >= A and > its highest LSN ;
//! manifest (tmp, fsync, rename, fsync dir) with covered = A ; publish to every shard ; reuse the tables
//! ```
//!
//! **Invariant:** `covered` in the manifest is never above what the runs hold: A is read before the first shard is
//! swapped, so whatever is finished below A is in the frozen tables or in older runs. Nor is it ever above the
//! durable position, or a crash could hand out those positions again, to records that would not be replayed.
//!
//! One thread does both, so publications need no order between threads; a merge goes in small steps and a
//! rotation comes in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_protocol::Lsn;

use super::IdError;
use super::dir::Dir;
use super::manifest::Manifest;
use super::merge::{self, Merge, Step};
use super::run::{Run, RunSet};
use super::run_writer::RunWriter;
use super::shared::Shared;
use super::table::Table;
use crate::sync::Ordering;

/// How long to wait after the disk refused (it may be full) before trying again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a late wake-up may make good of, so that pauses of a millisecond do not add up to a lower rate than the configured.
const CATCH_UP: Duration = Duration::from_millis(8);
/// How often the durable position is looked at; a flush takes about as long.
const DURABLE_POLL: Duration = Duration::from_micros(500);

/// See the top of the file.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    dir: Arc<Dir>,
    manifest: Manifest,
    runs: Arc<RunSet>,
    /// Emptied tables of a former generation, for the next.
    spare: Vec<Table>,
    merge: Option<Merge>,
    /// When the disk may be written to again without taking more than its share.
    next_write: Instant,
    /// Set after damage was met while merging: the runs stay as they are.
    merging_given_up: bool,
}

/// The thread is to end.
struct Stop;

/// Tells those who wait for the keeper that it has ended, however it did.
struct TellEnd(Arc<Shared>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        self.0.signal.update(|state| state.ended = true);
    }
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, dir: Arc<Dir>, manifest: Manifest, runs: Arc<RunSet>) -> Self {
        Self {
            shared,
            dir,
            manifest,
            runs,
            spare: Vec::new(),
            merge: None,
            next_write: Instant::now(),
            merging_given_up: false,
        }
    }

    /// Works until told to stop, or until it cannot go on.
    pub(super) fn run(mut self) {
        let _ended = TellEnd(Arc::clone(&self.shared));
        while let Ok(()) = self.turn() {}
    }

    /// One rotation and every merge that is due then, without a pause. `false` when it cannot go on.
    pub(super) fn rotate_and_merge(&mut self) -> bool {
        let mut outcome = self.rotate();
        while outcome.is_ok() {
            self.merge = self.merge.take().or_else(|| self.begin_merge());
            if self.merge.is_none() {
                return true;
            }
            outcome = self.step_merge();
        }
        false
    }

    fn turn(&mut self) -> Result<(), Stop> {
        if self.shared.signal.state().stop {
            return Err(Stop);
        }
        if self.shared.signal.take_rotation() {
            return self.rotate();
        }
        if self.merge.is_none() {
            self.merge = self.begin_merge();
        }
        let pause = self.next_write.saturating_duration_since(Instant::now());
        if self.merge.is_some() && pause.is_zero() {
            return self.step_merge();
        }
        let timeout = if self.merge.is_some() { pause } else { Duration::from_secs(3600) };
        let signal = &self.shared.signal;
        signal.wait(timeout, |state| state.stop || signal.rotation_wanted());
        Ok(())
    }

    /// Writes out what the recent table holds at this moment.
    fn rotate(&mut self) -> Result<(), Stop> {
        let config = &self.shared.config;
        let mut fresh = std::mem::take(&mut self.spare);
        fresh.resize_with(config.shard_count, || Table::new(config.shard_bits(), config.shard_home_count()));
        let covered = self.shared.accepted();
        let frozen: Vec<_> = self.shared.shards().zip(fresh).map(|(mut shard, fresh)| shard.freeze(fresh)).collect();
        // Shards that were full until now have asked again. Whoever waits for a position looks after the publication.
        self.shared.signal.take_rotation();
        if frozen.iter().all(|table| table.len() == 0) && covered <= self.manifest.covered {
            self.publish_frozen(frozen, Arc::clone(&self.runs));
            return Ok(());
        }
        loop {
            match self.write_generation(&frozen, covered) {
                Ok(runs) => {
                    self.publish_frozen(frozen, runs);
                    self.shared.counters.generations_written.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Failure::Retry(error)) => {
                    self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(stage = "ids", %error, "ids could not be written out; trying again");
                    if self.shared.signal.wait(RETRY_AFTER, |state| state.stop).stop {
                        return Err(Stop);
                    }
                }
                Err(Failure::Stop) => return Err(Stop),
            }
        }
    }

    /// Makes `frozen` durable as a run and covers the journal below `covered`. What the runs are then.
    fn write_generation(&mut self, frozen: &[Arc<Table>], covered: Lsn) -> Result<Arc<RunSet>, Failure> {
        let id_count: usize = frozen.iter().map(|table| table.len()).sum();
        let mut runs = self.runs.runs.clone();
        let mut durable_above = Lsn::ZERO;
        if id_count > 0 {
            let run = self.write_run(frozen, id_count as u64).map_err(Failure::Retry)?;
            durable_above = run.header.highest_lsn;
            runs.push(Arc::new(run));
        }
        let wanted = |durable: Lsn| durable >= covered && (durable > durable_above || durable_above == Lsn::ZERO);
        while !wanted(self.shared.durable()) {
            if self.shared.signal.wait(DURABLE_POLL, |state| state.stop).stop {
                return Err(Failure::Stop);
            }
        }
        self.publish(runs, covered.max(self.manifest.covered))
    }

    fn write_run(&mut self, frozen: &[Arc<Table>], id_count: u64) -> Result<Run, IdError> {
        let number = self.next_run_number();
        let written = self.write_run_file(frozen, number, id_count);
        if written.is_err() {
            self.dir.remove_run(number);
        }
        written
    }

    fn write_run_file(&mut self, frozen: &[Arc<Table>], number: u64, id_count: u64) -> Result<Run, IdError> {
        let shared = Arc::clone(&self.shared);
        let bits = shared.config.filter_bits_per_id;
        let mut writer = RunWriter::create(&self.dir, number, shared.hasher, id_count, bits)?;
        for table in frozen {
            table.for_each_in_order(shared.hasher, |entry| {
                let before = writer.written_len_bytes();
                writer.push(entry)?;
                let written = writer.written_len_bytes() - before;
                if written > 0 {
                    self.note_written(written);
                    self.rest();
                }
                Ok(())
            })?;
        }
        writer.finish()
    }

    /// Waits until the disk may be written to again. Falling behind is worse than slowing the journal.
    fn rest(&self) {
        let shared = &self.shared;
        if !shared.signal.rotation_wanted() && shared.positions.get().is_some() {
            let pause = self.next_write.saturating_duration_since(Instant::now());
            shared.signal.wait(pause, |state| state.stop || shared.signal.rotation_wanted());
        }
    }

    /// Lets the shards see `runs` in the place of the frozen tables, whose memory is kept for the next generation.
    fn publish_frozen(&mut self, frozen: Vec<Arc<Table>>, runs: Arc<RunSet>) {
        for mut shard in self.shared.shards() {
            shard.publish_frozen(Arc::clone(&runs));
        }
        self.runs = runs;
        for table in frozen {
            let mut table = Arc::into_inner(table).expect("the shards have forgotten it");
            table.clear();
            self.spare.push(table);
        }
        self.note_published();
    }

    fn begin_merge(&mut self) -> Option<Merge> {
        if self.merging_given_up {
            return None;
        }
        let config = &self.shared.config;
        let counts: Vec<_> = self.runs.runs.iter().map(|run| run.header.entry_count).collect();
        let picked = merge::pick(&counts, config.generation_len_max as u64, config.merge_fan_in)?;
        let bits = config.filter_bits_per_id;
        let inputs: Vec<_> = picked.iter().map(|&index| Arc::clone(&self.runs.runs[index])).collect();
        let id_count = inputs.iter().map(|run| run.header.entry_count).sum();
        let number = self.next_run_number();
        match RunWriter::create(&self.dir, number, self.shared.hasher, id_count, bits) {
            Ok(writer) => Some(Merge::new(inputs, writer, self.shared.hasher)),
            Err(error) => {
                self.merge_failed(number, &error);
                None
            }
        }
    }

    fn step_merge(&mut self) -> Result<(), Stop> {
        let Some(mut merge) = self.merge.take() else { return Ok(()) };
        let output = merge.output_number();
        match merge.step() {
            Ok(Step::Wrote(len_bytes)) => {
                self.note_written(len_bytes);
                self.merge = Some(merge);
                Ok(())
            }
            Ok(Step::Ended) => {
                let inputs = merge.input_numbers();
                match merge.finish() {
                    Ok(run) => self.publish_merged(&inputs, run),
                    Err(error) => {
                        self.merge_failed(output, &error);
                        Ok(())
                    }
                }
            }
            Err(error) => {
                self.merge_failed(output, &error);
                Ok(())
            }
        }
    }

    fn publish_merged(&mut self, inputs: &[u64], run: Run) -> Result<(), Stop> {
        let output = run.number;
        let mut runs: Vec<_> = self.runs.runs.iter().filter(|run| !inputs.contains(&run.number)).cloned().collect();
        runs.push(Arc::new(run));
        match self.publish(runs, self.manifest.covered) {
            Ok(runs) => {
                for mut shard in self.shared.shards() {
                    shard.publish_merged(Arc::clone(&runs));
                }
                self.runs = runs;
                inputs.iter().for_each(|&number| self.dir.remove_run(number));
                self.shared.counters.merges.fetch_add(1, Ordering::Relaxed);
                self.note_published();
                Ok(())
            }
            Err(Failure::Retry(error)) => {
                self.merge_failed(output, &error);
                Ok(())
            }
            Err(Failure::Stop) => Err(Stop),
        }
    }

    /// A merge only tidies up: after a failure the runs are as good as before. Damage will not go away, so only a
    /// failure of the disk is tried again, after a while.
    fn merge_failed(&mut self, output: u64, error: &IdError) {
        self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        self.dir.remove_run(output);
        self.merging_given_up = !matches!(error, IdError::Io { .. });
        if self.merging_given_up {
            tracing::error!(stage = "ids", %error, "id runs are damaged and no longer merged; restore them from a backup");
        } else {
            tracing::warn!(stage = "ids", %error, "id runs could not be merged; trying again");
            self.next_write = Instant::now() + RETRY_AFTER;
        }
    }

    /// Puts a manifest in place that names `runs`.
    fn publish(&mut self, runs: Vec<Arc<Run>>, covered: Lsn) -> Result<Arc<RunSet>, Failure> {
        let numbers = runs.iter().map(|run| run.number).collect();
        let manifest = Manifest { covered, runs: numbers, ..self.manifest };
        self.dir.prepare_manifest(&manifest).map_err(Failure::Retry)?;
        if let Err(error) = self.dir.publish_manifest() {
            self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(stage = "ids", %error, "a manifest may or may not have been replaced; ids are no longer written out");
            return Err(Failure::Stop);
        }
        self.manifest = manifest;
        self.shared.covered.store(covered.get(), Ordering::Release);
        Ok(Arc::new(RunSet { runs }))
    }

    fn note_published(&self) {
        self.shared.signal.update(|state| state.published_count += 1);
    }

    fn note_written(&mut self, len_bytes: u64) {
        self.shared.counters.written_len_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let takes = Duration::from_secs_f64(len_bytes as f64 / self.shared.config.write_bytes_per_second as f64);
        let now = Instant::now();
        self.next_write = self.next_write.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + takes;
    }

    /// Numbers rise in the order in which runs are begun; a look-up relies on it to tell what came after it.
    fn next_run_number(&mut self) -> u64 {
        let number = self.manifest.next_run;
        self.manifest.next_run += 1;
        number
    }
}

enum Failure {
    /// Nothing has changed; it may go better later.
    Retry(IdError),
    /// The thread is to end.
    Stop,
}
