//! A group: the records that one flush makes durable, behind a header that proves them whole.
//!
//! ```text
//!  0       8        12       16       24        28       32                40        48           56         64
//!  | magic | format | epoch  | start  | payload | records | previous check  | durable | last stamp | check    | records ...
//!  '-------------------------------- 64 bytes, all little-endian ---------------------------------'
//! ```
//!
//! `check` covers the header before it and the records behind it; `previous check` is that of the group
//! before, so that groups form a chain: a record that a recycled segment still holds has a good checksum,
//! but neither this position nor this chain. `durable` is the durable position known when the group was
//! written: damage below it cannot be a torn write, and is refused.

use tally_protocol::{Lsn, Timestamp};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of the header in front of a group's records.
pub const GROUP_HEADER_LEN_BYTES: usize = 64;
/// The layout that this code writes.
pub const GROUP_FORMAT: u32 = 1;
/// Bytes 4 and 5 would be a record's length; `0xffff` is none, so a group is never taken for a record.
const MAGIC: [u8; 8] = *b"TSGR\xff\xff\r\n";

/// Which run of the server wrote a group: one higher at each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(u32);

impl Epoch {
    /// Before the first start.
    pub const NONE: Self = Self(0);
    /// Wraps a raw number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0
    }
    /// The next start's.
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("four billion starts"))
    }
}

/// A group's checksum, which the next group repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chain(u64);

impl Chain {
    /// Before the first group.
    pub const START: Self = Self(0);
    /// Wraps a raw checksum.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw checksum.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a group's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// Which run wrote it.
    pub epoch: Epoch,
    /// Where it lies in the log.
    pub start: Lsn,
    /// Bytes of records behind the header.
    pub payload_len_bytes: u32,
    /// How many records these are.
    pub record_count: u32,
    /// The checksum of the group before.
    pub previous: Chain,
    /// What was durable when it was written.
    pub durable: Lsn,
    /// The stamp of its last record, or of the last before it.
    pub last_timestamp: Timestamp,
}

/// Why bytes are not a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// No group was ever written here.
    #[error("no group")]
    NotAGroup,
    /// Written by a version that this one does not know.
    #[error("group format {0} is unknown")]
    Format(u32),
    /// The bytes end before the group does.
    #[error("group cut short")]
    Short,
    /// The checksum does not match.
    #[error("group checksum does not match")]
    Check,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawGroupHeader {
    magic: [u8; 8],
    format: U32,
    epoch: U32,
    start: U64,
    payload_len_bytes: U32,
    record_count: U32,
    previous: U64,
    durable: U64,
    last_timestamp: U64,
    check: U64,
}

const _: () = assert!(size_of::<RawGroupHeader>() == GROUP_HEADER_LEN_BYTES);
const CHECKED_HEADER_LEN_BYTES: usize = GROUP_HEADER_LEN_BYTES - size_of::<U64>();

impl GroupHeader {
    /// Writes the header in front of its records, and returns the checksum of both.
    ///
    /// # Panics
    /// When `payload` is not as long as the header says.
    pub fn seal(&self, header: &mut [u8; GROUP_HEADER_LEN_BYTES], payload: &[u8]) -> Chain {
        assert!(
            payload.len() == self.payload_len_bytes as usize,
            "group of {} bytes over {}",
            self.payload_len_bytes,
            payload.len()
        );
        let mut raw = RawGroupHeader {
            magic: MAGIC,
            format: U32::new(GROUP_FORMAT),
            epoch: U32::new(self.epoch.get()),
            start: U64::new(self.start.get()),
            payload_len_bytes: U32::new(self.payload_len_bytes),
            record_count: U32::new(self.record_count),
            previous: U64::new(self.previous.get()),
            durable: U64::new(self.durable.get()),
            last_timestamp: U64::new(self.last_timestamp.as_nanos()),
            check: U64::new(0),
        };
        let check = check_of(&raw.as_bytes()[..CHECKED_HEADER_LEN_BYTES], payload);
        raw.check = U64::new(check);
        header.copy_from_slice(raw.as_bytes());
        Chain(check)
    }

