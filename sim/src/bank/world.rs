//! The loop: something happens somewhere, by chance; then all heals and comes to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tally_branch_server::intake::Instruction;
use tally_branch_server::two_phase::{Peer, Routes, Said};
use tally_ledger::two_phase::Decision;
use tally_ledger::{Hold, HoldStage};
use tally_protocol::link::{BranchStatus, MoveOrder};
use tally_protocol::{AccountId, BranchId, Timestamp, TransferId};

use super::branch::{SimBranch, Told};
use super::network::{Item, Network};
use super::outcome::{BankFailure, BankOutcome};
use super::registry::Registry;
use super::workload::{ACCOUNTS_PER_BRANCH, Wanted, Workload, account, account_open, deposit};
use super::{BankBug, checks};
use crate::disk::Faults;
use crate::invariants::{Rule, Violation, hold, violated};
use crate::random::Random;
use crate::trace::{Trace, trace};
use crate::world::{IdsDirectory, panic_text};

/// November 2026, noon UTC.
const BEGIN_NS: u64 = 1_795_262_400_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// How far clocks are apart, at the most: twice this is within what a branch follows.
const SKEW_NS_MAX: u64 = 200_000_000;
/// Rounds in which a healed bank must come to rest; each is a quarter of a second.
const REST_ROUNDS_MAX: u64 = 2_000;

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct BankOptions {
    /// Events before everything heals, at least.
    pub events_min: u64,
    /// Whether each event is printed.
    pub is_verbose: bool,
    /// What is wrong with the bank, on purpose.
    pub bug: Option<BankBug>,
}

impl Default for BankOptions {
    fn default() -> Self {
        Self { events_min: 2_000, is_verbose: false, bug: None }
    }
}

struct World {
    random: Random,
    trace: Trace,
    options: BankOptions,
    now_ns: u64,
    skews_ns: Vec<u64>,
    branches: Vec<SimBranch>,
    registry: Registry,
    network: Network,
    workload: Workload,
    /// By branch: transfers whose part it has promised, and those whose decision it has acknowledged, as far as that has
    /// left the branch.
    promised: Vec<BTreeSet<TransferId>>,
    acknowledged: Vec<BTreeSet<TransferId>>,
    /// By branch: holds whose end it has told, or has said that it knows.
    ended: Vec<BTreeSet<TransferId>>,
    is_healed: bool,
    outcome: BankOutcome,
    weights: [u64; 11],
    moves: u128,
    /// Holds that each of them took along, as far as it was begun, and how many of them to where the rest of the hold is.
    held: BTreeMap<TransferId, (u64, u64)>,
}

/// Runs one seed.
///
/// # Errors
/// When an invariant is violated.
pub fn run_bank_seed(seed: u64, options: &BankOptions) -> Result<BankOutcome, Box<BankFailure>> {
    let mut world = World::new(seed, *options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(Ok(())) => return Ok(world.outcome()),
        Ok(Err(violation)) => violation,
        Err(panic) => Violation { rule: Rule::NoPanic, seen: panic_text(&*panic) },
    };
    Err(Box::new(BankFailure {
        seed,
        event: world.trace.count(),
        violation,
        last_events: world.trace.last_events(),
        bug: options.bug,
    }))
}

