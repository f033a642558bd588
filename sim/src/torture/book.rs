//! What the bank must look like: kept from its own answers, and compared with it after every crash.
//!
//! **Invariant:** every transfer that was acknowledged is in the book with its answer, once; the sums of
//! each account are the effects of these answers and of nothing else. So anything that the server loses,
//! changes or applies twice is a difference between the two.

#![expect(
    clippy::result_large_err,
    reason = "an error here is a violation that ends the run, with all that is known of it"
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use tally_protocol::message::{RESULT_REPEATED, Sums, Transfer, TransferKind};
use tally_protocol::{AccountId, AccountKind, BranchId, Currency, Refusal, TransferId};

/// What the server said about one transfer. `None` where that kind of answer does not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Why nothing was done.
    pub(crate) refusal: Option<Refusal>,
    /// The ledger's time stamp, nanoseconds.
    pub(crate) timestamp: Option<u64>,
    /// Position in the journal.
    pub(crate) lsn: Option<u64>,
    /// What was moved, minor units.
    pub(crate) amount: Option<u64>,
    /// Whether it says that the id was known before.
    pub(crate) repeated: bool,
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// An acknowledged transfer is gone.
    #[error("LOST: transfer {id} was acknowledged as {was:?} and is not there")]
    Lost {
        /// The transfer.
        id: TransferId,
        /// The answer that the client had.
        was: Answer,
    },
    /// The second answer differs from the first.
    #[error("CHANGED: transfer {id} was answered {was:?}, and then {now:?}")]
    AnswerChanged {
        /// The transfer.
        id: TransferId,
        /// First.
        was: Answer,
        /// Later.
        now: Answer,
    },
    /// The id is known, with other content.
    #[error("CHANGED: transfer {id} has other content than it was sent with")]
    ContentChanged {
        /// The transfer.
        id: TransferId,
    },
    /// The journal says twice that one transfer was done.
    #[error("DUPLICATED: transfer {id} is in the journal twice")]
    AppliedTwice {
        /// The transfer.
        id: TransferId,
    },
    /// Part of a chain was done and part of it was not.
    #[error("TORN: of the chain that begins with {id} only a part is known")]
    ChainTorn {
        /// Its first transfer.
        id: TransferId,
    },
    /// The journal holds a transfer that nobody asked for, or that was said not to exist.
    #[error("UNEXPECTED: transfer {id} is in the journal, and should not be")]
    Unexpected {
        /// The transfer.
        id: TransferId,
    },
    /// An account's sums are not the effects of the answers.
    #[error("BALANCE: account {account} should have {expected}, and has {found}")]
    Balance {
        /// The account.
        account: AccountId,
        /// By the book.
        expected: Expected,
        /// As the server says.
        found: Expected,
    },
    /// Debits and credits differ.
    #[error("CONSERVATION: debits and credits differ by {difference} ({what}, currency {currency})")]
    NotConserved {
        /// `posted` or `held`.
        what: &'static str,
        /// ISO 4217 numeric.
        currency: u16,
        /// Debits less credits.
        difference: i128,
    },
    /// A position or time stamp is not above the ones before.
    #[error("BACKWARDS: {what} {now} came after {before}")]
    WentBack {
        /// `position` or `time stamp`.
        what: &'static str,
        /// The highest so far.
        before: u64,
        /// The new one.
        now: u64,
    },
}

/// The four sums of an account; signed, so that a mistake shows as itself and not as an overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// See [`Sums`].
    pub(crate) debits_held: i128,
    /// See [`Sums`].
    pub(crate) debits_posted: i128,
    /// See [`Sums`].
    pub(crate) credits_held: i128,
    /// See [`Sums`].
    pub(crate) credits_posted: i128,
}

