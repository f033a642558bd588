//! The rules, as tables that are their specification, and as properties of random histories.

mod bank;
mod hold_states;
mod properties;
mod table;
mod tigerbeetle;

use std::collections::BTreeSet;

use tally_protocol::Refusal;

use table::Seen;

const TABLES: &[(&str, &str)] = &[
    ("malformed", include_str!("tables/malformed.table")),
    ("accounts", include_str!("tables/accounts.table")),
    ("transfers", include_str!("tables/transfers.table")),
    ("limits", include_str!("tables/limits.table")),
    ("days", include_str!("tables/days.table")),
    ("holds", include_str!("tables/holds.table")),
    ("reversals", include_str!("tables/reversals.table")),
    ("owners", include_str!("tables/owners.table")),
    ("repeats", include_str!("tables/repeats.table")),
    ("chains", include_str!("tables/chains.table")),
    ("openings", include_str!("tables/openings.table")),
    ("closings", include_str!("tables/closings.table")),
    ("imports", include_str!("tables/imports.table")),
];

/// Every line of every table, and no refusal of the ledger without a line.
#[test]
fn every_table_holds_and_every_refusal_has_a_case() {
    let mut seen = Seen::default();
    for (name, text) in TABLES {
        table::run(name, text, &mut seen);
    }
    // Found by whoever reads the batch or knows the branch's capacity, not by these rules.
    // What goes between branches has tests of its own.
    let between =
        [Refusal::BranchUnknown, Refusal::TransferAborted, Refusal::BranchTimedOut, Refusal::TransferResolved];
    // So has what an account answers that is moved to another branch, or was.
    let moved = [
        Refusal::AccountMoved,
        Refusal::IdUsedElsewhere,
        Refusal::MovedAccountSinglesOnly,
        Refusal::CreditAccountMoved,
        Refusal::AccountHasHolds,
        Refusal::AccountFrozen,
        Refusal::AccountMovedTooOften,
        Refusal::HoldElsewhere,
        Refusal::AccountHoldsStay,
    ];
    let elsewhere = [[Refusal::CountInvalid, Refusal::TransferNotFound].as_slice(), &between, &moved].concat();
    let of_the_ledger = |refusal: &&Refusal| refusal.code() >= 50 && !elsewhere.contains(refusal);
    let missing: Vec<&Refusal> =
        Refusal::ALL.iter().filter(of_the_ledger).filter(|refusal| !seen.refusals.contains(refusal)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    let session: BTreeSet<&Refusal> = seen.refusals.iter().filter(|refusal| refusal.code() < 50).collect();
    assert!(session == BTreeSet::from([&Refusal::FieldInvalid]), "the rules answer for the session: {session:?}");
    assert!(seen.cases > 700, "{} cases: a table is not read to its end", seen.cases);
}
