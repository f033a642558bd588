//! One method for each message of the protocol.

use std::time::{Duration, Instant};

use tally_protocol::message::{
    Account, AccountOpen, BATCH_LEN_MAX, Balance, CHAIN_LEN_MAX, ItemResult, LimitsSet, Status, Transfer,
    TransferFound, TransferState,
};
use tally_protocol::reply::Reply;
use tally_protocol::request::{Lookup, Request};
use tally_protocol::{AccountId, Amount, Refusal, TransferId};

use crate::client::Answer;
use crate::outcome::Failure;
use crate::{
    Between, BranchRoute, Cancelled, ChainOutcome, Client, Final, ItemOutcome, Money, Outcome, Receipt, Refused,
    RequestError, Resolution, Routes, transfers,
};

/// Between two looks at a transfer that is in flight.
const IN_FLIGHT_WAIT: Duration = Duration::from_millis(5);
/// How long a transfer may be in flight before [`Client::make_final`] gives up on it.
const IN_FLIGHT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads the one reply that answers the request; any other is a refusal or unexpected.
macro_rules! expect_reply {
    ($pattern:pat => $value:expr) => {
        |reply| match reply {
            $pattern => Answer::Value($value),
            other => Answer::other(other),
        }
    };
}

/// Transfers.
impl Client {
    /// Sends any transfer, as it is.
    pub async fn submit(&self, transfer: &Transfer) -> Outcome {
        let id = TransferId::new(transfer.id.get());
        let ended = self
            .request_once_known(&Request::Transfer(transfer), |reply| match reply {
                Reply::Transfer { reply, balances } => match Receipt::read(id, reply, balances) {
                    Ok(receipt) => Answer::Value(receipt),
                    Err(refused) => Answer::Refused(refused),
                },
                other => Answer::other(other),
            })
            .await;
        match ended.result.map_err(|error| Failure::of(error, ended.unanswered)) {
            Ok(receipt) => Outcome::Done(receipt),
            Err(Failure::Refused(refused)) => Outcome::Refused(refused),
            Err(Failure::Unknown(why)) => Outcome::Unknown { id, why },
            Err(Failure::NotSent(why)) => Outcome::NotSent { id, why },
        }
    }

    /// Pays `money` into an account, from the branch's cash.
    pub async fn deposit(&self, id: TransferId, credit_account_id: AccountId, money: Money) -> Outcome {
        self.submit(&transfers::deposit(id, credit_account_id, money)).await
    }

    /// Pays `money` out of an account, to the branch's cash.
    pub async fn withdraw(&self, id: TransferId, debit_account_id: AccountId, money: Money) -> Outcome {
        self.submit(&transfers::withdraw(id, debit_account_id, money)).await
    }

    /// Moves `money` at once.
    pub async fn transfer(&self, id: TransferId, between: Between, money: Money) -> Outcome {
        self.submit(&transfers::transfer(id, between, money)).await
    }

    /// Reserves `money` until it is settled or voided, or `timeout_s` seconds have passed (0: for ever).
    pub async fn hold(&self, id: TransferId, between: Between, money: Money, timeout_s: u32) -> Outcome {
        self.submit(&transfers::hold(id, between, money, timeout_s)).await
    }

    /// Posts `amount` of the hold `hold_id` and gives the rest back; without an amount, all of it.
    pub async fn settle(&self, id: TransferId, hold_id: TransferId, amount: Option<Amount>) -> Outcome {
        self.submit(&transfers::settle(id, hold_id, amount.unwrap_or(Amount::ZERO))).await
    }

    /// Gives the hold `hold_id` back.
    pub async fn void(&self, id: TransferId, hold_id: TransferId) -> Outcome {
        self.submit(&transfers::void(id, hold_id)).await
    }

    /// Posts the opposite of the transfer `posted_id`.
    pub async fn reverse(&self, id: TransferId, posted_id: TransferId) -> Outcome {
        self.submit(&transfers::reverse(id, posted_id)).await
    }

    /// All of 1 to 256 transfers, or none.
    ///
    /// # Panics
    /// When there are more.
    pub async fn chain(&self, transfers: &[Transfer]) -> ChainOutcome {
        assert!(transfers.len() <= CHAIN_LEN_MAX, "{} transfers in a chain", transfers.len());
        self.many(&Request::Chain(transfers), transfers.len(), |reply| match reply {
            Reply::Chain(items) => Ok(items),
            other => Err(other),
        })
        .await
    }

