//! What moves an account from one branch to another, and keeps its transfer ids unique meanwhile.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

use super::LinkItem;
use super::items::{is_transfer_id, sealed};
use crate::{AccountKind, BranchId, Currency};

/// Branches that an account remembers, beside the one that it is at.
pub const FORMER_BRANCHES_MAX: usize = 3;
/// Open holds that may go along with one account: what both branches write down of them stays far below what one stretch
/// of their journals takes.
pub const MOVE_HOLDS_MAX: usize = 256;

/// Values of [`MoveHold::side`].
pub mod move_side {
    /// The account that moves is the payer.
    pub const DEBIT: u8 = 1;
    /// The account that moves is the payee.
    pub const CREDIT: u8 = 2;
}

/// Values of [`IdItem::answer`].
pub mod id_answer {
    /// A question.
    pub const NONE: u8 = 0;
    /// The id was never used there.
    pub const UNKNOWN: u8 = 1;
    /// The id was used there.
    pub const KNOWN: u8 = 2;
    /// The branch could not be asked.
    pub const UNREACHABLE: u8 = 3;
}

wire! {
    /// An operator wants an account at another branch.
    MoveOrder 48 {
        /// The move's: a transfer id, drawn by the registry's leader.
        0 id: U128,
        /// Which account; not 0.
        16 account_id: U128,
        /// The leader's stamp.
        32 stamp: U64,
        /// Where to; not 0.
        40 destination: U16,
        /// 0.
        42 reserved: [u8; 6],
    }
}

wire! {
    /// An account on its way: all of it, as its branch sealed it.
    MoveItem 160 {
        /// The move's.
        0 id: U128,
        /// Which account; not 0.
        16 account_id: U128,
        /// The client's own.
        32 user_data_128: U128,
        /// The source's stamp when it sealed the account.
        48 stamp: U64,
        /// The stamp after which the registry gives up.
        56 deadline: U64,
        /// [`crate::CustomerId`].
        64 owner: U64,
        /// The client's own.
        72 user_data_64: U64,
        /// How far debits may exceed credits, in minor units.
        80 overdraft: U64,
        /// The most debits in one day, in minor units; all ones for no limit.
        88 day_limit: U64,
        /// Debits posted on `day`, in minor units.
        96 day_spent: U64,
        /// When it was opened, in nanoseconds since 1970.
        104 opened_at: U64,
        /// All debits that were ever posted, in minor units.
        112 debits_posted: U64,
        /// All credits that were ever posted, in minor units.
        120 credits_posted: U64,
        /// The client's own.
        128 user_data_32: U32,
        /// The day that `day_spent` counts, since 1970-01-01 UTC.
        132 day: U32,
        /// ISO 4217 numeric.
        136 currency: U16,
        /// The client's own class of account.
        138 code: U16,
        /// [`crate::message::account_flags`].
        140 flags: U16,
        /// [`AccountKind`].
        142 kind: u8,
        /// How often the account has moved, this move included; not 0.
        143 moves: u8,
        /// Where it is; not 0.
        144 source: U16,
        /// Where it goes; not 0, not the source.
        146 destination: U16,
        /// Where it was before, the source first; 0 behind the last.
        148 former: [U16; 3],
        /// Open holds that go along: as many [`MoveHold`] follow.
        154 holds: U16,
        /// 0.
        156 reserved: [u8; 4],
    }
}

wire! {
    /// An open hold on an account on its way.
    MoveHold 64 {
        /// The hold's.
        0 id: U128,
        /// The other account of it, wherever that is; not 0, not the one that moves.
        16 other_account_id: U128,
        /// What is held, in minor units.
        32 amount: U64,
        /// When it was made, in nanoseconds since 1970: its day is the one whose limit it counts for.
        40 made_at: U64,
        /// It ends by itself so many seconds later; 0 for never, and where the branch of the payer looks at the clock.
        48 timeout_s: U32,
        /// Its reason code.
        52 code: U16,
        /// Which side the account that moves is on: 1 debit, 2 credit.
        54 side: u8,
        /// Where its other side is: 1 at the destination, which has a part of it that this one joins; else 0.
        55 joins: u8,
        /// 0.
        56 reserved: [u8; 8],
    }
}

