//! A bank of several branches on one machine: `tally up`, `tally shell` and `tally down`, with a registry and real processes.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::bank::said;
use support::{tally, until};
use tally_client::{Between, ClientOptions, ConnectFile, Money, Outcome, next_transfer_id};
use tally_protocol::message::TransferState;
use tally_protocol::{AccountId, Amount, BranchId, Currency, Refusal, Timestamp};

fn up(dir: &Path) -> Command {
    let mut command = tally();
    command.arg("up").arg("--dir").arg(dir).stdin(Stdio::null());
    for setting in ["journal.segment_len_bytes=4194304", "journal.free_bytes_min=0"] {
        command.arg("--set").arg(setting);
    }
    command
}

/// A bank that is taken down when dropped.
struct Bank {
    folder: tempfile::TempDir,
}

impl Bank {
    fn start(arguments: &[&str]) -> Self {
        let bank = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        bank.up(arguments);
        bank
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn up(&self, arguments: &[&str]) -> String {
        let output = up(self.dir()).arg("--detach").args(arguments).output().expect("the program runs");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }

    fn down(&self) -> String {
        said(&tally().arg("down").arg("--dir").arg(self.dir()).output().expect("the program runs"))
    }

    fn connect_file(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir().join("connect.json")).expect("written")).expect("JSON")
    }

    /// What one command of the shell answers, and whether it was done.
    fn shell(&self, user: &str, command: &str) -> (bool, Value) {
        let output = tally()
            .args(["shell", "--json", "--user", user, "-c", command, "--connect"])
            .arg(self.dir().join("connect.json"))
            .output()
            .expect("the program runs");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.success(), answer)
    }

    fn done(&self, command: &str) -> Value {
        let (ok, answer) = self.shell("teller", command);
        assert!(ok, "{command}: {answer}");
        answer
    }

    fn balance(&self, name: &str) -> String {
        self.done(&format!("balance {name}"))["balances"][0]["balance"].as_str().expect("text").to_owned()
    }

    fn pids(&self) -> Vec<u64> {
        let file = self.connect_file();
        let branches = file["branches"].as_array().expect("a list").iter().map(|branch| &branch["pid"]);
        let nodes = file["registry"]["nodes"].as_array().expect("a list").iter().map(|node| &node["pid"]);
        branches.chain(nodes).map(|pid| pid.as_u64().expect("a number")).collect()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.down();
    }
}

/// Nobody may be there to reap an orphan: one that has ended counts as gone.
fn is_gone(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
}

