//! An operator wants an account at another branch: the order goes out, and again while transfers on the account are under
//! way, until the move is decided.
//!
//! Nothing here is needed to be safe. Whoever is not answered asks again: an account that is there is answered at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tally_ledger::two_phase::{AbortReason, Decision};
use tally_protocol::link::{BranchStatus, MoveOrder};
use tally_protocol::{AccountId, BranchId, Refusal, TransferId};

use super::calls::{Failure, decision_json, failure, not_leading};
use super::node::Node;
use crate::coordinator::{Ordered, refusal_name};

/// How often it is looked how far the move is.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long one order may go unanswered before it is given again.
const ORDER_TIMEOUT: Duration = Duration::from_millis(500);
/// For how long an order is given again while transfers on the account are under way.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// After an attempt that the other branch has refused for now. The end of a hold is not heard while the account is sealed, so it has
/// to be open for most of the time.
const ABORTED_PAUSE: Duration = Duration::from_millis(250);
/// How long a move may take.
const MOVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it is waited until both branches have carried it out; they will in any case.
const APPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// Moves the account, or says why not.
pub(super) async fn move_account(node: &Node, account_id: AccountId, to: BranchId) -> Result<Value, Failure> {
    let begun = Instant::now();
    loop {
        let from = match place(node, account_id, to)? {
            from if from == to => {
                return Ok(
                    json!({ "account": format!("{:032x}", account_id.get()), "branch": to.get(), "moved": false }),
                );
            }
            from => from,
        };
        let id = random_id()?;
        let outcome = order(node, id, account_id, (from, to)).await;
        if let Some(leading) = &mut node.shared.lock().leading {
            leading.coordinators.forget_order(id);
        }
        match outcome {
            // What is under way on the account is over in a moment; or it is a client's hold, which is told in time.
            Ok(Ordered::Refused(code)) if may_pass(code) && begun.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Ok(Ordered::Refused(code)) => {
                let name = refusal_name(code);
                return Err(failure(name, format!("branch {from} refuses: {name}")));
            }
            Ok(Ordered::Waiting) => {
                return Err(failure("unanswered", format!("branch {from} does not answer; ask again")));
            }
            Ok(Ordered::Begun) => match decided(node, id, account_id, to).await? {
                Ended::Moved(answer) => return Ok(answer),
                // So it is where the other branch has half of a hold whose end, or whose other account, is on its way.
                Ended::Aborted(AbortReason::Refused(_, no))
                    if may_pass(no.refusal.code()) && begun.elapsed() < BUSY_TIMEOUT =>
                {
                    tokio::time::sleep(ABORTED_PAUSE).await;
                }
                Ended::Aborted(why) => {
                    let why = decision_json(Decision::Abort(why));
                    return Err(failure("aborted", format!("the account stays where it is: {why}")));
                }
            },
            Err(failed) => return Err(failed),
        }
    }
}

fn may_pass(code: u16) -> bool {
    let busy = [Refusal::AccountHasHolds, Refusal::AccountMoving, Refusal::Busy];
    busy.iter().any(|refusal| refusal.code() == code)
}

/// Where the account is, if it can go to `to`.
fn place(node: &Node, account_id: AccountId, to: BranchId) -> Result<BranchId, Failure> {
    let core = node.shared.lock();
    core.leading.as_ref().ok_or_else(not_leading)?;
    let directory = &core.state.directory;
    let there = directory.branches.get(&to);
    let there = there.ok_or_else(|| failure("branch_unknown", format!("the bank has no branch {to}")))?;
    match there.status {
        BranchStatus::Serving | BranchStatus::Suspect => {}
        status @ (BranchStatus::Draining | BranchStatus::Down | BranchStatus::Left) => {
            return Err(failure("branch_unreachable", format!("branch {to} is {}", status.name())));
        }
    }
    let from = directory.branch_of(account_id);
    if !directory.branches.contains_key(&from) {
        return Err(failure("branch_unknown", format!("the bank has no branch {from}, which the account's id names")));
    }
    if !directory.has_room_for(account_id) {
        return Err(failure("refused", "as many accounts have moved as may"));
    }
    Ok(from)
}

fn random_id() -> Result<TransferId, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| failure("unavailable", format!("no random numbers: {error}")))?;
    // Neither 0 nor all ones.
    Ok(TransferId::new(u128::from_le_bytes(random) >> 1 | 1))
}

/// Gives the order until the branch has answered.
async fn order(
    node: &Node,
    id: TransferId,
    account_id: AccountId,
    (from, to): (BranchId, BranchId),
) -> Result<Ordered, Failure> {
    let begun = Instant::now();
    let mut ordered_at = None::<Instant>;
    while begun.elapsed() < MOVE_TIMEOUT {
        {
            let mut core = node.shared.lock();
            let stamp = core.now();
            let routes_version = core.state.directory.routes_version;
            let leading = core.leading.as_mut().ok_or_else(not_leading)?;
            match leading.coordinators.ordered(id) {
                Some(answer @ (Ordered::Begun | Ordered::Refused(_))) => return Ok(answer),
                Some(Ordered::Waiting) | None => {}
            }
            if ordered_at.is_none_or(|at| at.elapsed() > ORDER_TIMEOUT) {
                let order = MoveOrder {
                    id: id.get().into(),
                    account_id: account_id.get().into(),
                    stamp: stamp.as_nanos().into(),
                    destination: to.get().into(),
                    reserved: [0; 6],
                };
                if !leading.coordinators.order_move(from, order) {
                    return Err(failure("branch_unreachable", format!("branch {from} is not linked just now")));
                }
                leading.wake_links(routes_version);
                ordered_at = Some(Instant::now());
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(Ordered::Waiting)
}

/// How a move was decided.
enum Ended {
    /// The account is there: the answer for the operator.
    Moved(Value),
    /// It stays where it is.
    Aborted(AbortReason),
}

/// Waits for the decision, and a while for both branches to carry it out.
async fn decided(node: &Node, id: TransferId, account_id: AccountId, to: BranchId) -> Result<Ended, Failure> {
    let begun = Instant::now();
    let mut decided_at = None::<Instant>;
    loop {
        {
            let core = node.shared.lock();
            core.leading.as_ref().ok_or_else(not_leading)?;
            if let Some(known) = core.state.decisions.get(id) {
                if let Decision::Abort(why) = known.decision {
                    return Ok(Ended::Aborted(why));
                }
                let since = decided_at.get_or_insert_with(Instant::now);
                let is_applied = known.unacknowledged.is_empty();
                if is_applied || since.elapsed() > APPLY_TIMEOUT {
                    return Ok(Ended::Moved(json!({
                        "account": format!("{:032x}", account_id.get()),
                        "branch": to.get(),
                        "moved": true,
                        "applied": is_applied,
                        "move": id.to_string(),
                    })));
                }
            } else if begun.elapsed() > MOVE_TIMEOUT {
                return Err(failure("undecided", "the move is not decided yet; ask again"));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
