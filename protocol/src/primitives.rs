//! The words of the bank: one definition for wire, journal and memory.
//!
//! Every type here has private fields and no implicit conversion, so an amount cannot be mistaken for
//! an id, nor a nanosecond for a second. All integers are little-endian wherever they are written.

use std::fmt;

/// Two folded multiplications (64 x 64 -> 128 bits, halves xored). The seed is mixed into both factors: a
/// factor that a client could make zero would throw the other half of the id away.
const fn mix(id: u128, seed: u64) -> u64 {
    const fn fold(a: u64, b: u64) -> u64 {
        let product = (a as u128) * (b as u128);
        (product as u64) ^ ((product >> 64) as u64)
    }
    let (low, high) = (id as u64, (id >> 64) as u64);
    let inner = fold(low ^ seed, high ^ seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
    fold(inner ^ seed, 0xd6e8_feb8_6659_fd93)
}

/// The home of an account: the top 16 bits of an [`AccountId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BranchId(u16);

impl BranchId {
    /// Wraps a raw branch number. `0` names no branch.
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// 128 bits: the home branch in the top 16, chosen by whoever opens the account in the rest.
/// `0` and the all-ones value name no account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AccountId(u128);

impl AccountId {
    /// Names no account; on the wire it means "not given".
    pub const NONE: Self = Self(0);
    /// Bits below the branch's number.
    pub const LOCAL_BITS: u32 = 112;

    /// Wraps a raw 128-bit id.
    pub const fn new(raw: u128) -> Self {
        Self(raw)
    }
    /// The account `local` of `branch`; bits of `local` above 112 are dropped.
    pub const fn of_branch(branch: BranchId, local: u128) -> Self {
        let mask = (1u128 << Self::LOCAL_BITS) - 1;
        Self(((branch.get() as u128) << Self::LOCAL_BITS) | (local & mask))
    }
    /// The branch's own account of `kind` in `currency`, e.g. its cash account: every deposit is a
    /// transfer from it, every withdrawal one to it. Bit 111 marks these; clients cannot open them.
    pub const fn of_house(branch: BranchId, kind: AccountKind, currency: Currency) -> Self {
        let local = (1u128 << 111) | ((kind as u128) << 16) | currency.get() as u128;
        Self::of_branch(branch, local)
    }
    /// The account of `branch` for what it owes `peer` and is owed by it, in `currency`: a house account with the peer
    /// in bits 32 to 47.
    pub const fn of_settlement(branch: BranchId, peer: BranchId, currency: Currency) -> Self {
        let house = Self::of_house(branch, AccountKind::Settlement, currency);
        Self(house.0 | ((peer.get() as u128) << 32))
    }
    /// The peer of a settlement account; `None` for every other account.
    pub const fn settlement_peer(self) -> Option<BranchId> {
        let local = self.0 & ((1u128 << Self::LOCAL_BITS) - 1);
        let peer = BranchId((local >> 32) as u16);
        let is_settlement = self.is_house()
            && (local & !(1u128 << 111)) >> 48 == 0
            && (local >> 16) as u16 == AccountKind::Settlement as u16
            && peer.0 != 0;
        if is_settlement { Some(peer) } else { None }
    }
    /// Whether the id lies in the range that is set aside for the branch's own accounts.
    pub const fn is_house(self) -> bool {
        (self.0 >> 111) & 1 == 1
    }
    /// The home branch.
    pub const fn branch(self) -> BranchId {
        BranchId((self.0 >> Self::LOCAL_BITS) as u16)
    }
    /// The raw 128-bit id.
    pub const fn get(self) -> u128 {
        self.0
    }
    /// 64 well-mixed bits of the id: table index from the top bits, shard from the bottom ones, or the
    /// other way round. `seed` is drawn once per process, because ids are chosen by clients, who could
    /// otherwise pick many that fall into one place.
    pub const fn hash64(self, seed: u64) -> u64 {
        mix(self.0, seed)
    }
    /// Whether this names no account.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.branch(), self.0 & ((1u128 << Self::LOCAL_BITS) - 1))
    }
}

/// A transfer's 128-bit id, chosen by the client (UUIDv7 advised), unique for the ledger's life.
/// `0` and the all-ones value are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransferId(u128);

impl TransferId {
    /// Names no transfer.
    pub const NONE: Self = Self(0);
    /// Wraps a raw 128-bit id.
    pub const fn new(raw: u128) -> Self {
        Self(raw)
    }
    /// The raw 128-bit id.
    pub const fn get(self) -> u128 {
        self.0
    }
    /// 64 well-mixed bits of the id; see [`AccountId::hash64`].
    pub const fn hash64(self, seed: u64) -> u64 {
        mix(self.0, seed)
    }
    /// Whether this names no transfer.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who owns an account and who a session acts for. `0` is the bank itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CustomerId(u64);

impl CustomerId {
    /// The bank itself.
    pub const BANK: Self = Self(0);
    /// Wraps a raw customer number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A sum of money in the currency's minor unit (cents for EUR, yen for JPY, fils for BHD).
/// Range `0..=u64::MAX`; `u64::MAX` stands for "no limit" where a limit is meant. All arithmetic is
/// checked: a sum that does not fit is a refusal, never a wrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount; as a limit: none.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps minor units.
    pub const fn new(minor_units: u64) -> Self {
        Self(minor_units)
    }
    /// Minor units.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// `self + other`, or `None` when it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
    /// `self - other`, or `None` when it would be negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }
    /// `self - other`, or nothing when it would be negative.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// The smaller of two.
    pub const fn min(self, other: Self) -> Self {
        if self.0 < other.0 { self } else { other }
    }
}

/// An ISO 4217 currency by its numeric code. Two accounts trade only in the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Currency(u16);

/// Code, numeric code and decimals of the currencies that can be written by name (ISO 4217).
const CURRENCIES: &[(&str, u16, u8)] = &[
    ("AED", 784, 2),
    ("ARS", 32, 2),
    ("AUD", 36, 2),
    ("BGN", 975, 2),
    ("BHD", 48, 3),
    ("BRL", 986, 2),
    ("CAD", 124, 2),
    ("CHF", 756, 2),
    ("CLP", 152, 0),
    ("CNY", 156, 2),
    ("COP", 170, 2),
    ("CZK", 203, 2),
    ("DKK", 208, 2),
    ("EGP", 818, 2),
    ("EUR", 978, 2),
    ("GBP", 826, 2),
    ("HKD", 344, 2),
    ("HUF", 348, 2),
    ("IDR", 360, 2),
    ("ILS", 376, 2),
    ("INR", 356, 2),
    ("ISK", 352, 0),
    ("JOD", 400, 3),
    ("JPY", 392, 0),
    ("KES", 404, 2),
    ("KRW", 410, 0),
    ("KWD", 414, 3),
    ("MAD", 504, 2),
    ("MXN", 484, 2),
    ("MYR", 458, 2),
    ("NGN", 566, 2),
    ("NOK", 578, 2),
    ("NZD", 554, 2),
    ("OMR", 512, 3),
    ("PEN", 604, 2),
    ("PHP", 608, 2),
    ("PKR", 586, 2),
    ("PLN", 985, 2),
    ("QAR", 634, 2),
    ("RON", 946, 2),
    ("RSD", 941, 2),
    ("SAR", 682, 2),
    ("SEK", 752, 2),
    ("SGD", 702, 2),
    ("THB", 764, 2),
    ("TND", 788, 3),
    ("TRY", 949, 2),
    ("TWD", 901, 2),
    ("UAH", 980, 2),
    ("USD", 840, 2),
    ("UYU", 858, 2),
    ("VND", 704, 0),
    ("XAF", 950, 0),
    ("XOF", 952, 0),
    ("ZAR", 710, 2),
];

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(978);
    /// The US dollar.
    pub const USD: Self = Self(840);
    /// The yen, which has no minor unit.
    pub const JPY: Self = Self(392);

    /// Wraps an ISO 4217 numeric code, `1..=999`; `None` outside that range.
    pub const fn new(numeric: u16) -> Option<Self> {
        if numeric == 0 || numeric > 999 { None } else { Some(Self(numeric)) }
    }
    /// The numeric code.
    pub const fn get(self) -> u16 {
        self.0
    }
    /// The currency with this three-letter code, if the table knows it.
    pub fn from_code(code: &str) -> Option<Self> {
        CURRENCIES.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(code)).map(|&(_, numeric, _)| Self(numeric))
    }
    /// The three-letter code, if the table knows it.
    pub fn code(self) -> Option<&'static str> {
        CURRENCIES.iter().find(|&&(_, numeric, _)| numeric == self.0).map(|&(name, _, _)| name)
    }
    /// Digits after the decimal point; 2 for a currency that the table does not know.
    pub fn decimals(self) -> u8 {
        CURRENCIES.iter().find(|&&(_, numeric, _)| numeric == self.0).map_or(2, |&(_, _, decimals)| decimals)
    }
    /// Every currency that can be written by name.
    pub fn all() -> impl Iterator<Item = Self> {
        CURRENCIES.iter().map(|&(_, numeric, _)| Self(numeric))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) => f.write_str(code),
            None => write!(f, "{:03}", self.0),
        }
    }
}

