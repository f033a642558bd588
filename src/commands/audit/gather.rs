//! Asks everybody: the registry for the instant, the branches for their books of then, and the registry again how the legs
//! stood that were open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tally_ledger::audit::{BranchBooks, Committed, OpenLeg};
use tally_protocol::{Amount, BranchId, TransferId};
use tally_registry::client::CallError;

use super::super::operator::Calls;
use super::books;

/// Before somebody is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// Transfers in one question to the registry.
const IDS_MAX: usize = 1_000;

/// What was gathered.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The instant, in nanoseconds since 1970.
    pub(super) stamp: u64,
    /// How long the audit took.
    pub(super) took: Duration,
    /// Of every branch that could be asked.
    pub(super) books: Vec<BranchBooks>,
    /// What each of them says beside its books: durable position, records read.
    pub(super) said: BTreeMap<BranchId, Value>,
    /// Open legs that the registry had committed by then, and with how much.
    pub(super) committed: Committed,
    /// Branches that could not be asked, and why.
    pub(super) missing: Vec<(BranchId, String)>,
    /// Branches that have left the bank: nobody asks them any more.
    pub(super) left: Vec<BranchId>,
}

/// What came of asking a branch.
enum Told {
    /// It is adding up.
    Working,
    /// Its books.
    Books(Box<BranchBooks>, Value),
}

impl Gathered {
    /// Gathers. A branch that is not linked is waited for as long as `wait`.
    pub(super) fn gather(calls: &Calls, wait: Duration) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let cut = calls.ask(&json!({ "call": "audit_cut" })).context("the registry names no instant")?;
        let stamp = cut["stamp"].as_u64().context("the registry names no instant")?;
        let mut gathered = Self {
            stamp,
            took: Duration::ZERO,
            books: Vec::new(),
            said: BTreeMap::new(),
            committed: Committed::new(),
            missing: Vec::new(),
            left: Vec::new(),
        };
        let mut pending = Vec::new();
        for branch in cut["branches"].as_array().context("the registry names no branches")? {
            let id = branch["branch"].as_u64().and_then(|id| u16::try_from(id).ok()).context("a branch's number")?;
            let to = if branch["status"] == "left" { &mut gathered.left } else { &mut pending };
            to.push(BranchId::new(id));
        }
        let asker = Asker { calls, stamp, wait };
        let mut books = asker.all_books(&pending, &mut gathered);
        gathered.committed = asker.committed(&mut books, &mut gathered)?;
        gathered.books = books.into_values().collect();
        gathered.took = begun.elapsed();
        Ok(gathered)
    }
}

struct Asker<'a> {
    calls: &'a Calls,
    stamp: u64,
    wait: Duration,
}