wire! {
    /// Whether a transfer id was used at a branch where an account was before; or what it refers to.
    IdItem 48 {
        /// The transfer's.
        0 id: U128,
        /// What the transfer would end or undo, where the asker does not know it; else 0.
        16 reference: U128,
        /// The sender's stamp.
        32 stamp: U64,
        /// Who wants to know; not 0.
        40 asker: U16,
        /// Who is asked; not 0, not the asker.
        42 asked: U16,
        /// In a question 0; in an answer 1 neither was ever used, 2 one was, 3 the branch could not be asked.
        44 answer: u8,
        /// 0.
        45 reserved: [u8; 3],
    }
}

wire! {
    /// Where an account is that has moved.
    MovedItem 32 {
        /// Which account; not 0.
        0 account_id: U128,
        /// Of the routes, since when.
        16 version: U64,
        /// Where it is; not 0.
        24 branch_id: U16,
        /// 0.
        26 reserved: [u8; 6],
    }
}

impl sealed::Sealed for MoveOrder {}
impl LinkItem for MoveOrder {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if !is_transfer_id(self.account_id.get()) => Some("account_id"),
            _ if self.destination.get() == 0 => Some("destination"),
            _ if self.reserved != [0; 6] => Some("reserved"),
            _ => None,
        }
    }
}

impl sealed::Sealed for MoveItem {}
impl LinkItem for MoveItem {
    fn invalid_field(&self) -> Option<&'static str> {
        let ends = self.former.iter().position(|branch| branch.get() == 0).unwrap_or(FORMER_BRANCHES_MAX);
        match self {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if !is_transfer_id(self.account_id.get()) => Some("account_id"),
            _ if Currency::new(self.currency.get()).is_none() => Some("currency"),
            _ if AccountKind::from_wire(self.kind).is_none() => Some("kind"),
            _ if self.moves == 0 => Some("moves"),
            _ if self.source.get() == 0 => Some("source"),
            _ if self.destination.get() == 0 || self.destination == self.source => Some("destination"),
            _ if self.former[0] != self.source || self.former[ends..].iter().any(|branch| branch.get() != 0) => {
                Some("former")
            }
            _ if usize::from(self.holds.get()) > MOVE_HOLDS_MAX => Some("holds"),
            _ if self.reserved != [0; 4] => Some("reserved"),
            _ => None,
        }
    }
}

impl sealed::Sealed for MoveHold {}
impl LinkItem for MoveHold {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if !is_transfer_id(self.other_account_id.get()) => Some("other_account_id"),
            _ if !(move_side::DEBIT..=move_side::CREDIT).contains(&self.side) => Some("side"),
            _ if self.timeout_s.get() != 0 && self.side == move_side::CREDIT => Some("timeout_s"),
            _ if self.joins > 1 => Some("joins"),
            _ if self.reserved != [0; 8] => Some("reserved"),
            _ => None,
        }
    }
}

/// An account on its way with its open holds, as the body of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveBody<'a> {
    /// The account. Invariant: `account.holds` is how many `holds` there are.
    pub account: &'a MoveItem,
    /// Its open holds, each id once, rising.
    pub holds: &'a [MoveHold],
}

/// The same for keeps, shared by all who pass it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMove {
    /// The account. Invariant: `account.holds` is how many `holds` there are.
    pub account: MoveItem,
    /// Its open holds, each id once, rising.
    pub holds: Vec<MoveHold>,
}

