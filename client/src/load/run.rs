//! A run from start to end: prepare the accounts, measure, verify.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tally_protocol::{BranchId, Currency, Lsn};

use super::accounts::{AccountRange, Accounts, Dialers};
use super::acknowledged::Acknowledged;
use super::args::{LoadArgs, VerifyChoice};
use super::choose::Chooser;
use super::ids::Ids;
use super::latency::LatencySummary;
use super::repeats;
use super::report::{Measured, Progress};
use super::samples::Sample;
use super::schedule::Schedule;
use super::traffic::{Findings, LoadTraffic, Mix, Second, Sent, Window};
use super::verify::{self, Verification};
use crate::directory::Directory;
use crate::lane::{Clock, LaneOptions, LaneRun, LaneStats, Nanos};
use crate::{ConnectError, Dialer, Random, Session, bulk};

/// In a closed loop, ticks only end pauses.
const TICK_CLOSED: Duration = Duration::from_millis(1);
/// Open loop: the most requests outstanding on one connection, if the branch allows them.
const OPEN_IN_FLIGHT_MAX: usize = 1_024;
/// How long a lost connection may take to come back before the run is given up.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
/// How long the other branch may take to carry out what was decided.
const FAR_PATIENCE: Duration = Duration::from_secs(10);
const FAR_PAUSE: Duration = Duration::from_millis(200);
/// Between the last lane's "ready" and the first request.
const START_DELAY: Nanos = 2_000_000;

/// Told what happens while load runs.
pub trait Observer {
    /// Warm-up is over: measuring begins.
    fn begun(&mut self) {}
    /// A second has passed.
    fn second(&mut self, _progress: &Progress) {}
    /// Measuring ends.
    fn ended(&mut self) {}
}

/// Watches nothing.
impl Observer for () {}

/// Accounts at a branch, ready for load.
#[derive(Debug)]
pub struct Load {
    dialers: Dialers,
    accounts: Accounts,
    choice: VerifyChoice,
    cash_before: Option<u64>,
    /// With [`VerifyChoice::Exact`]: where the feed stood before the first transfer.
    feed_from: Option<Lsn>,
    acknowledged: Acknowledged,
    unknown: Vec<Sent>,
    samples: Vec<Sample>,
    nonsense: Option<String>,
}

impl Load {
    /// Connects, opens the accounts and gives them money. What is verified in the end is settled here, since all
    /// that it needs must be remembered from now on.
    pub fn prepare(args: &LoadArgs) -> anyhow::Result<Self> {
        args.check().map_err(anyhow::Error::msg)?;
        let currency = Currency::from_code(&args.currency)
            .ok_or_else(|| anyhow::anyhow!("currency {:?} is not known", args.currency))?;
        let (dialers, session, far) = dial(args)?;
        let base = match args.accounts_base {
            Some(base) => base,
            // So many that two runs do not meet, and below what `tally replay` uses.
            None => Random::from_system().below(1 << 30) << 32,
        };
        let range = AccountRange { branch_id: session.branch_id, far, base, count: args.accounts, currency };
        let cash_before = verify::cash_paid_out(&dialers.home, range)?;
        let accounts = Accounts::prepare(&dialers, range, args.refused)?;
        let feed_from = match args.verify {
            VerifyChoice::Exact => Some(bulk::durable(&dialers.home)?),
            VerifyChoice::Balances | VerifyChoice::Sample | VerifyChoice::None => None,
        };
        Ok(Self {
            dialers,
            accounts,
            choice: args.verify,
            cash_before,
            feed_from,
            acknowledged: Acknowledged::default(),
            unknown: Vec::new(),
            samples: Vec::new(),
            nonsense: None,
        })
    }

    /// Connects anew, to the same bank: it was stopped and started again.
    pub fn reconnect(&mut self, args: &LoadArgs) -> anyhow::Result<()> {
        self.dialers = dial(args)?.0;
        Ok(())
    }

