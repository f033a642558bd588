//! Clients that pay and hold at random, among the accounts of all branches: within one and across, with ids that are sent
//! again; and settle and void what they hold.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tally_client::{Bank, Final, Money, Outcome, Overdraft, customer_account, next_transfer_id};
use tally_protocol::message::{Transfer, TransferKind};
use tally_protocol::{AccountId, Amount, Currency};
use tokio::task::{JoinSet, LocalSet};
use zerocopy::FromZeros;

use super::bank::{BRANCHES, branch_id};
use super::book::{Book, Known, accounts_of, id_of, is_recorded};
use super::operator::{Done, Operator};

/// Payments under way at a time, of each branch: those of one that is cut off must not hold up the others'.
const STREAMS: u64 = 16;
/// Accounts of each branch.
const ACCOUNTS: u128 = 16;
/// What each is given. Small, so that some payments are refused for want of funds.
const FUNDS: u64 = 20_000;
const AMOUNT_MAX: u64 = 500;
/// One payment in so many is a hold; and, while holds stand, the end of one.
const HOLD_ONE_IN: u32 = 8;
const END_ONE_IN: u32 = 8;
/// More holds than this do not stand at a time.
const HOLDS_MAX: usize = 200;
/// One end of a hold in so many is a void.
const VOID_ONE_IN: u32 = 3;
/// One payment in so many is an old one, sent again.
const OLD_ONE_IN: u32 = 50;
/// One payment in so many is sent twice at the same time.
const TWINS_ONE_IN: u32 = 40;
/// One payment without an answer in so many is sent again at once; the others are found out later.
const AGAIN_ONE_IN: u32 = 2;
/// After an answer, so that the machine is not all load; and after one that was not taken.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_REFUSED: Duration = Duration::from_millis(50);
/// How often an unknown outcome is asked about before that counts as a fault of the bank.
const TRIES_MAX: u32 = 12;
pub(crate) const CURRENCY: Currency = Currency::EUR;

/// What all streams share; never borrowed over an `await`.
pub(crate) type SharedBook = Rc<RefCell<Book>>;
/// Whether to stop.
pub(crate) type Stop = Rc<RefCell<bool>>;

/// An account of branch `number`.
fn account(number: u8, index: u128) -> AccountId {
    AccountId::of_branch(branch_id(number), 1_000 + index)
}

/// Opens all accounts and gives them money.
pub(crate) async fn prepare(bank: &Bank, book: &SharedBook) -> anyhow::Result<()> {
    for number in 1..=BRANCHES {
        let client = bank.branch(branch_id(number)).await?;
        let open = |index: u128| customer_account(account(number, index), index as u64 + 1, CURRENCY, Overdraft::None);
        for item in client.open_accounts(&(0..ACCOUNTS).map(open).collect::<Vec<_>>()).await? {
            item.result().map_err(|refused| anyhow::anyhow!("an account was not opened: {refused}"))?;
        }
        for index in 0..ACCOUNTS {
            let money = Money { amount: Amount::new(FUNDS), currency: CURRENCY };
            let outcome = client.deposit(next_transfer_id(), account(number, index), money).await;
            ensure!(matches!(outcome, Outcome::Done(_)), "a deposit: {outcome:?}");
            book.borrow_mut().give(account(number, index), FUNDS.into());
        }
    }
    Ok(())
}

/// Load that runs until it is stopped.
pub(crate) struct Load {
    tasks: JoinSet<anyhow::Result<Done>>,
    local: LocalSet,
    stop: Stop,
}