impl AccountMove {
    /// The account with its holds, whatever it says of their number.
    ///
    /// # Panics
    /// When there are more than [`MOVE_HOLDS_MAX`].
    pub fn new(account: MoveItem, holds: Vec<MoveHold>) -> Self {
        assert!(holds.len() <= MOVE_HOLDS_MAX, "{} holds go along", holds.len());
        Self { account: MoveItem { holds: U16::new(holds.len() as u16), ..account }, holds }
    }

    /// As the body of a frame.
    pub fn body(&self) -> MoveBody<'_> {
        MoveBody { account: &self.account, holds: &self.holds }
    }
}

impl MoveBody<'_> {
    /// Copied.
    pub fn to_owned(self) -> AccountMove {
        AccountMove { account: *self.account, holds: self.holds.to_vec() }
    }

    /// The field that no sender that keeps the rules would send, if there is one.
    pub fn invalid_field(&self) -> Option<&'static str> {
        let rises = |pair: &[MoveHold]| pair[0].id.get() < pair[1].id.get();
        match self {
            _ if usize::from(self.account.holds.get()) != self.holds.len() => Some("holds"),
            _ if !self.holds.windows(2).all(rises) => Some("holds"),
            _ if self.holds.iter().any(|hold| hold.other_account_id == self.account.account_id) => {
                Some("other_account_id")
            }
            _ => self.account.invalid_field().or_else(|| self.holds.iter().find_map(MoveHold::invalid_field)),
        }
    }
}

impl sealed::Sealed for IdItem {}
impl LinkItem for IdItem {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.id.get()) => Some("id"),
            _ if self.reference.get() == u128::MAX => Some("reference"),
            _ if self.asker.get() == 0 => Some("asker"),
            _ if self.asked.get() == 0 || self.asked == self.asker => Some("asked"),
            _ if self.answer > id_answer::UNREACHABLE => Some("answer"),
            _ if self.reserved != [0; 3] => Some("reserved"),
            _ => None,
        }
    }
}

impl sealed::Sealed for MovedItem {}
impl LinkItem for MovedItem {
    fn invalid_field(&self) -> Option<&'static str> {
        match self {
            _ if !is_transfer_id(self.account_id.get()) => Some("account_id"),
            _ if self.branch_id.get() == 0 => Some("branch_id"),
            _ if self.reserved != [0; 6] => Some("reserved"),
            _ => None,
        }
    }
}

impl IdItem {
    /// The question of `asker` whether `id` was used at `asked`.
    pub const fn question(id: u128, stamp: u64, asker: BranchId, asked: BranchId) -> Self {
        Self {
            id: U128::new(id),
            reference: U128::ZERO,
            stamp: U64::new(stamp),
            asker: U16::new(asker.get()),
            asked: U16::new(asked.get()),
            answer: id_answer::NONE,
            reserved: [0; 3],
        }
    }

    /// The same, also about what the transfer refers to.
    #[must_use]
    pub const fn about(self, reference: u128) -> Self {
        Self { reference: U128::new(reference), ..self }
    }

