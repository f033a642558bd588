//! A run: what outlives the branch's crashes (disk, clients, audit, time), and the loop that starts the branch again
//! and again until the seed has had its events.

mod boot;
mod checkpoint;
mod clients;
mod damage;
mod flush;
mod ids;
mod lookups;
mod outcome;
mod recovery;
mod replies;
mod running;
mod task;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use tally_protocol::BranchId;

pub(crate) use ids::IdsDirectory;
pub use outcome::{Failure, Outcome};

use crate::audit::Audit;
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::invariants::{Rule, Violation};
use crate::planted::Bug;
use crate::random::Random;
use crate::request::Asked;
use crate::trace::Trace;
use crate::workload::Workload;

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events, at least.
    pub events_min: u64,
    /// Whether each event is printed.
    pub is_verbose: bool,
    /// What is wrong with the branch, on purpose.
    pub bug: Option<Bug>,
}

impl Default for Options {
    fn default() -> Self {
        Self { events_min: 2_500, is_verbose: false, bug: None }
    }
}

/// What outlives the branch.
struct World {
    random: Random,
    trace: Trace,
    clock: Clock,
    disk: SimDisk,
    audit: Audit,
    workload: Workload,
    setting: Setting,
    options: Options,
    crashes: u64,
    ids: ids::IdsDirectory,
    /// The last group that was handed to the disk, and whether the disk has said that it took it.
    last_group: Option<(u64, Vec<u8>, bool)>,
}

/// What is drawn once per seed.
#[derive(Clone, Debug)]
struct Setting {
    branch: BranchId,
    directory: PathBuf,
    workers: usize,
    session_threads: usize,
    /// Requests of all clients together that may be unanswered.
    in_flight_max: usize,
    holds_max: usize,
    intake_depth: usize,
    /// How likely each kind of step is; see [`running`].
    weights: [u64; 9],
    /// Steps between crashes, about.
    steps_per_boot: u64,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Power failed, or the process stopped.
    Crashed,
    /// All has been done and answered.
    Finished,
}

/// Runs one seed.
///
/// # Errors
/// When an invariant is violated.
pub fn run_seed(seed: u64, options: &Options) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(seed, *options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(Ok(())) => return Ok(world.outcome()),
        Ok(Err(violation)) => violation,
        Err(panic) => Violation { rule: Rule::NoPanic, seen: panic_text(&*panic) },
    };
    Err(Box::new(Failure {
        seed,
        event: world.trace.count(),
        violation,
        last_events: world.trace.last_events(),
        bug: options.bug,
    }))
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        let setting = Setting::draw(&mut random);
        let disk = SimDisk::new(64 << 20, random.fork());
        if options.bug == Some(Bug::FlushNotDurable) {
            disk.set_lying();
        }
        let workload = Workload::new(random.fork(), setting.branch);
        Self {
            trace: Trace::new(options.is_verbose),
            clock: Clock::new(),
            disk,
            audit: Audit::new(setting.branch.get()),
            workload,
            setting,
            options,
            crashes: 0,
            ids: ids::IdsDirectory::new(seed),
            last_group: None,
            random,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        while self.boot()? == End::Crashed {
            self.crash();
        }
        // What a branch that stopped in good order leaves behind must come back whole, too.
        self.crash();
        self.boot_once_more()
    }

    /// The branch is gone. Its clients do not know what became of what they asked.
    fn crash(&mut self) {
        self.crashes += 1;
        self.disk.restart();
        let unanswered = self.audit.give_up_open();
        let (audit, random) = (&self.audit, &mut self.random);
        let is_open = |number: usize| matches!(audit.request(number).asked, Asked::Open(_));
        let again = unanswered.into_iter().filter(|&number| is_open(number) || random.percent(80));
        let again: Vec<usize> = again.collect();
        crate::trace::trace!(self.trace, "crash {}, {} requests to ask again", self.crashes, again.len());
        let again = again.into_iter().map(|number| {
            let sent = audit.request(number);
            (sent.actor, sent.asked.clone())
        });
        self.workload.ask_again(again);
    }

    fn is_planted(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            seeds: 1,
            events: self.trace.count(),
            crashes: self.crashes,
            disk_writes: self.disk.writes(),
            counts: self.audit.counts,
            trace_hash: self.trace.hash(),
        }
    }
}

impl Setting {
    fn draw(random: &mut Random) -> Self {
        let base = [24, 44, 14, 14, 10, 2, 6, 1, 1];
        Self {
            branch: BranchId::new(random.between(1, 9) as u16),
            directory: PathBuf::from("/branch/journal"),
            workers: random.between(2, 4) as usize,
            session_threads: random.between(1, 2) as usize,
            in_flight_max: random.between(4, 64) as usize,
            holds_max: if random.one_in(4) { random.between(2, 10) as usize } else { 1_000 },
            intake_depth: random.between(4, 32) as usize,
            weights: base.map(|weight| weight * random.between(1, 4)),
            steps_per_boot: random.between(200, 1_500),
        }
    }
}
