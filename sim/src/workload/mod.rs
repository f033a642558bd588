//! What clients ask for: every kind of request, well formed and not, new and repeated, likely and hostile.
//!
//! Few accounts and short memories, so that requests meet: on one account, on one hold, on one id.

mod accounts;
mod transfers;

use std::collections::VecDeque;

use tally_ledger::Actor;
use tally_protocol::message::{self, Role};
use tally_protocol::{AccountId, BranchId, CustomerId, TransferId};

use self::accounts::currency_of;
use crate::model::AccountAsk;
use crate::random::Random;
use crate::request::Asked;

/// Transfers that are remembered, to be repeated, referred to, asked about or cancelled.
const REMEMBERED_LEN: usize = 48;
/// Customers of the branch.
const CUSTOMER_COUNT: u64 = 4;

/// What is likely in one seed; drawn at its beginning, so that seeds differ in character.
#[derive(Clone, Debug)]
struct Mood {
    /// Percent of requests that come from staff.
    staff_percent: u64,
    /// Percent of requests that carry a deadline.
    deadline_percent: u64,
    /// Percent of transfers with an amount far beyond what anybody has.
    huge_percent: u64,
    /// Percent of requests that repeat an earlier one.
    repeat_percent: u64,
    /// Weights of the kinds of request; see [`Workload::fresh`].
    weights: [u64; 13],
}

/// See the top of the file.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    branch: BranchId,
    mood: Mood,
    accounts: Vec<AccountId>,
    account_next: u128,
    id_next: u128,
    /// Recent requests with transfers in them, and who made them.
    remembered: VecDeque<(Actor, Asked)>,
    /// Recent ids of any kind, and of holds.
    recent_ids: VecDeque<TransferId>,
    recent_holds: VecDeque<TransferId>,
    /// What was under way when the branch went down: asked again, word for word.
    unknown: VecDeque<(Actor, Asked)>,
}

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Wish {
    /// On whose behalf.
    pub actor: Actor,
    /// Nanoseconds from now within which it must have begun; `None` for whenever.
    pub within_ns: Option<u64>,
    /// What is asked.
    pub asked: Asked,
}

impl Workload {
    /// The clients of `branch`.
    pub fn new(mut random: Random, branch: BranchId) -> Self {
        let base = [30, 14, 6, 16, 14, 3, 5, 6, 5, 3, 8, 3, 6];
        let weights = base.map(|weight| weight * random.between(1, 4));
        let mood = Mood {
            staff_percent: random.between(30, 90),
            deadline_percent: random.below(20),
            huge_percent: random.below(6),
            repeat_percent: random.between(2, 25),
            weights,
        };
        Self {
            random,
            branch,
            mood,
            accounts: Vec::new(),
            account_next: 1,
            id_next: 1,
            remembered: VecDeque::new(),
            recent_ids: VecDeque::new(),
            recent_holds: VecDeque::new(),
            unknown: VecDeque::new(),
        }
    }

    /// These were not answered before the branch went down: the clients will ask again.
    pub fn ask_again(&mut self, unanswered: impl Iterator<Item = (Actor, Asked)>) {
        self.unknown.extend(unanswered);
    }

