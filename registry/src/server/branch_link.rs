//! A branch's link: what it says goes to the coordinators, what they have for it goes out, heartbeats both ways.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_protocol::link::{
    BranchStatus, LinkError, LinkFrame, LinkHeartbeat, LinkHello, LinkType, LinkWelcome, MovedItem, Route, Routes,
    append_items,
};
use tally_protocol::{BranchId, Envelope, Refusal, Timestamp};
use tokio::io::AsyncWriteExt;
use tokio::time::MissedTickBehavior;

use super::accept::{Link, Reader, Writer, last_words, refuse};
use super::node::Node;
use crate::clock::wall;
use crate::core::{Core, Heard, LinkSlot};
use crate::link::tls::within;
use crate::link::{Frame, Identity};
use crate::state::{Command, Outcome};

/// How often each side says that it is there.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// A branch that says nothing for so long has a new link by now, or none.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the branch may take to read what we send.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Where nobody leads an election is over soon.
const RETRY_AFTER_MS: u32 = 100;

/// Serves the link until it ends.
pub(super) async fn serve(node: &Arc<Node>, link: Link, first: &Frame, hello: &LinkHello<'_>) -> io::Result<()> {
    let Link { reader, mut writer, identity } = link;
    let branch = hello.branch_id;
    if identity != Identity::Branch(branch) {
        let why = format!("the certificate is not that of branch {branch}");
        return refuse(node, &mut writer, first, Refusal::NotPermitted, &why).await;
    }
    match join(node, hello).await {
        Ok(Some((term, slot))) => {
            tracing::info!(
                stage = "branch_link",
                branch = branch.get(),
                endpoint = hello.endpoint,
                "a branch is linked"
            );
            let sent = send(node, writer, branch, term, &slot);
            let ended = tokio::select! {
                ended = receive(node, reader, branch, &slot) => ended,
                ended = sent => ended,
            };
            if let Some(leading) = &mut node.shared.lock().leading {
                leading.disconnect(branch, slot.number);
            }
            tracing::info!(
                stage = "branch_link",
                branch = branch.get(),
                error = ended
                    .as_ref()
                    .err()
                    .filter(|error| error.kind() != io::ErrorKind::UnexpectedEof)
                    .map(ToString::to_string),
                "a branch's link has ended"
            );
            ended
        }
        Ok(None) => redirect(node, &mut writer).await,
        Err((refusal, why)) => refuse(node, &mut writer, first, refusal, &why).await,
    }
}

/// Takes the branch in; `None` where this node does not lead.
async fn join(node: &Node, hello: &LinkHello<'_>) -> Result<Option<(u64, LinkSlot)>, (Refusal, String)> {
    let refused = |why: &str| Err((Refusal::NotPermitted, why.to_owned()));
    let (is_known, stamp) = {
        let mut core = node.shared.lock();
        if core.leading.is_none() {
            return Ok(None);
        }
        let cluster_id = core.state.directory.cluster_id;
        if hello.cluster_id != 0 && hello.cluster_id != cluster_id {
            return refused(&format!("this is registry {cluster_id:032x}; the branch belongs to another"));
        }
        core.heard(hello.stamp).map_err(|error| (Refusal::NotPermitted, error.to_string()))?;
        let entry = core.state.directory.branches.get(&hello.branch_id);
        let is_known = entry.is_some_and(|entry| {
            let is_same = entry.incarnation == hello.incarnation && entry.endpoint == hello.endpoint;
            is_same && entry.status != BranchStatus::Left
        });
        (is_known, core.now())
    };
    if !is_known {
        let LinkHello { branch_id: id, incarnation, endpoint, .. } = *hello;
        match node.shared.propose(&Command::Branch { id, incarnation, endpoint, stamp }).await {
            Ok(Outcome::Refused(why)) => return refused(&why.to_string()),
            Ok(Outcome::Done | Outcome::Decided(_)) => {}
            // Another leader will be asked.
            Err(_) => return Ok(None),
        }
    }
    let mut core = node.shared.lock();
    let Some(leading) = &mut core.leading else { return Ok(None) };
    let heard = Heard { at: wall(), status: BranchStatus::Serving, durable: 0, in_doubt: 0 };
    leading.hear(hello.branch_id, heard);
    let slot = leading.connect(hello.branch_id);
    leading.has_routes(hello.branch_id, hello.routes_version);
    Ok(Some((leading.term, slot)))
}

/// Says who leads, and closes.
async fn redirect(node: &Node, writer: &mut Writer) -> io::Result<()> {
    let mut out = Vec::new();
    append_redirect(node, &mut out);
    node.shared.stamp(&mut out);
    last_words(writer, &out).await
}