impl World {
    fn new(seed: u64, options: BankOptions) -> Self {
        let mut random = Random::new(seed);
        let ids: Vec<BranchId> = (1..=random.between(2, 4)).map(|id| BranchId::new(id as u16)).collect();
        let branches = ids.iter().map(|&id| {
            let disk = SimBranch::disk(random.fork());
            SimBranch::new(id, disk, IdsDirectory::new(seed ^ u64::from(id.get())), options.bug)
        });
        let branches: Vec<SimBranch> = branches.collect();
        let base = [12, 60, 30, 14, 16, 6, 1, 1, 1, 2, 8];
        let mut weights = base.map(|weight| weight * random.between(1, 4));
        if random.one_in(3) {
            // Slow disks: much happens before a flush.
            weights[2] = 5;
        }
        let bad_once_in = if random.one_in(4) { 0 } else { random.between(4, 40) };
        Self {
            trace: Trace::new(options.is_verbose),
            now_ns: BEGIN_NS,
            skews_ns: ids.iter().map(|_| random.below(SKEW_NS_MAX)).collect(),
            registry: Registry::new(&ids, Timestamp::from_nanos(BEGIN_NS), options.bug),
            network: Network::new(ids.len(), bad_once_in),
            promised: vec![BTreeSet::new(); ids.len()],
            acknowledged: vec![BTreeSet::new(); ids.len()],
            ended: vec![BTreeSet::new(); ids.len()],
            workload: Workload::new(ids),
            branches,
            is_healed: false,
            outcome: BankOutcome { seeds: 1, ..BankOutcome::default() },
            weights,
            moves: 0,
            held: BTreeMap::new(),
            options,
            random,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        for at in 0..self.branches.len() {
            self.found(at)?;
        }
        self.elect();
        while self.trace.count() < self.options.events_min || self.outcome.crashes == 0 {
            self.step()?;
        }
        self.heal()?;
        self.come_to_rest()?;
        checks::at_rest(&mut self.branches, &self.registry, &self.workload.payments)
    }

    /// A new branch with its accounts and their money.
    fn found(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.wall(at);
        hold!(Recoverable, self.branches[at].boot(now)?, "a new branch starts");
        let id = self.branches[at].id;
        let life = self.branches[at].life.as_mut().expect("just booted");
        for number in 0..ACCOUNTS_PER_BRANCH {
            life.open(&account_open(account(id, number)), now);
            life.request(0, &deposit(u128::from(number) + 1, account(id, number)), now)?;
        }
        hold!(Recoverable, life.flush(), "a new disk takes a flush");
        drop(life.take_told());
        Ok(())
    }

    fn wall(&self, at: usize) -> Timestamp {
        Timestamp::from_nanos(self.now_ns + self.skews_ns[at])
    }

    fn registry_now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now_ns + SKEW_NS_MAX / 2)
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), Violation> {
        self.now_ns += self.random.below(100_000);
        let at = self.random.index(self.branches.len());
        match self.random.weighted(&self.weights) {
            0 => self.client_asks()?,
            1 => self.deliver()?,
            2 => self.flush(at)?,
            3 => self.propose(),
            4 => self.replicate(),
            5 => self.tick(at)?,
            6 => self.crash(at),
            7 => self.lose_leader(),
            8 => self.cut_off(at),
            9 => self.checkpoint(at),
            _ => self.move_account(),
        }
        self.pump(at)?;
        if self.random.one_in(40) {
            self.audit()?;
        }
        // What is down comes back after a while.
        if self.branches[at].life.is_none() && self.random.one_in(4) {
            self.boot(at)?;
        }
        if !self.registry.has_leader() && self.random.one_in(20) {
            self.elect();
        }
        Ok(())
    }

    fn client_asks(&mut self) -> Result<(), Violation> {
        let (request, at, wanted) = self.workload.next(&mut self.random);
        self.ask(request, at, &wanted)
    }

    fn ask(&mut self, request: u64, at: usize, wanted: &Wanted) -> Result<(), Violation> {
        let now = self.wall(at);
        let Some(life) = &mut self.branches[at].life else { return Ok(()) };
        match wanted {
            Wanted::One(wire) => {
                let (id, amount) = (wire.id.get(), wire.amount.get());
                trace!(self.trace, "request {request} to branch {at}: {id:x} pays {amount}");
                life.request(request, wire, now)
            }
            Wanted::Chain(wires) => {
                let (id, count) = (wires[0].id.get(), wires.len());
                trace!(self.trace, "request {request} to branch {at}: chain {id:x} of {count}");
                life.request_chain(request, wires, now)
            }
        }
    }

    /// An operator wants some account at some other branch.
    fn move_account(&mut self) {
        let to_its_hold = if self.random.one_in(4) { self.account_with_hold() } else { None };
        let (account_id, to) = to_its_hold.unwrap_or_else(|| {
            let home = self.branches[self.random.index(self.branches.len())].id;
            let account_id = account(home, self.random.below(ACCOUNTS_PER_BRANCH));
            (account_id, self.branches[self.random.index(self.branches.len())].id)
        });
        let from = self.registry.place(account_id);
        if from == to {
            return;
        }
        self.moves += 1;
        let order = MoveOrder {
            id: (self.moves << 64).into(),
            account_id: account_id.get().into(),
            stamp: self.registry_now().as_nanos().into(),
            destination: to.get().into(),
            reserved: [0; 6],
        };
        trace!(self.trace, "account {account_id} is to go from branch {from} to branch {to}");
        self.registry.order_move(from, order);
    }

    /// An account with an open hold between branches, and the branch where the rest of that is.
    fn account_with_hold(&mut self) -> Option<(AccountId, BranchId)> {
        let at = self.random.index(self.branches.len());
        let life = self.branches[at].life.as_ref()?;
        let is_part = |hold: &Hold| {
            let is_customers = hold.near_account_id().settlement_peer().is_none();
            hold.leg.is_part() && hold.stage == HoldStage::Open && is_customers
        };
        let mut parts: Vec<Hold> = life.engine.holds.iter().filter(is_part).collect();
        // The table's order is by a hash that differs from run to run.
        parts.sort_unstable_by_key(|hold| hold.id);
        let part = parts.get(self.random.index(parts.len().max(1)))?;
        Some((part.near_account_id(), part.settlement_account_id().settlement_peer()?))
    }

    /// Something arrives.
    fn deliver(&mut self) -> Result<(), Violation> {
        let Some(item) = self.network.take(&mut self.random) else { return Ok(()) };
        match item {
            Item::FromBranch(at, said) => {
                trace!(self.trace, "registry hears branch {at}: {}", words_of(&said));
                let now = self.registry_now();
                let answer = self.registry.hear(self.branches[at].id, &said, now);
                if let Some(instruction) = answer {
                    self.network.send(Item::ToBranch(at, instruction), &mut self.random);
                }
            }
            Item::ToBranch(at, instruction) => {
                let (wall, now) = (self.wall(at), self.registry_now());
                let Some(life) = &mut self.branches[at].life else { return Ok(()) };
                trace!(self.trace, "branch {at} hears: {}", words_of_instruction(&instruction));
                let stamp = match &instruction {
                    Instruction::Prepare(cross) => cross.stamp.get(),
                    Instruction::PrepareChain(chain) => chain.prefix.stamp.get(),
                    Instruction::Decide(.., decided_at) => decided_at.as_nanos(),
                    Instruction::Leave(order) => order.stamp.get(),
                    Instruction::TakeIn(moving) => moving.account.stamp.get(),
                    Instruction::Heard(_) | Instruction::AskId(_) | Instruction::IdTold(_) => now.as_nanos(),
                    Instruction::End(item) => item.stamp.get(),
                };
                let follows = self.options.bug == Some(BankBug::StampsIgnored) || life.shared.observe(stamp, wall);
                if follows || !matches!(instruction, Instruction::Prepare(_) | Instruction::PrepareChain(_)) {
                    life.instruct(instruction, wall)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) -> Result<(), Violation> {
        let Some(life) = &mut self.branches[at].life else { return Ok(()) };
        if !life.flush() {
            self.crash(at);
            return Ok(());
        }
        trace!(self.trace, "branch {at} flushed");
        Ok(())
    }

    fn propose(&mut self) {
        let now = self.registry_now();
        if self.registry.propose(now) {
            trace!(self.trace, "proposed");
        }
    }

    fn replicate(&mut self) {
        let now = self.registry_now();
        if self.registry.replicate(now) {
            trace!(self.trace, "replicated");
        }
    }

    /// Time passes, mostly a little.
    fn tick(&mut self, at: usize) -> Result<(), Violation> {
        self.now_ns += match self.random.below(10) {
            0 if self.random.one_in(3) => self.random.between(1, 8) * SECOND_NS,
            0..3 => 250_000_000,
            _ => 5_000_000,
        };
        let (wall, now) = (self.wall(at), self.registry_now());
        self.registry.tick(now);
        match &mut self.branches[at].life {
            Some(life) => life.tick(wall),
            None => Ok(()),
        }
    }

    fn crash(&mut self, at: usize) {
        if self.branches[at].life.is_none() {
            return;
        }
        trace!(self.trace, "branch {at} crashes");
        self.outcome.crashes += 1;
        self.branches[at].crash();
        self.network.break_link(at, &mut self.random);
        self.registry.disconnect(self.branches[at].id);
    }

    fn boot(&mut self, at: usize) -> Result<(), Violation> {
        if !self.is_healed && self.random.one_in(6) {
            let faults = Faults { power_off_after: Some(self.random.below(12)), error_after: None };
            self.branches[at].disk.set_faults(faults);
        }
        let now = self.wall(at);
        let is_up = self.branches[at].boot(now)?;
        self.branches[at].disk.set_faults(Faults::default());
        trace!(self.trace, "branch {at} starts: {is_up}");
        if !is_up {
            return Ok(());
        }
        if !self.is_healed && self.random.one_in(3) {
            let faults = Faults { power_off_after: Some(self.random.between(20, 400)), error_after: None };
            self.branches[at].disk.set_faults(faults);
        }
        let life = self.branches[at].life.as_ref().expect("it is up");
        checks::promises(
            life,
            &self.registry,
            self.promised[at].iter().copied(),
            self.acknowledged[at].iter().copied(),
        )?;
        checks::ends(life, self.ended[at].iter().copied())?;
        self.link(at);
        if self.is_healed {
            return Ok(());
        }
        match self.workload.forgotten(at, &mut self.random) {
            Some(payment) => {
                let (request, at, wire) = self.workload.ask(payment);
                self.ask(request, at, &wire)
            }
            None => Ok(()),
        }
    }

    /// The branch reaches the leader, if there is one and nothing is between them.
    fn link(&mut self, at: usize) {
        let is_linked = self.registry.has_leader() && !self.network.cut_off[at];
        let routes = |branches: &[SimBranch]| Routes {
            version: 1,
            branches: branches
                .iter()
                .map(|branch| (branch.id, Peer { endpoint: String::new(), status: BranchStatus::Serving }))
                .collect(),
        };
        let routes = routes(&self.branches);
        let id = self.branches[at].id;
        let Some(life) = &self.branches[at].life else { return };
        life.shared.set_routes(routes);
        life.shared.set_linked(is_linked);
        if is_linked {
            life.shared.moved.learn(&self.registry.moved());
            self.registry.connect(id);
        }
    }

    fn lose_leader(&mut self) {
        if !self.registry.has_leader() {
            return;
        }
        trace!(self.trace, "the leader is lost");
        self.outcome.leaders_lost += 1;
        let now = self.registry_now();
        self.registry.lose_leader(now, &mut self.random);
        for at in 0..self.branches.len() {
            self.network.break_link(at, &mut self.random);
            if let Some(life) = &self.branches[at].life {
                life.shared.set_linked(false);
            }
        }
    }

    fn elect(&mut self) {
        trace!(self.trace, "a node leads");
        let now = self.registry_now();
        let reached: Vec<BranchId> = (0..self.branches.len())
            .filter(|&at| self.branches[at].life.is_some() && !self.network.cut_off[at])
            .map(|at| self.branches[at].id)
            .collect();
        self.registry.elect(reached.into_iter(), now);
        (0..self.branches.len()).for_each(|at| self.link(at));
    }

    /// The link of a branch breaks, or is mended.
    fn cut_off(&mut self, at: usize) {
        let is_cut_off = !self.network.cut_off[at];
        trace!(self.trace, "branch {at} is {}", if is_cut_off { "cut off" } else { "reached again" });
        self.network.cut_off[at] = is_cut_off;
        self.network.break_link(at, &mut self.random);
        if is_cut_off {
            self.registry.disconnect(self.branches[at].id);
            if let Some(life) = &self.branches[at].life {
                life.shared.set_linked(false);
            }
        } else {
            self.link(at);
        }
    }

    fn checkpoint(&mut self, at: usize) {
        if self.branches[at].life.is_none() {
            return;
        }
        let is_done = self.branches[at].checkpoint();
        trace!(self.trace, "branch {at} makes a checkpoint: {is_done}");
        if self.branches[at].disk.is_down() {
            self.crash(at);
        }
    }

    /// What may leave a branch, and the registry for it, is under way.
    fn pump(&mut self, at: usize) -> Result<(), Violation> {
        if self.branches[at].disk.is_down() {
            self.crash(at);
        }
        let id = self.branches[at].id;
        for instruction in self.registry.take_for(id) {
            self.network.send(Item::ToBranch(at, instruction), &mut self.random);
        }
        let hears = self.registry.has_leader() && !self.network.cut_off[at] && self.random.one_in(3);
        let Some(life) = &mut self.branches[at].life else { return Ok(()) };
        if hears {
            life.shared.moved.learn(&self.registry.moved());
        }
        for said in life.take_said() {
            match &said {
                Said::Vote(vote) if vote.refusal.get() == 0 => {
                    let id = TransferId::new(vote.id.get());
                    self.promised[at].insert(id);
                    self.promised[at].extend(life.engine.holds.chain(id).iter().map(|hold| hold.id));
                }
                Said::Ask(mark) => drop(self.promised[at].insert(TransferId::new(mark.id.get()))),
                Said::Acknowledge(mark) => drop(self.acknowledged[at].insert(TransferId::new(mark.id.get()))),
                Said::BeginChain(chain) => {
                    let ids = chain.members.iter().map(|member| TransferId::new(member.transfer.id.get()));
                    self.promised[at].extend(ids);
                }
                Said::BeginMove(moving) => {
                    let id = TransferId::new(moving.account.id.get());
                    self.promised[at].insert(id);
                    let joined = moving.holds.iter().filter(|hold| hold.joins != 0).count();
                    self.held.insert(id, (moving.holds.len() as u64, joined as u64));
                }
                Said::End(item) => drop(self.ended[at].insert(TransferId::new(item.id.get()))),
                Said::Heard(item) => drop(self.ended[at].insert(TransferId::new(item.id.get()))),
                Said::Begin(_) | Said::Vote(_) | Said::RefuseMove(_) | Said::AskId(_) | Said::TellId(_) => {}
            }
            self.network.send(Item::FromBranch(at, said), &mut self.random);
        }
        for told in life.take_told() {
            let payments = self.workload.told(&told, at)?;
            let id = TransferId::new(payments[0].wire.id.get());
            let Told { request, refusal, amount, ref items, .. } = told;
            trace!(self.trace, "branch {at} answers {request}: {id}, {refusal:?}, {amount} {items:?}");
            for (index, payment) in payments.iter().enumerate() {
                let is_done = match told.items.get(index) {
                    Some((refusal, _)) => refusal.is_none(),
                    None => refusal.is_none(),
                };
                // Once accounts have moved it may be within a branch after all, also when its branch began it across and
                // has forgotten that in a crash.
                if !payment.is_between || !is_done {
                    continue;
                }
                let id = payment.decided_under();
                let decision = self.registry.decision(id);
                hold!(
                    Agreement,
                    decision == Some(Decision::Commit) || self.registry.has_moved(),
                    "{id} was answered done, the log says {decision:?}"
                );
            }
        }
        let contradictions = self.registry.contradictions();
        hold!(Agreement, contradictions.is_empty(), "the registry heard what cannot be: {contradictions:?}");
        Ok(())
    }

    fn audit(&mut self) -> Result<(), Violation> {
        self.outcome.cuts += 1;
        checks::cut(&self.branches, &self.registry)
    }

    /// Nothing fails any more.
    fn heal(&mut self) -> Result<(), Violation> {
        trace!(self.trace, "all heals");
        self.is_healed = true;
        self.network.bad_once_in = 0;
        for at in 0..self.branches.len() {
            self.branches[at].disk.set_faults(Faults::default());
            self.network.cut_off[at] = false;
            if self.branches[at].life.is_none() {
                self.boot(at)?;
            }
        }
        if !self.registry.has_leader() {
            self.elect();
        }
        (0..self.branches.len()).for_each(|at| self.link(at));
        Ok(())
    }

    /// Every client asks again about what it was not told, until all is decided and nothing is under way.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        for round in 0..REST_ROUNDS_MAX {
            self.now_ns += SECOND_NS / 4;
            if round % 8 == 0 {
                self.workload.end_holds();
                let open = (0..self.workload.payments.len()).filter(|&at| !self.workload.payments[at].is_over);
                for payment in open.collect::<Vec<_>>() {
                    let (request, at, wanted) = self.workload.ask(payment);
                    self.ask(request, at, &wanted)?;
                }
            }
            self.registry.tick(self.registry_now());
            for at in 0..self.branches.len() {
                let now = self.wall(at);
                self.branches[at].life.as_mut().expect("all are up").tick(now)?;
                self.flush(at)?;
                self.pump(at)?;
            }
            while self.network.len() > 0 {
                self.deliver()?;
            }
            while self.registry.propose(self.registry_now()) {
                self.registry.replicate(self.registry_now());
            }
            self.registry.replicate(self.registry_now());
            for at in 0..self.branches.len() {
                self.flush(at)?;
                self.pump(at)?;
            }
            if self.is_at_rest() {
                trace!(self.trace, "at rest after {round} rounds");
                return Ok(());
            }
        }
        let in_doubt: Vec<usize> = self
            .branches
            .iter()
            .filter_map(|branch| branch.life.as_ref())
            .map(|life| life.shared.doubts.summary().0)
            .collect();
        let held: Vec<usize> = self
            .branches
            .iter()
            .filter_map(|branch| branch.life.as_ref())
            .map(|life| life.engine.holds.taken())
            .collect();
        let lives = self.branches.iter().filter_map(|branch| branch.life.as_ref());
        let open: Vec<Vec<TransferId>> =
            lives.map(|life| life.engine.holds.iter().map(|hold| hold.id).collect()).collect();
        violated!(
            ComesToRest,
            "after {REST_ROUNDS_MAX} rounds {in_doubt:?} legs are in doubt, {held:?} holds are open ({open:?}) or their end not heard, the registry has {} open, {} payments have no answer",
            self.registry.open(),
            self.workload.payments.iter().filter(|payment| !payment.is_over).count()
        )
    }

    fn is_at_rest(&self) -> bool {
        let lives = || self.branches.iter().filter_map(|branch| branch.life.as_ref());
        self.network.len() == 0
            && self.registry.open() == 0
            && lives().all(|life| !life.is_busy() && life.shared.doubts.summary().0 == 0)
            && lives().all(|life| life.engine.holds.taken() == 0)
            && self.workload.payments.iter().all(|payment| payment.is_over)
    }

    fn outcome(&self) -> BankOutcome {
        let mut outcome = self.outcome;
        for payment in &self.workload.payments {
            outcome.chains += u64::from(payment.chain == Some(payment.wire.id.get()));
            match self.registry.decision(payment.decided_under()) {
                _ if !payment.is_between => outcome.local += 1,
                Some(Decision::Commit) => outcome.committed += 1,
                Some(Decision::Abort(_)) | None => outcome.aborted += 1,
            }
        }
        outcome.moves = (1..=self.moves)
            .filter(|&number| self.registry.decision(TransferId::new(number << 64)) == Some(Decision::Commit))
            .count() as u64;
        let is_done = |id: &TransferId| self.registry.decision(*id) == Some(Decision::Commit);
        let held = || self.held.iter().filter(|(id, _)| is_done(id)).map(|(_, counts)| counts);
        (outcome.moved_holds, outcome.joined_holds) =
            (held().map(|(all, _)| all).sum(), held().map(|(_, joined)| joined).sum());
        outcome.events = self.trace.count();
        outcome.lost = self.network.lost;
        outcome.repeated = self.network.repeated;
        outcome.answers = self.workload.answers;
        outcome.trace_hash = self.trace.hash();
        outcome
    }
}

