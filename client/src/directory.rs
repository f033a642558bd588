//! Where the branches of a bank are, as far as this client knows.
//!
//! Invariant: what is known is never replaced by something older (a lower version), and however many callers find
//! it wrong at once, the bank is asked once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tally_protocol::BranchId;
use tally_protocol::link::BranchStatus;
use tokio::sync::Mutex as AsyncMutex;

use crate::{Client, ClientOptions, ConnectError, ConnectInfo, RequestError, RetryPolicy};

/// How long one branch may take to tell where the others are, its login included.
const ASK_DEADLINE: Duration = Duration::from_secs(3);
/// What is younger than this is not asked for again: many callers fail together.
const FRESH: Duration = Duration::from_millis(100);

/// Where a branch is, and how it was when that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRoute {
    /// `host:port`.
    pub endpoint: String,
    /// As the registry saw it.
    pub status: BranchStatus,
}

/// The branches of a bank, by number, in one state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Rises with every change; 0 from a branch that stands alone.
    pub version: u64,
    /// All branches.
    pub branches: BTreeMap<BranchId, BranchRoute>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    /// How to log in everywhere.
    info: ConnectInfo,
    /// Who can be asked when nothing is known.
    seeds: Vec<String>,
    known: Mutex<Known>,
    /// Held by whoever asks.
    asking: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    routes: Routes,
    /// When they were told last, and where: that one is asked first the next time.
    told: Option<(Instant, String)>,
    /// One client for each endpoint that was ever asked, so that only the first question costs a password.
    clients: BTreeMap<String, Client>,
}

impl Directory {
    pub(crate) fn new(info: ConnectInfo, others: impl IntoIterator<Item = String>) -> Self {
        let seeds = std::iter::once(info.endpoint.clone()).chain(others).collect();
        Self { info, seeds, known: Mutex::default(), asking: AsyncMutex::new(()) }
    }

    /// How to log in at any branch.
    pub(crate) fn info(&self) -> &ConnectInfo {
        &self.info
    }

    /// What is known now.
    pub(crate) fn routes(&self) -> Routes {
        self.lock().routes.clone()
    }

    /// Where `branch_id` is; the bank is asked about one that is not known.
    pub(crate) async fn locate(&self, branch_id: BranchId) -> Result<String, ConnectError> {
        if let Some(endpoint) = self.endpoint_of(branch_id) {
            return Ok(endpoint);
        }
        self.ask().await?;
        self.endpoint_of(branch_id).ok_or(ConnectError::BranchUnknown(branch_id))
    }

    /// Where `branch_id` is, now that `endpoint` has failed: `None` if that is still where it should be.
    pub(crate) async fn locate_again(&self, branch_id: BranchId, endpoint: &str) -> Option<String> {
        if self.endpoint_of(branch_id).is_none_or(|known| known == endpoint) {
            // That nobody can say where it is now hides why it could not be reached there.
            self.ask().await.ok()?;
        }
        self.endpoint_of(branch_id).filter(|known| known != endpoint)
    }

    /// Takes notice of the version that a branch has.
    pub(crate) async fn hear(&self, version: u64) {
        if version > self.lock().routes.version {
            // The routes that are known may still do; if not, that shows when they are used.
            let _ = self.ask().await;
        }
    }

    /// Asks one branch after the other, unless somebody else just did.
    ///
    /// Not an `async fn`: opening a session asks, and asking opens a session, so the type must end somewhere.
    pub(crate) fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ConnectError>> + Send + '_>> {
        Box::pin(async {
            let _asking = self.asking.lock().await;
            if self.lock().told.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH) {
                return Ok(());
            }
            let mut result = Err(ConnectError::DeadlinePassed);
            for endpoint in self.endpoints() {
                match self.ask_at(&endpoint).await {
                    // One that has just come back may know less than we do; the next one may know more.
                    Ok(told) => match self.learn(told, endpoint) {
                        Learnt::Current => return Ok(()),
                        Learnt::Older => result = Ok(()),
                    },
                    Err(error) => result = result.or(Err(error)),
                }
            }
            result
        })
    }

    /// Who can be asked: the one that told last, those that were given, then those that were told of.
    fn endpoints(&self) -> Vec<String> {
        let known = self.lock();
        let last = known.told.iter().map(|(_, endpoint)| endpoint);
        let told_of = known.routes.branches.values().map(|route| &route.endpoint);
        let mut endpoints: Vec<String> = Vec::new();
        for endpoint in last.chain(&self.seeds).chain(told_of) {
            if !endpoints.contains(endpoint) {
                endpoints.push(endpoint.clone());
            }
        }
        endpoints
    }

    async fn ask_at(&self, endpoint: &str) -> Result<Routes, ConnectError> {
        let client = self.client_at(endpoint)?;
        client.routes().await.map_err(|error| match error {
            RequestError::NotSent(error) => error,
            RequestError::Refused(refused) => ConnectError::Refused(refused),
            RequestError::DeadlinePassed => ConnectError::DeadlinePassed,
            RequestError::Lost(reason) => {
                ConnectError::Unreachable { endpoint: endpoint.to_owned(), kind: reason.to_string() }
            }
            RequestError::Unexpected(why) => ConnectError::NotABranch { endpoint: endpoint.to_owned(), why },
        })
    }

    fn client_at(&self, endpoint: &str) -> Result<Client, ConnectError> {
        if let Some(client) = self.lock().clients.get(endpoint) {
            return Ok(client.clone());
        }
        let info = ConnectInfo { endpoint: endpoint.to_owned(), ..self.info.clone() };
        let options = ClientOptions { connections: 1, deadline: ASK_DEADLINE, retry: RetryPolicy::NEVER };
        let client = Client::new(info, options)?;
        self.lock().clients.insert(endpoint.to_owned(), client.clone());
        Ok(client)
    }

    fn learn(&self, told: Routes, endpoint: String) -> Learnt {
        let mut known = self.lock();
        if told.version < known.routes.version {
            return Learnt::Older;
        }
        known.routes = told;
        known.told = Some((Instant::now(), endpoint));
        // Only those that may be asked again are kept.
        let Known { routes, clients, .. } = &mut *known;
        clients.retain(|endpoint, _| {
            self.seeds.contains(endpoint) || routes.branches.values().any(|route| route.endpoint == *endpoint)
        });
        Learnt::Current
    }

    /// Closes what was opened to ask.
    pub(crate) fn close(&self) {
        self.lock().clients.clear();
    }

    /// Where `branch_id` is, if that is known.
    pub(crate) fn endpoint_of(&self, branch_id: BranchId) -> Option<String> {
        self.lock().routes.branches.get(&branch_id).map(|route| route.endpoint.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }
}

/// What an answer was worth.
enum Learnt {
    /// It is what is known now.
    Current,
    /// More was known before.
    Older,
}

/// What a session is opened to.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// One endpoint, whichever branch is there.
    Endpoint(String),
    /// One branch, wherever it is.
    Branch(Arc<Directory>, BranchId),
}
