//! How the branches are. Heartbeats stay in the leader's memory; only what changes goes into the log. Also asks for
//! snapshots, which every node makes of its own state.

use std::sync::Arc;
use std::time::Duration;

use tally_protocol::link::BranchStatus;
use tally_protocol::{BranchId, Lsn, Timestamp};

use super::node::{Node, NodeOptions, Running};
use crate::clock::wall;
use crate::core::{Core, Heard};
use crate::state::{BranchEntry, Command};

const PAUSE: Duration = Duration::from_millis(100);
/// A change that the log does not take in time is found again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the process ends.
pub(super) async fn run(node: Arc<Node>, running: Running) {
    let mut snapshot_at = running.log.durable().end();
    while !*node.stopping.borrow() {
        tokio::time::sleep(PAUSE).await;
        let is_stopping = *node.stopping.borrow();
        if !is_stopping && running.raft.metrics().borrow().running_state.is_err() {
            tracing::error!(stage = "raft", "raft has ended: stopping");
            node.stopping.send_replace(true);
            return;
        }
        for (id, status, before) in changes(&node) {
            let stamp = node.shared.lock().now();
            let command = Command::BranchStatus { id, status, stamp };
            if let Ok(Ok(_)) = tokio::time::timeout(PROPOSE_TIMEOUT, node.shared.propose(&command)).await {
                let (branch, before, status) = (id.get(), before.name(), status.name());
                tracing::warn!(stage = "health", branch, before, status, "a branch is seen otherwise");
            }
        }
        snapshot_if_due(&node, &running, &mut snapshot_at).await;
    }
}

/// Branches that the log has otherwise than they are.
fn changes(node: &Node) -> Vec<(BranchId, BranchStatus, BranchStatus)> {
    let core = node.shared.lock();
    let Core { leading: Some(leading), state, .. } = &*core else { return Vec::new() };
    let now = wall();
    let seen = |(&id, entry): (&BranchId, &BranchEntry)| {
        let status = seen(entry, leading.heard(id), now, &node.options);
        (status != entry.status).then_some((id, status, entry.status))
    };
    state.directory.branches.iter().filter_map(seen).collect()
}

/// How a branch is seen that the log has as `entry`.
fn seen(entry: &BranchEntry, heard: Option<Heard>, now: Timestamp, options: &NodeOptions) -> BranchStatus {
    let known = entry.status;
    if known == BranchStatus::Left {
        return known;
    }
    let silence =
        heard.map_or(Duration::MAX, |heard| Duration::from_nanos(now.as_nanos().saturating_sub(heard.at.as_nanos())));
    match heard {
        _ if silence >= options.down_after => BranchStatus::Down,
        // Nothing was heard of one that is down, so it stays so.
        _ if silence >= options.suspect_after && known == BranchStatus::Down => BranchStatus::Down,
        _ if silence >= options.suspect_after => BranchStatus::Suspect,
        // An operator's drain stands until the operator ends it.
        _ if entry.is_drained => BranchStatus::Draining,
        Some(heard) => heard.status,
        None => known,
    }
}

/// A snapshot is due after so many entries, or so many bytes of the log since `at`.
async fn snapshot_if_due(node: &Node, running: &Running, at: &mut Lsn) {
    let durable = running.log.durable().end();
    let has_grown = durable.get().saturating_sub(at.get()) >= node.options.snapshot_bytes;
    let due = has_grown || {
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow();
        let index = |log_id: Option<openraft::LogId<u64>>| log_id.map_or(0, |log_id| log_id.index);
        index(metrics.last_applied).saturating_sub(index(metrics.snapshot)) >= node.options.snapshot_entries
    };
    if !due {
        return;
    }
    *at = durable;
    if let Err(error) = running.raft.trigger().snapshot().await {
        tracing::warn!(stage = "snapshot", %error, "no snapshot was made");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_suspect_then_down_and_a_word_makes_well_again() {
        use BranchStatus::*;
        let options = NodeOptions {
            suspect_after: Duration::from_nanos(100),
            down_after: Duration::from_nanos(300),
            ..crate::server::node::NodeOptions::for_tests()
        };
        for (known, said, silence, expected) in [
            (Serving, Serving, 99, Serving),
            (Serving, Serving, 100, Suspect),
            (Serving, Serving, 299, Suspect),
            (Suspect, Serving, 300, Down),
            (Down, Serving, 200, Down),
            (Down, Serving, 50, Serving),
            (Suspect, Serving, 50, Serving),
            (Serving, Draining, 50, Draining),
            (Draining, Serving, 50, Serving),
            (Draining, Serving, 150, Suspect),
            (Left, Serving, 0, Left),
            (Left, Serving, 900, Left),
        ] {
            let at = Timestamp::from_nanos(1_000);
            let heard = Heard { at, status: said, durable: 0, in_doubt: 0 };
            let now = Timestamp::from_nanos(1_000 + silence);
            let entry = |is_drained| BranchEntry {
                incarnation: 1,
                endpoint: String::new(),
                status: known,
                since: at,
                is_drained,
            };
            assert_eq!(seen(&entry(false), Some(heard), now, &options), expected, "{known:?}, silent for {silence}");
            let drained = if expected == Serving { Draining } else { expected };
            assert_eq!(seen(&entry(true), Some(heard), now, &options), drained, "{known:?}, silent for {silence}");
            assert_eq!(seen(&entry(false), None, now, &options), if known == Left { Left } else { Down });
        }
    }
}
