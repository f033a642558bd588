//! The audit: it sees every record that goes to the disk, every reply that leaves, and every state that recovery
//! brings back, and compares them with the model and the invariants. It sees nothing else of the server.
//!
//! ```text
//!   groups on their way to the disk --records--> model, invariants
//!   replies that leave -------------answers----> model, invariants
//!   state after a restart ----------recovery---> model, taken back to where the journal ends
//! ```

mod accounts;
mod answers;
mod chains;
mod reads;
mod records;
mod recovery;

use std::collections::{HashMap, HashSet};

use tally_branch_server::replies::ReplyBody;
use tally_protocol::{Lsn, Refusal, TransferId};

use crate::invariants::images::Images;
use crate::invariants::one_effect::OneEffect;
use crate::invariants::reply_after_durable::ReplyAfterDurable;
use crate::invariants::rising::Rising;
use crate::invariants::{Violation, violated};
use crate::model::Model;
use crate::request::{Asked, Knew, Sent};
use crate::workload::Wish;

/// See the top of the file.
#[derive(Debug)]
pub struct Audit {
    branch: u16,
    model: Model,
    images: Images,
    one_effect: OneEffect,
    rising: Rising,
    durable: ReplyAfterDurable,
    requests: Vec<Sent>,
    /// Which requests, and which of their entries, carry a transfer id.
    by_id: HashMap<TransferId, Vec<(usize, usize)>>,
    /// Which requests are about an account.
    by_account: HashMap<u128, Vec<usize>>,
    told: Told,
    open_requests: usize,
    /// Monotonic nanoseconds.
    now_ns: u64,
    /// What was seen, for the summary.
    pub counts: Counts,
}

/// What some client has been told, as of now.
#[derive(Debug, Default)]
struct Told {
    accounts: HashMap<u128, Lsn>,
    used: HashSet<TransferId>,
    ended: HashSet<TransferId>,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were done.
    pub done: u64,
    /// Records of refusals.
    pub refused: u64,
    /// Holds that expired.
    pub expired: u64,
    /// Chains recorded.
    pub chains: u64,
    /// Changes of accounts.
    pub account_changes: u64,
    /// Ids burnt.
    pub cancelled: u64,
    /// Replies.
    pub replies: u64,
    /// Answers to a known id.
    pub repeats: u64,
    /// Requests answered with `Busy` or the like.
    pub turned_away: u64,
}

impl Audit {
    /// Nothing has happened in `branch`.
    pub fn new(branch: u16) -> Self {
        Self {
            branch,
            model: Model::new(branch),
            images: Images::default(),
            one_effect: OneEffect::default(),
            rising: Rising::default(),
            durable: ReplyAfterDurable::default(),
            requests: Vec::new(),
            by_id: HashMap::new(),
            by_account: HashMap::new(),
            told: Told::default(),
            open_requests: 0,
            now_ns: 0,
            counts: Counts::default(),
        }
    }

    /// It is `now_ns` by the clock that never goes back.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Requests that were sent and not answered.
    pub const fn open_requests(&self) -> usize {
        self.open_requests
    }

    /// The model, for questions about what must be.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// The disk has taken everything below `end`.
    pub fn handle_durable(&mut self, end: Lsn) {
        self.durable.handle_durable(end);
    }

    /// A request is about to be made. Its number.
    pub fn send(&mut self, wish: Wish) -> usize {
        let number = self.requests.len();
        let Wish { actor, within_ns, asked } = wish;
        for (index, transfer) in asked.transfers().iter().enumerate() {
            self.by_id.entry(TransferId::new(transfer.id.get())).or_default().push((number, index));
        }
        match &asked {
            Asked::Open(opens) => {
                for open in opens {
                    self.by_account.entry(open.id.get()).or_default().push(number);
                }
            }
            Asked::Change(ask) => self.by_account.entry(ask.id()).or_default().push(number),
            Asked::Cancel(id) => self.by_id.entry(*id).or_default().push((number, usize::MAX)),
            Asked::Transfer(_)
            | Asked::Chain(_)
            | Asked::Batch(_)
            | Asked::Balance(_)
            | Asked::Account(_)
            | Asked::Find(_) => {}
        }
        let deadline = within_ns.map_or(0, |within| self.now_ns + within);
        let knew = self.knew(&asked);
        self.requests.push(Sent { actor, deadline, asked, knew, is_answered: false });
        self.open_requests += 1;
        number
    }

    /// The request.
    pub fn request(&self, number: usize) -> &Sent {
        &self.requests[number]
    }

    /// The intake had no room for the request: it is as if it had never been made.
    pub fn turned_away(&mut self, number: usize) {
        self.requests[number].is_answered = true;
        self.open_requests -= 1;
        self.counts.turned_away += 1;
    }

