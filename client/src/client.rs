//! The client: a pool, a deadline, and the loop that tries again.

use std::num::NonZeroU128;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tally_protocol::reply::Reply;
use tally_protocol::request::{Lookup, Request};
use tally_protocol::{FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, Timestamp};

use crate::outcome::UnknownReason;
use crate::pool::Pool;
use crate::retry::worth_another_attempt;
use crate::{ConnectError, ConnectInfo, Dialer, Random, Refused, RequestError, RetryPolicy, Session};

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Connections to the branch; each takes thousands of requests in flight, so one or two do for most.
    pub connections: usize,
    /// How long a call may take, all attempts together. It travels with the request: the branch does not begin
    /// what nobody waits for any more.
    pub deadline: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connections: 1, deadline: Duration::from_secs(10), retry: RetryPolicy::default() }
    }
}

/// A client of one branch; [`crate::Bank`] has one for each. Cheap to clone; all clones share the connections.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tally_client::{Between, Client, ClientOptions, ConnectFile, Money, Outcome, next_transfer_id};
/// use tally_protocol::{AccountId, Amount, Currency};
///
/// let info = ConnectFile::read("bank/connect.json".as_ref())?.connect_info(None)?;
/// let client = Client::connect(info, ClientOptions::default()).await?;
/// let branch_id = client.session().await?.branch_id;
/// let between = Between {
///     debit_account_id: AccountId::of_branch(branch_id, 1),
///     credit_account_id: AccountId::of_branch(branch_id, 2),
/// };
/// let money = Money { amount: Amount::new(12_50), currency: Currency::EUR };
/// let id = next_transfer_id();
/// match client.transfer(id, between, money).await {
///     Outcome::Done(receipt) => println!("done at {:?}", receipt.timestamp),
///     Outcome::Refused(refused) => println!("refused: {refused}"),
///     Outcome::NotSent { why, .. } => println!("nothing was sent: {why}"),
///     Outcome::Unknown { id, why } => println!("not known ({why}): {:?}", client.make_final(id).await?),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    options: ClientOptions,
    /// For every request; without one each call has an id of its own, the same for all its attempts.
    trace_id: Option<NonZeroU128>,
    /// What look-ups have to show.
    after: Option<Timestamp>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    random: Mutex<Random>,
    traces: Traces,
}

/// Trace ids: a random half for the client, so that no two clients meet, and a number for the call.
#[derive(Debug)]
struct Traces {
    client: u64,
    next: AtomicU64,
}

impl Traces {
    fn next(&self) -> u128 {
        // Only a number: no other memory depends on it. From 1 on, so that no id is 0.
        let call = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        (u128::from(self.client) << 64) | u128::from(call)
    }
}

/// How a reply was read: the value, the branch's refusal, or something that does not answer this request.
pub(crate) enum Answer<T> {
    Value(T),
    Refused(Refused),
    Unexpected(String),
}

impl<T> Answer<T> {
    /// For every reply that is not the one expected.
    pub(crate) fn other(reply: Reply<'_>) -> Self {
        match reply {
            Reply::Refused(refused) => Self::Refused(refused.into()),
            other => Self::Unexpected(format!("{:?}", other.message_type())),
        }
    }
}

/// How a call ended, and why an attempt of it, if any, was sent and got no answer.
pub(crate) struct Ended<T> {
    pub(crate) result: Result<T, RequestError>,
    pub(crate) unanswered: Option<UnknownReason>,
}

impl Client {
    /// Opens the first connection and logs in; the others follow when they are needed. Must be called, like
    /// every method, inside a tokio runtime with time and IO enabled.
    pub async fn connect(info: ConnectInfo, options: ClientOptions) -> Result<Self, ConnectError> {
        let client = Self::new(info, options)?;
        client.session().await?;
        Ok(client)
    }

    /// A client that connects when it is first used.
    pub fn new(info: ConnectInfo, options: ClientOptions) -> Result<Self, ConnectError> {
        Ok(Self::over(Dialer::new(info)?, options))
    }

    /// A client over what `dialer` opens.
    pub(crate) fn over(dialer: Dialer, options: ClientOptions) -> Self {
        let pool = Pool::new(dialer, options.connections, options.retry);
        let mut random = Random::from_system();
        let traces = Traces { client: random.bits(), next: AtomicU64::new(0) };
        Self {
            inner: Arc::new(Inner { pool, random: Mutex::new(random), traces }),
            options,
            trace_id: None,
            after: None,
        }
    }

    /// The same connections for calls that are made like this.
    pub(crate) fn with(&self, options: ClientOptions, trace_id: Option<NonZeroU128>, after: Option<Timestamp>) -> Self {
        Self { inner: self.inner.clone(), options, trace_id, after }
    }

