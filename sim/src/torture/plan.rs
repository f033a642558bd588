//! What is asked of the bank: transfers of every kind, drawn from a seed.
//!
//! The draws depend on the seed and on the answers alone. Holds are settled and payments reversed only once
//! they were acknowledged; a few requests are sent twice on purpose.

use std::collections::VecDeque;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tally_protocol::message::{Transfer, TransferKind, transfer_flags};
use tally_protocol::{AccountId, BranchId, Currency};

/// How transfers travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One by itself.
    Single,
    /// All or none.
    Chain,
    /// Each by itself, unless linked to the next.
    Batch,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// How its transfers travel.
    pub(crate) shape: Shape,
    /// One, or more where the shape allows it.
    pub(crate) transfers: Vec<Transfer>,
}

impl Unit {
    /// The ranges of its transfers of which all or none must be done.
    pub(crate) fn chains(&self) -> Vec<std::ops::Range<usize>> {
        if self.shape == Shape::Chain {
            return vec![0..self.transfers.len()];
        }
        let mut chains = Vec::new();
        let mut first = 0;
        for (index, transfer) in self.transfers.iter().enumerate() {
            if transfer.flags.get() & transfer_flags::LINKED == 0 {
                if first < index {
                    chains.push(first..index + 1);
                }
                first = index + 1;
            }
        }
        chains
    }
}

/// Customer accounts; few, so that they are contended.
pub(crate) const ACCOUNTS: u128 = 48;
/// Of these, the first may not be overdrawn: some payments are refused.
pub(crate) const LIMITED_ACCOUNTS: u128 = 24;
const BATCH_LEN_MAX: usize = 120;
const CHAIN_LEN_MAX: usize = 6;
/// Holds and payments that are remembered to be settled or reversed; older ones are left alone.
const REMEMBERED_MAX: usize = 64;

/// The account `number` (`1..=ACCOUNTS`).
pub(crate) fn account(branch: BranchId, number: u128) -> AccountId {
    AccountId::of_branch(branch, number)
}

/// Draws requests.
#[derive(Debug)]
pub(crate) struct Plan {
    branch: BranchId,
    random: ChaCha8Rng,
    holds: VecDeque<u128>,
    posted: VecDeque<u128>,
    sent: VecDeque<Unit>,
}

impl Plan {
    /// One of several streams of requests of a run.
    pub(crate) fn new(branch: BranchId, seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self { branch, random, holds: VecDeque::new(), posted: VecDeque::new(), sent: VecDeque::new() }
    }

    /// The next request.
    pub(crate) fn next_unit(&mut self) -> Unit {
        let single = |transfer| Unit { shape: Shape::Single, transfers: vec![transfer] };
        match self.random.random_range(0..100) {
            0..=3 => self.chain(),
            4..=7 => self.batch(),
            8..=10 => match self.sent.pop_front() {
                Some(again) => again,
                None => single(self.payment()),
            },
            _ => single(self.any()),
        }
    }

    /// What came of a request, so that later ones can refer to it: whether each transfer was done.
    pub(crate) fn learn(&mut self, unit: &Unit, done: impl Iterator<Item = bool>) {
        for (transfer, _) in unit.transfers.iter().zip(done).filter(|(_, done)| *done) {
            let id = transfer.id.get();
            match TransferKind::from_wire(transfer.kind) {
                Some(TransferKind::Hold) => remember(&mut self.holds, id),
                Some(TransferKind::Transfer | TransferKind::Deposit | TransferKind::Settle) => {
                    remember(&mut self.posted, id);
                }
                Some(TransferKind::Withdraw | TransferKind::Void | TransferKind::Reverse) | None => {}
            }
        }
        if self.random.random_range(0..16) == 0 {
            remember(&mut self.sent, unit.clone());
        }
    }

    /// A new life after a crash: what was only remembered here is not acted on again.
    pub(crate) fn forget_payments(&mut self) {
        self.posted.clear();
        self.sent.clear();
    }

