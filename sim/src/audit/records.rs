//! Records, on their way to the disk: each must be what the model says, and what somebody asked for.

use tally_ledger::imported::Entry;
use tally_ledger::journal::group::GroupHeader;
use tally_ledger::journal::record::{
    AccountChange, GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, Record, RecordBody, TransferRecord,
};
use tally_ledger::{Account, Actor, mixed, stretches};
use tally_protocol::TransferId;
use tally_protocol::message::{AccountOpen, Transfer, transfer_flags};

use super::Audit;
use crate::invariants::{Violation, conservation, hold, holds_match, limits, violated};
use crate::model::{AccountAsk, Ask, ChainRecord, ModelAccount, ModelSums, Verdict, form_of};
use crate::request::Asked;

/// One request that may be behind a record: all records that it must have left here, in order.
struct Candidate {
    actor: Actor,
    asks: Vec<Ask>,
}

impl Audit {
    /// A group is on its way to the disk.
    ///
    /// # Errors
    /// When a record in it is not what it must be.
    pub fn group(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let (header, payload, _) = match GroupHeader::open(bytes) {
            Ok(group) => group,
            Err(error) => violated!(Recoverable, "a group that cannot be read back was written: {error}"),
        };
        let mut records = Vec::with_capacity(header.record_count as usize);
        let mut rest = payload;
        while !rest.is_empty() {
            let record = match Record::decode(rest) {
                Ok(record) => record,
                Err(error) => violated!(Recoverable, "record {} of group {}: {error}", records.len(), header.start),
            };
            rest = &rest[record.body.len_bytes()..];
            records.push(record);
        }
        hold!(
            Recoverable,
            records.len() == header.record_count as usize,
            "group {} says {} records and holds {}",
            header.start,
            header.record_count,
            records.len()
        );
        let mut next = 0;
        while next < records.len() {
            next += self.records(&records[next..])?;
        }
        Ok(())
    }

    /// The first of `records`, and those that belong to the same chain. How many that were.
    fn records(&mut self, records: &[Record]) -> Result<usize, Violation> {
        let first = &records[0];
        let count = match &first.body {
            RecordBody::Transfer(transfer) => self.transfer_records(transfer, records)?,
            RecordBody::Expired(expired) => {
                self.expired_record(first, expired)?;
                1
            }
            RecordBody::Decided(_, decided) | RecordBody::Rehomed(decided) => {
                violated!(OneEffect, "{} was decided by a registry that this branch does not have", decided.id)
            }
            RecordBody::Account(change, account) => self.account_records(*change, account, records)?,
            RecordBody::Cancelled(id) => {
                self.cancelled_record(first, *id)?;
                1
            }
        };
        for (index, record) in records[..count].iter().enumerate() {
            self.rising.check(record)?;
            self.one_effect.check_record(record)?;
            let Some(changes) = self.images.apply(record) else {
                violated!(Conservation, "{record:?} moves money of an account that was never opened")
            };
            conservation::check_record(&changes)?;
            limits::check(&changes)?;
            // The model is at the end of the chain; holds in the middle of one are its own business.
            if index + 1 == count {
                holds_match::check(&changes, &self.model)?;
            }
        }
        Ok(count)
    }

    fn transfer_records(&mut self, transfer: &TransferRecord, records: &[Record]) -> Result<usize, Violation> {
        let candidate = self.candidate(transfer, records)?;
        let count = candidate.asks.len();
        let steps: Vec<ChainRecord> = candidate
            .asks
            .iter()
            .zip(records)
            .map(|(&ask, record)| ChainRecord { ask, lsn: record.lsn, now: record.timestamp.as_nanos() })
            .collect();
        let verdicts = match steps.as_slice() {
            [one] => vec![self.model.transfer(&one.ask, &candidate.actor, one.lsn, one.now)],
            all => {
                self.counts.chains += 1;
                self.model.chain(all, &candidate.actor)
            }
        };
        for (record, verdict) in records.iter().zip(&verdicts) {
            let RecordBody::Transfer(transfer) = &record.body else {
                violated!(AnswersMatchModel, "{record:?} lies in the middle of a chain")
            };
            *(if verdict.refusal.is_none() { &mut self.counts.done } else { &mut self.counts.refused }) += 1;
            check_verdict(record, transfer, verdict)?;
            if count == 1 && verdict.refusal.is_none() {
                let debit = self.model.account(verdict.debit).expect("it was just debited");
                check_day(record, transfer, debit)?;
            }
        }
        Ok(count)
    }

