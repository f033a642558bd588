//! The open holds of the branch. Holds that ended are history: the id index knows where.
//!
//! **Invariant:** a hold is added or removed only while the locks of both its accounts are held, so
//! whoever holds these locks and finds it here may settle it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tally_ledger::{Ending, Hold, HoldStage, Joining};
use tally_protocol::{AccountId, BranchId, Lsn, Timestamp, TransferId};

use crate::endings::Endings;

/// Enough that two workers rarely meet on one.
const SHARD_COUNT: usize = 64;

type Shard = Mutex<HashMap<TransferId, Hold, RandomState>>;

/// The open holds.
pub struct Holds {
    shards: Box<[Shard]>,
    /// Those that have ended here and not at the payee's branch: they keep their room until then.
    pub endings: Endings,
    /// Holds between branches that stand.
    standing: AtomicUsize,
    /// Members of chains between branches that are not decided, by the id that the registry decides under.
    chains: Mutex<HashMap<TransferId, Vec<TransferId>, RandomState>>,
    /// Those that end here when their time runs out, soonest first.
    by_expiry: Mutex<BTreeSet<(Timestamp, TransferId)>>,
    /// Open ones, and room secured for ones to come. `0 <= taken <= len_max`
    taken: AtomicUsize,
    len_max: usize,
}

impl std::fmt::Debug for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holds({})", self.taken())
    }
}

