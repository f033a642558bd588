//! Nodes come and go, and leadership is handed over, while the registry serves.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;

use super::node::{ELECTION_MS_MAX, Node, Running};
use crate::raft::rpc::{Answer, Call};
use crate::raft::types::Member;
use crate::state::{Command, Outcome};

/// How long a new node may take to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a change of the membership may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each step of handing over may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Why a node did not join, leave or take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum MembershipError {
    /// This node does not lead.
    #[error("this node does not lead the registry")]
    NotLeading,
    /// The request makes no sense as the registry is.
    #[error("{0}")]
    Refused(String),
    /// It was begun and not finished.
    #[error("{0}; `tally cluster status` shows how far it came, and it can be asked for again")]
    Unfinished(String),
}

fn refused(why: impl Into<String>) -> MembershipError {
    MembershipError::Refused(why.into())
}

fn unfinished(why: impl std::fmt::Display) -> MembershipError {
    MembershipError::Unfinished(why.to_string())
}

/// Takes the node at `endpoint` in, in place of node `replace` where that is said. Returns its number.
pub(super) async fn join(
    node: &Node,
    running: &Running,
    endpoint: &str,
    replace: Option<u64>,
) -> Result<u64, MembershipError> {
    require_leading(node)?;
    let (mut link, said) = running
        .peers
        .dial(endpoint, None)
        .await
        .map_err(|error| refused(format!("{endpoint} cannot be reached as a registry node: {error}")))?;
    let cluster_id = running.identity.cluster_id;
    if said.cluster_id != 0 && said.cluster_id != cluster_id {
        return Err(refused(format!("the node at {endpoint} belongs to registry {:032x}", said.cluster_id)));
    }
    let voters = voters(running);
    {
        let core = node.shared.lock();
        let known = core.state.directory.nodes.get(&said.node_id);
        if known.is_some_and(|known| known.incarnation != said.incarnation || known.has_left) {
            return Err(refused(format!(
                "number {} was used before by a node with another data folder: give the node a new one",
                said.node_id
            )));
        }
        if replace.is_some_and(|id| !voters.contains(&id)) {
            return Err(refused(format!("node {} is not a member", replace.unwrap_or_default())));
        }
    }
    if said.cluster_id == 0 {
        match link.ask(&Call::Adopt { cluster_id }, CHANGE_TIMEOUT).await {
            Ok(Answer::Done) => {}
            Ok(Answer::Failed(why)) => return Err(refused(format!("the node at {endpoint}: {why}"))),
            Ok(_) => return Err(refused(format!("the node at {endpoint} did not understand"))),
            Err(error) => return Err(unfinished(format!("the node at {endpoint}: {error}"))),
        }
    }
    let (id, incarnation) = (said.node_id, said.incarnation);
    let stamp = node.shared.lock().now();
    propose(node, &Command::AddNode { id, incarnation, endpoint, stamp }).await?;
    let member = Member { endpoint: endpoint.to_owned(), incarnation };
    tracing::info!(stage = "membership", node = id, endpoint, "a node joins");
    let added = tokio::time::timeout(CATCH_UP_TIMEOUT, running.raft.add_learner(id, member, true));
    added.await.map_err(|_| unfinished("the node did not catch up in time"))?.map_err(unfinished)?;
    let mut all = voters;
    all.insert(id);
    if let Some(lost) = replace {
        all.remove(&lost);
    }
    change(running, all).await?;
    if let Some(lost) = replace {
        let stamp = node.shared.lock().now();
        propose(node, &Command::RemoveNode { id: lost, stamp }).await?;
    }
    Ok(id)
}

/// Takes node `id` out. The leader hands over first, and says so by not leading any more.
pub(super) async fn leave(node: &Node, running: &Running, id: u64) -> Result<(), MembershipError> {
    require_leading(node)?;
    let mut all = voters(running);
    if !all.remove(&id) {
        return Err(refused(format!("node {id} is not a member")));
    }
    if all.is_empty() {
        return Err(refused("the last node cannot leave"));
    }
    if id == node.options.node_id {
        hand_over(node, running, None).await?;
        return Err(MembershipError::NotLeading);
    }
    change(running, all).await?;
    let stamp = node.shared.lock().now();
    propose(node, &Command::RemoveNode { id, stamp }).await
}

