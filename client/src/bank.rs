//! The client of a whole bank: one endpoint is known, the branches are found.
//!
//! An account may have moved: the branch that its id names, or another where it was, says where it is now, and that is
//! remembered. A transfer that was used at a former branch is answered there.
//!
//! Invariant: a request only ever goes to the branch that is meant: a session with another one is not used, so a
//! refusal or an outcome is that branch's, and a retry with the same id is safe wherever the branch has moved.

use std::collections::BTreeMap;
use std::num::NonZeroU128;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tally_protocol::message::{Account, Balance, Transfer, TransferKind};
use tally_protocol::{AccountId, Amount, BranchId, Refusal, Timestamp, TransferId};

use crate::directory::Directory;
use crate::{
    Between, ChainOutcome, Client, ClientOptions, ConnectError, ConnectInfo, Dialer, Money, Outcome, Refused,
    RequestError, RetryPolicy, Routes, transfers,
};

/// Branches that one request is sent on to: an account moves rarely, and not while somebody follows it.
const REDIRECTS_MAX: usize = 5;
/// Accounts of which it is remembered that they have moved. When there are more all are asked about again.
const MOVED_MAX: usize = 65_536;

/// A client of a bank of any number of branches. Cheap to clone; all clones share the connections.
///
/// Each branch has its own users: the same name and password are used at all of them.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tally_client::{Bank, Between, ClientOptions, ConnectFile, Money, next_transfer_id};
/// use tally_protocol::{AccountId, Amount, BranchId, Currency};
///
/// let info = ConnectFile::read("bank/connect.json".as_ref())?.connect_info(None)?;
/// let bank = Bank::connect(info, ClientOptions::default()).await?;
/// let between = Between {
///     debit_account_id: AccountId::of_branch(BranchId::new(1), 1_001),
///     credit_account_id: AccountId::of_branch(BranchId::new(2), 1_001),
/// };
/// let money = Money { amount: Amount::new(12_50), currency: Currency::EUR };
/// let outcome = bank.transfer(next_transfer_id(), between, money).await;
/// println!("{outcome:?}, {:?}", bank.balance(between.credit_account_id).await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Bank {
    inner: Arc<Inner>,
    options: ClientOptions,
    trace_id: Option<NonZeroU128>,
    after: Option<Timestamp>,
}

#[derive(Debug)]
struct Inner {
    directory: Arc<Directory>,
    /// Opened on first use; only branches that were told of.
    clients: Mutex<BTreeMap<BranchId, Client>>,
    /// Accounts that are not where their ids say, as far as branches have told.
    moved: Mutex<BTreeMap<AccountId, BranchId>>,
}

impl Bank {
    /// Asks the branch at `info.endpoint` for the others. `options` hold for each branch.
    ///
    /// # Errors
    /// When nobody answers there, or the login is refused.
    pub async fn connect(info: ConnectInfo, options: ClientOptions) -> Result<Self, ConnectError> {
        let bank = Self::new(info, options)?;
        bank.ask_again().await?;
        Ok(bank)
    }

    /// A bank that is asked when it is first used.
    ///
    /// # Errors
    /// When `info` cannot be used.
    pub fn new(info: ConnectInfo, options: ClientOptions) -> Result<Self, ConnectError> {
        Self::with_endpoints(info, [], options)
    }