/// What an account is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum AccountKind {
    /// A customer's account.
    #[default]
    Customer = 1,
    /// The branch's till: the other side of deposits and withdrawals.
    Cash = 2,
    /// Due to, or due from, another branch.
    Settlement = 3,
    /// Where fees are collected.
    Fee = 4,
    /// Where money waits whose owner is not known yet.
    Suspense = 5,
}

impl AccountKind {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Customer,
            2 => Self::Cash,
            3 => Self::Settlement,
            4 => Self::Fee,
            5 => Self::Suspense,
            _ => return None,
        })
    }
}

/// Whether an account takes part in transfers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum AccountStatus {
    /// Takes part.
    #[default]
    Open = 1,
    /// Takes no new transfer until unfrozen; holds made before can still be settled and voided, and staff can reverse.
    Frozen = 2,
    /// Takes none ever again.
    Closed = 3,
    /// Takes no new transfer while the hold that closes it is open: voided or expired, the hold opens it again; settled,
    /// it closes it for good. Holds made before can still be settled and voided.
    Closing = 4,
    /// Takes nothing, and is not shown, while its move to another branch is being decided: it opens again, or has moved.
    Moving = 5,
    /// Is at another branch. What is left takes nothing and holds no money; it says where the account went.
    Moved = 6,
    /// Is on its way from another branch, and takes nothing until its move is decided.
    Arriving = 7,
}