impl Load {
    /// Makes it; it runs while [`Self::beside`] or [`Self::stop`] is awaited.
    pub(crate) fn new(bank: &Bank, operator: &Operator, book: &SharedBook, seed: u64) -> Self {
        let (mut tasks, local) = (JoinSet::new(), LocalSet::new());
        let stop = Rc::new(RefCell::new(false));
        for (home, stream) in (1..=BRANCHES).flat_map(|home| (0..STREAMS).map(move |stream| (home, stream))) {
            let own = seed ^ (u64::from(home) << 32 | stream);
            let random = ChaCha8Rng::seed_from_u64(own);
            let stream = Stream { home, bank: bank.clone(), book: book.clone(), stop: stop.clone(), random };
            tasks.spawn_local_on(stream.run(), &local);
        }
        tasks.spawn_local_on(operator.clone().run(book.clone(), stop.clone(), !seed), &local);
        Self { tasks, local, stop }
    }

    /// Runs `work` with the load beside it.
    pub(crate) async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        self.local.run_until(work).await
    }

    /// Waits for the last answers; nothing new is sent. Returns what the operator did.
    ///
    /// # Errors
    /// When an answer contradicted an earlier one, or an audit found a difference.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Done> {
        *self.stop.borrow_mut() = true;
        let tasks = &mut self.tasks;
        self.local
            .run_until(async {
                let mut all = Done::default();
                while let Some(ended) = tasks.join_next().await {
                    let done = ended??;
                    all.moves += done.moves;
                    all.audits += done.audits;
                }
                Ok(all)
            })
            .await
    }
}

struct Stream {
    /// The branch of those who pay.
    home: u8,
    bank: Bank,
    book: SharedBook,
    stop: Stop,
    random: ChaCha8Rng,
}

