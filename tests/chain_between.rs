//! Linked chains between the branches of a running bank, with real processes, also while they are killed: every transfer of a
//! chain happens, or none does, and a repeat says the same.

mod support;

use std::time::{Duration, Instant};

use support::PATIENCE;
use support::bank::{Bank, kill};
use tally_client::{Bank as Client, ChainOutcome, Money, Outcome, next_transfer_id};
use tally_protocol::message::{Transfer, TransferKind};
use tally_protocol::{AccountId, Amount, Currency, Refusal};

fn pay(debit: AccountId, credit: AccountId, amount: u64) -> Transfer {
    Transfer {
        id: next_transfer_id().get().into(),
        debit_account_id: debit.get().into(),
        credit_account_id: credit.get().into(),
        reference: 0.into(),
        user_data_128: 0.into(),
        amount: amount.into(),
        user_data_64: 0.into(),
        user_data_32: 0.into(),
        timeout_s: 0.into(),
        currency: Currency::EUR.get().into(),
        code: 1.into(),
        flags: 0.into(),
        kind: TransferKind::Transfer as u8,
        reserved: 0,
    }
}

/// Sends the chain until every transfer of it has a final answer: why not, for each.
async fn chain(client: &Client, transfers: &[Transfer]) -> Vec<Option<Refusal>> {
    let began = Instant::now();
    loop {
        let outcome = client.chain(transfers).await;
        if let ChainOutcome::Answered(items) = &outcome
            && items.iter().all(|item| item.timestamp.as_nanos() != 0)
        {
            return items.iter().map(|item| Refusal::from_code(item.refusal_code)).collect();
        }
        assert!(began.elapsed() < PATIENCE, "{outcome:?}");
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

#[test]
fn chains_between_branches_happen_whole_or_not_at_all_under_kills() {
    let bank = Bank::start();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| bank.account(name));
    assert_ne!(alice.branch(), carol.branch(), "they are of two branches");
    let client = bank.client(0, Duration::from_secs(5));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deposit = runtime.block_on(async {
        let money = Money { amount: Amount::new(100_000), currency: Currency::EUR };
        client.deposit(next_transfer_id(), alice, money).await
    });
    assert!(matches!(deposit, Outcome::Done(_)), "{deposit:?}");
    let accounts = [alice, bob, carol, dave];
    let mut expected: Vec<i64> = accounts.iter().map(|&id| runtime.block_on(balance(&client, id))).collect();

    // The last transfer of every third chain goes to nobody.
    let nobody = AccountId::of_branch(carol.branch(), 999_999);
    let mut done = Vec::new();
    for round in 0..18u64 {
        let last = if round % 3 == 2 { nobody } else { dave };
        let wires = [pay(alice, carol, 5), pay(alice, bob, 3), pay(alice, last, 2)];
        // A branch, the other, or the registry is killed while the chain is under way.
        let file = bank.file();
        let pid = match round {
            4 => Some(file.branches[0].pid),
            7 => Some(file.branches[1].pid),
            10 => Some(file.registry.as_ref().expect("there is one").pid),
            _ => None,
        };
        let killer = pid.map(|pid| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(2));
                kill(pid);
            })
        });
        if let Some(killer) = killer {
            // Nobody waits for what was killed.
            let _ = runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(200), client.chain(&wires)).await });
            killer.join().expect("it was killed");
            bank.up();
        }
        let told = runtime.block_on(chain(&client, &wires));
        let is_done = told.iter().all(Option::is_none);
        assert!(is_done || told.iter().all(Option::is_some), "{told:?}");
        if last == nobody {
            let broken = Some(Refusal::ChainBroken);
            assert_eq!(told, [broken, broken, Some(Refusal::CreditAccountNotFound)]);
        } else if pid.is_none() {
            assert!(is_done, "{told:?}");
        }
        if is_done {
            expected.iter_mut().zip([-10, 3, 5, 2]).for_each(|(balance, change)| *balance += change);
        }
        done.push((wires, told));
        bank.audit();
    }
    assert!(done.iter().filter(|(_, told)| told[0].is_none()).count() >= 9, "most were done");
    for (wires, told) in &done {
        assert_eq!(runtime.block_on(chain(&client, wires)), *told, "a repeat says the same");
    }
    let began = Instant::now();
    loop {
        let found: Vec<i64> = accounts.iter().map(|&id| runtime.block_on(balance(&client, id))).collect();
        if found == expected {
            break;
        }
        // What the source was told the other branch hears a moment later.
        assert!(began.elapsed() < PATIENCE, "{found:?}, and not {expected:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    bank.audit();
}
