//! The prompt of `tally up`: a few commands, enough to see money move.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use reedline::{DefaultPrompt, DefaultPromptSegment, Reedline, Signal};
use tally_client::{Between, Client, ConnectFile, ConnectFileAccount, Money, Outcome, next_transfer_id};
use tally_protocol::{AccountId, Amount, Currency, TransferId};
use tokio::runtime::Runtime;

use super::up::is_interactive;

const HELP: &str = "\
balance NAME                          what NAME has
deposit 100.00 EUR to NAME            cash in, over the counter
withdraw 20.00 EUR from NAME          cash out
transfer 12.34 EUR from NAME to NAME  move money
accounts                              all sample accounts with their balances
help                                  this
quit                                  stop the bank and leave
NAME is a sample customer or an account id (0x...).";

/// Reads and runs commands until `quit` or the end of the input. Without a client each says why there is none: the
/// bank is served all the same.
pub(super) fn run(runtime: &Runtime, client: &anyhow::Result<Client>, file: &ConnectFile) -> anyhow::Result<()> {
    let mut lines = Lines::open();
    if is_interactive() {
        println!("Type `help` for what you can do here.");
    }
    while let Some(line) = lines.next()? {
        match parse(&line) {
            Ok(None) => {}
            Ok(Some(Line::Quit)) => return Ok(()),
            Ok(Some(Line::Help)) => println!("{HELP}"),
            Ok(Some(Line::Do(action))) => match client {
                Ok(client) => match runtime.block_on(perform(client, file, &action)) {
                    Ok(answer) => println!("{answer}"),
                    Err(error) => println!("{error:#}"),
                },
                Err(error) => println!("{error:#}"),
            },
            Err(error) => println!("{error:#}"),
        }
    }
    Ok(())
}