    /// The request that is behind a record.
    fn candidate(&self, transfer: &TransferRecord, records: &[Record]) -> Result<Candidate, Violation> {
        let sent = self.by_id.get(&transfer.id).map_or(&[][..], Vec::as_slice);
        for &(number, index) in sent.iter().filter(|(_, index)| *index != usize::MAX) {
            let request = &self.requests[number];
            let range = match &request.asked {
                Asked::Chain(all) if index == 0 && mixed(&all[0], all).is_none() => 0..all.len(),
                Asked::Batch(all) if mixed(&all[0], &all[chain_around(all, index)]).is_none() => {
                    chain_around(all, index)
                }
                Asked::Transfer(_) => 0..1,
                Asked::Chain(_)
                | Asked::Batch(_)
                | Asked::Open(_)
                | Asked::Change(_)
                | Asked::Cancel(_)
                | Asked::Balance(_)
                | Asked::Account(_)
                | Asked::Find(_) => continue,
            };
            if range.start != index || range.len() > records.len() {
                continue;
            }
            let wires = &request.asked.transfers()[range];
            let asks: Result<Vec<Ask>, _> = wires.iter().map(|wire| form_of(wire, self.branch)).collect();
            let Ok(asks) = asks else { continue };
            let matches = |(ask, record): (&Ask, &Record)| {
                record.actor == request.actor.customer
                    && matches!(&record.body, RecordBody::Transfer(transfer) if is_what_was_asked(ask, transfer))
            };
            if asks.iter().zip(records).all(matches) {
                return Ok(Candidate { actor: request.actor, asks });
            }
        }
        violated!(AnswersMatchModel, "nobody asked for {transfer:?} ({} requests have its id)", sent.len())
    }

    fn expired_record(&mut self, record: &Record, expired: &TransferRecord) -> Result<(), Violation> {
        self.counts.expired += 1;
        let Some(verdict) = self.model.expire(expired.id, record.lsn, record.timestamp.as_nanos()) else {
            violated!(AnswersMatchModel, "hold {} is recorded as expired, but is not open or not due", expired.id)
        };
        check_verdict(record, expired, &verdict)?;
        let debit = self.model.account(verdict.debit).expect("it was just changed");
        check_day(record, expired, debit)
    }

    /// The first of `records` changes an account. How many accounts were opened together with it.
    fn account_records(
        &mut self,
        change: AccountChange,
        account: &Account,
        records: &[Record],
    ) -> Result<usize, Violation> {
        let asks = match change {
            AccountChange::Opened => self.recorded_together(account.id.get(), records),
            _ => Vec::new(),
        };
        for (record, ask) in records.iter().zip(&asks) {
            self.counts.account_changes += 1;
            self.model.change_account(ask, record.lsn, record.timestamp.as_nanos()).expect("it was judged just so");
        }
        if asks.is_empty() {
            self.account_record(&records[0], change, account)?;
        }
        Ok(asks.len().max(1))
    }

    /// The longest chain of linked accounts that somebody asked for and that `records` begin with.
    fn recorded_together(&self, id: u128, records: &[Record]) -> Vec<AccountAsk> {
        let numbers = self.by_account.get(&id).into_iter().flatten();
        let mut longest: &[AccountOpen] = &[];
        for request in numbers.map(|&number| &self.requests[number]) {
            let Asked::Open(opens) = &request.asked else { continue };
            for stretch in stretches(opens) {
                let chain = &opens[stretch.range];
                let is_longer = chain.len() > longest.len().max(1) && chain.len() <= records.len();
                let is_one = stretch.refusal.is_none() && mixed(&opens[0], chain).is_none();
                let is_recorded = |(open, record): (&AccountOpen, &Record)| {
                    record.actor == request.actor.customer
                        && matches!(&record.body, RecordBody::Account(AccountChange::Opened, account)
                            if account.id.get() == open.id.get()
                                && self.leads_to(&AccountAsk::Open(*open), None, &version_of(record, account)))
                };
                if is_longer && is_one && chain.iter().zip(records).all(is_recorded) {
                    longest = chain;
                }
            }
        }
        longest.iter().map(|&open| AccountAsk::Open(open)).collect()
    }

    fn account_record(&mut self, record: &Record, change: AccountChange, account: &Account) -> Result<(), Violation> {
        self.counts.account_changes += 1;
        let recorded = ModelAccount::of(account);
        let (lsn, now) = (record.lsn, record.timestamp.as_nanos());
        if account.id.is_house() && change == AccountChange::Opened {
            let till = self.model.open_till(recorded.id, lsn, now);
            hold!(AnswersMatchModel, till.as_ref() == Some(&recorded), "till {till:?} is recorded as {recorded:?}");
            return Ok(());
        }
        let asks: Vec<AccountAsk> = self
            .by_account
            .get(&recorded.id)
            .into_iter()
            .flatten()
            .flat_map(|&number| asks_about(&self.requests[number].asked, recorded.id))
            .filter(|ask| change_of(ask) == change)
            .collect();
        let existing = self.model.account(recorded.id);
        let ask = asks.iter().find(|ask| {
            let next = ask.judge(existing, self.branch, now).ok().flatten();
            next.is_some_and(|next| ModelAccount { lsn, timestamp: now, ..next } == recorded)
        });
        let Some(ask) = ask else {
            violated!(AnswersMatchModel, "{change:?} is recorded as {recorded:?}, before {existing:?}, asked {asks:?}")
        };
        self.model.change_account(ask, lsn, now).expect("it was judged just so");
        Ok(())
    }

