//! The network between nodes: one connection per node for Raft's calls, one for snapshots, each served by a task that
//! dials when there is something to ask, and again after a pause when that fails.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, OptionalSend, RPCTypes, RaftNetwork, RaftNetworkFactory, Snapshot};
use parking_lot::Mutex;
use tally_protocol::Envelope;
use tally_protocol::link::{LINK_MAGIC, LINK_VERSION, LinkFrame, LinkPeerHello};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::rpc::{Answer, Call, SNAPSHOT_PIECE_LEN_BYTES};
use super::types::{Member, Types, Vote};
use crate::core::Shared;
use crate::link::identity::{REGISTRY_NAME, registry_name};
use crate::link::tls::within;
use crate::link::{FrameReader, Identity, Tls};

/// Calls that wait for one connection; Raft has one or two under way.
const CALLS_MAX: usize = 64;
/// Between two tries to dial.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);
/// How long a node may take to be reached. Not longer: while it is cut off the kernel repeats its first packet ever more
/// rarely, and a new dial finds it sooner once it is back.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may be silent while answers are due. What TCP sends again, it sends ever more rarely: after a
/// minute's partition it would be silent for another one. A snapshot has a time of its own.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a node may take for its answer to the first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a snapshot may take to be written and taken over, once all of it is there.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Who dials, and whom it expects.
#[derive(Clone, Copy, Debug)]
pub struct Myself {
    /// 0 from a node that only asks.
    pub node_id: u64,
    /// Of its folder; not 0.
    pub incarnation: u128,
    /// 0 for a node that belongs to none.
    pub cluster_id: u128,
}

/// What the other end said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSaid {
    /// Its number.
    pub node_id: u64,
    /// Of its folder.
    pub incarnation: u128,
    /// 0 for a node that belongs to none.
    pub cluster_id: u128,
}

/// All connections to other nodes.
#[derive(Clone, Debug)]
pub struct Peers {
    myself: Myself,
    tls: Tls,
    /// Its clock goes out with every frame, and follows what comes in.
    shared: Arc<Shared>,
    lanes: Arc<Mutex<BTreeMap<(u64, Lane), Sender>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Calls,
    Snapshots,
}

type Sender = (Member, mpsc::Sender<(Vec<u8>, oneshot::Sender<io::Result<Answer>>)>);

impl Peers {
    /// The connections of a node; none yet.
    pub fn new(myself: Myself, tls: Tls, shared: Arc<Shared>) -> Self {
        Self { myself, tls, shared, lanes: Arc::default() }
    }

    /// Asks `member`, whose number is `id`.
    ///
    /// # Errors
    /// When it cannot be reached, is somebody else, or does not answer within `limit`.
    pub async fn call(&self, id: u64, member: &Member, call: &Call, limit: Duration) -> io::Result<Answer> {
        self.ask(id, member, Lane::Calls, call, limit).await
    }

    async fn ask(&self, id: u64, member: &Member, lane: Lane, call: &Call, limit: Duration) -> io::Result<Answer> {
        let sender = self.lane(id, member, lane);
        let (done, answer) = oneshot::channel();
        let full = |_| io::Error::new(io::ErrorKind::WouldBlock, "too many calls wait for this node");
        sender.try_send((call.encode(), done)).map_err(full)?;
        let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
        within(limit, async { answer.await.map_err(gone)? }).await
    }

    fn lane(
        &self,
        id: u64,
        member: &Member,
        lane: Lane,
    ) -> mpsc::Sender<(Vec<u8>, oneshot::Sender<io::Result<Answer>>)> {
        let mut lanes = self.lanes.lock();
        if let Some((known, sender)) = lanes.get(&(id, lane))
            && known == member
            && !sender.is_closed()
        {
            return sender.clone();
        }
        let (sender, calls) = mpsc::channel(CALLS_MAX);
        let silence_max = match lane {
            Lane::Calls => SILENCE_MAX,
            Lane::Snapshots => INSTALL_TIMEOUT,
        };
        tokio::spawn(serve_lane(self.clone(), id, member.clone(), calls, silence_max));
        lanes.insert((id, lane), (member.clone(), sender.clone()));
        sender
    }