fn append_redirect(node: &Node, out: &mut Vec<u8>) {
    let leader = node.leader().filter(|(id, _)| *id != node.options.node_id);
    let endpoint = leader.as_ref().map_or("", |(_, member)| member.endpoint.as_str());
    let retry_after_ms = if endpoint.is_empty() { RETRY_AFTER_MS } else { 0 };
    LinkFrame::Redirect { endpoint, retry_after_ms }.append_to(out, Envelope::request(0));
}

/// Sends the welcome, then whatever there is.
async fn send(node: &Node, mut writer: Writer, branch: BranchId, term: u64, slot: &LinkSlot) -> io::Result<()> {
    let mut out = Vec::new();
    {
        let mut core = node.shared.lock();
        let welcome = LinkWelcome {
            cluster_id: core.state.directory.cluster_id.into(),
            node_id: core.node_id.into(),
            term: term.into(),
            stamp: core.now().as_nanos().into(),
            reserved: [0; 8],
        };
        LinkFrame::Welcome(&welcome).append_to(&mut out, Envelope::request(0));
    }
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_beat = tokio::select! {
            () = slot.bell.notified() => false,
            _ = heartbeat.tick() => true,
        };
        let is_current = {
            let mut core = node.shared.lock();
            gather(&mut core, &mut out, branch, term, slot.number, is_beat)
        };
        if !is_current {
            append_redirect(node, &mut out);
            node.shared.stamp(&mut out);
            return last_words(&mut writer, &out).await;
        }
        if !out.is_empty() {
            node.shared.stamp(&mut out);
            within(WRITE_TIMEOUT, async {
                writer.write_all(&out).await?;
                writer.flush().await
            })
            .await?;
            node.counters.written_bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
            out.clear();
        }
    }
}

/// Everything there is to send; whether this is still the link of the branch, and the leader the same.
fn gather(core: &mut Core, out: &mut Vec<u8>, branch: BranchId, term: u64, number: u64, is_beat: bool) -> bool {
    let stamp = core.now();
    let Core { leading, state, .. } = core;
    let Some(leading) = leading.as_mut().filter(|leading| leading.term == term) else { return false };
    if !leading.is_current(branch, number) {
        return false;
    }
    leading.take_calls(branch, out);
    let routes_version = state.directory.routes_version;
    // In front of the decisions: who hears that an account has come knows of its move.
    if let Some(has) = leading.lacks_routes(branch, routes_version) {
        let moved = state.directory.moved_since(has).map(|(account_id, moved)| MovedItem {
            account_id: account_id.get().into(),
            version: moved.version.into(),
            branch_id: moved.branch_id.get().into(),
            reserved: [0; 6],
        });
        append_items(out, LinkType::LinkMoved, moved);
        let routes = state.directory.branches.iter().map(|(&branch_id, entry)| Route {
            branch_id,
            status: entry.status,
            endpoint: &entry.endpoint,
        });
        Routes::append(out, routes_version, routes);
        leading.has_routes(branch, routes_version);
    }
    leading.coordinators.take_frames(branch, out);
    if is_beat {
        let heartbeat = LinkHeartbeat {
            stamp: stamp.as_nanos().into(),
            routes_version: routes_version.into(),
            durable: 0.into(),
            in_doubt: u32::try_from(leading.coordinators.len()).unwrap_or(u32::MAX).into(),
            status: BranchStatus::Serving as u8,
            reserved: [0; 3],
        };
        LinkFrame::Heartbeat(&heartbeat).append_to(out, Envelope::request(0));
    }
    true
}

/// Why a frame ends the link.
enum Broken {
    Link(LinkError),
    Clock(crate::clock::ClockAhead),
    Unexpected,
}

async fn receive(node: &Node, mut reader: Reader, branch: BranchId, slot: &LinkSlot) -> io::Result<()> {
    loop {
        let Some(frame) = within(SILENCE_MAX, reader.next_frame()).await? else { return Ok(()) };
        let mut next = Some(frame);
        let mut frames = 0;
        {
            let mut core = node.shared.lock();
            while let Some(frame) = next {
                frames += 1;
                if let Err(broken) = take(node, &mut core, branch, slot.number, &frame) {
                    return Err(explain(broken));
                }
                next = reader.ready_frame()?;
            }
            let routes_version = core.state.directory.routes_version;
            if let Some(leading) = &mut core.leading {
                for (id, contradiction) in leading.coordinators.take_contradictions() {
                    tracing::error!(stage = "coordinator", transfer = %id, branch = branch.get(), %contradiction, "a branch contradicts a decision");
                }
                leading.wake_links(routes_version);
            }
        }
        node.counters.frames.fetch_add(frames, Ordering::Relaxed);
        node.shared.proposer.notify_one();
    }
}

