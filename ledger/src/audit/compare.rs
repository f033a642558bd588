//! What must agree at a cut, and what does not.
//!
//! - In every branch and currency: debits equal credits, posted and held alike, and what is held is what the open holds
//!   add up to.
//! - For every two branches and currency: what went from one to the other is what the other received.
//! - Over all branches and currency: debits equal credits.

use std::collections::{BTreeMap, BTreeSet};

use tally_protocol::{Amount, BranchId, Currency};

use super::books::{BranchBooks, LegKey, Totals};

/// Money from one branch to another, in minor units, as both count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where it came from.
    pub source: BranchId,
    /// Where it went.
    pub destination: BranchId,
    /// What it is counted in.
    pub currency: Currency,
    /// As the source counts it: credits of its settlement account.
    pub sent: i128,
    /// As the destination counts it: debits of its settlement account.
    pub received: i128,
}

/// Something that does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A branch's debits are not its credits.
    Unbalanced {
        /// Which branch; `None` for all of them together.
        branch: Option<BranchId>,
        /// In this currency.
        currency: Currency,
        /// `"posted"` or `"held"`.
        what: &'static str,
        /// Sum over all accounts.
        debits: u128,
        /// Sum over all accounts.
        credits: u128,
    },
    /// What a branch's accounts hold is not what its open holds add up to.
    HoldsDiffer {
        /// Which branch.
        branch: BranchId,
        /// In this currency.
        currency: Currency,
        /// As the accounts say.
        held: u128,
        /// As the holds add up.
        holds: u128,
    },
    /// The settlement accounts of two branches do not mirror each other.
    MirrorDiffers(Pair),
}

/// What was compared, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Over all branches.
    pub totals: BTreeMap<Currency, Totals>,
    /// Every two branches that ever settled something, in both directions.
    pub pairs: Vec<Pair>,
    /// Settlement accounts for branches whose books are not there: nothing to compare them with.
    pub unmatched: Vec<(BranchId, BranchId, Currency)>,
    /// What does not agree. Empty: the books are right.
    pub findings: Vec<Finding>,
}

/// Open legs that had been decided by a cut, and how much of each is posted.
pub type Committed = BTreeMap<LegKey, Amount>;

/// Compares the books of branches at one cut. `committed` says which of their open legs had been decided by then (by the
/// registry, or, of a hold, by the payer's branch), and how much of them is posted; those that are not in it count nowhere. By [`super::OpenLeg::key`].
pub fn compare(books: &[BranchBooks], committed: &Committed) -> Report {
    let mut report = Report::default();
    for branch in books {
        for (&currency, totals) in &branch.currencies {
            report.findings.extend(unbalanced(Some(branch.branch), currency, totals));
            if totals.debits_held != totals.holds {
                let (held, holds) = (totals.debits_held, totals.holds);
                report.findings.push(Finding::HoldsDiffer { branch: branch.branch, currency, held, holds });
            }
            report.totals.entry(currency).or_default().add_all(totals);
        }
    }
    for (&currency, totals) in &report.totals {
        report.findings.extend(unbalanced(None, currency, totals));
    }
    let counted: BTreeMap<BranchId, Counted> =
        books.iter().map(|branch| (branch.branch, counted(branch, committed))).collect();
    let mut directions = BTreeSet::new();
    for (&branch, settlements) in &counted {
        for &(peer, currency) in settlements.keys() {
            if counted.contains_key(&peer) {
                directions.extend([(branch, peer, currency), (peer, branch, currency)]);
            } else {
                report.unmatched.push((branch, peer, currency));
            }
        }
    }
    for (source, destination, currency) in directions {
        let of = |branch, peer| counted[&branch].get(&(peer, currency)).copied().unwrap_or_default();
        let (sent, received) = (of(source, destination).sent, of(destination, source).received);
        let pair = Pair { source, destination, currency, sent, received };
        report.findings.extend((sent != received).then_some(Finding::MirrorDiffers(pair)));
        report.pairs.push(pair);
    }
    report
}

fn unbalanced(branch: Option<BranchId>, currency: Currency, totals: &Totals) -> impl Iterator<Item = Finding> {
    let posted = ("posted", totals.debits_posted, totals.credits_posted);
    let held = ("held", totals.debits_held, totals.credits_held);
    [posted, held]
        .into_iter()
        .filter(|(_, debits, credits)| debits != credits)
        .map(move |(what, debits, credits)| Finding::Unbalanced { branch, currency, what, debits, credits })
}

type Counted = BTreeMap<(BranchId, Currency), Flow>;

/// Both sides of a settlement account, with the open legs that count.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    sent: i128,
    received: i128,
}

fn counted(books: &BranchBooks, committed: &Committed) -> Counted {
    let flow = |settlement: &super::Settlement| Flow {
        sent: settlement.credits.counted(),
        received: settlement.debits.counted(),
    };
    let mut all: Counted = books.settlements.iter().map(|(&key, settlement)| (key, flow(settlement))).collect();
    for leg in &books.open {
        let Some(amount) = committed.get(&leg.key(books.branch)) else { continue };
        let flow = all.entry((leg.peer, leg.currency)).or_default();
        let side = if leg.is_outgoing { &mut flow.sent } else { &mut flow.received };
        *side += i128::from(amount.get());
    }
    all
}
