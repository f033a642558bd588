//! Keeps the server busy until it is gone, and enters what it answers into the book.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tally_client::Client;

use super::ask::{Said, send};
use super::book::{Answer, Book};
use super::plan::{Plan, Unit};

/// Requests of one stream that wait for their answers.
const IN_FLIGHT: usize = 16;
/// After a full queue, and while the server cannot be reached.
const PAUSE: Duration = Duration::from_millis(2);
/// One request out of so many is sent twice at the same instant.
const TWINS: u64 = 40;

/// What the streams share.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What is known.
    pub(crate) book: Book,
    /// Requests of this round that were answered.
    pub(crate) answered: Vec<Unit>,
    /// Requests of this round that were sent and not answered.
    pub(crate) unknown: Vec<Unit>,
    /// Answers of this round.
    pub(crate) answers: u64,
    /// The highest position and time stamp before this round: what is new lies above.
    pub(crate) floor: (u64, u64),
    stop: bool,
    failed: Option<anyhow::Error>,
}

/// Shared by the tasks of one thread; the lock is never held over an `await`.
pub(crate) type SharedLedger = Arc<Mutex<Ledger>>;

impl Ledger {
    /// Nothing was sent yet.
    pub(crate) fn new(book: Book) -> Self {
        Self { book, answered: Vec::new(), unknown: Vec::new(), answers: 0, floor: (0, 0), stop: false, failed: None }
    }

    /// Enters the answers to a request.
    pub(crate) fn learn(&mut self, unit: &Unit, answers: &[Answer]) -> anyhow::Result<()> {
        anyhow::ensure!(unit.transfers.len() == answers.len(), "answers and transfers differ in number");
        for (transfer, &answer) in unit.transfers.iter().zip(answers) {
            let is_new = self.book.known(tally_protocol::TransferId::new(transfer.id.get())).is_none();
            self.book.learn(transfer, answer)?;
            if is_new && !answer.repeated {
                let (lsn, timestamp) = self.floor;
                let above =
                    answer.lsn.is_none_or(|new| new > lsn) && answer.timestamp.is_none_or(|new| new > timestamp);
                anyhow::ensure!(above, "BACKWARDS: {answer:?} after position {lsn}, time stamp {timestamp}");
            }
        }
        self.answers += answers.len() as u64;
        Ok(())
    }
}

/// The lock of a shared ledger.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("nothing panics while it holds the ledger")
}

/// Load that runs by itself.
#[derive(Debug)]
pub(crate) struct Load {
    ledger: SharedLedger,
    tasks: tokio::task::JoinSet<()>,
    begun: Instant,
}

impl Load {
    /// Starts it: each plan is a stream of requests with several in flight.
    pub(crate) fn start(client: &Client, ledger: &SharedLedger, plans: &[Arc<Mutex<Plan>>]) -> Self {
        {
            let mut ledger = lock(ledger);
            ledger.stop = false;
            ledger.answers = 0;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for plan in plans {
            for _ in 0..IN_FLIGHT {
                tasks.spawn(stream(client.clone(), Arc::clone(ledger), Arc::clone(plan)));
            }
        }
        Self { ledger: Arc::clone(ledger), tasks, begun: Instant::now() }
    }

    /// Waits until no request is in flight any more; nothing new is sent. Returns how long the load lasted.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Duration> {
        lock(&self.ledger).stop = true;
        let lasted = self.begun.elapsed();
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        match lock(&self.ledger).failed.take() {
            Some(error) => Err(error),
            None => Ok(lasted),
        }
    }
}

async fn stream(client: Client, ledger: SharedLedger, plan: Arc<Mutex<Plan>>) {
    loop {
        let stop = {
            let ledger = lock(&ledger);
            ledger.stop || ledger.failed.is_some()
        };
        if stop {
            return;
        }
        let unit = plan.lock().expect("nothing panics while it plans").next_unit();
        if let Err(error) = one(&client, &ledger, &plan, unit).await {
            lock(&ledger).failed.get_or_insert(error);
            return;
        }
    }
}

async fn one(client: &Client, ledger: &SharedLedger, plan: &Mutex<Plan>, unit: Unit) -> anyhow::Result<()> {
    let twins =
        u64::from(unit.transfers[0].user_data_32.get()).wrapping_add(unit.transfers[0].id.get() as u64) % TWINS == 0;
    let (first, second) = if twins {
        let (first, second) = tokio::join!(send(client, &unit), send(client, &unit));
        (first?, Some(second?))
    } else {
        (send(client, &unit).await?, None)
    };
    let mut answered = false;
    let mut unknown = false;
    let mut pause = false;
    for said in std::iter::once(first).chain(second) {
        match said {
            Said::Answered(answers) => {
                lock(ledger).learn(&unit, &answers)?;
                if !answered {
                    let done = answers.iter().map(|answer| answer.refusal.is_none());
                    plan.lock().expect("nothing panics while it plans").learn(&unit, done);
                }
                answered = true;
            }
            Said::NotTaken(_) | Said::NotSent => pause = true,
            Said::Unknown => unknown = true,
        }
    }
    if answered {
        lock(ledger).answered.push(unit);
    } else if unknown {
        lock(ledger).unknown.push(unit);
    }
    if pause || unknown {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
