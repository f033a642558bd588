//! The bytes of every kind of record, written down: a change of the journal's format shows up here, and needs another
//! `GROUP_FORMAT`, or a journal that was written before is misread.
//!
//! Each example is hex with the fields behind `#`, the checksum included: which function it is belongs to the format.
//! A plain transfer's bytes are beside the code, in `record_tests.rs`.

use tally_ledger::journal::record::{
    AccountChange, GIVEN_CODE, GIVEN_CREDIT, GIVEN_CURRENCY, GIVEN_DEBIT, Record, RecordBody, TransferRecord,
};
use tally_ledger::{Account, StatusChange, Sums};
use tally_protocol::message::TransferKind;
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, Amount, Currency, CustomerId, Lsn, Refusal, Timestamp, TransferId,
};

const LSN: Lsn = Lsn::new(0x4140);
const TIMESTAMP: Timestamp = Timestamp::from_nanos(0x0807_0605_0403_0201);

/// Writing `body` gives `hex`, and reading `hex` gives `body`.
#[track_caller]
fn check(body: RecordBody, hex: &str) {
    let record = Record { lsn: LSN, timestamp: TIMESTAMP, actor: CustomerId::new(5), body };
    let digits = hex.lines().flat_map(|line| line.split('#').next().unwrap_or("").chars());
    let digits: Vec<u32> = digits.filter_map(|digit| digit.to_digit(16)).collect();
    let expected: Vec<u8> = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    let mut bytes = vec![0xee; record.body.len_bytes()];
    record.encode_into(&mut bytes);
    let shown = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(&bytes), shown(&expected), "{:?}", record.body);
    assert_eq!(Record::decode(&expected), Ok(record));
}

fn account() -> Account {
    Account {
        id: AccountId::new(0x0001_0000_0000_0000_0000_0000_0000_1234),
        owner: CustomerId::new(0x2222),
        user_data_128: 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110,
        user_data_64: 0x2726_2524_2322_2120,
        user_data_32: 0x3332_3130,
        currency: Currency::EUR,
        code: 0x0a0b,
        flags: 1,
        kind: AccountKind::Settlement,
        status: AccountStatus::Frozen,
        overdraft: Amount::new(0x1000),
        day_limit: Amount::MAX,
        day_spent: Amount::new(0x90),
        day: 20_000,
        sums: Sums {
            debits_held: Amount::new(0x11),
            debits_posted: Amount::new(0x22),
            credits_held: Amount::new(0x33),
            credits_posted: Amount::new(0x44),
        },
        opened_at: Timestamp::from_nanos(0x77),
        lsn: LSN,
        timestamp: TIMESTAMP,
        residence: tally_ledger::Residence::default(),
    }
}

/// A hold as it is recorded when it is over: nothing but zeros in what the extension would hold.
fn hold() -> TransferRecord {
    TransferRecord {
        id: TransferId::new(0x0102_0304),
        debit_account_id: AccountId::new(0x11),
        credit_account_id: AccountId::new(0x22),
        amount_asked: Amount::new(0x190),
        amount: Amount::new(0x190),
        day_spent: Amount::new(0x32),
        day: 20_000,
        debit: Sums { debits_held: Amount::new(1), debits_posted: Amount::new(2), ..Sums::default() },
        credit: Sums { credits_held: Amount::new(3), credits_posted: Amount::new(4), ..Sums::default() },
        code: 7,
        currency: 978,
        flags: 0,
        refusal: None,
        status: StatusChange::NONE,
        kind: TransferKind::Hold,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        given: GIVEN_DEBIT | GIVEN_CREDIT | GIVEN_CURRENCY | GIVEN_CODE,
        reference: TransferId::NONE,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        timeout_s: 0,
    }
}

