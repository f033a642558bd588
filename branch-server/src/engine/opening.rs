//! Opening accounts: one, or a linked chain in one stretch of the log, so that a crash leaves all of it or nothing.

use tally_ledger::journal::record::{AccountChange, Record, RecordBody};
use tally_ledger::{Account, Actor, ChainOpened, Opened, open_account, open_chain, permit_opening};
use tally_protocol::message;
use tally_protocol::{AccountId, Lsn, Refusal, Timestamp};

use super::{AccountOutcome, Engine, Writer, refusal_of};
use crate::accounts::Opening;

const RECORD_LEN_BYTES: usize = RecordBody::account_len_bytes(AccountChange::Opened);

impl Engine {
    /// Opens an account, or finds it open already.
    pub fn open_account(
        &self,
        writer: &mut Writer,
        wire: &message::AccountOpen,
        actor: Actor,
        now: Timestamp,
    ) -> AccountOutcome {
        if let Err(refusal) = permit_opening(actor.role, wire) {
            return AccountOutcome::NotTaken(refusal);
        }
        if let Err(full) = writer.secure(RECORD_LEN_BYTES as u64) {
            return AccountOutcome::NotTaken(refusal_of(full));
        }
        let opening = self.accounts.opening();
        let existing = self.existing(wire);
        let gate = existing.as_ref().map_or(Lsn::ZERO, |account| account.lsn);
        match open_account(wire, existing.as_ref(), self.branch, now) {
            Ok(Opened::New(_)) if opening.secure(1).is_err() => AccountOutcome::NotTaken(Refusal::CapacityReached),
            Ok(Opened::New(account)) => {
                let mut account = [account];
                open_all(opening, writer, &mut account, actor, now);
                opened_now(&account[0])
            }
            Ok(Opened::Before) => opened_before(&existing.expect("it was opened before")),
            Err(refusal) => AccountOutcome::Refused { gate, refusal },
        }
    }

    /// Opens all of a chain, or nothing, or finds all of it open already. One outcome for each.
    ///
    /// # Errors
    /// The chain was not taken at all: the log has no room for it just now, or the branch none for its accounts.
    pub fn open_chain(
        &self,
        writer: &mut Writer,
        wires: &[message::AccountOpen],
        actor: Actor,
        now: Timestamp,
    ) -> Result<Vec<AccountOutcome>, Refusal> {
        if let Some(refusal) = wires.iter().find_map(|wire| permit_opening(actor.role, wire).err()) {
            return Err(refusal);
        }
        writer.secure((RECORD_LEN_BYTES * wires.len()) as u64).map_err(refusal_of)?;
        // One lock for the whole chain: nobody opens one of its accounts in between.
        let opening = self.accounts.opening();
        let existing: Vec<Option<Account>> = wires.iter().map(|wire| self.existing(wire)).collect();
        let gate = existing.iter().flatten().map(|account| account.lsn).max().unwrap_or_default();
        match open_chain(wires, &existing, self.branch, now) {
            Ok(ChainOpened::New(mut accounts)) => {
                opening.secure(accounts.len()).map_err(|_| Refusal::CapacityReached)?;
                open_all(opening, writer, &mut accounts, actor, now);
                Ok(accounts.iter().map(opened_now).collect())
            }
            Ok(ChainOpened::Before) => Ok(existing.iter().flatten().map(opened_before).collect()),
            Err(refusals) => {
                Ok(refusals.into_iter().map(|refusal| AccountOutcome::Refused { gate, refusal }).collect())
            }
        }
    }

    fn existing(&self, wire: &message::AccountOpen) -> Option<Account> {
        self.accounts.find(AccountId::new(wire.id.get())).map(|slot| slot.read())
    }
}

/// Records `accounts` side by side and makes them findable. Room for them is secured, in the log and in memory.
fn open_all(opening: Opening<'_>, writer: &mut Writer, accounts: &mut [Account], actor: Actor, now: Timestamp) {
    let reservation = writer.reserve((RECORD_LEN_BYTES * accounts.len()) as u64, accounts.len() as u32, now);
    let (first, stamp) = (reservation.lsn().get(), reservation.timestamp().as_nanos());
    for (index, account) in accounts.iter_mut().enumerate() {
        let lsn = Lsn::new(first + (index * RECORD_LEN_BYTES) as u64);
        account.set_opened(lsn, Timestamp::from_nanos(stamp + index as u64));
        opening.open(account);
    }
    drop(opening);
    writer.fill(reservation, |space| {
        for (account, space) in accounts.iter().zip(space.chunks_exact_mut(RECORD_LEN_BYTES)) {
            let body = RecordBody::Account(AccountChange::Opened, account.clone());
            let (lsn, timestamp) = (account.lsn, account.timestamp);
            Record { lsn, timestamp, actor: actor.customer, body }.encode_into(space);
        }
    });
}

fn opened_now(account: &Account) -> AccountOutcome {
    AccountOutcome::Done { gate: account.lsn, timestamp: account.opened_at, repeated: false }
}

fn opened_before(account: &Account) -> AccountOutcome {
    AccountOutcome::Done { gate: account.lsn, timestamp: account.opened_at, repeated: true }
}
