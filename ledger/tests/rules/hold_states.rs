//! Every state that a referred transfer can be in, against everything that can be done to it: the table in
//! `hold_states.txt` shows the answer and the state after it, so that a changed transition shows in review.

use tally_protocol::Refusal;
use tally_protocol::message::TransferState;

use crate::bank::Bank;
use crate::table::{Runner, START, transfer_id};

/// What leads to each state of T1, a hold of 10 unless said otherwise.
const STATES: &[(&str, &[&str])] = &[
    ("absent", &[]),
    ("cancelled id", &["cancel T1"]),
    ("refused hold", &["freeze A1", "hold T1 A1 A2 10", "unfreeze A1"]),
    ("open hold", &["hold T1 A1 A2 10"]),
    ("open, time left", &["hold T1 A1 A2 10 timeout=5"]),
    ("open, time is up", &["hold T1 A1 A2 10 timeout=5", "clock +5s"]),
    ("expired hold", &["hold T1 A1 A2 10 timeout=5", "clock +5s", "expire"]),
    ("settled hold", &["hold T1 A1 A2 10", "settle T2 T1"]),
    ("partly settled hold", &["hold T1 A1 A2 10", "settle T2 T1 4"]),
    ("voided hold", &["hold T1 A1 A2 10", "void T2 T1"]),
    ("transfer", &["transfer T1 A1 A2 10"]),
    ("reversed transfer", &["transfer T1 A1 A2 10", "reverse T2 T1"]),
    ("deposit", &["deposit T1 A1 10"]),
    ("withdrawal", &["withdraw T1 A1 10"]),
    ("settle", &["hold T2 A1 A2 10", "settle T1 T2"]),
    ("reversed settle", &["hold T2 A1 A2 10", "settle T1 T2", "reverse T3 T1"]),
    ("void", &["hold T2 A1 A2 10", "void T1 T2"]),
    ("reversal", &["transfer T2 A1 A2 10", "reverse T1 T2"]),
];

const EVENTS: &[&str] = &[
    "settle T9 T1",
    "settle T9 T1 3",
    "settle T9 T1 11",
    "void T9 T1",
    "void T9 T1 3",
    "reverse T9 T1",
    "reverse T9 T1 3",
    "expire",
    "cancel T1",
];

fn state_name(bank: &Bank) -> &'static str {
    match bank.state_of(transfer_id("T1")) {
        None => "absent",
        Some(TransferState::Done) => "done",
        Some(TransferState::Refused) => "refused",
        Some(TransferState::InFlight) => "in flight",
        Some(TransferState::Settled) => "settled",
        Some(TransferState::Voided) => "voided",
        Some(TransferState::Expired) => "expired",
        Some(TransferState::Cancelled) => "cancelled",
        Some(TransferState::Reversed) => "reversed",
        Some(TransferState::Prepared) => "prepared",
    }
}

fn all_pairs() -> String {
    let mut text = String::new();
    for (state, steps) in STATES {
        let mut prepared = Runner::new();
        for step in ["account A1", "account A2"].iter().chain(*steps) {
            prepared.event(step);
        }
        text.push_str(&format!("{state} ({})\n", state_name(&prepared.bank)));
        for event in EVENTS {
            let mut runner = prepared.clone();
            assert!(runner.bank.now >= START, "the clock goes on");
            let answer = runner.event(event);
            let name = answer.refusal.map_or("ok", Refusal::name);
            let again = if answer.repeated { "again " } else { "" };
            let sums = runner.bank.accounts[&crate::table::account_id("A1")].sums;
            text.push_str(&format!(
                "  {event:<16} {again}{name} {} -> {} (A1 {} held, {} debited, {} credited)\n",
                answer.amount.get(),
                state_name(&runner.bank),
                sums.debits_held.get(),
                sums.debits_posted.get(),
                sums.credits_posted.get(),
            ));
        }
    }
    text
}

#[test]
fn every_state_meets_every_event_as_recorded() {
    let actual = all_pairs();
    assert!(actual == include_str!("hold_states.txt"), "hold_states.txt should say:\n{actual}");
}