impl Asker<'_> {
    /// The books of these branches: all add up at the same time.
    fn all_books(&self, branches: &[BranchId], gathered: &mut Gathered) -> BTreeMap<BranchId, BranchBooks> {
        let mut all = BTreeMap::new();
        let mut pending: Vec<(BranchId, Instant)> = branches.iter().map(|&id| (id, Instant::now())).collect();
        while !pending.is_empty() {
            pending.retain_mut(|(id, heard_at)| match self.ask_for_books(*id) {
                Ok(Told::Working) => {
                    *heard_at = Instant::now();
                    true
                }
                Ok(Told::Books(books, said)) => {
                    all.insert(*id, *books);
                    gathered.said.insert(*id, said);
                    false
                }
                Err(_) if heard_at.elapsed() < self.wait => true,
                Err(error) => {
                    gathered.missing.push((*id, format!("{error:#}")));
                    false
                }
            });
            if !pending.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        all
    }

    fn ask_for_books(&self, id: BranchId) -> anyhow::Result<Told> {
        let said = self.ask(id, &json!({ "call": "audit", "stamp": self.stamp }))?;
        if said["state"] != "done" {
            return Ok(Told::Working);
        }
        let mut read = books::books(id, &said)?;
        loop {
            let from = read.open.len();
            let page = self.ask(id, &json!({ "call": "audit_legs", "stamp": self.stamp, "from": from }))?;
            let legs: Vec<OpenLeg> = books::legs(&page)?;
            let is_last = legs.is_empty() || page["open"].as_u64() == Some((from + legs.len()) as u64);
            read.open.extend(legs);
            if is_last {
                return Ok(Told::Books(Box::new(read), said));
            }
        }
    }

    /// How the registry stands to what is open. Where it knows nothing of a transfer, either nobody has decided it, or
    /// everybody has carried it out since: then the branch's journal says so, and is read on.
    fn committed(
        &self,
        all: &mut BTreeMap<BranchId, BranchBooks>,
        gathered: &mut Gathered,
    ) -> anyhow::Result<Committed> {
        let mut committed = Committed::new();
        let mut settled = BTreeSet::new();
        loop {
            let mut unknown = BTreeSet::new();
            let mut is_deciding = false;
            let open: Vec<(BranchId, OpenLeg)> = all
                .iter()
                .flat_map(|(&id, books)| books.open.iter().map(move |leg| (id, *leg)))
                .filter(|(id, leg)| !leg.is_hold && !settled.contains(&(*id, leg.id)))
                .collect();
            for page in open.chunks(IDS_MAX) {
                let ids: Vec<String> = page.iter().map(|(_, leg)| leg.decided_under.to_string()).collect();
                let branches: Vec<u16> = page.iter().map(|(id, _)| id.get()).collect();
                let request = json!({ "call": "audit_legs", "stamp": self.stamp, "ids": ids, "branches": branches });
                let answer = self.calls.ask(&request).context("the registry does not say how transfers stood")?;
                let states = answer["legs"].as_array().context("the registry names no transfers")?;
                anyhow::ensure!(states.len() == page.len(), "the registry speaks of {} transfers", states.len());
                for ((id, leg), state) in page.iter().zip(states) {
                    match state["state"].as_str() {
                        Some("committed") => {
                            committed.insert(leg.key(*id), leg.amount);
                            settled.insert((*id, leg.id));
                        }
                        Some("not_committed") => drop(settled.insert((*id, leg.id))),
                        Some("deciding") => is_deciding = true,
                        Some("unknown") => drop(unknown.insert((*id, leg.id))),
                        _ => anyhow::bail!("the registry says {state}"),
                    }
                }
            }
            if unknown.is_empty() && !is_deciding {
                self.settled_holds(all, &mut committed)?;
                return Ok(committed);
            }
            let branches: BTreeSet<BranchId> = unknown.iter().map(|&(id, _)| id).collect();
            for &id in &branches {
                // Where it has no books any more, it is asked to add them up again, below.
                let _ = self.ask(id, &json!({ "call": "audit_go_on", "stamp": self.stamp }));
            }
            let branches: Vec<BranchId> = branches.into_iter().collect();
            let again = self.all_books(&branches, gathered);
            for id in branches {
                match again.get(&id) {
                    Some(books) => drop(all.insert(id, books.clone())),
                    None => drop(all.remove(&id)),
                }
            }
            // Still open after the registry knew nothing: undecided, and if it ever is decided, then later.
            settled.extend(unknown);
            if is_deciding {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// What the payers' branches had posted of holds that are open at the payees'.
    fn settled_holds(&self, all: &BTreeMap<BranchId, BranchBooks>, committed: &mut Committed) -> anyhow::Result<()> {
        let mut by_pair: BTreeMap<(BranchId, BranchId), Vec<TransferId>> = BTreeMap::new();
        for (&payee, books) in all {
            for leg in books.open.iter().filter(|leg| leg.is_hold && all.contains_key(&leg.peer)) {
                by_pair.entry((leg.peer, payee)).or_default().push(leg.id);
            }
        }
        for ((payer, payee), ids) in by_pair {
            for page in ids.chunks(IDS_MAX) {
                let names: Vec<String> = page.iter().map(ToString::to_string).collect();
                let stamp = self.stamp;
                let question = json!({ "call": "audit_endings", "stamp": stamp, "payee": payee.get(), "ids": names });
                let answer = self.ask(payer, &question)?;
                let posted = answer["posted"].as_array().context("a branch does not say how holds ended")?;
                anyhow::ensure!(posted.len() == page.len(), "branch {payer} speaks of {} holds", posted.len());
                for (&id, posted) in page.iter().zip(posted) {
                    committed.insert((id, payer, payee), Amount::new(posted.as_u64().context("an amount")?));
                }
            }
        }
        Ok(())
    }

    /// Asks a branch, over its link.
    fn ask(&self, id: BranchId, question: &Value) -> anyhow::Result<Value> {
        let request = json!({ "call": "audit_branch", "branch": id.get(), "question": question });
        let answer = self.calls.ask(&request).map_err(|error| match error {
            // What the registry says of a branch is said in whole sentences.
            CallError::Refused { text, .. } => anyhow::anyhow!(text),
            other => other.into(),
        })?;
        let answer = &answer["answer"];
        match answer.get("ok") {
            Some(said) => Ok(said.clone()),
            None => anyhow::bail!("branch {id}: {}", answer["error"]["text"].as_str().unwrap_or("no answer")),
        }
    }
}