    /// The same connections with another deadline for each call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { options: ClientOptions { deadline, ..self.options }, ..self.clone() }
    }

    /// The same connections with another idea of when to try again.
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { options: ClientOptions { retry, ..self.options }, ..self.clone() }
    }

    /// The same connections with requests that carry this W3C trace id, which the branch's log repeats: for calls
    /// that serve somebody else's request. Without it each call has an id of its own.
    pub fn with_trace_id(&self, trace_id: NonZeroU128) -> Self {
        Self { trace_id: Some(trace_id), ..self.clone() }
    }

    /// The same connections with look-ups (of balances, accounts and transfers) that show everything up to `stamp`: the time
    /// stamp of a reply of any branch of the bank. So a payee at another branch sees the money of which the payer was told.
    /// Where the branch has to hear of it first, the look-up waits for that, up to five seconds.
    pub fn read_after(&self, stamp: Timestamp) -> Self {
        Self { after: Some(stamp), ..self.clone() }
    }

    /// A look-up, with the stamp that it has to show.
    pub(crate) fn look_up(&self, lookup: Lookup) -> Request<'static> {
        match (self.after, lookup) {
            (Some(stamp), lookup) => Request::ReadAfter(stamp, lookup),
            (None, Lookup::Balance(id)) => Request::GetBalance(id),
            (None, Lookup::Account(id)) => Request::GetAccount(id),
            (None, Lookup::Transfer(id)) => Request::GetTransfer(id),
        }
    }

    /// Where the branch is, `host:port`; of a branch of a [`crate::Bank`] that nobody knows, its number.
    pub fn endpoint(&self) -> String {
        self.inner.pool.endpoint()
    }

    /// What the branch said when it took the login.
    pub async fn session(&self) -> Result<Session, ConnectError> {
        Ok(self.inner.pool.get(Instant::now() + self.options.deadline).await?.session())
    }

    /// Closes the connections. Calls in flight end as lost; a later call opens new ones.
    pub fn close(&self) {
        self.inner.pool.close();
    }

    /// Sends `request` until it is answered, cannot be, or the deadline passes.
    pub(crate) async fn request<T>(
        &self,
        request: &Request<'_>,
        read: impl Fn(Reply<'_>) -> Answer<T>,
    ) -> Result<T, RequestError> {
        self.request_until(request, self.options.deadline, read).await.result
    }

    /// As [`Self::request`], for what changes the ledger: says also whether an attempt went unanswered.
    pub(crate) async fn request_once_known<T>(
        &self,
        request: &Request<'_>,
        read: impl Fn(Reply<'_>) -> Answer<T>,
    ) -> Ended<T> {
        self.request_until(request, self.options.deadline, read).await
    }

    pub(crate) async fn request_until<T>(
        &self,
        request: &Request<'_>,
        within: Duration,
        read: impl Fn(Reply<'_>) -> Answer<T>,
    ) -> Ended<T> {
        let deadline = Instant::now() + within;
        let trace_id = self.trace_id.map_or_else(|| self.inner.traces.next(), NonZeroU128::get);
        let mut unanswered = None;
        let mut attempt_index = 0;
        loop {
            let error = match self.attempt(request, trace_id, deadline, &read).await {
                Ok(value) => return Ended { result: Ok(value), unanswered },
                Err(error) => error,
            };
            match &error {
                RequestError::Lost(reason) => unanswered = Some(UnknownReason::Lost(*reason)),
                RequestError::DeadlinePassed => unanswered = Some(UnknownReason::DeadlinePassed),
                RequestError::Unexpected(what) => unanswered = Some(UnknownReason::Unexpected(what.clone())),
                RequestError::Refused(_) | RequestError::NotSent(_) => {}
            }
            let wait = worth_another_attempt(&error)
                .and_then(|hint| self.options.retry.backoff(attempt_index, hint, &mut self.lock_random()));
            match wait {
                Some(wait) if Instant::now() + wait < deadline => tokio::time::sleep(wait).await,
                Some(_) | None => return Ended { result: Err(error), unanswered },
            }
            attempt_index += 1;
        }
    }

    async fn attempt<T>(
        &self,
        request: &Request<'_>,
        trace_id: u128,
        deadline: Instant,
        read: &impl Fn(Reply<'_>) -> Answer<T>,
    ) -> Result<T, RequestError> {
        let connection = self.inner.pool.get(deadline).await?;
        match connection.call(request, trace_id, deadline, read).await? {
            Some(Answer::Value(value)) => Ok(value),
            Some(Answer::Refused(refused)) => Err(RequestError::Refused(refused)),
            Some(Answer::Unexpected(what)) => Err(RequestError::Unexpected(what)),
            None => Err(RequestError::NotSent(ConnectError::Unreachable {
                endpoint: self.endpoint(),
                kind: "the connection had just ended".to_owned(),
            })),
        }
    }

    fn lock_random(&self) -> std::sync::MutexGuard<'_, Random> {
        self.inner.random.lock().expect("nothing panics while it draws a number")
    }
}

/// The most bytes that one frame's body can hold.
pub(crate) const BODY_LEN_BYTES_MAX: usize = FRAME_LEN_BYTES_MAX - FRAME_HEADER_LEN_BYTES;