    /// Puts the load that `args` describe on these accounts. May be done again with other arguments; the number
    /// of accounts stays what it was.
    pub fn measure(&mut self, args: &LoadArgs, observer: &mut dyn Observer) -> anyhow::Result<Measured> {
        args.check().map_err(anyhow::Error::msg)?;
        let mut random = args.seed.map_or_else(Random::from_system, Random::from_seed);
        let range = self.accounts.range;
        let mix = Mix {
            range,
            chooser: Chooser::new(args.choice, range.count),
            ids: Ids::new(args.ids, &mut random),
            batch: args.batch,
            reads: args.reads,
            cross: if range.far.is_some() { args.cross } else { 0 },
        };
        let (findings, stats) =
            run_threads(&self.dialers.home, args, mix, self.feed_from.is_some(), &mut random, observer)?;
        for (expected, delta) in self.accounts.expected.iter_mut().zip(&findings.deltas) {
            *expected += delta;
        }
        let seconds = match args.transfers {
            // It may have been over sooner.
            Some(_) => args.duration.min(Duration::from_nanos(findings.last_reply.saturating_sub(begin_of(args)))),
            None => args.duration,
        };
        let measured = Measured::of(args.rate, seconds.as_secs_f64(), &findings, stats);
        self.unknown.extend(findings.unknown);
        self.samples.extend(findings.samples.into_kept());
        self.acknowledged.merge(findings.acknowledged.unwrap_or_default());
        if findings.nonsense > 0 {
            self.nonsense = findings.nonsense_first;
        }
        Ok(measured)
    }

    /// Sends a sample of the transfers that were acknowledged so far once more, `rate` per second, and returns
    /// how long the branch took to answer each as a repeat.
    ///
    /// Fails if one is answered otherwise.
    pub fn repeat_samples(&mut self, rate: u64) -> anyhow::Result<LatencySummary> {
        repeats::run(&self.dialers.home, self.accounts.range, std::mem::take(&mut self.samples), rate)
    }

    /// Checks what is there against what was acknowledged. What was remembered is used up by that.
    pub fn verify(mut self) -> anyhow::Result<Verification> {
        let begun = Instant::now();
        let mut verification = Verification { holds: true, ..Verification::default() };
        if let Some(what) = self.nonsense.take() {
            verification.examples.push(format!("reply that makes no sense: {what}"));
            verification.holds = false;
        }
        if self.choice == VerifyChoice::None {
            return Ok(verification);
        }
        for (sent, refusal_code) in
            verify::resolve_unknown(&self.dialers.home, std::mem::take(&mut self.unknown), &mut verification)?
        {
            self.acknowledged.add(&sent, refusal_code);
            if refusal_code == 0 {
                self.accounts.expected[sent.pair.debit as usize] -= i64::from(sent.amount);
                self.accounts.expected[sent.pair.credit as usize] += i64::from(sent.amount);
            }
        }
        let all = self.choice != VerifyChoice::Sample;
        // The other branch may still have decisions to carry out of which our clients have heard.
        let patience = Instant::now() + FAR_PATIENCE;
        loop {
            let mut compared = verification.clone();
            verify::compare_balances(&self.dialers, &self.accounts, all, &mut compared)?;
            if compared.balances_wrong == 0 || self.dialers.far.is_none() || Instant::now() >= patience {
                verification = compared;
                break;
            }
            std::thread::sleep(FAR_PAUSE);
        }
        verify::look_up(&self.dialers.home, self.accounts.range, &self.samples, &mut verification)?;
        if let Some(from) = self.feed_from {
            let acknowledged = std::mem::take(&mut self.acknowledged);
            let checked =
                verify::check_feed(&self.dialers.home, self.accounts.range, from, acknowledged, &mut verification);
            if let Err(error) = checked {
                // As when retention has removed it meanwhile: what was measured is worth a report all the same.
                verification.examples.push(format!("the feed could not be checked: {error:#}"));
                verification.holds = false;
            }
        }
        self.check_sums(&mut verification)?;
        verification.holds &= verification.counts_hold();
        verification.seconds = begun.elapsed().as_secs_f64();
        Ok(verification)
    }

    /// Money neither appears nor goes: the accounts hold what was paid in, and the cash account paid that out.
    fn check_sums(&self, verification: &mut Verification) -> anyhow::Result<()> {
        if let Some(sum) = verification.sum_of_balances
            && sum != verification.sum_expected
        {
            verification.holds = false;
            verification.examples.push(format!("all accounts hold {sum}, paid in {}", verification.sum_expected));
        }
        let cash_after = verify::cash_paid_out(&self.dialers.home, self.accounts.range)?;
        let (Some(before), Some(after)) = (self.cash_before, cash_after) else { return Ok(()) };
        verification.cash_paid_out = Some(after.wrapping_sub(before));
        // Others may have paid in meanwhile; less than our own deposits cannot be.
        if after < before.saturating_add(self.accounts.deposited) {
            verification.holds = false;
            let deposited = self.accounts.deposited;
            verification.examples.push(format!("cash account went from {before} to {after} with {deposited} paid in"));
        }
        Ok(())
    }
}