    /// 1 to 8,190 transfers, each on its own unless its `LINKED` flag joins it to the next.
    ///
    /// # Panics
    /// When there are more.
    pub async fn batch(&self, transfers: &[Transfer]) -> ChainOutcome {
        assert!(transfers.len() <= BATCH_LEN_MAX, "{} transfers in a batch", transfers.len());
        self.many(&Request::Batch(transfers), transfers.len(), |reply| match reply {
            Reply::Batch(items) => Ok(items),
            other => Err(other),
        })
        .await
    }

    async fn many(
        &self,
        request: &Request<'_>,
        count: usize,
        items_of: impl for<'a> Fn(Reply<'a>) -> Result<&'a [ItemResult], Reply<'a>>,
    ) -> ChainOutcome {
        let ended = self
            .request_once_known(request, |reply| match items_of(reply) {
                Ok(items) => read_items(items, count),
                Err(other) => Answer::other(other),
            })
            .await;
        match ended.result.map_err(|error| Failure::of(error, ended.unanswered)) {
            Ok(items) => ChainOutcome::Answered(items),
            Err(Failure::Refused(refused)) => ChainOutcome::Refused(refused),
            Err(Failure::Unknown(why)) => ChainOutcome::Unknown { why },
            Err(Failure::NotSent(why)) => ChainOutcome::NotSent { why },
        }
    }

    /// What the branch recorded about a transfer; [`Refusal::TransferNotFound`] when it has not seen it.
    pub async fn find_transfer(&self, id: TransferId) -> Result<Box<TransferFound>, RequestError> {
        self.request(
            &self.look_up(Lookup::Transfer(id)),
            expect_reply!(Reply::TransferFound(found) => Box::new(*found)),
        )
        .await
    }

    /// Asks what became of an id whose outcome is not known.
    pub async fn resolve(&self, id: TransferId) -> Result<Resolution, RequestError> {
        let found = match self.find_transfer(id).await {
            Ok(found) => found,
            Err(error) if error.refusal() == Some(Refusal::TransferNotFound) => return Ok(Resolution::Absent),
            Err(error) => return Err(error),
        };
        match TransferState::from_wire(found.state) {
            Some(
                TransferState::Done
                | TransferState::Settled
                | TransferState::Voided
                | TransferState::Expired
                | TransferState::Reversed,
            ) => Ok(Resolution::Done(found)),
            Some(TransferState::Refused) => Ok(Resolution::Refused(found)),
            Some(TransferState::InFlight | TransferState::Prepared) => Ok(Resolution::InFlight),
            Some(TransferState::Cancelled) => Ok(Resolution::Cancelled),
            None => Err(RequestError::Unexpected(format!("transfer state {}", found.state))),
        }
    }

    /// Burns an id that was never used, durably: whatever is still under way with it will be refused.
    pub async fn cancel(&self, id: TransferId) -> Result<Cancelled, RequestError> {
        let read = |reply: Reply<'_>| match reply {
            Reply::CancelId(item) => done_or_refused(item),
            other => Answer::other(other),
        };
        match self.request(&Request::CancelId(id), read).await {
            Ok(()) => Ok(Cancelled::Burnt),
            Err(error) => match error.refusal() {
                Some(Refusal::IdCancelled) => Ok(Cancelled::Burnt),
                Some(Refusal::IdAlreadyUsed) => Ok(Cancelled::AlreadyUsed),
                Some(_) | None => Err(error),
            },
        }
    }

    /// Turns an unknown outcome into a known one: what was done stays done, what was not done never will be.
    pub async fn make_final(&self, id: TransferId) -> Result<Final, RequestError> {
        if self.cancel(id).await? == Cancelled::Burnt {
            return Ok(Final::Never);
        }
        let give_up = Instant::now() + IN_FLIGHT_WAIT_MAX;
        loop {
            match self.resolve(id).await? {
                Resolution::Done(found) => return Ok(Final::Done(found)),
                Resolution::Refused(found) => return Ok(Final::Refused(found)),
                Resolution::Cancelled => return Ok(Final::Never),
                Resolution::InFlight if Instant::now() < give_up => tokio::time::sleep(IN_FLIGHT_WAIT).await,
                Resolution::InFlight => return Err(RequestError::DeadlinePassed),
                Resolution::Absent => {
                    return Err(RequestError::Unexpected("an id is both used and unknown".to_owned()));
                }
            }
        }
    }
}

