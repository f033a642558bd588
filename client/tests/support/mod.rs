//! A branch for tests: speaks the protocol over real TLS, keeps its ledger in a map, and fails on demand.
//!
//! It knows just enough of the rules for the client's tests: funds, repeats, cancels. What a real branch does is
//! tested against the real branch.

#![allow(dead_code, unreachable_pub, reason = "each test file includes it, and uses a part of it")]

mod ledger;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls_pki_types::PrivateKeyDer;
use tally_protocol::frame::Envelope;
use tally_protocol::link::{BranchStatus, Route, Routes};
use tally_protocol::message::{HelloReply, Role};
use tally_protocol::reply::{LoggedIn, Refused, Reply};
use tally_protocol::request::{Login, Request, decode};
use tally_protocol::{BranchId, CustomerId, FrameHeader, MessageType, Refusal, Timestamp, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use zerocopy::FromZeros;

use ledger::Ledger;

/// The branch's number.
pub const BRANCH: u16 = 1;
const PASSWORD: &str = "open sesame";
const TOKEN: &str = "a.fake.token";

/// What goes wrong, and how often it went right.
#[derive(Default)]
pub struct Faults {
    /// Answer this many single transfers with "busy" first.
    pub busy: AtomicU32,
    /// Hang up after having done this many requests that change the ledger, before answering; 0 for never.
    pub hang_up_after: AtomicU32,
    /// Hang up on this many such requests without having done them.
    pub swallow: AtomicU32,
    /// Never answer such requests.
    pub silent: AtomicBool,
    /// Wait before each round of replies, in microseconds.
    pub delay_us: AtomicU64,
    /// Take no more tokens: they have ended.
    pub token_ended: AtomicBool,
    /// How many sessions logged in by password, and by token.
    pub password_logins: AtomicU32,
    pub token_logins: AtomicU32,
    /// How often it told of the branches.
    pub asked: AtomicU32,
    /// How many requests came in all.
    pub requests: AtomicU64,
    /// The trace ids of those that had one.
    pub traces: Mutex<Vec<u128>>,
    /// The branches that it tells of, and their version; with version 0, itself.
    pub routes: Mutex<(u64, Vec<(u16, String)>)>,
    /// Forget every n-th acknowledged transfer: what a broken branch would do; 0 for never.
    pub forget_every: AtomicU64,
}

/// A branch that runs until it is dropped.
pub struct FakeBranch {
    pub branch: BranchId,
    pub address: SocketAddr,
    pub connect_file: PathBuf,
    pub faults: Arc<Faults>,
    pub ledger: Arc<Mutex<Ledger>>,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBranch {
    /// Starts one on a thread of its own.
    pub fn start() -> Self {
        Self::start_as(BRANCH)
    }

    /// The same with a number.
    pub fn start_as(branch: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let acceptor = certificates(folder.path());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on this machine");
        listener.set_nonblocking(true).expect("a fresh socket");
        let address = listener.local_addr().expect("it is bound");
        let faults = Arc::new(Faults::default());
        let ledger = Arc::new(Mutex::new(Ledger::of(branch)));
        let (stop, stopped) = oneshot::channel();
        let serving = (Arc::clone(&faults), Arc::clone(&ledger));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                tokio::spawn(accept(listener, acceptor, serving.0, serving.1));
                // An error means that the branch was dropped without a word: the same.
                let _ = stopped.await;
            });
        });
        let connect_file = folder.path().join("connect.json");
        let text = format!(
            r#"{{"branch_id": {branch}, "endpoint": "{address}", "server_name": "localhost", "ca_file": "ca.pem",
                "users": [{{"name": "tess", "password": "{PASSWORD}", "role": "teller"}},
                          {{"name": "eve", "password": "wrong", "role": "customer"}}]}}"#
        );
        std::fs::write(&connect_file, text).expect("a file");
        let branch = BranchId::new(branch);
        Self { branch, address, connect_file, faults, ledger, folder, stop: Some(stop), thread: Some(thread) }
    }

    /// Tells clients of these branches from here on.
    pub fn tell(&self, version: u64, branches: &[&FakeBranch]) {
        let routes = branches.iter().map(|other| (other.branch.get(), other.address.to_string())).collect();
        *self.faults.routes.lock().expect("no test panics in it") = (version, routes);
    }

    /// How to log in as the teller at this branch, trusting those of `others` as well.
    pub fn connect_info_with(&self, others: &[&FakeBranch]) -> tally_client::ConnectInfo {
        let mut info = self.connect_info();
        let pems: Vec<_> = others.iter().map(|other| other.connect_info().ca_pem).collect();
        info.ca_pem = format!("{}{}", info.ca_pem, pems.concat()).into();
        info
    }

    /// How to log in as the teller.
    pub fn connect_info(&self) -> tally_client::ConnectInfo {
        let file = tally_client::ConnectFile::read(&self.connect_file).expect("just written");
        file.connect_info(None).expect("it has a teller")
    }
}

impl Drop for FakeBranch {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take().expect("joined only here");
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the fake branch panicked");
        }
    }
}

fn certificates(folder: &Path) -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("ca.pem"), certified.cert.pem()).expect("a file");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("the key fits the certificate");
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, faults: Arc<Faults>, ledger: Arc<Mutex<Ledger>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).expect("a fresh socket");
        let session =
            Session { faults: Arc::clone(&faults), ledger: Arc::clone(&ledger), logged_in: false, out: Vec::new() };
        tokio::spawn(session.serve(acceptor.clone(), tcp));
    }
}