#[test]
fn a_customer_of_one_branch_pays_a_customer_of_another_at_the_prompt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("bank");
    let at_the_prompt = |lines: &str| {
        let mut child = up(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("typed");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let printed = at_the_prompt(
        "deposit 100.00 EUR to alice\ntransfer 12.34 EUR from alice to carol\ntransfer 2.34 EUR from carol to bob\n\
         transfer 500 EUR from alice to carol\ntransfer 1 EUR from alice to 0x90000000000000000000000000001\nstatus\nquit\n",
    );
    for expected in [
        "A new bank of 2 branches serves",
        "customer of branch 2",
        "alice: 87.66 EUR\ncarol: 12.34 EUR\n",
        "carol: 10.00 EUR\nbob: 2.34 EUR\n",
        "refused: insufficient_funds: the account has less than that",
        "refused: branch_unknown: the bank has no branch of that number",
        "transfers since its start",
        "stopping ...",
    ] {
        assert!(printed.contains(expected), "no `{expected}` in\n{printed}");
    }
    let printed = at_the_prompt("accounts\n");
    assert!(
        printed.contains("The bank of 2 branches serves")
            && printed.contains("alice: 87.66 EUR\nbob: 2.34 EUR\ncarol: 10.00 EUR\ndave: 0.00 EUR\n"),
        "{printed}"
    );
    for member in ["registry", "branch-1", "branch-2"] {
        assert!(!dir.join(member).join("server.json").exists(), "{member} has ended");
    }
}

#[test]
fn a_detached_bank_tells_clients_where_everything_is_and_gets_lost_processes_back() {
    let bank = Bank::start(&[]);
    let file = bank.connect_file();
    assert_eq!(file["endpoint"], file["branches"][0]["endpoint"], "what clients of one branch are told is the first");
    assert_eq!(file["accounts"], file["branches"][0]["accounts"]);
    assert_eq!(file["branches"][1]["branch_id"], 2);
    assert_eq!(file["branches"][1]["accounts"][0]["name"], "carol");
    for name in ["ca_file", "cert_file", "key_file"] {
        assert!(Path::new(file["registry"][name].as_str().expect("a path")).exists(), "{name}");
    }
    let registry = file["registry"]["endpoints"][0].as_str().expect("text");
    let status = tally()
        .args(["cluster", "status", "--json", "--registry", registry, "--tls"])
        .arg(bank.dir().join("tls"))
        .output()
        .expect("the program runs");
    assert!(status.status.success() && said(&status).contains("serving"), "{}", said(&status));

    bank.done("deposit 50 EUR to alice");
    let paid = bank.done("transfer 20 EUR from alice to carol");
    assert_eq!((&paid["balances"][0]["balance"], &paid["balances"][1]["balance"]), (&"30.00".into(), &"20.00".into()));
    let shown = bank.done(&format!("show {}", paid["id"].as_str().expect("an id")));
    assert_eq!([&shown["branches"][0]["state"], &shown["branches"][1]["state"]], ["done", "done"]);

    // Customers log in at the branches that they need; what is not theirs is refused, and the refusal says what helps.
    assert!(bank.shell("alice", "transfer 1 EUR from alice to dave").0);
    for (user, command, refusal) in [
        ("alice", "deposit 1 EUR to alice", "not_permitted"),
        ("alice", "transfer 1 EUR from carol to alice", "not_owner"),
        ("alice", "balance carol", "not_permitted"),
        ("teller", "transfer 99 EUR from carol to alice", "insufficient_funds"),
        ("teller", "transfer 1 USD from carol to alice", "accounts_currency_mismatch"),
    ] {
        let (ok, answer) = bank.shell(user, command);
        let known = answer["refusal"] == refusal || answer["refusal"] == "transfer_currency_mismatch";
        assert!(!ok && known && answer["advice"].as_str().is_some_and(|text| text.len() > 10), "{command}: {answer}");
    }

    // A hold between branches stands until the payer's branch ends it; whichever branch is asked knows it.
    let held = bank.done("hold 6 EUR from alice to carol");
    let hold_id = held["id"].as_str().expect("an id").to_owned();
    assert_eq!([&held["balances"][0]["held"], &held["balances"][0]["balance"]], ["6.00", "29.00"]);
    assert_eq!(bank.shell("carol", &format!("settle {hold_id}")).1["refusal"], "not_owner");
    assert!(!bank.shell("teller", &format!("settle {hold_id} 7 EUR")).0);
    let settled = bank.done(&format!("settle {hold_id} 4 EUR"));
    assert_eq!([&settled["balances"][0]["balance"], &settled["balances"][1]["balance"]], ["25.00", "24.00"]);
    let shown = bank.done(&format!("show {hold_id}"));
    assert_eq!([&shown["branches"][0]["state"], &shown["branches"][1]["state"]], ["settled", "settled"]);
    let again = bank.shell("teller", &format!("void {hold_id}"));
    assert_eq!((again.0, &again.1["refusal"]), (false, &"hold_already_settled".into()));

    // A branch is lost: `up` brings that one back, where it was, and leaves the others alone.
    let before = bank.pids();
    assert!(Command::new("kill").args(["-KILL", &before[1].to_string()]).status().expect("kill is there").success());
    until(|| is_gone(before[1]).then_some(()));
    assert!(said(&up(bank.dir()).args(["--branches", "1"]).output().expect("runs")).contains("tally cluster leave"));
    bank.up(&[]);
    let after = bank.pids();
    assert!(after[0] == before[0] && after[2] == before[2] && after[1] != before[1], "{before:?} {after:?}");
    assert_eq!(bank.connect_file()["branches"][1]["endpoint"], file["branches"][1]["endpoint"]);
    bank.done("transfer 1 EUR from carol to alice");
    assert_eq!(
        (bank.balance("alice"), bank.balance("carol"), bank.balance("dave")),
        ("26.00".into(), "23.00".into(), "1.00".into())
    );
    assert!(said(&up(bank.dir()).arg("--detach").output().expect("runs")).contains("is running in"));

    assert!(bank.down().contains("stopped"));
    until(|| after.iter().all(|&pid| is_gone(pid)).then_some(()));
    assert!(bank.down().contains("not running"));
}

#[test]
fn a_bank_grows_by_a_branch_whose_customers_are_paid_at_once() {
    let bank = Bank::start(&["--branches", "2"]);
    bank.done("deposit 10 EUR to bob");
    let users = bank.connect_file()["users"].clone();
    bank.down();
    let printed = bank.up(&["--branches", "3"]);
    assert!(printed.contains("branch 3"), "{printed}");
    bank.done("transfer 4 EUR from bob to erin");
    assert!(bank.shell("erin", "transfer 1.50 EUR from erin to dave").0);
    assert_eq!(
        (bank.balance("bob"), bank.balance("erin"), bank.balance("dave")),
        ("6.00".into(), "2.50".into(), "1.50".into())
    );
    let grown = bank.connect_file()["users"].clone();
    let known = users.as_array().expect("a list");
    assert_eq!(grown.as_array().expect("a list")[..known.len()], known[..], "passwords stay");
}

#[test]
fn a_bank_of_which_one_process_does_not_start_is_not_left_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let refused = |arguments: &[&str]| {
        let output = up(dir).arg("--detach").args(arguments).output().expect("the program runs");
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    };
    assert!(refused(&["--branches", "0"]).contains("1 to 64"));
    assert!(refused(&["--set", "branch.id=7"]).contains("the same to every branch"));
    assert!(refused(&["--set", "limits.in_flight_max=0"]).contains("`limits.in_flight_max` (flag)"));
    assert_eq!(std::fs::read_dir(dir).expect("ours").count(), 0, "a bad value is told before anything is made");
    assert!(refused(&["--set", "metrics.address=127.0.0.1:29"]).contains("would both listen at 127.0.0.1:29"));

    std::fs::write(dir.join("branch-2/tls/server.pem"), "not a certificate").expect("ours");
    let told = refused(&[]);
    assert!(told.contains("branch-2 ended at its start") && told.contains("tls.cert_file"), "{told}");
    let down = tally().arg("down").arg("--dir").arg(dir).output().expect("the program runs");
    assert!(said(&down).contains("not running"), "{}", said(&down));
    for member in ["registry", "branch-1"] {
        assert!(!dir.join(member).join("server.json").exists(), "{member} was stopped in order");
    }
}

