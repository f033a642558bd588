//! What moves an account from one branch to another, and keeps its transfer ids unique meanwhile.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

use super::LinkItem;
use super::items::{is_transfer_id, sealed};
use crate::{AccountKind, BranchId, Currency};

/// Branches that an account remembers, beside the one that it is at.
pub const FORMER_BRANCHES_MAX: usize = 3;

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
        /// 0.
        154 reserved: [u8; 6],
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
            _ if self.reserved != [0; 6] => Some("reserved"),
            _ => None,
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
            (MoveItem { reserved: [1; 6], ..good }, Some("reserved")),
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
