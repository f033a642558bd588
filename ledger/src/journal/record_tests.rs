//! Tests of [`super::record`]: golden bytes, every kind there and back, damage.

use proptest::prelude::*;
use tally_protocol::message::TransferKind;
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};

use super::record::*;
use crate::account::{Account, Sums};
use crate::closing::StatusChange;

fn transfer() -> TransferRecord {
    TransferRecord {
        id: TransferId::new(0x0102_0304),
        debit_account_id: AccountId::new(0x11),
        credit_account_id: AccountId::new(0x22),
        amount_asked: Amount::new(500),
        amount: Amount::new(400),
        day_spent: Amount::new(400),
        day: 20_000,
        debit: Sums { debits_posted: Amount::new(400), ..Sums::default() },
        credit: Sums { credits_posted: Amount::new(400), ..Sums::default() },
        code: 7,
        currency: 978,
        flags: 1,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Transfer,
        chain: None,
        leg: crate::Leg::Whole,
        given: GIVEN_DEBIT | GIVEN_CREDIT,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0xee; record.body.len_bytes()];
    record.encode_into(&mut bytes);
    bytes
}

#[test]
fn golden_bytes_of_a_plain_transfer() {
    let record = Record {
        lsn: Lsn::new(64),
        timestamp: Timestamp::from_nanos(99),
        actor: CustomerId::new(5),
        body: RecordBody::Transfer(transfer()),
    };
    let bytes = encoded(&record);
    let mut expected = vec![184, 0, 1, 0];
    expected.extend([64u64, 99, 5].iter().flat_map(|word| word.to_le_bytes()));
    expected.extend([0x0102_0304u128, 0x11, 0x22].iter().flat_map(|id| id.to_le_bytes()));
    expected.extend([500u64, 400, 400].iter().flat_map(|amount| amount.to_le_bytes()));
    expected.extend([0u64, 400, 0, 0, 0, 0, 0, 400].iter().flat_map(|sum| sum.to_le_bytes()));
    expected.extend(20_000u32.to_le_bytes());
    expected.extend([7u16, 978, 1, 0].iter().flat_map(|field| field.to_le_bytes()));
    expected.extend([TransferKind::Transfer as u8, 3, 0, 0]);
    assert_eq!(&bytes[4..], expected);
    assert_eq!(Record::decode(&bytes), Ok(record));
}

#[test]
fn sizes() {
    let with_extension = TransferRecord { user_data_32: 1, ..transfer() };
    for (body, len_bytes) in [
        (RecordBody::Transfer(transfer()), 184),
        (RecordBody::Transfer(with_extension), 232),
        (RecordBody::Expired(transfer()), 184),
        (RecordBody::Cancelled(TransferId::new(1)), 48),
    ] {
        assert_eq!(body.len_bytes(), len_bytes, "{body:?}");
        assert!(len_bytes <= RECORD_LEN_BYTES_MAX);
    }
}

#[test]
fn every_changed_bit_and_every_cut_is_found() {
    for body in [
        RecordBody::Transfer(TransferRecord { timeout_s: 3, refusal: Some(Refusal::ExceedsDebits), ..transfer() }),
        RecordBody::Cancelled(TransferId::new(9)),
    ] {
        let record = Record { lsn: Lsn::new(128), timestamp: Timestamp::from_nanos(1), actor: CustomerId::BANK, body };
        let bytes = encoded(&record);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), Err(RecordError::Short), "{len} bytes");
        }
        let followed = [&bytes[..], &[0xaa; 99]].concat();
        assert_eq!(Record::decode(&followed), Ok(record));
    }
}

#[test]
fn a_field_that_was_never_written_is_refused_though_the_checksum_matches() {
    let record = Record {
        lsn: Lsn::new(64),
        timestamp: Timestamp::from_nanos(1),
        actor: CustomerId::BANK,
        body: RecordBody::Transfer(transfer()),
    };
    let bytes = encoded(&record);
    // (offset, value, field)
    for (offset, value, field) in [(6, 9, "kind"), (180, 99, "kind"), (178, 0xff, "refusal"), (4, 8, "len_bytes")] {
        let mut changed = bytes.clone();
        changed[offset] = value;
        let len = if offset == 4 { bytes.len() } else { usize::from(changed[4]) };
        let check = xxhash_rust::xxh3::xxh3_64(&changed[4..len]) as u32;
        changed[..4].copy_from_slice(&check.to_le_bytes());
        assert_eq!(Record::decode(&changed), Err(RecordError::Field(field)), "offset {offset}");
    }
}

fn sums() -> impl Strategy<Value = Sums> {
    proptest::array::uniform4(any::<u64>()).prop_map(|sums| Sums {
        debits_held: Amount::new(sums[0]),
        debits_posted: Amount::new(sums[1]),
        credits_held: Amount::new(sums[2]),
        credits_posted: Amount::new(sums[3]),
    })
}