impl From<&Sums> for Expected {
    fn from(sums: &Sums) -> Self {
        Self {
            debits_held: sums.debits_held.get().into(),
            debits_posted: sums.debits_posted.get().into(),
            credits_held: sums.credits_held.get().into(),
            credits_posted: sums.credits_posted.get().into(),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "[debits {} posted, {} held; credits {} posted, {} held]",
            self.debits_posted, self.debits_held, self.credits_posted, self.credits_held
        )
    }
}

/// A transfer and its first answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// As it was sent.
    pub(crate) transfer: Transfer,
    /// As it was answered.
    pub(crate) answer: Answer,
    /// Whether it became known since the last [`Book::end_round`].
    pub(crate) is_new: bool,
}

/// Which accounts a later transfer acts on that names this one, and for how much.
#[derive(Clone, Copy, Debug)]
struct Referable {
    debit: AccountId,
    credit: AccountId,
    amount: u64,
    may_expire: bool,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    branch: BranchId,
    sums: BTreeMap<AccountId, Expected>,
    known: HashMap<TransferId, Known>,
    /// Holds and posted transfers that a later one may name.
    referable: HashMap<TransferId, Referable>,
    burnt: HashSet<TransferId>,
    /// Every transfer that was acknowledged so far, repeats not counted.
    acknowledged: u64,
}

impl Book {
    /// An empty one, for a branch that has never done a transfer.
    pub(crate) fn new(branch: BranchId) -> Self {
        Self {
            branch,
            sums: BTreeMap::new(),
            known: HashMap::new(),
            referable: HashMap::new(),
            burnt: HashSet::new(),
            acknowledged: 0,
        }
    }

    /// Enters an answer. A second one must say the same as the first.
    pub(crate) fn learn(&mut self, transfer: &Transfer, answer: Answer) -> Result<(), Violation> {
        let id = TransferId::new(transfer.id.get());
        if let Some(known) = self.known.get_mut(&id) {
            if !same(&known.answer, &answer) {
                // A queue that is full, or a server that stops, says nothing about the transfer.
                if answer.refusal.is_some_and(leaves_no_trace) {
                    return Ok(());
                }
                return Err(Violation::AnswerChanged { id, was: known.answer, now: answer });
            }
            known.answer.timestamp = known.answer.timestamp.or(answer.timestamp);
            known.answer.lsn = known.answer.lsn.or(answer.lsn);
            known.answer.amount = known.answer.amount.or(answer.amount);
            return Ok(());
        }
        if let Some(refusal) = answer.refusal
            && !refusal.consumes_id()
        {
            let burnt = self.burnt.contains(&id) && refusal == Refusal::IdCancelled;
            return if burnt || leaves_no_trace(refusal) { Ok(()) } else { Err(Violation::ContentChanged { id }) };
        }
        if self.burnt.contains(&id) {
            return Err(Violation::Unexpected { id });
        }
        let kind = TransferKind::from_wire(transfer.kind).ok_or(Violation::ContentChanged { id })?;
        self.known.insert(id, Known { transfer: *transfer, answer, is_new: true });
        self.acknowledged += 1;
        if answer.refusal.is_none() {
            self.apply(kind, transfer, answer.amount);
        }
        Ok(())
    }

    fn apply(&mut self, kind: TransferKind, transfer: &Transfer, amount: Option<u64>) {
        let id = TransferId::new(transfer.id.get());
        let named = self.referable.get(&TransferId::new(transfer.reference.get())).copied();
        let cash = || {
            let currency = Currency::new(transfer.currency.get()).unwrap_or_default();
            AccountId::of_house(self.branch, AccountKind::Cash, currency)
        };
        let given = |id: AccountId, left_out: AccountId| if id.is_none() { left_out } else { id };
        let (from_reference_debit, from_reference_credit) = match (kind, &named) {
            (TransferKind::Reverse, Some(named)) => (named.credit, named.debit),
            (_, Some(named)) => (named.debit, named.credit),
            (_, None) => (cash(), cash()),
        };
        let debit = given(AccountId::new(transfer.debit_account_id.get()), from_reference_debit);
        let credit = given(AccountId::new(transfer.credit_account_id.get()), from_reference_credit);
        let asked = Some(transfer.amount.get()).filter(|&asked| asked != 0);
        let held = named.map_or(0, |named| named.amount);
        let amount = amount.or(asked).unwrap_or(held);
        let (posted, held) = match kind {
            TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Reverse => {
                (i128::from(amount), 0)
            }
            TransferKind::Hold => (0, i128::from(amount)),
            TransferKind::Settle => (i128::from(amount), -i128::from(held)),
            TransferKind::Void => (0, -i128::from(held)),
        };
        let may_expire = transfer.timeout_s.get() != 0;
        self.referable.insert(id, Referable { debit, credit, amount, may_expire });
        self.add(debit, credit, posted, held);
    }

