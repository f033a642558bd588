//! The registry as real processes: one node and three, killed, emptied and restarted under a stream of transfers
//! between two branches.

mod books;
mod branch;
mod cluster;
mod proxy;

use std::collections::BTreeSet;
use std::time::Duration;

use branch::TestBranch;
use cluster::{Cluster, wait};
use serde_json::json;
use tally_ledger::two_phase::{AbortReason, Decision};
use tally_protocol::BranchId;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Two branches that are linked, and what they have begun.
struct Bank {
    a: TestBranch,
    b: TestBranch,
    begun: BTreeSet<u128>,
}

impl Bank {
    fn start(cluster: &Cluster) -> Self {
        let start = |id: u16| TestBranch::start(id, cluster.branch_tls(BranchId::new(id)), cluster.endpoints());
        let bank = Self { a: start(1), b: start(2), begun: BTreeSet::new() };
        for branch in [&bank.a, &bank.b] {
            wait("two branches in the routes", || {
                let books = branch.books();
                if books.routes.len() == 2 { Ok(()) } else { Err(format!("{:?}, {:?}", books.routes, books.changed)) }
            });
        }
        bank
    }

    /// Begins `count` transfers, in both directions, a few at a time.
    fn pay(&mut self, count: usize) {
        for _ in 0..count.div_ceil(20) {
            let first = self.begun.last().copied().unwrap_or(0) + 1;
            let (there, back) = (first..first + 10, first + 10..first + 20);
            self.begun.extend(there.clone().chain(back.clone()));
            self.a.begin(there, self.b.id);
            self.b.begin(back, self.a.id);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nobody holds anything, and both know the same.
    fn settle(&self) {
        for branch in [&self.a, &self.b] {
            wait("the end of every transfer", || {
                let books = branch.books();
                if books.held.is_empty() { Ok(()) } else { Err(format!("{} are held", books.held.len())) }
            });
        }
        let (a, b) = (self.a.books(), self.b.books());
        assert!(a.changed.is_empty() && b.changed.is_empty(), "{:?}, {:?}", a.changed, b.changed);
        assert_eq!(a.committed(), b.committed(), "a transfer happens at both branches or at none");
        let known: BTreeSet<u128> = a.decided.keys().chain(b.decided.keys()).copied().collect();
        assert_eq!(known, self.begun, "every transfer has an end");
    }

    fn committed(&self) -> usize {
        self.a.books().committed().len()
    }
}

#[test]
fn one_node_decides_and_remembers_what_it_decided() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut cluster = Cluster::start();
    let mut bank = Bank::start(&cluster);
    bank.pay(400);
    bank.settle();
    assert_eq!(bank.committed(), 400);

    // What nobody began is aborted, by the log.
    bank.a.hold(77_777);
    wait("an answer", || bank.a.books().decided.get(&77_777).copied().ok_or_else(|| "none".to_owned()));
    assert_eq!(bank.a.books().decided[&77_777], Decision::Abort(AbortReason::Presumed));
    bank.begun.insert(77_777);

    cluster.node(1).kill();
    // While it is away: begun, and lost with the link.
    bank.a.begin([88_888], bank.b.id);
    bank.begun.insert(88_888);
    cluster.node(1).start();
    wait("new links", || {
        if bank.a.books().welcomes > 1 && bank.b.books().welcomes > 1 { Ok(()) } else { Err(String::new()) }
    });
    bank.settle();

    // The answers of before, again: as they were.
    let ids: Vec<u128> = bank.begun.iter().copied().collect();
    ids.iter().for_each(|&id| bank.a.hold(id));
    bank.settle();
    cluster.wait("an end of all transfers", |status| status["transfers_in_hand"] == 0 && status["decisions_open"] == 0);

    let node = cluster.node(1);
    node.stop();
    assert!(node.log().contains("stopped"));
    assert!(node.dir().join("snapshots").exists());
}

#[test]
fn an_operator_sees_what_hangs_and_ends_it() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let cluster = Cluster::start();
    let tls = |id: u16| cluster.branch_tls(BranchId::new(id));
    let a = TestBranch::start(1, tls(1), cluster.endpoints());
    {
        // A destination that was there once, and does not answer now.
        let b = TestBranch::start(2, tls(2), cluster.endpoints());
        wait("two branches in the routes", || if a.books().routes.len() == 2 { Ok(b.id) } else { Err(String::new()) });
    }
    a.begin([0xabc], BranchId::new(2));
    let listed = wait("a transfer in doubt", || {
        let listed = cluster.tally(&["txn", "list", "--in-doubt"])?;
        if listed["transfers"].as_array().is_some_and(|list| list.len() == 1) {
            Ok(listed)
        } else {
            Err(listed.to_string())
        }
    });
    let id = format!("{:032x}", 0xabc);
    assert_eq!(listed["transfers"][0]["id"], id);
    assert_eq!(listed["transfers"][0]["destination"], 2);
    let resolved = cluster.tally(&["txn", "resolve", &id, "--reason", "branch 2 is gone", "--operator-name", "ana"]);
    let resolved = resolved.expect("resolved");
    assert_eq!(resolved["decision"]["outcome"], "abort");
    wait("the abort", || a.books().decided.get(&0xabc).copied().ok_or_else(|| "not told".to_owned()));
    assert_eq!(a.books().decided[&0xabc], Decision::Abort(AbortReason::Resolved));
    let shown = cluster.tally(&["txn", "show", &id]).expect("known");
    assert_eq!(shown["decision"]["reason"], "resolved");
    let audit = cluster.tally(&["txn", "audit"]).expect("noted");
    assert_eq!((&audit["entries"][0]["operator"], &audit["entries"][0]["id"]), (&"ana".into(), &id.clone().into()));

