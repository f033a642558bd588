//! What goes wrong, and when: drawn from the seed.
//!
//! Faults overlap. Each ends after its time; a process that is gone or hangs is left alone until it is back.

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::bank::{NODES, World};
use super::net::Site;

/// Between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..2_500;
/// How long a killed process is away, in milliseconds.
const AWAY_MS: std::ops::Range<u64> = 50..4_000;
/// How long one hangs: now and then longer than any time-out.
const FROZEN_MS: std::ops::Range<u64> = 50..7_000;
/// How long a link is cut or loses packets.
const CUT_MS: std::ops::Range<u64> = 100..9_000;
const LOST_PERCENT: std::ops::Range<u8> = 1..40;
/// Faults at a time.
const FAULTS_MAX: usize = 4;
const LOOK: Duration = Duration::from_millis(20);

/// Something that is wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// `kill -9`; started again at the end.
    Gone(Vec<Site>),
    /// SIGSTOP; SIGCONT at the end.
    Frozen(Site),
    /// One does not hear the other: from, to.
    Cut(Vec<(Site, Site)>),
    /// So many of a hundred packets to one are lost.
    Lossy(Site, u8),
}

impl Fault {
    /// The processes that it has in hand.
    fn processes(&self) -> &[Site] {
        match self {
            Self::Gone(sites) => sites,
            Self::Frozen(site) => std::slice::from_ref(site),
            Self::Cut(_) | Self::Lossy(..) => &[],
        }
    }

    fn begin(&self, world: &mut World) -> anyhow::Result<()> {
        match self {
            Self::Gone(sites) => sites.iter().try_for_each(|&site| world.process_mut(site).kill()),
            Self::Frozen(site) => world.process_mut(*site).freeze(true),
            Self::Cut(links) => links.iter().try_for_each(|&(from, to)| world.net.cut(from, to, true)),
            Self::Lossy(site, percent) => world.net.lose(*site, *percent),
        }
    }

    fn end(&self, world: &mut World) -> anyhow::Result<()> {
        match self {
            Self::Gone(sites) => sites.iter().try_for_each(|&site| world.start(site)),
            Self::Frozen(site) => world.process_mut(*site).freeze(false),
            Self::Cut(links) => links.iter().try_for_each(|&(from, to)| world.net.cut(from, to, false)),
            Self::Lossy(site, _) => world.net.lose(*site, 0),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |sites: &[Site]| sites.iter().map(Site::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Gone(sites) => write!(f, "kill -9 {}", names(sites)),
            Self::Frozen(site) => write!(f, "SIGSTOP {site}"),
            Self::Cut(links) => {
                let links: Vec<String> = links.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
                write!(f, "cut {}", links.join(", "))
            }
            Self::Lossy(site, percent) => write!(f, "{percent} % of the packets to {site} are lost"),
        }
    }
}

/// Lets things go wrong for `time`. Returns how many things did. They may go on when this returns.
pub(crate) async fn run(world: &mut World, random: &mut ChaCha8Rng, time: Duration) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let mut under_way: Vec<(Instant, Fault)> = Vec::new();
    let (mut count, mut next) = (0, begun);
    while begun.elapsed() < time {
        let now = Instant::now();
        let (over, going_on) = under_way.into_iter().partition(|(until, _)| *until <= now);
        under_way = going_on;
        for (_, fault) in over {
            fault.end(world).with_context(|| format!("after: {fault}"))?;
        }
        for process in &mut world.processes {
            process.check()?;
        }
        if now >= next && under_way.len() < FAULTS_MAX {
            next = now + millis(random, PAUSE_MS);
            let busy: Vec<Site> = under_way.iter().flat_map(|(_, fault)| fault.processes()).copied().collect();
            let cuts = under_way.iter().any(|(_, fault)| matches!(fault, Fault::Cut(_)));
            let lossy = under_way.iter().any(|(_, fault)| matches!(fault, Fault::Lossy(..)));
            let at = begun.elapsed().as_secs_f64();
            match draw(world, random, &busy) {
                // Two of these at a time would end each other.
                Some((Fault::Cut(_), _)) if cuts => {}
                Some((Fault::Lossy(..), _)) if lossy => {}
                Some((fault, lasts)) => {
                    println!("  {at:.1} s: {fault} for {:.1} s", lasts.as_secs_f64());
                    fault.begin(world).with_context(|| fault.to_string())?;
                    under_way.push((now + lasts, fault));
                    count += 1;
                }
                None if busy.is_empty() => {
                    println!("  {at:.1} s: the nodes of the registry restart, one after the other");
                    roll(world).await?;
                    count += 1;
                }
                None => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(count)
}

/// What goes wrong next and for how long; `None` for a rolling restart, or if what was drawn is in hand already.
fn draw(world: &World, random: &mut ChaCha8Rng, busy: &[Site]) -> Option<(Fault, Duration)> {
    let sites: Vec<Site> = world.processes.iter().map(super::process::Process::site).collect();
    let any = |random: &mut ChaCha8Rng| sites[random.random_range(0..sites.len())];
    let drawn = random.random_range(0..100);
    let (victim, length) = (any(random), random.random_range(0.0..1.0f64));
    let during = |range: std::ops::Range<u64>| {
        // Mostly short, now and then long.
        let share = length * length;
        Duration::from_millis(range.start + ((range.end - range.start) as f64 * share) as u64)
    };
    let (fault, lasts) = match drawn {
        0..24 => (Fault::Gone(vec![victim]), during(AWAY_MS)),
        24..36 => (Fault::Gone(vec![world.leader()?.site()]), during(AWAY_MS)),
        36..40 => (Fault::Gone((1..=NODES).map(Site::Node).collect()), during(AWAY_MS)),
        40..58 => (Fault::Frozen(victim), during(FROZEN_MS)),
        58..64 => (Fault::Frozen(world.leader()?.site()), during(FROZEN_MS)),
        64..92 => (Fault::Cut(links(world, random, victim)), during(CUT_MS)),
        92..97 => (Fault::Lossy(victim, random.random_range(LOST_PERCENT)), during(CUT_MS)),
        _ => return None,
    };
    let is_free = fault.processes().iter().all(|site| !busy.contains(site));
    is_free.then_some((fault, lasts))
}

/// The links that a cut takes: of one pair, in one direction or both; or all of one site.
fn links(world: &World, random: &mut ChaCha8Rng, site: Site) -> Vec<(Site, Site)> {
    let others: Vec<Site> = world.net.sites().into_iter().filter(|&other| other != site).collect();
    let other = others[random.random_range(0..others.len())];
    match random.random_range(0..4) {
        0 => others.iter().flat_map(|&other| [(site, other), (other, site)]).collect(),
        1 => vec![(site, other)],
        2 => vec![(other, site)],
        _ => vec![(site, other), (other, site)],
    }
}

/// Ends and starts each node in turn, as an upgrade does.
async fn roll(world: &mut World) -> anyhow::Result<()> {
    world.net.heal()?;
    for number in 1..=NODES {
        let site = Site::Node(number);
        world.until("the registry has a leader", |world| world.leader().is_some()).await?;
        world.process_mut(site).end().await?;
        world.start(site)?;
        world.until("the node is back", |world| world.process(site).is_ready()).await?;
    }
    Ok(())
}

fn millis(random: &mut ChaCha8Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}
