//! An open hold in a checkpoint: a fixed layout, for there are few. One that waits for the decision on a chain between
//! branches has its place in that behind it, and one that waits for an account which is to join it, what comes with that.

use tally_protocol::{AccountId, Amount, Currency, Lsn, Timestamp, TransferId};
use zerocopy::byteorder::little_endian::{U16, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CheckpointDamage;
use crate::chain_between::ChainPlace;
use crate::closing::Closes;
use crate::hold::{Hold, HoldStage, JOINING_RAW};
use crate::joining::Joining;
use crate::leg::Leg;
use crate::two_phase::Attempt;

/// Size of one that is in no chain.
pub const HOLD_LEN_BYTES: usize = 112;
/// What one in a chain has behind it.
const PLACE_LEN_BYTES: usize = 24;
/// What one has behind it that waits for an account. It stands, and so is in no chain.
const JOINING_LEN_BYTES: usize = 48;
/// The most that one takes.
pub const HOLD_LEN_BYTES_MAX: usize = HOLD_LEN_BYTES + JOINING_LEN_BYTES;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHold {
    id: U128,
    debit_account_id: U128,
    credit_account_id: U128,
    far_account_id: U128,
    amount: U64,
    expires_at: U64,
    lsn: U64,
    timestamp: U64,
    attempt: U64,
    currency: U16,
    code: U16,
    leg: u8,
    /// Bit 0: the debit account; bit 1: the credit account.
    closes: u8,
    stage: u8,
    /// 1: a place in a chain follows.
    is_in_chain: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPlace {
    id: U128,
    member: u8,
    is_head: u8,
    reserved: [u8; 6],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawJoining {
    account_id: U128,
    other_account_id: U128,
    made_at: U64,
    expires_at: U64,
}

const _: () = assert!(size_of::<RawHold>() == HOLD_LEN_BYTES);
const _: () = assert!(size_of::<RawJoining>() == JOINING_LEN_BYTES && PLACE_LEN_BYTES <= JOINING_LEN_BYTES);
const _: () = assert!(size_of::<RawPlace>() == PLACE_LEN_BYTES);

/// Appends `hold`.
pub fn put(hold: &Hold, out: &mut Vec<u8>) {
    let raw = RawHold {
        id: U128::new(hold.id.get()),
        debit_account_id: U128::new(hold.debit_account_id.get()),
        credit_account_id: U128::new(hold.credit_account_id.get()),
        far_account_id: U128::new(hold.far_account_id.get()),
        amount: U64::new(hold.amount.get()),
        expires_at: U64::new(hold.expires_at.as_nanos()),
        lsn: U64::new(hold.lsn.get()),
        timestamp: U64::new(hold.timestamp.as_nanos()),
        attempt: U64::new(hold.attempt.get()),
        currency: U16::new(hold.currency.get()),
        code: U16::new(hold.code),
        leg: hold.leg as u8,
        closes: hold.closes.debit as u8 | (hold.closes.credit as u8) << 1,
        stage: hold.stage.raw(hold.leg),
        is_in_chain: hold.chain.is_some() as u8,
    };
    out.extend_from_slice(raw.as_bytes());
    if let Some(ChainPlace { id, member, is_head }) = hold.chain {
        let raw = RawPlace { id: U128::new(id.get()), member, is_head: is_head as u8, reserved: [0; 6] };
        out.extend_from_slice(raw.as_bytes());
    }
    if let Some(Joining { account_id, other_account_id, made_at, expires_at }) = hold.joined_by() {
        let raw = RawJoining {
            account_id: U128::new(account_id.get()),
            other_account_id: U128::new(other_account_id.get()),
            made_at: U64::new(made_at.as_nanos()),
            expires_at: U64::new(expires_at.as_nanos()),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// Takes a hold off the front of `bytes`.
pub fn take(bytes: &mut &[u8]) -> Result<Hold, CheckpointDamage> {
    let (raw, rest) = RawHold::ref_from_prefix(bytes).map_err(|_| CheckpointDamage::Short)?;
    *bytes = rest;
    let chain = match raw.is_in_chain {
        0 => None,
        1 => Some(take_place(bytes)?),
        _ => return Err(CheckpointDamage::Field("is_in_chain")),
    };
    let leg = Leg::from_raw(raw.leg).ok_or(CheckpointDamage::Field("leg"))?;
    let stage = match raw.stage {
        JOINING_RAW if leg.is_part() && chain.is_none() => HoldStage::Joining(take_joining(bytes)?),
        stage => HoldStage::from_raw(stage, leg).ok_or(CheckpointDamage::Field("stage"))?,
    };
    Ok(Hold {
        id: TransferId::new(raw.id.get()),
        debit_account_id: AccountId::new(raw.debit_account_id.get()),
        credit_account_id: AccountId::new(raw.credit_account_id.get()),
        amount: Amount::new(raw.amount.get()),
        currency: Currency::new(raw.currency.get()).ok_or(CheckpointDamage::Field("currency"))?,
        code: raw.code.get(),
        expires_at: Timestamp::from_nanos(raw.expires_at.get()),
        lsn: Lsn::new(raw.lsn.get()),
        leg,
        far_account_id: AccountId::new(raw.far_account_id.get()),
        timestamp: Timestamp::from_nanos(raw.timestamp.get()),
        closes: Closes { debit: raw.closes & 1 != 0, credit: raw.closes & 2 != 0 },
        stage,
        attempt: Attempt::new(raw.attempt.get()),
        chain,
    })
}

fn take_place(bytes: &mut &[u8]) -> Result<ChainPlace, CheckpointDamage> {
    let (raw, rest) = RawPlace::ref_from_prefix(bytes).map_err(|_| CheckpointDamage::Short)?;
    *bytes = rest;
    let is_head = match raw.is_head {
        0 => false,
        1 => true,
        _ => return Err(CheckpointDamage::Field("is_head")),
    };
    Ok(ChainPlace { id: TransferId::new(raw.id.get()), member: raw.member, is_head })
}

fn take_joining(bytes: &mut &[u8]) -> Result<Joining, CheckpointDamage> {
    let (raw, rest) = RawJoining::ref_from_prefix(bytes).map_err(|_| CheckpointDamage::Short)?;
    *bytes = rest;
    Ok(Joining {
        account_id: AccountId::new(raw.account_id.get()),
        other_account_id: AccountId::new(raw.other_account_id.get()),
        made_at: Timestamp::from_nanos(raw.made_at.get()),
        expires_at: Timestamp::from_nanos(raw.expires_at.get()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::HoldEnd;

    #[test]
    fn comes_back() {
        let hold = Hold {
            id: TransferId::new(1 << 100),
            debit_account_id: AccountId::new(2),
            credit_account_id: AccountId::new(u128::MAX - 3),
            amount: Amount::new(4),
            currency: Currency::JPY,
            code: 5,
            expires_at: Timestamp::MAX,
            lsn: Lsn::new(6),
            leg: Leg::Source,
            far_account_id: AccountId::new(8),
            timestamp: Timestamp::from_nanos(7),
            closes: Closes { debit: false, credit: true },
            stage: HoldStage::AwaitsPosting,
            attempt: Attempt::new(9),
            chain: None,
        };
        let whole = Hold { leg: Leg::Whole, stage: HoldStage::Open, ..hold };
        let stages = [HoldStage::Open, HoldStage::AwaitsPosting, HoldStage::AwaitsKeeping];
        let ends = [HoldEnd::Settled, HoldEnd::Voided, HoldEnd::Expired].map(HoldStage::Ended);
        let place = |member| Some(ChainPlace { id: TransferId::new(9), member, is_head: member == 0 });
        let inner = Hold { leg: Leg::Inner, chain: place(0), ..hold };
        let part = Hold { stage: HoldStage::AwaitsKeeping, chain: place(255), ..hold };
        let joining = HoldStage::Joining(Joining {
            account_id: AccountId::new(11),
            other_account_id: AccountId::new(14),
            made_at: Timestamp::from_nanos(12),
            expires_at: Timestamp::from_nanos(13),
        });
        let plain = stages.into_iter().chain(ends).chain([joining]).map(|stage| Hold { stage, ..hold });
        for hold in plain.chain([whole, inner, part, Hold { chain: None, stage: HoldStage::Open, ..inner }]) {
            let mut out = Vec::new();
            put(&hold, &mut out);
            let place_len_bytes = match hold {
                Hold { chain: Some(_), .. } => PLACE_LEN_BYTES,
                Hold { stage: HoldStage::Joining(_), .. } => JOINING_LEN_BYTES,
                _ => 0,
            };
            assert_eq!(out.len(), HOLD_LEN_BYTES + place_len_bytes);
            let mut bytes = &out[..];
            assert_eq!(take(&mut bytes), Ok(hold));
            assert_eq!(take(&mut bytes), Err(CheckpointDamage::Short));
        }
        let mut out = Vec::new();
        put(&whole, &mut out);
        out[HOLD_LEN_BYTES - 2] = 2;
        assert_eq!(take(&mut &out[..]), Err(CheckpointDamage::Field("stage")));
        // Nothing joins what is within the branch.
        out[HOLD_LEN_BYTES - 2] = JOINING_RAW;
        out.extend([0; JOINING_LEN_BYTES]);
        assert_eq!(take(&mut &out[..]), Err(CheckpointDamage::Field("stage")));
        assert_eq!(take(&mut &[0; HOLD_LEN_BYTES][..]), Err(CheckpointDamage::Field("currency")));
    }
}