    /// The next request.
    #[allow(clippy::should_implement_trait, reason = "a workload never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> Wish {
        let (actor, asked) = self.choose();
        let may_be_late = !matches!(asked, Asked::Open(_)) && self.random.percent(self.mood.deadline_percent);
        let within_ns = may_be_late.then(|| self.random.between(1, 5_000_000));
        Wish { actor, within_ns, asked }
    }

    fn choose(&mut self) -> (Actor, Asked) {
        if self.accounts.len() < 8 {
            return self.first_accounts(3);
        }
        if !self.unknown.is_empty() && self.random.percent(30) {
            return self.unknown.pop_front().expect("it is not empty");
        }
        if !self.remembered.is_empty() && self.random.percent(self.mood.repeat_percent) {
            return self.repeated();
        }
        let actor = self.actor();
        let mut asked = self.fresh(&actor);
        let actor = match &asked {
            // Mostly by those who may, or many accounts would never be there.
            Asked::Open(_) if !self.random.one_in(8) => admin(),
            _ => actor,
        };
        if self.random.one_in(if actor.role == Role::Admin { 3 } else { 200 }) {
            self.import(&mut asked);
        }
        if !asked.transfers().is_empty() {
            self.remember(actor, &asked);
        }
        (actor, asked)
    }

    fn fresh(&mut self, actor: &Actor) -> Asked {
        let id = self.account();
        match self.random.weighted(&self.mood.weights) {
            0 => Asked::Transfer(self.transfer(actor)),
            1 => Asked::Transfer(self.deposit()),
            2 => Asked::Transfer(self.withdrawal()),
            3 => Asked::Transfer(self.hold(actor)),
            4 => Asked::Transfer(self.follow_up(actor)),
            5 => Asked::Transfer(self.malformed(actor)),
            6 => Asked::Chain(self.chain(actor)),
            7 => Asked::Batch(self.batch(actor)),
            8 => self.open_or_change(),
            9 => Asked::Cancel(self.id_to_ask_about()),
            10 => Asked::Balance(id),
            11 => Asked::Account(id),
            _ => Asked::Find(self.id_to_ask_about()),
        }
    }

    fn open_or_change(&mut self) -> Asked {
        // Frozen accounts are thawed sooner than others freeze, or soon nothing would move.
        match self.random.weighted(&[4, 2, 2, 8, 4]) {
            0 => {
                let count = self.random.between(1, 3);
                self.open_accounts(count)
            }
            1 => Asked::Change(AccountAsk::Close(self.account().get())),
            2 => Asked::Change(AccountAsk::Freeze(self.account().get())),
            3 => Asked::Change(AccountAsk::Unfreeze(self.account().get())),
            _ => Asked::Change(AccountAsk::SetLimits(self.new_limits())),
        }
    }

    fn actor(&mut self) -> Actor {
        if self.random.percent(self.mood.staff_percent) {
            return match self.random.weighted(&[7, 1, 1]) {
                0 => staff(),
                1 => admin(),
                _ => auditor(),
            };
        }
        let customer = CustomerId::new(self.random.between(1, CUSTOMER_COUNT));
        Actor { role: Role::Customer, customer }
    }

    /// An account that most likely exists.
    fn account(&mut self) -> AccountId {
        if self.random.one_in(60) {
            return AccountId::of_branch(self.branch, self.account_next + 1_000);
        }
        *self.random.pick(&self.accounts)
    }

    /// An account that trades with `other`, most likely.
    fn partner_of(&mut self, other: AccountId) -> AccountId {
        let mut partner = self.account();
        for _ in 0..4 {
            if partner != other && currency_of(partner) == currency_of(other) {
                break;
            }
            partner = self.account();
        }
        partner
    }

    fn id_to_ask_about(&mut self) -> TransferId {
        if self.recent_ids.is_empty() || self.random.one_in(6) {
            // Cancelled now, perhaps used later: the next ids are guessed.
            return TransferId::new(self.id_next + u128::from(self.random.below(4)));
        }
        self.recent_ids[self.random.index(self.recent_ids.len())]
    }

    /// An earlier request, as it was or changed in one place.
    fn repeated(&mut self) -> (Actor, Asked) {
        let (actor, mut asked) = self.remembered[self.random.index(self.remembered.len())].clone();
        if self.random.one_in(3) {
            match &mut asked {
                Asked::Transfer(transfer) => self.change_one_field(transfer),
                Asked::Chain(transfers) | Asked::Batch(transfers) => {
                    let index = self.random.index(transfers.len());
                    self.change_one_field(&mut transfers[index]);
                }
                Asked::Open(_)
                | Asked::Change(_)
                | Asked::Cancel(_)
                | Asked::Balance(_)
                | Asked::Account(_)
                | Asked::Find(_) => {}
            }
        }
        (actor, asked)
    }

    fn remember(&mut self, actor: Actor, asked: &Asked) {
        for transfer in asked.transfers() {
            let id = TransferId::new(transfer.id.get());
            keep(&mut self.recent_ids, id);
            if transfer.kind == message::TransferKind::Hold as u8 {
                keep(&mut self.recent_holds, id);
            }
        }
        keep(&mut self.remembered, (actor, asked.clone()));
    }
}

fn keep<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == REMEMBERED_LEN {
        queue.pop_front();
    }
    queue.push_back(value);
}

const fn staff() -> Actor {
    Actor { role: Role::Teller, customer: CustomerId::new(900) }
}

const fn admin() -> Actor {
    Actor { role: Role::Admin, customer: CustomerId::new(902) }
}

const fn auditor() -> Actor {
    Actor { role: Role::Auditor, customer: CustomerId::new(901) }
}
