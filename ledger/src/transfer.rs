//! A transfer as the rules see it: typed, and well formed as far as that can be told from the request alone.
//!
//! **Invariant:** a [`Transfer`] that came out of [`Transfer::from_wire`] has a valid id, only flags that go
//! with its kind, the accounts, reference, time-out, amount, currency and code that its kind asks for, and
//! names no account of another branch. None of these checks looks at the state of the ledger, so a refusal
//! here leaves no trace and the id stays free.

use tally_protocol::message::{self, TransferKind, transfer_flags};
use tally_protocol::{AccountId, AccountKind, Amount, BranchId, Currency, Refusal, TransferId};

use crate::chain_between::ChainPlace;
use crate::imported::own_time;
use crate::journal::record::TransferRecord;
use crate::leg::Leg;

/// A well-formed transfer. What the client may leave out, and did, is `NONE`, `None` or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Chosen by the client; neither 0 nor all ones.
    pub id: TransferId,
    /// As written; [`AccountId::NONE`] where left out. See [`crate::effective_accounts`].
    pub debit_account_id: AccountId,
    /// As written; [`AccountId::NONE`] where left out.
    pub credit_account_id: AccountId,
    /// The hold to settle or void, or the transfer to reverse; else [`TransferId::NONE`].
    pub reference: TransferId,
    /// The client's own.
    pub user_data_128: u128,
    /// As written. Settle: 0 for all of the hold. Void, reverse: 0 or the whole amount.
    pub amount: Amount,
    /// The client's own.
    pub user_data_64: u64,
    /// The client's own.
    pub user_data_32: u32,
    /// Holds: seconds until it expires, 0 for never.
    pub timeout_s: u32,
    /// `None` where left out: that of the reference.
    pub currency: Option<Currency>,
    /// 0 where left out: that of the reference.
    pub code: u16,
    /// [`transfer_flags`].
    pub flags: u16,
    /// What it does.
    pub kind: TransferKind,
    /// Which part of it is this branch's.
    pub leg: Leg,
    /// The branch that has the other part; 0 where there is none.
    pub peer: BranchId,
    /// Of a member of a chain between branches: which chain, and which member.
    pub chain: Option<ChainPlace>,
}

/// Accounts of a transfer that count as this branch's although their ids name another: they have moved here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// The debit account.
    pub debit: bool,
    /// The credit account.
    pub credit: bool,
}

impl Guests {
    /// Every account's id names its branch.
    pub const NONE: Self = Self { debit: false, credit: false };
}

/// Whether this kind acts on an earlier transfer, from which it takes what the client leaves out.
pub(crate) const fn takes_reference(kind: TransferKind) -> bool {
    match kind {
        TransferKind::Settle | TransferKind::Void | TransferKind::Reverse => true,
        TransferKind::Transfer | TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Hold => false,
    }
}

/// Whether what is of this kind, as on the wire, may have its accounts at two branches.
pub(crate) const fn goes_between(kind: u8) -> bool {
    kind == TransferKind::Transfer as u8 || kind == TransferKind::Hold as u8
}

/// The flags that go with a kind.
const fn flags_of(kind: TransferKind) -> u16 {
    use transfer_flags::{BALANCING_CREDIT, BALANCING_DEBIT, IMPORTED, LINKED, WANT_BALANCES};
    let own = match kind {
        TransferKind::Transfer => BALANCING_DEBIT | BALANCING_CREDIT,
        TransferKind::Hold => BALANCING_DEBIT | BALANCING_CREDIT | CLOSING,
        // The cash account has no limit that could be balanced against.
        TransferKind::Deposit => BALANCING_CREDIT,
        TransferKind::Withdraw => BALANCING_DEBIT,
        TransferKind::Settle | TransferKind::Void | TransferKind::Reverse => 0,
    };
    own | IMPORTED | LINKED | WANT_BALANCES
}

/// Those that close an account.
pub(crate) const CLOSING: u16 = transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT;
/// Those that few transfers have: one test keeps their rules off the way of the others.
pub(crate) const RARE: u16 = CLOSING | transfer_flags::IMPORTED;