/// Accounts.
impl Client {
    /// Opens 1 to 8,190 accounts; one answer each, in order. Those that `account_flags::LINKED` joins are opened all or
    /// none.
    ///
    /// # Panics
    /// When there are more.
    pub async fn open_accounts(&self, opens: &[AccountOpen]) -> Result<Vec<ItemOutcome>, RequestError> {
        assert!(opens.len() <= BATCH_LEN_MAX, "{} accounts to open at once", opens.len());
        let read = |reply: Reply<'_>| match reply {
            Reply::OpenAccounts(items) => read_items(items, opens.len()),
            other => Answer::other(other),
        };
        self.request(&Request::OpenAccounts(opens), read).await
    }

    /// Closes an account for good; it must be empty.
    pub async fn close_account(&self, id: AccountId) -> Result<(), RequestError> {
        let read = |reply: Reply<'_>| match reply {
            Reply::CloseAccount(item) => done_or_refused(item),
            other => Answer::other(other),
        };
        self.request(&Request::CloseAccount(id), read).await
    }

    /// Keeps an account out of new transfers.
    pub async fn freeze_account(&self, id: AccountId) -> Result<(), RequestError> {
        let read = |reply: Reply<'_>| match reply {
            Reply::FreezeAccount(item) => done_or_refused(item),
            other => Answer::other(other),
        };
        self.request(&Request::FreezeAccount(id), read).await
    }

    /// Lets a frozen account take part again.
    pub async fn unfreeze_account(&self, id: AccountId) -> Result<(), RequestError> {
        let read = |reply: Reply<'_>| match reply {
            Reply::UnfreezeAccount(item) => done_or_refused(item),
            other => Answer::other(other),
        };
        self.request(&Request::UnfreezeAccount(id), read).await
    }

    /// Gives an account new limits.
    pub async fn set_limits(&self, limits: &LimitsSet) -> Result<(), RequestError> {
        let read = |reply: Reply<'_>| match reply {
            Reply::SetLimits(item) => done_or_refused(item),
            other => Answer::other(other),
        };
        self.request(&Request::SetLimits(limits), read).await
    }

    /// An account's balance, with holds, at one instant.
    pub async fn balance(&self, id: AccountId) -> Result<Balance, RequestError> {
        self.request(&self.look_up(Lookup::Balance(id)), expect_reply!(Reply::Balance(balance) => *balance)).await
    }

    /// All about an account.
    pub async fn account(&self, id: AccountId) -> Result<Account, RequestError> {
        self.request(&self.look_up(Lookup::Account(id)), expect_reply!(Reply::Account(account) => *account)).await
    }
}

/// The branch.
impl Client {
    /// Asks for an answer, and nothing else; returns how long it took.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        let begun = Instant::now();
        self.request(&Request::Ping, expect_reply!(Reply::Pong => ())).await?;
        Ok(begun.elapsed())
    }

    /// The branches of the bank, as far as this one knows.
    pub async fn routes(&self) -> Result<Routes, RequestError> {
        let here = self.endpoint();
        let read = |reply: Reply<'_>| match reply {
            Reply::Routes(told) => Answer::Value(Routes {
                version: told.version(),
                branches: told
                    .iter()
                    .map(|route| {
                        let endpoint = if route.endpoint.is_empty() { &here } else { route.endpoint };
                        (route.branch_id, BranchRoute { endpoint: endpoint.to_owned(), status: route.status })
                    })
                    .collect(),
            }),
            other => Answer::other(other),
        };
        self.request(&Request::GetRoutes, read).await
    }

    /// How the branch is.
    pub async fn status(&self) -> Result<Status, RequestError> {
        self.request(&Request::GetStatus, expect_reply!(Reply::Status(status) => *status)).await
    }
}

fn done_or_refused(item: &ItemResult) -> Answer<()> {
    match item.refusal.get() {
        0 => Answer::Value(()),
        code => Answer::Refused(Refused::of_code(code)),
    }
}

fn read_items(items: &[ItemResult], count: usize) -> Answer<Vec<ItemOutcome>> {
    if items.len() == count {
        Answer::Value(items.iter().map(ItemOutcome::from).collect())
    } else {
        Answer::Unexpected(format!("{} answers to {count} entries", items.len()))
    }
}
