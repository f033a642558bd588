//! The registry's part of an audit of the whole bank: it names the instant, passes questions on to branches, and says how
//! transfers stood then.
//!
//! **Invariant:** what [`legs`] says of an instant stays true. The instant is in the replicated log before anybody hears of
//! it, so no leader hands out an earlier stamp; whoever answers leads, and has applied what was proposed before; and
//! what is on its way into the log is `deciding`, and is to be asked again.

use std::time::Duration;

use serde_json::{Value, json};
use tally_ledger::two_phase::{Coordinator, Decision};
use tally_protocol::{BranchId, Timestamp, TransferId};

use super::calls::{Answered, Failure, failure, not_leading, transfer_id};
use super::node::Node;
use crate::core::Core;
use crate::link::tls::within;
use crate::state::{Command, Outcome};

/// A branch answers at once; what takes long it does by itself, and is asked again.
const BRANCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Transfers in one question.
const IDS_MAX: usize = 1_000;

/// An instant that all nodes know of, as the first of its kind: a barrier in the log.
async fn barrier(node: &Node) -> Result<Timestamp, Failure> {
    let (node_id, boot, stamp) = {
        let mut core = node.shared.lock();
        (core.node_id, core.boot, core.now())
    };
    match node.shared.propose(&Command::Lead { node_id, boot, stamp }).await? {
        Outcome::Done | Outcome::Decided(_) => Ok(stamp),
        Outcome::Refused(why) => Err(failure("refused", why.to_string())),
    }
}

/// The instant, and who is to be asked.
pub(super) async fn cut(node: &Node) -> Answered {
    let stamp = barrier(node).await?;
    let core = node.shared.lock();
    let leading = core.leading.as_ref().ok_or_else(not_leading)?;
    let branches = core.state.directory.branches.iter().map(|(id, entry)| {
        json!({
            "branch": id.get(),
            "endpoint": entry.endpoint,
            "status": entry.status.name(),
            "linked": leading.connected().any(|branch| branch == *id),
        })
    });
    Ok(json!({
        "stamp": stamp.as_nanos(),
        "cluster_id": format!("{:032x}", core.state.directory.cluster_id),
        "branches": branches.collect::<Vec<_>>(),
    }))
}

/// What the branch says.
pub(super) async fn branch(node: &Node, id: BranchId, question: &Value) -> Answered {
    let answered = {
        let mut core = node.shared.lock();
        let leading = core.leading.as_mut().ok_or_else(not_leading)?;
        leading.call(id, question.to_string())
    };
    let not_linked = || failure("not_linked", format!("branch {id} is not linked to the registry"));
    let answered = answered.ok_or_else(not_linked)?;
    let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let answer = within(BRANCH_TIMEOUT, async { answered.await.map_err(|_| gone()) }).await;
    let answer = answer.map_err(|error| failure("not_linked", format!("branch {id} does not answer: {error}")))?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|error| failure("invalid", format!("branch {id} answered no JSON: {error}")))?;
    Ok(json!({ "branch": id.get(), "answer": answer }))
}

/// How transfers stood at `stamp`, each for the branch at its place, which holds a part under that id.
pub(super) async fn legs(node: &Node, stamp: Timestamp, ids: &[String], branches: &[u16]) -> Answered {
    if ids.len() > IDS_MAX || branches.len() != ids.len() {
        return Err(failure("invalid", format!("at most {IDS_MAX} transfers at a time, and a branch for each")));
    }
    let ids = ids.iter().map(|id| transfer_id(id)).collect::<Result<Vec<_>, _>>()?;
    if barrier(node).await? <= stamp {
        return Err(failure("invalid", "that instant has not come yet"));
    }
    let core = node.shared.lock();
    if core.leading.is_none() {
        return Err(not_leading());
    }
    let legs = ids.into_iter().zip(branches);
    let legs = legs
        .map(|(id, &branch)| json!({ "id": id.to_string(), "state": stood(&core, id, BranchId::new(branch), stamp) }));
    Ok(json!({ "legs": legs.collect::<Vec<_>>() }))
}

/// `committed` by then; `not_committed` by then, whatever came later; `deciding`: ask again; `unknown`: not begun, or
/// forgotten because everybody has carried it out. What was committed for other branches is not for this one: a client has used the
/// id at two of them.
fn stood(core: &Core, id: TransferId, branch: BranchId, stamp: Timestamp) -> &'static str {
    if let Some(known) = core.state.decisions.get(id) {
        let is_committed = known.decision == Decision::Commit && known.stamp <= stamp && !known.excludes(branch);
        return if is_committed { "committed" } else { "not_committed" };
    }
    let shown = core.leading.as_ref().and_then(|leading| leading.coordinators.show(id));
    match shown.map(|shown| shown.machine) {
        Some(Coordinator::Deciding { .. }) => "deciding",
        // If it is decided one day, then at a later stamp.
        Some(Coordinator::Collecting { .. }) => "not_committed",
        Some(Coordinator::Unknown | Coordinator::Decided { .. } | Coordinator::Done(_)) | None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use tally_ledger::two_phase::Participants;

    use super::*;
    use crate::core::Shared;

    #[test]
    fn a_commit_counts_from_its_instant_on_and_for_those_who_have_a_part_in_it() {
        let [one, two, three] = [1, 2, 3].map(BranchId::new);
        let (id, other) = (TransferId::new(7), TransferId::new(8));
        let at = Timestamp::from_nanos;
        let shared = Shared::new(1, 1);
        let mut core = shared.lock();
        let participants = Participants::of([one, two]).expect("few enough");
        core.state.apply(&Command::Decide { id, decision: Decision::Commit, participants, stamp: at(50) });
        for (id, branch, stamp, expected) in [
            (id, one, 50, "committed"),
            (id, two, 50, "committed"),
            (id, one, 49, "not_committed"),
            (id, three, 50, "not_committed"),
            (other, one, 50, "unknown"),
        ] {
            assert_eq!(stood(&core, id, branch, at(stamp)), expected, "{id} at {branch}, {stamp}");
        }
    }
}
