//! Calls: JSON questions of operators, and the few that branches have. At a low rate; nothing here is on the way of a
//! payment.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tally_ledger::two_phase::{AbortReason, Coordinator, Decision, Participants};
use tally_protocol::link::{BranchStatus, ChainMember, LinkFrame};
use tally_protocol::message::TransferKind;
use tally_protocol::{AccountId, BranchId, Envelope, Refusal, Timestamp, TransferId};
use tokio::io::AsyncWriteExt;

use super::accept::{Link, refuse};
use super::audit;
use super::membership::{self, MembershipError};
use super::moves;
use super::node::{Node, Running};
use crate::coordinator::Shown;
use crate::core::ProposeError;
use crate::link::tls::within;
use crate::link::{Frame, Identity};
use crate::state::{Command, KEY_HASH_LEN_BYTES, Known, Outcome, Scope, TEXT_LEN_BYTES_MAX};

/// An operator may think before the next call.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest list that is answered.
const LIST_LEN_MAX: usize = 1_000;

/// What can be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// Who is there, and how: as the leader knows it, or with `any` as this node does.
    ClusterStatus {
        #[serde(default)]
        any: bool,
    },
    /// A node is to join, in the place of another where that is said.
    ClusterJoin { endpoint: String, replace: Option<u64> },
    /// A node or a branch leaves for good.
    ClusterLeave { node: Option<u64>, branch: Option<u16> },
    /// A branch takes no new transfers, or does again; a node hands leadership over if it has it.
    ClusterDrain {
        node: Option<u64>,
        branch: Option<u16>,
        #[serde(default)]
        undo: bool,
    },
    /// Another node is to lead.
    ClusterTransferLeader { to: Option<u64> },
    /// Transfers that are not over; with `in_doubt` only undecided ones.
    TxnList {
        #[serde(default)]
        in_doubt: bool,
        count_max: Option<usize>,
    },
    /// All that is known of one transfer.
    TxnShow { id: String },
    /// Ends a transfer that is not decided.
    TxnResolve { id: String, operator: String, reason: String },
    /// What operators have ended.
    TxnAudit {},
    /// A service gets a key, which is shown once.
    KeyAdd { name: String, scopes: Vec<String> },
    /// A key opens nothing any more.
    KeyRemove { name: String },
    /// Which services have keys.
    KeyList {},
    /// Whose key this is, and what it opens.
    KeyCheck { key: String },
    /// Where an account is.
    FindAccount { account: String },
    /// An instant for an audit, and the branches to be asked for their books of then.
    AuditCut {},
    /// A branch's part of an audit: passed on to it over its link.
    AuditBranch { branch: u16, question: Value },
    /// How transfers stood at an instant.
    AuditLegs { stamp: u64, ids: Vec<String>, branches: Vec<u16> },
    /// An account is to be at another branch.
    MoveAccount { account: String, to: u16 },
}

/// Why a call is not answered.
#[derive(Debug)]
pub(super) struct Failure {
    name: &'static str,
    text: String,
    leader: Option<String>,
}

pub(super) type Answered = Result<Value, Failure>;

pub(super) fn failure(name: &'static str, text: impl Into<String>) -> Failure {
    Failure { name, text: text.into(), leader: None }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        let name = match error {
            ProposeError::NotLeading => "not_leader",
            ProposeError::Busy => "busy",
            ProposeError::Unknown => "unknown",
        };
        failure(name, error.to_string())
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        let name = match error {
            MembershipError::NotLeading => "not_leader",
            MembershipError::Refused(_) => "refused",
            MembershipError::Unfinished(_) => "unfinished",
        };
        failure(name, error.to_string())
    }
}

