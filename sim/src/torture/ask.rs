//! Requests to the real server, and its answers in the book's words.

use tally_client::{ChainOutcome, Client, ItemOutcome, Outcome, RequestError};
use tally_protocol::message::{Transfer, TransferFound, TransferReply};
use tally_protocol::{Refusal, TransferId};

use super::book::{Answer, is_repeated};
use super::plan::{Shape, Unit};

/// How many requests the checks keep in flight.
const IN_FLIGHT: usize = 64;

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Said {
    /// One answer for each transfer.
    Answered(Vec<Answer>),
    /// Nothing was looked at: a full queue, a server that stops.
    NotTaken(Refusal),
    /// It was sent, and may have been done.
    Unknown,
    /// It never left.
    NotSent,
}

/// Sends a request, once.
pub(crate) async fn send(client: &Client, unit: &Unit) -> anyhow::Result<Said> {
    let many = match unit.shape {
        Shape::Single => {
            return Ok(match client.submit(&unit.transfers[0]).await {
                Outcome::Done(receipt) => Said::Answered(vec![Answer {
                    refusal: None,
                    timestamp: Some(receipt.timestamp.as_nanos()),
                    lsn: Some(receipt.lsn.get()),
                    amount: Some(receipt.amount.get()),
                    repeated: receipt.repeated,
                }]),
                Outcome::Refused(refused) => refused_unit(refused.code, true)?,
                Outcome::Unknown { .. } => Said::Unknown,
                Outcome::NotSent { .. } => Said::NotSent,
            });
        }
        Shape::Chain => client.chain(&unit.transfers).await,
        Shape::Batch => client.batch(&unit.transfers).await,
    };
    Ok(match many {
        ChainOutcome::Answered(items) => Said::Answered(items.iter().map(of_item).collect::<Result<_, _>>()?),
        ChainOutcome::Refused(refused) => refused_unit(refused.code, false)?,
        ChainOutcome::Unknown { .. } => Said::Unknown,
        ChainOutcome::NotSent { .. } => Said::NotSent,
    })
}

fn refusal_of(code: u16) -> anyhow::Result<Option<Refusal>> {
    match code {
        0 => Ok(None),
        code => Refusal::from_code(code).map(Some).ok_or_else(|| anyhow::anyhow!("the server sent refusal {code}")),
    }
}

fn refused_unit(code: u16, single: bool) -> anyhow::Result<Said> {
    let refusal = refusal_of(code)?.ok_or_else(|| anyhow::anyhow!("a refusal without a code"))?;
    if single && refusal.code() >= Refusal::IdMustNotBeZero.code() {
        let answer = Answer { refusal: Some(refusal), timestamp: None, lsn: None, amount: None, repeated: false };
        return Ok(Said::Answered(vec![answer]));
    }
    anyhow::ensure!(refusal.code() < Refusal::IdMustNotBeZero.code(), "a chain or batch was refused as {refusal}");
    Ok(Said::NotTaken(refusal))
}

fn of_item(item: &ItemOutcome) -> anyhow::Result<Answer> {
    let timestamp = Some(item.timestamp.as_nanos()).filter(|&nanos| nanos != 0);
    let refusal = refusal_of(item.refusal_code)?;
    Ok(Answer { refusal, timestamp, lsn: None, amount: None, repeated: item.repeated })
}

/// The answer as the journal has it.
pub(crate) fn of_reply(reply: &TransferReply) -> anyhow::Result<Answer> {
    Ok(Answer {
        refusal: refusal_of(reply.refusal.get())?,
        timestamp: Some(reply.timestamp.get()),
        lsn: Some(reply.lsn.get()),
        amount: Some(reply.amount.get()),
        repeated: is_repeated(reply.flags.get()),
    })
}

/// What the server knows of a transfer; `None` when it knows nothing.
pub(crate) async fn look_up(client: &Client, id: TransferId) -> Result<Option<Box<TransferFound>>, RequestError> {
    match client.find_transfer(id).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.refusal() == Some(Refusal::TransferNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two transfers say the same.
pub(crate) fn same_content(sent: &Transfer, found: &Transfer) -> bool {
    sent == found
}

/// Does `work` for each item, many at a time; results come in any order.
pub(crate) async fn for_each<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        while running.len() >= IN_FLIGHT {
            results.push(running.join_next().await.expect("some are running")??);
        }
        running.spawn(work(item));
    }
    while let Some(done) = running.join_next().await {
        results.push(done??);
    }
    Ok(results)
}