impl AccountStatus {
    /// Reads the wire value.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Open,
            2 => Self::Frozen,
            3 => Self::Closed,
            4 => Self::Closing,
            5 => Self::Moving,
            6 => Self::Moved,
            7 => Self::Arriving,
            _ => return None,
        })
    }

    /// Whether the account is at its branch, and not on its way.
    #[inline]
    pub const fn is_here(self) -> bool {
        !matches!(self, Self::Moving | Self::Moved | Self::Arriving)
    }
}

/// Wall-clock time in nanoseconds since 1970-01-01 00:00 UTC, as the ledger records it.
/// Handed in by the caller: nothing in `protocol` or `ledger` reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The latest time that can be written; as an expiry: never.
    pub const MAX: Self = Self(u64::MAX);
    /// Wraps nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
    /// The day number (UTC) since 1970-01-01.
    pub const fn day(self) -> u32 {
        (self.0 / 86_400_000_000_000) as u32
    }
    /// `self + seconds`, or `None` when it does not fit.
    pub const fn checked_add_seconds(self, seconds: u32) -> Option<Self> {
        match self.0.checked_add(seconds as u64 * 1_000_000_000) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }
}

/// A position in a branch's journal: the byte offset of a record in its endless log. Strictly
/// increasing; `0` is before every record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self(0);
    /// Wraps a raw position.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw position.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_id_is_its_branch_and_the_rest() {
        let branch = BranchId::new(0xab);
        let id = AccountId::of_branch(branch, u128::MAX);
        assert_eq!((id.branch(), id.get()), (branch, 0x00ab_ffff_ffff_ffff_ffff_ffff_ffff_ffff));
        assert_eq!(AccountId::of_branch(branch, 5).to_string(), "171:5");
        assert!(!AccountId::of_branch(branch, 5).is_house());

        let cash = AccountId::of_house(branch, AccountKind::Cash, Currency::EUR);
        assert_eq!((cash.branch(), cash.is_house()), (branch, true));
        assert_eq!(cash.get(), 0x00ab_8000_0000_0000_0000_0000_0002_03d2);
    }

    #[test]
    fn currencies_know_their_decimals() {
        for (code, numeric, decimals) in [("EUR", 978, 2), ("JPY", 392, 0), ("BHD", 48, 3)] {
            let currency = Currency::from_code(code).expect("in the table");
            assert_eq!((currency.get(), currency.decimals(), currency.code()), (numeric, decimals, Some(code)));
        }
        assert_eq!(Currency::from_code("eur"), Some(Currency::EUR));
        assert_eq!(Currency::from_code("XXX"), None);
        assert_eq!((Currency::new(0), Currency::new(1_000)), (None, None));
        assert_eq!(Currency::new(7).expect("in range").to_string(), "007");
        let mut seen = std::collections::BTreeSet::new();
        assert!(CURRENCIES.iter().all(|(code, numeric, _)| code.len() == 3 && seen.insert(numeric)));
    }

    #[test]
    fn sums_that_do_not_fit_are_refused() {
        assert_eq!(Amount::MAX.checked_add(Amount::new(1)), None);
        assert_eq!(Amount::ZERO.checked_sub(Amount::new(1)), None);
        assert_eq!(Amount::new(2).checked_add(Amount::new(3)), Some(Amount::new(5)));
        assert_eq!(Amount::new(3).checked_sub(Amount::new(2)), Some(Amount::new(1)));
        assert_eq!(Amount::new(2).saturating_sub(Amount::new(3)), Amount::ZERO);
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        let day_2 = 2 * 86_400_000_000_000;
        assert_eq!(Timestamp::from_nanos(day_2 - 1).day(), 1);
        assert_eq!(Timestamp::from_nanos(day_2).day(), 2);
        assert_eq!(Timestamp::MAX.checked_add_seconds(1), None);
        assert_eq!(Timestamp::from_nanos(1).checked_add_seconds(2), Some(Timestamp::from_nanos(2_000_000_001)));
    }

    #[test]
    fn hashes_spread_ids_that_differ_little() {
        // 4,096 neighbours into 4,096 buckets, by either end of the hash: a random function fills
        // 1 - 1/e = 63 % of them; demand 60 %.
        for shift in [0, 52] {
            let filled: std::collections::BTreeSet<u64> = (1..=4_096u128)
                .map(|local| AccountId::of_branch(BranchId::new(1), local).hash64(42) >> shift & 4_095)
                .collect();
            assert!(filled.len() > 4_096 * 60 / 100, "{} of 4096 buckets with shift {shift}", filled.len());
        }
        let id = TransferId::new(1);
        assert_ne!(id.hash64(1), id.hash64(2));
    }
}