    /// The same with an answer, one of [`id_answer`].
    #[must_use]
    pub const fn answered(self, answer: u8) -> Self {
        Self { answer, ..self }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn a_move_that_cannot_be_is_refused_by_its_field() {
        let good = MoveItem {
            id: 1.into(),
            account_id: 2.into(),
            currency: Currency::EUR.get().into(),
            kind: 1,
            moves: 2,
            source: 3.into(),
            destination: 4.into(),
            former: [3.into(), 5.into(), 0.into()],
            ..MoveItem::new_zeroed()
        };
        for (item, invalid) in [
            (good, None),
            (MoveItem { id: 0.into(), ..good }, Some("id")),
            (MoveItem { account_id: u128::MAX.into(), ..good }, Some("account_id")),
            (MoveItem { currency: 0.into(), ..good }, Some("currency")),
            (MoveItem { kind: 0, ..good }, Some("kind")),
            (MoveItem { moves: 0, ..good }, Some("moves")),
            (MoveItem { source: 0.into(), ..good }, Some("source")),
            (MoveItem { destination: 3.into(), ..good }, Some("destination")),
            (MoveItem { former: [0.into(); 3], ..good }, Some("former")),
            (MoveItem { former: [3.into(), 0.into(), 5.into()], ..good }, Some("former")),
            (MoveItem { holds: 257.into(), ..good }, Some("holds")),
            (MoveItem { reserved: [1; 4], ..good }, Some("reserved")),
        ] {
            assert_eq!(item.invalid_field(), invalid, "{item:?}");
        }
        let order = MoveOrder { id: 1.into(), account_id: 2.into(), destination: 3.into(), ..MoveOrder::new_zeroed() };
        assert_eq!(order.invalid_field(), None);
        assert_eq!(MoveOrder { destination: 0.into(), ..order }.invalid_field(), Some("destination"));
        assert_eq!(MoveOrder { account_id: 0.into(), ..order }.invalid_field(), Some("account_id"));
        let moved = MovedItem { account_id: 2.into(), branch_id: 3.into(), ..MovedItem::new_zeroed() };
        assert_eq!(moved.invalid_field(), None);
        assert_eq!(MovedItem { branch_id: 0.into(), ..moved }.invalid_field(), Some("branch_id"));
    }

    #[test]
    fn a_hold_that_cannot_go_along_is_refused_by_its_field() {
        let account = MoveItem {
            id: 1.into(),
            account_id: 2.into(),
            currency: Currency::EUR.get().into(),
            kind: 1,
            moves: 2,
            source: 3.into(),
            destination: 4.into(),
            former: [3.into(), 5.into(), 0.into()],
            ..MoveItem::new_zeroed()
        };
        let good = MoveHold { id: 7.into(), other_account_id: 8.into(), side: 1, ..MoveHold::new_zeroed() };
        let later = MoveHold { id: 9.into(), ..good };
        let of = |holds: &[MoveHold]| AccountMove::new(account, holds.to_vec()).body().invalid_field();
        for (holds, invalid) in [
            (vec![], None),
            (vec![good, later], None),
            (vec![MoveHold { timeout_s: 5.into(), ..good }], None),
            (vec![later, good], Some("holds")),
            (vec![good, good], Some("holds")),
            (vec![MoveHold { id: 0.into(), ..good }], Some("id")),
            (vec![MoveHold { other_account_id: 0.into(), ..good }], Some("other_account_id")),
            (vec![MoveHold { other_account_id: 2.into(), ..good }], Some("other_account_id")),
            (vec![MoveHold { side: 0, ..good }], Some("side")),
            (vec![MoveHold { side: 3, ..good }], Some("side")),
            (vec![MoveHold { side: 2, timeout_s: 5.into(), ..good }], Some("timeout_s")),
            (vec![MoveHold { joins: 1, ..good }], None),
            (vec![MoveHold { joins: 2, ..good }], Some("joins")),
            (vec![MoveHold { reserved: [1; 8], ..good }], Some("reserved")),
        ] {
            assert_eq!(of(&holds), invalid, "{holds:?}");
        }
        let more = MoveItem { holds: 2.into(), ..account };
        assert_eq!(MoveBody { account: &more, holds: &[good] }.invalid_field(), Some("holds"));
    }

    #[test]
    fn a_question_names_two_branches_and_an_answer_one_of_three() {
        let question = IdItem::question(9, 1, BranchId::new(1), BranchId::new(2));
        assert_eq!(question.invalid_field(), None);
        for answer in 0..=u8::MAX {
            let invalid = question.answered(answer).invalid_field();
            assert_eq!(invalid, (answer > 3).then_some("answer"));
        }
        assert_eq!(IdItem { asked: 1.into(), ..question }.invalid_field(), Some("asked"));
        assert_eq!(IdItem { asker: 0.into(), ..question }.invalid_field(), Some("asker"));
        assert_eq!(IdItem { reserved: [0, 1, 0], ..question }.invalid_field(), Some("reserved"));
    }
}