fn any_transfer() -> impl Strategy<Value = TransferRecord> {
    let extension = prop_oneof![
        Just((0u128, 0u128, 0u64, 0u32, 0u32)),
        any::<(u128, u128, u64, u32, u32)>(),
        any::<u32>().prop_map(|timeout| (0, 0, 0, 0, timeout)),
    ];
    let refusal = prop_oneof![Just(None), (0u16..=400).prop_map(Refusal::from_code)];
    let small = (any::<u32>(), any::<u16>(), any::<u16>(), any::<u16>(), 0u8..=20, any::<u8>(), 0u8..16);
    (any::<(u128, u128, u128, u64, u64, u64)>(), sums(), sums(), small, refusal, extension).prop_map(
        |(large, debit, credit, small, refusal, extension)| TransferRecord {
            id: TransferId::new(large.0),
            debit_account_id: AccountId::new(large.1),
            credit_account_id: AccountId::new(large.2),
            amount_asked: Amount::new(large.3),
            amount: Amount::new(large.4),
            day_spent: Amount::new(large.5),
            day: small.0,
            debit,
            credit,
            code: small.1,
            currency: small.2,
            flags: small.3,
            refusal,
            status: StatusChange::from_raw(small.6).expect("four bits"),
            kind: TransferKind::from_wire(small.4).unwrap_or(TransferKind::Hold),
            chain: None,
            leg: crate::Leg::Whole,
            given: small.5,
            reference: TransferId::new(extension.0),
            user_data_128: extension.1,
            user_data_64: extension.2,
            user_data_32: extension.3,
            timeout_s: extension.4,
        },
    )
}

fn any_body() -> impl Strategy<Value = RecordBody> {
    let change = prop_oneof![
        Just(AccountChange::Opened),
        Just(AccountChange::Closed),
        Just(AccountChange::Frozen),
        Just(AccountChange::Unfrozen),
        Just(AccountChange::LimitsSet),
        Just(AccountChange::Moved),
    ];
    let account = (
        any::<(u128, u64, u128, u64, u32)>(),
        any::<(u64, u64, u64, u32, u64)>(),
        sums(),
        1u16..=999,
        any::<(u16, u16)>(),
    );
    let account =
        (account, 1u8..=5, 1u8..=3).prop_map(|((ids, limits, sums, currency, (code, flags)), kind, status)| Account {
            id: AccountId::new(ids.0),
            owner: CustomerId::new(ids.1),
            user_data_128: ids.2,
            user_data_64: ids.3,
            user_data_32: ids.4,
            currency: Currency::new(currency).expect("in range"),
            code,
            flags,
            kind: AccountKind::from_wire(kind).expect("in range"),
            status: AccountStatus::from_wire(status).expect("in range"),
            overdraft: Amount::new(limits.0),
            day_limit: Amount::new(limits.1),
            day_spent: Amount::new(limits.2),
            day: limits.3,
            sums,
            opened_at: Timestamp::from_nanos(limits.4),
            lsn: Lsn::ZERO,
            timestamp: Timestamp::default(),
            residence: crate::Residence::default(),
        });
    prop_oneof![
        any_transfer().prop_map(RecordBody::Transfer),
        any_transfer().prop_map(RecordBody::Expired),
        (change, account).prop_map(|(change, account)| RecordBody::Account(change, account)),
        any::<u128>().prop_map(|id| RecordBody::Cancelled(TransferId::new(id))),
    ]
}

proptest! {
    #[test]
    fn every_record_comes_back(mut body in any_body(), lsn: u64, timestamp: u64, actor: u64) {
        let (lsn, timestamp) = (Lsn::new(lsn), Timestamp::from_nanos(timestamp));
        // An account's position and stamp are the record's.
        if let RecordBody::Account(_, account) = &mut body {
            (account.lsn, account.timestamp) = (lsn, timestamp);
        }
        let record = Record { lsn, timestamp, actor: CustomerId::new(actor), body };
        let bytes = encoded(&record);
        prop_assert!(bytes.len() <= RECORD_LEN_BYTES_MAX && bytes.len().is_multiple_of(8));
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic(bytes: Vec<u8>) {
        prop_assert!(Record::decode(&bytes).is_err());
    }

    /// Bodies of nonsense behind a checksum that matches: a version that we do not know, or a defect.
    #[test]
    fn nonsense_with_a_good_checksum_does_not_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 32..300), kind in 0u8..6, flags in 0u8..3,
    ) {
        let len = bytes.len() as u16;
        bytes[4..6].copy_from_slice(&len.to_le_bytes());
        (bytes[6], bytes[7]) = (kind, flags);
        let check = xxhash_rust::xxh3::xxh3_64(&bytes[4..]) as u32;
        bytes[..4].copy_from_slice(&check.to_le_bytes());
        let _ = Record::decode(&bytes);
    }
}