struct Session {
    faults: Arc<Faults>,
    ledger: Arc<Mutex<Ledger>>,
    logged_in: bool,
    out: Vec<u8>,
}

/// The session is to end at once.
struct HangUp;

impl Session {
    async fn serve(mut self, acceptor: TlsAcceptor, tcp: TcpStream) {
        let Ok(mut stream) = acceptor.accept(tcp).await else { return };
        let mut received = Vec::new();
        let mut chunk = vec![0; 1 << 17];
        loop {
            let mut at = 0;
            while let Some((header, body)) = split_frame(&received[at..]).expect("clients send frames") {
                if self.answer(header, body).is_err() {
                    return;
                }
                at += header.len_bytes.get() as usize;
            }
            received.drain(..at);
            if !self.out.is_empty() {
                match self.faults.delay_us.load(Ordering::Relaxed) {
                    0 => {}
                    us => tokio::time::sleep(Duration::from_micros(us)).await,
                }
                if stream.write_all(&self.out).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                self.out.clear();
            }
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(len_bytes) => received.extend_from_slice(&chunk[..len_bytes]),
            }
        }
    }

    fn answer(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), HangUp> {
        let envelope = Envelope::reply_to(header);
        let request = match decode(header, body) {
            Ok(request) => request,
            Err(refusal) => {
                refuse(&mut self.out, envelope, refusal);
                return Ok(());
            }
        };
        match request {
            Request::Hello(_) => self.hello(envelope),
            Request::GetRoutes if self.logged_in => self.routes(envelope),
            Request::Login(login) => self.login(login, envelope),
            _ if !self.logged_in => refuse(&mut self.out, envelope, Refusal::LoginRequired),
            request => return self.serve_request(request, envelope),
        }
        Ok(())
    }

    fn branch(&self) -> u16 {
        self.ledger.lock().expect("no test panics in it").branch
    }

    fn hello(&mut self, envelope: Envelope) {
        let mut hello = HelloReply::new_zeroed();
        hello.version = 1;
        hello.branch_id.set(self.branch());
        hello.frame_len_bytes_max.set(1 << 20);
        hello.batch_len_max.set(8_190);
        hello.in_flight_max.set(4_096);
        hello.routes_version.set(self.faults.routes.lock().expect("no test panics in it").0);
        Reply::Hello(&hello).append_to(&mut self.out, envelope);
    }

    fn routes(&mut self, envelope: Envelope) {
        let (version, mut routes) = self.faults.routes.lock().expect("no test panics in it").clone();
        if version == 0 {
            routes = vec![(self.branch(), String::new())];
        }
        let body = Routes::encode(
            version,
            routes.iter().map(|(branch, endpoint)| Route {
                branch_id: BranchId::new(*branch),
                status: BranchStatus::Serving,
                endpoint,
            }),
        );
        self.faults.asked.fetch_add(1, Ordering::Relaxed);
        Reply::Routes(Routes::decode(&body).expect("just written")).append_to(&mut self.out, envelope);
    }

    fn login(&mut self, login: Login<'_>, envelope: Envelope) {
        let token_ended = self.faults.token_ended.load(Ordering::Relaxed);
        self.logged_in = match login {
            Login::Password { user: "tess", password } if password == PASSWORD.as_bytes() => {
                self.faults.token_ended.store(false, Ordering::Relaxed);
                self.faults.password_logins.fetch_add(1, Ordering::Relaxed);
                true
            }
            Login::Token(TOKEN) if !token_ended => {
                self.faults.token_logins.fetch_add(1, Ordering::Relaxed);
                true
            }
            Login::Password { .. } | Login::Token(_) => false,
        };
        if !self.logged_in {
            return refuse(&mut self.out, envelope, Refusal::LoginFailed);
        }
        let logged_in =
            LoggedIn { role: Role::Teller, customer_id: CustomerId::BANK, expires_at: Timestamp::MAX, token: TOKEN };
        Reply::Login(logged_in).append_to(&mut self.out, envelope);
    }

    fn serve_request(&mut self, request: Request<'_>, envelope: Envelope) -> Result<(), HangUp> {
        self.faults.requests.fetch_add(1, Ordering::Relaxed);
        if envelope.trace_id != 0 {
            self.faults.traces.lock().expect("no test panics in it").push(envelope.trace_id);
        }
        let changes = matches!(
            request.message_type(),
            MessageType::Transfer | MessageType::Chain | MessageType::Batch | MessageType::OpenAccounts
        );
        if changes {
            if self.faults.silent.load(Ordering::Relaxed) {
                return Ok(());
            }
            if take_one(&self.faults.swallow) {
                return Err(HangUp);
            }
            if request.message_type() == MessageType::Transfer && take_one(&self.faults.busy) {
                refuse(&mut self.out, envelope, Refusal::Busy);
                return Ok(());
            }
        }
        let forget_every = self.faults.forget_every.load(Ordering::Relaxed);
        let mut ledger = self.ledger.lock().expect("no test panics in it");
        ledger.forget_every = forget_every;
        ledger.serve(&request, envelope, &mut self.out);
        if changes && self.faults.hang_up_after.load(Ordering::Relaxed) > 0 && {
            self.faults.hang_up_after.fetch_sub(1, Ordering::Relaxed) == 1
        } {
            return Err(HangUp);
        }
        Ok(())
    }
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

fn refuse(out: &mut Vec<u8>, envelope: Envelope, refusal: Refusal) {
    let retry_after_ms = if refusal == Refusal::Busy { 1 } else { 0 };
    Reply::Refused(Refused { code: refusal.code(), retry_after_ms, text: "" }).append_to(out, envelope);
}
