//! A block: up to a mebibyte of accounts or of holds behind a header that names its checkpoint and place.
//! Every block can be checked and read alone.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CheckpointDamage;

/// Size of each block in the file, the last one too: a mebibyte is written in one direct write.
pub const BLOCK_LEN_BYTES: usize = 1 << 20;
/// Size of its header.
pub const BLOCK_HEADER_LEN_BYTES: usize = 48;
/// Room for entries.
pub const PAYLOAD_LEN_BYTES_MAX: usize = BLOCK_LEN_BYTES - BLOCK_HEADER_LEN_BYTES;
const MAGIC: [u8; 8] = *b"TSCKBLK\n";

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BlockKind {
    /// [`super::account`].
    Accounts = 1,
    /// [`super::hold`].
    Holds = 2,
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// What it holds.
    pub kind: BlockKind,
    /// Whose it is: the checkpoint's number.
    pub checkpoint: u64,
    /// Its place in the file, from 0.
    pub index: u64,
    /// Entries in it.
    pub count: u32,
    /// Bytes of entries in it.
    pub payload_len_bytes: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBlockHeader {
    magic: [u8; 8],
    kind: U32,
    count: U32,
    checkpoint: U64,
    index: U64,
    payload_len_bytes: U32,
    reserved: U32,
    check: U64,
}

const _: () = assert!(size_of::<RawBlockHeader>() == BLOCK_HEADER_LEN_BYTES);
const CHECKED_HEADER_LEN_BYTES: usize = BLOCK_HEADER_LEN_BYTES - size_of::<U64>();

impl BlockHeader {
    /// Writes the header at the front of `block`, whose entries lie behind it; returns the checksum.
    ///
    /// # Panics
    /// When `block` is shorter than the header says.
    pub fn seal(&self, block: &mut [u8]) -> u64 {
        let (head, rest) = block.split_at_mut(BLOCK_HEADER_LEN_BYTES);
        let payload = &rest[..self.payload_len_bytes as usize];
        let mut raw = RawBlockHeader {
            magic: MAGIC,
            kind: U32::new(self.kind as u32),
            count: U32::new(self.count),
            checkpoint: U64::new(self.checkpoint),
            index: U64::new(self.index),
            payload_len_bytes: U32::new(self.payload_len_bytes),
            reserved: U32::new(0),
            check: U64::new(0),
        };
        let check = check_of(&raw.as_bytes()[..CHECKED_HEADER_LEN_BYTES], payload);
        raw.check = U64::new(check);
        head.copy_from_slice(raw.as_bytes());
        check
    }

    /// Reads and checks the block that must be number `index` of `checkpoint`: header, entries, checksum.
    pub fn open(block: &[u8], checkpoint: u64, index: u64) -> Result<(Self, &[u8], u64), CheckpointDamage> {
        let (raw, rest) = RawBlockHeader::ref_from_prefix(block).map_err(|_| CheckpointDamage::Short)?;
        if raw.magic != MAGIC {
            return Err(CheckpointDamage::Magic);
        }
        let payload = rest.get(..raw.payload_len_bytes.get() as usize).ok_or(CheckpointDamage::Short)?;
        if check_of(&raw.as_bytes()[..CHECKED_HEADER_LEN_BYTES], payload) != raw.check.get() {
            return Err(CheckpointDamage::Check);
        }
        if raw.checkpoint.get() != checkpoint || raw.index.get() != index {
            return Err(CheckpointDamage::Order { expected: index, found: raw.index.get() });
        }
        let kind = match raw.kind.get() {
            1 => BlockKind::Accounts,
            2 => BlockKind::Holds,
            _ => return Err(CheckpointDamage::Field("kind")),
        };
        let header =
            Self { kind, checkpoint, index, count: raw.count.get(), payload_len_bytes: raw.payload_len_bytes.get() };
        Ok((header, payload, raw.check.get()))
    }
}

/// The checksum over all blocks up to one, from that up to the one before and the block's own.
pub fn chain(before: u64, check: u64) -> u64 {
    xxh3_64_with_seed(&check.to_le_bytes(), before)
}

fn check_of(header: &[u8], payload: &[u8]) -> u64 {
    xxh3_64_with_seed(header, xxh3_64(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_a_wrong_place_and_a_cut_are_found() {
        let header = BlockHeader { kind: BlockKind::Holds, checkpoint: 7, index: 3, count: 2, payload_len_bytes: 5 };
        let mut block = vec![0; 64];
        block[BLOCK_HEADER_LEN_BYTES..][..5].copy_from_slice(b"holds");
        let check = header.seal(&mut block);
        assert_eq!(BlockHeader::open(&block, 7, 3), Ok((header, &b"holds"[..], check)));
        for bit in 0..(BLOCK_HEADER_LEN_BYTES + 5) * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::open(&damaged, 7, 3).is_err(), "bit {bit}");
        }
        for (checkpoint, index) in [(7, 4), (8, 3)] {
            let expected = Err(CheckpointDamage::Order { expected: index, found: 3 });
            assert_eq!(BlockHeader::open(&block, checkpoint, index), expected);
        }
        for len in 0..BLOCK_HEADER_LEN_BYTES + 5 {
            assert_eq!(BlockHeader::open(&block[..len], 7, 3), Err(CheckpointDamage::Short));
        }
        assert_ne!(chain(chain(0, 1), 2), chain(chain(0, 2), 1));
    }
}
