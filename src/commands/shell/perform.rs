//! Carries an action out at the bank.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tally_client::{
    Bank, Between, ConnectFile, ConnectFileAccount, Final, Money, Outcome, Refused, RequestError, next_transfer_id,
};
use tally_protocol::message::{Transfer, TransferFound, TransferKind, TransferState};
use tally_protocol::{AccountId, Amount, BranchId, Currency, Refusal, TransferId};

use super::answer::{Answer, BranchLine, Holding, Known};
use super::line::Action;

const POSTED_WITHIN: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Does it. An error is about what was typed: nothing was sent.
pub(crate) async fn perform(bank: &Bank, file: &ConnectFile, action: &Action) -> anyhow::Result<Answer> {
    let id = next_transfer_id();
    match action {
        Action::Accounts => {
            let accounts: Vec<_> = file.all_accounts().map(|account| &*account.name).collect();
            holdings(bank, file, &accounts).await
        }
        Action::Balance { of } => holdings(bank, file, &[of]).await,
        Action::Deposit { money, to } => {
            let account = find(file, to)?;
            let outcome = bank.deposit(id, account, *money).await;
            report(bank, file, id, account, outcome, &[to]).await
        }
        Action::Withdraw { money, from } => {
            let account = find(file, from)?;
            let outcome = bank.withdraw(id, account, *money).await;
            report(bank, file, id, account, outcome, &[from]).await
        }
        Action::Transfer { money, from, to } => transfer(bank, file, id, *money, [from, to]).await,
        Action::Hold { money, from, to } => {
            let between = Between { debit_account_id: find(file, from)?, credit_account_id: find(file, to)? };
            let outcome = bank.hold(id, between, *money, 0).await;
            report(bank, file, id, between.debit_account_id, outcome, &[from, to]).await
        }
        Action::Settle { hold_id, money } => end(bank, file, id, *hold_id, Ending::Settle(*money)).await,
        Action::Void { hold_id } => end(bank, file, id, *hold_id, Ending::Void).await,
        Action::Show { id } => Ok(show(bank, *id).await),
        Action::Status => Ok(status(bank).await),
    }
}

async fn transfer(
    bank: &Bank,
    file: &ConnectFile,
    id: TransferId,
    money: Money,
    names: [&String; 2],
) -> anyhow::Result<Answer> {
    let between = Between { debit_account_id: find(file, names[0])?, credit_account_id: find(file, names[1])? };
    let outcome = bank.transfer(id, between, money).await;
    if matches!(outcome, Outcome::Done(_)) && between.credit_account_id.branch() != between.debit_account_id.branch() {
        wait_until_posted(bank, between.credit_account_id, id).await;
    }
    report(bank, file, id, between.debit_account_id, outcome, &[names[0], names[1]]).await
}

/// What is to become of a hold.
enum Ending {
    /// So much of it is paid, or all.
    Settle(Option<Money>),
    Void,
}

async fn end(
    bank: &Bank,
    file: &ConnectFile,
    id: TransferId,
    hold_id: TransferId,
    ending: Ending,
) -> anyhow::Result<Answer> {
    let hold = match find_hold(bank, hold_id).await {
        Ok(Some(hold)) => hold,
        Ok(None) => bail!("no branch knows a hold `{hold_id}`: `hold` prints its id"),
        Err(error) => return Ok(Answer::of_error(error)),
    };
    let [payer, payee] = [&hold.debit_account_id, &hold.credit_account_id].map(|id| AccountId::new(id.get()));
    let outcome = match ending {
        Ending::Settle(Some(money)) if money.currency.get() != hold.currency.get() => {
            bail!("the hold is in another currency; `show {hold_id}` tells which")
        }
        Ending::Settle(money) => bank.settle(id, payer, hold_id, money.map(|money| money.amount)).await,
        Ending::Void => bank.void(id, payer, hold_id).await,
    };
    if matches!(outcome, Outcome::Done(_)) && payee.branch() != payer.branch() {
        wait_until_ended(bank, payee, hold_id).await;
    }
    let names = [payer, payee].map(|id| name_of(file, id));
    report(bank, file, id, payer, outcome, &names.each_ref()).await
}

