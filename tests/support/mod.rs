//! A real server process and a client that says exactly what it is told to: for tests of what happens
//! when a peer does not keep to the protocol, too.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod bank;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tally_branch_server::server::{RunFile, prepare_development_folder};
use tally_branch_server::users::{RoleName, Users};
use tally_protocol::message::{AccountOpen, Hello, Transfer, TransferKind, account_flags};
use tally_protocol::reply::{self, Refused, Reply};
use tally_protocol::request::Login;
use tally_protocol::{
    AccountId, AccountKind, BranchId, Currency, Envelope, FRAME_HEADER_LEN_BYTES, FrameHeader, MessageType, Refusal,
    Request, split_frame,
};
use zerocopy::FromZeros;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const BRANCH: BranchId = BranchId::new(1);

/// Users that every test server has; the password is `NAME's password`.
const USERS: [(&str, RoleName, u64); 5] = [
    ("admin", RoleName::Admin, 0),
    ("teller", RoleName::Teller, 0),
    ("auditor", RoleName::Auditor, 0),
    ("alice", RoleName::Customer, 1_001),
    ("bob", RoleName::Customer, 1_002),
];

pub fn password(user: &str) -> String {
    format!("{user}'s password")
}

pub fn tally() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    // A developer's own settings must not leak into a test.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALLY_")) {
        command.env_remove(name);
    }
    command
}

/// A folder with certificates and users. The users file is made once and copied: hashing takes time.
pub fn folder() -> tempfile::TempDir {
    static USERS_FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    prepare_development_folder(folder.path()).expect("prepared");
    let path = Users::path(folder.path());
    let text = USERS_FILE.get_or_init(|| {
        let mut users = Users::default();
        for (name, role, customer_id) in USERS {
            users.add(name, &password(name), role, customer_id).expect("added");
        }
        users.save(&path).expect("saved");
        std::fs::read(&path).expect("just saved")
    });
    std::fs::write(&path, text).expect("written");
    folder
}

/// A running `tally branch-server`; killed when dropped.
pub struct Server {
    child: Child,
    pub dir: PathBuf,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// A fresh one, with these keys set.
    pub fn start(settings: &[&str]) -> Self {
        let folder = folder();
        let mut server = Self::start_in(folder.path(), settings);
        server._folder = Some(folder);
        server
    }

    /// One in a folder that outlives it.
    pub fn start_in(dir: &Path, settings: &[&str]) -> Self {
        let mut command = Self::command(dir, settings);
        let child = command.stdin(Stdio::null()).stderr(Self::log(dir)).spawn().expect("the program starts");
        let mut server = Self {
            child,
            dir: dir.to_owned(),
            address: ([127, 0, 0, 1], 0).into(),
            metrics: ([127, 0, 0, 1], 0).into(),
            _folder: None,
        };
        let run_file = until(|| {
            if let Some(status) = server.child.try_wait().expect("our child") {
                panic!("the server ended at its start ({status}):\n{}", server.log_text());
            }
            RunFile::read(dir).ok().flatten().filter(|file| file.pid == server.child.id())
        });
        server.address = run_file.address;
        server.metrics = run_file.metrics.expect("on by default");
        server
    }

    /// The command that starts one.
    pub fn command(dir: &Path, settings: &[&str]) -> Command {
        let mut command = tally();
        command.arg("branch-server").arg("--dir").arg(dir);
        // Small segments: they are filled with zeros ahead, and a test writes little.
        for setting in ["listen.address=127.0.0.1:0", "journal.segment_len_bytes=4194304", "journal.free_bytes_min=0"] {
            command.arg("--set").arg(setting);
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        command
    }

    fn log(dir: &Path) -> std::fs::File {
        std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log file")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill is there").success());
    }

    /// Tells it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        until(|| self.child.try_wait().expect("our child"))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// The value of a metric without labels, or of one line with them.
    pub fn metric(&self, line: &str) -> f64 {
        let page = http_get(self.metrics, "/metrics");
        let found = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no `{line}` in\n{page}")).parse().expect("a number")
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.address, &self.dir)
    }

    /// A session that is logged in.
    pub fn login(&self, user: &str) -> Peer {
        let mut peer = self.connect();
        peer.hello();
        peer.login(user);
        peer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log_text());
        }
    }
}

pub fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// Asks again and again until there is an answer.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing happened for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client, frame by frame.
pub struct Peer {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
    request_id: u64,
}

/// A frame that came back.
#[derive(Debug)]
pub struct Answer {
    pub header: FrameHeader,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn reply(&self) -> Reply<'_> {
        reply::decode(&self.header, &self.body).expect("a reply")
    }

    pub fn request_id(&self) -> u64 {
        self.header.request_id.get()
    }

    /// The refusal, if this is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.reply() {
            Reply::Refused(Refused { code, .. }) => Some(Refusal::from_code(code).expect("a known code")),
            _ => None,
        }
    }
}

impl Peer {
    pub fn connect(address: SocketAddr, dir: &Path) -> Self {
        Self::connect_with(address, dir, |_| {}).expect("the handshake succeeds")
    }