    /// Dials `endpoint` and says hello; `to` is whom it expects there.
    ///
    /// # Errors
    /// When it cannot be reached, or is somebody else.
    pub async fn dial(&self, endpoint: &str, to: Option<(u64, u128)>) -> io::Result<(PeerLink, PeerSaid)> {
        let refused = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
        let name = to.map_or(REGISTRY_NAME.to_owned(), |(id, _)| registry_name(id));
        let (stream, identity) = self.tls.connect(endpoint, &name).await?;
        let Some(Identity::Registry(certified)) = identity else {
            return Err(refused(format!("{endpoint} is no registry node")));
        };
        let (to_node_id, to_incarnation) = to.unwrap_or((0, 0));
        let hello = LinkPeerHello {
            magic: LINK_MAGIC,
            version: LINK_VERSION,
            reserved: [0; 7],
            cluster_id: self.myself.cluster_id.into(),
            incarnation: self.myself.incarnation.into(),
            to_incarnation: to_incarnation.into(),
            node_id: self.myself.node_id.into(),
            to_node_id: to_node_id.into(),
        };
        let (read, mut write) = tokio::io::split(stream);
        let mut out = Vec::new();
        LinkFrame::PeerHello(&hello).append_to(&mut out, Envelope::request(0));
        self.shared.stamp(&mut out);
        write.write_all(&out).await?;
        let mut reader = FrameReader::new(read);
        let frame = within(HELLO_TIMEOUT, reader.next_frame()).await?;
        let frame = frame.ok_or_else(|| refused(format!("{endpoint} hung up")))?;
        self.shared.follow(frame.stamp());
        match frame.decode() {
            Ok(LinkFrame::PeerHello(said)) if said.node_id.get() == certified => {
                let said = PeerSaid {
                    node_id: certified,
                    incarnation: said.incarnation.get(),
                    cluster_id: said.cluster_id.get(),
                };
                Ok((PeerLink { reader, write, shared: self.shared.clone() }, said))
            }
            Ok(_) => Err(refused(format!("{endpoint} is not who its certificate says"))),
            Err(error) => {
                let why = frame.refused_text().unwrap_or_else(|| error.to_string());
                Err(refused(format!("{endpoint}: {why}")))
            }
        }
    }
}

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A connection to a node that has said hello.
#[derive(Debug)]
pub struct PeerLink {
    reader: FrameReader<tokio::io::ReadHalf<Stream>>,
    write: tokio::io::WriteHalf<Stream>,
    shared: Arc<Shared>,
}

impl PeerLink {
    /// Asks one thing and waits for the answer.
    ///
    /// # Errors
    /// When the connection fails, or there is no answer within `limit`.
    pub async fn ask(&mut self, call: &Call, limit: Duration) -> io::Result<Answer> {
        send(&self.shared, &mut self.write, 1, &call.encode()).await?;
        let frame = within(limit, self.reader.next_frame()).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.shared.follow(frame.stamp());
        read_answer(&frame)
    }
}

fn read_answer(frame: &crate::link::Frame) -> io::Result<Answer> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match frame.decode() {
        Ok(LinkFrame::PeerReply(bytes)) => Answer::decode(bytes).map_err(|error| invalid(error.to_string())),
        Ok(_) | Err(_) => Err(invalid(frame.refused_text().unwrap_or_else(|| "no answer".to_owned()))),
    }
}

async fn send(
    shared: &Shared,
    write: &mut tokio::io::WriteHalf<Stream>,
    request_id: u64,
    call: &[u8],
) -> io::Result<()> {
    let mut out = Vec::with_capacity(call.len() + 64);
    LinkFrame::PeerCall(call).append_to(&mut out, Envelope::request(request_id));
    shared.stamp(&mut out);
    write.write_all(&out).await
}

/// One connection: dials when there is something to ask; answers come in any order.
async fn serve_lane(
    peers: Peers,
    id: u64,
    member: Member,
    mut calls: mpsc::Receiver<(Vec<u8>, oneshot::Sender<io::Result<Answer>>)>,
    silence_max: Duration,
) {
    let (mut first, mut is_reached) = (None, true);
    loop {
        let Some(next) = (match first.take() {
            Some(call) => Some(call),
            None => calls.recv().await,
        }) else {
            return;
        };
        let dialled = within(DIAL_TIMEOUT, peers.dial(&member.endpoint, Some((id, member.incarnation))));
        match dialled.await {
            Ok((link, _)) => {
                if !std::mem::replace(&mut is_reached, true) {
                    tracing::info!(stage = "raft", node = id, endpoint = member.endpoint, "a node is reached again");
                }
                first = run_lane(link, next, &mut calls, silence_max).await;
            }
            Err(error) => {
                // Once, and not ten times a second until it is back.
                if std::mem::replace(&mut is_reached, false) {
                    tracing::warn!(stage = "raft", node = id, endpoint = member.endpoint, %error, "cannot reach a node");
                }
                let kind = error.kind();
                // Who has stopped to wait does not want to know.
                let _ = next.1.send(Err(error));
                tokio::time::sleep(REDIAL_PAUSE).await;
                while let Ok((_, done)) = calls.try_recv() {
                    let _ = done.send(Err(kind.into()));
                }
            }
        }
    }
}

type Waiting = (Vec<u8>, oneshot::Sender<io::Result<Answer>>);

