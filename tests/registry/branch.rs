//! A branch's link, written on the protocol: finds the leader, begins, votes, asks and acknowledges.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tally_ledger::two_phase::{Attempt, Decision};
use tally_protocol::link::{
    BranchStatus, CrossTransfer, LinkFrame, LinkHeartbeat, LinkHello, MarkItem, VoteItem, append_items,
};
use tally_protocol::message::Transfer;
use tally_protocol::{BranchId, Envelope, LinkType, Timestamp};
use tally_registry::clock::wall;
use tally_registry::link::identity::REGISTRY_NAME;
use tally_registry::link::{Frame, FrameReader, Tls};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use zerocopy::FromBytes;

use crate::books::Books;

const DEADLINE_NANOS: u64 = 5_000_000_000;
/// A leader that hangs says nothing, and closes nothing.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct TestBranch {
    pub(crate) id: BranchId,
    books: Arc<Mutex<Books>>,
    begin: mpsc::Sender<Vec<CrossTransfer>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestBranch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Dialler {
    id: BranchId,
    incarnation: u128,
    tls: Tls,
    endpoints: Vec<String>,
    books: Arc<Mutex<Books>>,
}

impl TestBranch {
    /// A branch that keeps a link to whoever leads.
    pub(crate) fn start(id: u16, tls: Tls, endpoints: Vec<String>) -> Self {
        Self::start_as(id, 0xb000 + u128::from(id), tls, endpoints)
    }

    /// The same, from a data folder of this incarnation.
    pub(crate) fn start_as(id: u16, incarnation: u128, tls: Tls, endpoints: Vec<String>) -> Self {
        let (begin, to_begin) = mpsc::channel(4_096);
        let books = Arc::new(Mutex::new(Books::default()));
        let id = BranchId::new(id);
        let dialler = Dialler { id, incarnation, tls, endpoints, books: books.clone() };
        Self { id, books, begin, task: tokio::spawn(dialler.run(to_begin)) }
    }

    /// What it knows.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no test has failed within")
    }

    /// Begins transfers to `to`: they are held from here on, whatever becomes of the frame.
    pub(crate) fn begin(&self, ids: impl IntoIterator<Item = u128>, to: BranchId) {
        let now = wall().as_nanos();
        let items: Vec<_> = ids
            .into_iter()
            .map(|id| {
                let mut transfer = Transfer::read_from_bytes(&[0; 112]).expect("its size");
                transfer.id.set(id);
                transfer.amount.set(100);
                CrossTransfer::new(transfer, now, now + DEADLINE_NANOS, 0, self.id, to)
            })
            .collect();
        self.books().held.extend(items.iter().map(held_of));
        self.begin.try_send(items).expect("the task runs, and few wait");
    }

    /// Takes part in something of which the registry knows nothing.
    pub(crate) fn hold(&self, id: u128) {
        self.books().held.insert(id, 0);
    }
}

/// A promise of `item`.
fn vote(item: &CrossTransfer) -> VoteItem {
    VoteItem::yes(item.transfer.id.get(), wall().as_nanos(), Attempt::of_cross(item).get())
}

/// What is held of `item`, by its id.
fn held_of(item: &CrossTransfer) -> (u128, u64) {
    (item.transfer.id.get(), Attempt::of_cross(item).get())
}

type Reader = FrameReader<ReadHalf<TlsStream<TcpStream>>>;
type Writer = WriteHalf<TlsStream<TcpStream>>;

