//! Transfers of every kind.

use tally_ledger::Actor;
use tally_protocol::message::{self, Role, TransferKind, transfer_flags};
use tally_protocol::{AccountId, TransferId};

use super::Workload;
use super::accounts::{HOUR_NS, currency_of};
use crate::clock::BEGIN_NS;
use crate::request::Asked;

impl Workload {
    fn new_id(&mut self) -> u128 {
        let id = self.id_next;
        self.id_next += 1;
        id
    }

    fn amount(&mut self) -> u64 {
        if self.random.percent(self.mood.huge_percent) {
            return u64::MAX - self.random.below(3);
        }
        self.random.between(1, 300)
    }

    fn plain(&mut self, kind: TransferKind) -> message::Transfer {
        let with_data = self.random.one_in(5);
        let data = if with_data { self.random.below(9) } else { 0 };
        let wants_balances = self.random.one_in(3);
        message::Transfer {
            id: self.new_id().into(),
            debit_account_id: 0.into(),
            credit_account_id: 0.into(),
            reference: 0.into(),
            user_data_128: u128::from(data).into(),
            amount: self.amount().into(),
            user_data_64: data.into(),
            user_data_32: 0.into(),
            timeout_s: 0.into(),
            currency: 978.into(),
            code: (self.random.between(1, 3) as u16).into(),
            flags: if wants_balances { transfer_flags::WANT_BALANCES } else { 0 }.into(),
            kind: kind as u8,
            reserved: 0,
        }
    }

    /// Two accounts, the first mostly one that the actor may debit.
    fn pair(&mut self, actor: &Actor) -> (AccountId, AccountId) {
        let mut debit = self.account();
        for _ in 0..6 {
            if debit.get() as u64 % super::CUSTOMER_COUNT + 1 == actor.customer.get() {
                break;
            }
            debit = self.account();
        }
        (debit, self.partner_of(debit))
    }

    /// The currency of `id`, most likely.
    fn set_currency(&mut self, transfer: &mut message::Transfer, id: AccountId) {
        transfer.currency.set(if self.random.one_in(25) { 840 } else { currency_of(id) });
    }

    fn balancing(&mut self, transfer: &mut message::Transfer, flags: &[u16]) {
        if self.random.one_in(8) {
            let flag = *self.random.pick(flags);
            transfer.flags.set(transfer.flags.get() | flag);
        }
    }

    pub(super) fn transfer(&mut self, actor: &Actor) -> message::Transfer {
        let mut transfer = self.plain(TransferKind::Transfer);
        let (debit, credit) = self.pair(actor);
        transfer.debit_account_id.set(debit.get());
        transfer.credit_account_id.set(credit.get());
        self.set_currency(&mut transfer, debit);
        self.balancing(&mut transfer, &[transfer_flags::BALANCING_DEBIT, transfer_flags::BALANCING_CREDIT]);
        transfer
    }

    pub(super) fn deposit(&mut self) -> message::Transfer {
        let mut transfer = self.plain(TransferKind::Deposit);
        let credit = self.account();
        transfer.credit_account_id.set(credit.get());
        self.set_currency(&mut transfer, credit);
        transfer.amount.set(transfer.amount.get().saturating_mul(4));
        transfer
    }

    pub(super) fn withdrawal(&mut self) -> message::Transfer {
        let mut transfer = self.plain(TransferKind::Withdraw);
        let debit = self.account();
        transfer.debit_account_id.set(debit.get());
        self.set_currency(&mut transfer, debit);
        self.balancing(&mut transfer, &[transfer_flags::BALANCING_DEBIT]);
        transfer
    }

    pub(super) fn hold(&mut self, actor: &Actor) -> message::Transfer {
        let mut transfer = self.transfer(actor);
        transfer.kind = TransferKind::Hold as u8;
        let timeout_s = match self.random.weighted(&[4, 4, 1]) {
            0 => 0,
            1 => self.random.between(1, 30) as u32,
            _ => u32::MAX,
        };
        transfer.timeout_s.set(timeout_s);
        if self.random.one_in(if actor.role == Role::Customer { 80 } else { 14 }) {
            self.close_by(&mut transfer);
        }
        transfer
    }

    /// The hold closes an account or two: one that holds nothing, or all that there is, or just something.
    fn close_by(&mut self, transfer: &mut message::Transfer) {
        let sides = [transfer_flags::CLOSING_DEBIT, transfer_flags::CLOSING_CREDIT];
        let mut flags = transfer.flags.get() | *self.random.pick(&sides);
        if self.random.one_in(6) {
            flags |= *self.random.pick(&sides);
        }
        match self.random.weighted(&[3, 2, 1]) {
            0 => transfer.amount.set(0),
            1 => {
                transfer.amount.set(u64::MAX);
                flags |= transfer_flags::BALANCING_DEBIT;
            }
            _ => {}
        }
        // Mostly not for long, or soon nothing would move.
        if !self.random.one_in(8) {
            transfer.timeout_s.set(self.random.between(1, 8) as u32);
        }
        transfer.flags.set(flags);
    }