#[test]
fn an_account() {
    check(
        RecordBody::Account(AccountChange::Frozen, account()),
        "
        14 30 e0 68                                       # check
        a8 00  03  00                                     # len_bytes (168), kind, flags
        40 41 00 00 00 00 00 00                           # lsn
        01 02 03 04 05 06 07 08                           # timestamp
        05 00 00 00 00 00 00 00                           # actor
        34 12 00 00 00 00 00 00 00 00 00 00 00 00 01 00   # id
        10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f   # user_data_128
        22 22 00 00 00 00 00 00                           # owner
        20 21 22 23 24 25 26 27                           # user_data_64
        00 10 00 00 00 00 00 00                           # overdraft
        ff ff ff ff ff ff ff ff                           # day_limit
        90 00 00 00 00 00 00 00                           # day_spent
        77 00 00 00 00 00 00 00                           # opened_at
        11 00 00 00 00 00 00 00                           # debits_held
        22 00 00 00 00 00 00 00                           # debits_posted
        33 00 00 00 00 00 00 00                           # credits_held
        44 00 00 00 00 00 00 00                           # credits_posted
        20 4e 00 00                                       # day
        30 31 32 33                                       # user_data_32
        d2 03  0b 0a  01 00                               # currency, code, flags
        03  02  03                                        # kind, status, change
        00 00 00 00 00 00 00                              # reserved
        ",
    );
}

#[test]
fn each_change_of_an_account_has_its_number() {
    for (change, number) in [
        (AccountChange::Opened, 1),
        (AccountChange::Closed, 2),
        (AccountChange::Frozen, 3),
        (AccountChange::Unfrozen, 4),
        (AccountChange::LimitsSet, 5),
    ] {
        let body = RecordBody::Account(change, account());
        let record = Record { lsn: LSN, timestamp: TIMESTAMP, actor: CustomerId::BANK, body };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert_eq!(bytes[160], number, "{change:?}");
    }
}