/// Finds the branches. The first is the one at the endpoint that was given.
fn dial(args: &LoadArgs) -> anyhow::Result<(Dialers, Session, Option<BranchId>)> {
    let info = args.connect.connect_info()?;
    let home = Arc::new(Dialer::new(info.clone())?);
    let session = first_session(&home)?;
    if args.cross == 0 {
        return Ok((Dialers { home, far: None }, session, None));
    }
    let directory = Arc::new(Directory::new(info, []));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(directory.ask())?;
    let others = directory.routes().branches.into_keys().filter(|&id| id != session.branch_id);
    let far = match args.to {
        Some(id) => others.into_iter().find(|other| other.get() == id),
        None => others.into_iter().next(),
    };
    let far = far.ok_or_else(|| anyhow::anyhow!("--cross: the bank has no such other branch"))?;
    let dialer = Arc::new(Dialer::of_branch(directory, far)?);
    Ok((Dialers { home, far: Some(dialer) }, session, Some(far)))
}

fn first_session(dialer: &Arc<Dialer>) -> Result<Session, ConnectError> {
    let lanes = LaneRun::connect(dialer, bulk::ONE)?;
    Ok(lanes.session())
}

/// From a thread that makes load.
enum Message {
    Ready,
    Second(u64, Box<Second>),
    Ended(Box<Result<(Findings, LaneStats), ConnectError>>),
}

/// To a thread that makes load: go.
type Go = (Clock, Window);

fn run_threads(
    dialer: &Arc<Dialer>,
    args: &LoadArgs,
    mix: Mix,
    remember: bool,
    random: &mut Random,
    observer: &mut dyn Observer,
) -> anyhow::Result<(Findings, LaneStats)> {
    let (sender, messages) = mpsc::channel();
    let mut threads = Vec::new();
    for thread_index in 0..args.threads {
        let share = |index: usize| args.connections * index / args.threads;
        let lanes = share(thread_index)..share(thread_index + 1);
        let (go, wait) = mpsc::channel();
        let worker = Worker {
            dialer: Arc::clone(dialer),
            args: args.clone(),
            mix,
            remember,
            random: Random::from_seed(random.bits()),
            lanes,
            sender: sender.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("load-{thread_index}"));
        threads.push((thread.spawn(move || worker.run(&wait))?, go));
    }
    drop(sender);
    let result = conduct(args, &messages, threads.iter().map(|(_, go)| go), observer);
    for (thread, go) in threads {
        drop(go);
        thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))?;
    }
    result
}

