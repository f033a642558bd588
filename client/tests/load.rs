//! The load generator against a branch that fails on demand: what it counts, and what it finds out.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::FakeBranch;
use tally_client::cli::ConnectArgs;
use tally_client::load::{Choice, IdChoice, Load, LoadArgs, LoadReport, Progress, VerifyChoice, execute};
use tally_protocol::Refusal;

fn small(branch: &FakeBranch) -> LoadArgs {
    LoadArgs {
        connections: 4,
        in_flight: 8,
        duration: Duration::from_millis(1_200),
        warmup: Duration::from_millis(100),
        accounts: 500,
        ..LoadArgs::new(ConnectArgs::from_file(&branch.connect_file))
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Watch {
    begun: u32,
    seconds: u32,
    ended: u32,
}

impl tally_client::load::Observer for Watch {
    fn begun(&mut self) {
        self.begun += 1;
    }
    fn second(&mut self, _: &Progress) {
        self.seconds += 1;
    }
    fn ended(&mut self) {
        self.ended += 1;
    }
}

fn run(args: &LoadArgs) -> LoadReport {
    let mut watch = Watch::default();
    let report = execute(args, &mut watch).expect("the branch runs");
    assert_eq!((watch.begun, watch.ended), (1, 1));
    assert!(watch.seconds >= 1);
    report
}

/// On a machine that is busy with other things nothing may be done in a short window: then it is made longer.
fn run_until_something_is_done(args: &mut LoadArgs) -> LoadReport {
    args.duration = Duration::from_millis(600);
    loop {
        let report = run(args);
        if report.measured.done > 0 || args.duration > Duration::from_secs(30) {
            return report;
        }
        args.duration *= 4;
    }
}

#[test]
fn closed_loops_of_every_kind_hold() {
    let base = |branch: &FakeBranch| small(branch);
    let kinds: [(&str, fn(&mut LoadArgs)); 7] = [
        ("uniform", |_| {}),
        ("zipf", |args| args.choice = Choice::Zipf { theta: 0.99 }),
        ("one-hot", |args| args.choice = Choice::OneHot),
        ("sequence", |args| args.ids = IdChoice::Sequence),
        ("batch", |args| (args.batch, args.connections, args.in_flight) = (300, 2, 2)),
        ("reads", |args| args.reads = 50),
        ("threads", |args| args.threads = 2),
    ];
    let branch = FakeBranch::start();
    for (name, change) in kinds {
        let mut args = base(&branch);
        args.warmup = Duration::from_millis(500);
        change(&mut args);
        let report = run_until_something_is_done(&mut args);
        let measured = &report.measured;
        assert!(report.verification.holds, "{name}: {:?}", report.verification);
        assert!(measured.done > 0 && measured.refused == 0 && measured.lost == 0, "{name}: {measured:?}");
        assert!(measured.done_in_all > measured.done, "{name}: the warm-up is not measured");
        assert_eq!(report.verification.accounts_compared, 500, "{name}");
        assert!(report.verification.transfers_looked_up > 0, "{name}");
        let feed = report.verification.feed.expect("everything is checked");
        assert_eq!((feed.acknowledged, feed.found), (measured.done_in_all, measured.done_in_all), "{name}");
        assert_eq!(report.verification.sum_of_balances, Some(500 * 1_000_000_000), "{name}");
        assert_eq!(measured.reads > 0, name == "reads", "{name}");
        assert!(measured.latency.p99_us >= measured.latency.p50_us && measured.latency.p50_us > 0.0, "{name}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let branch = FakeBranch::start();
    let report = run(&LoadArgs { rate: Some(2_000), ..small(&branch) });
    assert!(report.verification.holds, "{:?}", report.verification);
    assert!(report.measured.transfers_per_second < 2_300.0, "{}", report.measured.transfers_per_second);
    assert_eq!(report.measured.latency.count + report.measured.busy, 2_400, "each intended request counts");
}

#[test]
fn without_money_every_transfer_is_refused() {
    let branch = FakeBranch::start();
    let report = run(&LoadArgs { refused: true, ..small(&branch) });
    assert!(report.verification.holds, "{:?}", report.verification);
    assert_eq!(report.measured.done, 0);
    assert!(report.measured.refused > 0 && report.measured.latency.count > 0);
    let feed = report.verification.feed.expect("refusals are checked, too");
    assert!(feed.acknowledged >= report.measured.refused && feed.found == feed.acknowledged, "{feed:?}");
    assert_eq!(report.measured.refusals.keys().collect::<Vec<_>>(), ["insufficient_funds"]);
}

#[test]
fn lost_connections_are_opened_again_and_what_was_in_flight_is_made_final() {
    let branch = FakeBranch::start();
    let faults = std::sync::Arc::clone(&branch.faults);
    let breaking = std::thread::spawn(move || {
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(150));
            faults.hang_up_after.store(20, Ordering::Relaxed);
            faults.swallow.store(1, Ordering::Relaxed);
        }
    });
    let report = run(&LoadArgs { duration: Duration::from_millis(1_800), ..small(&branch) });
    breaking.join().expect("it only sleeps");
    let verification = &report.verification;
    assert!(verification.holds, "{verification:?}");
    assert!(report.measured.reconnects >= 4, "{}", report.measured.reconnects);
    assert!(verification.unknown_done > 0 && verification.unknown_cancelled > 0, "{verification:?}");
}

#[test]
fn busy_answers_are_counted_and_hold() {
    let branch = FakeBranch::start();
    let args = small(&branch);
    branch.faults.busy.store(2_000, Ordering::Relaxed);
    let report = run(&args);
    assert!(report.verification.holds, "{:?}", report.verification);
    assert!(report.measured.refusals["busy"] > 0, "{:?}", report.measured.refusals);
}

#[test]
fn a_branch_that_loses_acknowledged_transfers_is_found_out() {
    for batch in [0, 50] {
        let branch = FakeBranch::start();
        // The deposits of the set-up are forgotten like everything else, so begin late.
        branch.faults.forget_every.store(1_009, Ordering::Relaxed);
        let mut args = LoadArgs { batch, ..small(&branch) };
        args.in_flight = 64;
        let report = run(&args);
        let verification = &report.verification;
        assert!(report.measured.done_in_all > 1_009, "too slow to forget anything");
        assert!(!verification.holds, "{verification:?}");
        assert!(verification.balances_wrong >= 2, "{verification:?}");
        assert!(verification.feed.expect("checked").missing >= 1, "{verification:?}");
        assert!(!verification.examples.is_empty());
    }
}

#[test]
fn a_refusal_that_is_not_recorded_and_a_transfer_that_is_recorded_twice_are_found_out() {
    let branch = FakeBranch::start();
    let args = LoadArgs { refused: true, duration: Duration::from_millis(300), ..small(&branch) };
    for twice in [false, true] {
        let mut load = Load::prepare(&args).expect("the branch runs");
        load.measure(&args, &mut ()).expect("the branch runs");
        {
            let feed = &mut branch.ledger.lock().expect("no test panics in it").feed;
            let mut last = feed.pop().expect("something was refused");
            if twice {
                feed.extend([last, last]);
                feed.last_mut().expect("just put in").lsn.set(last.lsn.get() + 1);
            } else {
                // Refused for another reason than the client was told.
                last.reply.refusal.set(Refusal::DebitAccountFrozen.code());
                feed.push(last);
            }
        }
        let verification = load.verify().expect("the branch runs");
        let feed = verification.feed.expect("checked");
        assert_eq!((feed.missing, feed.surplus), (u64::from(!twice), 1), "{verification:?}");
        assert!(!verification.holds && verification.balances_wrong == 0, "{verification:?}");
    }
}

#[test]
fn accounts_that_are_there_are_used_as_they_are() {
    let branch = FakeBranch::start();
    let args = LoadArgs { accounts_base: Some(7 << 32), duration: Duration::from_millis(300), ..small(&branch) };
    for _ in 0..2 {
        let report = execute(&args, &mut ()).expect("the branch runs");
        assert!(report.verification.holds, "{:?}", report.verification);
    }
    for (verify, all_balances) in [(VerifyChoice::Sample, false), (VerifyChoice::Balances, true)] {
        let report = execute(&LoadArgs { verify, ..args.clone() }, &mut ()).expect("the branch runs");
        let verification = report.verification;
        assert!(verification.holds && verification.feed.is_none(), "{verification:?}");
        assert_eq!(verification.sum_of_balances.is_some(), all_balances);
    }
}

#[test]
fn the_report_is_json_with_the_named_points() {
    let branch = FakeBranch::start();
    let report = execute(&LoadArgs { duration: Duration::from_millis(200), ..small(&branch) }, &mut ());
    let report = report.expect("the branch runs");
    let json = serde_json::to_value(&report).expect("it is plain data");
    for path in [
        "/measured/latency/p99_us",
        "/measured/transfers_per_second",
        "/verification/holds",
        "/verification/feed/found",
        "/verification/seconds",
        "/accounts",
    ] {
        assert!(json.pointer(path).is_some(), "{path} in {json}");
    }
    assert!(report.to_string().contains("verification   holds"), "{report}");
}