fn explain(broken: Broken) -> io::Error {
    let why = match broken {
        Broken::Link(error) => error.to_string(),
        Broken::Clock(error) => error.to_string(),
        Broken::Unexpected => "a frame that branches do not send".to_owned(),
    };
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// One frame of a branch.
fn take(node: &Node, core: &mut Core, branch: BranchId, number: u64, frame: &Frame) -> Result<(), Broken> {
    let (request_id, stamp) = (frame.header().request_id.get(), frame.stamp());
    let frame = frame.decode().map_err(Broken::Link)?;
    let heard = latest(&frame).max(stamp);
    core.heard(heard).map_err(Broken::Clock)?;
    let now = core.now();
    let Core { leading, state, .. } = core;
    // Another link, or another leader, hears the rest.
    let Some(leading) = leading.as_mut().filter(|leading| leading.is_current(branch, number)) else { return Ok(()) };
    let all = &mut leading.coordinators;
    let count = match frame {
        LinkFrame::Begin(items) => {
            all.begin(branch, items, state, now);
            items.len()
        }
        LinkFrame::BeginChain(chain) => {
            all.begin_chain(branch, &chain.to_owned(), state, now);
            chain.members.len()
        }
        LinkFrame::Vote(items) => {
            all.vote(branch, items, state, now);
            items.len()
        }
        LinkFrame::Acknowledge(items) => {
            all.acknowledge(branch, items, state, now);
            items.len()
        }
        LinkFrame::Ask(items) => {
            all.ask(branch, items, state, now);
            items.len()
        }
        LinkFrame::End(items) => {
            all.end(branch, items);
            items.len()
        }
        LinkFrame::Heard(items) => {
            all.heard(branch, items);
            items.len()
        }
        LinkFrame::MoveBegin(moving) => {
            all.begin_move(branch, moving, state, now);
            1
        }
        LinkFrame::MoveRefused(items) => {
            all.refuse_moves(items);
            items.len()
        }
        LinkFrame::IdAsk(items) => {
            all.ask_ids(branch, items);
            items.len()
        }
        LinkFrame::IdTold(items) => {
            all.tell_ids(branch, items);
            items.len()
        }
        LinkFrame::Heartbeat(beat) => {
            let status = BranchStatus::from_wire(beat.status).expect("checked when it was decoded");
            let (durable, in_doubt) = (beat.durable.get(), beat.in_doubt.get());
            leading.hear(branch, Heard { at: wall(), status, durable, in_doubt });
            0
        }
        LinkFrame::CallReply(answer) => {
            leading.answered(branch, request_id, answer);
            0
        }
        LinkFrame::Hello(_)
        | LinkFrame::Welcome(_)
        | LinkFrame::Redirect { .. }
        | LinkFrame::Routes(_)
        | LinkFrame::Prepare(_)
        | LinkFrame::PrepareChain(_)
        | LinkFrame::Decision(_)
        | LinkFrame::Busy(_)
        | LinkFrame::Call(_)
        | LinkFrame::PeerHello(_)
        | LinkFrame::PeerCall(_)
        | LinkFrame::PeerReply(_)
        | LinkFrame::MoveOrder(_)
        | LinkFrame::MovePrepare(_)
        | LinkFrame::Moved(_) => return Err(Broken::Unexpected),
    };
    node.counters.items.fetch_add(count as u64, Ordering::Relaxed);
    Ok(())
}

/// The latest stamp in a frame.
fn latest(frame: &LinkFrame<'_>) -> Timestamp {
    let latest = match frame {
        LinkFrame::Begin(items) => items.iter().map(|item| item.stamp.get()).max(),
        LinkFrame::BeginChain(chain) => Some(chain.prefix.stamp.get()),
        LinkFrame::Vote(items) => items.iter().map(|item| item.stamp.get()).max(),
        LinkFrame::Acknowledge(items) | LinkFrame::Ask(items) => items.iter().map(|item| item.stamp.get()).max(),
        LinkFrame::End(items) | LinkFrame::Heard(items) => items.iter().map(|item| item.stamp.get()).max(),
        LinkFrame::MoveBegin(moving) => Some(moving.account.stamp.get()),
        LinkFrame::Heartbeat(beat) => Some(beat.stamp.get()),
        _ => None,
    };
    Timestamp::from_nanos(latest.unwrap_or(0))
}