/// Serves calls until the peer hangs up.
pub(super) async fn serve(node: &Arc<Node>, link: Link, first: Frame) -> io::Result<()> {
    let Link { mut reader, mut writer, identity } = link;
    let mut next = Some(first);
    while let Some(frame) = next {
        node.shared.follow(frame.stamp());
        let request = match frame.decode() {
            Ok(LinkFrame::Call(json)) => serde_json::from_str::<Request>(json),
            Ok(_) => {
                return refuse(node, &mut writer, &frame, Refusal::MessageTypeUnknown, "only calls on this link").await;
            }
            Err(error) => return refuse(node, &mut writer, &frame, error.refusal(), &error.to_string()).await,
        };
        let answered = match request {
            Ok(request) if may_ask(identity, &request) => answer(node, request).await,
            Ok(_) => Err(failure("not_permitted", "only an operator may ask that")),
            Err(error) => Err(failure("invalid", error.to_string())),
        };
        let answer = match answered {
            Ok(value) => json!({ "ok": value }),
            Err(mut failed) => {
                if failed.name == "not_leader" {
                    failed.leader =
                        node.leader().filter(|(id, _)| *id != node.options.node_id).map(|(_, member)| member.endpoint);
                }
                json!({ "error": { "name": failed.name, "text": failed.text, "leader": failed.leader } })
            }
        };
        let mut out = Vec::new();
        LinkFrame::CallReply(&answer.to_string()).append_to(&mut out, Envelope::reply_to(frame.header()));
        node.shared.stamp(&mut out);
        within(WRITE_TIMEOUT, writer.write_all(&out)).await?;
        next = within(SILENCE_MAX, reader.next_frame()).await?;
    }
    Ok(())
}

fn may_ask(identity: Identity, request: &Request) -> bool {
    match identity {
        Identity::Operator => true,
        Identity::Branch(_) => matches!(request, Request::FindAccount { .. } | Request::KeyCheck { .. }),
        Identity::Registry(_) => matches!(request, Request::ClusterStatus { .. }),
    }
}

async fn answer(node: &Arc<Node>, request: Request) -> Answered {
    let Some(running) = node.running() else {
        return Err(failure("not_joined", "this node belongs to no registry yet"));
    };
    match request {
        Request::ClusterStatus { any: false } if node.shared.lock().leading.is_none() => Err(not_leading()),
        Request::ClusterStatus { .. } => Ok(status(node, running)),
        Request::ClusterJoin { endpoint, replace } => {
            let id = membership::join(node, running, &endpoint, replace).await?;
            Ok(json!({ "node": id }))
        }
        Request::ClusterLeave { node: Some(id), branch: None } => {
            membership::leave(node, running, id).await?;
            Ok(json!({ "node": id }))
        }
        Request::ClusterLeave { node: None, branch: Some(id) } => {
            let (id, stamp) = (BranchId::new(id), node.shared.lock().now());
            let status = BranchStatus::Left;
            propose(node, &Command::BranchStatus { id, status, stamp }).await?;
            Ok(json!({ "branch": id.get(), "status": status.name() }))
        }
        Request::ClusterDrain { node: None, branch: Some(id), undo } => {
            let (id, stamp) = (BranchId::new(id), node.shared.lock().now());
            propose(node, &Command::Drain { id, is_drained: !undo, stamp }).await?;
            let status = node.shared.lock().state.directory.branches.get(&id).map(|entry| entry.status.name());
            Ok(json!({ "branch": id.get(), "status": status }))
        }
        Request::ClusterDrain { node: Some(id), branch: None, undo: false } => {
            let leader = node.leader().map(|(leader, _)| leader);
            if leader != Some(id) {
                return Ok(json!({ "leader": leader }));
            }
            Ok(json!({ "leader": membership::hand_over(node, running, None).await? }))
        }
        Request::ClusterLeave { .. } | Request::ClusterDrain { .. } => {
            Err(failure("invalid", "either a node or a branch; only a branch's drain is undone"))
        }
        Request::ClusterTransferLeader { to } => {
            Ok(json!({ "leader": membership::hand_over(node, running, to).await? }))
        }
        Request::TxnList { in_doubt, count_max } => list(node, in_doubt, count_max.unwrap_or(LIST_LEN_MAX)),
        Request::TxnShow { id } => show(node, transfer_id(&id)?),
        Request::TxnResolve { id, operator, reason } => resolve(node, transfer_id(&id)?, &operator, &reason).await,
        Request::TxnAudit {} => interventions(node),
        Request::KeyAdd { name, scopes } => key_add(node, &name, &scopes).await,
        Request::KeyRemove { name } => {
            let stamp = node.shared.lock().now();
            propose(node, &Command::RemoveKey { name: &name, stamp }).await?;
            Ok(json!({ "name": name }))
        }
        Request::KeyList {} => Ok(key_list(node)),
        Request::KeyCheck { key } => key_check(node, &key),
        Request::FindAccount { account } => {
            let id = account_id(&account)?;
            let branch = node.shared.lock().state.directory.branch_of(id);
            Ok(json!({ "branch": branch.get() }))
        }
        Request::AuditCut {} => audit::cut(node).await,
        Request::AuditBranch { branch, question } => audit::branch(node, BranchId::new(branch), &question).await,
        Request::AuditLegs { stamp, ids, branches } => {
            audit::legs(node, Timestamp::from_nanos(stamp), &ids, &branches).await
        }
        Request::MoveAccount { account, to } => {
            moves::move_account(node, account_id(&account)?, BranchId::new(to)).await
        }
    }
}