    fn add(&mut self, debit: AccountId, credit: AccountId, posted: i128, held: i128) {
        let sums = self.sums.entry(debit).or_default();
        sums.debits_posted += posted;
        sums.debits_held += held;
        let sums = self.sums.entry(credit).or_default();
        sums.credits_posted += posted;
        sums.credits_held += held;
    }

    /// A hold's time ran out.
    pub(crate) fn expired(&mut self, hold: TransferId) -> Result<(), Violation> {
        let held = *self.referable.get(&hold).ok_or(Violation::Unexpected { id: hold })?;
        self.add(held.debit, held.credit, 0, -i128::from(held.amount));
        Ok(())
    }

    /// An id that a cancel made unusable.
    pub(crate) fn burn(&mut self, id: TransferId) -> Result<(), Violation> {
        match self.known.get(&id) {
            Some(known) => Err(Violation::Lost { id, was: known.answer }),
            None => {
                self.burnt.insert(id);
                Ok(())
            }
        }
    }

    /// Whether a cancel made the id unusable.
    pub(crate) fn is_burnt(&self, id: TransferId) -> bool {
        self.burnt.contains(&id)
    }

    /// Ids that a cancel made unusable.
    pub(crate) fn burnt(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.burnt.iter().copied()
    }

    /// The transfer and its answer.
    pub(crate) fn known(&self, id: TransferId) -> Option<&Known> {
        self.known.get(&id)
    }

    /// Transfers that are kept one by one.
    pub(crate) fn all_known(&self) -> impl Iterator<Item = (&TransferId, &Known)> {
        self.known.iter()
    }

    /// Every transfer that was acknowledged, repeats not counted.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What each account must have.
    pub(crate) fn accounts(&self) -> &BTreeMap<AccountId, Expected> {
        &self.sums
    }

    /// Compares an account with what the server says of it.
    pub(crate) fn check_balance(&self, account: AccountId, found: &Sums) -> Result<(), Violation> {
        let expected = self.sums.get(&account).copied().unwrap_or_default();
        let found = Expected::from(found);
        if expected == found { Ok(()) } else { Err(Violation::Balance { account, expected, found }) }
    }

    /// What is known is old from here on, and forgotten one by one, but not in its effects; `keep` says
    /// which transfers stay.
    pub(crate) fn end_round(&mut self, mut keep: impl FnMut(TransferId) -> bool) {
        self.known.retain(|&id, known| {
            known.is_new = false;
            keep(id)
        });
        let known = &self.known;
        // A hold with a time-out ends by itself, whoever still knows of it.
        self.referable.retain(|id, referable| known.contains_key(id) || referable.may_expire);
    }
}

/// Whether the refusal says nothing about the transfer, so that its id stays free.
fn leaves_no_trace(refusal: Refusal) -> bool {
    refusal.code() < Refusal::IdMustNotBeZero.code()
}

fn same(was: &Answer, now: &Answer) -> bool {
    let agree = |was: Option<u64>, now: Option<u64>| was.is_none() || now.is_none() || was == now;
    was.refusal == now.refusal
        && agree(was.timestamp, now.timestamp)
        && agree(was.lsn, now.lsn)
        && agree(was.amount, now.amount)
}

