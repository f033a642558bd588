//! One request in a worker's hands, and how far it has come.

use bytes::Bytes;
use tally_branch_server::engine::AccountOp;
use tally_branch_server::ids::LookedUp;
use tally_branch_server::intake::{Op, Request};
use tally_branch_server::lookup::{Asker, Looked};
use tally_ledger::wire::item_result;
use tally_ledger::{mixed, stretches};
use tally_protocol::message::{self, ItemResult, Role, account_flags};
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp, TransferId};
use zerocopy::{FromBytes, IntoBytes};

use crate::planted::Bug;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) asker: Asker,
    pub(super) work: Work,
    /// What the disk has said about the transfer, or chain, that is next.
    pub(super) looked: Option<Looked>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    Transfer(message::Transfer),
    Chain(Vec<message::Transfer>),
    Batch(Batch),
    Open(Vec<message::AccountOpen>),
    Change(AccountId, AccountOp),
    /// With what the disk said about the id, once it has.
    Cancel(TransferId, Option<LookedUp>),
    Balance(AccountId),
    Account(AccountId),
    Find(TransferId),
}

/// A batch, and its answers so far.
#[derive(Debug)]
pub(super) struct Batch {
    entries: Vec<message::Transfer>,
    items: Vec<u8>,
    pub(super) gate: Lsn,
}

/// What of a batch is next.
#[derive(Clone, Debug)]
pub(super) enum Next<'a> {
    Single(&'a message::Transfer),
    Chain(&'a [message::Transfer]),
    /// Cannot be decided, for this reason.
    Undecidable(usize, Refusal),
    /// Does not go with the first.
    Mixed(Vec<Refusal>),
    Done,
}

impl Task {
    /// The request as the worker found it in its lane.
    pub(super) fn of(request: Request, bug: Option<Bug>) -> Self {
        let (mut asker, op) = Asker::of(request);
        if bug == Some(Bug::OwnerNotChecked) {
            asker.actor.role = Role::Admin;
        }
        let work = match op {
            Op::Transfer(transfer) => Work::Transfer(transfer),
            Op::Chain(bytes) if bug != Some(Bug::ChainInPieces) => Work::Chain(transfers_of(&bytes)),
            Op::Batch(bytes) | Op::Chain(bytes) => {
                Work::Batch(Batch { entries: transfers_of(&bytes), items: Vec::new(), gate: Lsn::ZERO })
            }
            Op::OpenAccounts(bytes) => {
                let opens = <[message::AccountOpen]>::ref_from_bytes(&bytes);
                let mut opens = opens.expect("the clients send whole ones").to_vec();
                if bug == Some(Bug::LimitFlagDropped) {
                    opens.iter_mut().for_each(|open| open.flags.set(open.flags.get() & !account_flags::DEBITS_LIMITED));
                }
                if bug == Some(Bug::OpeningsInPieces) {
                    opens.iter_mut().for_each(|open| open.flags.set(open.flags.get() & !account_flags::LINKED));
                }
                Work::Open(opens)
            }
            Op::CloseAccount(id) => Work::Change(id, AccountOp::Close),
            Op::FreezeAccount(id) => Work::Change(id, AccountOp::Freeze),
            Op::UnfreezeAccount(id) => Work::Change(id, AccountOp::Unfreeze),
            Op::SetLimits(limits) => Work::Change(AccountId::new(limits.id.get()), AccountOp::SetLimits(limits)),
            Op::CancelId(id) => Work::Cancel(id, None),
            Op::GetBalance(id) => Work::Balance(id),
            Op::GetAccount(id) => Work::Account(id),
            Op::GetTransfer(id) => Work::Find(id),
            Op::ReadAfter(..) => unreachable!("the simulated clients show no stamps"),
            Op::ReadFeed(_) => unreachable!("the feed is read without the intake here"),
        };
        Self { asker, work, looked: None }
    }
}

impl Batch {
    /// What is next.
    pub(super) fn next(&self) -> Next<'_> {
        let rest = &self.entries[self.answered()..];
        let Some(stretch) = stretches(rest).next() else { return Next::Done };
        let chain = &rest[stretch.range];
        match (stretch.refusal, mixed(&self.entries[0], chain), chain) {
            (Some(refusal), _, chain) => Next::Undecidable(chain.len(), refusal),
            (None, Some(refusals), _) => Next::Mixed(refusals),
            (None, None, [single]) => Next::Single(single),
            (None, None, chain) => Next::Chain(chain),
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.items.len() / ItemResult::LEN_BYTES
    }

    /// Entries without an answer.
    pub(super) fn left(&self) -> usize {
        self.entries.len() - self.answered()
    }

    pub(super) fn answer(&mut self, item: ItemResult, gate: Lsn) {
        self.items.extend_from_slice(item.as_bytes());
        self.gate = self.gate.max(gate);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.answer(item_result(Some(refusal), Timestamp::default(), false), Lsn::ZERO);
    }

    pub(super) fn into_items(self) -> Bytes {
        self.items.into()
    }
}

fn transfers_of(bytes: &[u8]) -> Vec<message::Transfer> {
    <[message::Transfer]>::ref_from_bytes(bytes).expect("the clients send whole ones").to_vec()
}