    /// Holds that this plan may still settle or void.
    pub(crate) fn holds(&self) -> impl Iterator<Item = u128> + '_ {
        self.holds.iter().copied()
    }

    fn chain(&mut self) -> Unit {
        let count = self.random.random_range(1..=CHAIN_LEN_MAX);
        let mut transfers: Vec<Transfer> = (0..count).map(|_| self.payment()).collect();
        if self.random.random_range(0..4) == 0 {
            self.spoil(&mut transfers);
        }
        Unit { shape: Shape::Chain, transfers }
    }

    fn batch(&mut self) -> Unit {
        let count = self.random.random_range(1..=BATCH_LEN_MAX);
        let mut transfers: Vec<Transfer> = (0..count).map(|_| self.payment()).collect();
        if self.random.random_range(0..6) == 0 {
            self.spoil(&mut transfers);
        }
        for transfer in &mut transfers[..count - 1] {
            if self.random.random_range(0..8) == 0 {
                transfer.flags = transfer_flags::LINKED.into();
            }
        }
        Unit { shape: Shape::Batch, transfers }
    }

    /// Makes one of them impossible: more than anybody has, from an account with a limit.
    fn spoil(&mut self, transfers: &mut [Transfer]) {
        let index = self.random.random_range(0..transfers.len());
        let transfer = &mut transfers[index];
        if transfer.kind == TransferKind::Transfer as u8 {
            let credit = account(self.branch, ACCOUNTS).get();
            let debit = account(self.branch, 1 + self.random.random_range(0..LIMITED_ACCOUNTS)).get();
            (transfer.debit_account_id, transfer.credit_account_id) = (debit.into(), credit.into());
            transfer.amount = (1u64 << 50).into();
        }
    }

    /// Any kind that may travel alone.
    fn any(&mut self) -> Transfer {
        match self.random.random_range(0..100) {
            // Fewer than are ended, so that the open ones do not pile up to the server's limit in a long run.
            0..=7 => self.hold(),
            8..=12 => self.ending(TransferKind::Settle),
            13..=20 => self.ending(TransferKind::Void),
            21..=23 => match self.posted.pop_front() {
                Some(reference) => self.naming(TransferKind::Reverse, reference, 0),
                None => self.payment(),
            },
            24..=25 => {
                let mut transfer = self.payment();
                if transfer.kind == TransferKind::Transfer as u8 {
                    transfer.flags = transfer_flags::BALANCING_DEBIT.into();
                }
                transfer
            }
            _ => self.payment(),
        }
    }

    /// Complete in itself, so that it may travel in a chain or batch too.
    fn payment(&mut self) -> Transfer {
        let (debit, credit) = self.two_accounts();
        match self.random.random_range(0..10) {
            0 => self.new_transfer(TransferKind::Deposit, 0, credit, 500),
            1 => self.new_transfer(TransferKind::Withdraw, debit, 0, 300),
            _ => self.new_transfer(TransferKind::Transfer, debit, credit, 400),
        }
    }

    fn hold(&mut self) -> Transfer {
        let (debit, credit) = self.two_accounts();
        let mut transfer = self.new_transfer(TransferKind::Hold, debit, credit, 200);
        // Most never run out; some do while the server is down, some while it works.
        transfer.timeout_s = [0, 0, 0, 1, 3_600][self.random.random_range(0..5)].into();
        transfer
    }

    fn ending(&mut self, kind: TransferKind) -> Transfer {
        // Now and then the hold stays in the list, and is ended twice.
        let again = self.random.random_range(0..12) == 0;
        let hold = if again { self.holds.front().copied() } else { self.holds.pop_front() };
        let Some(reference) = hold else { return self.hold() };
        let part = kind == TransferKind::Settle && self.random.random_range(0..2) == 0;
        let amount = if part { self.random.random_range(1..60) } else { 0 };
        self.naming(kind, reference, amount)
    }

    fn naming(&mut self, kind: TransferKind, reference: u128, amount: u64) -> Transfer {
        let mut transfer = self.new_transfer(kind, 0, 0, 1);
        transfer.reference = reference.into();
        transfer.amount = amount.into();
        transfer.currency = 0.into();
        transfer.code = 0.into();
        transfer
    }

    fn two_accounts(&mut self) -> (u128, u128) {
        let debit = self.random.random_range(0..ACCOUNTS);
        let credit = (debit + self.random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        (account(self.branch, debit + 1).get(), account(self.branch, credit + 1).get())
    }

    fn new_transfer(&mut self, kind: TransferKind, debit: u128, credit: u128, amount_max: u64) -> Transfer {
        Transfer {
            id: (u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64())).into(),
            debit_account_id: debit.into(),
            credit_account_id: credit.into(),
            reference: 0.into(),
            user_data_128: 0.into(),
            amount: self.random.random_range(1..=amount_max).into(),
            user_data_64: [0, self.random.next_u64()][self.random.random_range(0..2)].into(),
            user_data_32: 0.into(),
            timeout_s: 0.into(),
            currency: Currency::EUR.get().into(),
            code: self.random.random_range(1..=9u16).into(),
            flags: 0.into(),
            kind: kind as u8,
            reserved: 0,
        }
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == REMEMBERED_MAX {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn draw(seed: u64, stream: u64, count: usize) -> Vec<Unit> {
        let mut plan = Plan::new(BranchId::new(1), seed, stream);
        (0..count)
            .map(|_| {
                let unit = plan.next_unit();
                plan.learn(&unit, std::iter::repeat_n(true, unit.transfers.len()));
                unit
            })
            .collect()
    }

    fn ids(units: &[Unit]) -> Vec<u128> {
        units.iter().flat_map(|unit| &unit.transfers).map(|transfer| transfer.id.get()).collect()
    }

    #[test]
    fn a_seed_draws_the_same_again_and_streams_differ() {
        assert_eq!(ids(&draw(7, 1, 500)), ids(&draw(7, 1, 500)));
        let (one, two): (HashSet<_>, HashSet<_>) =
            (ids(&draw(7, 1, 500)).into_iter().collect(), ids(&draw(7, 2, 500)).into_iter().collect());
        assert!(one.is_disjoint(&two));
    }

    #[test]
    fn every_kind_and_shape_is_drawn_and_is_well_formed() {
        let units = draw(1, 1, 20_000);
        let mut kinds: HashMap<u8, usize> = HashMap::new();
        let mut linked = 0;
        for unit in &units {
            assert!(unit.shape != Shape::Single || unit.transfers.len() == 1, "a single is one transfer");
            let last = unit.transfers.last().expect("never empty").flags.get();
            assert_eq!(last & transfer_flags::LINKED, 0, "a chain must end inside its batch");
            linked += unit.chains().len();
            for transfer in &unit.transfers {
                tally_ledger::Transfer::from_wire(transfer, BranchId::new(1)).expect("well formed");
                *kinds.entry(transfer.kind).or_default() += 1;
            }
        }
        assert_eq!(kinds.len(), 7, "{kinds:?}");
        assert!(kinds.values().all(|&count| count > 200), "{kinds:?}");
        assert!(linked > 500, "{linked}");
        let all = ids(&units);
        let different = all.iter().collect::<HashSet<_>>().len();
        assert!(different < all.len(), "some requests are sent twice");
    }

    #[test]
    fn linked_runs_of_a_batch_are_its_chains() {
        let mut unit = Unit { shape: Shape::Batch, transfers: draw(1, 1, 400).remove(0).transfers };
        let one = unit.transfers[0];
        let linked = Transfer { flags: transfer_flags::LINKED.into(), ..one };
        unit.transfers = vec![one, linked, linked, one, one, linked, one];
        assert_eq!(unit.chains(), [1..4, 5..7]);
        unit.shape = Shape::Chain;
        assert_eq!(unit.chains(), [0..7]);
    }
}