#[test]
fn what_becomes_of_both_accounts_status_is_one_byte() {
    for raw in 0..16 {
        let status = StatusChange::from_raw(raw).expect("four bits");
        let body = RecordBody::Expired(TransferRecord { status, ..hold() });
        let record = Record { lsn: LSN, timestamp: TIMESTAMP, actor: CustomerId::new(5), body };
        let mut bytes = vec![0; record.body.len_bytes()];
        record.encode_into(&mut bytes);
        assert_eq!(bytes[183], raw);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
}

#[test]
fn an_expired_hold() {
    check(
        RecordBody::Expired(hold()),
        "
        0e 88 17 cb                                       # check
        b8 00  02  00                                     # len_bytes (184), kind, flags
        40 41 00 00 00 00 00 00                           # lsn
        01 02 03 04 05 06 07 08                           # timestamp
        05 00 00 00 00 00 00 00                           # actor
        04 03 02 01 00 00 00 00 00 00 00 00 00 00 00 00   # id
        11 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # debit_account_id
        22 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # credit_account_id
        90 01 00 00 00 00 00 00                           # amount_asked
        90 01 00 00 00 00 00 00                           # amount
        32 00 00 00 00 00 00 00                           # day_spent
        01 00 00 00 00 00 00 00                           # debit: debits_held
        02 00 00 00 00 00 00 00                           # debits_posted
        00 00 00 00 00 00 00 00                           # credits_held
        00 00 00 00 00 00 00 00                           # credits_posted
        00 00 00 00 00 00 00 00                           # credit: debits_held
        00 00 00 00 00 00 00 00                           # debits_posted
        03 00 00 00 00 00 00 00                           # credits_held
        04 00 00 00 00 00 00 00                           # credits_posted
        20 4e 00 00                                       # day
        07 00  d2 03  00 00  00 00                        # code, currency, flags, refusal
        04  0f  00 00                                     # kind, given, reserved
        ",
    );
}

/// The settlement account 17 has taken the place of account 34.
#[test]
fn a_hold_of_an_account_that_has_gone() {
    check(
        RecordBody::Rehomed(hold()),
        "
        14 c6 84 d6                                       # check
        b8 00  06  00                                     # len_bytes (184), kind, flags
        40 41 00 00 00 00 00 00                           # lsn
        01 02 03 04 05 06 07 08                           # timestamp
        05 00 00 00 00 00 00 00                           # actor
        04 03 02 01 00 00 00 00 00 00 00 00 00 00 00 00   # id
        11 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # debit_account_id
        22 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # credit_account_id
        90 01 00 00 00 00 00 00                           # amount_asked
        90 01 00 00 00 00 00 00                           # amount
        32 00 00 00 00 00 00 00                           # day_spent
        01 00 00 00 00 00 00 00                           # debit: debits_held
        02 00 00 00 00 00 00 00                           # debits_posted
        00 00 00 00 00 00 00 00                           # credits_held
        00 00 00 00 00 00 00 00                           # credits_posted
        00 00 00 00 00 00 00 00                           # credit: debits_held
        00 00 00 00 00 00 00 00                           # debits_posted
        03 00 00 00 00 00 00 00                           # credits_held
        04 00 00 00 00 00 00 00                           # credits_posted
        20 4e 00 00                                       # day
        07 00  d2 03  00 00  00 00                        # code, currency, flags, refusal
        04  0f  00 00                                     # kind, given, reserved
        ",
    );
}

/// With its extension, and refused.
#[test]
fn a_settle_that_was_refused() {
    let settle = TransferRecord {
        amount: Amount::ZERO,
        flags: 1,
        refusal: Some(Refusal::InsufficientFunds),
        kind: TransferKind::Settle,
        chain: None,
        leg: tally_ledger::Leg::Whole,
        given: 0,
        reference: TransferId::new(0x0504),
        user_data_128: 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110,
        user_data_64: 0x2726_2524_2322_2120,
        user_data_32: 0x3332_3130,
        timeout_s: 60,
        ..hold()
    };
    check(
        RecordBody::Transfer(settle),
        "
        bf ba 95 63                                       # check
        e8 00  01  01                                     # len_bytes (232), kind, flags
        40 41 00 00 00 00 00 00                           # lsn
        01 02 03 04 05 06 07 08                           # timestamp
        05 00 00 00 00 00 00 00                           # actor
        04 03 02 01 00 00 00 00 00 00 00 00 00 00 00 00   # id
        11 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # debit_account_id
        22 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # credit_account_id
        90 01 00 00 00 00 00 00                           # amount_asked
        00 00 00 00 00 00 00 00                           # amount
        32 00 00 00 00 00 00 00                           # day_spent
        01 00 00 00 00 00 00 00                           # debit: debits_held
        02 00 00 00 00 00 00 00                           # debits_posted
        00 00 00 00 00 00 00 00                           # credits_held
        00 00 00 00 00 00 00 00                           # credits_posted
        00 00 00 00 00 00 00 00                           # credit: debits_held
        00 00 00 00 00 00 00 00                           # debits_posted
        03 00 00 00 00 00 00 00                           # credits_held
        04 00 00 00 00 00 00 00                           # credits_posted
        20 4e 00 00                                       # day
        07 00  d2 03  01 00  e5 00                        # code, currency, flags, refusal (229)
        05  00  00 00                                     # kind, given, reserved
        04 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00   # extension: reference
        10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f   # user_data_128
        20 21 22 23 24 25 26 27                           # user_data_64
        30 31 32 33                                       # user_data_32
        3c 00 00 00                                       # timeout_s
        ",
    );
}

#[test]
fn a_cancelled_id() {
    check(
        RecordBody::Cancelled(TransferId::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100)),
        "
        2e 91 ff be                                       # check
        30 00  04  00                                     # len_bytes (48), kind, flags
        40 41 00 00 00 00 00 00                           # lsn
        01 02 03 04 05 06 07 08                           # timestamp
        05 00 00 00 00 00 00 00                           # actor
        00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f   # id
        ",
    );
}