pub(crate) const fn ensure(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

impl Transfer {
    /// Reads a transfer for `branch` off the wire.
    ///
    /// # Errors
    /// The first that applies, in this order: `FieldInvalid` (the reserved byte), then those of
    /// [`Refusal`]'s "malformed" group from `IdMustNotBeZero` to `ImportedEventTimeoutMustBeZero` as listed there, and
    /// `AccountIdReserved` for a settlement account.
    #[inline]
    pub fn from_wire(wire: &message::Transfer, branch: BranchId) -> Result<Self, Refusal> {
        Self::from_wire_with(wire, branch, Guests::NONE)
    }

    /// The same where accounts have moved to `branch`.
    ///
    /// # Errors
    /// As [`Transfer::from_wire`].
    pub fn from_wire_with(wire: &message::Transfer, branch: BranchId, guests: Guests) -> Result<Self, Refusal> {
        let transfer = Self::read(wire, branch, guests)?;
        let accounts = [transfer.debit_account_id, transfer.credit_account_id];
        // The other branch keeps the mirror: only a transfer between the two may change it.
        let names_settlement = accounts.iter().any(|id| id.settlement_peer().is_some());
        ensure(!names_settlement, Refusal::AccountIdReserved)?;
        Ok(transfer)
    }

    fn read(wire: &message::Transfer, branch: BranchId, guests: Guests) -> Result<Self, Refusal> {
        ensure(wire.reserved == 0, Refusal::FieldInvalid)?;
        let id = wire.id.get();
        ensure(id != 0, Refusal::IdMustNotBeZero)?;
        ensure(id != u128::MAX, Refusal::IdMustNotBeMax)?;
        let flags = wire.flags.get();
        ensure(flags & !transfer_flags::ALL == 0, Refusal::FlagReserved)?;
        let kind = TransferKind::from_wire(wire.kind).ok_or(Refusal::KindInvalid)?;
        ensure(flags & !flags_of(kind) == 0, Refusal::FlagsConflict)?;
        let transfer = Self {
            id: TransferId::new(id),
            debit_account_id: AccountId::new(wire.debit_account_id.get()),
            credit_account_id: AccountId::new(wire.credit_account_id.get()),
            reference: TransferId::new(wire.reference.get()),
            user_data_128: wire.user_data_128.get(),
            amount: Amount::new(wire.amount.get()),
            user_data_64: wire.user_data_64.get(),
            user_data_32: wire.user_data_32.get(),
            timeout_s: wire.timeout_s.get(),
            currency: Currency::new(wire.currency.get()),
            code: wire.code.get(),
            flags,
            kind,
            leg: Leg::Whole,
            peer: BranchId::default(),
            chain: None,
        };
        transfer.check_accounts(branch)?;
        transfer.check_reference()?;
        ensure(transfer.timeout_s == 0 || kind == TransferKind::Hold, Refusal::TimeoutReservedForHold)?;
        let is_complete = !takes_reference(kind);
        // A hold that closes an account has an effect without an amount.
        let may_be_nothing = || !is_complete || transfer.has(CLOSING);
        ensure(!transfer.amount.is_zero() || may_be_nothing(), Refusal::AmountMustNotBeZero)?;
        let currency_left_out = wire.currency.get() == 0 && !is_complete;
        ensure(transfer.currency.is_some() || currency_left_out, Refusal::CurrencyInvalid)?;
        ensure(transfer.code != 0 || !is_complete, Refusal::CodeMustNotBeZero)?;
        transfer.check_branch(branch, guests)?;
        if transfer.has(RARE) {
            transfer.check_rare()?;
        }
        Ok(transfer)
    }

    /// The same for a plain transfer or a hold whose credit account is at `peer`, another branch.
    ///
    /// # Errors
    /// As [`Transfer::from_wire`]; `WrongBranch` also for one to another branch that is linked, balancing, imported, or
    /// closes an account.
    pub fn from_wire_between(
        wire: &message::Transfer,
        branch: BranchId,
        peer: BranchId,
        guests: Guests,
    ) -> Result<Self, Refusal> {
        let far = AccountId::new(wire.credit_account_id.get());
        if !goes_between(wire.kind) || far.is_none() || peer == branch {
            return Self::from_wire_with(wire, branch, guests);
        }
        ensure(far.get() != u128::MAX, Refusal::CreditAccountMustNotBeMax)?;
        let is_other = far.get() != wire.debit_account_id.get();
        let near = AccountId::of_settlement(branch, peer, Currency::default());
        // Closing flags go with a hold, and are refused below by what they mean: not as those of a settlement account.
        let read = if wire.kind == TransferKind::Hold as u8 { wire.flags.get() & !CLOSING } else { wire.flags.get() };
        let near = message::Transfer { credit_account_id: near.get().into(), flags: read.into(), ..*wire };
        let transfer = Self { credit_account_id: far, leg: Leg::Source, peer, ..Self::read(&near, branch, guests)? };
        // A transfer between branches from an account to itself is how an account moves.
        ensure(is_other, Refusal::AccountsMustDiffer)?;
        let local_only =
            transfer_flags::LINKED | transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT | RARE;
        ensure(wire.flags.get() & local_only == 0, Refusal::WrongBranch)?;
        Ok(transfer)
    }

    /// Reads the destination's part of a transfer that `peer`, the branch of its debit account, has prepared.
    ///
    /// # Errors
    /// As [`Transfer::from_wire`]; `WrongBranch` if it is not a plain transfer or a hold from another branch to `branch`, and
    /// `FlagsConflict` for a flag that the source should have worked off.
    pub fn from_source(
        wire: &message::Transfer,
        branch: BranchId,
        peer: BranchId,
        guests: Guests,
    ) -> Result<Self, Refusal> {
        let far = AccountId::new(wire.debit_account_id.get());
        let may_come = goes_between(wire.kind) && !far.is_none() && far.get() != u128::MAX;
        ensure(may_come && peer != branch, Refusal::WrongBranch)?;
        ensure(wire.flags.get() == 0, Refusal::FlagsConflict)?;
        ensure(far.get() != wire.credit_account_id.get(), Refusal::AccountsMustDiffer)?;
        let near = AccountId::of_settlement(branch, peer, Currency::default());
        let near = message::Transfer { debit_account_id: near.get().into(), ..*wire };
        Ok(Self { debit_account_id: far, leg: Leg::Destination, peer, ..Self::read(&near, branch, guests)? })
    }

    /// Whether its record needs no extension: it is no leg, in no chain between branches, refers to nothing, has no time-out
    /// and no user data.
    pub const fn is_plain(&self) -> bool {
        !self.leg.awaits_decision()
            && self.chain.is_none()
            && self.reference.is_none()
            && self.user_data_128 == 0
            && self.user_data_64 == 0
            && self.user_data_32 == 0
            && self.timeout_s == 0
    }

    fn check_accounts(&self, branch: BranchId) -> Result<(), Refusal> {
        let (debit, credit) = (self.debit_account_id, self.credit_account_id);
        let may_leave_out = takes_reference(self.kind);
        let debit_may_be_zero = may_leave_out || self.kind == TransferKind::Deposit;
        let credit_may_be_zero = may_leave_out || self.kind == TransferKind::Withdraw;
        ensure(debit_may_be_zero || !debit.is_none(), Refusal::DebitAccountMustNotBeZero)?;
        ensure(debit.get() != u128::MAX, Refusal::DebitAccountMustNotBeMax)?;
        ensure(credit_may_be_zero || !credit.is_none(), Refusal::CreditAccountMustNotBeZero)?;
        ensure(credit.get() != u128::MAX, Refusal::CreditAccountMustNotBeMax)?;
        let differ = match (self.kind, self.currency) {
            (TransferKind::Deposit, Some(currency)) => credit != cash_account_id(branch, currency),
            (TransferKind::Withdraw, Some(currency)) => debit != cash_account_id(branch, currency),
            _ => debit != credit || debit.is_none(),
        };
        ensure(differ, Refusal::AccountsMustDiffer)
    }

    fn check_reference(&self) -> Result<(), Refusal> {
        if !takes_reference(self.kind) {
            return ensure(self.reference.is_none(), Refusal::ReferenceMustBeZero);
        }
        ensure(!self.reference.is_none(), Refusal::ReferenceMustNotBeZero)?;
        ensure(self.reference.get() != u128::MAX, Refusal::ReferenceMustNotBeMax)?;
        ensure(self.reference != self.id, Refusal::ReferenceMustDiffer)
    }

    fn check_branch(&self, branch: BranchId, guests: Guests) -> Result<(), Refusal> {
        let is_home = |id: AccountId, is_guest: bool| id.is_none() || id.branch() == branch || is_guest;
        let are_home = is_home(self.debit_account_id, guests.debit) && is_home(self.credit_account_id, guests.credit);
        ensure(are_home, Refusal::WrongBranch)?;
        let cash_side_is_zero = match self.kind {
            TransferKind::Deposit => self.debit_account_id.is_none(),
            TransferKind::Withdraw => self.credit_account_id.is_none(),
            TransferKind::Transfer
            | TransferKind::Hold
            | TransferKind::Settle
            | TransferKind::Void
            | TransferKind::Reverse => true,
        };
        ensure(cash_side_is_zero, Refusal::CashSideMustBeZero)
    }

    /// The branch's own accounts are not closed, and what is imported has a time of its own that is over.
    #[cold]
    fn check_rare(&self) -> Result<(), Refusal> {
        let closes_house = (self.has(transfer_flags::CLOSING_DEBIT) && self.debit_account_id.is_house())
            || (self.has(transfer_flags::CLOSING_CREDIT) && self.credit_account_id.is_house());
        ensure(!closes_house, Refusal::AccountIdReserved)?;
        if self.has(transfer_flags::IMPORTED) {
            own_time(self.user_data_64)?;
            ensure(self.timeout_s == 0, Refusal::ImportedEventTimeoutMustBeZero)?;
        }
        Ok(())
    }

    /// Bytes that its record takes in the log, whatever is decided.
    pub const fn record_len_bytes(&self) -> usize {
        match self.chain {
            Some(_) => TransferRecord::LEN_BYTES_IN_CHAIN,
            None => TransferRecord::len_bytes_of(self.is_plain()),
        }
    }

    /// The transfer as the client wrote it.
    pub fn to_wire(&self) -> message::Transfer {
        message::Transfer {
            id: self.id.get().into(),
            debit_account_id: self.debit_account_id.get().into(),
            credit_account_id: self.credit_account_id.get().into(),
            reference: self.reference.get().into(),
            user_data_128: self.user_data_128.into(),
            amount: self.amount.get().into(),
            user_data_64: self.user_data_64.into(),
            user_data_32: self.user_data_32.into(),
            timeout_s: self.timeout_s.into(),
            currency: self.currency.map_or(0, Currency::get).into(),
            code: self.code.into(),
            flags: self.flags.into(),
            kind: self.kind as u8,
            reserved: 0,
        }
    }

    /// Whether `flag` of [`transfer_flags`], or one of several, is set.
    #[inline]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The branch's till in a currency: the other side of every deposit and withdrawal.
pub const fn cash_account_id(branch: BranchId, currency: Currency) -> AccountId {
    AccountId::of_house(branch, AccountKind::Cash, currency)
}

/// Checks a transfer id that a client names, e.g. to cancel it or to look it up.
///
/// # Errors
/// `IdMustNotBeZero`, `IdMustNotBeMax`.
pub fn check_transfer_id(id: TransferId) -> Result<(), Refusal> {
    ensure(!id.is_none(), Refusal::IdMustNotBeZero)?;
    ensure(id.get() != u128::MAX, Refusal::IdMustNotBeMax)
}