/// Until the connection fails, or owes an answer for `silence_max`; the call that found it failed, if it was not sent.
async fn run_lane(
    link: PeerLink,
    first: Waiting,
    calls: &mut mpsc::Receiver<Waiting>,
    silence_max: Duration,
) -> Option<Waiting> {
    let PeerLink { mut reader, mut write, shared } = link;
    let mut waiting: HashMap<u64, oneshot::Sender<io::Result<Answer>>> = HashMap::new();
    let (mut next_id, mut next) = (0, Some(first));
    // Since when an answer is due, and nothing was heard. A call that was given up is still owed its answer.
    let mut silent_since: Option<Instant> = None;
    loop {
        if let Some((bytes, done)) = next.take() {
            next_id += 1;
            // Given up before it was sent: its answer would be for nobody.
            if done.is_closed() {
                continue;
            }
            waiting.retain(|_, done| !done.is_closed());
            waiting.insert(next_id, done);
            silent_since.get_or_insert_with(Instant::now);
            // One that does not read for so long is as good as gone.
            if within(silence_max, send(&shared, &mut write, next_id, &bytes)).await.is_err() {
                return None;
            }
        }
        let give_up = silent_since.unwrap_or_else(Instant::now) + silence_max;
        tokio::select! {
            call = calls.recv() => match call {
                Some(call) => next = Some(call),
                None => return None,
            },
            frame = reader.next_frame() => {
                let Ok(Some(frame)) = frame else { return None };
                shared.follow(frame.stamp());
                let answer = read_answer(&frame);
                let is_last = frame.header().request_id.get() == next_id;
                silent_since = if is_last { None } else { Some(Instant::now()) };
                if let Some(done) = waiting.remove(&frame.header().request_id.get()) {
                    let _ = done.send(answer);
                }
            }
            () = tokio::time::sleep_until(give_up), if silent_since.is_some() => return None,
        }
    }
}

/// What openraft sees: one node of the group.
#[derive(Debug)]
pub struct Peer {
    peers: Peers,
    id: u64,
    member: Member,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        Peer { peers: self.clone(), id: target, member: node.clone() }
    }
}

type Failed<E> = RPCError<u64, Member, E>;

impl Peer {
    async fn raft<E: std::error::Error>(
        &self,
        call: Call,
        what: RPCTypes,
        option: &RPCOption,
    ) -> Result<Answer, Failed<E>> {
        let limit = option.hard_ttl();
        self.peers.call(self.id, &self.member, &call, limit).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => RPCError::Timeout(Timeout {
                action: what,
                id: self.peers.myself.node_id,
                target: self.id,
                timeout: limit,
            }),
            // Everything else is tried again after a pause, or Raft would try again at once, for ever.
            _ => RPCError::Unreachable(Unreachable::new(&error)),
        })
    }
}

/// An answer to another question, or that it failed.
fn other(answer: Answer) -> NetworkError {
    let why = match answer {
        Answer::Failed(why) => why,
        Answer::Append(_) | Answer::Vote(_) | Answer::Snapshot(_) | Answer::Done => {
            "an answer to another question".to_owned()
        }
    };
    NetworkError::from(AnyError::error(why))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        match self.raft(Call::Append(rpc), RPCTypes::AppendEntries, &option).await? {
            Answer::Append(answer) => Ok(answer),
            answer => Err(RPCError::Unreachable(Unreachable::new(&other(answer)))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        match self.raft(Call::Vote(rpc), RPCTypes::Vote, &option).await? {
            Answer::Vote(answer) => Ok(answer),
            answer => Err(RPCError::Unreachable(Unreachable::new(&other(answer)))),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let limit = option.hard_ttl();
        let this = &*self;
        let send = async {
            let bytes = snapshot.snapshot.0;
            let ask = |call: Call, limit| async move {
                this.peers.ask(this.id, &this.member, Lane::Snapshots, &call, limit).await
            };
            let mut offset = 0;
            while offset < bytes.len() {
                let piece = bytes.slice(offset..bytes.len().min(offset + SNAPSHOT_PIECE_LEN_BYTES));
                let len_bytes = piece.len();
                match ask(Call::SnapshotPiece { offset: offset as u64, bytes: piece }, limit).await? {
                    Answer::Done => offset += len_bytes,
                    answer => return Err(io::Error::other(other(answer))),
                }
            }
            let end = Call::SnapshotEnd { vote, meta: snapshot.meta, len_bytes: bytes.len() as u64 };
            match ask(end, INSTALL_TIMEOUT).await? {
                Answer::Snapshot(vote) => Ok(SnapshotResponse::new(vote)),
                answer => Err(io::Error::other(other(answer))),
            }
        };
        tokio::select! {
            sent = send => sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error))),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(REDIAL_PAUSE))
    }
}
