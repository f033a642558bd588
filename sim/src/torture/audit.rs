//! After each crash: is everything there that was acknowledged, once, and nothing else?

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use tally_client::{Client, Final};
use tally_protocol::message::{FeedEntry, FeedKind, Sums, Transfer, TransferFound, TransferState};
use tally_protocol::{AccountId, Lsn, TransferId};

use super::ask::{Said, for_each, look_up, of_reply, same_content, send};
use super::book::{Rising, Violation, check_conservation};
use super::load::{SharedLedger, lock};
use super::plan::{Shape, Unit};

/// Requests of a round that are sent again, and transfers that are looked up; beyond that a random part.
const CHECKED_PER_ROUND_MAX: usize = 20_000;
/// Transfers of earlier rounds that are looked up after each crash.
const OLD_CHECKED: usize = 500;
/// One transfer in so many stays in the book when its round is over.
const KEPT_ONE_IN: u32 = 16;
/// Times that balances are read again because a hold ran out meanwhile.
const BALANCE_READS_MAX: usize = 100;
/// A server under repair may need a moment for its queues.
const NOT_TAKEN_PAUSE: Duration = Duration::from_millis(5);
/// Times a request is sent again because a queue was full.
const NOT_TAKEN_MAX: usize = 2_000;
/// Times a request is sent again because no answer came before its deadline: a disk may stall for so long.
const UNANSWERED_MAX: usize = 5;
/// A request that is sent again after its deadline, and answered sooner than this, shows that no disk was to
/// blame: the server had forgotten the first one, or to wake up for it.
const SUSPICIOUSLY_SOON: Duration = Duration::from_secs(2);

/// What a round's audit found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Transfers whose answer was not known, and that were done or refused by the ledger.
    pub(crate) unknown_done: u64,
    /// Transfers whose answer was not known, and that will never be done.
    pub(crate) unknown_never: u64,
    /// Requests that were sent again and answered as before.
    pub(crate) repeated: u64,
    /// Transfers that were looked up.
    pub(crate) looked_up: u64,
}

/// What is carried from audit to audit.
#[derive(Debug)]
pub(crate) struct Auditor {
    feed: Lsn,
    positions: Rising,
    timestamps: Rising,
    random: ChaCha8Rng,
    /// Transfers of this round that the feed has shown.
    shown: HashSet<TransferId>,
    expired: u64,
}

impl Auditor {
    /// Takes what the branch did before the torture as given.
    pub(crate) async fn begin(client: &Client, ledger: &SharedLedger, random: ChaCha8Rng) -> anyhow::Result<Self> {
        let mut auditor = Self {
            feed: Lsn::ZERO,
            positions: Rising::new("position"),
            timestamps: Rising::new("time stamp"),
            random,
            shown: HashSet::new(),
            expired: 0,
        };
        auditor.read_feed(client, ledger, true).await?;
        auditor.check_balances(client, ledger).await?;
        auditor.end_round(ledger, &HashSet::new());
        Ok(auditor)
    }

    /// The whole audit. `holds` are those that later requests may still name.
    pub(crate) async fn audit(
        &mut self,
        client: &Client,
        ledger: &SharedLedger,
        holds: &HashSet<TransferId>,
    ) -> anyhow::Result<Found> {
        let mut found = Found::default();
        self.resolve_unknown(client, ledger, &mut found).await?;
        self.repeat(client, ledger, &mut found).await?;
        self.look_up_known(client, ledger, &mut found).await?;
        self.read_feed(client, ledger, false).await?;
        self.check_feed_is_complete(ledger)?;
        self.check_balances(client, ledger).await?;
        self.end_round(ledger, holds);
        Ok(found)
    }

