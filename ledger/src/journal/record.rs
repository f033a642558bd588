//! One record of the journal: what happened, with its effects, so that replay needs no rule.
//!
//! ```text
//!  0       4     6    7       8     16          24      32
//!  | check | len | kd | flags | lsn | timestamp | actor | body ...        (transfer: 152 bytes)
//!                                                         | extension ... (48 bytes, when flagged)
//!                                                         | chain ...     (24 bytes, when flagged, behind an extension)
//! ```
//!
//! `check` covers everything behind it, so one record can be read and trusted alone; the group that it
//! lies in has a checksum of its own. A record's `lsn` is the byte offset at which it lies in the log.

use tally_protocol::message::TransferKind;
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::account::{Account, RESIDENCE_LEN_BYTES, Residence, Sums};
use crate::chain_between::ChainPlace;
use crate::closing::StatusChange;
use crate::leg::Leg;

/// Size of the header in front of each record.
pub const RECORD_HEADER_LEN_BYTES: usize = 32;
/// The largest record: a transfer with its extension and its place in a chain, or an account.
pub const RECORD_LEN_BYTES_MAX: usize = 256;

const KIND_TRANSFER: u8 = 1;
const KIND_EXPIRED: u8 = 2;
const KIND_ACCOUNT: u8 = 3;
const KIND_CANCELLED: u8 = 4;
const KIND_DECIDED: u8 = 5;
const KIND_REHOMED: u8 = 6;

