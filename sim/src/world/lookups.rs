//! The look-up thread's part: one question at a time, answered by the branch's own function. Where that would wait
//! for the disk, the question goes back to the end of the queue.

use std::cell::Cell;

use tally_branch_server::journal::Records;
use tally_branch_server::lookup::{Answer, Question, RecordReader, Returned, resolve};
use tally_branch_server::replies::ReplyBody;
use tally_journal::ReadError;
use tally_ledger::journal::position::DurableLsn;
use tally_ledger::journal::record::Record;
use tally_protocol::{Lsn, Refusal};
use zerocopy::IntoBytes;

use super::World;
use super::running::Running;
use super::task::{Next, Task, Work};
use crate::invariants::{Violation, violated};
use crate::trace::trace;

/// Questions that may be out at a time; one more is `Busy`.
pub(super) const LOOKUPS_MAX: usize = 32;

/// A task that waits for the disk, and the worker that it goes back to.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) worker: usize,
    pub(super) task: Task,
}

struct DurableReader<'a> {
    records: &'a Records,
    durable: DurableLsn,
    /// Something was asked for that is not durable yet.
    too_early: Cell<bool>,
}

impl RecordReader for DurableReader<'_> {
    fn read_durable(&self, lsn: Lsn) -> Result<Record, ReadError> {
        let record = self.records.record(lsn, self.durable);
        if matches!(record, Err(ReadError::NotDurable(_))) {
            self.too_early.set(true);
        }
        record
    }
}

impl Running<'_> {
    /// One question.
    pub(super) fn lookups_step(&mut self, world: &mut World) -> Result<bool, Violation> {
        let Some(Lookup { worker, mut task }) = self.lookups.pop_front() else { return Ok(false) };
        let durable = self.journal.published.durable();
        let reader = DurableReader { records: &self.journal.records, durable, too_early: Cell::new(false) };
        let answer = resolve(self.engine, &reader, question_of(&task));
        if reader.too_early.get() {
            self.lookups.push_back(Lookup { worker, task });
            return Ok(false);
        }
        trace!(world.trace, "looked up for request {}", task.asker.request_id);
        match answer {
            Answer::Reply(_, ReplyBody::Refused { refusal: Refusal::Busy, .. }) if !world.disk.is_down() => {
                violated!(Recoverable, "the past cannot be read for request {}", task.asker.request_id);
            }
            Answer::Reply(asker, body) => {
                self.lookup_replies.push(Lsn::ZERO, asker.reply(body));
                return Ok(true);
            }
            Answer::Return(Returned::Transfer(_, _, looked) | Returned::Chain(_, _, looked)) => {
                task.looked = Some(looked);
            }
            Answer::Return(Returned::BatchEntryNew(_, looked)) => task.looked = Some(looked),
            Answer::Return(Returned::BatchEntryKnown(_, items)) => {
                let Work::Batch(batch) = &mut task.work else { unreachable!("only batches ask about entries") };
                items.into_iter().for_each(|item| batch.answer(item, Lsn::ZERO));
            }
            Answer::Return(Returned::CancelId(_, _, looked_up)) => {
                let Work::Cancel(_, looked) = &mut task.work else { unreachable!("only cancels ask about ids") };
                *looked = Some(looked_up);
            }
            Answer::Return(Returned::BatchIds(..)) => unreachable!("nobody asks for many ids at a time"),
            Answer::Return(
                Returned::Prepare(..)
                | Returned::PrepareChain(..)
                | Returned::ChainInDoubt(..)
                | Returned::Decide(..)
                | Returned::End(..)
                | Returned::Heard(..)
                | Returned::Leg(..)
                | Returned::InDoubt(..)
                | Returned::IdTold(_)
                | Returned::Contradiction
                | Returned::TakeIn(..)
                | Returned::Nothing,
            ) => unreachable!("this branch stands alone"),
        }
        if let Some(looked) = &task.looked {
            trace!(world.trace, "found {:?}", looked.references);
        }
        self.workers[worker].returned.push_back(task);
        Ok(true)
    }
}

fn question_of(task: &Task) -> Question {
    let asker = task.asker;
    match &task.work {
        Work::Transfer(transfer) => Question::Transfer(asker, *transfer),
        Work::Chain(transfers) => Question::Chain(asker, bytes::Bytes::copy_from_slice(transfers.as_bytes())),
        Work::Batch(batch) => {
            let transfers = match batch.next() {
                Next::Single(transfer) => vec![*transfer],
                Next::Chain(chain) => chain.to_vec(),
                Next::Undecidable(..) | Next::Mixed(_) | Next::Done => unreachable!("nothing to look up"),
            };
            Question::BatchEntry { batch: 0, transfers }
        }
        Work::Cancel(id, _) => Question::CancelId(asker, *id),
        Work::Find(id) => Question::GetTransfer(asker, *id),
        Work::Open(_) | Work::Change(..) | Work::Balance(_) | Work::Account(_) => {
            unreachable!("accounts are in memory")
        }
    }
}
