//! docs/decisions/0001-ledger-rules.md names, for every result of TigerBeetle's two operations, the case that shows the
//! same here. The document cannot rot: each case is there, and shows the refusal that the document names.

use std::collections::BTreeSet;

use tally_protocol::Refusal;

use crate::TABLES;

/// The results of `create_accounts` in TigerBeetle 0.17 (`CreateAccountStatus`, without what is deprecated).
const ACCOUNT_RESULTS: &[&str] = &[
    "created",
    "linked_event_failed",
    "linked_event_chain_open",
    "imported_event_expected",
    "imported_event_not_expected",
    "timestamp_must_be_zero",
    "imported_event_timestamp_out_of_range",
    "imported_event_timestamp_must_not_advance",
    "reserved_field",
    "reserved_flag",
    "id_must_not_be_zero",
    "id_must_not_be_int_max",
    "exists_with_different_flags",
    "exists_with_different_user_data_128",
    "exists_with_different_user_data_64",
    "exists_with_different_user_data_32",
    "exists_with_different_ledger",
    "exists_with_different_code",
    "exists",
    "flags_are_mutually_exclusive",
    "debits_pending_must_be_zero",
    "debits_posted_must_be_zero",
    "credits_pending_must_be_zero",
    "credits_posted_must_be_zero",
    "ledger_must_not_be_zero",
    "code_must_not_be_zero",
    "imported_event_timestamp_must_not_regress",
];

/// The results of `create_transfers` (`CreateTransferStatus`).
const TRANSFER_RESULTS: &[&str] = &[
    "created",
    "linked_event_failed",
    "linked_event_chain_open",
    "imported_event_expected",
    "imported_event_not_expected",
    "timestamp_must_be_zero",
    "imported_event_timestamp_out_of_range",
    "imported_event_timestamp_must_not_advance",
    "reserved_flag",
    "id_must_not_be_zero",
    "id_must_not_be_int_max",
    "exists_with_different_flags",
    "exists_with_different_pending_id",
    "exists_with_different_timeout",
    "exists_with_different_debit_account_id",
    "exists_with_different_credit_account_id",
    "exists_with_different_amount",
    "exists_with_different_user_data_128",
    "exists_with_different_user_data_64",
    "exists_with_different_user_data_32",
    "exists_with_different_ledger",
    "exists_with_different_code",
    "exists",
    "id_already_failed",
    "flags_are_mutually_exclusive",
    "debit_account_id_must_not_be_zero",
    "debit_account_id_must_not_be_int_max",
    "credit_account_id_must_not_be_zero",
    "credit_account_id_must_not_be_int_max",
    "accounts_must_be_different",
    "pending_id_must_be_zero",
    "pending_id_must_not_be_zero",
    "pending_id_must_not_be_int_max",
    "pending_id_must_be_different",
    "timeout_reserved_for_pending_transfer",
    "closing_transfer_must_be_pending",
    "ledger_must_not_be_zero",
    "code_must_not_be_zero",
    "debit_account_not_found",
    "credit_account_not_found",
    "accounts_must_have_the_same_ledger",
    "transfer_must_have_the_same_ledger_as_accounts",
    "pending_transfer_not_found",
    "pending_transfer_not_pending",
    "pending_transfer_has_different_debit_account_id",
    "pending_transfer_has_different_credit_account_id",
    "pending_transfer_has_different_ledger",
    "pending_transfer_has_different_code",
    "exceeds_pending_transfer_amount",
    "pending_transfer_has_different_amount",
    "pending_transfer_already_posted",
    "pending_transfer_already_voided",
    "pending_transfer_expired",
    "imported_event_timestamp_must_not_regress",
    "imported_event_timestamp_must_postdate_debit_account",
    "imported_event_timestamp_must_postdate_credit_account",
    "imported_event_timeout_must_be_zero",
    "debit_account_already_closed",
    "credit_account_already_closed",
    "overflows_debits_pending",
    "overflows_credits_pending",
    "overflows_debits_posted",
    "overflows_credits_posted",
    "overflows_debits",
    "overflows_credits",
    "overflows_timeout",
    "exceeds_credits",
    "exceeds_debits",
];

/// One row of a table: their result, ours, and the case.
struct Row<'a> {
    theirs: &'a str,
    ours: &'a str,
    case: &'a str,
}

fn rows<'a>(document: &'a str, heading: &str) -> Vec<Row<'a>> {
    let (_, section) = document.split_once(heading).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n#").next().expect("a section");
    let cells = |line: &'a str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[theirs, ours, case] = cells.as_slice() else { panic!("three cells: {line}") };
        Row { theirs: theirs.trim_matches('`'), ours, case }
    };
    section.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

/// The lines of a case, `` `table`: Its heading. ``
fn lines_of(case: &str) -> &'static str {
    let (name, heading) = case.split_once(": ").unwrap_or_else(|| panic!("`table`: heading, not {case}"));
    let name = name.trim_matches('`');
    let (_, table) = TABLES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no table {name}"));
    let start = format!("\n## {heading}\n");
    let (_, lines) = table.split_once(&start).unwrap_or_else(|| panic!("no case {case}"));
    lines.split("\n## ").next().expect("the case itself")
}

fn check(heading: &str, results: &[&str]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/decisions/0001-ledger-rules.md");
    let document = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows = rows(&document, heading);
    let named: BTreeSet<&str> = rows.iter().map(|row| row.theirs).collect();
    assert!(named == results.iter().copied().collect() && named.len() == rows.len(), "{heading}: {named:?}");
    for Row { theirs, ours, case } in rows {
        let lines = lines_of(case);
        let named = Refusal::ALL.iter().filter(|refusal| ours.contains(&format!("`{refusal}`")));
        for refusal in named {
            let shows = |line: &str| line.split("//").next().is_some_and(|line| line.trim().ends_with(refusal.name()));
            assert!(lines.lines().any(shows), "{theirs}: no line of {case} is answered {refusal}");
        }
        assert!(lines.contains("-> ") || lines.contains("sums"), "{theirs}: {case} shows nothing");
    }
}

#[test]
fn every_result_of_their_create_accounts_has_a_case_here() {
    check("### Every result of its `create_accounts`", ACCOUNT_RESULTS);
}

#[test]
fn every_result_of_their_create_transfers_has_a_case_here() {
    check("### Every result of its `create_transfers`", TRANSFER_RESULTS);
}