/// `tally audit balance`: how it ended, and what it said.
fn audit(bank: &Bank, arguments: &[&str]) -> (i32, Value) {
    let file = bank.connect_file();
    let registry = file["registry"]["endpoints"][0].as_str().expect("text");
    let output = tally()
        .args(["audit", "balance", "--json", "--registry", registry, "--tls"])
        .arg(bank.dir().join("tls"))
        .args(arguments)
        .output()
        .expect("the program runs");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output.status.code().expect("it ended by itself"), answer)
}

#[test]
fn the_books_agree_at_every_instant_while_payments_cross_and_a_branch_dies_and_comes_back() {
    let bank = Bank::start(&["--set", "checkpoint.interval_s=2"]);
    let loaded = bank.dir().join("connect.json");
    let mut load = tally()
        .args(["load", "--cross", "60", "--duration", "25s", "--warmup", "0s", "--connections", "4", "--quiet"])
        .args(["--accounts", "100", "--verify", "none", "--connect"])
        .arg(&loaded)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let sent = |answer: &Value| {
        let pairs = answer["settlements"].as_array().expect("a list").clone();
        let pair = pairs.into_iter().find(|pair| pair["source"] == 1);
        pair.map_or(0, |pair| pair["sent"].as_str().and_then(|sent| sent.parse::<u64>().ok()).expect("a sum"))
    };
    until(|| (sent(&audit(&bank, &[]).1) > 0).then_some(()));
    let (mut last, mut cuts) = (0, 0);
    while cuts < 20 {
        let (code, answer) = audit(&bank, &[]);
        assert_eq!((code, &answer["result"]), (0, &"ok".into()), "cut {cuts}: {answer:#}");
        assert!(sent(&answer) >= last, "money does not come back: {answer:#}");
        last = sent(&answer);
        cuts += 1;
        if cuts == 8 {
            let pid = bank.pids()[1];
            assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill is there").success());
            let (code, answer) = audit(&bank, &["--wait", "0"]);
            assert_eq!((code, &answer["result"]), (2, &"incomplete".into()), "{answer:#}");
            assert_eq!(answer["missing"][0]["branch"], 2, "{answer:#}");
            // It comes back while the audit waits for it.
            let bank = &bank;
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| audit(bank, &["--wait", "60"]));
                bank.up(&[]);
                let (code, answer) = waiting.join().expect("no panic");
                assert_eq!((code, &answer["result"]), (0, &"ok".into()), "{answer:#}");
            });
        }
    }
    load.wait().expect("ours");
    let (code, answer) = audit(&bank, &[]);
    assert_eq!((code, &answer["result"]), (0, &"ok".into()), "{answer:#}");
    let from_checkpoint = |branch: &Value| branch["accounts_from_checkpoint"].as_u64().is_some_and(|count| count > 0);
    assert!(answer["branches"].as_array().expect("a list").iter().all(from_checkpoint), "{answer:#}");
}