/// Debits equal credits, posted and held, over all accounts of a currency.
pub(crate) fn check_conservation<'a>(currency: u16, all: impl Iterator<Item = &'a Sums>) -> Result<(), Violation> {
    let mut total = Expected::default();
    for sums in all.map(Expected::from) {
        total.debits_posted += sums.debits_posted;
        total.debits_held += sums.debits_held;
        total.credits_posted += sums.credits_posted;
        total.credits_held += sums.credits_held;
    }
    for (what, difference) in
        [("posted", total.debits_posted - total.credits_posted), ("held", total.debits_held - total.credits_held)]
    {
        if difference != 0 {
            return Err(Violation::NotConserved { what, currency, difference });
        }
    }
    Ok(())
}

/// Whether an answer's flags say "repeated".
pub(crate) fn is_repeated(flags: u16) -> bool {
    flags & RESULT_REPEATED != 0
}

/// A value that only rises: positions, time stamps.
#[derive(Debug)]
pub(crate) struct Rising {
    what: &'static str,
    highest: u64,
}

impl Rising {
    /// Nothing was seen yet.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, highest: 0 }
    }

    /// The highest so far.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Takes the next value, which must be above all before.
    pub(crate) fn take(&mut self, now: u64) -> Result<(), Violation> {
        if now <= self.highest {
            return Err(Violation::WentBack { what: self.what, before: self.highest, now });
        }
        self.highest = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u128 = AccountId::of_branch(BranchId::new(1), 1).get();
    const B: u128 = AccountId::of_branch(BranchId::new(1), 2).get();

    fn transfer(id: u128, kind: TransferKind, debit: u128, credit: u128, amount: u64, reference: u128) -> Transfer {
        Transfer {
            id: id.into(),
            debit_account_id: debit.into(),
            credit_account_id: credit.into(),
            reference: reference.into(),
            user_data_128: 0.into(),
            amount: amount.into(),
            user_data_64: 0.into(),
            user_data_32: 0.into(),
            timeout_s: 0.into(),
            currency: Currency::EUR.get().into(),
            code: 1.into(),
            flags: 0.into(),
            kind: kind as u8,
            reserved: 0,
        }
    }

    fn done(timestamp: u64, amount: Option<u64>) -> Answer {
        Answer { refusal: None, timestamp: Some(timestamp), lsn: Some(timestamp * 100), amount, repeated: false }
    }

    fn sums(debits_held: u64, debits_posted: u64, credits_held: u64, credits_posted: u64) -> Sums {
        Sums {
            debits_held: debits_held.into(),
            debits_posted: debits_posted.into(),
            credits_held: credits_held.into(),
            credits_posted: credits_posted.into(),
        }
    }

    #[test]
    fn every_kind_has_its_effect_and_it_conserves_money() {
        use TransferKind::*;
        let mut book = Book::new(BranchId::new(1));
        let cash = AccountId::of_house(BranchId::new(1), AccountKind::Cash, Currency::EUR);
        #[rustfmt::skip]
        let steps = [
            // id, kind, debit, credit, amount, reference, moved | debit and credit sums of A, then of B
            ((1, Deposit,  0, A, 100, 0), Some(100), sums(0, 0, 0, 100),  sums(0, 0, 0, 0)),
            ((2, Transfer, A, B,  30, 0), None,      sums(0, 30, 0, 100), sums(0, 0, 0, 30)),
            ((3, Hold,     A, B,  20, 0), Some(20),  sums(20, 30, 0, 100), sums(0, 0, 20, 30)),
            ((4, Settle,   0, 0,   5, 3), Some(5),   sums(0, 35, 0, 100), sums(0, 0, 0, 35)),
            ((5, Hold,     B, A,   9, 0), None,      sums(0, 35, 9, 100), sums(9, 0, 0, 35)),
            ((6, Void,     0, 0,   0, 5), None,      sums(0, 35, 0, 100), sums(0, 0, 0, 35)),
            ((7, Reverse,  0, 0,   0, 2), None,      sums(0, 35, 0, 130), sums(0, 30, 0, 35)),
            ((8, Withdraw, A, 0,  10, 0), Some(10),  sums(0, 45, 0, 130), sums(0, 30, 0, 35)),
            ((9, Hold,     A, B,   7, 0), None,      sums(7, 45, 0, 130), sums(0, 30, 7, 35)),
            ((10, Settle,  0, 0,   0, 9), None,      sums(0, 52, 0, 130), sums(0, 30, 0, 42)),
        ];
        for (step, moved, a, b) in steps {
            let (id, kind, debit, credit, amount, reference) = step;
            let sent = transfer(id, kind, debit, credit, amount, reference);
            book.learn(&sent, done(id as u64, moved)).expect("first answer");
            book.learn(&sent, done(id as u64, moved)).expect("the same answer again changes nothing");
            assert_eq!(book.check_balance(AccountId::new(A), &a), Ok(()), "A after {id}");
            assert_eq!(book.check_balance(AccountId::new(B), &b), Ok(()), "B after {id}");
        }
        assert_eq!(book.check_balance(cash, &sums(0, 100, 0, 10)), Ok(()));
        check_conservation(978, [sums(0, 52, 0, 130), sums(0, 30, 0, 42), sums(0, 100, 0, 10)].iter()).unwrap();
        assert_eq!(book.acknowledged(), 10);
    }

    #[test]
    fn a_hold_that_ran_out_gives_back_what_it_held() {
        let mut book = Book::new(BranchId::new(1));
        book.learn(&transfer(1, TransferKind::Hold, A, B, 20, 0), done(1, None)).unwrap();
        book.expired(TransferId::new(1)).unwrap();
        assert_eq!(book.check_balance(AccountId::new(A), &sums(0, 0, 0, 0)), Ok(()));
        assert!(matches!(book.expired(TransferId::new(9)), Err(Violation::Unexpected { .. })));
    }

    #[test]
    fn what_must_not_happen_is_noticed() {
        let sent = transfer(1, TransferKind::Transfer, A, B, 30, 0);
        let mut book = Book::new(BranchId::new(1));
        book.learn(&sent, done(1, None)).unwrap();
        let refused =
            |refusal| Answer { refusal: Some(refusal), timestamp: None, lsn: None, amount: None, repeated: false };
        let id = TransferId::new(1);
        for changed in [done(2, None), refused(Refusal::InsufficientFunds), refused(Refusal::ExistsWithDifferentCode)] {
            assert!(matches!(book.learn(&sent, changed), Err(Violation::AnswerChanged { .. })), "{changed:?}");
        }
        book.learn(&sent, refused(Refusal::Busy)).expect("a full queue says nothing about the transfer");
        assert!(matches!(book.burn(id), Err(Violation::Lost { .. })));
        let other = transfer(2, TransferKind::Transfer, A, B, 1, 0);
        book.burn(TransferId::new(2)).unwrap();
        book.learn(&other, refused(Refusal::IdCancelled)).expect("burnt ids are refused by name");
        assert!(matches!(book.learn(&other, done(3, None)), Err(Violation::Unexpected { .. })));
        assert!(matches!(
            book.check_balance(AccountId::new(A), &sums(0, 60, 0, 0)),
            Err(Violation::Balance { expected: Expected { debits_posted: 30, .. }, .. })
        ));
        assert!(matches!(
            check_conservation(978, [sums(0, 1, 0, 0), sums(0, 0, 0, 2)].iter()),
            Err(Violation::NotConserved { what: "posted", difference: -1, .. })
        ));
        let mut rising = Rising::new("position");
        rising.take(5).unwrap();
        assert_eq!(rising.take(5), Err(Violation::WentBack { what: "position", before: 5, now: 5 }));
    }
}
