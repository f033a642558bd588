//! Another node of the registry asks: Raft's calls, pieces of snapshots, and whether we want to join.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::Snapshot;
use tally_protocol::link::{LINK_MAGIC, LINK_VERSION, LinkFrame, LinkPeerHello};
use tally_protocol::{Envelope, Refusal};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::accept::{Link, Writer, refuse};
use super::node::Node;
use crate::link::tls::within;
use crate::link::{Frame, Identity};
use crate::log::Identity as LogIdentity;
use crate::raft::rpc::{Answer, Call};
use crate::raft::types::SnapshotBytes;

/// Answers that wait to be written; Raft asks one or two things at a time.
const ANSWERS_MAX: usize = 64;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A snapshot that is longer is none of ours: 4 GiB of decisions are not kept.
const SNAPSHOT_LEN_BYTES_MAX: u64 = 4 << 30;

/// Serves the link until it ends.
pub(super) async fn serve(node: &Arc<Node>, link: Link, first: &Frame, hello: &LinkPeerHello) -> io::Result<()> {
    let Link { mut reader, mut writer, identity } = link;
    if let Err(why) = check(node, identity, hello) {
        return refuse(node, &mut writer, first, Refusal::NotPermitted, &why).await;
    }
    let cluster_id = node.running().map_or(0, |running| running.identity.cluster_id);
    let said = LinkPeerHello {
        magic: LINK_MAGIC,
        version: LINK_VERSION,
        reserved: [0; 7],
        cluster_id: cluster_id.into(),
        incarnation: node.own_incarnation().into(),
        to_incarnation: hello.incarnation,
        node_id: node.options.node_id.into(),
        to_node_id: hello.node_id,
    };
    let mut out = Vec::new();
    LinkFrame::PeerHello(&said).append_to(&mut out, Envelope::request(0));
    node.shared.follow(first.stamp());
    node.shared.stamp(&mut out);
    writer.write_all(&out).await?;
    let (answers, to_write) = mpsc::channel(ANSWERS_MAX);
    let mut snapshot = BytesMut::new();
    let received = async {
        while let Some(frame) = reader.next_frame().await? {
            let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
            node.shared.follow(frame.stamp());
            let call = match frame.decode() {
                Ok(LinkFrame::PeerCall(bytes)) => Call::decode(bytes).map_err(|error| invalid(error.to_string()))?,
                Ok(_) => return Err(invalid("not a call".to_owned())),
                Err(error) => return Err(invalid(error.to_string())),
            };
            let (node, answers) = (node.clone(), answers.clone());
            let request_id = frame.header().request_id.get();
            let pieces = match &call {
                Call::SnapshotPiece { offset, bytes } => {
                    let answer = take_piece(&mut snapshot, *offset, bytes);
                    send(&answers, request_id, &answer).await;
                    continue;
                }
                Call::SnapshotEnd { .. } => std::mem::take(&mut snapshot).freeze(),
                Call::Append(_) | Call::Vote(_) | Call::Elect | Call::Adopt { .. } => Bytes::new(),
            };
            // A slow append must not hold a vote up.
            tokio::spawn(async move {
                let answer = answer(&node, call, pieces).await;
                send(&answers, request_id, &answer).await;
            });
        }
        Ok(())
    };
    tokio::select! {
        ended = received => ended,
        ended = write(node, writer, to_write) => ended,
    }
}

async fn send(answers: &mpsc::Sender<Vec<u8>>, request_id: u64, answer: &Answer) {
    let mut out = Vec::new();
    LinkFrame::PeerReply(&answer.encode()).append_to(&mut out, Envelope::request(request_id));
    // The link has ended: nobody waits for it.
    let _ = answers.send(out).await;
}

async fn write(node: &Node, mut writer: Writer, mut answers: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(mut out) = answers.recv().await {
        while let Ok(mut more) = answers.try_recv() {
            out.append(&mut more);
        }
        node.shared.stamp(&mut out);
        within(WRITE_TIMEOUT, writer.write_all(&out)).await?;
    }
    Ok(())
}