    /// As `connect`, with another TLS configuration; an error is the handshake's.
    pub fn connect_with(address: SocketAddr, dir: &Path, change: impl FnOnce(&mut ClientConfig)) -> io::Result<Self> {
        tally_branch_server::tls::install_crypto_provider();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("tls/ca.pem")).expect("a certificate")).expect("an authority");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![tally_branch_server::tls::ALPN.to_vec()];
        change(&mut config);
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a valid configuration");
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, unread: Vec::new(), request_id: 0 })
    }

    pub fn set_write_timeout(&mut self, timeout: Duration) {
        self.stream.sock.set_write_timeout(Some(timeout)).expect("a socket");
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request and returns its id.
    pub fn send(&mut self, request: &Request<'_>) -> u64 {
        self.request_id += 1;
        let mut frame = Vec::new();
        request.append_to(&mut frame, Envelope::request(self.request_id));
        self.send_bytes(&frame).expect("sent");
        self.request_id
    }

    /// The next frame; `None` when the connection ended.
    pub fn read(&mut self) -> Option<Answer> {
        loop {
            if let Some((header, body)) = split_frame(&self.unread).expect("the server's frames are sound") {
                let answer = Answer { header: *header, body: body.to_vec() };
                self.unread.drain(..FRAME_HEADER_LEN_BYTES + answer.body.len());
                return Some(answer);
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer for {PATIENCE:?}"),
                Err(_) => return None,
            }
        }
    }

    /// Sends a request and waits for the answer to it; unasked-for frames in between are dropped.
    pub fn ask(&mut self, request: &Request<'_>) -> Answer {
        let id = self.send(request);
        loop {
            let answer = self.read().expect("the connection is open");
            if answer.request_id() == id {
                return answer;
            }
        }
    }

    /// The next frame must be this refusal.
    pub fn expect_refusal(&mut self, refusal: Refusal) {
        let answer = self.read().unwrap_or_else(|| panic!("closed without {refusal:?}"));
        assert_eq!(answer.refusal(), Some(refusal));
    }

    /// Nothing more may come.
    pub fn expect_closed(&mut self) {
        if let Some(answer) = self.read() {
            panic!("still open: {:?}", answer.reply());
        }
    }

    pub fn hello(&mut self) {
        let answer = self.ask(&Request::Hello(&Hello::current()));
        assert!(matches!(answer.reply(), Reply::Hello(_)), "{:?}", answer.reply());
    }

    /// Logs in by password and returns the token.
    pub fn login(&mut self, user: &str) -> String {
        let answer = self.try_login(user, &password(user));
        match answer.reply() {
            Reply::Login(login) => login.token.to_owned(),
            other => panic!("{user} cannot log in: {other:?}"),
        }
    }

    pub fn try_login(&mut self, user: &str, password: &str) -> Answer {
        self.ask(&Request::Login(Login::Password { user, password: password.as_bytes() }))
    }

    /// Opens an account for a customer, in EUR, not to be overdrawn.
    pub fn open(&mut self, customer_id: u64) -> AccountId {
        let open = account(customer_id);
        let answer = self.ask(&Request::OpenAccounts(&[open]));
        match answer.reply() {
            Reply::OpenAccounts(items) => assert_eq!(items[0].refusal.get(), 0),
            other => panic!("not opened: {other:?}"),
        }
        AccountId::new(open.id.get())
    }

    /// A transfer's refusal code, 0 for done; a session's refusal too.
    pub fn submit(&mut self, transfer: &Transfer) -> u16 {
        let answer = self.ask(&Request::Transfer(transfer));
        match answer.reply() {
            Reply::Transfer { reply, .. } => reply.refusal.get(),
            Reply::Refused(refused) => refused.code,
            other => panic!("not an answer to a transfer: {other:?}"),
        }
    }

    pub fn credits_posted(&mut self, account_id: AccountId) -> u64 {
        let answer = self.ask(&Request::GetBalance(account_id));
        match answer.reply() {
            Reply::Balance(balance) => balance.sums.credits_posted.get(),
            other => panic!("no balance: {other:?}"),
        }
    }
}

pub fn account(customer_id: u64) -> AccountOpen {
    let mut open = AccountOpen::new_zeroed();
    open.id.set(AccountId::of_branch(BRANCH, u128::from(customer_id)).get());
    open.owner.set(customer_id);
    open.day_limit.set(u64::MAX);
    open.currency.set(Currency::EUR.get());
    open.code.set(1);
    open.flags.set(account_flags::DEBITS_LIMITED);
    open.kind = AccountKind::Customer as u8;
    open
}

pub fn transfer(id: u128, kind: TransferKind, debit: AccountId, credit: AccountId, amount: u64) -> Transfer {
    let mut transfer = Transfer::new_zeroed();
    transfer.id.set(id);
    transfer.debit_account_id.set(debit.get());
    transfer.credit_account_id.set(credit.get());
    transfer.amount.set(amount);
    transfer.currency.set(Currency::EUR.get());
    transfer.code.set(1);
    transfer.kind = kind as u8;
    transfer
}

pub fn deposit(id: u128, credit: AccountId, amount: u64) -> Transfer {
    transfer(id, TransferKind::Deposit, AccountId::NONE, credit, amount)
}

/// A header of a frame of any length and type, as a client that breaks the rules would write it.
pub fn raw_header(len_bytes: u32, message_type: u16, version: u8) -> Vec<u8> {
    let mut header = FrameHeader::new(MessageType::Ping, 77, 0);
    header.len_bytes.set(len_bytes);
    header.message_type.set(message_type);
    header.version = version;
    zerocopy::IntoBytes::as_bytes(&header).to_vec()
}