    // A key is shown once; two of one service there are never.
    let key = ["cluster", "key", "add", "gateway", "--scope", "routes", "--scope", "status"];
    let added = cluster.tally(&key).expect("added");
    assert_eq!(added["key"].as_str().map(str::len), Some(64));
    let error = cluster.tally(&key).expect_err("it has one");
    assert!(error.contains("the service has a key"), "{error}");
    let listed = cluster.tally(&["cluster", "key", "list"]).expect("listed");
    assert_eq!((&listed["keys"][0]["name"], listed["keys"][0].get("key")), (&"gateway".into(), None));
    cluster.tally(&["cluster", "key", "remove", "gateway"]).expect("removed");
    let error = cluster.tally(&["cluster", "key", "add", "x", "--scope", "all"]).expect_err("no such scope");
    assert!(error.contains("`all` is not one of routes, status, transfers"), "{error}");

    let error = cluster.tally(&["txn", "show", "zz"]).expect_err("no id");
    assert!(error.contains("is no transfer id"), "{error}");
    let error = cluster.tally(&["cluster", "drain", "--branch", "9"]).expect_err("no branch");
    assert!(error.contains("no such branch"), "{error}");
    // A branch that is down is refused at once, and the source is told how it ends.
    cluster.wait("branch 2 to be down", |status| status["branches"][1]["status"] == "down");
    a.begin([0xdef], BranchId::new(2));
    wait("an abort", || a.books().decided.get(&0xdef).copied().ok_or_else(|| "not told".to_owned()));
    assert!(a.books().busy.contains(&0xdef));
}

#[test]
fn another_folder_under_the_same_number_is_not_let_in() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let cluster = Cluster::start();
    let tls = cluster.branch_tls(BranchId::new(1));
    let first = TestBranch::start(1, tls.clone(), cluster.endpoints());
    wait("a welcome", || if first.books().welcomes > 0 { Ok(()) } else { Err(String::new()) });
    let second = TestBranch::start_as(1, 0xdead, tls, cluster.endpoints());
    wait("a refusal", || if second.books().changed.is_empty() { Err(String::new()) } else { Ok(()) });
    let why = second.books().changed[0].clone();
    assert!(why.contains("another data folder"), "{why}");
    assert_eq!(second.books().welcomes, 0);
}

#[test]
fn three_nodes_lose_their_leader_and_then_a_disk() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut cluster = Cluster::start_three();
    let mut bank = Bank::start(&cluster);
    bank.pay(200);
    let lost = cluster.leader();
    bank.pay(100);
    cluster.node(lost).kill();
    bank.pay(300);
    bank.settle();
    assert!(bank.committed() >= 200, "{} were committed", bank.committed());
    let leader = cluster.leader();
    assert_ne!(leader, lost);

    // The old number with an empty disk is somebody else.
    cluster.node(lost).lose_disk();
    cluster.node(lost).start();
    let error = cluster.join(lost, &[]).expect_err("a number never comes back");
    // The first node would found a registry of its own with an empty folder, the others wait to be joined.
    let expected = if lost == 1 { "belongs to registry" } else { "another data folder" };
    assert!(error.contains(expected), "{error}");
    cluster.node(lost).kill();

    // A new number takes its place.
    cluster.add(4, false);
    let replace = lost.to_string();
    cluster.join(4, &["--replace", &replace]).expect("joined");
    let status = cluster.wait("three members", |status| {
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().filter(|node| node["voter"] == true).count() == 3)
    });
    let members: BTreeSet<u64> =
        status["nodes"].as_array().expect("a list").iter().filter_map(|node| node["node"].as_u64()).collect();
    assert!(members.contains(&4) && !members.contains(&lost), "{members:?}");

    // It holds the registry: with the other follower gone, leader and newcomer are the majority.
    let follower = members.iter().copied().find(|&id| id != leader && id != 4).expect("three members");
    cluster.node(follower).kill();
    bank.pay(200);
    bank.settle();
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut cluster = Cluster::start_three();
    let mut bank = Bank::start(&cluster);
    for id in [1, 2, 3] {
        bank.pay(200);
        cluster.node(id).stop();
        bank.pay(200);
        cluster.node(id).start();
        cluster.wait("a node that keeps up", |status| {
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let applied = status["applied_index"].as_u64().unwrap_or(0);
            nodes.len() == 3
                && nodes.iter().all(|node| node["replicated_index"].as_u64().is_some_and(|index| index + 50 >= applied))
        });
    }
    let to = cluster.leader() % 3 + 1;
    let moved = cluster.tally(&["cluster", "transfer-leader", "--to", &to.to_string()]).expect("handed over");
    assert_eq!(moved["leader"], to);
    bank.pay(100);
    bank.settle();
    assert!(bank.committed() >= 600, "{} of {}", bank.committed(), bank.begun.len());
}

