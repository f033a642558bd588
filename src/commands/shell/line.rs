//! What can be typed: one line, one action. Names are as they were typed.

use anyhow::{Context, bail};
use tally_client::Money;
use tally_protocol::{Amount, Currency, TransferId};

/// For `help`.
pub(crate) const HELP: &str = "\
balance NAME                          what NAME has
deposit 100.00 EUR to NAME            cash in, over the counter
withdraw 20.00 EUR from NAME          cash out
transfer 12.34 EUR from NAME to NAME  move money, also to a customer of another branch
hold 9.00 EUR from NAME to NAME       promise money, also to a customer of another branch
settle ID [5.00 EUR]                  pay what hold ID promised, or so much of it
void ID                               give back what hold ID promised
accounts                              all sample accounts with their balances
show ID                               what every branch knows of a transfer
status                                the branches, and how they are
help                                  this
quit                                  leave
NAME is a sample customer or an account id (0x...).";

/// A line that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Quit,
    Help,
    Do(Action),
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accounts,
    Balance { of: String },
    Deposit { money: Money, to: String },
    Withdraw { money: Money, from: String },
    Transfer { money: Money, from: String, to: String },
    Hold { money: Money, from: String, to: String },
    Settle { hold_id: TransferId, money: Option<Money> },
    Void { hold_id: TransferId },
    Show { id: TransferId },
    Status,
}

/// Reads a line; `None` if there is nothing on it.
pub(crate) fn parse(line: &str) -> anyhow::Result<Option<Line>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let action = match words[..] {
        [] => return Ok(None),
        ["quit" | "exit"] => return Ok(Some(Line::Quit)),
        ["help" | "?"] => return Ok(Some(Line::Help)),
        ["accounts"] => Action::Accounts,
        ["status"] => Action::Status,
        ["balance", of] => Action::Balance { of: of.to_owned() },
        ["deposit", amount, currency, "to", to] => {
            Action::Deposit { money: money(amount, currency)?, to: to.to_owned() }
        }
        ["withdraw", amount, currency, "from", from] => {
            Action::Withdraw { money: money(amount, currency)?, from: from.to_owned() }
        }
        ["transfer", amount, currency, "from", from, "to", to] => {
            Action::Transfer { money: money(amount, currency)?, from: from.to_owned(), to: to.to_owned() }
        }
        ["hold", amount, currency, "from", from, "to", to] => {
            Action::Hold { money: money(amount, currency)?, from: from.to_owned(), to: to.to_owned() }
        }
        ["settle", id] => Action::Settle { hold_id: transfer_id(id)?, money: None },
        ["settle", id, amount, currency] => {
            Action::Settle { hold_id: transfer_id(id)?, money: Some(money(amount, currency)?) }
        }
        ["void", id] => Action::Void { hold_id: transfer_id(id)? },
        ["show", id] => Action::Show { id: transfer_id(id)? },
        [command, ..] => bail!("`{command}` is not understood like this; try `help`"),
    };
    Ok(Some(Line::Do(action)))
}

fn money(amount: &str, currency: &str) -> anyhow::Result<Money> {
    let currency = Currency::from_code(currency).with_context(|| format!("`{currency}` is not a currency"))?;
    let amount = Amount::parse(amount, currency).with_context(|| format!("`{amount}`"))?;
    Ok(Money { amount, currency })
}

fn transfer_id(text: &str) -> anyhow::Result<TransferId> {
    match u128::from_str_radix(text.trim_start_matches("0x"), 16) {
        Ok(raw) if raw != 0 && raw != u128::MAX => Ok(TransferId::new(raw)),
        Ok(_) | Err(_) => bail!("`{text}` is not a transfer id: 32 hexadecimal digits, as `transfer` prints them"),
    }
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
            ("status", Some(Line::Do(Action::Status))),
            ("show 0f", Some(Line::Do(Action::Show { id: TransferId::new(15) }))),
            ("balance alice", Some(Line::Do(Action::Balance { of: "alice".into() }))),
            ("deposit 100.00 EUR to alice", Some(Line::Do(Action::Deposit { money: eur(10_000), to: "alice".into() }))),
            (
                "transfer 12.34 eur from alice to bob",
                Some(Line::Do(Action::Transfer { money: eur(1_234), from: "alice".into(), to: "bob".into() })),
            ),
            (
                "hold 9 EUR from alice to bob",
                Some(Line::Do(Action::Hold { money: eur(900), from: "alice".into(), to: "bob".into() })),
            ),
            ("settle 0f", Some(Line::Do(Action::Settle { hold_id: TransferId::new(15), money: None }))),
            ("settle 0f 5 EUR", Some(Line::Do(Action::Settle { hold_id: TransferId::new(15), money: Some(eur(500)) }))),
            ("void 0f", Some(Line::Do(Action::Void { hold_id: TransferId::new(15) }))),
            ("withdraw 5 EUR from bob", Some(Line::Do(Action::Withdraw { money: eur(500), from: "bob".into() }))),
        ] {
            assert_eq!(parse(line).expect(line), expected, "{line}");
        }
        for line in [
            "pay 5 EUR to bob",
            "deposit 1.001 EUR to bob",
            "deposit -1 EUR to bob",
            "deposit 1 XXX to bob",
            "settle",
            "settle 0f 5",
            "void bob",
            "show",
            "show 0",
            "show bob",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