/// Whether the one who dials is who it says, and means us.
fn check(node: &Node, identity: Identity, hello: &LinkPeerHello) -> Result<(), String> {
    if identity != Identity::Registry(hello.node_id.get()) {
        return Err(format!("the certificate is not that of registry node {}", hello.node_id.get()));
    }
    let (to, own) = (hello.to_node_id.get(), node.options.node_id);
    if to != 0 && to != own {
        return Err(format!("this is registry node {own}, not {to}"));
    }
    let (to_incarnation, incarnation) = (hello.to_incarnation.get(), node.own_incarnation());
    if to_incarnation != 0 && to_incarnation != incarnation {
        return Err(format!("node {own} has another data folder than it had: join it under a new number"));
    }
    let Some(running) = node.running() else { return Ok(()) };
    let cluster_id = running.identity.cluster_id;
    if hello.cluster_id.get() != cluster_id {
        return Err(format!("this node belongs to registry {cluster_id:032x}"));
    }
    let core = node.shared.lock();
    let known = core.state.directory.nodes.get(&hello.node_id.get());
    if known.is_some_and(|known| known.incarnation != hello.incarnation.get()) {
        return Err(format!("node {} has another data folder than it had", hello.node_id.get()));
    }
    Ok(())
}

fn take_piece(snapshot: &mut BytesMut, offset: u64, bytes: &Bytes) -> Answer {
    if offset == 0 {
        snapshot.clear();
    }
    if offset != snapshot.len() as u64 || offset + bytes.len() as u64 > SNAPSHOT_LEN_BYTES_MAX {
        return Answer::Failed(format!("a piece at {offset}, with {} bytes before it", snapshot.len()));
    }
    snapshot.extend_from_slice(bytes);
    Answer::Done
}

async fn answer(node: &Arc<Node>, call: Call, pieces: Bytes) -> Answer {
    let running = match (&call, node.running()) {
        (Call::Adopt { cluster_id }, None) => return adopt(node, *cluster_id).await,
        (Call::Adopt { .. }, Some(_)) => return Answer::Failed("this node belongs to a registry".to_owned()),
        (_, None) => return Answer::Failed("this node belongs to no registry".to_owned()),
        (_, Some(running)) => running,
    };
    let failed = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
    match call {
        Call::Append(rpc) => match running.raft.append_entries(rpc).await {
            Ok(answer) => Answer::Append(answer),
            Err(error) => failed(&error),
        },
        Call::Vote(rpc) => match running.raft.vote(rpc).await {
            Ok(answer) => Answer::Vote(answer),
            Err(error) => failed(&error),
        },
        Call::SnapshotEnd { vote, meta, len_bytes } => {
            if pieces.len() as u64 != len_bytes {
                return Answer::Failed(format!("{} of {len_bytes} bytes have come", pieces.len()));
            }
            let snapshot = Snapshot { meta, snapshot: Box::new(SnapshotBytes(pieces)) };
            match running.raft.install_full_snapshot(vote, snapshot).await {
                Ok(answer) => Answer::Snapshot(answer.vote),
                Err(error) => failed(&error),
            }
        }
        Call::Elect => match running.raft.trigger().elect().await {
            Ok(()) => Answer::Done,
            Err(error) => failed(&error),
        },
        Call::SnapshotPiece { .. } | Call::Adopt { .. } => Answer::Failed("out of order".to_owned()),
    }
}

/// An empty node becomes one of the registry that asks.
async fn adopt(node: &Arc<Node>, cluster_id: u128) -> Answer {
    if cluster_id == 0 || node.options.found || !node.begin_to_join() {
        return Answer::Failed("this node does not join a registry".to_owned());
    }
    let identity = LogIdentity { cluster_id, node_id: node.options.node_id, incarnation: node.incarnation };
    let options = node.options.log.clone();
    let made = tokio::task::spawn_blocking(move || super::start::create_log(&options, identity)).await;
    let started = match made {
        Ok(Ok((store, handle))) => node.start_raft(store, handle, identity).await,
        Ok(Err(error)) => Err(error),
        Err(error) => Err(error.into()),
    };
    match started {
        Ok(()) => {
            super::start::spawn_tasks(node);
            tracing::info!(stage = "raft", cluster_id = format!("{cluster_id:032x}"), "joined a registry");
            Answer::Done
        }
        Err(error) => {
            node.give_up_joining();
            Answer::Failed(error.to_string())
        }
    }
}