    /// Reads the header at the front of `bytes`, and the checksum in it, without looking at the records:
    /// [`open`](Self::open) must follow before a header of unknown origin is believed.
    pub fn peek(bytes: &[u8]) -> Result<(Self, Chain), GroupError> {
        let (raw, _) = RawGroupHeader::ref_from_prefix(bytes).map_err(|_| GroupError::Short)?;
        if raw.magic != MAGIC {
            return Err(GroupError::NotAGroup);
        }
        if raw.format.get() != GROUP_FORMAT {
            return Err(GroupError::Format(raw.format.get()));
        }
        let header = Self {
            epoch: Epoch(raw.epoch.get()),
            start: Lsn::new(raw.start.get()),
            payload_len_bytes: raw.payload_len_bytes.get(),
            record_count: raw.record_count.get(),
            previous: Chain(raw.previous.get()),
            durable: Lsn::new(raw.durable.get()),
            last_timestamp: Timestamp::from_nanos(raw.last_timestamp.get()),
        };
        Ok((header, Chain(raw.check.get())))
    }

    /// Reads and checks the group at the front of `bytes`: header, records, checksum.
    pub fn open(bytes: &[u8]) -> Result<(Self, &[u8], Chain), GroupError> {
        let (header, chain) = Self::peek(bytes)?;
        let payload = bytes.get(GROUP_HEADER_LEN_BYTES..header.len_bytes()).ok_or(GroupError::Short)?;
        let (raw, _) = RawGroupHeader::ref_from_prefix(bytes).map_err(|_| GroupError::Short)?;
        if check_of(&raw.as_bytes()[..CHECKED_HEADER_LEN_BYTES], payload) != chain.get() {
            return Err(GroupError::Check);
        }
        Ok((header, payload, chain))
    }

    /// Header and records, without padding.
    pub const fn len_bytes(&self) -> usize {
        GROUP_HEADER_LEN_BYTES + self.payload_len_bytes as usize
    }
}

fn check_of(header: &[u8], payload: &[u8]) -> u64 {
    // Two one-shot passes: the streaming form costs more than the whole of a small group.
    xxh3_64_with_seed(header, xxh3_64(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed() -> (GroupHeader, Vec<u8>, Chain) {
        let header = GroupHeader {
            epoch: Epoch::new(3),
            start: Lsn::new(8192),
            payload_len_bytes: 7,
            record_count: 1,
            previous: Chain::new(0x1122_3344_5566_7788),
            durable: Lsn::new(4096),
            last_timestamp: Timestamp::from_nanos(99),
        };
        let mut head = [0; GROUP_HEADER_LEN_BYTES];
        let chain = header.seal(&mut head, b"records");
        (header, [&head[..], b"records"].concat(), chain)
    }

    #[test]
    fn golden_bytes() {
        let (header, bytes, chain) = sealed();
        let mut expected = b"TSGR\xff\xff\r\n".to_vec();
        expected.extend([1, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend(8192u64.to_le_bytes());
        expected.extend([7, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend(0x1122_3344_5566_7788u64.to_le_bytes());
        expected.extend(4096u64.to_le_bytes());
        expected.extend(99u64.to_le_bytes());
        expected.extend(chain.get().to_le_bytes());
        expected.extend(b"records");
        assert_eq!(bytes, expected);
        assert_eq!(chain.get(), 0x647b6ae675daaded, "the checksum itself is part of the format");
        assert_eq!(GroupHeader::open(&bytes), Ok((header, &b"records"[..], chain)));
        assert_eq!(GroupHeader::peek(&bytes[..64]), Ok((header, chain)));
    }

    #[test]
    fn every_changed_bit_is_found() {
        let (_, bytes, _) = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::open(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_found_and_what_follows_does_not_matter() {
        let (header, mut bytes, chain) = sealed();
        for len in 0..bytes.len() {
            assert_eq!(GroupHeader::open(&bytes[..len]), Err(GroupError::Short), "{len} bytes");
        }
        bytes.extend([0xaa; 100]);
        assert_eq!(GroupHeader::open(&bytes), Ok((header, &b"records"[..], chain)));
        assert_eq!(GroupHeader::open(&[0; 4096]), Err(GroupError::NotAGroup));
    }

    proptest! {
        #[test]
        fn nonsense_is_an_error_and_no_panic(mut bytes: Vec<u8>, magic: bool) {
            if magic && bytes.len() >= 12 {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..12].copy_from_slice(&GROUP_FORMAT.to_le_bytes());
            }
            prop_assert!(GroupHeader::open(&bytes).is_err());
        }

        #[test]
        fn no_record_is_taken_for_a_group_nor_a_group_for_a_record(payload: Vec<u8>, start: u64) {
            let (header, ..) = sealed();
            let mut head = [0; GROUP_HEADER_LEN_BYTES];
            let header = GroupHeader { start: Lsn::new(start), payload_len_bytes: payload.len() as u32, ..header };
            header.seal(&mut head, &payload);
            let bytes = [&head[..], &payload].concat();
            prop_assert!(crate::journal::record::Record::decode(&bytes).is_err());
        }
    }
}
