//! Time for lanes: a clock in nanoseconds, and wake-ups finer than the runtime's milliseconds.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Nanos;

/// Counts nanoseconds from when it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at 0 now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }
}

/// Wakes lanes at given times, to the granularity of its interval.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
    clock: Clock,
    /// By lane: when to wake it and whom; `Nanos::MAX` for not at all.
    waiting: RefCell<Vec<(Nanos, Option<Waker>)>>,
}

impl Ticker {
    /// For `lane_count` lanes. Must be called inside a runtime with IO enabled.
    pub(crate) fn new(lane_count: usize, interval: Duration, clock: Clock) -> io::Result<Rc<Self>> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let spec = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: interval.subsec_nanos().into() };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: spec, it_value: spec })?;
        let waiting = RefCell::new(vec![(Nanos::MAX, None); lane_count]);
        // SAFETY: the timer owns its descriptor and is itself owned by the `AsyncFd`: it stays open, and the same,
        // for as long as that lives.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
        Ok(Rc::new(Self { timer, clock, waiting }))
    }

    /// Wakes `waker` at the first tick at or after `at`.
    pub(crate) fn wake_at(&self, lane_index: usize, at: Nanos, waker: &Waker) {
        let entry = &mut self.waiting.borrow_mut()[lane_index];
        entry.0 = at;
        match &entry.1 {
            Some(known) if known.will_wake(waker) => {}
            Some(_) | None => entry.1 = Some(waker.clone()),
        }
    }

    /// Ticks until it is dropped.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let mut expirations = [0; 8];
        loop {
            let mut ready = self.timer.readable().await?;
            // A second reader cannot have been first: there is only this one.
            let _ = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            let now = self.clock.now();
            for (at, waker) in self.waiting.borrow_mut().iter_mut() {
                if *at <= now
                    && let Some(waker) = waker
                {
                    *at = Nanos::MAX;
                    waker.wake_by_ref();
                }
            }
        }
    }
}
