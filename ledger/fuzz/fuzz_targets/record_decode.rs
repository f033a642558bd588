//! Any bytes are refused, or are a record that is written and read back as the same one.
//!
//! A random checksum would be wrong nearly always, and everything behind it never reached: so the bytes are
//! tried twice, as they are and with the checksum that fits them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_ledger::journal::record::{Record, RecordError};
use xxhash_rust::xxh3::xxh3_64;

fn check(bytes: &[u8]) -> Option<RecordError> {
    let record = match Record::decode(bytes) {
        Ok(record) => record,
        Err(error) => return Some(error),
    };
    let mut out = vec![0xaa; record.body.len_bytes()];
    record.encode_into(&mut out);
    assert_eq!(Record::decode(&out), Ok(record));
    None
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    if check(&bytes) != Some(RecordError::Check) {
        return;
    }
    let len_bytes = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    let fitting = xxh3_64(&bytes[4..len_bytes]) as u32;
    bytes[..4].copy_from_slice(&fitting.to_le_bytes());
    assert_ne!(check(&bytes), Some(RecordError::Check));
});