    /// The branch went down: what was not answered never will be. The requests concerned.
    pub fn give_up_open(&mut self) -> Vec<usize> {
        self.open_requests = 0;
        let open = self.requests.iter_mut().enumerate().filter(|(_, sent)| !sent.is_answered);
        open.map(|(number, sent)| {
            sent.is_answered = true;
            number
        })
        .collect()
    }

    /// A worker has decided a transfer of the request.
    ///
    /// # Errors
    /// When it had to be refused by then.
    pub fn decided(&self, number: usize) -> Result<(), Violation> {
        let Sent { deadline, .. } = self.requests[number];
        if deadline != 0 && self.now_ns > deadline {
            violated!(
                AnswersMatchModel,
                "request {number} was decided at {}, after its deadline {deadline}",
                self.now_ns
            );
        }
        Ok(())
    }

    /// A reply leaves.
    ///
    /// # Errors
    /// When it is not the answer that the request must get.
    pub fn reply(&mut self, number: usize, body: &ReplyBody) -> Result<(), Violation> {
        let Some(sent) = self.requests.get_mut(number) else {
            violated!(Answered, "a reply to request {number}, which was never made")
        };
        if std::mem::replace(&mut sent.is_answered, true) {
            violated!(Answered, "request {number} was answered twice: {body:?}");
        }
        self.open_requests -= 1;
        self.counts.replies += 1;
        let sent = sent.clone();
        match (&sent.asked, body) {
            (_, ReplyBody::Refused { refusal, .. }) => self.refused(number, &sent, *refusal),
            (Asked::Transfer(wire), ReplyBody::Transfer { reply, balances }) => {
                self.transfer_answer(number, &sent, wire, reply, balances.as_ref())
            }
            (Asked::Chain(wires), ReplyBody::Items(_, items)) => self.chain_answer(number, &sent, wires, items),
            (Asked::Batch(wires), ReplyBody::Items(_, items)) => self.batch_answer(number, &sent, wires, items),
            (Asked::Open(opens), ReplyBody::Items(_, items)) => self.open_answer(number, &sent, opens, items),
            (Asked::Change(ask), ReplyBody::Item(_, item)) => self.change_answer(&sent, ask, item),
            (Asked::Cancel(id), ReplyBody::Item(_, item)) => self.cancel_answer(number, *id, item),
            (Asked::Balance(id), ReplyBody::Balance(balance)) => self.balance_answer(&sent, *id, balance),
            (Asked::Account(id), ReplyBody::Account(account)) => self.account_answer(&sent, *id, account),
            (Asked::Find(id), ReplyBody::Found(found)) => self.found_answer(&sent, *id, found),
            (asked, body) => violated!(AnswersMatchModel, "{} was answered by {body:?}", asked.words()),
        }
    }

    /// The whole request was refused.
    fn refused(&mut self, number: usize, sent: &Sent, refusal: Refusal) -> Result<(), Violation> {
        if self.is_turned_away(sent, refusal) {
            self.counts.turned_away += 1;
            return Ok(());
        }
        match &sent.asked {
            Asked::Transfer(wire) => self.unrecorded(number, sent, wire, refusal),
            Asked::Balance(id) | Asked::Account(id) => self.read_refused(sent, *id, refusal),
            Asked::Find(id) => self.find_refused(sent, *id, refusal),
            asked @ (Asked::Chain(_) | Asked::Batch(_) | Asked::Open(_) | Asked::Change(_) | Asked::Cancel(_)) => {
                violated!(AnswersMatchModel, "{} was refused as a whole: {refusal}", asked.words())
            }
        }
    }

    /// Whether the moment, not the request, explains the refusal.
    fn is_turned_away(&self, sent: &Sent, refusal: Refusal) -> bool {
        match refusal {
            Refusal::DeadlinePassed => sent.deadline != 0 && self.now_ns > sent.deadline,
            Refusal::Busy | Refusal::DiskFull | Refusal::CapacityReached => true,
            _ => false,
        }
    }

    fn knew(&self, asked: &Asked) -> Knew {
        let account = |id: u128| Knew {
            account_lsn: self.told.accounts.get(&id).copied().unwrap_or_default(),
            ..Knew::default()
        };
        match asked {
            Asked::Balance(id) | Asked::Account(id) => account(id.get()),
            Asked::Change(ask) => account(ask.id()),
            Asked::Cancel(id) | Asked::Find(id) => Knew {
                account_lsn: Lsn::ZERO,
                id_is_used: self.told.used.contains(id),
                id_has_ended: self.told.ended.contains(id),
            },
            Asked::Transfer(_) | Asked::Chain(_) | Asked::Batch(_) | Asked::Open(_) => Knew::default(),
        }
    }

    /// A client was told of the record at `lsn`, which made this version of these accounts.
    fn tell(&mut self, lsn: Lsn, accounts: &[u128]) -> Result<(), Violation> {
        self.durable.check_told(lsn)?;
        for id in accounts {
            let told = self.told.accounts.entry(*id).or_default();
            *told = (*told).max(lsn);
        }
        Ok(())
    }
}