#[test]
fn who_shows_the_stamp_of_a_payment_sees_it_at_the_other_branch_at_once() {
    let bank = Bank::start(&[]);
    bank.done("deposit 1000 EUR to alice");
    let file = ConnectFile::read(&bank.dir().join("connect.json")).expect("written");
    let accounts = bank.connect_file();
    let account = |branch: usize| -> AccountId {
        let text = accounts["branches"][branch]["accounts"][0]["id"].as_str().expect("an id").to_owned();
        AccountId::new(u128::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal"))
    };
    let between = Between { debit_account_id: account(0), credit_account_id: account(1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let info = file.connect_info(Some("teller")).expect("a user");
        let client = tally_client::Bank::connect(info, ClientOptions::default()).await.expect("it serves");
        let money = Money { amount: Amount::new(1), currency: Currency::EUR };
        let mut stamp = Timestamp::default();
        for paid in 1..=500 {
            let id = next_transfer_id();
            let Outcome::Done(receipt) = client.transfer(id, between, money).await else { panic!("payment {paid}") };
            assert!(receipt.timestamp > stamp);
            stamp = receipt.timestamp;
            let reader = client.read_after(stamp);
            let balance = reader.balance(between.credit_account_id).await.expect("it waits");
            assert_eq!(balance.sums.credits_posted.get(), paid, "payment {paid}");
            let there = client.branch(BranchId::new(2)).await.expect("known").read_after(stamp);
            let found = there.find_transfer(id).await.expect("it waits");
            assert_eq!(found.state, TransferState::Done as u8, "payment {paid}");
        }
        let ahead = client.read_after(Timestamp::from_nanos(stamp.as_nanos() + 60_000_000_000));
        let error = ahead.account(between.credit_account_id).await.expect_err("no clock is a minute ahead");
        assert_eq!(error.refusal(), Some(Refusal::StampAhead));
        client.close();
    });
}

#[test]
fn a_bank_does_not_outlive_an_attached_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = up(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
    let bank = Bank { folder };
    until(|| {
        std::fs::read(bank.dir().join("connect.json"))
            .ok()
            .filter(|text| serde_json::from_slice::<Value>(text).is_ok_and(|file| file["registry"]["pid"].is_u64()))
    });
    let pids = bank.pids();
    child.kill().expect("ours");
    child.wait().expect("ours");
    until(|| pids.iter().all(|&pid| is_gone(pid)).then_some(()));
}

#[test]
fn a_registry_of_three_nodes_grows_out_of_one_and_outlives_its_first() {
    let bank = Bank::start(&[]);
    bank.done("deposit 50 EUR to alice");
    bank.down();
    let printed = bank.up(&["--registry-nodes", "3"]);
    assert_eq!(printed.matches("\n  registry ").count(), 3, "{printed}");
    bank.done("transfer 20 EUR from alice to carol");

    let before = bank.connect_file();
    let first = &before["registry"]["nodes"][0];
    let killed = Command::new("kill").arg("-KILL").arg(first["pid"].to_string()).status().expect("a program");
    assert!(killed.success());
    // The other two elect, and the branches find whom; until then a payment is refused, and not done.
    until(|| bank.shell("teller", "transfer 5 EUR from alice to carol").0.then_some(()));
    assert_eq!(bank.balance("carol"), "25.00");

    bank.up(&[]);
    let after = bank.connect_file();
    assert_eq!(before["registry"]["endpoints"], after["registry"]["endpoints"]);
    assert_ne!(first["pid"], after["registry"]["nodes"][0]["pid"]);
    assert_eq!(before["registry"]["nodes"][1], after["registry"]["nodes"][1], "who runs is left alone");
    bank.done("transfer 5 EUR from carol to alice");
    let output = up(bank.dir()).args(["--detach", "--registry-nodes", "2"]).output().expect("the program runs");
    assert!(!output.status.success() && said(&output).contains("1, 3 or 5"), "{}", said(&output));
}
