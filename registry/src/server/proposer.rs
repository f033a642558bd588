//! Batches into the log: while two are under way the next gathers, so the disk sets the pace and no timer does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::node::{Node, Running};
use crate::raft::types::Batch;

/// Acknowledgements that wait for company go after this time.
const PAUSE: Duration = Duration::from_millis(50);

/// Proposes until Raft ends.
pub(super) async fn run(node: Arc<Node>, running: Running) {
    loop {
        // Rung by links, by applied entries, by who proposes; the pause is for what is only due by time.
        let _ = tokio::time::timeout(PAUSE, node.shared.proposer.notified()).await;
        // A full disk would hold Raft's own task, and with it its heartbeats: so nothing is begun that it has to write.
        while running.log.writable()
            && let Some((number, bytes)) = next(&node)
        {
            node.counters.batches.fetch_add(1, Ordering::Relaxed);
            node.counters.batch_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let begun = Instant::now();
            let Ok(outcome) = running.raft.client_write_ff(Batch(bytes)).await else {
                tracing::error!(stage = "raft", "raft has ended: nothing more is decided here");
                return;
            };
            let node = node.clone();
            tokio::spawn(async move {
                match outcome.await {
                    Ok(Ok(_)) => node.counters.commit.note(begun.elapsed()),
                    // It does not lead any more: whether the entry will be applied is for the next leader to say.
                    Ok(Err(_)) | Err(_) => {
                        node.shared.lock().proposals.failed(number);
                        node.shared.proposer.notify_one();
                    }
                }
            });
        }
    }
}

fn next(node: &Node) -> Option<(u64, bytes::Bytes)> {
    node.shared.lock().next_batch()
}
