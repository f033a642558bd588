//! Becoming the leader, and stopping to be it.
//!
//! ```text
//!  Raft elects us --> barrier in the log --> applied: so is all before it --> serve
//!        another leader, or no answer from a majority --> forget what is only in memory
//! ```
//!
//! **Invariant:** nothing is answered before the barrier of this term, and this process, is applied. A leader that was
//! restarted is leader again at once, with a log that it has not applied yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;

use super::node::{ELECTION_MS_MAX, Node, Running};
use crate::raft::types::Batch;
use crate::state::{BatchBuilder, Command};

/// How often the coordinators are told the time.
const TICK: Duration = Duration::from_millis(50);
/// An entry that is not applied by then has lost its majority.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until the process ends.
pub(super) async fn run(node: Arc<Node>, running: Running) {
    let mut metrics = running.raft.server_metrics();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        let term = leads_in(&running);
        let serves_in = node.shared.lock().leading.as_ref().map(|leading| leading.term);
        if serves_in.is_some() && serves_in != term {
            tracing::warn!(stage = "leader", term = serves_in, "no longer leading");
            node.shared.lock().follow();
        }
        match term {
            Some(term) if serves_in != Some(term) => begin(&node, &running, term).await,
            Some(_) => tell_the_time(&node, &running),
            None => {}
        }
    }
}

/// In which term this node leads and has a majority behind it.
fn leads_in(running: &Running) -> Option<u64> {
    let metrics = running.raft.metrics();
    let metrics = metrics.borrow();
    let vote = metrics.vote;
    let leads = metrics.state == ServerState::Leader && vote.committed && vote.leader_id.node_id == metrics.id;
    // A leader that is cut off does not step down by itself, and must not go on to promise.
    let voters = metrics.membership_config.membership().voter_ids().count();
    let has_majority =
        voters <= 1 || metrics.millis_since_quorum_ack.is_some_and(|millis| millis <= 2 * ELECTION_MS_MAX);
    (leads && has_majority).then_some(vote.leader_id.term)
}

async fn begin(node: &Node, running: &Running, term: u64) {
    let bytes = {
        let mut core = node.shared.lock();
        core.follow();
        let stamp = core.now();
        let mut batch = BatchBuilder::default();
        batch.push(&Command::Lead { node_id: core.node_id, boot: core.boot, stamp });
        if core.state.directory.cluster_id == 0 {
            let cluster_id = running.identity.cluster_id;
            batch.push(&Command::Found { cluster_id, remembered_max: node.options.remembered_max, stamp });
        }
        let (id, incarnation) = (core.node_id, running.identity.incarnation);
        batch.push(&Command::AddNode { id, incarnation, endpoint: &node.options.endpoint, stamp });
        let (node_id, boot) = (core.node_id, core.boot);
        // Number 0 is nobody's: no waiter is looked for.
        batch.take(node_id, boot, 0)
    };
    let written = tokio::time::timeout(BARRIER_TIMEOUT, running.raft.client_write(Batch(bytes))).await;
    match written {
        Ok(Ok(written)) if written.log_id.leader_id.term == term => {}
        Ok(Ok(_) | Err(_)) | Err(_) => {
            tracing::warn!(stage = "leader", term, "elected, and lost it before the barrier was applied");
            return;
        }
    }
    let transfers = {
        let mut core = node.shared.lock();
        core.lead(term, node.options.transfers_max);
        core.leading.as_ref().map_or(0, |leading| leading.coordinators.len())
    };
    node.counters.led.fetch_add(1, Ordering::Relaxed);
    tracing::info!(stage = "leader", term, transfers, "leading");
    node.shared.proposer.notify_one();
    super::membership::finish_change(running).await;
}

fn tell_the_time(node: &Node, running: &Running) {
    let voters = running.raft.metrics().borrow().membership_config.membership().voter_ids().count();
    running.log.set_only_voter(voters == 1);
    let mut core = node.shared.lock();
    let now = core.now();
    let core = &mut *core;
    if let Some(leading) = &mut core.leading {
        leading.coordinators.set_closed(leading.is_handing_over || !running.log.writable());
        leading.coordinators.tick(&core.state, now);
        leading.wake_links(core.state.directory.routes_version);
    }
    node.shared.proposer.notify_one();
}
