//! Merging runs of about one size into one, so that their number grows with the logarithm of the ids. Bounded
//! memory, and done in small steps: whoever drives it does other work in between.

use std::sync::Arc;

use tally_protocol::TransferId;

use super::error::IdError;
use super::hash::IdHasher;
use super::run::Run;
use super::run_format::Entry;
use super::run_writer::RunWriter;

/// Which of the runs (given by their entry counts) to merge next, by index: the smallest size class that has
/// `fan_in` members. A class spans a factor of `fan_in`, with a whole generation (and the merge of `fan_in`, and so
/// on) near its middle; tiny runs, which come from forced rotations, all share the lowest.
pub(super) fn pick(entry_counts: &[u64], generation_len: u64, fan_in: usize) -> Option<Vec<usize>> {
    let unit = (generation_len / 32).max(1);
    let class = |count: u64| (count / unit).checked_ilog(fan_in as u64).map_or(0, |class| class + 1);
    let mut classes: Vec<u32> = entry_counts.iter().map(|&count| class(count)).collect();
    classes.sort_unstable();
    let full = classes.windows(fan_in).find(|window| window[0] == window[fan_in - 1])?[0];
    Some((0..entry_counts.len()).filter(|&index| class(entry_counts[index]) == full).collect())
}

/// A merge under way.
pub(super) struct Merge {
    hasher: IdHasher,
    inputs: Vec<Input>,
    writer: RunWriter,
}

struct Input {
    run: Arc<Run>,
    next_page: u64,
    /// What was read and not yet taken, last first.
    entries: Vec<Entry>,
    /// The key of the last entry that was read.
    highest: Option<(u64, TransferId, bool)>,
}

/// What a step of a merge came to.
pub(super) enum Step {
    /// There is more to do; this many bytes were written.
    Wrote(u64),
    /// All is in the writer, which only needs to be finished.
    Ended,
}

impl Merge {
    pub(super) fn new(runs: Vec<Arc<Run>>, writer: RunWriter, hasher: IdHasher) -> Self {
        let inputs =
            runs.into_iter().map(|run| Input { run, next_page: 0, entries: Vec::new(), highest: None }).collect();
        Self { hasher, inputs, writer }
    }

    /// The numbers of the runs that are merged.
    pub(super) fn input_numbers(&self) -> Vec<u64> {
        self.inputs.iter().map(|input| input.run.number).collect()
    }

    /// The number of the run that is being made.
    pub(super) const fn output_number(&self) -> u64 {
        self.writer.number()
    }

    /// Goes on until something was written or nothing is left.
    pub(super) fn step(&mut self) -> Result<Step, IdError> {
        let before = self.writer.written_len_bytes();
        loop {
            let Some(entry) = self.next()? else { return Ok(Step::Ended) };
            self.writer.push(entry)?;
            let written = self.writer.written_len_bytes() - before;
            if written > 0 {
                return Ok(Step::Wrote(written));
            }
        }
    }

    /// The run that came of it.
    pub(super) fn finish(self) -> Result<Run, IdError> {
        self.writer.finish()
    }

    /// The lowest entry of all inputs.
    fn next(&mut self) -> Result<Option<Entry>, IdError> {
        let mut lowest: Option<(usize, Entry)> = None;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let Some(&entry) = input.peek(self.hasher)? else { continue };
            if lowest.is_none_or(|(_, lowest)| entry.key() < lowest.key()) {
                lowest = Some((index, entry));
            }
        }
        Ok(lowest.map(|(index, entry)| {
            self.inputs[index].entries.pop();
            entry
        }))
    }
}

impl Input {
    fn peek(&mut self, hasher: IdHasher) -> Result<Option<&Entry>, IdError> {
        if self.entries.is_empty() && self.next_page < self.run.header.entry_page_count() {
            let first = self.next_page;
            self.next_page += self.run.read_entries(first, hasher, &mut self.entries)?;
            let is_behind = self.entries.first().map(Entry::key) >= self.highest;
            if !is_behind || !self.entries.is_sorted_by_key(Entry::key) {
                return Err(IdError::PageDamaged { run: self.run.number, page: first + 1, what: "order" });
            }
            self.highest = self.entries.last().map(Entry::key);
            self.entries.reverse();
        }
        Ok(self.entries.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_runs_of_one_size() {
        let cases: &[(&[u64], Option<&[usize]>)] = &[
            (&[], None),
            (&[1600, 1600, 1600], None),
            (&[1600, 1500, 1550, 1599], Some(&[0, 1, 2, 3])),
            (&[6400, 1600, 1600, 6400, 1600], None),
            (&[6400, 1600, 1600, 6400, 1600, 1600], Some(&[1, 2, 4, 5])),
            (&[6400, 6000, 1600, 6200, 6100], Some(&[0, 1, 3, 4])),
            (&[1, 40, 3, 1600, 0], Some(&[0, 1, 2, 4])),
            (&[100_000, 1600, 400, 100, 1], None),
        ];
        for (counts, expected) in cases {
            assert_eq!(pick(counts, 1600, 4).as_deref(), *expected, "{counts:?}");
        }
    }

    #[test]
    fn a_hundred_million_ids_lie_in_few_runs() {
        let generation = 4 << 20;
        let mut runs: Vec<u64> = Vec::new();
        let mut most = 0;
        for _ in 0..24 {
            runs.push(generation - 1000);
            while let Some(picked) = pick(&runs, generation, 4) {
                let merged = picked.iter().map(|&index| runs[index]).sum();
                let mut index = 0;
                runs.retain(|_| (!picked.contains(&index), index += 1).0);
                runs.push(merged);
            }
            most = most.max(runs.len());
        }
        assert!(most <= 10, "{most} runs");
    }
}