    /// As if it came from an older ledger: all transfers of it, but now and then one.
    pub(super) fn import(&mut self, asked: &mut Asked) {
        let transfers = match asked {
            Asked::Transfer(transfer) => std::slice::from_mut(transfer),
            Asked::Chain(transfers) | Asked::Batch(transfers) => transfers.as_mut_slice(),
            Asked::Open(_)
            | Asked::Change(_)
            | Asked::Cancel(_)
            | Asked::Balance(_)
            | Asked::Account(_)
            | Asked::Find(_) => return,
        };
        for transfer in transfers {
            if self.random.one_in(12) {
                continue;
            }
            transfer.flags.set(transfer.flags.get() | transfer_flags::IMPORTED);
            let own_time = match self.random.weighted(&[6, 6, 1, 1]) {
                // Before or after imported accounts were opened.
                0 => BEGIN_NS - self.random.below(110) * HOUR_NS,
                // Before or after now.
                1 => BEGIN_NS + self.random.below(60) * 1_000_000_000,
                2 => BEGIN_NS * 2,
                _ => 0,
            };
            transfer.user_data_64.set(own_time);
            if !self.random.one_in(12) {
                transfer.timeout_s.set(0);
            }
        }
    }

    /// Settle, void or reverse something that was asked for lately.
    pub(super) fn follow_up(&mut self, _actor: &Actor) -> message::Transfer {
        let kind = [TransferKind::Settle, TransferKind::Settle, TransferKind::Void, TransferKind::Reverse];
        let kind = *self.random.pick(&kind);
        let mut transfer = self.plain(kind);
        let of_holds = kind != TransferKind::Reverse && !self.random.one_in(12);
        let recent = if of_holds { &self.recent_holds } else { &self.recent_ids };
        let reference = match recent.len() {
            0 => TransferId::new(self.id_next + 7),
            len => recent[self.random.index(len)],
        };
        transfer.reference.set(reference.get());
        if !self.random.one_in(4) {
            transfer.amount.set(0);
        }
        if !self.random.one_in(6) {
            transfer.currency.set(0);
        }
        if !self.random.one_in(6) {
            transfer.code.set(0);
        }
        if self.random.one_in(15) {
            let debit = self.account();
            transfer.debit_account_id.set(debit.get());
        }
        transfer
    }

    /// One field is something that it must not be.
    pub(super) fn malformed(&mut self, actor: &Actor) -> message::Transfer {
        let mut transfer = if self.random.one_in(2) { self.transfer(actor) } else { self.follow_up(actor) };
        match self.random.below(12) {
            0 => transfer.id.set(0),
            1 => transfer.id.set(u128::MAX),
            2 => transfer.kind = self.random.below(12) as u8,
            3 => transfer.flags.set(1 << self.random.between(1, 15)),
            4 => transfer.debit_account_id.set(if self.random.one_in(2) { 0 } else { u128::MAX }),
            5 => transfer.credit_account_id.set(transfer.debit_account_id.get()),
            6 => transfer.reference.set(transfer.id.get()),
            7 => transfer.amount.set(0),
            8 => transfer.currency.set(1_000),
            9 => transfer.code.set(0),
            10 => transfer.timeout_s.set(3),
            _ => transfer.credit_account_id.set(5 << 112 | 1),
        }
        transfer
    }

    /// Anything that may be part of a chain or a batch.
    fn link(&mut self, actor: &Actor, before: &[message::Transfer]) -> message::Transfer {
        match self.random.weighted(&[8, 4, 4, 3, 3, 1]) {
            0 => self.transfer(actor),
            1 => self.deposit(),
            2 => self.hold(actor),
            3 => self.follow_up(actor),
            4 => {
                let mut transfer = self.follow_up(actor);
                if let Some(earlier) = before.last() {
                    transfer.reference.set(earlier.id.get());
                }
                transfer
            }
            _ => self.malformed(actor),
        }
    }

    pub(super) fn chain(&mut self, actor: &Actor) -> Vec<message::Transfer> {
        let len = self.random.between(1, 6);
        let mut links: Vec<message::Transfer> = Vec::new();
        for _ in 0..len {
            let link = self.link(actor, &links);
            links.push(link);
        }
        if links.len() > 1 && self.random.one_in(20) {
            links[1].id = links[0].id;
        }
        links
    }

    pub(super) fn batch(&mut self, actor: &Actor) -> Vec<message::Transfer> {
        let mut transfers: Vec<message::Transfer> = Vec::new();
        let len = self.random.between(1, 12);
        for _ in 0..len {
            let mut transfer = self.link(actor, &transfers);
            if self.random.one_in(4) {
                transfer.flags.set(transfer.flags.get() | transfer_flags::LINKED);
            }
            transfers.push(transfer);
        }
        transfers
    }

    pub(super) fn change_one_field(&mut self, transfer: &mut message::Transfer) {
        match self.random.below(8) {
            0 => transfer.amount.set(transfer.amount.get() ^ 1),
            1 => transfer.code.set(transfer.code.get() ^ 4),
            2 => transfer.user_data_32.set(5),
            3 => transfer.user_data_128.set(transfer.user_data_128.get() ^ 1),
            4 => transfer.currency.set(if transfer.currency.get() == 978 { 840 } else { 978 }),
            5 => {
                let credit = self.account();
                transfer.credit_account_id.set(credit.get());
            }
            6 => transfer.reference.set(transfer.reference.get() ^ 2),
            _ => transfer.flags.set(transfer.flags.get() ^ transfer_flags::WANT_BALANCES),
        }
    }
}
