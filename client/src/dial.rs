//! Opens a session: TCP, TLS, hello, login.
//!
//! A password costs the branch tens of milliseconds of hashing, so only the first session of a [`Dialer`] pays
//! it; the others use the token that it brought, until the branch no longer takes it.

use std::io;
use std::sync::{Arc, Mutex};

use rustls_pki_types::ServerName;
use tally_protocol::frame::Envelope;
use tally_protocol::message::{Hello, Role};
use tally_protocol::reply::{self, Reply};
use tally_protocol::request::{Login, Request};
use tally_protocol::{BranchId, CustomerId, FrameHeader, Refusal, Timestamp, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::directory::{Directory, Place};
use crate::{ConnectError, ConnectInfo, Credentials, Refused, tls};

/// How much a session reads at once.
const READ_LEN_BYTES: usize = 16 * 1024;

/// Opens sessions of one user at one branch.
#[derive(Debug)]
pub struct Dialer {
    info: ConnectInfo,
    place: Place,
    connector: TlsConnectorDebug,
    server_name: ServerName<'static>,
    token: Mutex<Option<String>>,
}

/// What the branch said when the session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The branch: the top 16 bits of its account ids.
    pub branch_id: BranchId,
    /// What this session may do.
    pub role: Role,
    /// Whom it acts for.
    pub customer_id: CustomerId,
    /// When its token ends.
    pub expires_at: Timestamp,
    /// The most requests that may wait for their replies.
    pub in_flight_max: usize,
    /// The most transfers in one batch.
    pub batch_len_max: usize,
    /// The branch's clock when the session began.
    pub server_time: Timestamp,
    /// The oldest position that the feed still holds.
    pub feed_first: u64,
    /// The version of the routes that it had; 0 for none.
    pub routes_version: u64,
}

/// A session that is logged in, nothing of it in flight.
#[derive(Debug)]
pub struct Dialed {
    /// The encrypted connection.
    pub stream: TlsStream<TcpStream>,
    /// What the branch said.
    pub session: Session,
}

/// `TlsConnector` has no `Debug` of its own.
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Dialer {
    /// Of the branch at `info.endpoint`, whichever it is. Checks `info`; opens nothing yet.
    pub fn new(info: ConnectInfo) -> Result<Self, ConnectError> {
        let place = Place::Endpoint(info.endpoint.clone());
        Self::to(place, info)
    }

    /// Of `branch_id`, wherever it is.
    pub(crate) fn of_branch(directory: Arc<Directory>, branch_id: BranchId) -> Result<Self, ConnectError> {
        let info = directory.info().clone();
        Self::to(Place::Branch(directory, branch_id), info)
    }

    fn to(place: Place, info: ConnectInfo) -> Result<Self, ConnectError> {
        let (connector, server_name) = tls::connector(&info)?;
        Ok(Self { info, place, connector: TlsConnectorDebug(connector), server_name, token: Mutex::new(None) })
    }

    /// Where the branch is, `host:port`; of a branch that nobody knows, its number.
    pub fn endpoint(&self) -> String {
        match &self.place {
            Place::Endpoint(endpoint) => endpoint.clone(),
            Place::Branch(directory, branch_id) => {
                directory.endpoint_of(*branch_id).unwrap_or_else(|| format!("branch {branch_id}"))
            }
        }
    }

    /// Opens a session.
    ///
    /// Cancel safe: dropping the future closes what was opened.
    pub async fn dial(&self) -> Result<Dialed, ConnectError> {
        match &self.place {
            Place::Endpoint(endpoint) => self.dial_at(endpoint).await,
            Place::Branch(directory, branch_id) => self.dial_branch(directory, *branch_id).await,
        }
    }

    /// Opens a session with `branch_id`; where it is not at the place that is known, the bank is asked once.
    async fn dial_branch(&self, directory: &Directory, branch_id: BranchId) -> Result<Dialed, ConnectError> {
        let endpoint = directory.locate(branch_id).await?;
        let error = match self.dial_branch_at(&endpoint, branch_id).await {
            Ok(dialed) => {
                directory.hear(dialed.session.routes_version).await;
                return Ok(dialed);
            }
            Err(error @ (ConnectError::Unreachable { .. } | ConnectError::OtherBranch { .. })) => error,
            Err(error) => return Err(error),
        };
        match directory.locate_again(branch_id, &endpoint).await {
            Some(elsewhere) => self.dial_branch_at(&elsewhere, branch_id).await,
            None => Err(error),
        }
    }

    async fn dial_branch_at(&self, endpoint: &str, expected: BranchId) -> Result<Dialed, ConnectError> {
        let dialed = self.dial_at(endpoint).await?;
        let found = dialed.session.branch_id;
        if found == expected {
            Ok(dialed)
        } else {
            Err(ConnectError::OtherBranch { endpoint: endpoint.to_owned(), expected, found })
        }
    }

    async fn dial_at(&self, endpoint: &str) -> Result<Dialed, ConnectError> {
        let token = self.lock_token().clone();
        if let Some(token) = token {
            match self.dial_with(endpoint, Login::Token(&token)).await {
                // The token ended, or the branch was set up anew: the password decides.
                Err(ConnectError::Refused(refused)) if refused.refusal() == Some(Refusal::LoginFailed) => {
                    *self.lock_token() = None;
                }
                other => return other,
            }
        }
        match &self.info.credentials {
            Credentials::Password { user, password } => {
                self.dial_with(endpoint, Login::Password { user, password: password.as_bytes() }).await
            }
            Credentials::Token(token) => self.dial_with(endpoint, Login::Token(token)).await,
        }
    }

    async fn dial_with(&self, endpoint: &str, login: Login<'_>) -> Result<Dialed, ConnectError> {
        let unreachable = |error: io::Error| unreachable(endpoint, &error);
        let tcp = TcpStream::connect(endpoint).await.map_err(unreachable)?;
        // Requests are gathered by us; waiting for more in the kernel would only add delay.
        tcp.set_nodelay(true).map_err(unreachable)?;
        let stream = self.connector.0.connect(self.server_name.clone(), tcp).await.map_err(unreachable)?;
        Handshake { dialer: self, endpoint, stream, received: Vec::new() }.run(login).await
    }

    fn lock_token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().expect("nothing panics while it holds the token")
    }
}