impl Stream {
    async fn run(mut self) -> anyhow::Result<Done> {
        while !*self.stop.borrow() {
            let old = self.one_in(OLD_ONE_IN).then(|| self.random.random_range(0..usize::MAX));
            let old = old.and_then(|index| self.book.borrow().old(index));
            let is_taken = match old {
                Some((transfer, known)) => self.repeat(&transfer, known).await?,
                None => self.pay().await?,
            };
            tokio::time::sleep(if is_taken { PAUSE } else { PAUSE_REFUSED }).await;
        }
        Ok(Done::default())
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn draw(&mut self) -> Transfer {
        let standing = self.book.borrow().holds_len();
        if standing > 0 && self.one_in(END_ONE_IN) {
            let index = self.random.random_range(0..standing);
            let hold = self.book.borrow().hold(index);
            return self.end(&hold.expect("some stand"));
        }
        let kind =
            if standing < HOLDS_MAX && self.one_in(HOLD_ONE_IN) { TransferKind::Hold } else { TransferKind::Transfer };
        let random = &mut self.random;
        let debit = account(self.home, random.random_range(0..ACCOUNTS));
        let mut draw = || account(random.random_range(1..=BRANCHES), random.random_range(0..ACCOUNTS));
        let mut credit = draw();
        while credit == debit {
            credit = draw();
        }
        let mut transfer = blank(kind, debit);
        transfer.credit_account_id.set(credit.get());
        transfer.amount.set(random.random_range(1..=AMOUNT_MAX));
        transfer.currency.set(CURRENCY.get());
        transfer.code.set(1);
        transfer
    }

    /// Settles a hold, as a rule in part, or voids it. Two may do so at the same time: one of them is refused.
    fn end(&mut self, hold: &Transfer) -> Transfer {
        let is_void = self.one_in(VOID_ONE_IN);
        let kind = if is_void { TransferKind::Void } else { TransferKind::Settle };
        let mut end = blank(kind, accounts_of(hold).0);
        end.reference = hold.id;
        if !is_void {
            end.amount.set(self.random.random_range(1..=hold.amount.get()));
        }
        end
    }

    /// Pays once; whether it was taken.
    async fn pay(&mut self) -> anyhow::Result<bool> {
        let transfer = self.draw();
        self.book.borrow_mut().send(&transfer);
        let mut known = if self.one_in(TWINS_ONE_IN) {
            let (first, second) = tokio::join!(submit(&self.bank, &transfer), submit(&self.bank, &transfer));
            match (first?, second?) {
                (Known::Free, second) => second,
                // The other one may have been taken.
                (first, Known::Free) => first,
                (first, second) => {
                    self.book.borrow_mut().learn(&transfer, first)?;
                    second
                }
            }
        } else {
            submit(&self.bank, &transfer).await?
        };
        self.book.borrow_mut().learn(&transfer, known)?;
        if known == Known::Unknown && self.one_in(AGAIN_ONE_IN) {
            known = submit(&self.bank, &transfer).await?;
            // What is not taken now may have been taken then.
            if known != Known::Free {
                self.book.borrow_mut().learn(&transfer, known)?;
            }
        }
        Ok(known != Known::Free)
    }

    /// Sends an old one: the answer must be that of then.
    async fn repeat(&mut self, transfer: &Transfer, then: Known) -> anyhow::Result<bool> {
        let now = submit(&self.bank, transfer).await?;
        let says_nothing = matches!(now, Known::Unknown | Known::Free);
        ensure!(says_nothing || now == then, "CHANGED: {} was {then:?}, and now {now:?}", id_of(transfer));
        Ok(now != Known::Free)
    }
}

fn blank(kind: TransferKind, debit: AccountId) -> Transfer {
    let mut transfer = Transfer::new_zeroed();
    transfer.id.set(next_transfer_id().get());
    transfer.kind = kind as u8;
    transfer.debit_account_id.set(debit.get());
    transfer
}

async fn submit(bank: &Bank, transfer: &Transfer) -> anyhow::Result<Known> {
    Ok(match bank.submit(transfer).await {
        Outcome::Done(receipt) => {
            let is_void = transfer.kind == TransferKind::Void as u8;
            ensure!(
                is_void || receipt.amount.get() == transfer.amount.get(),
                "CHANGED: {} moved {:?}",
                receipt.id,
                receipt.amount
            );
            Known::Done(receipt.timestamp.as_nanos())
        }
        Outcome::Refused(refused) if is_recorded(refused.code) => Known::Refused(refused.code),
        Outcome::Refused(refused) if refused.is_of_session() => Known::Free,
        Outcome::Refused(refused) => anyhow::bail!("UNEXPECTED: {} was refused: {refused}", id_of(transfer)),
        Outcome::Unknown { .. } => Known::Unknown,
        Outcome::NotSent { .. } => Known::Free,
    })
}

/// Makes every unknown outcome final. Returns how many there were.
pub(crate) async fn make_final(bank: &Bank, book: &SharedBook) -> anyhow::Result<usize> {
    let unknown = book.borrow().unknown();
    for transfer in &unknown {
        let mut tries = 0;
        let known = loop {
            match find_out(bank, book, transfer).await? {
                Known::Unknown | Known::Free => {}
                known => break known,
            }
            tries += 1;
            ensure!(tries < TRIES_MAX, "the outcome of {} cannot be found out", id_of(transfer));
            tokio::time::sleep(PAUSE_REFUSED).await;
        };
        book.borrow_mut().learn(transfer, known).context("an unknown outcome was made final")?;
    }
    Ok(unknown.len())
}

/// Asks, and burns the id of what was not done. That speaks for one branch: where the payer's account may have been at
/// several, the transfer is sent again.
async fn find_out(bank: &Bank, book: &SharedBook, transfer: &Transfer) -> anyhow::Result<Known> {
    let (id, (debit, _)) = (id_of(transfer), accounts_of(transfer));
    if book.borrow().places(debit).len() > 1 {
        return submit(bank, transfer).await;
    }
    let asked = async { bank.home_of(debit).await?.make_final(id).await };
    Ok(match asked.await {
        Ok(Final::Done(found)) => Known::Done(found.reply.timestamp.get()),
        Ok(Final::Refused(found)) => Known::Refused(found.reply.refusal.get()),
        Ok(Final::Never) => Known::Never,
        Err(_) => Known::Unknown,
    })
}