#[test]
fn a_leader_that_hangs_is_replaced_and_follows_when_it_goes_on() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut cluster = Cluster::start_three();
    let mut bank = Bank::start(&cluster);
    bank.pay(200);
    let hung = cluster.leader();
    cluster.node(hung).freeze(true);
    bank.pay(200);
    // Nobody has told the branches: a link that is silent is given up, and the others have elected.
    for branch in [&bank.a, &bank.b] {
        wait("another leader's welcome", || if branch.books().welcomes > 1 { Ok(()) } else { Err(String::new()) });
    }
    bank.pay(200);
    // It has slept through an election, with votes and decisions of its own in its sockets.
    cluster.node(hung).freeze(false);
    bank.pay(200);
    bank.settle();
    let status = cluster.wait("a hung node that follows", |status| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let applied = status["applied_index"].as_u64().unwrap_or(0);
        nodes.iter().all(|node| node["replicated_index"].as_u64().is_some_and(|index| index + 50 >= applied))
    });
    assert!(status["term"].as_u64() > Some(1), "{status}");
    assert!(bank.committed() >= 400, "{} of {}", bank.committed(), bank.begun.len());
    cluster.wait("an end of all transfers", |status| status["transfers_in_hand"] == 0 && status["decisions_open"] == 0);
}

#[test]
fn nodes_that_do_not_reach_each_other_promise_nothing_and_go_on_when_they_do() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let cluster = Cluster::start_three_behind_proxies();
    let mut bank = Bank::start(&cluster);
    bank.pay(200);
    bank.settle();
    let committed = bank.committed();

    cluster.cut(true);
    bank.pay(200);
    // The leader finds out by itself that it has no majority, and lets go.
    wait("nobody who serves", || match cluster.tally(&["cluster", "status"]) {
        Ok(status) => Err(status.to_string()),
        Err(error) => Ok(error),
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(bank.committed(), committed, "a commit without a majority");

    cluster.cut(false);
    bank.settle();
    bank.pay(100);
    bank.settle();
    assert!(bank.committed() >= committed + 100, "{}, {committed} before", bank.committed());
}

#[test]
fn a_new_node_is_filled_by_a_snapshot() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut cluster = Cluster::start_three();
    let mut bank = Bank::start(&cluster);
    // So much that the beginning of the log is given up: a snapshot each 500 entries, and 500 kept behind it.
    let mut applied = 0;
    for _ in 0..200 {
        bank.pay(400);
        let status = cluster.wait("a leader", |status| status["leader"].is_u64());
        applied = status["applied_index"].as_u64().unwrap_or(0);
        if applied > 1_200 {
            break;
        }
    }
    assert!(applied > 1_200, "the log has grown to {applied} entries only");
    bank.settle();

    let lost = cluster.leader();
    cluster.node(lost).kill();
    cluster.leader();
    cluster.add(4, false);
    cluster.join(4, &["--replace", &lost.to_string()]).expect("joined");
    assert!(cluster.node(4).log().contains("taken over a snapshot"), "{}", cluster.node(4).log());

    // What was decided before it came it knows as the others do: with one of them gone it is half of the majority.
    let leader = cluster.leader();
    let follower = [1, 2, 3].into_iter().find(|&id| id != lost && id != leader).expect("three");
    cluster.node(follower).kill();
    let ids: Vec<u128> = bank.begun.iter().copied().take(500).collect();
    ids.iter().for_each(|&id| bank.a.hold(id));
    bank.pay(200);
    bank.settle();
}

