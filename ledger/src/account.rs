//! An account: who owns it, what bounds it, and the four sums from which its balance is derived.

use tally_protocol::link::FORMER_BRANCHES_MAX;
use tally_protocol::message::account_flags;
use tally_protocol::{AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn, Timestamp};

/// Running sums that only ever add up; the balance is derived.
///
/// Invariants, in a valid account: `debits_held + debits_posted` and `credits_held + credits_posted`
/// each fit in 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Reserved by open holds that would debit this account.
    pub debits_held: Amount,
    /// Posted.
    pub debits_posted: Amount,
    /// Reserved by open holds that would credit this account.
    pub credits_held: Amount,
    /// Posted.
    pub credits_posted: Amount,
}

/// One account, as a plain value. The rules work on copies; the shell publishes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id; the top 16 bits name the home branch.
    pub id: AccountId,
    /// Who may debit it.
    pub owner: CustomerId,
    /// The client's own.
    pub user_data_128: u128,
    /// The client's own.
    pub user_data_64: u64,
    /// The client's own.
    pub user_data_32: u32,
    /// What it is counted in.
    pub currency: Currency,
    /// The client's own class of account.
    pub code: u16,
    /// [`tally_protocol::message::account_flags`].
    pub flags: u16,
    /// What it is for.
    pub kind: AccountKind,
    /// Whether it takes part in transfers.
    pub status: AccountStatus,
    /// How far debits may exceed posted credits, where the flags limit debits.
    pub overdraft: Amount,
    /// The most debits on one day; [`Amount::MAX`] for no limit.
    pub day_limit: Amount,
    /// Debits posted or held on `day`.
    pub day_spent: Amount,
    /// The day that `day_spent` counts, since 1970-01-01 UTC.
    pub day: u32,
    /// The running sums.
    pub sums: Sums,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The last record that touched it.
    pub lsn: Lsn,
    /// The time stamp of that record.
    pub timestamp: Timestamp,
    /// Where it was before, or has gone. Not the default if and only if `HAS_MOVED` is set in the flags.
    pub residence: Residence,
}

/// The branches of an account that has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    /// How often it has moved; 0 for never. So no two stays at one branch have the same number.
    pub moves: u8,
    /// Of an account that is here: where it was before, the newest first. Of one that has gone: where it is, as far as
    /// this branch has heard. Number 0 behind the last.
    pub branches: [BranchId; FORMER_BRANCHES_MAX],
}

/// Bytes of a [`Residence`] in a record and in a checkpoint.
pub(crate) const RESIDENCE_LEN_BYTES: usize = 1 + 2 * FORMER_BRANCHES_MAX;

impl Residence {
    /// The branches, without the empty places.
    pub fn known(&self) -> impl Iterator<Item = BranchId> + use<> {
        self.branches.into_iter().take_while(|branch| branch.get() != 0)
    }

    /// As one word: the number of moves in the lowest byte, then the branches.
    pub fn to_word(self) -> u64 {
        let branches = self.branches.iter().rev().fold(0, |word, branch| word << 16 | u64::from(branch.get()));
        branches << 8 | u64::from(self.moves)
    }

    /// Reads what [`Residence::to_word`] wrote.
    pub fn of_word(word: u64) -> Self {
        let branches = std::array::from_fn(|at| BranchId::new((word >> (8 + 16 * at)) as u16));
        Self { moves: word as u8, branches }
    }

    pub(crate) fn to_bytes(self) -> [u8; RESIDENCE_LEN_BYTES] {
        let bytes = self.to_word().to_le_bytes();
        std::array::from_fn(|at| bytes[at])
    }

    pub(crate) fn of_bytes(bytes: [u8; RESIDENCE_LEN_BYTES]) -> Self {
        let mut word = [0; 8];
        word[..RESIDENCE_LEN_BYTES].copy_from_slice(&bytes);
        Self::of_word(u64::from_le_bytes(word))
    }
}

impl Sums {
    /// Held and posted debits.
    ///
    /// # Panics
    /// When they do not fit in 64 bits, which the rules never let happen.
    #[inline]
    pub const fn debits(&self) -> Amount {
        self.debits_held.checked_add(self.debits_posted).expect("the rules keep held + posted within 64 bits")
    }

    /// Held and posted credits.
    ///
    /// # Panics
    /// When they do not fit in 64 bits, which the rules never let happen.
    #[inline]
    pub const fn credits(&self) -> Amount {
        self.credits_held.checked_add(self.credits_posted).expect("the rules keep held + posted within 64 bits")
    }

    /// Whether nothing is held on either side and posted debits equal posted credits.
    pub fn is_settled(&self) -> bool {
        self.debits_held.is_zero() && self.credits_held.is_zero() && self.debits_posted == self.credits_posted
    }
}

impl Account {
    /// Whether `flag` of [`account_flags`] is set.
    #[inline]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What was debited or held on the day of `now`.
    #[inline]
    pub fn spent_on_day_of(&self, now: Timestamp) -> Amount {
        // `day` never lies after `now`: time stamps rise.
        if now.day() > self.day { Amount::ZERO } else { self.day_spent }
    }

    /// What the limit on the account's debits leaves: [`Amount::MAX`] where debits are not limited. Money
    /// that is only held for the account cannot be spent.
    #[inline]
    pub const fn funds_left(&self) -> Amount {
        if self.has(account_flags::DEBITS_LIMITED) { self.funds_up_to(self.overdraft) } else { Amount::MAX }
    }

    /// What the limit for the day leaves at `now`.
    #[inline]
    pub fn day_left(&self, now: Timestamp) -> Amount {
        if self.day_limit == Amount::MAX {
            Amount::MAX
        } else {
            self.day_limit.saturating_sub(self.spent_on_day_of(now))
        }
    }

    /// What the limit on the account's credits leaves: [`Amount::MAX`] where credits are not limited.
    #[inline]
    pub const fn credits_left(&self) -> Amount {
        if self.has(account_flags::CREDITS_LIMITED) { self.credits_up_to_balance() } else { Amount::MAX }
    }

    /// What can be debited at `now` under the account's own limits.
    pub fn available(&self, now: Timestamp) -> Amount {
        self.funds_left().min(self.day_left(now))
    }

    /// What can be debited until debits exceed posted credits by `overdraft`.
    #[inline]
    pub(crate) const fn funds_up_to(&self, overdraft: Amount) -> Amount {
        // More than 64 bits of room is as good as all of them: debits fit in 64 bits.
        let room = match self.sums.credits_posted.checked_add(overdraft) {
            Some(room) => room,
            None => Amount::MAX,
        };
        room.saturating_sub(self.sums.debits())
    }

    /// What can be credited until credits reach posted debits.
    #[inline]
    pub(crate) const fn credits_up_to_balance(&self) -> Amount {
        self.sums.debits_posted.saturating_sub(self.sums.credits())
    }
}