/// Where lines come from.
enum Lines {
    Person(Box<Reedline>),
    Script(std::io::StdinLock<'static>),
}

impl Lines {
    fn open() -> Self {
        if is_interactive() {
            Self::Person(Box::new(Reedline::create()))
        } else {
            Self::Script(std::io::stdin().lock())
        }
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Person(editor) => {
                let segment = DefaultPromptSegment::Basic("tally".to_owned());
                match editor.read_line(&DefaultPrompt::new(segment, DefaultPromptSegment::Empty))? {
                    Signal::Success(line) => Ok(Some(line)),
                    _ => Ok(None),
                }
            }
            Self::Script(input) => {
                std::io::stdout().flush()?;
                let mut line = String::new();
                Ok(if input.read_line(&mut line)? == 0 { None } else { Some(line) })
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Quit,
    Help,
    Do(Action),
}

/// What to do, with names as they were typed.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Accounts,
    Balance { of: String },
    Deposit { money: Money, to: String },
    Withdraw { money: Money, from: String },
    Transfer { money: Money, from: String, to: String },
}

fn parse(line: &str) -> anyhow::Result<Option<Line>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(Some(match words[..] {
        [] => return Ok(None),
        ["quit" | "exit"] => Line::Quit,
        ["help" | "?"] => Line::Help,
        ["accounts"] => Line::Do(Action::Accounts),
        ["balance", of] => Line::Do(Action::Balance { of: of.to_owned() }),
        ["deposit", amount, currency, "to", to] => {
            Line::Do(Action::Deposit { money: money(amount, currency)?, to: to.to_owned() })
        }
        ["withdraw", amount, currency, "from", from] => {
            Line::Do(Action::Withdraw { money: money(amount, currency)?, from: from.to_owned() })
        }
        ["transfer", amount, currency, "from", from, "to", to] => {
            Line::Do(Action::Transfer { money: money(amount, currency)?, from: from.to_owned(), to: to.to_owned() })
        }
        [command, ..] => bail!("`{command}` is not understood like this; try `help`"),
    }))
}

fn money(amount: &str, currency: &str) -> anyhow::Result<Money> {
    let currency = Currency::from_code(currency).with_context(|| format!("`{currency}` is not a currency"))?;
    let amount = Amount::parse(amount, currency).with_context(|| format!("`{amount}`"))?;
    Ok(Money { amount, currency })
}

async fn perform(client: &Client, file: &ConnectFile, action: &Action) -> anyhow::Result<String> {
    match action {
        Action::Accounts => {
            let mut lines = Vec::new();
            for account in &file.accounts {
                lines.push(describe(client, &account.name, account.account_id()?).await?);
            }
            Ok(lines.join("\n"))
        }
        Action::Balance { of } => describe(client, of, find(file, of)?).await,
        Action::Deposit { money, to } => {
            let id = next_transfer_id();
            let outcome = client.deposit(id, find(file, to)?, *money).await;
            report(client, file, id, outcome, &[to]).await
        }
        Action::Withdraw { money, from } => {
            let id = next_transfer_id();
            let outcome = client.withdraw(id, find(file, from)?, *money).await;
            report(client, file, id, outcome, &[from]).await
        }
        Action::Transfer { money, from, to } => {
            let id = next_transfer_id();
            let between = Between { debit_account_id: find(file, from)?, credit_account_id: find(file, to)? };
            let outcome = client.transfer(id, between, *money).await;
            report(client, file, id, outcome, &[from, to]).await
        }
    }
}

/// A sample customer's account, or one given by its id.
fn find(file: &ConnectFile, name: &str) -> anyhow::Result<AccountId> {
    if let Some(account) = file.accounts.iter().find(|account| account.name == name) {
        return Ok(account.account_id()?);
    }
    if name.starts_with("0x") {
        let by_id = ConnectFileAccount { id: name.to_owned(), owner: 0, currency: String::new(), name: String::new() };
        return Ok(by_id.account_id()?);
    }
    let names: Vec<_> = file.accounts.iter().map(|account| &*account.name).collect();
    bail!("`{name}` is neither a sample customer ({}) nor an account id (0x...)", names.join(", "))
}

async fn report(
    client: &Client,
    file: &ConnectFile,
    id: TransferId,
    outcome: Outcome,
    names: &[&String],
) -> anyhow::Result<String> {
    let mut lines = vec![match outcome {
        Outcome::Done(_) => format!("done: {id}"),
        Outcome::Refused(refused) => bail!("refused: {refused}"),
        Outcome::NotSent { why, .. } => bail!("not sent: {why}"),
        Outcome::Unknown { why, .. } => format!("not known ({why}): {:?}", client.make_final(id).await?),
    }];
    for name in names {
        lines.push(describe(client, name, find(file, name)?).await?);
    }
    Ok(lines.join("\n"))
}

async fn describe(client: &Client, name: &str, id: AccountId) -> anyhow::Result<String> {
    let balance = client.balance(id).await?;
    let currency = Currency::new(balance.currency.get()).context("the branch named no currency")?;
    let (credits, debits) = (balance.sums.credits_posted.get(), balance.sums.debits_posted.get());
    let sign = if credits < debits { "-" } else { "" };
    let amount = Amount::new(credits.abs_diff(debits));
    let held = Amount::new(balance.sums.debits_held.get());
    let held = if held.is_zero() { String::new() } else { format!(" ({} held)", held.display(currency)) };
    Ok(format!("{name}: {sign}{} {currency}{held}", amount.display(currency)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(minor_units: u64) -> Money {
        Money { amount: Amount::new(minor_units), currency: Currency::EUR }
    }

    #[test]
    fn lines_are_understood() {
        for (line, expected) in [
            ("", None),
            ("  \n", None),
            ("quit", Some(Line::Quit)),
            ("help", Some(Line::Help)),
            ("accounts", Some(Line::Do(Action::Accounts))),
            ("balance alice", Some(Line::Do(Action::Balance { of: "alice".into() }))),
            ("deposit 100.00 EUR to alice", Some(Line::Do(Action::Deposit { money: eur(10_000), to: "alice".into() }))),
            (
                "transfer 12.34 eur from alice to bob",
                Some(Line::Do(Action::Transfer { money: eur(1_234), from: "alice".into(), to: "bob".into() })),
            ),
            ("withdraw 5 EUR from bob", Some(Line::Do(Action::Withdraw { money: eur(500), from: "bob".into() }))),
        ] {
            assert_eq!(parse(line).expect(line), expected, "{line}");
        }
        for line in ["pay 5 EUR to bob", "deposit 1.001 EUR to bob", "deposit -1 EUR to bob", "deposit 1 XXX to bob"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