fn unreachable(endpoint: &str, error: &io::Error) -> ConnectError {
    ConnectError::Unreachable { endpoint: endpoint.to_owned(), kind: error.to_string() }
}

struct Handshake<'a> {
    dialer: &'a Dialer,
    endpoint: &'a str,
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Handshake<'_> {
    async fn run(mut self, login: Login<'_>) -> Result<Dialed, ConnectError> {
        let hello = self.exchange(Request::Hello(&Hello::current())).await?;
        let hello = match hello.read() {
            Ok(Reply::Hello(hello)) => *hello,
            other => return Err(self.unexpected(other)),
        };
        let logged_in = self.exchange(Request::Login(login)).await?;
        let logged_in = match logged_in.read() {
            Ok(Reply::Login(logged_in)) => logged_in,
            other => return Err(self.unexpected(other)),
        };
        *self.dialer.lock_token() = Some(logged_in.token.to_owned());
        let session = Session {
            branch_id: BranchId::new(hello.branch_id.get()),
            role: logged_in.role,
            customer_id: logged_in.customer_id,
            expires_at: logged_in.expires_at,
            in_flight_max: (hello.in_flight_max.get() as usize).max(1),
            batch_len_max: (hello.batch_len_max.get() as usize).max(1),
            server_time: Timestamp::from_nanos(hello.server_time.get()),
            feed_first: hello.feed_first.get(),
            routes_version: hello.routes_version.get(),
        };
        Ok(Dialed { stream: self.stream, session })
    }

    /// One request and its reply, nothing else being in flight.
    async fn exchange(&mut self, request: Request<'_>) -> Result<OwnedFrame, ConnectError> {
        let mut frame = Vec::new();
        request.append_to(&mut frame, Envelope::request(0));
        self.stream.write_all(&frame).await.map_err(|error| unreachable(self.endpoint, &error))?;
        self.stream.flush().await.map_err(|error| unreachable(self.endpoint, &error))?;
        self.received.clear();
        loop {
            if let Some((header, body)) = split_frame(&self.received).map_err(|error| self.not_a_branch(error))? {
                return Ok(OwnedFrame { header: *header, body: body.to_vec() });
            }
            let mut chunk = [0; READ_LEN_BYTES];
            match self.stream.read(&mut chunk).await {
                Ok(0) => {
                    return Err(unreachable(self.endpoint, &io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
                Ok(len_bytes) => self.received.extend_from_slice(&chunk[..len_bytes]),
                Err(error) => return Err(unreachable(self.endpoint, &error)),
            }
        }
    }

    fn not_a_branch(&self, why: impl ToString) -> ConnectError {
        ConnectError::NotABranch { endpoint: self.endpoint.to_owned(), why: why.to_string() }
    }

    fn unexpected(&self, reply: Result<Reply<'_>, reply::ReplyError>) -> ConnectError {
        match reply {
            Ok(Reply::Refused(refused)) => ConnectError::Refused(Refused::from(refused)),
            Ok(other) => self.not_a_branch(format!("{:?} in the handshake", other.message_type())),
            Err(error) => self.not_a_branch(error),
        }
    }
}

struct OwnedFrame {
    header: FrameHeader,
    body: Vec<u8>,
}

impl OwnedFrame {
    fn read(&self) -> Result<Reply<'_>, reply::ReplyError> {
        reply::decode(&self.header, &self.body)
    }
}