/// Starts all threads at one instant, passes on what they say, and puts their findings together.
fn conduct<'a>(
    args: &LoadArgs,
    messages: &mpsc::Receiver<Message>,
    goes: impl Iterator<Item = &'a mpsc::Sender<Go>>,
    observer: &mut dyn Observer,
) -> anyhow::Result<(Findings, LaneStats)> {
    for _ in 0..args.threads {
        match messages.recv() {
            Ok(Message::Ready) => {}
            Ok(Message::Ended(result)) => return Err(result.err().map_or_else(early, anyhow::Error::from)),
            Ok(Message::Second(..)) | Err(_) => return Err(early()),
        }
    }
    let clock = Clock::start();
    let begin = begin_of(args);
    let window = Window { begin, end: begin + args.duration.as_nanos() as Nanos };
    for go in goes {
        go.send((clock, window)).map_err(|_| early())?;
    }

    let mut findings = Findings::default();
    let mut stats = LaneStats::default();
    let mut seconds = Seconds { threads: args.threads, pending: Default::default() };
    let (mut ended, mut has_begun, mut has_ended) = (0, false, false);
    while ended < args.threads {
        let next_event = if has_begun { window.end } else { window.begin };
        let wait = match has_ended {
            true => Duration::from_secs(3600),
            false => Duration::from_nanos(next_event.saturating_sub(clock.now())),
        };
        match messages.recv_timeout(wait) {
            Ok(Message::Second(index, second)) => {
                if let Some(progress) = seconds.add(index, *second, window) {
                    observer.second(&progress);
                }
            }
            Ok(Message::Ended(result)) => {
                let (found, lanes) = (*result)?;
                merge(&mut findings, found);
                stats.reconnects += lanes.reconnects;
                ended += 1;
            }
            Ok(Message::Ready) => return Err(early()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(early()),
        }
        let now = clock.now();
        if !has_begun && now >= window.begin {
            has_begun = true;
            observer.begun();
        }
        if has_begun && !has_ended && now >= window.end {
            has_ended = true;
            observer.ended();
        }
    }
    if !has_ended {
        observer.ended();
    }
    Ok((findings, stats))
}

/// When measuring begins.
fn begin_of(args: &LoadArgs) -> Nanos {
    START_DELAY + args.warmup.as_nanos() as Nanos
}

fn early() -> anyhow::Error {
    anyhow::anyhow!("a load thread ended early")
}

fn merge(into: &mut Findings, from: Findings) {
    let Findings { counts, counts_all, latencies, read_latencies, unsent, refusals, .. } = &from;
    into.counts.add(counts);
    into.counts_all.add(counts_all);
    into.latencies.add(latencies);
    into.read_latencies.add(read_latencies);
    into.cross_latencies.add(&from.cross_latencies);
    into.unsent += unsent;
    into.nonsense += from.nonsense;
    for (code, count) in refusals {
        *into.refusals.entry(*code).or_default() += count;
    }
    if into.deltas.is_empty() {
        into.deltas = from.deltas;
    } else {
        into.deltas.iter_mut().zip(from.deltas).for_each(|(sum, delta)| *sum += delta);
    }
    into.last_reply = into.last_reply.max(from.last_reply);
    into.samples.merge(from.samples);
    if let Some(acknowledged) = from.acknowledged {
        into.acknowledged.get_or_insert_default().merge(acknowledged);
    }
    into.pulse.merge(from.pulse);
    into.unknown.extend(from.unknown);
    into.nonsense_first = into.nonsense_first.take().or(from.nonsense_first);
}

/// Seconds of which not every thread has told yet.
struct Seconds {
    threads: usize,
    pending: std::collections::BTreeMap<u64, (usize, Second)>,
}

impl Seconds {
    fn add(&mut self, index: u64, second: Second, window: Window) -> Option<Progress> {
        let (told, sum) = self.pending.entry(index).or_default();
        *told += 1;
        sum.counts.add(&second.counts);
        sum.latencies.add(&second.latencies);
        if *told < self.threads {
            return None;
        }
        let (_, sum) = self.pending.remove(&index)?;
        let warming_up = (index + 1) * 1_000_000_000 <= window.begin;
        Some(Progress::of(index + 1, warming_up, &sum))
    }
}

/// One thread that makes load.
struct Worker {
    dialer: Arc<Dialer>,
    args: LoadArgs,
    mix: Mix,
    remember: bool,
    random: Random,
    lanes: std::ops::Range<usize>,
    sender: mpsc::Sender<Message>,
}

impl Worker {
    fn run(self, wait: &mpsc::Receiver<Go>) {
        let sender = self.sender.clone();
        let result = self.work(wait);
        if let Some(result) = result.transpose() {
            // Nobody listens any more when another thread has failed.
            let _ = sender.send(Message::Ended(Box::new(result)));
        }
    }

    /// `None` when it was never told to go.
    fn work(self, wait: &mpsc::Receiver<Go>) -> Result<Option<(Findings, LaneStats)>, ConnectError> {
        let Self { dialer, args, mix, remember, random, lanes, sender } = self;
        let open = args.rate.is_some();
        let options = LaneOptions {
            lane_count: lanes.len(),
            in_flight: if open { OPEN_IN_FLIGHT_MAX } else { args.in_flight },
            tick: if open { args.tick } else { TICK_CLOSED },
            reconnect_within: RECONNECT_WITHIN,
        };
        let lane_run = LaneRun::connect(&dialer, options)?;
        let _ = sender.send(Message::Ready);
        let Ok((clock, window)) = wait.recv() else { return Ok(None) };
        let schedule =
            args.rate.map(|rate| Schedule::new(rate, args.connections, args.run_len, START_DELAY, window.end));
        let share = args.transfers.map_or(u64::MAX, |count| count.div_ceil(args.threads as u64));
        let traffic = LoadTraffic::new(mix, window, schedule, lanes, random).with_at_most(share).remembering(remember);
        let traffic = Rc::new(RefCell::new(traffic));
        let telling = tell_seconds(Rc::clone(&traffic), clock, sender);
        let stats = lane_run.run(Rc::clone(&traffic), clock, telling)?;
        let findings = std::mem::take(&mut traffic.borrow_mut().findings);
        Ok(Some((findings, stats)))
    }
}

async fn tell_seconds(traffic: Rc<RefCell<LoadTraffic>>, clock: Clock, sender: mpsc::Sender<Message>) {
    for index in 0.. {
        let next = (index + 1) * 1_000_000_000;
        tokio::time::sleep(Duration::from_nanos(next - clock.now().min(next))).await;
        let second = traffic.borrow_mut().take_second();
        if sender.send(Message::Second(index, Box::new(second))).is_err() {
            return;
        }
    }
}