/// The hold, as whichever branch answers first has it.
async fn find_hold(bank: &Bank, hold_id: TransferId) -> Result<Option<Transfer>, RequestError> {
    bank.ask_again().await.map_err(RequestError::NotSent)?;
    let mut failed = None;
    for &branch_id in bank.routes().branches.keys() {
        match async { bank.branch(branch_id).await?.find_transfer(hold_id).await }.await {
            Ok(found) if found.transfer.kind == TransferKind::Hold as u8 => return Ok(Some(found.transfer)),
            Err(RequestError::Refused(refused)) if refused.refusal() == Some(Refusal::TransferNotFound) => {}
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// The payee's branch follows a moment later.
async fn wait_until_ended(bank: &Bank, payee: AccountId, hold_id: TransferId) {
    let begun = Instant::now();
    while begun.elapsed() < POSTED_WITHIN {
        let found = async { bank.home_of(payee).await?.find_transfer(hold_id).await }.await;
        match found.map(|found| TransferState::from_wire(found.state)) {
            Ok(Some(TransferState::Prepared | TransferState::Done)) => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(_) | Err(_) => return,
        }
    }
}

/// The sample customer whose account it is, else the account's id.
fn name_of(file: &ConnectFile, id: AccountId) -> String {
    let is_it = |account: &&ConnectFileAccount| account.account_id().is_ok_and(|known| known == id);
    file.all_accounts().find(is_it).map_or_else(|| format!("{:#x}", id.get()), |account| account.name.clone())
}

/// The payer hears as soon as it is decided, and the payee's branch a moment later: so that what is shown then is not of
/// the moment before. Whoever may not look, or looks for too long, is shown what there is.
async fn wait_until_posted(bank: &Bank, account: AccountId, id: TransferId) {
    let begun = Instant::now();
    while begun.elapsed() < POSTED_WITHIN {
        let found = async { bank.home_of(account).await?.find_transfer(id).await }.await;
        match found.map(|found| TransferState::from_wire(found.state)) {
            Ok(Some(TransferState::Prepared | TransferState::InFlight)) => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(_) | Err(_) => return,
        }
    }
}

/// A sample customer's account, or one given by its id.
fn find(file: &ConnectFile, name: &str) -> anyhow::Result<AccountId> {
    if let Some(account) = file.all_accounts().find(|account| account.name == name) {
        return Ok(account.account_id()?);
    }
    if name.starts_with("0x") {
        let by_id = ConnectFileAccount { id: name.to_owned(), owner: 0, currency: String::new(), name: String::new() };
        return Ok(by_id.account_id()?);
    }
    let names: Vec<_> = file.all_accounts().map(|account| &*account.name).collect();
    bail!("`{name}` is neither a sample customer ({}) nor an account id (0x...)", names.join(", "))
}

async fn holdings(bank: &Bank, file: &ConnectFile, names: &[&str]) -> anyhow::Result<Answer> {
    let mut all = Vec::new();
    for name in names {
        match bank.balance(find(file, name)?).await {
            Ok(balance) => all.push(Holding::new(name, &balance).context("the branch named no currency")?),
            Err(error) => return Ok(Answer::of_error(error)),
        }
    }
    Ok(Answer::Holdings(all))
}

/// What became of a transfer that begins at the home of `account`.
async fn report(
    bank: &Bank,
    file: &ConnectFile,
    id: TransferId,
    account: AccountId,
    outcome: Outcome,
    names: &[&String],
) -> anyhow::Result<Answer> {
    let was_unknown = match outcome {
        Outcome::Done(_) => None,
        Outcome::Refused(refused) => return Ok(Answer::Refused { id: Some(id), refused }),
        Outcome::NotSent { why, .. } => return Ok(Answer::NotSent(why)),
        Outcome::Unknown { why, .. } => {
            let why = why.to_string();
            match make_final(bank, account, id).await {
                Ok(Final::Done(_)) => Some(why),
                Ok(Final::Refused(found)) => {
                    let refused = Refused::of_code(found.reply.refusal.get());
                    return Ok(Answer::Refused { id: Some(id), refused });
                }
                Ok(Final::Never) => return Ok(Answer::Never { id, why }),
                Err(error) => return Ok(Answer::Unknown { id, why: error.to_string() }),
            }
        }
    };
    // A customer may not look at the other party's balance: that is no reason to hide what was done.
    let mut holdings = Vec::new();
    for name in names {
        if let Ok(balance) = bank.balance(find(file, name)?).await {
            holdings.extend(Holding::new(name, &balance));
        }
    }
    Ok(Answer::Done { id, was_unknown, holdings })
}

async fn make_final(bank: &Bank, account: AccountId, id: TransferId) -> Result<Final, RequestError> {
    bank.home_of(account).await?.make_final(id).await
}

async fn status(bank: &Bank) -> Answer {
    if let Err(why) = bank.ask_again().await {
        return Answer::NotSent(why);
    }
    let mut lines = Vec::new();
    for (branch_id, route) in bank.routes().branches {
        let answered = async { bank.branch(branch_id).await?.status().await }.await;
        lines.push(BranchLine {
            branch_id,
            endpoint: route.endpoint,
            status: route.status.name(),
            answered: answered
                .map(|status| (status.accounts.get(), status.transfers_posted.get()))
                .map_err(|error: RequestError| error.to_string()),
        });
    }
    Answer::Branches(lines)
}

async fn show(bank: &Bank, id: TransferId) -> Answer {
    if let Err(why) = bank.ask_again().await {
        return Answer::NotSent(why);
    }
    let mut known = Vec::new();
    for &branch_id in bank.routes().branches.keys() {
        let found = async { bank.branch(branch_id).await?.find_transfer(id).await }.await;
        known.push(known_at(branch_id, found));
    }
    Answer::Transfer { id, known }
}

fn known_at(branch_id: BranchId, found: Result<Box<TransferFound>, RequestError>) -> Known {
    match found {
        Ok(found) => {
            let state = TransferState::from_wire(found.state);
            Known {
                branch_id,
                what: state.ok_or_else(|| format!("state {}", found.state)),
                refusal: match found.reply.refusal.get() {
                    0 => None,
                    code => Some(Refused::of_code(code).to_string()),
                },
                money: Currency::new(found.transfer.currency.get())
                    .map(|currency| (Amount::new(found.transfer.amount.get()), currency)),
            }
        }
        Err(error) => Known { branch_id, what: Err(error.to_string()), refusal: None, money: None },
    }
}