impl Holds {
    /// Room for `len_max` open holds.
    pub fn new(len_max: usize) -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            endings: Endings::default(),
            standing: AtomicUsize::new(0),
            chains: Mutex::default(),
            by_expiry: Mutex::default(),
            taken: AtomicUsize::new(0),
            len_max,
        }
    }

    /// Secures room for one more, before any lock is taken. `false` when there is none. Every success is
    /// followed by one [`Holds::insert`] or one [`Holds::give_room_back`].
    pub fn secure_room(&self) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        if taken >= self.len_max {
            self.give_room_back();
        }
        taken < self.len_max
    }

    /// Gives secured room back.
    pub fn give_room_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Open holds, and room secured for ones to come.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The open hold with this id.
    pub fn get(&self, id: TransferId) -> Option<Hold> {
        self.shard(id).lock().get(&id).copied()
    }

    /// Adds a hold, for which room was secured.
    pub fn insert(&self, hold: Hold) {
        self.note_stage(&hold);
        let before = self.shard(hold.id).lock().insert(hold.id, hold);
        assert!(before.is_none(), "hold {} was open already", hold.id);
        if let Some(place) = hold.chain {
            self.chains.lock().entry(place.id).or_default().push(hold.id);
        }
    }

    /// Adds a hold that was open before a restart: there is room for it even if the limit was lowered since,
    /// and it may have been added before, by the checkpoint or by an earlier record.
    pub fn insert_recovered(&self, hold: Hold) {
        self.remove(hold.id);
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.insert(hold);
    }

    /// Removes a hold that ended.
    pub fn remove(&self, id: TransferId) -> Option<Hold> {
        let hold = self.shard(id).lock().remove(&id)?;
        self.forget_stage(&hold);
        self.leave_chain(&hold);
        self.give_room_back();
        Some(hold)
    }

    /// The registry has let a hold between branches stand: the record at `lsn` says so. Nothing happens to one that is not
    /// there.
    pub fn keep(&self, id: TransferId, lsn: Lsn) {
        let mut shard = self.shard(id).lock();
        let Some(hold) = shard.get_mut(&id).filter(|hold| hold.is_in_doubt()) else { return };
        let before = *hold;
        (hold.stage, hold.lsn, hold.chain) = (HoldStage::Open, lsn, None);
        let hold = *hold;
        drop(shard);
        self.leave_chain(&before);
        self.note_stage(&hold);
    }

    /// The members of a chain between branches that wait here for its decision, in the chain's order.
    pub fn chain(&self, id: TransferId) -> Vec<Hold> {
        let members = self.chains.lock().get(&id).cloned().unwrap_or_default();
        let mut holds: Vec<Hold> = members.into_iter().filter_map(|member| self.get(member)).collect();
        holds.sort_unstable_by_key(|hold| hold.chain.map(|place| place.member));
        holds
    }

    fn leave_chain(&self, hold: &Hold) {
        let Some(place) = hold.chain else { return };
        let mut chains = self.chains.lock();
        if let Some(members) = chains.get_mut(&place.id) {
            members.retain(|&member| member != hold.id);
            if members.is_empty() {
                chains.remove(&place.id);
            }
        }
    }

    /// In the hold `id` the account `to` takes the place of `from`, which has gone ([`Hold::rehomed`]). Nothing happens where it
    /// has done so before, but that it waits for nobody any more.
    pub fn rehome(&self, id: TransferId, from: AccountId, to: AccountId) {
        self.change(id, |hold| hold.rehomed(from, to).unwrap_or_else(|| hold.joining_none()));
    }

    /// The hold `id` stands still, for this account is to join it; or it waits for nobody any more.
    pub fn await_joining(&self, id: TransferId, joining: Option<Joining>) {
        self.change(id, |hold| match joining {
            Some(joining) => Hold { stage: HoldStage::Joining(joining), ..hold },
            None => hold.joining_none(),
        });
    }

    fn change(&self, id: TransferId, change: impl FnOnce(Hold) -> Hold) {
        let mut shard = self.shard(id).lock();
        let Some(hold) = shard.get_mut(&id) else { return };
        let (before, after) = (*hold, change(*hold));
        *hold = after;
        drop(shard);
        self.forget_stage(&before);
        self.note_stage(&after);
    }

    /// All that are open on an account, or stand still until it comes, by id. Complete under the account's lock. Looks at every hold
    /// of the branch.
    pub fn on_account(&self, id: AccountId) -> Vec<Hold> {
        let waits = |hold: &Hold| hold.joined_by().is_some_and(|joining| joining.account_id == id);
        let mut holds: Vec<Hold> = self.iter().filter(|hold| hold.is_on(id) || waits(hold)).collect();
        holds.sort_unstable_by_key(|hold| hold.id);
        holds
    }

    /// Not due until [`Holds::thaw`]: its account is on its way.
    pub fn freeze(&self, hold: &Hold) {
        self.by_expiry.lock().remove(&(hold.expires_at, hold.id));
    }

    /// Due again, if it has a time-out.
    pub fn thaw(&self, hold: &Hold) {
        if hold.has_timeout() {
            self.by_expiry.lock().insert((hold.expires_at, hold.id));
        }
    }

    /// A hold between branches was removed and has ended so; it keeps its room until the payee's branch knows.
    pub fn note_ending(&self, ending: Ending) {
        if self.endings.insert(ending) {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same before a restart.
    pub fn note_ending_recovered(&self, ending: Ending) {
        if self.endings.insert_recovered(ending) {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The payee's branch knows how this hold ended.
    pub fn ending_heard(&self, id: TransferId) {
        if self.endings.remove(id) {
            self.give_room_back();
        }
    }

    /// Holds between branches that stand.
    pub fn standing(&self) -> usize {
        self.standing.load(Ordering::Relaxed)
    }

    fn forget_stage(&self, hold: &Hold) {
        if hold.has_timeout() {
            self.by_expiry.lock().remove(&(hold.expires_at, hold.id));
        }
        if is_standing(hold) {
            self.standing.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn note_stage(&self, hold: &Hold) {
        if hold.has_timeout() {
            self.by_expiry.lock().insert((hold.expires_at, hold.id));
        }
        if is_standing(hold) {
            self.standing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// At most `count_max` holds whose time has run out at `now`, soonest first. They stay until removed.
    pub fn due(&self, now: Timestamp, count_max: usize) -> Vec<TransferId> {
        let by_expiry = self.by_expiry.lock();
        by_expiry.iter().take_while(|(expires_at, _)| *expires_at <= now).take(count_max).map(|&(_, id)| id).collect()
    }

    /// For a checkpoint: every open hold, then what has ended here and not at the payee's branch. In this order: what ends
    /// meanwhile is in a record that is replayed behind the checkpoint.
    pub fn for_checkpoint(&self, branch: BranchId) -> impl Iterator<Item = Hold> + '_ {
        let endings = std::iter::once_with(move || self.endings.all()).flatten();
        self.iter().chain(endings.map(move |ending| ending.to_hold(branch)))
    }

    /// Every open hold, shard by shard, each shard at one instant.
    pub fn iter(&self) -> impl Iterator<Item = Hold> + '_ {
        self.shards.iter().flat_map(|shard| shard.lock().values().copied().collect::<Vec<_>>())
    }

    fn shard(&self, id: TransferId) -> &Shard {
        // The low half of a UUID is random, whatever its version; a counter spreads as well.
        &self.shards[(id.get() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> 58]
    }
}

fn is_standing(hold: &Hold) -> bool {
    hold.leg.is_part() && matches!(hold.stage, HoldStage::Open | HoldStage::Joining(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_ledger::{HoldEnd, Leg};
    use tally_protocol::{AccountId, Amount, Currency};

    fn hold(id: u128, expires_at: u64) -> Hold {
        Hold {
            id: TransferId::new(id),
            debit_account_id: AccountId::new(1),
            credit_account_id: AccountId::new(2),
            amount: Amount::new(3),
            currency: Currency::EUR,
            code: 1,
            expires_at: Timestamp::from_nanos(expires_at),
            chain: None,
            leg: tally_ledger::Leg::Whole,
            far_account_id: AccountId::NONE,
            lsn: Lsn::new(64),
            timestamp: Timestamp::from_nanos(1),
            closes: tally_ledger::Closes::NONE,
            stage: HoldStage::Open,
            attempt: tally_ledger::two_phase::Attempt::ONLY,
        }
    }

    #[test]
    fn due_holds_come_soonest_first_and_only_when_due() {
        let holds = Holds::new(10);
        for (id, expires_at) in [(1, 30), (2, 10), (3, 20), (4, u64::MAX)] {
            assert!(holds.secure_room());
            holds.insert(hold(id, expires_at));
        }
        let due = |now| holds.due(Timestamp::from_nanos(now), 10).iter().map(|id| id.get()).collect::<Vec<_>>();
        assert_eq!(due(9), Vec::<u128>::new());
        assert_eq!(due(20), [2, 3]);
        assert_eq!(due(u64::MAX - 1), [2, 3, 1]);
        assert_eq!(holds.remove(TransferId::new(2)).map(|hold| hold.id.get()), Some(2));
        assert_eq!(due(20), [3]);
        assert_eq!(holds.iter().count(), 3);
    }

    #[test]
    fn a_hold_between_branches_expires_once_it_stands_and_only_at_the_payers_branch() {
        let holds = Holds::new(10);
        let due = || holds.due(Timestamp::from_nanos(100), 10).len();
        for (id, leg) in [(1, Leg::Source), (2, Leg::Destination)] {
            assert!(holds.secure_room());
            holds.insert(Hold { leg, stage: HoldStage::AwaitsKeeping, ..hold(id, 30) });
        }
        assert_eq!((due(), holds.standing()), (0, 0));
        (1..=3).for_each(|id| holds.keep(TransferId::new(id), Lsn::new(128)));
        assert_eq!((due(), holds.standing()), (1, 2));
        assert_eq!(holds.get(TransferId::new(1)).map(|hold| hold.lsn), Some(Lsn::new(128)));
        holds.remove(TransferId::new(1));
        assert_eq!((due(), holds.standing(), holds.taken()), (0, 1, 1));
        let ending = Ending {
            hold_id: TransferId::new(1),
            end: HoldEnd::Expired,
            posted: Amount::ZERO,
            currency: Currency::EUR,
            peer: BranchId::new(2),
            lsn: Lsn::new(256),
            timestamp: Timestamp::from_nanos(30),
        };
        holds.note_ending(ending);
        holds.note_ending(ending);
        assert_eq!(holds.taken(), 2, "it keeps its room");
        let kept: Vec<Hold> = holds.for_checkpoint(BranchId::new(1)).collect();
        assert_eq!(kept.iter().filter_map(Ending::of_hold).collect::<Vec<_>>(), [ending]);
        (0..2).for_each(|_| holds.ending_heard(TransferId::new(1)));
        assert_eq!(holds.taken(), 1);
    }

    #[test]
    fn what_waits_for_an_account_is_not_due_and_joins_it_once() {
        let holds = Holds::new(10);
        let [ann, bob, due_from] = [1, 2, 3].map(AccountId::new);
        let part = Hold { leg: Leg::Source, credit_account_id: due_from, far_account_id: bob, ..hold(1, 30) };
        assert!(holds.secure_room());
        holds.insert(part);
        let due = || holds.due(Timestamp::from_nanos(100), 10).len();
        let at = Timestamp::from_nanos(7);
        let joining = Joining { account_id: bob, other_account_id: ann, made_at: at, expires_at: at };
        holds.await_joining(part.id, Some(joining));
        let waiting = Hold { stage: HoldStage::Joining(joining), ..part };
        assert_eq!((due(), holds.standing(), holds.on_account(bob)), (0, 1, vec![waiting]));
        assert_eq!(holds.on_account(ann), [waiting]);
        holds.await_joining(part.id, None);
        assert_eq!((due(), holds.get(part.id)), (1, Some(part)));
        holds.await_joining(part.id, Some(joining));
        // The clock is the payer's, and the payer was here all the time.
        let joined = Hold { leg: Leg::Whole, credit_account_id: bob, far_account_id: ann, ..part };
        holds.rehome(part.id, due_from, bob);
        assert_eq!((due(), holds.standing(), holds.get(part.id)), (1, 0, Some(joined)));
        // Replayed on a state that is behind it.
        holds.await_joining(part.id, Some(joining));
        holds.rehome(part.id, due_from, bob);
        assert_eq!((due(), holds.get(part.id)), (1, Some(joined)));
    }

    #[test]
    fn the_members_of_a_chain_are_found_in_its_order_until_it_is_decided() {
        let holds = Holds::new(10);
        let chain = TransferId::new(1);
        for (id, member) in [(3, 2), (1, 0), (2, 1)] {
            assert!(holds.secure_room());
            let place = tally_ledger::ChainPlace { id: chain, member, is_head: member == 0 };
            holds.insert(Hold { leg: Leg::Inner, stage: HoldStage::AwaitsKeeping, chain: Some(place), ..hold(id, 30) });
        }
        let members = || holds.chain(chain).iter().map(|hold| hold.id.get()).collect::<Vec<_>>();
        assert_eq!(members(), [1, 2, 3]);
        holds.remove(TransferId::new(2));
        holds.insert_recovered(holds.get(TransferId::new(3)).expect("it is open"));
        assert_eq!(members(), [1, 3]);
        holds.keep(TransferId::new(1), Lsn::new(128));
        assert_eq!(holds.get(TransferId::new(1)).map(|hold| hold.chain), Some(None));
        holds.remove(TransferId::new(3));
        assert_eq!((members(), holds.chains.lock().len()), (vec![], 0));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let holds = Holds::new(1);
        assert!(holds.secure_room());
        assert!(!holds.secure_room());
        holds.insert(hold(1, 5));
        assert!(!holds.secure_room());
        holds.remove(TransferId::new(1));
        assert!(holds.secure_room());
    }
}
