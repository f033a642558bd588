//! A file of payments against a branch: played, played again, interrupted, and found out.

mod support;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use support::FakeBranch;
use tally_client::Random;
use tally_client::cli::ConnectArgs;
use tally_client::replay::{ReplayArgs, ReplayReport, Speed, execute};
use tally_protocol::AccountStatus;

const ROWS: u64 = 2_000;

/// Payments in the columns of the public data set, made up here; returns the sum of all.
fn sample(folder: &tempfile::TempDir, payee_column: &str) -> (PathBuf, u128) {
    let mut random = Random::from_seed(2018);
    let mut text = format!("tx_id,t,customer_id,{payee_column},amount_cents,fraud,fraud_scenario\n");
    let (mut t, mut total) = (0, 0);
    for tx_id in 0..ROWS {
        t += random.below(3);
        let (customer_id, payee_id, amount) = (random.below(50), random.below(100), 1 + random.below(22_000));
        total += u128::from(amount);
        writeln!(text, "{tx_id},{t},{customer_id},{payee_id},{amount},0,0").expect("memory does not fail");
    }
    let path = folder.path().join("sample.csv");
    std::fs::write(&path, text).expect("a file");
    (path, total)
}

fn args(branch: &FakeBranch, file: PathBuf) -> ReplayArgs {
    ReplayArgs {
        file,
        connect: ConnectArgs::from_file(&branch.connect_file),
        speed_up: Speed::Max,
        sessions: 4,
        in_flight: 16,
        overdraft: false,
        currency: "EUR".to_owned(),
        rows: None,
        tag: String::new(),
        json: None,
        quiet: true,
    }
}

fn counts(report: &ReplayReport) -> [u64; 5] {
    [report.rows, report.posted, report.refused, report.repeated, report.mismatches]
}

#[test]
fn a_second_replay_is_answered_as_repeats_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, total) = sample(&folder, "terminal_id");
    let first = execute(&args(&branch, file.clone())).expect("the branch runs");
    assert!(first.agrees(), "{first}");
    assert_eq!(counts(&first), [ROWS, ROWS, 0, 0, 0]);
    assert_eq!((first.total_minor_units, first.accounts), (total, 150));
    assert!(first.p99_us >= first.p50_us && first.p50_us > 0.0 && first.seconds > 0.0);

    let second = execute(&args(&branch, file.clone())).expect("the branch runs");
    assert!(second.agrees(), "{second}");
    assert_eq!(counts(&second), [ROWS, 0, 0, ROWS, 0]);
    assert_eq!(second.total_minor_units, total);

    // Another tag has accounts and ids of its own; a part of the file shares both.
    let tagged = execute(&ReplayArgs { tag: "b".to_owned(), rows: Some(700), ..args(&branch, file.clone()) });
    assert_eq!(counts(&tagged.expect("the branch runs")), [700, 700, 0, 0, 0]);
    let part = execute(&ReplayArgs { rows: Some(700), ..args(&branch, file) }).expect("the branch runs");
    assert_eq!(counts(&part), [700, 0, 0, 700, 0]);
}

#[test]
fn merchants_overdrafts_and_the_files_own_pace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, _) = sample(&folder, "merchant_id");
    let mut args = args(&branch, file);
    (args.overdraft, args.rows) = (true, Some(200));
    // About 200 seconds of the file in half a second.
    args.speed_up = Speed::Times(400.0);
    let report = execute(&args).expect("the branch runs");
    assert!(report.agrees(), "{report}");
    assert_eq!(counts(&report), [200, 200, 0, 0, 0]);
    assert!((0.3..30.0).contains(&report.seconds), "{}", report.seconds);
    assert!(report.to_string().contains("all agree: 1"), "{report}");
}

#[test]
fn lost_connections_and_busy_answers_do_not_show_in_the_sums() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, total) = sample(&folder, "terminal_id");
    branch.faults.busy.store(100, Ordering::Relaxed);
    branch.faults.hang_up_after.store(1_000, Ordering::Relaxed);
    branch.faults.delay_us.store(300, Ordering::Relaxed);
    let report = execute(&args(&branch, file)).expect("the branch runs");
    assert!(report.agrees(), "{report}");
    assert_eq!(counts(&report), [ROWS, ROWS, 0, 0, 0]);
    assert_eq!(report.total_minor_units, total);
    assert!(report.reconnects >= 1, "{report}");
}

#[test]
fn a_branch_that_loses_a_payment_is_found_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, _) = sample(&folder, "terminal_id");
    branch.faults.forget_every.store(1_999, Ordering::Relaxed);
    let report = execute(&args(&branch, file)).expect("the branch runs");
    assert!(!report.agrees(), "{report}");
    assert_eq!(report.mismatches, 2, "both sides of one payment: {report}");
}

#[test]
fn refused_rows_are_told_one_by_one_and_the_file_is_not_complete() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, _) = sample(&folder, "terminal_id");
    let begun = execute(&ReplayArgs { rows: Some(1), ..args(&branch, file.clone()) }).expect("the branch runs");
    assert!(begun.is_complete(), "{begun}");
    let payer = {
        let mut ledger = branch.ledger.lock().expect("no test panics in it");
        // The only customer so far has the lower account number of the two; the cash account is above all.
        let payer = *ledger.accounts.keys().min().expect("there is one");
        ledger.accounts.get_mut(&payer).expect("there").status = AccountStatus::Frozen as u8;
        payer
    };
    let rows = std::fs::read_to_string(&file).expect("just written");
    let customer = (payer as u64).to_string();
    let rows_of_payer: Vec<u64> = (1..)
        .zip(rows.lines().skip(1))
        .filter_map(|(row, line)| (line.split(',').nth(2) == Some(&*customer)).then_some(row))
        .collect();
    let report = execute(&args(&branch, file)).expect("the branch runs");
    let refused = rows_of_payer.len() as u64 - 1;
    assert!(refused > 10, "too few to leave some out");
    assert_eq!(counts(&report), [ROWS, ROWS - 1 - refused, refused, 1, 0]);
    assert!(report.agrees() && !report.is_complete(), "{report}");
    let told: Vec<u64> = report.refused_rows.iter().map(|row| row.row_count).collect();
    assert_eq!(told, rows_of_payer[1..=10]);
    let text = report.to_string();
    let first = rows_of_payer[1];
    for expected in [
        format!("INCOMPLETE (rows refused: {refused}): "),
        format!("  row {first} (tx_id {}) was refused: debit_account_frozen", first - 1),
        format!("  and {} more", refused - 10),
    ] {
        assert!(text.contains(&expected), "no {expected:?} in\n{text}");
    }
    assert!(!text.contains("all agree"), "{text}");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anything_is_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = FakeBranch::start();
    let (file, _) = sample(&folder, "terminal_id");
    let nowhere = folder.path().join("none/report");
    let connect = ConnectArgs::from_file(&branch.connect_file);
    let load = tally_client::load::LoadArgs::new(connect);
    let errors = [
        tally_client::replay::run(&ReplayArgs { json: Some(nowhere.clone()), ..args(&branch, file) }),
        tally_client::load::run(&tally_client::load::LoadArgs { json: Some(nowhere.clone()), ..load.clone() }),
        tally_client::load::run(&tally_client::load::LoadArgs { hgrm: Some(nowhere), ..load }),
    ];
    for error in errors.map(|result| format!("{:#}", result.expect_err("no such folder"))) {
        assert!(error.contains("none/report: No such file"), "{error}");
    }
    assert_eq!(branch.faults.requests.load(Ordering::Relaxed), 0);
}
