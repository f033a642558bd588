//! An account moves between the branches of a running bank, with real processes, under load and under kill -9: the total
//! stays, every payment has one effect, and its old id finds the account from every endpoint.

mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::PATIENCE;
use support::bank::{Bank, kill, said};
use tally_client::{Bank as Client, Between, Money, Outcome, Receipt, next_transfer_id};
use tally_protocol::{AccountId, Amount, BranchId, Currency, Refusal, TransferId};

const EUROS: u64 = 100;

/// What moving accounts needs of a bank.
trait Moves {
    fn move_command(&self, account: AccountId, to: u16) -> Command;
    fn move_over(&self, account: AccountId, to: u16);
}

impl Moves for Bank {
    fn move_command(&self, account: AccountId, to: u16) -> Command {
        self.operator(&["cluster", "move-account", &format!("{:032x}", account.get()), "--to", &to.to_string()])
    }

    /// Moves the account, however often that has to be asked for.
    fn move_over(&self, account: AccountId, to: u16) {
        let began = Instant::now();
        loop {
            let output = self.move_command(account, to).output().expect("the program runs");
            if output.status.success() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{}", said(&output));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn euros(amount: u64) -> Money {
    Money { amount: Amount::new(amount * EUROS), currency: Currency::EUR }
}

/// Sends the payment until it has a final answer: its receipt, or the refusal that used the id up.
async fn pay(client: &Client, id: TransferId, between: Between, amount: u64) -> Result<Receipt, Refusal> {
    let began = Instant::now();
    loop {
        let outcome = client.transfer(id, between, euros(amount)).await;
        match &outcome {
            Outcome::Done(receipt) => return Ok(*receipt),
            Outcome::Refused(refused) => match refused.refusal() {
                Some(refusal) if refusal.consumes_id() => return Err(refusal),
                _ => {}
            },
            Outcome::Unknown { .. } | Outcome::NotSent { .. } => {}
        }
        assert!(began.elapsed() < PATIENCE, "{id}: {outcome:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn balance(client: &Client, account: AccountId) -> i64 {
    let began = Instant::now();
    loop {
        match client.balance(account).await {
            Ok(balance) => {
                return balance.sums.credits_posted.get() as i64 - balance.sums.debits_posted.get() as i64;
            }
            Err(error) => assert!(began.elapsed() < PATIENCE, "{account}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What one client of the load has paid: pairs of accounts, and how much.
type Paid = Vec<(Between, u64)>;

/// Pays to and fro until it is told to stop.
fn load(
    client: Client,
    accounts: [AccountId; 4],
    number: usize,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<Paid> {
    std::thread::spawn(move || {
        let [alice, bob, carol, dave] = accounts;
        let routes = [(alice, carol), (carol, alice), (alice, bob), (bob, alice), (dave, alice), (alice, dave)];
        runtime().block_on(async {
            let mut paid = Vec::new();
            let mut next = number;
            while !stop.load(Ordering::Relaxed) {
                let (debit_account_id, credit_account_id) = routes[next % routes.len()];
                next += 1;
                let between = Between { debit_account_id, credit_account_id };
                let amount = 1 + next as u64 % 3;
                match pay(&client, next_transfer_id(), between, amount).await {
                    Ok(receipt) => {
                        assert_eq!(receipt.amount, euros(amount).amount);
                        paid.push((between, amount));
                    }
                    Err(Refusal::InsufficientFunds | Refusal::CreditAccountMoved) => {}
                    // The registry or a branch was killed meanwhile: nothing moved.
                    Err(Refusal::TransferAborted | Refusal::BranchTimedOut) => {}
                    Err(refusal) => panic!("{between:?}: {refusal}"),
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            paid
        })
    })
}

#[test]
fn an_account_moves_under_load_and_kills_and_no_cent_is_lost() {
    let bank = Bank::start();
    let accounts = ["alice", "bob", "carol", "dave"].map(|name| bank.account(name));
    let [alice, bob, carol, _] = accounts;
    let runtime = runtime();
    let client = bank.client(0, PATIENCE);
    let deposit = 1_000;
    runtime.block_on(async {
        for account in accounts {
            let outcome = client.deposit(next_transfer_id(), account, euros(deposit)).await;
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
    });
    // Paid before anything moves: an id that must not be used twice.
    let first = next_transfer_id();
    let to_bob = Between { debit_account_id: alice, credit_account_id: bob };
    let receipt = runtime.block_on(pay(&client, first, to_bob, 7)).expect("she has enough");
    let mut paid: Paid = vec![(to_bob, 7)];

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..3).map(|number| load(bank.client(number % 2, PATIENCE), accounts, number, stop.clone())).collect();
    for to in [2, 1] {
        bank.move_over(alice, to);
        bank.audit();
    }
    // Killed while it is being decided where the account is: a branch, the other, the registry.
    for (round, to) in [2, 1, 2].into_iter().enumerate() {
        let mut moving =
            bank.move_command(alice, to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(15 + 10 * round as u64));
        let file = bank.file();
        kill(match round {
            0 => file.branches[0].pid,
            1 => file.branches[1].pid,
            _ => file.registry.as_ref().expect("there is one").pid,
        });
        // The operator goes away as well.
        moving.kill().expect("ours");
        moving.wait().expect("ours");
        bank.up();
        bank.audit();
        bank.move_over(alice, to);
        bank.audit();
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        paid.extend(client.join().expect("no client has failed"));
    }
    assert!(paid.len() > 50, "{} payments: the load was not one", paid.len());

    // What is in doubt is decided soon: balances are those that the receipts say, seen from either endpoint.
    for endpoint in [0, 1] {
        let client = bank.client(endpoint, PATIENCE);
        for account in accounts {
            let change = |(between, amount): &(Between, u64)| {
                let amount = (amount * EUROS) as i64;
                let credited = if between.credit_account_id == account { amount } else { 0 };
                credited - if between.debit_account_id == account { amount } else { 0 }
            };
            let expected = (deposit * EUROS) as i64 + paid.iter().map(change).sum::<i64>();
            let found = runtime.block_on(async {
                let began = Instant::now();
                loop {
                    let found = balance(&client, account).await;
                    if found == expected || began.elapsed() > Duration::from_secs(10) {
                        return found;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            assert_eq!(found, expected, "{account} from endpoint {endpoint}");
        }
        // The first payment again: answered as the first time, by whichever branch it takes.
        let again = runtime.block_on(pay(&client, first, to_bob, 7)).expect("it was done");
        assert!(again.repeated && again.timestamp == receipt.timestamp, "{again:?}");
    }
    // She is where she was moved to, and pays within that branch.
    let home = runtime.block_on(async {
        let to_carol = Between { debit_account_id: alice, credit_account_id: carol };
        pay(&client, next_transfer_id(), to_carol, 1).await.expect("she has enough");
        client.home_of(alice).await.expect("known").session().await.expect("reached").branch_id
    });
    assert_eq!(home, BranchId::new(2));
    let again = bank.move_command(alice, 2).output().expect("the program runs");
    assert!(again.status.success() && said(&again).contains("\"moved\": false"), "{}", said(&again));
    let nowhere = bank.move_command(alice, 9).output().expect("the program runs");
    assert!(!nowhere.status.success() && said(&nowhere).contains("branch_unknown"), "{}", said(&nowhere));
    let nobody = AccountId::of_branch(BranchId::new(1), 999_999);
    let nothing = bank.move_command(nobody, 2).output().expect("the program runs");
    assert!(!nothing.status.success() && said(&nothing).contains("account_not_found"), "{}", said(&nothing));
}

/// Sends the end of a hold until it is done.
async fn ends(what: &str, ask: impl AsyncFn() -> Outcome) -> Receipt {
    let began = Instant::now();
    loop {
        let outcome = ask().await;
        if let Outcome::Done(receipt) = &outcome {
            return *receipt;
        }
        if let Outcome::Refused(refused) = &outcome {
            assert!(refused.refusal().is_none_or(|refusal| !refusal.consumes_id()), "{what}: {outcome:?}");
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {outcome:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn open_holds_go_along_and_are_ended_by_their_old_ids_from_either_endpoint() {
    let bank = Bank::start();
    let [alice, bob] = ["alice", "bob"].map(|name| bank.account(name));
    let runtime = runtime();
    let clients = [0, 1].map(|endpoint| bank.client(endpoint, PATIENCE));
    let pays = Between { debit_account_id: alice, credit_account_id: bob };
    let is_paid = Between { debit_account_id: bob, credit_account_id: alice };
    let deposit = 1_000;
    let mut expected = [(alice, deposit as i64), (bob, deposit as i64)];
    runtime.block_on(async {
        for account in [alice, bob] {
            let outcome = clients[0].deposit(next_transfer_id(), account, euros(deposit)).await;
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
    });
    for round in 0..3_u64 {
        // Settled in part and in whole, voided, and two that run out.
        let [settled, all, voided, back, expires, expires_too] = [(); 6].map(|()| next_transfer_id());
        runtime.block_on(async {
            for (id, between, amount, timeout_s) in [
                (settled, pays, 30, 0),
                (all, is_paid, 20, 0),
                (voided, pays, 10, 0),
                (back, is_paid, 5, 0),
                (expires, pays, 7, 2),
                (expires_too, is_paid, 6, 2),
            ] {
                ends("a hold", async || clients[0].hold(id, between, euros(amount), timeout_s).await).await;
            }
        });
        let mut moving = bank.move_command(alice, 2).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(10 + 15 * round));
        let file = bank.file();
        kill(match round {
            0 => file.branches[0].pid,
            1 => file.branches[1].pid,
            _ => file.registry.as_ref().expect("there is one").pid,
        });
        moving.kill().expect("ours");
        moving.wait().expect("ours");
        bank.up();
        bank.audit();
        // An attempt that was aborted late has used the ids up there: then she moves when the holds have ended.
        let began = Instant::now();
        loop {
            let moved = bank.move_command(alice, 2).output().expect("the program runs");
            if moved.status.success() || said(&moved).contains("account_holds_stay") {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{}", said(&moved));
            std::thread::sleep(Duration::from_millis(100));
        }
        bank.audit();
        runtime.block_on(async {
            let held = clients[1].balance(alice).await.expect("she is found").sums;
            assert!(held.debits_held.get() >= 40 * EUROS && held.credits_held.get() >= 25 * EUROS, "{held:?}");
            for (client, other) in [(0, 1), (1, 0)] {
                let (client, other) = (&clients[client], &clients[other]);
                let (hold, payer, amount) = if std::ptr::eq(client, &clients[0]) {
                    (settled, alice, Some(euros(12).amount))
                } else {
                    (all, bob, None)
                };
                let id = next_transfer_id();
                let receipt = ends("a settle", async || client.settle(id, payer, hold, amount).await).await;
                assert_eq!(receipt.amount, amount.unwrap_or(euros(20).amount));
                let again = ends("a settle again", async || other.settle(id, payer, hold, amount).await).await;
                assert!(again.repeated && again.timestamp == receipt.timestamp, "{again:?}");
            }
            for (client, hold, payer) in [(1, voided, alice), (0, back, bob)] {
                let id = next_transfer_id();
                ends("a void", async || clients[client].void(id, payer, hold).await).await;
            }
            let late = clients[0].settle(next_transfer_id(), alice, voided, None).await;
            let Outcome::Refused(refused) = &late else { panic!("{late:?}") };
            assert_eq!(refused.refusal(), Some(Refusal::HoldAlreadyVoided));
        });
        bank.audit();
        expected[0].1 += 20 - 12;
        expected[1].1 += 12 - 20;
        let began = Instant::now();
        for (account, euros) in expected {
            for client in &clients {
                runtime.block_on(async {
                    loop {
                        let sums = client.balance(account).await.map(|balance| balance.sums);
                        let is_over = sums.as_ref().is_ok_and(|sums| {
                            let balance = sums.credits_posted.get() as i64 - sums.debits_posted.get() as i64;
                            let held = sums.debits_held.get() + sums.credits_held.get();
                            held == 0 && balance == euros * EUROS as i64
                        });
                        if is_over {
                            return;
                        }
                        assert!(began.elapsed() < PATIENCE, "{account}: {sums:?}, not {euros} euros");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
            }
        }
        bank.audit();
        // Home again for the next round: what has ended is in nobody's way.
        bank.move_over(alice, 1);
    }
}

#[test]
fn a_hold_to_another_branch_is_one_within_it_once_either_account_has_gone_there() {
    let bank = Bank::start();
    let [alice, carol] = ["alice", "carol"].map(|name| bank.account(name));
    let runtime = runtime();
    let clients = [0, 1].map(|endpoint| bank.client(endpoint, PATIENCE));
    let pays = Between { debit_account_id: alice, credit_account_id: carol };
    let deposit = 1_000;
    runtime.block_on(async {
        let outcome = clients[0].deposit(next_transfer_id(), alice, euros(deposit)).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    });
    // The payer goes to the payee, the payee to the payer, and both once more while somebody else is killed.
    for (round, (account, home, to)) in (0_u64..).zip([(alice, 1, 2), (carol, 2, 1), (alice, 1, 2), (carol, 2, 1)]) {
        let [settled, voided, expires] = [(); 3].map(|()| next_transfer_id());
        runtime.block_on(async {
            for (id, amount, timeout_s) in [(settled, 30, 0), (voided, 10, 0), (expires, 7, 3)] {
                ends("a hold", async || clients[0].hold(id, pays, euros(amount), timeout_s).await).await;
            }
        });
        let mut moving =
            bank.move_command(account, to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(10 + 10 * round));
        let file = bank.file();
        kill(match round {
            0 | 3 => file.branches[0].pid,
            1 => file.branches[1].pid,
            _ => file.registry.as_ref().expect("there is one").pid,
        });
        moving.kill().expect("ours");
        moving.wait().expect("ours");
        bank.up();
        bank.audit();
        // Whatever became of that attempt, no id has been used up by it.
        bank.move_over(account, to);
        bank.audit();
        runtime.block_on(async {
            let id = next_transfer_id();
            let amount = Some(euros(12).amount);
            let receipt = ends("a settle", async || clients[0].settle(id, alice, settled, amount).await).await;
            assert_eq!(receipt.amount, euros(12).amount);
            let again = ends("a settle again", async || clients[1].settle(id, alice, settled, amount).await).await;
            assert!(again.repeated && again.timestamp == receipt.timestamp, "{again:?}");
            let id = next_transfer_id();
            ends("a void", async || clients[1].void(id, alice, voided).await).await;
            let late = clients[0].settle(next_transfer_id(), alice, voided, None).await;
            let Outcome::Refused(refused) = &late else { panic!("{late:?}") };
            assert_eq!(refused.refusal(), Some(Refusal::HoldAlreadyVoided));
        });
        bank.audit();
        let paid = ((round + 1) * 12 * EUROS) as i64;
        let began = Instant::now();
        for (account, expected) in [(alice, (deposit * EUROS) as i64 - paid), (carol, paid)] {
            for client in &clients {
                runtime.block_on(async {
                    loop {
                        let sums = client.balance(account).await.map(|balance| balance.sums);
                        let is_over = sums.as_ref().is_ok_and(|sums| {
                            let balance = sums.credits_posted.get() as i64 - sums.debits_posted.get() as i64;
                            sums.debits_held.get() + sums.credits_held.get() == 0 && balance == expected
                        });
                        if is_over {
                            return;
                        }
                        assert!(began.elapsed() < PATIENCE, "{account}: {sums:?}, not {expected} cents");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
            }
        }
        bank.audit();
        // Home again for the next round.
        bank.move_over(account, home);
    }
}