impl Dialler {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no test has failed within")
    }

    async fn run(self, mut to_begin: mpsc::Receiver<Vec<CrossTransfer>>) {
        let mut next = 0;
        let mut redirected: Option<String> = None;
        loop {
            let endpoint = redirected.take().unwrap_or_else(|| self.endpoints[next % self.endpoints.len()].clone());
            next += 1;
            let dialled = tokio::time::timeout(Duration::from_secs(3), self.dial(&endpoint)).await;
            match dialled {
                Ok(Ok(Ok((reader, writer)))) => drop(self.serve(reader, writer, &mut to_begin).await),
                Ok(Ok(Err(leader))) => redirected = leader,
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// A link that was welcomed, or who leads.
    async fn dial(&self, endpoint: &str) -> io::Result<Result<(Reader, Writer), Option<String>>> {
        let (stream, _) = self.tls.connect(endpoint, REGISTRY_NAME).await?;
        let (read, mut writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read);
        let mut out = Vec::new();
        let (cluster_id, routes_version) = {
            let books = self.books();
            (books.cluster_id, books.routes_version)
        };
        let hello = LinkHello {
            branch_id: self.id,
            cluster_id,
            incarnation: self.incarnation,
            stamp: wall(),
            routes_version,
            endpoint: "127.0.0.1:7411",
        };
        LinkFrame::Hello(hello).append_to(&mut out, Envelope::request(0));
        writer.write_all(&out).await?;
        let Some(frame) = reader.next_frame().await? else { return Ok(Err(None)) };
        match frame.decode() {
            Ok(LinkFrame::Welcome(welcome)) => {
                let mut books = self.books();
                books.welcomes += 1;
                books.cluster_id = welcome.cluster_id.get();
                drop(books);
                Ok(Ok((reader, writer)))
            }
            Ok(LinkFrame::Redirect { endpoint: "", .. }) => Ok(Err(None)),
            Ok(LinkFrame::Redirect { endpoint, .. }) => Ok(Err(Some(endpoint.to_owned()))),
            Ok(_) | Err(_) => {
                let why = frame.refused_text().unwrap_or_default();
                self.books().changed.push(format!("not welcome: {why}"));
                Ok(Err(None))
            }
        }
    }

    async fn serve(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        to_begin: &mut mpsc::Receiver<Vec<CrossTransfer>>,
    ) -> io::Result<()> {
        let mut beat = tokio::time::interval(Duration::from_millis(250));
        let mut ask = tokio::time::interval(Duration::from_millis(500));
        let mut out = Vec::new();
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                frame = reader.next_frame() => match frame? {
                    Some(frame) => {
                        heard_at = Instant::now();
                        self.hear(&frame, &mut out);
                    }
                    None => return Ok(()),
                },
                Some(items) = to_begin.recv() => {
                    append_items(&mut out, LinkType::LinkBegin, items.iter().copied());
                    let votes = items.iter().map(vote);
                    append_items(&mut out, LinkType::LinkVote, votes);
                }
                _ = beat.tick() => {
                    if heard_at.elapsed() > SILENCE_MAX {
                        return Ok(());
                    }
                    let heartbeat = LinkHeartbeat {
                        stamp: wall().as_nanos().into(),
                        routes_version: self.books().routes_version.into(),
                        durable: 1.into(),
                        in_doubt: 0.into(),
                        status: BranchStatus::Serving as u8,
                        reserved: [0; 3],
                    };
                    LinkFrame::Heartbeat(&heartbeat).append_to(&mut out, Envelope::request(0));
                }
                _ = ask.tick() => {
                    let books = self.books();
                    // What waits to be begun is not asked about: it would be presumed aborted before it came.
                    if to_begin.is_empty() {
                        let marks = books.held.iter().map(|(&id, &held)| MarkItem::question(id, wall().as_nanos(), held));
                        append_items(&mut out, LinkType::LinkAsk, marks);
                    }
                }
            }
            writer.write_all(&out).await?;
            out.clear();
        }
    }

    fn hear(&self, frame: &Frame, out: &mut Vec<u8>) {
        assert!(frame.stamp() > Timestamp::default(), "every frame carries the registry's clock: {frame:?}");
        let mut books = self.books();
        match frame.decode().expect("the registry keeps the rules") {
            LinkFrame::Prepare(items) => {
                let (done, held): (Vec<&CrossTransfer>, Vec<&CrossTransfer>) =
                    items.iter().partition(|item| books.decided.contains_key(&item.transfer.id.get()));
                books.held.extend(held.iter().map(|item| held_of(item)));
                append_items(out, LinkType::LinkVote, held.into_iter().map(vote));
                let done = done.into_iter().map(|item| MarkItem::new(item.transfer.id.get(), 1));
                append_items(out, LinkType::LinkAcknowledge, done);
            }
            LinkFrame::Decision(items) => {
                for item in items {
                    books.tell(item.id.get(), Decision::of_item(item).expect("known codes"));
                }
                append_items(out, LinkType::LinkAcknowledge, items.iter().map(|item| MarkItem::new(item.id.get(), 1)));
            }
            LinkFrame::Busy(items) => books.busy.extend(items.iter().map(|item| item.id.get())),
            LinkFrame::Routes(routes) => {
                books.routes_version = routes.version();
                books.routes =
                    routes.iter().map(|route| (route.branch_id.get(), route.status.name().to_owned())).collect();
            }
            LinkFrame::Heartbeat(beat) => {
                assert!(Timestamp::from_nanos(beat.stamp.get()) > Timestamp::from_nanos(0));
            }
            LinkFrame::Redirect { .. } => {}
            LinkFrame::Call(question) => {
                let question: Value = serde_json::from_str(question).expect("JSON");
                let call = question["call"].as_str().expect("a name").to_owned();
                let answer = books.audit.get(&call).cloned().unwrap_or_else(|| json!({ "error": { "text": "busy" } }));
                let envelope = Envelope::request(frame.header().request_id.get());
                LinkFrame::CallReply(&answer.to_string()).append_to(out, envelope);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
