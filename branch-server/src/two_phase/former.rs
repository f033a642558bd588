//! Requests on accounts that have moved here, while their former branches are asked whether they know the id.
//!
//! An id that was used on the account before it moved must not be used again here, and only the branch that it was used at
//! knows it. Asked is what is new here, and once per request.
//!
//! **Invariant:** a request goes on only when every former branch has said that it never saw the id, since the account
//! came here ([`tally_ledger::Residence::moves`] says which stay that is).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tally_ledger::Residence;
use tally_protocol::link::{IdItem, id_answer};
use tally_protocol::message::Transfer;
use tally_protocol::{BranchId, Lsn, Refusal, TransferId};

use super::{Led, Said, TwoPhase};
use crate::lookup::Asker;

/// Requests that may wait at a time; one more is `Busy`.
const WAITING_MAX: usize = 4_096;
/// How long an answer may take.
const TIMEOUT_NS: u64 = 1_000_000_000;

/// See the top of the file.
#[derive(Debug, Default)]
pub struct Former(Mutex<HashMap<TransferId, Waiting, RandomState>>);

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    transfer: Transfer,
    moves: u8,
    missing: Vec<BranchId>,
    until_ns: u64,
}

/// What becomes of a request that waited.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// No branch knows the id: go on.
    Cleared(Asker, Transfer),
    /// Refused.
    Refused(Asker, Refusal, Option<BranchId>),
}

impl TwoPhase {
    /// Asks the former branches of an account about the id of `transfer`, and about `reference` where that is one.
    ///
    /// # Errors
    /// `FormerBranchUnreachable` without a link, `Busy` when too many wait or this id does already.
    pub fn ask_former(
        &self,
        asker: Asker,
        transfer: Transfer,
        residence: Residence,
        reference: TransferId,
        now_ns: u64,
        led: &mut Led,
    ) -> Result<(), Refusal> {
        if !self.is_linked() {
            return Err(Refusal::FormerBranchUnreachable);
        }
        let id = TransferId::new(transfer.id.get());
        let mut waiting = self.former.0.lock();
        if waiting.len() >= WAITING_MAX || waiting.contains_key(&id) {
            return Err(Refusal::Busy);
        }
        let missing: Vec<BranchId> = residence.known().filter(|&branch| branch != self.branch).collect();
        for &branch in &missing {
            let question = IdItem::question(id.get(), 0, self.branch, branch).about(reference.get());
            led.says.push((Lsn::ZERO, Said::AskId(question)));
        }
        let until_ns = now_ns.saturating_add(TIMEOUT_NS);
        waiting.insert(id, Waiting { asker, transfer, moves: residence.moves, missing, until_ns });
        Ok(())
    }

    /// A former branch has answered.
    pub fn hear_former(&self, item: &IdItem) -> Option<Heard> {
        let (id, asked) = (TransferId::new(item.id.get()), BranchId::new(item.asked.get()));
        let mut waiting = self.former.0.lock();
        let one = waiting.get_mut(&id).filter(|one| one.missing.contains(&asked))?;
        match item.answer {
            id_answer::UNKNOWN => {
                one.missing.retain(|&branch| branch != asked);
                if !one.missing.is_empty() {
                    return None;
                }
                let Waiting { asker, transfer, moves, .. } = waiting.remove(&id)?;
                Some(Heard::Cleared(Asker { cleared_moves: moves, ..asker }, transfer))
            }
            id_answer::KNOWN => {
                let one = waiting.remove(&id)?;
                Some(Heard::Refused(one.asker, Refusal::IdUsedElsewhere, Some(asked)))
            }
            _ => {
                let one = waiting.remove(&id)?;
                Some(Heard::Refused(one.asker, Refusal::FormerBranchUnreachable, None))
            }
        }
    }

    /// Those that have waited for too long.
    pub fn give_up_former(&self, now_ns: u64) -> Vec<Asker> {
        let mut waiting = self.former.0.lock();
        let mut late: Vec<TransferId> =
            waiting.iter().filter(|(_, one)| one.until_ns <= now_ns).map(|(&id, _)| id).collect();
        late.sort_unstable();
        late.iter().filter_map(|id| waiting.remove(id)).map(|one| one.asker).collect()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    const HERE: BranchId = BranchId::new(1);

    fn asked(linked: bool) -> (TwoPhase, Led, Result<(), Refusal>) {
        let (shared, mut led) = (TwoPhase::new(HERE), Led::default());
        shared.set_linked(linked);
        let branches = [BranchId::new(2), BranchId::new(3), BranchId::default()];
        let residence = Residence { moves: 2, branches };
        let transfer = Transfer { id: 9.into(), ..Transfer::new_zeroed() };
        let outcome = shared.ask_former(Asker::bank(), transfer, residence, TransferId::new(7), 0, &mut led);
        (shared, led, outcome)
    }

    fn answer(branch: u16, answer: u8) -> IdItem {
        IdItem::question(9, 0, HERE, BranchId::new(branch)).answered(answer)
    }

    #[test]
    fn all_have_to_say_no_and_one_yes_is_enough() {
        let (shared, led, outcome) = asked(true);
        assert_eq!((outcome, led.says.len()), (Ok(()), 2));
        assert!(led.says.iter().all(|(_, said)| matches!(said, Said::AskId(item) if item.reference.get() == 7)));
        assert!(shared.hear_former(&answer(4, id_answer::UNKNOWN)).is_none(), "nobody asked it");
        assert!(shared.hear_former(&answer(2, id_answer::UNKNOWN)).is_none());
        assert!(shared.hear_former(&answer(2, id_answer::UNKNOWN)).is_none(), "it has answered");
        let Some(Heard::Cleared(asker, transfer)) = shared.hear_former(&answer(3, id_answer::UNKNOWN)) else {
            panic!("both have answered")
        };
        assert_eq!((asker.cleared_moves, transfer.id.get()), (2, 9));
        let (shared, ..) = asked(true);
        let Some(Heard::Refused(_, refusal, branch)) = shared.hear_former(&answer(3, id_answer::KNOWN)) else {
            panic!("it knows the id")
        };
        assert_eq!((refusal, branch), (Refusal::IdUsedElsewhere, Some(BranchId::new(3))));
        assert!(shared.hear_former(&answer(2, id_answer::UNKNOWN)).is_none(), "it was answered");
    }

    #[test]
    fn no_answer_is_no_leave() {
        assert_eq!(asked(false).2, Err(Refusal::FormerBranchUnreachable));
        let (shared, ..) = asked(true);
        let Some(Heard::Refused(_, refusal, None)) = shared.hear_former(&answer(2, id_answer::UNREACHABLE)) else {
            panic!("it could not be asked")
        };
        assert_eq!(refusal, Refusal::FormerBranchUnreachable);
        let (shared, mut led, _) = asked(true);
        let transfer = Transfer { id: 9.into(), ..Transfer::new_zeroed() };
        let again = shared.ask_former(Asker::bank(), transfer, Residence::default(), TransferId::NONE, 0, &mut led);
        assert_eq!(again, Err(Refusal::Busy));
        assert!(shared.give_up_former(TIMEOUT_NS - 1).is_empty());
        assert_eq!(shared.give_up_former(TIMEOUT_NS).len(), 1);
        assert!(shared.hear_former(&answer(2, id_answer::UNKNOWN)).is_none());
    }
}