/// Hands leadership to node `to`, or to the one that has most of the log. Returns who leads now.
pub(super) async fn hand_over(node: &Node, running: &Running, to: Option<u64>) -> Result<u64, MembershipError> {
    require_leading(node)?;
    let me = node.options.node_id;
    let voters = voters(running);
    if to == Some(me) {
        return Ok(me);
    }
    if to.is_some_and(|id| !voters.contains(&id)) {
        return Err(refused(format!("node {} is not a member", to.unwrap_or_default())));
    }
    let heir = to.or_else(|| {
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow();
        let replication = metrics.replication.as_ref()?;
        let others = voters.iter().filter(|&&id| id != me);
        others.max_by_key(|id| replication.get(id).copied().flatten()).copied()
    });
    let heir = heir.ok_or_else(|| refused("there is no other node"))?;
    set_handing_over(node, true);
    let handed = hand_over_to(node, running, heir).await;
    set_handing_over(node, false);
    node.shared.proposer.notify_one();
    handed.map(|()| heir)
}

/// openraft 0.9 has no call for it. A follower that stands for election needs a majority while voters are true to their
/// leader for `ELECTION_MS_MAX` after they heard it; the leader itself is so only since its own election. So it waits
/// that long, and then it and the heir are two of three.
async fn hand_over_to(node: &Node, running: &Running, heir: u64) -> Result<(), MembershipError> {
    let led_for = node.shared.lock().leading.as_ref().map(|leading| leading.since.elapsed());
    let led_for = led_for.ok_or(MembershipError::NotLeading)?;
    tokio::time::sleep(Duration::from_millis(ELECTION_MS_MAX + 100).saturating_sub(led_for)).await;
    wait(|| node.shared.lock().proposals.outstanding() == 0).await.ok_or_else(|| unfinished("the log stands still"))?;
    // A heir that lacks an entry is not elected, but makes everybody elect anew.
    let has_all = || {
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow();
        let replicated = metrics.replication.as_ref().and_then(|replication| replication.get(&heir).copied().flatten());
        replicated.map(|log_id| log_id.index) == metrics.last_log_index
    };
    wait(has_all).await.ok_or_else(|| refused(format!("node {heir} does not keep up; nothing was changed")))?;
    let member = member(running, heir).ok_or_else(|| refused(format!("node {heir} is not a member")))?;
    match running.peers.call(heir, &member, &Call::Elect, HAND_OVER_TIMEOUT).await {
        Ok(Answer::Done) => {}
        Ok(answer) => return Err(refused(format!("node {heir}: {answer:?}"))),
        Err(error) => return Err(refused(format!("node {heir}: {error}"))),
    }
    let leads = || running.raft.server_metrics().borrow().current_leader == Some(heir);
    wait(leads).await.ok_or_else(|| refused(format!("node {heir} was not elected; this node goes on")))?;
    tracing::info!(stage = "membership", node = heir, "leadership was handed over");
    Ok(())
}

fn set_handing_over(node: &Node, is_handing_over: bool) {
    if let Some(leading) = &mut node.shared.lock().leading {
        leading.is_handing_over = is_handing_over;
    }
}

/// A leader that died in the middle of a change has left two sets of voters; both must agree until one is dropped.
pub(super) async fn finish_change(running: &Running) {
    let metrics = running.raft.server_metrics().borrow().clone();
    let configs = metrics.membership_config.membership().get_joint_config().clone();
    if let [_, .., last] = &configs[..] {
        let changed = change(running, last.clone()).await;
        tracing::warn!(stage = "membership", voters = ?last, error = changed.err().map(|error| error.to_string()), "finishing a change of members");
    }
}

async fn change(running: &Running, voters: BTreeSet<u64>) -> Result<(), MembershipError> {
    let changed = running.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), false);
    match tokio::time::timeout(CHANGE_TIMEOUT, changed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unfinished(error)),
        Err(_) => Err(unfinished("no majority agreed in time")),
    }
}

async fn propose(node: &Node, command: &Command<'_>) -> Result<(), MembershipError> {
    match node.shared.propose(command).await {
        Ok(Outcome::Refused(why)) => Err(refused(why.to_string())),
        Ok(Outcome::Done | Outcome::Decided(_)) => Ok(()),
        Err(error) => Err(unfinished(error)),
    }
}

fn require_leading(node: &Node) -> Result<(), MembershipError> {
    if node.shared.lock().leading.is_some() { Ok(()) } else { Err(MembershipError::NotLeading) }
}

fn voters(running: &Running) -> BTreeSet<u64> {
    running.raft.server_metrics().borrow().membership_config.membership().voter_ids().collect()
}

fn member(running: &Running, id: u64) -> Option<Member> {
    running.raft.server_metrics().borrow().membership_config.membership().get_node(&id).cloned()
}

/// Looks until it is so; `None` when it takes too long.
async fn wait(is_so: impl Fn() -> bool) -> Option<()> {
    let looked = async {
        while !is_so() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(HAND_OVER_TIMEOUT, looked).await.ok()
}