    fn cancelled_record(&mut self, record: &Record, id: TransferId) -> Result<(), Violation> {
        self.counts.cancelled += 1;
        let was_asked = self.by_id.get(&id).is_some_and(|sent| sent.iter().any(|(_, index)| *index == usize::MAX));
        hold!(AnswersMatchModel, was_asked, "nobody asked to cancel {id}");
        let was_used = self.model.used(id).is_some();
        let refusal = self.model.cancel(id, record.lsn, record.timestamp.as_nanos());
        hold!(OneEffect, refusal.is_none() && !was_used, "id {id} was used when its cancel was recorded");
        Ok(())
    }
}

/// The stretch of a batch that is decided together with the entry at `index`.
pub(super) fn chain_around(transfers: &[Transfer], index: usize) -> std::ops::Range<usize> {
    let is_linked = |at: usize| transfers[at].flags.get() & transfer_flags::LINKED != 0;
    let start = (0..index).rev().take_while(|&at| is_linked(at)).last().unwrap_or(index);
    let end = (index..transfers.len()).find(|&at| !is_linked(at)).map_or(transfers.len(), |last| last + 1);
    start..end
}

/// The account as the record says that it was from there on.
fn version_of(record: &Record, account: &Account) -> ModelAccount {
    ModelAccount { lsn: record.lsn, timestamp: record.timestamp.as_nanos(), ..ModelAccount::of(account) }
}

fn asks_about(asked: &Asked, id: u128) -> Vec<AccountAsk> {
    match asked {
        // Those that are linked are recorded together.
        Asked::Open(opens) => stretches(opens)
            .filter(|stretch| stretch.refusal.is_none() && stretch.range.len() == 1)
            .map(|stretch| opens[stretch.range.start])
            .filter(|open| open.id.get() == id && open.is_imported() == opens[0].is_imported())
            .map(AccountAsk::Open)
            .collect(),
        Asked::Change(ask) if ask.id() == id => vec![*ask],
        Asked::Change(_)
        | Asked::Transfer(_)
        | Asked::Chain(_)
        | Asked::Batch(_)
        | Asked::Cancel(_)
        | Asked::Balance(_)
        | Asked::Account(_)
        | Asked::Find(_) => Vec::new(),
    }
}

const fn change_of(ask: &AccountAsk) -> AccountChange {
    match ask {
        AccountAsk::Open(_) => AccountChange::Opened,
        AccountAsk::Close(_) => AccountChange::Closed,
        AccountAsk::Freeze(_) => AccountChange::Frozen,
        AccountAsk::Unfreeze(_) => AccountChange::Unfrozen,
        AccountAsk::SetLimits(_) => AccountChange::LimitsSet,
    }
}

/// Whether a record tells of this very request.
fn is_what_was_asked(ask: &Ask, record: &TransferRecord) -> bool {
    let written = |bit: u8, value: u128| if record.given & bit == 0 { 0 } else { value };
    ask.id == record.id.get()
        && ask.kind == record.kind
        && ask.flags == record.flags
        && ask.reference == record.reference.get()
        && ask.amount == record.amount_asked.get()
        && ask.timeout_s == record.timeout_s
        && ask.user_data == (record.user_data_128, record.user_data_64, record.user_data_32)
        && ask.debit == written(GIVEN_DEBIT, record.debit_account_id.get())
        && ask.credit == written(GIVEN_CREDIT, record.credit_account_id.get())
        && u128::from(ask.currency) == written(GIVEN_CURRENCY, record.currency.into())
        && u128::from(ask.code) == written(GIVEN_CODE, record.code.into())
}

fn check_verdict(record: &Record, transfer: &TransferRecord, verdict: &Verdict) -> Result<(), Violation> {
    let is_same = verdict.refusal == transfer.refusal
        && verdict.amount == transfer.amount.get()
        && (verdict.refusal.is_some() || has_same_effect(transfer, verdict));
    hold!(AnswersMatchModel, is_same, "the model says {verdict:?}, recorded is {record:?}");
    Ok(())
}

fn has_same_effect(transfer: &TransferRecord, verdict: &Verdict) -> bool {
    verdict.debit == transfer.debit_account_id.get()
        && verdict.credit == transfer.credit_account_id.get()
        && verdict.debit_sums == ModelSums::of(&transfer.debit)
        && verdict.credit_sums == ModelSums::of(&transfer.credit)
        && verdict.currency == transfer.currency
        && verdict.code == transfer.code
}

fn check_day(record: &Record, transfer: &TransferRecord, debit: &ModelAccount) -> Result<(), Violation> {
    let (day, spent) = (u64::from(transfer.day), transfer.day_spent.get());
    hold!(
        AnswersMatchModel,
        debit.day == day && debit.day_spent == spent,
        "the model has spent {} on day {}, recorded at {} is {spent} on day {day}",
        debit.day_spent,
        debit.day,
        record.lsn
    );
    Ok(())
}
