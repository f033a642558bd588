//! From any state: nothing is lost any more, and no new fault comes. Then everything must come to its end.

use tally_ledger::two_phase::{Coordinator, CoordinatorEvent, Decision, Participant, ParticipantEvent};
use tally_protocol::Refusal;

use super::model::{Bank, DEADLINE, MUCH_LATER, is_committed};

/// Rounds in which every message in flight arrives once and every clock ticks: prepare, vote, propose, tell,
/// acknowledge, and a question or two.
const ROUNDS_MAX: usize = 12;

impl Bank {
    /// Whether the transfer is decided, carried out everywhere and acknowledged, some rounds after the last fault.
    pub(super) fn heals(&self) -> bool {
        let mut bank = self.clone();
        bank.network.clear();
        for _ in 0..ROUNDS_MAX {
            bank.round();
            if bank.is_at_rest() {
                return !bank.contradicted && bank.is_consistent();
            }
        }
        false
    }

    fn round(&mut self) {
        for branch in self.participants().iter() {
            self.flush(branch);
            self.participant(branch, ParticipantEvent::Tick(MUCH_LATER));
        }
        self.coordinator(CoordinatorEvent::Tick(DEADLINE));
        if !self.all_know_the_end() {
            self.tell_end();
        }
        for message in std::mem::take(&mut self.network) {
            self.deliver(message, Err(Refusal::CreditAccountFrozen.into()));
        }
    }

    fn is_at_rest(&self) -> bool {
        let nothing_held = self.branches.iter().all(|it| {
            !matches!(it.memory, Participant::Prepared { .. }) && it.memory == it.durable && it.gated.is_empty()
        });
        nothing_held && self.all_know_the_end() && matches!(self.leader, Coordinator::Unknown | Coordinator::Done(_))
    }

    /// Whether the payer's branch has nothing left to tell of a hold that it has ended.
    fn all_know_the_end(&self) -> bool {
        let end = self.branches[0].durable;
        !matches!(end, Participant::Ended(_)) || self.branches.iter().all(|it| it.durable == end)
    }

    fn is_consistent(&self) -> bool {
        let is_commit = matches!(self.log, Some((Decision::Commit, _)));
        self.branches.iter().all(|it| is_committed(it.durable) == is_commit)
    }
}