    /// The same where more endpoints are known: one that answers is enough.
    ///
    /// # Errors
    /// When `info` cannot be used.
    pub fn with_endpoints(
        info: ConnectInfo,
        others: impl IntoIterator<Item = String>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        // What cannot be used is told now, and not by every call.
        Dialer::new(info.clone())?;
        let inner = Inner {
            directory: Arc::new(Directory::new(info, others)),
            clients: Mutex::default(),
            moved: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), options, trace_id: None, after: None })
    }

    /// The same connections with another deadline for each call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { options: ClientOptions { deadline, ..self.options }, ..self.clone() }
    }

    /// The same connections with another idea of when to try again.
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { options: ClientOptions { retry, ..self.options }, ..self.clone() }
    }

    /// The same connections with requests that carry this W3C trace id; see [`Client::with_trace_id`].
    pub fn with_trace_id(&self, trace_id: NonZeroU128) -> Self {
        Self { trace_id: Some(trace_id), ..self.clone() }
    }

    /// The same connections with look-ups that show everything up to `stamp`; see [`Client::read_after`].
    pub fn read_after(&self, stamp: Timestamp) -> Self {
        Self { after: Some(stamp), ..self.clone() }
    }

    /// The branches as they are known now: none before the first use.
    pub fn routes(&self) -> Routes {
        self.inner.directory.routes()
    }

    /// Asks where the branches are, unless that was just told. There is no need to: this happens by itself when a
    /// branch is not known, not reached, another than expected, or knows newer routes.
    ///
    /// # Errors
    /// When no branch answers.
    pub async fn ask_again(&self) -> Result<(), ConnectError> {
        match tokio::time::timeout(self.options.deadline, self.inner.directory.ask()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectError::DeadlinePassed),
        }
    }

    /// The client of one branch, wherever it is from time to time: for all that has no method here.
    ///
    /// # Errors
    /// `BranchUnknown` when the bank has none of this number, others when the bank cannot be asked.
    pub async fn branch(&self, branch_id: BranchId) -> Result<Client, ConnectError> {
        let located = self.inner.directory.locate(branch_id);
        tokio::time::timeout(self.options.deadline, located)
            .await
            .map_err(|_elapsed| ConnectError::DeadlinePassed)??;
        let mut clients = self.inner.clients.lock().expect("nothing panics while it holds the clients");
        let client = match clients.get(&branch_id) {
            Some(client) => client,
            None => {
                let dialer = Dialer::of_branch(self.inner.directory.clone(), branch_id)?;
                clients.entry(branch_id).or_insert(Client::over(dialer, self.options))
            }
        };
        Ok(client.with(self.options, self.trace_id, self.after))
    }

    /// The client of the branch where the account is: the one that its id names, or where it has moved, as far as that
    /// was told.
    ///
    /// # Errors
    /// As [`Self::branch`].
    pub async fn home_of(&self, account_id: AccountId) -> Result<Client, ConnectError> {
        self.branch(self.branch_of(account_id)).await
    }

    fn branch_of(&self, account_id: AccountId) -> BranchId {
        self.moved().get(&account_id).copied().unwrap_or(account_id.branch())
    }

    fn moved(&self) -> MutexGuard<'_, BTreeMap<AccountId, BranchId>> {
        self.inner.moved.lock().expect("nothing panics while it holds what has moved")
    }

    /// Where else to ask, after `refused` by `asked`; remembers where the account is.
    fn redirected(&self, account_id: AccountId, asked: BranchId, refused: &Refused) -> Option<BranchId> {
        let branch = refused.branch().filter(|&branch| branch != asked)?;
        if refused.refusal() == Some(Refusal::AccountMoved) {
            let mut moved = self.moved();
            if moved.len() >= MOVED_MAX {
                moved.clear();
            }
            moved.insert(account_id, branch);
        }
        Some(branch)
    }

    /// Asks the branch where the account is, and the next one while it is told that the account is there.
    async fn follow<T, F: Future<Output = Result<T, RequestError>>>(
        &self,
        account_id: AccountId,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, RequestError> {
        let mut branch = self.branch_of(account_id);
        let mut redirects = 0;
        loop {
            let result = ask(self.branch(branch).await?).await;
            let Err(RequestError::Refused(refused)) = &result else { return result };
            match self.redirected(account_id, branch, refused) {
                Some(next) if redirects < REDIRECTS_MAX => branch = next,
                Some(_) | None => return result,
            }
            redirects += 1;
        }
    }

    /// Closes all connections. Calls in flight end as lost; a later call opens new ones.
    pub fn close(&self) {
        let clients = self.inner.clients.lock().expect("nothing panics while it holds the clients");
        clients.values().for_each(Client::close);
        self.inner.directory.close();
    }

    /// Sends any transfer that names an account, as it is, to the branch that must begin it. A settle, void or reversal
    /// that leaves out the accounts goes to the branch of what it refers to: [`Self::branch`].
    pub async fn submit(&self, transfer: &Transfer) -> Outcome {
        let id = TransferId::new(transfer.id.get());
        let Some(account_id) = account_of(transfer) else {
            let why = "the transfer names no account, so it is not known where it belongs";
            return Outcome::NotSent { id, why: ConnectError::Config(why.into()) };
        };
        let mut branch = self.branch_of(account_id);
        let mut redirects = 0;
        loop {
            let client = match self.branch(branch).await {
                Ok(client) => client,
                Err(why) => return Outcome::NotSent { id, why },
            };
            let outcome = client.submit(transfer).await;
            // A branch that sends on has not done it, and never will for this account as it is: an unanswered attempt at
            // that branch included.
            let Outcome::Refused(refused) = &outcome else { return outcome };
            match self.redirected(account_id, branch, refused) {
                Some(next) if redirects < REDIRECTS_MAX => branch = next,
                Some(_) | None => return outcome,
            }
            redirects += 1;
        }
    }

    /// Pays `money` into an account, from its branch's cash.
    pub async fn deposit(&self, id: TransferId, credit_account_id: AccountId, money: Money) -> Outcome {
        self.submit(&transfers::deposit(id, credit_account_id, money)).await
    }

    /// Pays `money` out of an account, to its branch's cash.
    pub async fn withdraw(&self, id: TransferId, debit_account_id: AccountId, money: Money) -> Outcome {
        self.submit(&transfers::withdraw(id, debit_account_id, money)).await
    }

    /// Moves `money` at once, within a branch or between two. After an unknown outcome send the same
    /// again: it is answered wherever it was done. To make it final, [`Client::make_final`] at the branch that it was sent
    /// to: a cancel speaks for one branch alone, and an account may have moved since.
    pub async fn transfer(&self, id: TransferId, between: Between, money: Money) -> Outcome {
        self.submit(&transfers::transfer(id, between, money)).await
    }

    /// Reserves `money`, within a branch or between two; without a time-out (0) until it is settled or voided.
    pub async fn hold(&self, id: TransferId, between: Between, money: Money, timeout_s: u32) -> Outcome {
        self.submit(&transfers::hold(id, between, money, timeout_s)).await
    }

    /// Posts `amount` of the hold `hold_id` on the account `payer_id`, and gives the rest back; without an amount, all of it.
    /// A hold between branches is ended at the payer's.
    pub async fn settle(
        &self,
        id: TransferId,
        payer_id: AccountId,
        hold_id: TransferId,
        amount: Option<Amount>,
    ) -> Outcome {
        let settle = transfers::settle(id, hold_id, amount.unwrap_or(Amount::ZERO));
        self.submit(&Transfer { debit_account_id: payer_id.get().into(), ..settle }).await
    }

    /// Gives the hold `hold_id` on the account `payer_id` back.
    pub async fn void(&self, id: TransferId, payer_id: AccountId, hold_id: TransferId) -> Outcome {
        let void = transfers::void(id, hold_id);
        self.submit(&Transfer { debit_account_id: payer_id.get().into(), ..void }).await
    }

    /// All of 1 to 256 transfers, or none: payments and holds out of accounts of one branch, which may go to others. Sent to the
    /// home of the first debit account; an account that has moved takes part in no chain.
    ///
    /// # Panics
    /// When there are more.
    pub async fn chain(&self, transfers: &[Transfer]) -> ChainOutcome {
        let Some(account_id) = transfers.first().and_then(account_of) else {
            let why = "the chain names no account, so it is not known where it belongs";
            return ChainOutcome::NotSent { why: ConnectError::Config(why.into()) };
        };
        match self.branch(account_id.branch()).await {
            Ok(client) => client.chain(transfers).await,
            Err(why) => ChainOutcome::NotSent { why },
        }
    }

    /// An account's balance, with holds, at one instant.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn balance(&self, id: AccountId) -> Result<Balance, RequestError> {
        self.follow(id, |client| async move { client.balance(id).await }).await
    }

    /// All about an account.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn account(&self, id: AccountId) -> Result<Account, RequestError> {
        self.follow(id, |client| async move { client.account(id).await }).await
    }
}

/// The account that says where a transfer belongs.
fn account_of(transfer: &Transfer) -> Option<AccountId> {
    let is_deposit = transfer.kind == TransferKind::Deposit as u8;
    let account_id = if is_deposit { transfer.credit_account_id } else { transfer.debit_account_id };
    Some(AccountId::new(account_id.get())).filter(|account_id| !account_id.is_none())
}