const FLAG_EXTENSION: u8 = 1 << 0;
const FLAG_CHAIN: u8 = 1 << 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    check: U32,
    len_bytes: U16,
    kind: u8,
    flags: u8,
    lsn: U64,
    timestamp: U64,
    actor: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSums {
    debits_held: U64,
    debits_posted: U64,
    credits_held: U64,
    credits_posted: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTransfer {
    id: U128,
    debit_account_id: U128,
    credit_account_id: U128,
    amount_asked: U64,
    amount: U64,
    day_spent: U64,
    debit: RawSums,
    credit: RawSums,
    day: U32,
    code: U16,
    currency: U16,
    flags: U16,
    refusal: U16,
    kind: u8,
    given: u8,
    leg: u8,
    status: u8,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtension {
    reference: U128,
    user_data_128: U128,
    user_data_64: U64,
    user_data_32: U32,
    timeout_s: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawChain {
    id: U128,
    member: u8,
    is_head: u8,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAccount {
    id: U128,
    user_data_128: U128,
    owner: U64,
    user_data_64: U64,
    overdraft: U64,
    day_limit: U64,
    day_spent: U64,
    opened_at: U64,
    sums: RawSums,
    day: U32,
    user_data_32: U32,
    currency: U16,
    code: U16,
    flags: U16,
    kind: u8,
    status: u8,
    change: u8,
    residence: [u8; RESIDENCE_LEN_BYTES],
}

const _: () = assert!(size_of::<RawHeader>() == RECORD_HEADER_LEN_BYTES);
const _: () = assert!(size_of::<RawTransfer>() == 152);
const _: () = assert!(size_of::<RawExtension>() == 48);
const _: () = assert!(size_of::<RawAccount>() == 136);
const _: () = assert!(size_of::<RawChain>() == 24);
const _: () = assert!(TransferRecord::LEN_BYTES_IN_CHAIN <= RECORD_LEN_BYTES_MAX);

/// A transfer and its outcome, with the state of both accounts after it.
///
/// The account ids, currency and code are those that took effect; `given` tells which of them the client
/// wrote itself, so that the request can be compared with a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRecord {
    /// Its id; for an expiry, the id of the hold.
    pub id: TransferId,
    /// The account that was debited.
    pub debit_account_id: AccountId,
    /// The account that was credited.
    pub credit_account_id: AccountId,
    /// What the client asked for.
    pub amount_asked: Amount,
    /// What was moved or held; 0 where refused.
    pub amount: Amount,
    /// The debit account's `day_spent` after it.
    pub day_spent: Amount,
    /// The debit account's `day` after it.
    pub day: u32,
    /// The debit account's sums after it.
    pub debit: Sums,
    /// The credit account's sums after it.
    pub credit: Sums,
    /// The client's reason code.
    pub code: u16,
    /// ISO 4217 numeric; 0 where refused before it was known.
    pub currency: u16,
    /// [`tally_protocol::message::transfer_flags`], as asked.
    pub flags: u16,
    /// Why nothing was moved; `None` when it was.
    pub refusal: Option<Refusal>,
    /// What became of the accounts' status.
    pub status: StatusChange,
    /// What was asked for.
    pub kind: TransferKind,
    /// Which part of it this branch carried out, or refused to.
    pub leg: Leg,
    /// Bits [`GIVEN_DEBIT`], [`GIVEN_CREDIT`], [`GIVEN_CURRENCY`], [`GIVEN_CODE`].
    pub given: u8,
    /// The hold settled or voided, or the transfer reversed. Of a leg: see [`TransferRecord::far_account_id`].
    pub reference: TransferId,
    /// The client's own.
    pub user_data_128: u128,
    /// The client's own.
    pub user_data_64: u64,
    /// The client's own.
    pub user_data_32: u32,
    /// Holds: seconds until it expires, 0 for never.
    pub timeout_s: u32,
    /// Of a member of a chain between branches, and of its decision: which chain, and which member.
    pub chain: Option<ChainPlace>,
}

/// [`TransferRecord::given`]: the client wrote the debit account.
pub const GIVEN_DEBIT: u8 = 1 << 0;
/// [`TransferRecord::given`]: the client wrote the credit account.
pub const GIVEN_CREDIT: u8 = 1 << 1;
/// [`TransferRecord::given`]: the client wrote the currency.
pub const GIVEN_CURRENCY: u8 = 1 << 2;
/// [`TransferRecord::given`]: the client wrote the code.
pub const GIVEN_CODE: u8 = 1 << 3;

/// [`TransferRecord::given`], of a hold: it was made at another branch, and has come here with an account. The client's data are
/// there; `user_data_64` is when it was made.
pub const CAME_ALONG: u8 = 1 << 7;

/// What was done to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccountChange {
    /// Opened.
    Opened = 1,
    /// Closed.
    Closed = 2,
    /// Frozen.
    Frozen = 3,
    /// Unfrozen.
    Unfrozen = 4,
    /// Given other limits.
    LimitsSet = 5,
    /// A step of its move from one branch to another; the status says which.
    Moved = 6,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// A transfer of any kind, posted or refused.
    Transfer(TransferRecord),
    /// A hold whose time ran out; `id` is the hold's, `amount` what it gave back.
    Expired(TransferRecord),
    /// An account after a change. Its `lsn` and `timestamp` are the record's.
    Account(AccountChange, Account),
    /// What became of a prepared leg: given back, and why (`HoldElsewhere`: a hold that stood, and has gone with its account to
    /// the branch that has the other part); or, with `None`, what `kind` says. `Transfer`: posted.
    /// `Hold`: it stands. `Settle`, `Void`: the payer's branch ended a hold that stood, and `amount` was posted here, or
    /// given back. `id` is the transfer's or hold's.
    Decided(Option<Refusal>, TransferRecord),
    /// An account has gone to another branch, and the settlement account for that has its place in this hold. `id` is the hold's;
    /// the credit account has gone, the debit account has taken over. Nothing is posted. Or the other way about: the account has
    /// come, and takes the place of the settlement account. Where both are the same, that stays in its place:
    /// `reference` is the account on its way here that is to take it, or 0 where none comes, `user_data_128` the other account of
    /// the hold (`crate::joining`).
    Rehomed(TransferRecord),
    /// A transfer id that no transfer will ever carry.
    Cancelled(TransferId),
}

/// One record: a position, a time stamp, who asked, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies in the log.
    pub lsn: Lsn,
    /// The ledger's time; strictly increasing with `lsn`.
    pub timestamp: Timestamp,
    /// The customer or staff member whose session asked; 0 for the bank itself.
    pub actor: CustomerId,
    /// What happened.
    pub body: RecordBody,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the record needs.
    #[error("record cut short")]
    Short,
    /// Its checksum does not match.
    #[error("record checksum does not match")]
    Check,
    /// A field holds a value that was never written.
    #[error("record field `{0}` is invalid")]
    Field(&'static str),
}

impl TransferRecord {
    /// Whether it is of a hold that was made at another branch, and came here with an account.
    pub const fn came_along(&self) -> bool {
        self.given & CAME_ALONG != 0
    }

    /// Whether everything that the extension holds is zero, so that it is left out.
    pub const fn is_plain(&self) -> bool {
        self.chain.is_none()
            && self.reference.is_none()
            && self.user_data_128 == 0
            && self.user_data_64 == 0
            && self.user_data_32 == 0
            && self.timeout_s == 0
    }

    /// Bytes that the record of a member of a chain between branches takes in the log.
    pub const LEN_BYTES_IN_CHAIN: usize = Self::len_bytes_of(false) + size_of::<RawChain>();

    /// Bytes that the record of any other transfer takes in the log, known before its outcome is.
    pub const fn len_bytes_of(is_plain: bool) -> usize {
        RECORD_HEADER_LEN_BYTES + size_of::<RawTransfer>() + if is_plain { 0 } else { size_of::<RawExtension>() }
    }

    fn raw(&self) -> RawTransfer {
        RawTransfer {
            id: U128::new(self.id.get()),
            debit_account_id: U128::new(self.debit_account_id.get()),
            credit_account_id: U128::new(self.credit_account_id.get()),
            amount_asked: U64::new(self.amount_asked.get()),
            amount: U64::new(self.amount.get()),
            day_spent: U64::new(self.day_spent.get()),
            debit: raw_sums(&self.debit),
            credit: raw_sums(&self.credit),
            day: U32::new(self.day),
            code: U16::new(self.code),
            currency: U16::new(self.currency),
            flags: U16::new(self.flags),
            refusal: U16::new(self.refusal.map_or(0, Refusal::code)),
            kind: self.kind as u8,
            given: self.given,
            leg: self.leg as u8,
            status: self.status.raw(),
        }
    }

    fn from_raw(
        raw: &RawTransfer,
        extension: Option<&RawExtension>,
        chain: Option<&RawChain>,
    ) -> Result<Self, RecordError> {
        let refusal = match raw.refusal.get() {
            0 => None,
            code => Some(Refusal::from_code(code).ok_or(RecordError::Field("refusal"))?),
        };
        Ok(Self {
            id: TransferId::new(raw.id.get()),
            debit_account_id: AccountId::new(raw.debit_account_id.get()),
            credit_account_id: AccountId::new(raw.credit_account_id.get()),
            amount_asked: Amount::new(raw.amount_asked.get()),
            amount: Amount::new(raw.amount.get()),
            day_spent: Amount::new(raw.day_spent.get()),
            day: raw.day.get(),
            debit: sums(&raw.debit),
            credit: sums(&raw.credit),
            code: raw.code.get(),
            currency: raw.currency.get(),
            flags: raw.flags.get(),
            refusal,
            status: StatusChange::from_raw(raw.status).ok_or(RecordError::Field("status"))?,
            kind: TransferKind::from_wire(raw.kind).ok_or(RecordError::Field("kind"))?,
            leg: Leg::from_raw(raw.leg).ok_or(RecordError::Field("leg"))?,
            given: raw.given,
            reference: TransferId::new(extension.map_or(0, |e| e.reference.get())),
            user_data_128: extension.map_or(0, |e| e.user_data_128.get()),
            user_data_64: extension.map_or(0, |e| e.user_data_64.get()),
            user_data_32: extension.map_or(0, |e| e.user_data_32.get()),
            timeout_s: extension.map_or(0, |e| e.timeout_s.get()),
            chain: chain.map(place).transpose()?,
        })
    }
}

fn place(raw: &RawChain) -> Result<ChainPlace, RecordError> {
    let is_valid = raw.is_head <= 1 && raw.reserved == [0; 6] && raw.id.get() != 0;
    let place = ChainPlace { id: TransferId::new(raw.id.get()), member: raw.member, is_head: raw.is_head == 1 };
    if is_valid { Ok(place) } else { Err(RecordError::Field("chain")) }
}

fn raw_sums(sums: &Sums) -> RawSums {
    RawSums {
        debits_held: U64::new(sums.debits_held.get()),
        debits_posted: U64::new(sums.debits_posted.get()),
        credits_held: U64::new(sums.credits_held.get()),
        credits_posted: U64::new(sums.credits_posted.get()),
    }
}

fn sums(raw: &RawSums) -> Sums {
    Sums {
        debits_held: Amount::new(raw.debits_held.get()),
        debits_posted: Amount::new(raw.debits_posted.get()),
        credits_held: Amount::new(raw.credits_held.get()),
        credits_posted: Amount::new(raw.credits_posted.get()),
    }
}

impl RecordBody {
    /// Bytes that a record with this body takes in the log, header included; a multiple of 8.
    pub const fn len_bytes(&self) -> usize {
        let body = match self {
            Self::Transfer(transfer)
            | Self::Expired(transfer)
            | Self::Decided(_, transfer)
            | Self::Rehomed(transfer) => {
                return match transfer.chain {
                    Some(_) => TransferRecord::LEN_BYTES_IN_CHAIN,
                    None => TransferRecord::len_bytes_of(transfer.is_plain()),
                };
            }
            Self::Account(change, _) => return Self::account_len_bytes(*change),
            Self::Cancelled(_) => size_of::<U128>(),
        };
        RECORD_HEADER_LEN_BYTES + body
    }

    /// Bytes that the record of a change to an account takes in the log; the same for every change.
    pub const fn account_len_bytes(_change: AccountChange) -> usize {
        RECORD_HEADER_LEN_BYTES + size_of::<RawAccount>()
    }
}

impl Record {
    /// Writes the record to the front of `out`, which must be exactly [`RecordBody::len_bytes`] long.
    ///
    /// # Panics
    /// When `out` has another length: the space was reserved for this very record.
    pub fn encode_into(&self, out: &mut [u8]) {
        let len_bytes = self.body.len_bytes();
        assert!(out.len() == len_bytes, "record of {len_bytes} bytes into a space of {}", out.len());
        let (head, body) = out.split_at_mut(RECORD_HEADER_LEN_BYTES);
        let mut flags = 0;
        let kind = match &self.body {
            RecordBody::Transfer(transfer)
            | RecordBody::Expired(transfer)
            | RecordBody::Decided(_, transfer)
            | RecordBody::Rehomed(transfer) => {
                let (fixed, extension) = body.split_at_mut(size_of::<RawTransfer>());
                let mut raw = transfer.raw();
                if let RecordBody::Decided(refusal, _) = &self.body {
                    raw.refusal = U16::new(refusal.map_or(0, Refusal::code));
                }
                fixed.copy_from_slice(raw.as_bytes());
                if !extension.is_empty() {
                    flags |= FLAG_EXTENSION;
                    let raw = RawExtension {
                        reference: U128::new(transfer.reference.get()),
                        user_data_128: U128::new(transfer.user_data_128),
                        user_data_64: U64::new(transfer.user_data_64),
                        user_data_32: U32::new(transfer.user_data_32),
                        timeout_s: U32::new(transfer.timeout_s),
                    };
                    let (extension, chain) = extension.split_at_mut(size_of::<RawExtension>());
                    extension.copy_from_slice(raw.as_bytes());
                    if let Some(ChainPlace { id, member, is_head }) = transfer.chain {
                        flags |= FLAG_CHAIN;
                        let raw =
                            RawChain { id: U128::new(id.get()), member, is_head: is_head as u8, reserved: [0; 6] };
                        chain.copy_from_slice(raw.as_bytes());
                    }
                }
                match &self.body {
                    RecordBody::Expired(_) => KIND_EXPIRED,
                    RecordBody::Decided(..) => KIND_DECIDED,
                    RecordBody::Rehomed(_) => KIND_REHOMED,
                    RecordBody::Transfer(_) | RecordBody::Account(..) | RecordBody::Cancelled(_) => KIND_TRANSFER,
                }
            }
            RecordBody::Account(change, account) => {
                body.copy_from_slice(raw_account(*change, account).as_bytes());
                KIND_ACCOUNT
            }
            RecordBody::Cancelled(id) => {
                body.copy_from_slice(U128::new(id.get()).as_bytes());
                KIND_CANCELLED
            }
        };
        let mut header = RawHeader {
            check: U32::new(0),
            len_bytes: U16::new(len_bytes as u16),
            kind,
            flags,
            lsn: U64::new(self.lsn.get()),
            timestamp: U64::new(self.timestamp.as_nanos()),
            actor: U64::new(self.actor.get()),
        };
        head.copy_from_slice(header.as_bytes());
        header.check = U32::new(check_of(&out[4..]));
        out[..4].copy_from_slice(header.check.as_bytes());
    }

    /// Reads the record at the front of `bytes`, which may go on behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (header, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| RecordError::Short)?;
        let len_bytes = header.len_bytes.get() as usize;
        if !(RECORD_HEADER_LEN_BYTES..=RECORD_LEN_BYTES_MAX).contains(&len_bytes) {
            return Err(RecordError::Field("len_bytes"));
        }
        let all = bytes.get(..len_bytes).ok_or(RecordError::Short)?;
        if check_of(&all[4..]) != header.check.get() {
            return Err(RecordError::Check);
        }
        let lsn = Lsn::new(header.lsn.get());
        let timestamp = Timestamp::from_nanos(header.timestamp.get());
        let body = decode_body(header, &all[RECORD_HEADER_LEN_BYTES..], lsn, timestamp)?;
        Ok(Self { lsn, timestamp, actor: CustomerId::new(header.actor.get()), body })
    }
}

fn decode_body(header: &RawHeader, body: &[u8], lsn: Lsn, timestamp: Timestamp) -> Result<RecordBody, RecordError> {
    match header.kind {
        KIND_TRANSFER | KIND_EXPIRED | KIND_DECIDED | KIND_REHOMED => {
            let (raw, rest) = RawTransfer::ref_from_prefix(body).map_err(|_| RecordError::Short)?;
            let (extension, rest) = match header.flags & FLAG_EXTENSION {
                0 => (None, rest),
                _ => RawExtension::ref_from_prefix(rest)
                    .map(|(extension, rest)| (Some(extension), rest))
                    .map_err(|_| RecordError::Short)?,
            };
            let chain = match header.flags & FLAG_CHAIN {
                0 if rest.is_empty() => None,
                0 => return Err(RecordError::Field("len_bytes")),
                _ => Some(RawChain::ref_from_bytes(rest).map_err(|_| RecordError::Short)?),
            };
            let transfer = TransferRecord::from_raw(raw, extension, chain)?;
            if transfer.chain.is_some() && (extension.is_none() || !transfer.leg.awaits_decision()) {
                return Err(RecordError::Field("chain"));
            }
            let may_be_part = match transfer.kind {
                TransferKind::Transfer | TransferKind::Hold => true,
                TransferKind::Settle | TransferKind::Void => header.kind == KIND_DECIDED,
                TransferKind::Deposit | TransferKind::Withdraw | TransferKind::Reverse => false,
            };
            if transfer.leg.awaits_decision() && !may_be_part {
                return Err(RecordError::Field("leg"));
            }
            Ok(match header.kind {
                KIND_EXPIRED => RecordBody::Expired(transfer),
                KIND_REHOMED => RecordBody::Rehomed(transfer),
                KIND_DECIDED => RecordBody::Decided(transfer.refusal, TransferRecord { refusal: None, ..transfer }),
                _ => RecordBody::Transfer(transfer),
            })
        }
        KIND_ACCOUNT => {
            let raw = RawAccount::ref_from_bytes(body).map_err(|_| RecordError::Short)?;
            let change = match raw.change {
                1 => AccountChange::Opened,
                2 => AccountChange::Closed,
                3 => AccountChange::Frozen,
                4 => AccountChange::Unfrozen,
                5 => AccountChange::LimitsSet,
                6 => AccountChange::Moved,
                _ => return Err(RecordError::Field("change")),
            };
            Ok(RecordBody::Account(change, account(raw, lsn, timestamp)?))
        }
        KIND_CANCELLED => {
            let id = U128::ref_from_bytes(body).map_err(|_| RecordError::Short)?;
            Ok(RecordBody::Cancelled(TransferId::new(id.get())))
        }
        _ => Err(RecordError::Field("kind")),
    }
}

fn raw_account(change: AccountChange, account: &Account) -> RawAccount {
    RawAccount {
        id: U128::new(account.id.get()),
        user_data_128: U128::new(account.user_data_128),
        owner: U64::new(account.owner.get()),
        user_data_64: U64::new(account.user_data_64),
        overdraft: U64::new(account.overdraft.get()),
        day_limit: U64::new(account.day_limit.get()),
        day_spent: U64::new(account.day_spent.get()),
        opened_at: U64::new(account.opened_at.as_nanos()),
        sums: raw_sums(&account.sums),
        day: U32::new(account.day),
        user_data_32: U32::new(account.user_data_32),
        currency: U16::new(account.currency.get()),
        code: U16::new(account.code),
        flags: U16::new(account.flags),
        kind: account.kind as u8,
        status: account.status as u8,
        change: change as u8,
        residence: account.residence.to_bytes(),
    }
}

fn account(raw: &RawAccount, lsn: Lsn, timestamp: Timestamp) -> Result<Account, RecordError> {
    Ok(Account {
        id: AccountId::new(raw.id.get()),
        owner: CustomerId::new(raw.owner.get()),
        user_data_128: raw.user_data_128.get(),
        user_data_64: raw.user_data_64.get(),
        user_data_32: raw.user_data_32.get(),
        currency: Currency::new(raw.currency.get()).ok_or(RecordError::Field("currency"))?,
        code: raw.code.get(),
        flags: raw.flags.get(),
        kind: AccountKind::from_wire(raw.kind).ok_or(RecordError::Field("kind"))?,
        status: AccountStatus::from_wire(raw.status).ok_or(RecordError::Field("status"))?,
        overdraft: Amount::new(raw.overdraft.get()),
        day_limit: Amount::new(raw.day_limit.get()),
        day_spent: Amount::new(raw.day_spent.get()),
        day: raw.day.get(),
        sums: sums(&raw.sums),
        opened_at: Timestamp::from_nanos(raw.opened_at.get()),
        lsn,
        timestamp,
        residence: Residence::of_bytes(raw.residence),
    })
}

fn check_of(bytes: &[u8]) -> u32 {
    xxh3_64(bytes) as u32
}