fn account_id(text: &str) -> Result<AccountId, Failure> {
    match u128::from_str_radix(text, 16) {
        Ok(id) if id != 0 && id != u128::MAX => Ok(AccountId::new(id)),
        Ok(_) | Err(_) => Err(failure("invalid", format!("`{text}` is no account id (32 hexadecimal digits)"))),
    }
}

pub(super) fn transfer_id(text: &str) -> Result<TransferId, Failure> {
    match u128::from_str_radix(text, 16) {
        Ok(id) if id != 0 && id != u128::MAX => Ok(TransferId::new(id)),
        Ok(_) | Err(_) => Err(failure("invalid", format!("`{text}` is no transfer id (32 hexadecimal digits)"))),
    }
}

fn status(node: &Node, running: &Running) -> Value {
    let metrics = running.raft.metrics().borrow().clone();
    let core = node.shared.lock();
    let directory = &core.state.directory;
    let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    let member = |(&id, member): (&u64, &crate::raft::types::Member)| {
        let replicated = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
        json!({
            "node": id,
            "endpoint": member.endpoint,
            "voter": voters.contains(&id),
            "leader": metrics.current_leader == Some(id),
            "replicated_index": replicated.map(|log_id| log_id.index),
        })
    };
    let branch = |(id, entry): (&BranchId, &crate::state::BranchEntry)| {
        let heard = core.leading.as_ref().and_then(|leading| leading.heard(*id));
        let connected = core.leading.as_ref().is_some_and(|leading| leading.connected().any(|branch| branch == *id));
        json!({
            "branch": id.get(),
            "endpoint": entry.endpoint,
            "status": entry.status.name(),
            "since_ns": entry.since.as_nanos(),
            "linked": connected,
            "durable": heard.map(|heard| heard.durable),
            "in_doubt": heard.map(|heard| heard.in_doubt),
        })
    };
    json!({
        "cluster_id": format!("{:032x}", running.identity.cluster_id),
        "answered_by": node.options.node_id,
        "leader": metrics.current_leader,
        "serving": core.leading.is_some(),
        "term": metrics.current_term,
        "last_log_index": metrics.last_log_index,
        "applied_index": metrics.last_applied.map(|log_id| log_id.index),
        "nodes": metrics.membership_config.membership().nodes().map(member).collect::<Vec<_>>(),
        "branches": directory.branches.iter().map(branch).collect::<Vec<_>>(),
        "routes_version": directory.routes_version,
        "accounts_moved": directory.moved.len(),
        "transfers_in_hand": core.leading.as_ref().map(|leading| leading.coordinators.len()),
        "decisions_open": core.state.decisions.open_count(),
        "decisions_remembered": core.state.decisions.done_count(),
    })
}

async fn propose(node: &Node, command: &Command<'_>) -> Result<(), Failure> {
    match node.shared.propose(command).await? {
        Outcome::Refused(why) => Err(failure("refused", why.to_string())),
        Outcome::Done | Outcome::Decided(_) => Ok(()),
    }
}

async fn key_add(node: &Node, name: &str, scopes: &[String]) -> Answered {
    if name.is_empty() || name.len() > TEXT_LEN_BYTES_MAX {
        return Err(failure("invalid", format!("a name is 1 to {TEXT_LEN_BYTES_MAX} bytes")));
    }
    let mut bits = 0;
    for text in scopes {
        let known = || Scope::names(Scope::ALL_BITS).join(", ");
        let scope = Scope::of_name(text);
        bits |= scope.ok_or_else(|| failure("invalid", format!("`{text}` is not one of {}", known())))? as u32;
    }
    if bits == 0 {
        return Err(failure("invalid", "a key needs a scope"));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| failure("unavailable", format!("no random numbers: {error}")))?;
    let key = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stamp = node.shared.lock().now();
    propose(node, &Command::AddKey { name, hash: hash_of(&key), scopes: bits, stamp }).await?;
    Ok(json!({ "name": name, "key": key, "scopes": Scope::names(bits) }))
}