    /// Every id whose answer is not known gets a final one: by sending it again, by cancelling it, or by
    /// asking first.
    async fn resolve_unknown(
        &mut self,
        client: &Client,
        ledger: &SharedLedger,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let units: Vec<(Unit, u32)> = {
            let mut ledger = lock(ledger);
            ledger.unknown.drain(..).map(|unit| (unit, self.random.random_range(0..3))).collect()
        };
        let resolved = for_each(units, |(unit, way)| {
            let client = client.clone();
            async move {
                let fates = match way {
                    0 => Fates::Answered(send_until_taken(&client, &unit).await?),
                    way => Fates::Found(finals(&client, &unit, way == 1).await?),
                };
                Ok((unit, fates))
            }
        })
        .await?;
        let mut ledger = lock(ledger);
        for (unit, fates) in resolved {
            match fates {
                Fates::Answered(answers) => {
                    for answer in &answers {
                        *(if answer.repeated { &mut found.unknown_done } else { &mut found.unknown_never }) += 1;
                    }
                    check_chains(&unit, |index| answers[index].repeated)?;
                    ledger.learn(&unit, &answers)?;
                    ledger.answered.push(unit);
                }
                Fates::Found(finals) => {
                    check_chains(&unit, |index| finals[index].is_some())?;
                    for (transfer, reply) in unit.transfers.iter().zip(finals) {
                        match reply {
                            Some(reply) => {
                                check_found(transfer, &reply)?;
                                ledger.book.learn(transfer, of_reply(&reply.reply)?)?;
                                found.unknown_done += 1;
                            }
                            None => {
                                ledger.book.burn(TransferId::new(transfer.id.get()))?;
                                found.unknown_never += 1;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The same request with the same id answers the same, and says that it is a repeat.
    async fn repeat(&mut self, client: &Client, ledger: &SharedLedger, found: &mut Found) -> anyhow::Result<()> {
        let units = std::mem::take(&mut lock(ledger).answered);
        let chosen = units.into_iter().sample(&mut self.random, CHECKED_PER_ROUND_MAX);
        let burnt = self.burnt_again(ledger);
        let answers = for_each(chosen.into_iter().chain(burnt).collect(), |unit| {
            let client = client.clone();
            async move {
                let answers = send_until_taken(&client, &unit).await?;
                Ok((unit, answers))
            }
        })
        .await?;
        let mut ledger = lock(ledger);
        for (unit, answers) in answers {
            for (transfer, &answer) in unit.transfers.iter().zip(&answers) {
                let id = TransferId::new(transfer.id.get());
                let known = ledger.book.known(id).copied();
                ledger.book.learn(transfer, answer)?;
                if let Some(known) = known {
                    // The answer to a single refusal has no room for the flag.
                    let can_say = answer.refusal.is_none() || unit.shape != Shape::Single;
                    anyhow::ensure!(!can_say || answer.repeated, Violation::Lost { id, was: known.answer });
                    found.repeated += 1;
                }
            }
        }
        Ok(())
    }

    /// Some ids that were cancelled, with a transfer that must be refused.
    fn burnt_again(&mut self, ledger: &SharedLedger) -> Vec<Unit> {
        let ledger = lock(ledger);
        let Some((_, known)) = ledger.book.all_known().next() else { return Vec::new() };
        let burnt = ledger.book.burnt().sample(&mut self.random, 16);
        let with = |id: TransferId| Transfer { id: id.get().into(), flags: 0.into(), ..known.transfer };
        burnt.into_iter().map(|id| Unit { shape: Shape::Single, transfers: vec![with(id)] }).collect()
    }

    /// What is known of a transfer is what was answered, in this round and in earlier ones.
    async fn look_up_known(&mut self, client: &Client, ledger: &SharedLedger, found: &mut Found) -> anyhow::Result<()> {
        let ids: Vec<TransferId> = {
            let ledger = lock(ledger);
            let (new, old) = (ledger.book.all_known().filter(|(_, known)| known.is_new), ledger.book.all_known());
            let mut ids: Vec<_> = new.map(|(&id, _)| id).sample(&mut self.random, CHECKED_PER_ROUND_MAX);
            let old = old.filter(|(_, known)| !known.is_new).map(|(&id, _)| id);
            ids.extend(old.sample(&mut self.random, OLD_CHECKED));
            ids
        };
        let replies = for_each(ids, |id| {
            let client = client.clone();
            async move { Ok((id, look_up(&client, id).await?)) }
        })
        .await?;
        let mut ledger = lock(ledger);
        for (id, reply) in replies {
            let known = *ledger.book.known(id).expect("only known ids were asked for");
            let reply = reply.ok_or(Violation::Lost { id, was: known.answer })?;
            check_found(&known.transfer, &reply)?;
            ledger.book.learn(&known.transfer, of_reply(&reply.reply)?)?;
            found.looked_up += 1;
        }
        Ok(())
    }

    /// The journal as the feed tells it, from where the last audit ended: positions and time stamps rise, no
    /// transfer comes twice, and each is one that was acknowledged. With `given`, all of it is believed.
    async fn read_feed(&mut self, client: &Client, ledger: &SharedLedger, given: bool) -> anyhow::Result<()> {
        loop {
            let page = client.feed_page(self.feed, usize::MAX, Duration::ZERO).await?;
            for entry in &page.entries {
                self.enter(entry, ledger, given)?;
            }
            let end = page.entries.is_empty() && page.next == self.feed || page.next >= page.durable;
            self.feed = page.next;
            if end {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, entry: &FeedEntry, ledger: &SharedLedger, given: bool) -> anyhow::Result<()> {
        self.positions.take(entry.lsn.get())?;
        if entry.reply.timestamp.get() != 0 {
            self.timestamps.take(entry.reply.timestamp.get())?;
        }
        let id = TransferId::new(entry.transfer.id.get());
        let book = &mut lock(ledger).book;
        match FeedKind::from_wire(entry.kind) {
            Some(FeedKind::Transfer) => {
                anyhow::ensure!(self.shown.insert(id), Violation::AppliedTwice { id });
                let is_new = book.known(id).is_some_and(|known| known.is_new);
                anyhow::ensure!(given || is_new, Violation::Unexpected { id });
                if let Some(known) = book.known(id) {
                    anyhow::ensure!(same_content(&known.transfer, &entry.transfer), Violation::ContentChanged { id });
                }
                book.learn(&entry.transfer, of_reply(&entry.reply)?)?;
            }
            Some(FeedKind::Expired) => {
                book.expired(id)?;
                self.expired += 1;
            }
            Some(FeedKind::Cancelled) => {
                anyhow::ensure!(given || book.is_burnt(id), Violation::Unexpected { id });
            }
            Some(FeedKind::Account) => {}
            Some(FeedKind::Prepared | FeedKind::Decided | FeedKind::Rehomed) => {
                anyhow::bail!(Violation::Unexpected { id })
            }
            None => anyhow::bail!("the feed has an entry of kind {}", entry.kind),
        }
        Ok(())
    }

    /// Everything that was acknowledged in this round was on the feed.
    fn check_feed_is_complete(&self, ledger: &SharedLedger) -> anyhow::Result<()> {
        for (&id, known) in lock(ledger).book.all_known().filter(|(_, known)| known.is_new) {
            anyhow::ensure!(self.shown.contains(&id), Violation::Lost { id, was: known.answer });
        }
        Ok(())
    }

    /// Every account has the sums of the book, and together they are zero.
    async fn check_balances(&mut self, client: &Client, ledger: &SharedLedger) -> anyhow::Result<()> {
        for _ in 0..BALANCE_READS_MAX {
            let accounts: Vec<AccountId> = lock(ledger).book.accounts().keys().copied().collect();
            let balances = for_each(accounts, |id| {
                let client = client.clone();
                async move { Ok(client.balance(id).await?) }
            })
            .await?;
            // A hold that ran out between two reads shows on the feed: then read again.
            let expired = self.expired;
            self.read_feed(client, ledger, false).await?;
            if self.expired != expired {
                continue;
            }
            let mut by_currency: BTreeMap<u16, Vec<Sums>> = BTreeMap::new();
            for balance in &balances {
                lock(ledger).book.check_balance(AccountId::new(balance.id.get()), &balance.sums)?;
                by_currency.entry(balance.currency.get()).or_default().push(balance.sums);
            }
            for (currency, sums) in &by_currency {
                check_conservation(*currency, sums.iter())?;
            }
            return Ok(());
        }
        anyhow::bail!("holds ran out all the time while the balances were read")
    }

    fn end_round(&mut self, ledger: &SharedLedger, holds: &HashSet<TransferId>) {
        let mut ledger = lock(ledger);
        ledger.floor = (self.positions.highest(), self.timestamps.highest());
        ledger.answered.clear();
        self.shown.clear();
        let random = &mut self.random;
        ledger.book.end_round(|id| holds.contains(&id) || random.next_u32() % KEPT_ONE_IN == 0);
    }
}

/// How an unknown request turned out.
enum Fates {
    /// It was sent again.
    Answered(Vec<super::book::Answer>),
    /// Each id was made final: what is recorded, or never.
    Found(Vec<Option<Box<TransferFound>>>),
}

/// Makes each id of a request final. `cancel_first`, or ask and cancel only what is absent.
async fn finals(client: &Client, unit: &Unit, cancel_first: bool) -> anyhow::Result<Vec<Option<Box<TransferFound>>>> {
    let mut fates = Vec::new();
    for transfer in &unit.transfers {
        let id = TransferId::new(transfer.id.get());
        let known = if cancel_first { None } else { look_up(client, id).await? };
        fates.push(match known {
            Some(found) => Some(found),
            None => match client.make_final(id).await? {
                Final::Done(found) | Final::Refused(found) => {
                    anyhow::ensure!(cancel_first, Violation::Unexpected { id });
                    Some(found)
                }
                Final::Never => None,
            },
        });
    }
    Ok(fates)
}

async fn send_until_taken(client: &Client, unit: &Unit) -> anyhow::Result<Vec<super::book::Answer>> {
    let (mut not_taken, mut unanswered) = (0, 0);
    loop {
        let begun = Instant::now();
        match send(client, unit).await? {
            Said::Answered(answers) => {
                let is_suspicious = unanswered > 0 && begun.elapsed() < SUSPICIOUSLY_SOON;
                anyhow::ensure!(
                    !is_suspicious,
                    "SILENT: the request that begins with {} was answered only when it was sent again",
                    first_id(unit)
                );
                return Ok(answers);
            }
            Said::NotTaken(_) if not_taken < NOT_TAKEN_MAX => {
                not_taken += 1;
                tokio::time::sleep(NOT_TAKEN_PAUSE).await;
            }
            Said::Unknown | Said::NotSent if unanswered < UNANSWERED_MAX => {
                unanswered += 1;
                eprintln!("no answer, for the {unanswered}. time, to the request that begins with {}", first_id(unit));
            }
            Said::NotTaken(refusal) => anyhow::bail!("the server takes no request any more: {refusal}"),
            Said::Unknown | Said::NotSent => {
                anyhow::bail!("SILENT: no answer to the request that begins with {}", first_id(unit))
            }
        }
    }
}

fn first_id(unit: &Unit) -> TransferId {
    TransferId::new(unit.transfers[0].id.get())
}

/// All of a chain, or none of it.
fn check_chains(unit: &Unit, is_known: impl Fn(usize) -> bool) -> Result<(), Violation> {
    for chain in unit.chains() {
        let known = chain.clone().filter(|&index| is_known(index)).count();
        if known != 0 && known != chain.len() {
            return Err(Violation::ChainTorn { id: TransferId::new(unit.transfers[chain.start].id.get()) });
        }
    }
    Ok(())
}

/// What was found is what was sent, and its state goes with its answer.
fn check_found(sent: &Transfer, found: &TransferFound) -> anyhow::Result<()> {
    let id = TransferId::new(sent.id.get());
    anyhow::ensure!(same_content(sent, &found.transfer), Violation::ContentChanged { id });
    let done = found.reply.refusal.get() == 0;
    let fits = match TransferState::from_wire(found.state) {
        Some(TransferState::Refused) => !done,
        Some(
            TransferState::Done
            | TransferState::Settled
            | TransferState::Voided
            | TransferState::Expired
            | TransferState::Reversed,
        ) => done,
        Some(TransferState::InFlight | TransferState::Prepared | TransferState::Cancelled) | None => false,
    };
    anyhow::ensure!(fits, "transfer {id} has state {} with refusal {}", found.state, found.reply.refusal.get());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tally_protocol::BranchId;

    use super::*;
    use crate::torture::plan::Plan;

    #[test]
    fn a_chain_of_which_only_a_part_is_known_is_torn() {
        let mut plan = Plan::new(BranchId::new(1), 1, 0);
        let unit = std::iter::repeat_with(|| plan.next_unit())
            .find(|unit| unit.shape == Shape::Chain && unit.transfers.len() >= 3)
            .expect("chains are drawn again and again");
        assert_eq!(check_chains(&unit, |_| true), Ok(()));
        assert_eq!(check_chains(&unit, |_| false), Ok(()));
        let id = TransferId::new(unit.transfers[0].id.get());
        assert_eq!(check_chains(&unit, |index| index == 1), Err(Violation::ChainTorn { id }));
        let apart = Unit { shape: Shape::Batch, transfers: unit.transfers };
        assert_eq!(check_chains(&apart, |index| index == 1), Ok(()), "not linked");
    }

    #[test]
    fn what_is_found_must_be_what_was_sent_in_a_state_that_fits_its_answer() {
        use zerocopy::FromZeros;
        let sent = Plan::new(BranchId::new(1), 1, 0).next_unit().transfers[0];
        let found = |change: fn(&mut TransferFound)| {
            let mut found = TransferFound::new_zeroed();
            found.transfer = sent;
            found.state = TransferState::Done as u8;
            change(&mut found);
            check_found(&sent, &found).is_ok()
        };
        assert!(found(|_| {}));
        assert!(found(|found| found.state = TransferState::Expired as u8));
        assert!(!found(|found| found.transfer.amount.set(found.transfer.amount.get() + 1)));
        assert!(!found(|found| found.state = TransferState::Refused as u8));
        assert!(!found(|found| found.state = TransferState::InFlight as u8));
        assert!(!found(|found| found.reply.refusal.set(228)));
    }
}