fn words_of(said: &Said) -> String {
    match said {
        Said::BeginChain(chain) => format!("begin chain {:x} of {}", chain.prefix.id.get(), chain.members.len()),
        Said::Begin(cross) => format!("begin {:x}", cross.transfer.id.get()),
        Said::Vote(vote) => format!("vote on {:x}, refusal {} of {}", vote.id.get(), vote.refusal.get(), vote.member),
        Said::Acknowledge(mark) => format!("acknowledges {:x}", mark.id.get()),
        Said::Ask(mark) => format!("asks about {:x}", mark.id.get()),
        Said::End(item) => format!("has ended {:x} ({}), posted {}", item.id.get(), item.end, item.posted.get()),
        Said::Heard(item) => format!("knows how {:x} ended", item.id.get()),
        Said::BeginMove(moving) => {
            let (account, holds) = (&moving.account, moving.holds.len());
            format!("has sealed {:x} with {holds} holds for move {:x}", account.account_id.get(), account.id.get())
        }
        Said::RefuseMove(vote) => format!("refuses move {:x}: {}", vote.id.get(), vote.refusal.get()),
        Said::AskId(item) => format!("asks branch {} for id {:x}", item.asked.get(), item.id.get()),
        Said::TellId(item) => format!("says of id {:x}: {}", item.id.get(), item.answer),
    }
}

fn words_of_instruction(instruction: &Instruction) -> String {
    match instruction {
        Instruction::PrepareChain(chain) => format!("prepare chain {:x}", chain.prefix.id.get()),
        Instruction::Prepare(cross) => format!("prepare {:x}", cross.transfer.id.get()),
        Instruction::Decide(id, decision, _) => format!("{id} is decided: {decision:?}"),
        Instruction::End(item) => format!("{:x} has ended ({}), posted {}", item.id.get(), item.end, item.posted.get()),
        Instruction::Heard(id) => format!("the end of {id} was heard"),
        Instruction::Leave(order) => format!("seal {:x} for move {:x}", order.account_id.get(), order.id.get()),
        Instruction::TakeIn(moving) => {
            let (account, holds) = (&moving.account, moving.holds.len());
            format!("take {:x} in with {holds} holds, move {:x}", account.account_id.get(), account.id.get())
        }
        Instruction::AskId(item) => format!("was id {:x} used?", item.id.get()),
        Instruction::IdTold(item) => {
            format!("branch {} says of id {:x}: {}", item.asked.get(), item.id.get(), item.answer)
        }
    }
}