fn hash_of(key: &str) -> [u8; KEY_HASH_LEN_BYTES] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn key_list(node: &Node) -> Value {
    let core = node.shared.lock();
    let keys = core.state.keys.iter().map(|(name, entry)| {
        json!({ "name": name, "scopes": Scope::names(entry.scopes), "since_ns": entry.since.as_nanos() })
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}

fn key_check(node: &Node, key: &str) -> Answered {
    let core = node.shared.lock();
    // A follower may not have heard that the key was removed.
    core.leading.as_ref().ok_or_else(not_leading)?;
    let found = core.state.keys.find(&hash_of(key));
    let (name, entry) = found.ok_or_else(|| failure("refused", "no service has this key"))?;
    Ok(json!({ "name": name, "scopes": Scope::names(entry.scopes) }))
}

pub(super) fn not_leading() -> Failure {
    ProposeError::NotLeading.into()
}

fn list(node: &Node, in_doubt: bool, count_max: usize) -> Answered {
    let mut core = node.shared.lock();
    let now = core.now();
    let leading = core.leading.as_ref().ok_or_else(not_leading)?;
    let census = leading.coordinators.census();
    let shown = leading.coordinators.list(in_doubt, count_max.min(LIST_LEN_MAX));
    Ok(json!({
        "collecting": census.collecting,
        "deciding": census.deciding,
        "decided": census.decided,
        "transfers": shown.iter().map(|shown| transfer(shown, now)).collect::<Vec<_>>(),
    }))
}

fn show(node: &Node, id: TransferId) -> Answered {
    let mut core = node.shared.lock();
    let now = core.now();
    let leading = core.leading.as_ref().ok_or_else(not_leading)?;
    if let Some(shown) = leading.coordinators.show(id) {
        return Ok(transfer(&shown, now));
    }
    match core.state.decisions.get(id) {
        Some(Known { decision, unacknowledged, stamp, .. }) => Ok(json!({
            "id": id.to_string(),
            "state": if unacknowledged.is_empty() { "done" } else { "decided" },
            "decision": decision_json(decision),
            "decided_at_ns": stamp.as_nanos(),
            "unacknowledged": branches(unacknowledged),
        })),
        None => Err(failure(
            "not_found",
            "nothing is known of it: it never began here, or was over long ago; its branches know how it ended",
        )),
    }
}

async fn resolve(node: &Node, id: TransferId, operator: &str, reason: &str) -> Answered {
    if operator.is_empty()
        || reason.is_empty()
        || operator.len() > TEXT_LEN_BYTES_MAX
        || reason.len() > TEXT_LEN_BYTES_MAX
    {
        return Err(failure("invalid", format!("operator and reason are 1 to {TEXT_LEN_BYTES_MAX} bytes")));
    }
    let (id, participants, stamp) = {
        let mut core = node.shared.lock();
        let stamp = core.now();
        let crate::core::Core { leading, state, .. } = &mut *core;
        let leading = leading.as_mut().ok_or_else(not_leading)?;
        // No member of a chain is ended alone.
        let id = leading.coordinators.chain_of(id).unwrap_or(id);
        let resolved = leading.coordinators.resolve(id, state, stamp);
        // Also what is decided, or about to be, goes into the log, for the auditors: the first decision stands.
        (id, resolved.ok().flatten().unwrap_or_default(), stamp)
    };
    let command = Command::Resolve { id, participants, stamp, operator, reason };
    match node.shared.propose(&command).await? {
        Outcome::Decided(known) => {
            tracing::warn!(stage = "coordinator", transfer = %id, operator, reason, decision = ?known.decision, "an operator resolved a transfer");
            Ok(json!({ "id": id.to_string(), "decision": decision_json(known.decision) }))
        }
        Outcome::Refused(why) => Err(failure("refused", why.to_string())),
        Outcome::Done => Err(failure("unknown", "the log did not say how it ended")),
    }
}

fn interventions(node: &Node) -> Answered {
    let core = node.shared.lock();
    if core.leading.is_none() {
        return Err(not_leading());
    }
    let entries = core.state.directory.audit.iter().rev().take(LIST_LEN_MAX).map(|entry| {
        json!({
            "at_ns": entry.stamp.as_nanos(),
            "id": entry.transfer_id.to_string(),
            "operator": entry.operator,
            "reason": entry.reason,
            "done": entry.is_done,
        })
    });
    Ok(json!({ "entries": entries.collect::<Vec<_>>() }))
}

/// What goes between branches.
const fn kind_name(raw: u8) -> &'static str {
    match TransferKind::from_wire(raw) {
        Some(TransferKind::Transfer) => "transfer",
        Some(TransferKind::Hold) => "hold",
        Some(
            TransferKind::Deposit
            | TransferKind::Withdraw
            | TransferKind::Settle
            | TransferKind::Void
            | TransferKind::Reverse,
        )
        | None => "unknown",
    }
}

fn branches(participants: Participants) -> Vec<u16> {
    participants.iter().map(BranchId::get).collect()
}

pub(super) fn decision_json(decision: Decision) -> Value {
    match decision {
        Decision::Commit => json!({ "outcome": "commit" }),
        Decision::Abort(AbortReason::Refused(branch, why)) => {
            let (branch, refusal) = (branch.get(), why.refusal.name());
            match why.member {
                0 => json!({ "outcome": "abort", "reason": "refused", "branch": branch, "refusal": refusal }),
                member => json!({
                    "outcome": "abort",
                    "reason": "refused",
                    "branch": branch,
                    "refusal": refusal,
                    "member": member,
                }),
            }
        }
        Decision::Abort(AbortReason::TimedOut(branch)) => {
            json!({ "outcome": "abort", "reason": "timed_out", "branch": branch.get() })
        }
        Decision::Abort(AbortReason::Presumed) => json!({ "outcome": "abort", "reason": "presumed" }),
        Decision::Abort(AbortReason::Resolved) => json!({ "outcome": "abort", "reason": "resolved" }),
    }
}

/// One member of a chain.
fn member_json(member: &ChainMember) -> Value {
    let transfer = &member.transfer;
    json!({
        "id": TransferId::new(transfer.id.get()).to_string(),
        "destination": member.destination.get(),
        "amount": transfer.amount.get(),
        "kind": kind_name(transfer.kind),
        "currency": transfer.currency.get(),
    })
}

/// A transfer, or a chain, with the state of every participant.
fn transfer(shown: &Shown, now: Timestamp) -> Value {
    let age_ns = now.as_nanos().saturating_sub(shown.begun_at.as_nanos());
    let sides = shown.transfer.map(|transfer| (transfer.source.get(), transfer.destination.get()));
    let voted_at = |branch: BranchId| {
        if let Some(in_hand) = &shown.chain {
            return in_hand.voted_at.get(&branch).map(|stamp| stamp.as_nanos());
        }
        let (source, destination) = sides?;
        let side = [source, destination].iter().position(|&side| side == branch.get())?;
        shown.voted_at[side].map(|stamp| stamp.as_nanos())
    };
    let participant = |branch: BranchId, state: &str| json!({ "branch": branch.get(), "state": state, "voted_at_ns": voted_at(branch) });
    let (state, decision, participants) = match shown.machine {
        Coordinator::Unknown => ("unknown", None, Vec::new()),
        Coordinator::Collecting { participants, missing, .. } => {
            let state = |branch| if missing.contains(branch) { "vote missing" } else { "voted yes" };
            let all = participants.iter().map(|branch| participant(branch, state(branch))).collect();
            ("collecting", None, all)
        }
        Coordinator::Deciding { proposed, participants } => {
            ("deciding", Some(proposed), participants.iter().map(|branch| participant(branch, "to be told")).collect())
        }
        Coordinator::Decided { decision, unacknowledged } => {
            let all = unacknowledged.iter().map(|branch| participant(branch, "not acknowledged")).collect();
            ("decided", Some(decision), all)
        }
        Coordinator::Done(decision) => ("done", Some(decision), Vec::new()),
    };
    let members = shown.chain.as_ref().map(|in_hand| in_hand.chain.members.iter().map(member_json).collect::<Vec<_>>());
    json!({
        "id": shown.id.to_string(),
        "members": members,
        "state": state,
        "decision": decision.map(decision_json),
        "age_ns": age_ns,
        "decided_at_ns": shown.decided_at.map(|stamp| stamp.as_nanos()),
        "source": sides.map(|(source, _)| source),
        "destination": sides.map(|(_, destination)| destination),
        "amount": shown.transfer.map(|transfer| transfer.transfer.amount.get()),
        "kind": shown.transfer.map(|cross| kind_name(cross.transfer.kind)),
        "currency": shown.transfer.map(|transfer| transfer.transfer.currency.get()),
        "participants": participants,
        "repeats": shown.attempts,
    })
}
