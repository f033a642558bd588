//! Legs that are prepared and not decided, with whoever waits for the decision.
//!
//! Each is an open hold as well; the hold is the truth and survives a restart, this is what serves it: when to ask the
//! registry, and whom to answer.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tally_ledger::Hold;
use tally_ledger::two_phase::{Attempt, Participant, ParticipantEffect, ParticipantEvent};
use tally_protocol::{AccountId, BranchId, Lsn, Timestamp, TransferId};

use crate::lookup::Asker;

const SHARD_COUNT: usize = 64;
/// What was prepared so long ago has been asked about, or is about to be.
const ASKED_AFTER_NS: u64 = 1_000_000_000;
/// Copies of one request that may wait for its decision; more are told `busy`.
const WAITING_MAX: usize = 8;

/// A client that waits for the decision on one transfer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Whom to answer.
    pub asker: Asker,
    /// Whether the answer carries balances.
    pub wants_balances: bool,
    /// Whether the request came again, after the one that began it.
    pub is_repeat: bool,
    /// Of a chain: which of its members was asked for alone.
    pub member: TransferId,
}

/// A client that waits for the decision on a chain.
#[derive(Clone, Debug)]
pub struct WaitingChain {
    /// Whom to answer.
    pub asker: Asker,
    /// What came again, after the chain that was begun: looked up once that is decided.
    pub again: Option<Bytes>,
}

/// What is in doubt of a chain, beside its first member here.
#[derive(Clone, Debug, Default)]
pub struct ChainDoubt {
    /// All accounts that it holds something on.
    pub accounts: Vec<AccountId>,
    /// Who waits.
    pub waiting: Vec<WaitingChain>,
}

/// One leg in doubt.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// Prepared, and when to ask.
    pub state: Participant,
    /// The accounts that it holds something on: a customer's, and the settlement account.
    pub accounts: [AccountId; 2],
    /// The record that prepared it: whatever is said of it waits for that.
    pub lsn: Lsn,
    /// When it was prepared.
    pub since: Timestamp,
    /// Who waits.
    pub waiting: Vec<Waiting>,
    /// Of a chain: the rest.
    pub chain: Option<Box<ChainDoubt>>,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Doubts {
    shards: Box<[Mutex<HashMap<TransferId, Doubt, RandomState>>]>,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { shards: (0..SHARD_COUNT).map(|_| Mutex::default()).collect() }
    }
}

impl Doubts {
    /// Adds a leg that was prepared just now.
    pub fn insert(&self, id: TransferId, doubt: Doubt) {
        self.shard(id).lock().insert(id, doubt);
    }

    /// Adds a leg that a restart found prepared: the registry is asked at once. The members of a chain are asked about as one.
    pub fn insert_recovered(&self, hold: &Hold) {
        let accounts = [hold.debit_account_id, hold.credit_account_id];
        let id = hold.decision_id();
        let mut shard = self.shard(id).lock();
        let doubt = shard.entry(id).or_insert_with(|| Doubt {
            state: Participant::Prepared { ask_at: Timestamp::default(), pause_s: 1, attempt: hold.attempt },
            accounts,
            lsn: hold.lsn,
            since: hold.timestamp,
            waiting: Vec::new(),
            chain: None,
        });
        (doubt.lsn, doubt.since) = (doubt.lsn.max(hold.lsn), doubt.since.min(hold.timestamp));
        if hold.chain.is_some() {
            doubt.chain.get_or_insert_default().accounts.extend(accounts);
        }
    }

    /// Removes a leg that was decided, and with it those who wait.
    pub fn remove(&self, id: TransferId) -> Option<Doubt> {
        self.shard(id).lock().remove(&id)
    }

    /// Lets another client wait for the decision. `Ok(false)` when too many do.
    ///
    /// # Errors
    /// Gives it back when nothing is in doubt under this id.
    pub fn attach(&self, id: TransferId, waiting: Waiting) -> Result<bool, Waiting> {
        let mut shard = self.shard(id).lock();
        let Some(doubt) = shard.get_mut(&id) else { return Err(waiting) };
        let fits = doubt.waiting.len() < WAITING_MAX;
        if fits {
            doubt.waiting.push(waiting);
        }
        Ok(fits)
    }

    /// Lets another client wait for the decision on a chain. `Ok(false)` when too many do.
    ///
    /// # Errors
    /// Gives it back when nothing is in doubt under this id.
    pub fn attach_chain(&self, id: TransferId, waiting: WaitingChain) -> Result<bool, WaitingChain> {
        let mut shard = self.shard(id).lock();
        let Some(chain) = shard.get_mut(&id).and_then(|doubt| doubt.chain.as_mut()) else { return Err(waiting) };
        let fits = chain.waiting.len() < WAITING_MAX;
        if fits {
            chain.waiting.push(waiting);
        }
        Ok(fits)
    }

