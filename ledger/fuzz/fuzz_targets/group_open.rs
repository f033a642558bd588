//! Any bytes are refused, or are a group; a group that was sealed is opened as the same one, and with any
//! bit flipped it is not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_ledger::journal::group::{Chain, Epoch, GROUP_HEADER_LEN_BYTES, GroupError, GroupHeader};
use tally_ledger::journal::record::Record;
use tally_protocol::{Lsn, Timestamp};

fuzz_target!(|input: (&[u8], [u64; 4], [u32; 3])| {
    let (bytes, [start, previous, durable, stamp], [epoch, record_count, flip]) = input;
    let _ = GroupHeader::peek(bytes);
    if let Ok((header, payload, _)) = GroupHeader::open(bytes) {
        assert_eq!(payload.len() + GROUP_HEADER_LEN_BYTES, header.len_bytes());
    }

    let header = GroupHeader {
        epoch: Epoch::new(epoch),
        start: Lsn::new(start),
        payload_len_bytes: bytes.len() as u32,
        record_count,
        previous: Chain::new(previous),
        durable: Lsn::new(durable),
        last_timestamp: Timestamp::from_nanos(stamp),
    };
    let mut sealed = vec![0; GROUP_HEADER_LEN_BYTES];
    let space: &mut [u8; GROUP_HEADER_LEN_BYTES] = sealed.as_mut_slice().try_into().expect("its length");
    let chain = header.seal(space, bytes);
    sealed.extend_from_slice(bytes);
    assert_eq!(GroupHeader::open(&sealed), Ok((header, bytes, chain)));

    // What lies in a group is read record by record, and ends somewhere.
    let mut rest = bytes;
    while let Ok(record) = Record::decode(rest) {
        rest = &rest[record.body.len_bytes().min(rest.len())..];
    }

    let bit = flip as usize % (sealed.len() * 8);
    sealed[bit / 8] ^= 1 << (bit % 8);
    assert!(GroupHeader::open(&sealed).is_err(), "bit {bit}");
    sealed[bit / 8] ^= 1 << (bit % 8);
    sealed.truncate(flip as usize % sealed.len());
    assert!(matches!(GroupHeader::open(&sealed), Err(GroupError::Short)));
});
