//! Moves of accounts, as a branch takes part in them: from what the registry wants to what is to be said.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use tally_ledger::two_phase::{Attempt, ParticipantEffect, Vote};
use tally_protocol::link::{AccountMove, MoveOrder, MovedItem, VoteItem};
use tally_protocol::{AccountId, BranchId, Lsn, Refusal, Timestamp, TransferId};

use super::{Led, Said, TwoPhase, VOTES_TIMEOUT_NS};
use crate::engine::{Engine, TakenIn, Writer};
use crate::lookup::{Looked, Question};

/// Where accounts are that have moved, as the registry told. It bounds how many there are.
#[derive(Debug, Default)]
pub struct MovedAccounts(RwLock<HashMap<AccountId, (BranchId, u64), RandomState>>);

impl MovedAccounts {
    /// Where `id` is, if it has ever moved.
    pub fn get(&self, id: AccountId) -> Option<BranchId> {
        self.0.read().get(&id).map(|&(branch, _)| branch)
    }

    /// Takes over what is newer than what is known.
    pub fn learn(&self, items: &[MovedItem]) {
        let mut known = self.0.write();
        for item in items {
            let (branch, version) = (BranchId::new(item.branch_id.get()), item.version.get());
            let entry = known.entry(AccountId::new(item.account_id.get())).or_insert((branch, version));
            if version > entry.1 {
                *entry = (branch, version);
            }
        }
    }

    /// How many accounts are known to have moved.
    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TwoPhase {
    /// The registry wants an account of this branch elsewhere.
    pub fn leave(&self, engine: &Engine, writer: &mut Writer, order: &MoveOrder, now: Timestamp, led: &mut Led) {
        let id = TransferId::new(order.id.get());
        match engine.seal_account(writer, order, VOTES_TIMEOUT_NS, now) {
            Ok((done, moving)) => {
                // The begin is the source's vote: it leaves once the seal is durable.
                led.says.push((done.lsn, Said::BeginMove(Arc::new(moving))));
                self.note_prepared(id, Attempt::ONLY, &done, Vec::new());
            }
            // The order came again.
            Err(Refusal::IdAlreadyUsed) => {}
            Err(refusal) => {
                let refused = VoteItem::no(id.get(), now.as_nanos(), refusal.code());
                led.says.push((Lsn::ZERO, Said::RefuseMove(refused)));
            }
        }
    }

    /// The registry wants an account taken in.
    pub fn take_in(
        &self,
        engine: &Engine,
        writer: &mut Writer,
        moving: &Arc<AccountMove>,
        looked: Option<&Looked>,
        now: Timestamp,
        led: &mut Led,
    ) {
        let item = &moving.account;
        let id = TransferId::new(item.id.get());
        // Causes come before effects: what happens here is stamped behind the seal.
        let now = now.max(Timestamp::from_nanos(item.stamp.get().saturating_add(1)));
        match engine.take_account_in(writer, moving, looked, now) {
            Ok(TakenIn::Now(done)) => {
                self.note_prepared(id, Attempt::ONLY, &done, Vec::new());
                led.say(id, done.lsn, ParticipantEffect::Vote(Vote::Yes(Attempt::ONLY)), done.timestamp);
            }
            Ok(TakenIn::Before(hold)) => led.say(id, hold.lsn, ParticipantEffect::Vote(Vote::Yes(Attempt::ONLY)), now),
            // It may be this very move, decided meanwhile: then nobody is told "no".
            Ok(TakenIn::Lookup) | Err(Refusal::IdAlreadyUsed) => {
                led.question = Some(Question::TakeIn(moving.clone()));
            }
            Err(refusal) => self.vote_no(id, refusal, now, led),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let moved = MovedAccounts::default();
        let id = AccountId::of_branch(BranchId::new(1), 7);
        let item = |branch: u16, version: u64| MovedItem {
            account_id: id.get().into(),
            version: version.into(),
            branch_id: branch.into(),
            reserved: [0; 6],
        };
        assert_eq!((moved.get(id), moved.is_empty()), (None, true));
        moved.learn(&[item(2, 5), item(3, 6)]);
        moved.learn(&[item(2, 5)]);
        assert_eq!((moved.get(id), moved.len()), (Some(BranchId::new(3)), 1));
    }
}