    /// Tells every leg that time has passed; `ask` hears, in order of id, of those about which the registry is to be
    /// asked, and what is held of each.
    pub fn tick(&self, branch: BranchId, now: Timestamp, mut ask: impl FnMut(TransferId, Lsn, Attempt)) {
        let (mut effects, mut due) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            for (&id, doubt) in shard.lock().iter_mut() {
                // A tick contradicts nothing.
                let Ok(next) = doubt.state.handle(branch, ParticipantEvent::Tick(now), &mut effects) else { continue };
                doubt.state = next;
                for effect in effects.drain(..) {
                    if let ParticipantEffect::Ask(attempt) = effect {
                        due.push((id, doubt.lsn, attempt));
                    }
                }
            }
        }
        due.sort_unstable();
        due.into_iter().for_each(|(id, lsn, attempt)| ask(id, lsn, attempt));
    }

    /// The registry is reached again: whatever had been asked about in vain is asked about at the next tick. The pauses
    /// between two questions have grown meanwhile, and would outlast the fault. What was prepared just now is left
    /// alone: its begin may be on its way, and a question that overtakes it is answered with an abort.
    pub fn hurry(&self, now: Timestamp) {
        for shard in &self.shards {
            for doubt in shard.lock().values_mut() {
                if let Participant::Prepared { ask_at, pause_s, .. } = &mut doubt.state
                    && doubt.since.as_nanos().saturating_add(ASKED_AFTER_NS) <= now.as_nanos()
                {
                    (*ask_at, *pause_s) = ((*ask_at).min(now), 1);
                }
            }
        }
    }

    /// Whether a leg that was prepared by `stamp` is in doubt on this account.
    pub fn concern_account(&self, id: AccountId, stamp: Timestamp) -> bool {
        let is_in_chain = |doubt: &Doubt| doubt.chain.as_ref().is_some_and(|chain| chain.accounts.contains(&id));
        let concerns = |doubt: &Doubt| doubt.since <= stamp && (doubt.accounts.contains(&id) || is_in_chain(doubt));
        self.shards.iter().any(|shard| shard.lock().values().any(concerns))
    }

    /// Whether what is decided under this id was prepared by `stamp` and is in doubt.
    pub fn concern_transfer(&self, id: TransferId, stamp: Timestamp) -> bool {
        self.shard(id).lock().get(&id).is_some_and(|doubt| doubt.since <= stamp)
    }

    /// How many legs are in doubt, and since when the oldest.
    pub fn summary(&self) -> (usize, Option<Timestamp>) {
        let (mut count, mut oldest) = (0, None::<Timestamp>);
        for shard in &self.shards {
            for doubt in shard.lock().values() {
                count += 1;
                oldest = Some(oldest.map_or(doubt.since, |oldest| oldest.min(doubt.since)));
            }
        }
        (count, oldest)
    }

    fn shard(&self, id: TransferId) -> &Mutex<HashMap<TransferId, Doubt, RandomState>> {
        // The low half of a UUID is random, whatever its version; a counter spreads as well.
        &self.shards[(id.get() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> 58]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_link_makes_old_questions_due_and_leaves_new_legs_alone() {
        let doubts = Doubts::default();
        let at = |s: u64| Timestamp::from_nanos(s * 1_000_000_000);
        for (id, since) in [(1, at(10)), (2, at(99))] {
            // The second one was prepared half a second before the link came.
            let since = if id == 2 { Timestamp::from_nanos(since.as_nanos() + 500_000_000) } else { since };
            let state = Participant::Prepared { ask_at: at(120), pause_s: 32, attempt: Attempt::new(id as u64) };
            let accounts = [AccountId::NONE; 2];
            doubts.insert(
                TransferId::new(id),
                Doubt { state, accounts, lsn: Lsn::new(64), since, waiting: Vec::new(), chain: None },
            );
        }
        let asked = |now| {
            let mut asked = Vec::new();
            doubts.tick(BranchId::new(1), now, |id, _, attempt| {
                assert_eq!(u128::from(attempt.get()), id.get());
                asked.push(id.get());
            });
            asked
        };
        assert_eq!(asked(at(100)), [0u128; 0]);
        doubts.hurry(at(100));
        assert_eq!(asked(at(100)), [1]);
        // From then on at short pauses again.
        assert_eq!([101, 102, 103].map(|s| asked(at(s)).len()), [1, 0, 1]);
        assert_eq!(asked(at(120)), [1, 2]);
    }

    #[test]
    fn a_leg_is_asked_about_until_it_is_decided() {
        let doubts = Doubts::default();
        let id = TransferId::new(9);
        let ask_at = Timestamp::from_nanos(1_000_000_000);
        let state = Participant::Prepared { ask_at, pause_s: 2, attempt: Attempt::ONLY };
        let accounts = [AccountId::new(7), AccountId::new(8)];
        let since = Timestamp::from_nanos(5);
        let lsn = Lsn::new(64);
        doubts.insert(id, Doubt { state, accounts, lsn, since, waiting: Vec::new(), chain: None });
        let concerns =
            |account: u128, at: u64| doubts.concern_account(AccountId::new(account), Timestamp::from_nanos(at));
        assert!(concerns(7, 5) && concerns(8, 6) && !concerns(9, 5) && !concerns(7, 4));
        let concerns = |id: u128, at: u64| doubts.concern_transfer(TransferId::new(id), Timestamp::from_nanos(at));
        assert!(concerns(9, 5) && !concerns(9, 4) && !concerns(10, 5));
        let asked = |at_s: u64| {
            let mut asked = Vec::new();
            let now = Timestamp::from_nanos(at_s * 1_000_000_000);
            doubts.tick(BranchId::new(1), now, |id, lsn, _| asked.push((id, lsn)));
            asked.len()
        };
        assert_eq!([0, 1, 1, 2, 3, 6, 7].map(asked), [0, 1, 0, 0, 1, 0, 1]);
        assert_eq!(doubts.summary(), (1, Some(Timestamp::from_nanos(5))));
        let waiting = Waiting { asker: Asker::bank(), wants_balances: false, is_repeat: true, member: id };
        for _ in 0..WAITING_MAX {
            assert!(matches!(doubts.attach(id, waiting), Ok(true)));
        }
        assert!(matches!(doubts.attach(id, waiting), Ok(false)));
        assert_eq!(doubts.remove(id).map(|doubt| doubt.waiting.len()), Some(WAITING_MAX));
        assert!(doubts.attach(id, waiting).is_err());
        assert_eq!(asked(100), 0);
    }

    #[test]
    fn the_members_of_a_chain_are_one_doubt_after_a_restart() {
        let doubts = Doubts::default();
        let (chain, accounts) = (TransferId::new(5), |at: u128| [AccountId::new(at), AccountId::new(at + 1)]);
        for member in 0..3u8 {
            let [debit_account_id, credit_account_id] = accounts(10 * u128::from(member));
            let hold = Hold {
                id: TransferId::new(5 + u128::from(member)),
                debit_account_id,
                credit_account_id,
                amount: tally_protocol::Amount::new(1),
                currency: tally_protocol::Currency::EUR,
                code: 1,
                expires_at: Timestamp::MAX,
                lsn: Lsn::new(64 * (1 + u64::from(member))),
                leg: tally_ledger::Leg::Inner,
                far_account_id: AccountId::NONE,
                timestamp: Timestamp::from_nanos(7 + u64::from(member)),
                closes: tally_ledger::Closes::NONE,
                stage: tally_ledger::HoldStage::AwaitsPosting,
                attempt: Attempt::ONLY,
                chain: Some(tally_ledger::ChainPlace { id: chain, member, is_head: member == 0 }),
            };
            doubts.insert_recovered(&hold);
        }
        let mut asked = Vec::new();
        doubts.tick(BranchId::new(1), Timestamp::from_nanos(9), |id, lsn, _| asked.push((id, lsn.get())));
        assert_eq!(asked, [(chain, 192)], "once, behind all of its records");
        assert!([10, 11, 20, 21].map(AccountId::new).iter().all(|&id| doubts.concern_account(id, Timestamp::MAX)));
        let waiting = || WaitingChain { asker: Asker::bank(), again: None };
        for _ in 0..WAITING_MAX {
            assert!(matches!(doubts.attach_chain(chain, waiting()), Ok(true)));
        }
        assert!(matches!(doubts.attach_chain(chain, waiting()), Ok(false)));
        assert!(doubts.attach_chain(TransferId::new(6), waiting()).is_err());
        assert!(doubts.remove(chain).is_some_and(|doubt| doubt.chain.is_some_and(|chain| chain.accounts.len() == 6)));
        assert_eq!(doubts.summary(), (0, None));
    }
}
