//! Questions and answers, as JSON: docs/PROTOCOL.md, "Calls to a branch".

use serde::Deserialize;
use serde_json::{Value, json};
use tally_ledger::audit::{BranchBooks, OpenLeg, Settlement, Side, Totals};
use tally_protocol::{BranchId, Currency, Timestamp, TransferId};

use super::{Auditor, State, Taken};
use crate::clock;

/// Open legs in one answer.
const PAGE_LEN_MAX: usize = 1_000;

/// What the registry asks, for an auditor.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// The books as of a stamp: begins to add them up, says how far that is, and answers them.
    Audit {
        /// Nanoseconds.
        stamp: u64,
    },
    /// Legs that were open then and did not end since, as far as the journal was read.
    AuditLegs {
        /// Of the books.
        stamp: u64,
        /// Skip so many.
        from: usize,
    },
    /// How much of holds that this branch has ended by then, as the payer's, it has posted.
    AuditEndings {
        /// Of the books.
        stamp: u64,
        /// The branch of the payees.
        payee: u16,
        /// The holds.
        ids: Vec<String>,
    },
    /// Reads the journal on: more legs may have ended.
    AuditGoOn {
        /// Of the books.
        stamp: u64,
    },
}

fn failure(name: &str, text: impl Into<String>) -> Value {
    json!({ "error": { "name": name, "text": text.into() } })
}

impl Auditor {
    /// Answers one question. Never waits.
    pub fn ask(&self, question: &str) -> String {
        let answer = match serde_json::from_str::<Request>(question) {
            Ok(Request::Audit { stamp }) => self.audit(Timestamp::from_nanos(stamp)),
            Ok(Request::AuditLegs { stamp, from }) => self.legs(Timestamp::from_nanos(stamp), from),
            Ok(Request::AuditEndings { stamp, payee, ids }) => {
                self.endings(Timestamp::from_nanos(stamp), BranchId::new(payee), &ids)
            }
            Ok(Request::AuditGoOn { stamp }) => self.go_on(Timestamp::from_nanos(stamp)),
            Err(error) => failure("invalid", error.to_string()),
        };
        answer.to_string()
    }

    fn audit(&self, stamp: Timestamp) -> Value {
        let shared = &self.shared;
        if !shared.clock.observe(stamp.as_nanos(), clock::wall()) {
            return failure("clock_ahead", "the stamp is too far ahead of this branch's clock");
        }
        let mut state = shared.state.lock();
        match &*state {
            State::Done(of, taken) if *of == stamp => return json!({ "ok": summary(taken) }),
            State::Failed(of, error) if *of == stamp => {
                let answer = failure("failed", error.to_string());
                // Asked again, it is tried again.
                *state = State::Idle;
                return answer;
            }
            State::Wanted(of, _) | State::Running(of) if *of == stamp => {}
            State::Wanted(..) | State::Running(_) => return failure("busy", "another audit is being taken here"),
            State::Idle | State::Done(..) | State::Failed(..) => {
                *state = State::Wanted(stamp, None);
                shared.changed.notify_one();
            }
        }
        json!({ "ok": { "state": "running" } })
    }

    fn legs(&self, stamp: Timestamp, from: usize) -> Value {
        match &*self.shared.state.lock() {
            State::Done(of, taken) if *of == stamp => {
                let books = taken.books();
                let legs: Vec<Value> = books.open.iter().skip(from).take(PAGE_LEN_MAX).map(open_leg).collect();
                json!({ "ok": { "open": books.open.len(), "legs": legs } })
            }
            _ => not_there(),
        }
    }

    fn endings(&self, stamp: Timestamp, payee: BranchId, ids: &[String]) -> Value {
        let ids: Result<Vec<_>, _> = ids.iter().map(|id| u128::from_str_radix(id, 16)).collect();
        match (&*self.shared.state.lock(), ids) {
            (State::Done(of, taken), Ok(ids)) if *of == stamp && ids.len() <= PAGE_LEN_MAX => {
                let posted = |id: &u128| taken.ended_with(TransferId::new(*id), payee).get();
                let posted: Vec<u64> = ids.iter().map(posted).collect();
                json!({ "ok": { "posted": posted } })
            }
            (State::Done(of, _), _) if *of == stamp => failure("invalid", "at most 1,000 ids, in hexadecimal digits"),
            _ => not_there(),
        }
    }

    fn go_on(&self, stamp: Timestamp) -> Value {
        let mut state = self.shared.state.lock();
        if state.stamp() != Some(stamp) {
            return not_there();
        }
        match std::mem::take(&mut *state) {
            State::Done(_, taken) => {
                *state = State::Wanted(stamp, Some(taken));
                self.shared.changed.notify_one();
            }
            other => *state = other,
        }
        json!({ "ok": { "state": "running" } })
    }
}

fn not_there() -> Value {
    failure("not_there", "this branch has no books as of that stamp: it was restarted, or audited by somebody else")
}

fn summary(taken: &Taken) -> Value {
    let books: BranchBooks = taken.books();
    json!({
        "state": "done",
        "durable": taken.durable.get(),
        "accounts_from_checkpoint": taken.from_checkpoint,
        "records": taken.records,
        "currencies": books.currencies.iter().map(totals).collect::<Vec<_>>(),
        "settlements": books.settlements.iter().map(settlement).collect::<Vec<_>>(),
        "open": books.open.len(),
    })
}

// Sums over accounts may be larger than a number of JSON: they are texts.

fn totals((currency, totals): (&Currency, &Totals)) -> Value {
    json!({
        "currency": currency.get(),
        "accounts": totals.accounts,
        "debits_posted": totals.debits_posted.to_string(),
        "credits_posted": totals.credits_posted.to_string(),
        "debits_held": totals.debits_held.to_string(),
        "credits_held": totals.credits_held.to_string(),
        "holds": totals.holds.to_string(),
    })
}

fn settlement((&(peer, currency), settlement): (&(BranchId, Currency), &Settlement)) -> Value {
    let side = |side: &Side| json!({ "posted": side.posted.to_string(), "early": side.early.to_string(), "late": side.late.to_string() });
    json!({
        "peer": peer.get(),
        "currency": currency.get(),
        "debits": side(&settlement.debits),
        "credits": side(&settlement.credits),
    })
}

fn open_leg(leg: &OpenLeg) -> Value {
    json!({
        "id": leg.id.to_string(),
        "decided_under": leg.decided_under.to_string(),
        "peer": leg.peer.get(),
        "currency": leg.currency.get(),
        "amount": leg.amount.get(),
        "outgoing": leg.is_outgoing,
        "hold": leg.is_hold,
    })
}