/// What an auditor's branch says: one currency, its customers' money at the other branch.
fn audited(peer: u16, sent: u64, received: u64, open: u64) -> serde_json::Value {
    let side = |posted: u64| json!({ "posted": posted.to_string(), "early": "0", "late": "0" });
    let sums = (sent + received).to_string();
    json!({ "ok": {
        "state": "done", "durable": 4_096, "records": 7, "accounts_from_checkpoint": 0, "open": open,
        "currencies": [{
            "currency": 978, "accounts": 2, "debits_posted": sums, "credits_posted": sums,
            "debits_held": "0", "credits_held": "0", "holds": "0",
        }],
        "settlements": [{ "peer": peer, "currency": 978, "debits": side(received), "credits": side(sent) }],
    } })
}

#[test]
fn an_audit_names_what_differs_counts_what_is_committed_and_says_who_is_missing() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let cluster = Cluster::start();
    let mut bank = Bank::start(&cluster);
    bank.pay(20);
    bank.settle();
    let committed = *bank.a.books().committed().first().expect("some were");
    let says = |a: serde_json::Value, b: serde_json::Value, legs: serde_json::Value| {
        for (branch, said) in [(&bank.a, a), (&bank.b, b)] {
            let mut books = branch.books();
            books.audit.insert("audit".to_owned(), said);
            books.audit.insert("audit_legs".to_owned(), json!({ "ok": { "open": 0, "legs": [] } }));
            books.audit.insert("audit_go_on".to_owned(), json!({ "ok": { "state": "running" } }));
        }
        bank.a.books().audit.insert("audit_legs".to_owned(), json!({ "ok": legs }));
    };
    let nothing = || json!({ "open": 0, "legs": [] });
    // A payment by itself is decided under its own id; a member of a chain under that of the first.
    let open = |id: u128, decided_under: u128| {
        let (id, decided_under) = (format!("{id:032x}"), format!("{decided_under:032x}"));
        let leg = json!({ "id": id, "decided_under": decided_under, "peer": 2, "currency": 978, "amount": 5, "outgoing": true, "hold": false });
        json!({ "open": 1, "legs": [leg] })
    };
    let nobodys = 0xdead_beef;
    let asked = |arguments: &[&str]| cluster.audit(arguments);

    says(audited(2, 30, 20, 0), audited(1, 20, 30, 0), nothing());
    let (code, answer) = asked(&[]);
    assert_eq!((code, &answer["result"]), (0, &"ok".into()), "{answer:#}");
    assert_eq!(answer["settlements"][0]["sent"], "30");

    // One branch says that it has sent what the other has not received.
    says(audited(2, 35, 20, 0), audited(1, 20, 30, 0), nothing());
    let (code, answer) = asked(&[]);
    assert_eq!((code, &answer["result"]), (1, &"DIFFERS".into()), "{answer:#}");
    let told = answer["findings"][0].as_str().expect("a line");
    assert!(told.contains("branch 1 sent 0.35 EUR to branch 2") && told.contains("0.05 less"), "{told}");

    // What is open at one branch, and posted at the other: right where the registry had committed it, wrong where not.
    for id in [committed, nobodys] {
        says(audited(2, 30, 20, 1), audited(1, 20, 35, 0), open(id, committed));
        let (code, answer) = asked(&[]);
        assert_eq!((code, &answer["result"], &answer["committed"]), (0, &"ok".into(), &1.into()), "{id:x}: {answer:#}");
    }
    for id in [committed, nobodys] {
        says(audited(2, 30, 20, 1), audited(1, 20, 35, 0), open(id, nobodys));
        let (code, answer) = asked(&[]);
        assert_eq!((code, &answer["committed"]), (1, &0.into()), "nobody knows it, so it counts nowhere: {answer:#}");
    }
    says(audited(2, 30, 20, 1), audited(1, 20, 30, 0), open(nobodys, nobodys));
    assert_eq!(asked(&[]).0, 0);

    says(
        audited(2, 30, 20, 0),
        json!({ "error": { "name": "failed", "text": "the journal is damaged at 7" } }),
        nothing(),
    );
    let (code, answer) = asked(&["--wait", "0"]);
    assert_eq!((code, &answer["result"], &answer["missing"][0]["branch"]), (2, &"incomplete".into(), &2.into()));
    assert!(answer["missing"][0]["why"].as_str().is_some_and(|why| why.contains("damaged at 7")), "{answer:#}");
    let Bank { b, .. } = bank;
    drop(b);
    let (code, answer) = cluster.audit(&["--wait", "0"]);
    assert!(
        code == 2 && answer["missing"][0]["why"].as_str().is_some_and(|why| why.contains("branch 2")),
        "{answer:#}"
    );
}
