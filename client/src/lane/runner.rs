//! Runs a traffic over lanes on the calling thread, and keeps the lanes connected.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;

use super::task::{LaneEnd, LaneTask};
use super::ticker::{Clock, Ticker};
use super::{Nanos, Traffic};
use crate::{ConnectError, Dialed, Dialer, Random, RetryPolicy, Session};

/// What a lane waits when its connection is lost.
const RECONNECT: RetryPolicy =
    RetryPolicy { attempts_max: u32::MAX, backoff_min: Duration::from_millis(50), backoff_max: Duration::from_secs(2) };
/// Sessions opened at once: more would only wait for the branch's handshakes.
const DIALS_AT_ONCE: usize = 16;

/// How lanes are run.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Connections.
    pub lane_count: usize,
    /// Requests outstanding on each; the branch's own limit is kept to as well.
    pub in_flight: usize,
    /// What [`super::Next::Later`] is rounded up to.
    pub tick: Duration,
    /// How long a lost lane tries to come back, before the run fails.
    pub reconnect_within: Duration,
}

impl LaneOptions {
    /// A few lanes for work that is not measured.
    pub const fn for_work(lane_count: usize, in_flight: usize) -> Self {
        Self { lane_count, in_flight, tick: Duration::from_millis(1), reconnect_within: Duration::from_secs(60) }
    }
}

/// What happened to the lanes during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Connections that were lost and opened again.
    pub reconnects: u64,
}

/// Lanes that are connected and wait for their traffic.
#[derive(Debug)]
pub struct LaneRun {
    runtime: tokio::runtime::Runtime,
    dialer: Arc<Dialer>,
    dialed: Vec<Dialed>,
    options: LaneOptions,
}

impl LaneRun {
    /// Opens all sessions. Not inside a runtime: the calling thread becomes one while lanes run.
    pub fn connect(dialer: &Arc<Dialer>, options: LaneOptions) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ConnectError::Config(format!("runtime: {error}")))?;
        let dialed = runtime.block_on(dial_all(dialer, options.lane_count))?;
        Ok(Self { runtime, dialer: Arc::clone(dialer), dialed, options })
    }

    /// What the branch said to the first lane.
    pub fn session(&self) -> Session {
        self.dialed[0].session
    }

    /// Runs `traffic` until it is finished on every lane. `beside` runs on the same thread, and ends with it.
    pub fn run<T: Traffic + 'static>(
        self,
        traffic: Rc<RefCell<T>>,
        clock: Clock,
        beside: impl Future<Output = ()> + 'static,
    ) -> Result<LaneStats, ConnectError> {
        let Self { runtime, dialer, dialed, options } = self;
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let ticker = Ticker::new(dialed.len(), options.tick, clock)
                .map_err(|error: io::Error| ConnectError::Config(format!("timer: {error}")))?;
            let reconnects = Rc::new(Cell::new(0));
            let beside = tokio::task::spawn_local(beside);
            let ticking = tokio::task::spawn_local({
                let ticker = Rc::clone(&ticker);
                async move { ticker.run().await }
            });
            let lanes: Vec<_> = dialed
                .into_iter()
                .enumerate()
                .map(|(lane_index, dialed)| {
                    let lane = Lane {
                        lane_index,
                        dialer: Arc::clone(&dialer),
                        traffic: Rc::clone(&traffic),
                        ticker: Rc::clone(&ticker),
                        clock,
                        options,
                        reconnects: Rc::clone(&reconnects),
                    };
                    tokio::task::spawn_local(lane.run(dialed))
                })
                .collect();
            let mut result = Ok(());
            for lane in lanes {
                result = result.and(lane.await.expect("a lane is neither cancelled nor panics"));
            }
            beside.abort();
            ticking.abort();
            result.map(|()| LaneStats { reconnects: reconnects.get() })
        })
    }
}

/// Connects lanes and runs `traffic` over them to the end.
pub fn run_lanes<T: Traffic + 'static>(
    dialer: &Arc<Dialer>,
    options: LaneOptions,
    traffic: T,
) -> Result<(T, LaneStats), ConnectError> {
    let traffic = Rc::new(RefCell::new(traffic));
    let stats = LaneRun::connect(dialer, options)?.run(Rc::clone(&traffic), Clock::start(), std::future::pending())?;
    let traffic = Rc::into_inner(traffic).expect("the lanes have ended, and with them their handles");
    Ok((traffic.into_inner(), stats))
}

async fn dial_all(dialer: &Arc<Dialer>, lane_count: usize) -> Result<Vec<Dialed>, ConnectError> {
    // The first one brings the token that saves the others the password's hashing.
    let mut dialed = vec![dialer.dial().await?];
    while dialed.len() < lane_count {
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..DIALS_AT_ONCE.min(lane_count - dialed.len()) {
            let dialer = Arc::clone(dialer);
            dials.spawn(async move { dialer.dial().await });
        }
        while let Some(result) = dials.join_next().await {
            dialed.push(result.expect("dialling is neither cancelled nor panics")?);
        }
    }
    Ok(dialed)
}

struct Lane<T> {
    lane_index: usize,
    dialer: Arc<Dialer>,
    traffic: Rc<RefCell<T>>,
    ticker: Rc<Ticker>,
    clock: Clock,
    options: LaneOptions,
    reconnects: Rc<Cell<u64>>,
}

impl<T: Traffic> Lane<T> {
    async fn run(self, mut dialed: Dialed) -> Result<(), ConnectError> {
        let mut random = Random::from_system();
        loop {
            let task = LaneTask::new(
                self.lane_index,
                dialed.stream,
                self.options.in_flight.min(dialed.session.in_flight_max),
                Rc::clone(&self.traffic),
                Rc::clone(&self.ticker),
                self.clock,
            );
            match task.await {
                LaneEnd::Finished => return Ok(()),
                LaneEnd::Lost => {
                    self.reconnects.set(self.reconnects.get() + 1);
                    dialed = self.redial(&mut random).await?;
                }
            }
        }
    }

    async fn redial(&self, random: &mut Random) -> Result<Dialed, ConnectError> {
        let give_up: Nanos = self.clock.now() + self.options.reconnect_within.as_nanos() as Nanos;
        let mut attempt_index = 0;
        loop {
            let wait = RECONNECT.backoff(attempt_index, None, random).unwrap_or(RECONNECT.backoff_max);
            tokio::time::sleep(wait).await;
            match self.dialer.dial().await {
                Ok(dialed) => return Ok(dialed),
                Err(error) if !error.is_transient() || self.clock.now() > give_up => return Err(error),
                Err(_) => attempt_index = (attempt_index + 1).min(u32::BITS - 1),
            }
        }
    }
}
